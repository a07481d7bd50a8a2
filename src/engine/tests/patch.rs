//! A graph that changes under a run: settled history stays, places stay, new edges from settled nodes settle at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::build::{Build, call, identity, wait};
use super::{Driver, Mode, refold_patched, start, value};
use crate::engine::{Dispatch, Graphs, ImageError, PatchRefusal, Run, apply_patched};
use crate::ir::{Executor, Ir, Kind, On};
use crate::limits;
use crate::model::event::Patched;
use crate::model::patch::{Change, Decided, Held, PatchId, Proposal, Rejection};
use crate::model::{Event, EventBody, RunId, Status, Value};

/// fetch (waits for `go`) -> process; the order of the nodes is that of `ids`.
fn graph(hash: u8, ids: &[&str], edges: &[(&str, &str)], waits: &[&str]) -> Ir {
    let mut build = Build::new();
    for id in ids {
        let kind = if waits.contains(id) { wait("go", None) } else { identity() };
        build.node(0, id, kind);
    }
    let at = |id: &str| u32::try_from(ids.iter().position(|other| *other == id).unwrap()).unwrap();
    for (from, to) in edges {
        build.edge(0, at(from), at(to));
    }
    build.ir.document = [hash; 32];
    Arc::into_inner(build.build()).unwrap()
}

fn base() -> Ir {
    graph(1, &["fetch", "hold", "process"], &[("fetch", "process"), ("hold", "process")], &["hold"])
}

/// What comes before `patch.applied`; the graphs of these tests come from elsewhere.
fn propose(driver: &mut Driver) {
    let proposal = Proposal {
        patch_id: PatchId::new(driver.run.id(), u64::from(driver.run.version())),
        author: "anyone".into(),
        justification: "".into(),
        base_version: driver.run.version(),
        operations: value("[]"),
    };
    let body = EventBody::PatchCreated(Box::new(proposal));
    crate::engine::apply(&mut driver.run, &body, driver.now).unwrap();
    driver.record(body);
}

/// All documents of a test.
struct Known<'a>(&'a [Arc<Ir>]);

impl Graphs for Known<'_> {
    fn of(&mut self, document: &[u8; 32]) -> Option<Arc<Ir>> {
        self.0.iter().find(|ir| ir.document == *document).cloned()
    }
}

fn patch(driver: &mut Driver, ir: &Ir, touched: &[&str]) -> Result<Patched, PatchRefusal> {
    let touched: BTreeSet<Arc<str>> = touched.iter().map(|id| Arc::from(*id)).collect();
    let aligned = Arc::new(ir.aligned(driver.run.ir()));
    let body = driver.run.patch(&aligned, &touched, driver.now)?;
    let EventBody::PatchApplied(patched) = &body else { panic!("{body:?}") };
    let patched = (**patched).clone();
    propose(driver);
    apply_patched(&mut driver.run, &patched, aligned.clone(), driver.now).unwrap();
    driver.ir = aligned;
    driver.record(body);
    driver.go_on();
    Ok(patched)
}

#[test]
fn a_graph_aligned_to_itself_is_itself() {
    let mut build = Build::new();
    let body = build.body(0, false);
    let first = build.node(body, "first", identity());
    let kind = build.function(body, "nodes.first.output + item");
    let second = build.node(body, "second", kind);
    build.edge(body, first, second);
    let each = build.map(0, "inputs", body, crate::ir::OnItemError::Fail);
    build.node(0, "each", each);
    let ir = build.build();
    assert_eq!(format!("{:?}", ir.aligned(&ir)), format!("{ir:?}"));
}

#[test]
fn a_node_added_behind_a_settled_one_runs_at_once_and_history_stays() {
    // F041, I-8, I-10
    let mut driver = Driver::of(&Arc::new(base()));
    let before = driver.told();
    // `added` sorts before `fetch`: without alignment every index would move.
    let patched = graph(
        2,
        &["added", "fetch", "hold", "process"],
        &[("fetch", "added"), ("fetch", "process"), ("hold", "process")],
        &["hold"],
    );
    let event = patch(&mut driver, &patched, &["added"]).unwrap();
    assert_eq!((event.version, &event.verdicts[..]), (2, &[true][..]));
    assert_eq!(driver.told()[..before.len()], before[..], "the old events have the same names");
    assert_eq!(driver.state("added"), "completed");
    assert_eq!(driver.state("process"), "pending");
    assert_eq!(driver.run.version(), 2);
    driver.signal("go", "1");
    assert_eq!(driver.run.status(), Status::Completed);
    let again = refold_patched(&Arc::new(base()), std::slice::from_ref(&patched), &driver.history);
    assert_eq!(again, driver.run);
    // RELIABILITY 2.7: an image has the chain of changes, and the graph is aligned along it again.
    let documents = [Arc::new(base()), Arc::new(patched)];
    let imaged = Run::from_image(&driver.run.to_image().unwrap(), &mut Known(&documents)).unwrap();
    assert_eq!(imaged, driver.run);
    assert_eq!(format!("{:?}", imaged.ir()), format!("{:?}", driver.run.ir()));
    let missing = Run::from_image(&driver.run.to_image().unwrap(), &mut Known(&documents[..1]));
    assert_eq!(missing.err(), Some(ImageError::NoDocument));
}

