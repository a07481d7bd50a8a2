//! The node dies at each named place, under everything that clients, workers and services do (RELIABILITY A2). Each place is
//! proven hit: the process ends by itself, there.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use aob::failpoint::FAILPOINTS;
use aob_checker::record::FaultKind;
use serde_json::json;

use crate::harness::{Client, Node, Options, in_background};
use crate::kills::{full, judge, kill, memory_directory, options, serve};
use crate::recorder::load::{self, Crowd, Everybody};
use crate::recorder::{Dice, World};

/// How long a place may take to be passed.
const HIT_WITHIN: Duration = Duration::from_secs(60);
/// Clients that start runs of which one goes at a time: at least two of them wait for a slot.
const GATED_CLIENTS: usize = 3;
/// Calls under way when a node is to leave some open: one may be given up by a client meanwhile.
const OPEN_CALLS: u64 = 3;
/// Places tried before everything is looked over.
const PLACES_PER_DIRECTORY: usize = 12;

/// Places that are not about dying: they make something else happen.
const NO_END: [&str; 1] = ["journal::roll_early"];
/// Places that are passed only once a segment's runs are forgotten; see [`forgotten`].
const FORGETTING: [&str; 7] = [
    "history::before_files",
    "history::after_files",
    "history::moved",
    "history::before_expire",
    "history::after_expire",
    "journal::before_retire",
    "journal::after_retire",
];

/// At which pass of the place the process dies: often passed places late, others at once.
fn pass(name: &str, dice: &mut Dice) -> u64 {
    match name {
        "shard::turn" => 1 + dice.below(2_000),
        _ if name.starts_with("drain::") || name.starts_with("registry::") || name.ends_with("_images") => 1,
        "recovery::burst" => 1 + dice.below(10),
        _ if name.starts_with("recovery::") || name.contains("claim") => 1 + dice.below(2),
        "shard::lost"
        | "journal::prepare"
        | "journal::prepared"
        | "journal::before_roll"
        | "journal::after_roll" => 1,
        _ if name.starts_with("journal::") || name.starts_with("runner::") => 1 + dice.below(60),
        _ => 1 + dice.below(6),
    }
}

fn armed(options: &Options, name: &str, pass: u64) -> Options {
    let rolls = ["journal::before_roll", "journal::after_roll", "journal::prepare", "journal::prepared"];
    let more = if rolls.contains(&name) { ",journal::roll_early=error@20" } else { "" };
    options.clone().env("AOB_FAILPOINTS", &format!("{name}=kill@{pass}{more}"))
}

/// Was it SIGKILL, and not ours?
fn died(status: std::process::ExitStatus, name: &str) {
    assert_eq!(status.signal(), Some(9), "{name}: {status}");
}

/// Kills a node that waits for answers of calls: what the next one finds and reports lost.
fn leave_calls_open(world: &World, options: &Options) {
    let node = serve(world, options, true);
    world.hold_calls();
    assert!(world.wait_for_open_calls(OPEN_CALLS, HIT_WITHIN), "nobody is called");
    kill(world, node);
    world.let_calls_go();
}

/// Starts an armed node and waits until it has died at its place.
fn die_at(world: &World, options: &Options, name: &str, pass: u64) {
    // Only what the node before left open can be lost, and a place where that one died may be far from any call.
    if name == "shard::lost" {
        leave_calls_open(world, options);
    }
    let armed = armed(options, name, pass);
    // The world is told first: what follows from the end must not be older than the note of it.
    world.fault(FaultKind::Kill);
    let mut node = match Node::try_start(&armed) {
        Ok(node) => node,
        Err((status, log)) => {
            assert!(log.contains(&format!("failpoint {name}: kill")), "{name}: {log}");
            return died(status, name);
        }
    };
    world.fault(FaultKind::Restart);
    world.fault(FaultKind::Kill);
    world.serves(&node.address);
    // Images are taken when a segment is full, and of all runs at the end.
    if name.starts_with("drain::") || name.ends_with("_images") {
        world.wait_for_progress(50, Duration::from_millis(500));
        node.ask_to_end();
    }
    if name.starts_with("registry::") {
        let mut client = Client::new(&node.address);
        in_background(move || {
            let document =
                json!({"name": "another", "nodes": {"x": {"type": "function", "with": {"expr": "1"}}}});
            let _ = client.post_with("/v1/workflows", &[], &document);
        });
    }
    // The world starts such runs too, but seldom three of them at once.
    if name.starts_with("admission::") {
        (0..GATED_CLIENTS).for_each(|_| drop(fill(node.address.clone(), load::FILLER_GATED)));
    }
    let status = node.ends_within(HIT_WITHIN);
    world.gone();
    let status = status.unwrap_or_else(|| panic!("{name} (pass {pass}) was not passed"));
    let (_, log) = node.finish();
    assert!(log.contains(&format!("failpoint {name}: kill")), "{name}: {log}");
    died(status, name);
}

