//! Three nodes on one store, of which one is killed again and again, under everybody: whoever owns the store, or one that passes requests on to
//! it. Clients ask whichever of them is there.

use std::path::Path;
use std::time::{Duration, Instant};

use aob_checker::record::FaultKind;

use crate::harness::{Node, Options, store};
use crate::kills::{full, memory_directory, noted, rounds};
use crate::recorder::load::{self, Crowd, Everybody};
use crate::recorder::{Dice, World, dump};

const NODES: usize = 3;
const LEASE_SECONDS: &str = "1";

fn options(directory: &Path, server: &Path) -> Options {
    crate::kills::options(directory)
        .set("store.url", &store::of(server))
        .set("store.lease_seconds", LEASE_SECONDS)
}

/// What a client hears when nobody could do what it asked for; all of these say that it was not done.
const UNAVAILABLE: [&str; 5] = ["no_owner", "not_ready", "stopping", "store_lease_expired", "shard_fenced"];

/// How many operations of a history were refused for want of a node.
fn unavailable(history: &str) -> u64 {
    let refused = history.lines().filter(|line| {
        line.starts_with("{\"kind\":\"fail\"")
            && UNAVAILABLE.iter().any(|code| line.contains(&format!("\"code\":\"{code}\"")))
    });
    refused.count() as u64
}

/// Which of them owns the store, once one does.
fn owner(nodes: &[Option<Node>]) -> usize {
    loop {
        for (at, node) in nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            // A node that steps down begins again elsewhere.
            let info = node.client().request("GET", "/v1/node", &[], b"");
            if info.is_ok_and(|info| info.status == 200 && info.json()["cluster"]["owns"] == true) {
                return at;
            }
        }
        std::thread::yield_now();
    }
}

// F083, F213, F255, RELIABILITY A1, 2.7, I-1..I-7, I-12..I-14
#[test]
fn nothing_is_lost_or_doubled_by_killing_one_of_three_nodes_again_and_again() {
    if !store::is_there() {
        return;
    }
    let kills = rounds(5, 60);
    let directories: Vec<_> = (0..NODES).map(|_| memory_directory()).collect();
    let options: Vec<_> =
        directories.iter().map(|directory| options(directory.path(), directories[0].path())).collect();
    // A run waits for the one that takes over: timers are late by as much.
    let world = World::still(41, "redis-aof");
    let everybody = Everybody::begin(&world, Crowd::default());
    let mut nodes: Vec<Option<Node>> = vec![Some(Node::start(&options[0]))];
    load::register(&world, &nodes[0].as_ref().unwrap().address);
    nodes.extend(options[1..].iter().map(|options| Some(Node::start_or_stand_by(options))));
    let (mut dice, began) = (Dice::new(41, 999), Instant::now());
    let mut asked = 0;
    for round in 0..kills {
        world.serves(&nodes[asked].as_ref().unwrap().address);
        // Ten seconds each in the long mode, as long as it takes to do something in the short one.
        match full() {
            true => drop(world.wait_for_progress(u64::MAX / 2, Duration::from_secs(10))),
            false => drop(world.wait_for_progress(100 + dice.below(400), Duration::from_secs(20))),
        }
        let owner = owner(&nodes);
        let victim = if round % 3 < 2 { owner } else { (owner + 1) % NODES };
        world.fault(FaultKind::Kill);
        if victim == asked {
            world.gone();
        }
        nodes[victim].take().unwrap().kill();
        asked = (victim + 1 + usize::from(dice.one_in(2))) % NODES;
        world.serves(&nodes[asked].as_ref().unwrap().address);
        // Others have begun to take over, or have, or it takes its own lease back.
        if dice.one_in(2) {
            world.wait_for_progress(20, Duration::from_secs(20));
        }
        nodes[victim] = Some(Node::start_or_stand_by(&options[victim]));
        world.fault(FaultKind::Restart);
    }
    let took = began.elapsed();
    world.quieten();
    let address = nodes[asked].as_ref().unwrap().address.clone();
    dump::settle(&world, &address);
    everybody.end(&world);
    dump::all(&world, &address, (1, false));
    world.fault(FaultKind::Kill);
    nodes.into_iter().flatten().for_each(|node| drop(node.kill()));
    let last = Node::start_or_stand_by(&options[dice.below(NODES as u64) as usize]);
    world.fault(FaultKind::Restart);
    dump::all(&world, &last.address, (2, false));
    let report = world.judge();
    noted(&report);
    let refused = unavailable(&world.history());
    println!("{kills} kills in {took:?}, {refused} refused for want of a node: {report}");
    assert!(report.counts.acknowledged > kills * 20, "hardly anything was acknowledged: {report}");
}

/// `aobd drain` for this node.
fn drain(options: &Options) {
    let mut command = std::process::Command::new(&options.binary);
    command.arg("drain").arg("--data-dir").arg(&options.data_dir).args(&options.arguments);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

// F213, F255, I-1..I-7
#[test]
fn a_rolling_restart_of_three_nodes_loses_nothing_and_hardly_anybody_is_refused() {
    if !store::is_there() {
        return;
    }
    // Short, it says little that killing them does not: a drain and a wait for each of three nodes.
    if !full() {
        println!("SKIPPED a rolling restart: AOB_FULL=1 runs it");
        return;
    }
    let turns = 20;
    let directories: Vec<_> = (0..NODES).map(|_| memory_directory()).collect();
    let options: Vec<_> =
        directories.iter().map(|directory| options(directory.path(), directories[0].path())).collect();
    let world = World::still(42, "redis-aof");
    let everybody = Everybody::begin(&world, Crowd::default());
    let mut nodes: Vec<Option<Node>> = vec![Some(Node::start(&options[0]))];
    load::register(&world, &nodes[0].as_ref().unwrap().address);
    nodes.extend(options[1..].iter().map(|options| Some(Node::start_or_stand_by(options))));
    let began = Instant::now();
    for turn in 0..turns * NODES {
        let (next, beside) = (turn % NODES, (turn + 1) % NODES);
        // As the edge does before a node is restarted: its clients ask another one.
        world.serves(&nodes[beside].as_ref().unwrap().address);
        world.wait_for_progress(100, Duration::from_secs(20));
        if owner(&nodes) == next {
            drain(&options[next]);
        }
        world.wait_for_progress(20, Duration::from_secs(20));
        // A call that did not end in the time of the drain is another's to make again.
        world.fault(FaultKind::Stop);
        let (status, said) = nodes[next].take().unwrap().terminate();
        assert!(status.success(), "{said}");
        nodes[next] = Some(Node::start_or_stand_by(&options[next]));
        world.fault(FaultKind::Restart);
    }
    let took = began.elapsed();
    world.quieten();
    let address = nodes[0].as_ref().unwrap().address.clone();
    dump::settle(&world, &address);
    everybody.end(&world);
    dump::all(&world, &address, (1, false));
    // The server goes with the test: nobody waits for what it does not answer.
    nodes.into_iter().flatten().for_each(|node| drop(node.kill()));
    let report = world.judge();
    let (refused, asked) = (unavailable(&world.history()), report.counts.operations);
    println!("{} restarts in {took:?}, {refused} of {asked} refused for want of a node: {report}", turns * 3);
    assert!(refused * 100 < asked, "{refused} of {asked}: {report}");
}