#[test]
fn a_pending_node_may_be_taken_out_and_come_back() {
    let mut driver = Driver::of(&Arc::new(base()));
    let without = graph(2, &["fetch", "hold"], &[], &["hold"]);
    patch(&mut driver, &without, &["process"]).unwrap();
    assert_eq!(driver.states().len(), 2);
    let back = graph(
        3,
        &["fetch", "hold", "later", "process"],
        &[("hold", "later"), ("later", "process")],
        &["hold"],
    );
    patch(&mut driver, &back, &["later", "process"]).unwrap();
    assert_eq!(driver.run.version(), 3);
    driver.signal("go", "7");
    assert_eq!(driver.outputs(), value(r#"{"fetch": null, "process": 7}"#));
    assert_eq!(refold_patched(&Arc::new(base()), &[without, back], &driver.history), driver.run);
}

#[test]
fn what_has_started_is_not_touched() {
    let mut driver = Driver::of(&Arc::new(base()));
    let node = |name: &str| Err(PatchRefusal::Started { what: "the node", name: name.into() });
    let edge = |name: &str| Err(PatchRefusal::Started { what: "the edge", name: name.into() });
    let edges = [("fetch", "process"), ("hold", "process")];
    let state = driver.run.clone();
    for (ir, touched, refused) in [
        (graph(2, &["fetch", "hold", "process"], &edges, &["hold"]), &["hold"][..], node("hold")),
        (graph(2, &["hold", "process"], &[("hold", "process")], &["hold"]), &[], node("fetch")),
        (
            graph(2, &["fetch", "hold", "new", "process"], &[edges[0], edges[1], ("new", "hold")], &["hold"]),
            &["new"],
            edge("new/hold"),
        ),
        (graph(2, &["fetch", "hold", "process"], &[edges[1]], &["hold"]), &[], edge("fetch/process")),
    ] {
        assert_eq!(patch(&mut driver, &ir, touched), refused);
        assert_eq!(driver.run, state, "nothing was changed");
    }
    driver.signal("go", "1");
    assert_eq!(patch(&mut driver, &base(), &[]), Err(PatchRefusal::Over));
}

#[test]
fn a_new_edge_from_a_conditional_knows_which_branch_was_taken() {
    let build = |hash: u8, edges: &[(u32, &str)]| {
        let mut build = Build::new();
        let kind = build.conditional(0, &[("small", "input < 5"), ("big", "true")], None);
        build.node(0, "which", kind);
        let kind = wait("go", None);
        build.node(0, "hold", kind);
        build.node(0, "x", identity());
        build.node(0, "y", identity());
        for (to, branch) in edges {
            build.edge_on(0, (0, *to), On::Branch((*branch).into()), None);
        }
        build.edge(0, 1, 2);
        build.edge(0, 1, 3);
        build.ir.document = [hash; 32];
        build.build()
    };
    let mut driver = Driver::with(&build(1, &[]), "3");
    patch(&mut driver, &build(2, &[(2, "small"), (3, "big")]), &[]).unwrap();
    let Some(EventBody::PatchApplied(patched)) = driver.history.last().map(|event| &event.body) else {
        panic!("{:?}", driver.told())
    };
    assert_eq!(patched.verdicts[..], [true, false]);
}

#[test]
fn timers_and_calls_under_way_find_their_nodes_across_a_patch() {
    let build = |hash: u8, more: bool| {
        let mut build = Build::new();
        if more {
            build.node(0, "a_new_one", identity());
        }
        let body = build.body(0, true);
        let kind = call(&build, body, Executor::Http);
        build.node(body, "body", kind);
        build.node(0, "sub", Kind::Composite { body });
        build.ir.document = [hash; 32];
        build.build()
    };
    let mut driver = Driver::begin(&start(&build(1, false), value("1")), Mode::Bursts(512));
    let before = driver.run.dispatches();
    let before: Vec<_> =
        before.into_iter().map(|dispatch| Dispatch { document: [2; 32], ..dispatch }).collect();
    patch(&mut driver, &build(2, true), &["a_new_one"]).unwrap();
    assert_eq!(driver.run.dispatches(), before);
    driver.settle("sub", Ok("5"));
    assert_eq!(driver.outputs(), value(r#"{"a_new_one": 1, "sub": 5}"#));
}

/// The fold refuses a patch that could not have been decided.
#[test]
fn a_patch_that_does_not_follow_is_refused_by_the_fold() {
    let mut driver = Driver::of(&Arc::new(base()));
    let ir =
        graph(2, &["a", "fetch", "hold", "process"], &[("fetch", "process"), ("hold", "process")], &["hold"]);
    let aligned = Arc::new(ir.aligned(driver.run.ir()));
    let good = Patched { version: 2, document: [2; 32], verdicts: [].into_iter().collect() };
    assert!(
        apply_patched(&mut driver.run, &good, aligned.clone(), driver.now).is_err(),
        "nobody proposed it"
    );
    propose(&mut driver);
    let (state, now) = (driver.run.clone(), driver.now);
    let mut refuse = |patched: Patched, ir: &Arc<Ir>| {
        assert!(apply_patched(&mut driver.run, &patched, ir.clone(), now).is_err());
        assert_eq!(driver.run, state);
    };
    refuse(Patched { version: 3, ..good.clone() }, &aligned);
    refuse(Patched { document: [3; 32], ..good.clone() }, &aligned);
    refuse(Patched { verdicts: [true].into_iter().collect(), ..good.clone() }, &aligned);
    refuse(good.clone(), &Arc::new(ir));
    let bare = Event { seq: 9, at: driver.now, body: EventBody::PatchApplied(Box::new(good)) };
    assert!(crate::engine::apply(&mut driver.run, &bare.body, bare.at).is_err(), "it needs its graph");
    let _: &Run = &driver.run;
}

// I-19
#[test]
fn patches_that_the_run_would_have_to_keep_are_bounded() {
    let mut driver = Driver::of(&Arc::new(base()));
    let change = |bytes: usize| {
        let operations = Value::string("x".repeat(bytes));
        Change::Patch(Box::new(Proposal {
            patch_id: PatchId::new(driver.run.id(), 1),
            author: "anyone".into(),
            justification: "".into(),
            base_version: 1,
            operations,
        }))
    };
    let (fits, not) =
        (change(limits::PATCH_BYTES_PER_RUN_MAX - 1_000), change(limits::PATCH_BYTES_PER_RUN_MAX));
    assert_eq!(driver.run.room_for(&fits), Ok(()));
    let limit = |refused| match refused {
        Err(PatchRefusal::Limit { limit, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(driver.run.room_for(&not)), "patch_bytes_per_run_max");
    let rejection = Rejection {
        patch_id: PatchId::new(driver.run.id(), 2),
        author: "anyone".into(),
        code: "patch_invalid".into(),
        message: "".into(),
    };
    let rejected = EventBody::PatchRejected(Box::new(rejection));
    for _ in 0..limits::PATCH_REJECTIONS_PER_RUN_MAX {
        assert_eq!(driver.run.patch_limit(), None);
        crate::engine::apply(&mut driver.run, &rejected, driver.now).unwrap();
    }
    assert_eq!(limit(driver.run.room_for(&fits)), "patch_rejections_per_run_max");
}

// F192: what waits counts towards the limits, is in the image, and is decided once.
#[test]
fn what_waits_for_a_human_is_counted_and_kept() {
    let mut driver = Driver::of(&Arc::new(base()));
    let held = |number: u64, bytes: usize| {
        let proposal = Proposal {
            patch_id: PatchId::new(RunId::from_bytes([7; 16]), number),
            author: "agent".into(),
            justification: "".into(),
            base_version: 1,
            operations: Value::string("x".repeat(bytes)),
        };
        Held { proposal, version: 1, reason: "agent is an agent".into() }
    };
    let fold = |driver: &mut Driver, body: EventBody| {
        let folded = crate::engine::apply(&mut driver.run, &body, driver.now);
        if folded.is_ok() {
            driver.record(body);
        }
        folded
    };
    let before = driver.run.value_bytes();
    let large = held(1, limits::PATCH_BYTES_PER_RUN_MAX / 2);
    fold(&mut driver, EventBody::PatchHeld(Box::new(large.clone()))).unwrap();
    fold(&mut driver, EventBody::PatchHeld(Box::new(held(2, 10)))).unwrap();
    fold(&mut driver, EventBody::PatchHeld(Box::new(held(2, 10)))).unwrap_err();
    assert!(driver.run.value_bytes() > before + limits::PATCH_BYTES_PER_RUN_MAX / 2);
    let change = |held: &Held| Change::Patch(Box::new(held.proposal.clone()));
    let other = held(3, limits::PATCH_BYTES_PER_RUN_MAX / 2);
    assert!(matches!(
        driver.run.room_for(&change(&other)),
        Err(PatchRefusal::Limit { limit: "patch_bytes_per_run_max", .. })
    ));
    assert_eq!(driver.run.room_for(&change(&large)), Ok(()), "it is counted already");
    let image = driver.run.to_image().unwrap();
    let graphs = [Arc::new(base())];
    let again = Run::from_image(&image, &mut Known(&graphs)).unwrap();
    assert_eq!(again, driver.run);
    assert!(again.holds(large.proposal.patch_id));
    for (number, approved) in [(1, true), (2, false)] {
        let patch_id = held(number, 0).proposal.patch_id;
        let decided = Decided { patch_id, approved, by: "ann".into(), reason: "".into() };
        fold(&mut driver, EventBody::PatchDecided(Box::new(decided.clone()))).unwrap();
        fold(&mut driver, EventBody::PatchDecided(Box::new(decided))).unwrap_err();
    }
    assert_eq!(driver.run.value_bytes(), before);
}
