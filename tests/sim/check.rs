//! What must hold of a simulation: nothing that a client was told is lost, doubled or changed, no effect without a durable
//! cause, every run comes to its end with the right outputs.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::{Value, json};

use super::agents;
use super::bills;
use super::forks::{self, Forked};
use super::held::{self, Decided, Held};
use super::net::{get, post};
use super::patches::{self, Patched};
use super::signals::{self, Keyed};
use super::world::World;
use super::{clock, workflows};
use crate::replay::{self, Bundle};
use crate::wire::Hash;

/// Simulated seconds until every run must have ended once nothing goes wrong any more.
const SETTLE_SECONDS_MAX: u64 = 1_800;

/// A start, as its client knows it.
#[derive(Clone, Debug)]
pub(super) struct Started {
    pub(super) workflow: &'static str,
    /// Another for every start.
    pub(super) n: u64,
    /// `None`: it was never acknowledged.
    pub(super) run_id: Option<String>,
}

/// What a client saw of a run.
#[derive(Clone, Debug)]
pub(super) struct Viewed {
    pub(super) run_id: String,
    pub(super) seq: u64,
    pub(super) status: String,
    pub(super) invoked_us: u64,
    pub(super) completed_us: u64,
}

/// What all clients were told.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) starts: Vec<Started>,
    pub(super) views: Vec<Viewed>,
    /// Acknowledged.
    pub(super) patched: Vec<Patched>,
    /// Runs whose update was acknowledged, and the number of its event.
    pub(super) updated: Vec<(String, u64)>,
    /// Signals and updates that were sent with a key.
    pub(super) keyed: Vec<Keyed>,
    /// Acknowledged.
    pub(super) held: Vec<Held>,
    /// Acknowledged.
    pub(super) decided: Vec<Decided>,
    /// Acknowledged.
    pub(super) forked: Vec<Forked>,
    /// Acknowledged.
    pub(super) cancelled: BTreeSet<String>,
    /// Somebody may have paused or ended them.
    pub(super) steered: BTreeSet<String>,
}

/// A finished run as the node tells of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dump {
    pub(super) run: Value,
    pub(super) events: Vec<Value>,
}

/// All acknowledged runs; `None` where retention has passed.
pub(super) type Dumps = BTreeMap<String, Option<Dump>>;