fn places() -> Vec<&'static str> {
    let all = FAILPOINTS.iter().map(|(name, _)| *name);
    // What is inside the turns of agents has a workload of its own (`agents`).
    all.filter(|name| !NO_END.contains(name) && !FORGETTING.contains(name) && !name.starts_with("agent::"))
        .collect()
}

/// Dies at each of these places, one after the other, in one directory, and looks everything over.
fn tried(seed: u64, names: &[&str]) -> aob_checker::Report {
    let directory = memory_directory();
    let options = options(directory.path());
    let world = World::new(seed, "fsync");
    let everybody = Everybody::begin(&world, Crowd::default());
    let mut dice = Dice::new(seed, 998);
    let node = serve(&world, &options, false);
    world.wait_for_progress(200, Duration::from_secs(5));
    world.fault(FaultKind::Kill);
    world.gone();
    node.kill();
    for name in names {
        die_at(&world, &options, name, pass(name, &mut dice));
    }
    let node = serve(&world, &options, true);
    world.wait_for_progress(50, Duration::from_secs(2));
    judge(&world, everybody, node, &options)
}

// RELIABILITY A2
#[test]
fn nothing_is_lost_or_doubled_wherever_the_process_dies() {
    let seeds = if full() { 20 } else { 1 };
    let names = places();
    assert!(names.len() + FORGETTING.len() >= 40);
    for seed in 1..=seeds {
        for (number, group) in names.chunks(PLACES_PER_DIRECTORY).enumerate() {
            let report = tried(seed * 100 + number as u64, group);
            println!("seed {seed}: {group:?}: {report}");
            crate::ledger::add("process faults", &[("failpoints_hit", group.len() as u64)]);
        }
    }
    println!("{} places hit, {} seeds", names.len(), seeds);
}

/// Starts short runs without a key, one after the other, until the node is gone.
fn fill(address: String, workflow: &'static str) -> std::thread::JoinHandle<()> {
    in_background(move || {
        let mut client = Client::new(&address);
        let body = json!({"workflow": workflow, "inputs": {"n": 1}});
        while client.post_with("/v1/runs", &[("prefer", "wait=10")], &body).is_ok() {}
    })
}

/// Dies at a place that is passed when a segment is archived, expires and goes back; what was not to be forgotten is there.
fn forgotten(seed: u64, name: &str) {
    let directory: tempfile::TempDir = memory_directory();
    let options = options(directory.path());
    let forgetful = options.clone().set("cores.runner", "1").set("retention", "1s");
    let world = World::new(seed, "fsync");
    *world.service.lock().unwrap() = "127.0.0.1:9".parse().ok();
    let points = format!("{name}=kill,journal::roll_early=error@20");
    let mut node = Node::start(&forgetful.clone().env("AOB_FAILPOINTS", &points));
    load::register(&world, &node.address);
    let filler = fill(node.address.clone(), load::FILLER);
    let status = node.ends_within(HIT_WITHIN).unwrap_or_else(|| panic!("{name} was not passed"));
    died(status, name);
    filler.join().unwrap();
    again(&world, directory.path(), &forgetful);
}

/// The node is as good as new: it forgets on, and what is recorded from here on is all there.
fn again(world: &std::sync::Arc<World>, directory: &Path, forgetful: &Options) {
    let node = Node::start(forgetful);
    let mut client = node.client();
    let page = client.get("/v1/runs?limit=200").expect(200).json();
    for run in page["runs"].as_array().unwrap() {
        let run_id = run["run_id"].as_str().unwrap();
        let answer = client.get(&format!("/v1/runs/{run_id}/timeline"));
        // Forgotten meanwhile, or whole.
        assert!(
            matches!(answer.status, 404 | 410) || answer.json()["events"].as_array().unwrap().len() == 4,
            "{run}"
        );
    }
    node.kill();
    let options = options(directory);
    let everybody = Everybody::begin(world, Crowd { clients: 2, workers: 1, watchers: 1, authors: 0 });
    let node = serve(world, &options, false);
    world.wait_for_progress(100, Duration::from_secs(5));
    judge(world, everybody, node, &options);
}

// RELIABILITY A2
#[test]
fn nothing_is_lost_when_the_process_dies_while_segments_are_forgotten() {
    for (number, name) in FORGETTING.iter().enumerate() {
        forgotten(500 + number as u64, name);
        println!("{name} hit");
        crate::ledger::add("process faults", &[("failpoints_hit", 1)]);
    }
}
