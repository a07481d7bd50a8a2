//! Asks a healed node for everything: brings every run to where it can go by itself, then writes all runs and their events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aob_checker::record::{Done, FaultKind, Invoke, Record, Run, What};
use serde_json::{Value, json};

use super::changes::decision;
use super::client::{client, operation};
use super::{Guest, Known, World};
use crate::harness::http::Client;

/// Rounds of help until a run is left as it is; the checker says then that it is stuck.
const ROUNDS_MAX: usize = 40;

fn is_terminal(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

/// Everything in the listing: run to status.
fn listing(client: &mut Client, query: &str) -> BTreeMap<String, String> {
    let mut runs = BTreeMap::new();
    let mut path = format!("/v1/runs?limit=1000{query}");
    loop {
        let page = client.get(&path).expect(200).json();
        for row in page["runs"].as_array().expect("runs") {
            if row["workflow"].as_str().is_some_and(|name| name.starts_with(super::load::FILLER)) {
                continue;
            }
            let text = |member: &str| row[member].as_str().expect("a text").to_owned();
            runs.insert(text("run_id"), text("status"));
        }
        match page["next_cursor"].as_str() {
            Some(next) => path = format!("/v1/runs?limit=1000{query}&cursor={next}"),
            None => return runs,
        }
    }
}

/// What the nodes of a run wait for.
fn waits(client: &mut Client, run: &str) -> Vec<String> {
    let graph = client.get(&format!("/v1/runs/{run}/graph")).expect(200).json();
    let nodes = graph["nodes"].as_object().into_iter().flatten();
    let reasons = nodes.filter_map(|(_, node)| node["waiting"]["reason"].as_str());
    let uncertain = graph["nodes"].as_object().into_iter().flatten();
    let uncertain = uncertain.filter(|(_, node)| node["state"] == "uncertain").map(|_| "outcome");
    let all: BTreeSet<String> =
        reasons.chain(uncertain).filter(|why| *why != "edges").map(str::to_owned).collect();
    all.into_iter().collect()
}

/// From here on nothing goes wrong: paused runs go on, signals are sent, until every run has ended or waits for somebody
/// who is none of ours. Workers must still be at work.
pub fn settle(world: &World, address: &str) {
    settle_within(world, address, (true, ROUNDS_MAX));
}

/// As [`settle`]; runs that wait for a signal are left waiting when `signals` does not say otherwise.
pub fn settle_but(world: &World, address: &str, signals: bool) {
    settle_within(world, address, (signals, ROUNDS_MAX));
}

/// As [`settle_but`], with so many rounds of help at most: a broken node may never get anywhere.
pub fn settle_within(world: &World, address: &str, (signals, rounds): (bool, usize)) {
    world.fault(FaultKind::Heal);
    for guest in world.guests() {
        help(world, &mut client(address, &guest), (signals, rounds));
    }
}

fn help(world: &World, client: &mut Client, (signals, rounds): (bool, usize)) {
    for _ in 0..rounds {
        let open = listing(client, "&status=pending,running,paused");
        let mut waiting = None;
        for (run, status) in open.iter().filter(|(_, status)| !is_terminal(status)) {
            let why = waits(client, run);
            if status == "paused" {
                ask(world, client, (What::Resume, run, "resume"), &json!({}));
            } else if signals && why.iter().any(|why| why == "signal") {
                let token = world.token("settle");
                let body = json!({"payload": {"token": token}});
                ask_with(world, client, (What::Signal, run, "signals/go"), &body, Some(token));
            }
            if why.iter().any(|why| why == "human") {
                let token = world.token("settle");
                let (path, body) = decision(run, "ask", (true, &token));
                let invoke = Invoke {
                    run: Some(run.to_owned()),
                    token: Some(token),
                    ..operation("settle", What::Decide)
                };
                world.operate(invoke, || client.post_with(&path, &[], &body));
            }
            if why != ["outcome"] && (signals || status == "paused" || why != ["signal"]) {
                waiting = Some(run.clone());
            }
        }
        let Some(run) = waiting else { return };
        let wait = [("prefer", "wait=1")];
        let _ = client.request("GET", &format!("/v1/runs/{run}"), &wait, b"");
    }
}

fn ask(world: &World, client: &mut Client, of: (What, &str, &str), body: &Value) {
    ask_with(world, client, of, body, None);
}

fn ask_with(
    world: &World,
    client: &mut Client,
    (what, run, verb): (What, &str, &str),
    body: &Value,
    token: Option<String>,
) {
    let invoke = Invoke { run: Some(run.to_owned()), token, ..operation("settle", what) };
    let path = format!("/v1/runs/{run}/{verb}");
    world.operate(invoke, || client.post_with(&path, &[], body));
}

/// Writes a dump: every run of the listing, and every one that clients know. `still`: nothing may have happened since the
/// dump before. Returns the runs.
pub fn all(world: &World, address: &str, (dump, still): (u64, bool)) -> usize {
    let mut lines = Vec::new();
    let mut runs = 0;
    for guest in world.guests() {
        runs += of_guest(world, (&mut client(address, &guest), &guest), dump, &mut lines);
    }
    world.record(|at_us| Record::Dump { at_us, dump, still });
    for line in lines {
        world.record(|_| line);
    }
    runs
}

/// What one of them may see.
fn of_guest(
    world: &World,
    (client, guest): (&mut Client, &Option<Guest>),
    dump: u64,
    lines: &mut Vec<Record>,
) -> usize {
    let listed = listing(client, "");
    let mine = |known: &&Known| known.guest == *guest;
    let known: BTreeSet<String> =
        super::locked(&world.known).iter().filter(mine).map(|known| known.run.clone()).collect();
    let runs: BTreeSet<&String> = listed.keys().chain(&known).collect();
    let workspace = guest.as_ref().map(|guest| guest.workspace.clone());
    let mut documents = BTreeMap::new();
    for run in &runs {
        let answer = client.get(&format!("/v1/runs/{run}"));
        // What was acknowledged and is not there is for the checker to find out.
        if answer.status == 404 {
            continue;
        }
        let body = answer.expect(200).json();
        let ended = body["status"].as_str().is_some_and(is_terminal);
        let waits = if ended { Vec::new() } else { waits(client, run) };
        // What it began with: patches are folded onto that.
        let workflow = body["workflow"].as_str().unwrap_or_default().to_owned();
        documents
            .entry(workflow)
            .or_insert_with_key(|name| client.get(&format!("/v1/workflows/{name}")).expect(200).json());
        let listed = listed.contains_key(*run);
        let workspace = workspace.clone();
        lines.push(Record::Run(Run { dump, run: (*run).clone(), body, listed, waits, workspace }));
        events(client, run, dump, lines);
    }
    for workflow in documents.into_values() {
        let hash = workflow["hash"].as_str().expect("a hash").to_owned();
        lines.push(Record::Document { hash, document: workflow["document"].clone() });
    }
    runs.len()
}

fn events(client: &mut Client, run: &str, dump: u64, lines: &mut Vec<Record>) {
    let mut path = format!("/v1/runs/{run}/timeline?limit=1000");
    loop {
        let page = client.get(&path).expect(200).json();
        for event in page["events"].as_array().expect("events") {
            lines.push(Record::Row { dump, run: run.to_owned(), event: event.clone() });
        }
        match page["next_cursor"].as_str() {
            Some(next) => path = format!("/v1/runs/{run}/timeline?limit=1000&cursor={next}"),
            None => return,
        }
    }
}

/// A read that must succeed, recorded.
pub fn read(world: &Arc<World>, client: &mut Client, run: &str) {
    let invoke = Invoke { run: Some(run.to_owned()), ..operation("reader", What::Read) };
    let path = format!("/v1/runs/{run}");
    let _: Option<Done> = match world.operate(invoke, || client.request("GET", &path, &[], b"")) {
        super::client::Ended::Ok(done) => Some(*done),
        _ => None,
    };
}