pub(super) fn is_terminal(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

/// An answer that must come: the node serves, and nothing goes wrong.
pub(super) async fn must(world: &World, path: &str) -> (u16, Value) {
    for _ in 0..50 {
        if let super::net::Answer::Given { status, body, .. } = get(world, path).await
            && status != 503
        {
            return (status, body);
        }
        clock::sleep_ms(100).await;
    }
    panic!("{path}: no answer though nothing goes wrong");
}

/// Waits until every acknowledged run has ended, and asks what became of it.
pub(super) async fn settle(world: &World) -> Dumps {
    let until_us = clock::passed_us() + SETTLE_SECONDS_MAX * 1_000_000;
    let mut dumps = Dumps::new();
    loop {
        let open: BTreeSet<String> =
            world.history.borrow().starts.iter().filter_map(|start| start.run_id.clone()).collect();
        let open: Vec<_> = open.into_iter().filter(|run_id| !dumps.contains_key(run_id)).collect();
        if open.is_empty() {
            return dumps;
        }
        for run_id in open {
            let (status, run) = must(world, &format!("/v1/runs/{run_id}")).await;
            if status == 404 {
                let expires = world.options.retention_ms < 60_000;
                assert!(expires || world.may_forget(), "{run_id} was acknowledged and is not there");
                dumps.insert(run_id, None);
            } else if run["status"] == "paused" && agents::is_short(&run) {
                agents::raise(world, &run_id).await;
            } else if run["status"] == "paused" {
                post(world, &format!("/v1/runs/{run_id}/resume"), json!({})).await;
            } else if is_terminal(run["status"].as_str().unwrap_or_default()) {
                if run["workflow"] == "papers" {
                    papers(world, &run).await;
                }
                let events = timeline(world, &run_id).await;
                if let Some(events) = &events {
                    graph(world, &run, events).await;
                }
                if events.is_some() {
                    replayed(world, &run).await;
                }
                dumps.insert(run_id, events.map(|events| Dump { run, events }));
            } else {
                assert!(clock::passed_us() < until_us, "{run_id} does not end: {run}");
            }
        }
        clock::sleep_ms(500).await;
    }
}

/// What is shown, or what it stands for; `None` when that is gone with its run.
async fn whole(world: &World, shown: &Value) -> Option<Value> {
    let Some(name) = shown["$cas"].as_str() else { return Some(shown.clone()) };
    world.sometimes("a value was kept by reference");
    let (status, body) = must(world, &format!("/v1/cas/{name}")).await;
    if status == 404 {
        // One that was forgotten comes back when a crash comes before its segment is given back; it refers to nothing.
        assert!(world.options.retention_ms < 60_000, "{name} is gone before its run");
        return None;
    }
    assert_eq!((status, body.to_string().len()), (200, shown["bytes"].as_u64().unwrap() as usize));
    Some(body)
}

/// Whatever a run of `papers` shows by reference is there and is what it should be.
async fn papers(world: &World, run: &Value) {
    let Some(inputs) = whole(world, &run["inputs"]).await else { return };
    let paper = workflows::paper(inputs["n"].as_i64().unwrap());
    let (reply, outputs) = (workflows::reply(&paper), &run["outputs"]);
    let mut shown = vec![(&inputs["paper"], &paper)];
    if run["status"] == "completed" {
        shown.extend([(&outputs["read"], &paper), (&outputs["written"], &reply)]);
    }
    for (value, wanted) in shown {
        let found = whole(world, value).await;
        assert!(found.is_none_or(|found| found == json!(wanted)), "{run}");
    }
}

/// A document that a patch left in place of its operations.
async fn whole_document(world: &World, hash: &str) -> Option<Value> {
    world.sometimes("a patch was kept as its document");
    let (status, body) = must(world, &format!("/v1/cas/{hash}")).await;
    if status == 404 {
        assert!(world.options.retention_ms < 60_000, "{hash} is gone before its run");
        return None;
    }
    assert_eq!(status, 200, "{body}");
    Some(body)
}

/// Its patches give what the log says they gave.
async fn graph(world: &World, run: &Value, events: &[Value]) {
    if events.iter().any(|event| event["type"].as_str().is_some_and(|kind| kind.starts_with("patch."))) {
        let path = format!("/v1/workflows/{}", run["workflow"].as_str().unwrap());
        let (status, workflow) = must(world, &path).await;
        assert_eq!((status, &workflow["hash"]), (200, &events[0]["hash"]));
        let mut documents = BTreeMap::new();
        for hash in patches::unkept(events) {
            // RELIABILITY 2.4: what the log names is there. Unless its run is gone, as for values.
            let Some(document) = whole_document(world, &hash).await else { return };
            documents.insert(hash, document);
        }
        patches::folded(&workflow["document"], events, &documents);
    }
}

/// N4, I-9: whatever the run went through, the engine decides its record again, and its state is what the node says.
async fn replayed(world: &World, run: &Value) {
    let run_id = run["run_id"].as_str().unwrap();
    let (status, file) = must(world, &format!("/v1/runs/{run_id}/bundle")).await;
    if status == 404 {
        return;
    }
    let file = file.as_str().unwrap_or_else(|| panic!("{run_id}: {status} {file}"));
    let file = base64::engine::general_purpose::STANDARD.decode(file).unwrap();
    let bundle = Bundle::from_bytes(&file).unwrap();
    let (record, _) = bundle.record().unwrap();
    let mut documents = bundle.documents(&record).unwrap();
    let verified = replay::freeze(&record, &mut documents, None);
    let verified = verified.unwrap_or_else(|error| panic!("{run_id} of {}: {error}", run["workflow"]));
    // What a fork begins with is another run's, which is judged by itself.
    let from = 1 + run["forked_from"]["seq"].as_u64().unwrap_or(0);
    assert_eq!((verified.from, verified.to), (from, run["seq"].as_u64().unwrap()));
    world.sometimes("a record was decided again");
    let (status, state) = must(world, &format!("/v1/runs/{run_id}/state")).await;
    if status != 404 {
        assert_eq!(state["hash"], Hash(&verified.hash).to_string(), "{state}");
    }
}

async fn timeline(world: &World, run_id: &str) -> Option<Vec<Value>> {
    let mut events = Vec::new();
    let mut path = format!("/v1/runs/{run_id}/timeline");
    loop {
        let (status, page) = must(world, &path).await;
        if status == 404 || status == 410 {
            return None;
        }
        assert_eq!(status, 200, "{path}: {page}");
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/runs/{run_id}/timeline?cursor={cursor}"),
            None => return Some(events),
        }
    }
}

