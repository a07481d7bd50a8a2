//! Runs that wait to be admitted.

use std::time::Duration;

use super::build::{Build, wait};
use super::*;
use crate::engine::{Permit, Verb};
use crate::ir::{Admission, Kind, Limited, Template};
use crate::model::event::Parent;
use crate::model::{Priority, Status};

/// Two function nodes, at most two runs of a customer at once.
fn limited(key: &str) -> Build {
    let mut build = Build::new();
    let first = build.node(0, "a", Kind::Function { expr: None });
    let second = build.node(0, "b", Kind::Function { expr: None });
    build.chain(0, &[first, second]);
    build.at(0, first).priority = Priority::High;
    let key = Template::Expr(build.expr(0, key));
    build.ir.admission = Some(Box::new(Admission { concurrency: Some(Limited { key, max: 2 }), rate: None }));
    build
}

fn begun(key: &str, inputs: &str) -> Driver {
    Driver::with(&Arc::new(limited(key).ir), inputs)
}

fn asked(driver: &Driver) -> u64 {
    let (claim, admitted) = driver.run.claim().expect("it has a claim");
    assert!(!admitted);
    claim.seq
}

#[test]
fn a_run_waits_until_it_is_admitted_and_gives_its_slot_back_with_its_end() {
    let mut driver = begun("inputs.customer", r#"{"customer": "acme"}"#);
    assert_eq!(driver.told(), ["run.started", "run.waiting"]);
    assert_eq!(driver.run.status(), Status::Pending);
    assert!(!driver.run.is_ready());
    let view = driver.run.view();
    let (wanted, admitted) = view.admission.unwrap();
    let concurrency = wanted.concurrency.clone().unwrap();
    assert_eq!((&*concurrency.key, concurrency.max, admitted), ("acme", 2, false));
    let Some(Claiming::Ask(claim)) = driver.claimed.pop() else { panic!("it did not ask") };
    assert_eq!((claim.seq, &*claim.workflow, claim.priority), (2, "w", Priority::High));
    assert_eq!(driver.run.claim(), Some(((*claim).clone(), false)), "a restart finds the same claim");

    assert!(driver.give(&Given::Admitted(1)), "it never asked under this number");
    assert!(!driver.signal("any", "1") && driver.run.status() == Status::Pending, "a signal is kept");
    assert!(!driver.give(&Given::Admitted(2)));
    let nodes = ["node.started a", "node.completed a", "node.started b", "node.completed b"];
    let mut wanted = vec!["run.started", "run.waiting", "signal.received", "run.admitted"];
    wanted.extend(nodes);
    wanted.push("run.completed");
    assert_eq!(driver.told(), wanted);
    assert!(matches!(driver.claimed.as_slice(), [Claiming::Release(released)] if released.seq == 2));
    assert_eq!(driver.run.claim(), None);
    assert!(driver.give(&Given::Admitted(2)), "over is over");
}

#[test]
fn keys_are_evaluated_once_and_what_is_no_key_fails_the_run() {
    for (key, inputs, found) in [
        ("inputs", "7", "7"),
        ("inputs", "true", "true"),
        ("inputs", "18446744073709551615", "18446744073709551615"),
        ("inputs.a + '/' + run.workflow", r#"{"a": "x"}"#, "x/w"),
    ] {
        let driver = begun(key, inputs);
        let wanted = driver.run.view().admission.unwrap().0;
        assert_eq!(&*wanted.concurrency.as_ref().unwrap().key, found);
    }
    let long = format!("\"{}\"", "k".repeat(crate::limits::ADMISSION_KEY_BYTES_MAX + 1));
    for (key, inputs, code) in [
        ("inputs", "null", "admission_key"),
        ("inputs", "[1]", "admission_key"),
        ("inputs", "1.5", "admission_key"),
        ("inputs", "\"\"", "admission_key"),
        ("inputs", &long, "admission_key_bytes_max"),
        ("inputs.nothing", "{}", "expression_no_key"),
        ("1 / inputs", "0", "expression_division_by_zero"),
    ] {
        let driver = begun(key, inputs);
        assert_eq!(driver.told(), ["run.started", "run.failed"], "{key} {inputs}");
        let failure = driver.run.view().failure.unwrap();
        assert_eq!(&*failure.code, code, "{failure:?}");
        assert!(failure.message.contains("the key of limits.concurrency"), "{failure:?}");
        assert!(driver.claimed.is_empty(), "it never asked");
    }
}

#[test]
fn a_pause_gives_up_the_place_and_an_admission_on_its_way_comes_too_late() {
    let mut driver = begun("inputs", "\"k\"");
    assert_eq!(driver.run.may(Verb::Resume), Permit::Illegal(Status::Pending));
    assert!(!driver.give(&Given::Pause));
    assert_eq!((driver.run.status(), driver.run.claim()), (Status::Paused, None));
    assert!(matches!(driver.claimed.as_slice(), [Claiming::Ask(_), Claiming::Release(_)]));
    assert!(driver.give(&Given::Admitted(2)), "paused");
    assert!(!driver.give(&Given::Resume));
    assert_eq!((driver.run.status(), asked(&driver)), (Status::Pending, 4));
    let Some(Claiming::Ask(again)) = driver.claimed.last() else { panic!("it did not ask again") };
    assert_eq!((again.seq, again.since), (4, START), "it has its old place");
    assert!(driver.give(&Given::Admitted(2)), "that was for the claim before");
    assert!(!driver.give(&Given::Admitted(4)));
    assert_eq!(driver.run.status(), Status::Completed);
}

#[test]
fn a_paused_run_that_was_admitted_keeps_its_slot() {
    let mut build = limited("inputs");
    build.at(0, 0).kind = wait("go", None);
    let mut driver = Driver::with(&Arc::new(build.ir), "1");
    driver.give(&Given::Admitted(2));
    driver.claimed.clear();
    driver.give(&Given::Pause);
    assert!(driver.run.claim().is_some_and(|(_, admitted)| admitted) && driver.claimed.is_empty());
    driver.give(&Given::Resume);
    assert_eq!((driver.run.status(), driver.claimed.len()), (Status::Running, 0));
    driver.give(&Given::Terminate);
    assert!(matches!(driver.claimed.as_slice(), [Claiming::Release(_)]));
}

#[test]
fn a_waiting_run_ends_by_cancel_terminate_deadline_or_denial_and_leaves_the_line() {
    let denied = || Given::Denied(2, Failure::fatal("concurrency_deadlock", "no"));
    for (given, status) in [
        (Given::Cancel, Status::Cancelled),
        (Given::Terminate, Status::Cancelled),
        (Given::Timer(Timer::Deadline), Status::Failed),
        (denied(), Status::Failed),
    ] {
        let mut build = limited("inputs");
        build.ir.deadline = Some(Duration::from_secs(5));
        let mut driver = Driver::with(&Arc::new(build.ir), "1");
        driver.now = START.saturating_add(Duration::from_secs(5));
        assert!(!driver.give(&given), "{given:?}");
        assert_eq!(driver.run.status(), status, "{given:?}");
        assert!(matches!(driver.claimed.as_slice(), [Claiming::Ask(_), Claiming::Release(_)]), "{given:?}");
        let nodes = driver.history.iter().filter(|event| event.body.place().is_some());
        assert_eq!(nodes.count(), 0, "nothing of it started");
    }
    let mut driver = begun("inputs", "1");
    driver.give(&Given::Admitted(2));
    assert!(driver.give(&denied()));
}

#[test]
fn a_child_asks_after_it_was_linked_and_a_node_that_dies_after_every_event_comes_to_the_same() {
    let ir = Arc::new(limited("inputs").ir);
    let parent = Parent { run_id: run_id(), place: Place::root(0), seq: 3, depth: 1 };
    let start = Start { parent: Some(parent), ..start(&ir, value("1")) };
    let event = Event { seq: 1, at: START, body: Run::begin(&start, START, 3) };
    let mut run = Run::from_started(start.run_id, ir.clone(), &event).unwrap();
    apply(&mut run, &Run::linked(&start).unwrap(), START).unwrap();
    let mut out = Outcome::default();
    advance(&mut run, Input::Continue, START, 512, &mut out).unwrap();
    assert!(matches!(out.events.as_slice(), [EventBody::RunWaiting(_)]));
    assert_eq!(run.claim().unwrap().0.parent, Some(run_id()));

    let script = [Given::Pause, Given::Resume, Given::Admitted(4)];
    let play = |mode| {
        let mut driver = Driver::begin(&super::start(&ir, value("1")), mode);
        script.iter().for_each(|given| assert!(!driver.give(given)));
        (driver.history, driver.run)
    };
    assert_eq!(play(Mode::Bursts(512)), play(Mode::CrashAfterEachEvent));
}

#[test]
fn a_history_in_which_something_starts_too_early_does_not_fold() {
    let driver = begun("inputs", "1");
    let place = Place::root(0);
    for body in [
        EventBody::NodeStarted { place: place.clone(), attempt: 1 },
        EventBody::RunCompleted { outputs: Value::Null },
        EventBody::RunResumed,
        driver.history[1].body.clone(),
    ] {
        let mut run = driver.run.clone();
        let refused = apply(&mut run, &body, START).unwrap_err();
        assert_eq!((refused.code(), &run), ("history_misfit", &driver.run), "{body:?}");
    }
    let plain = Driver::of(&Arc::new({
        let mut build = Build::new();
        build.node(0, "a", wait("go", None));
        build.ir
    }));
    for body in [EventBody::RunAdmitted, driver.history[1].body.clone()] {
        assert!(apply(&mut plain.run.clone(), &body, START).is_err(), "{body:?}");
    }
}