/// What was told before a power cut must be told after it.
pub(super) fn unchanged(before: &Dumps, after: &Dumps) {
    for (run_id, dump) in before {
        let (Some(dump), Some(Some(again))) = (dump, after.get(run_id)) else { continue };
        assert_eq!(dump, again, "a power cut has changed a finished run");
    }
}

/// Checks everything that is written down.
pub(super) fn all(world: &World, dumps: &Dumps) {
    let history = world.history.borrow();
    for start in &history.starts {
        let Some(run_id) = &start.run_id else { continue };
        let Some(Some(dump)) = dumps.get(run_id) else { continue };
        ended(world, &history, start, dump);
        events(run_id, dump);
        held::once(run_id, &dump.events);
    }
    if !world.may_forget() {
        views(&history, dumps);
        for patched in &history.patched {
            if let Some(Some(dump)) = dumps.get(&patched.run_id) {
                patches::acknowledged(patched, &dump.events);
            }
        }
        updates(&history, dumps);
        held::acknowledged(&history, dumps);
        forks::acknowledged(&history, dumps);
    }
    signals::once(&history.keyed, dumps, world.may_forget());
    effects(world, dumps);
    bills::all(world, dumps);
    business_keys(dumps);
}

/// An acknowledged update stands where it was said to stand, and was the only one that its run took.
fn updates(history: &History, dumps: &Dumps) {
    let mut seen = BTreeSet::new();
    for (run_id, received) in &history.updated {
        assert!(seen.insert(run_id), "two updates of {run_id} were taken");
        let Some(Some(dump)) = dumps.get(run_id) else { continue };
        let event = dump.events.iter().find(|event| event["seq"] == json!(received));
        let event = event.unwrap_or_else(|| panic!("the update of {run_id} is gone"));
        let told = (&event["type"], &event["payload"]["by"], event["node"].is_string());
        assert_eq!(told, (&json!("signal.received"), &json!("an update"), true), "{run_id}");
    }
}

/// At most one unfinished run has a key of a workflow. All of them have one owner, and so one clock.
fn business_keys(dumps: &Dumps) {
    let mut spans: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for Dump { run, events } in dumps.values().flatten() {
        // The key is not a fork's.
        let has = |kind: &str| events.iter().find(|event| event["type"] == kind);
        let keyed = has("run.keyed").filter(|_| has("run.forked").is_none());
        let (Some(keyed), Some(first), Some(last)) = (keyed, events.first(), events.last()) else { continue };
        let span = (first["at"].as_str().unwrap(), last["at"].as_str().unwrap());
        spans.entry(format!("{} {}", run["workflow"], keyed["run_key"])).or_default().push(span);
    }
    for (key, mut spans) in spans {
        spans.sort_unstable();
        for (one, next) in spans.iter().zip(spans.iter().skip(1)) {
            assert!(one.1 <= next.0, "two unfinished runs had the key {key}: {one:?} and {next:?}");
        }
    }
}

fn ended(world: &World, history: &History, start: &Started, dump: &Dump) {
    let Dump { run, .. } = dump;
    let run_id = start.run_id.as_deref().unwrap_or_default();
    let n = i64::try_from(start.n).unwrap();
    if start.workflow != "papers" {
        assert_eq!(run["inputs"], json!({"n": n}), "{run}");
    }
    match run["status"].as_str().unwrap() {
        "completed" => {
            world.sometimes("a run completed");
            if dump.events.iter().any(|event| event["type"] == "events.derived") {
                world.sometimes("a run did not write everything down");
            }
            assert!(workflows::is_right(start.workflow, n, &run["outputs"]), "wrong outputs: {run}");
            let cancelled = history.cancelled.contains(run_id) && !world.may_forget();
            assert!(!cancelled, "a cancel was acknowledged: {run}");
        }
        "cancelled" => {
            world.sometimes("a run was cancelled");
            let replaced = dump.events.iter().any(|event| event["type"] == "run.keyed");
            assert!(replaced || history.steered.contains(run_id), "nobody cancelled {run}");
        }
        _ => match workflows::poison(start.workflow) {
            Some(code) => {
                assert!(run["error"]["code"] == code || run["error"].to_string().contains(code), "{run}");
                world.sometimes("a poisoned run failed");
            }
            None => assert!(workflows::may_fail(start.workflow), "failed: {run}"),
        },
    }
}

/// Numbers without gaps, time that does not go back, timers that are not early.
fn events(run_id: &str, dump: &Dump) {
    let (mut last, mut due) = (String::new(), BTreeMap::new());
    for (index, event) in dump.events.iter().enumerate() {
        assert_eq!(event["seq"], json!(index + 1), "{run_id} has a gap");
        let at = event["at"].as_str().unwrap().to_owned();
        assert!(last <= at, "time goes back in {run_id}: {event}");
        let node = event["node"].as_str().unwrap_or_default();
        if let Some(at) = event["due"].as_str() {
            due.insert(node, at);
        }
        if event["type"] == "timer.fired"
            && let Some(due) = due.get(node)
        {
            assert!(at.as_str() >= *due, "a timer of {run_id} was early: {event}, due {due}");
        }
        last = at;
    }
    assert_eq!(dump.run["seq"], json!(dump.events.len()), "{run_id}");
}

/// What was seen later is not older, and what was seen to have ended stayed so.
fn views(history: &History, dumps: &Dumps) {
    let mut by_end: Vec<&Viewed> = history.views.iter().collect();
    by_end.sort_by_key(|view| view.completed_us);
    let mut by_begin: Vec<&Viewed> = history.views.iter().collect();
    by_begin.sort_by_key(|view| view.invoked_us);
    let (mut seen, mut next) = (BTreeMap::<&str, u64>::new(), 0);
    for view in by_begin {
        while let Some(earlier) = by_end.get(next).filter(|earlier| earlier.completed_us < view.invoked_us) {
            let most = seen.entry(&earlier.run_id).or_default();
            *most = (*most).max(earlier.seq);
            next += 1;
        }
        let most = seen.get(&*view.run_id).copied().unwrap_or(0);
        assert!(view.seq >= most, "{view:?} is older than event {most}, which was seen before");
        if let (true, Some(Some(dump))) = (is_terminal(&view.status), dumps.get(&view.run_id)) {
            assert_eq!(dump.run["status"], json!(view.status), "{view:?}");
            assert_eq!(dump.run["seq"], json!(view.seq), "{view:?}");
        }
    }
}

/// No call without a durable cause; none twice that must be made once; no answer of an attempt that another followed.
fn effects(world: &World, dumps: &Dumps) {
    let ledger = world.ledger.borrow();
    for (key, taken) in &ledger.taken {
        assert!(taken.attempt >= taken.newest || world.may_forget(), "{key}: {taken:?}, which was over");
    }
    for (key, arrived) in &ledger.arrived {
        let mut before = (0, 0);
        for call in arrived {
            if let Some(seq) = call.seq {
                assert!(before.0 < seq && before.1 < call.attempt, "{key}: {call:?} after {before:?}");
                before = (seq, call.attempt);
            }
            let (Some(dump), Some(seq)) = (dumps.get(&call.run_id), call.seq) else { continue };
            let Some(dump) = dump else {
                assert!(world.options.retention_ms < 60_000, "{call:?} is of a run that never was");
                continue;
            };
            let cause = usize::try_from(seq).ok().and_then(|seq| dump.events.get(seq - 1));
            let kind = cause.map_or("", |event| event["type"].as_str().unwrap_or_default());
            assert!(kind.starts_with("node."), "{call:?} follows from nothing: {cause:?}");
        }
        let once = arrived.first().is_some_and(|call| call.workflow == "once");
        assert!(!once || arrived.len() == 1, "{key} was called {} times", arrived.len());
    }
    for dump in dumps.values().flatten() {
        if dump.events.iter().any(|event| event.to_string().contains("lease_expired")) {
            world.sometimes("a lease expired");
        }
    }
}
