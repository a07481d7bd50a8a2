//! A thread of the node panics, or stands still (RELIABILITY A5, A6): no half-dead node, and nothing is lost.

use std::time::{Duration, Instant};

use aob_checker::record::FaultKind;

use serde_json::json;

use crate::harness::{Client, Node, in_background};
use crate::kills::{judge, memory_directory, options, serve};
use crate::recorder::World;
use crate::recorder::load::{self, Crowd, Everybody};

/// A place on each kind of thread.
const THREADS: [(&str, &str); 5] = [
    ("shard::turn", "aob-runner"),
    ("journal::before_sync", "aob-runner"),
    ("errand::call", "aob-control"),
    ("index::before_put", "aob-index"),
    ("fanout::deliver", "aob-fanout"),
];

// RELIABILITY A5
#[test]
fn a_thread_that_panics_takes_the_node_down_within_a_second_and_nothing_is_lost() {
    let directory = memory_directory();
    let options = options(directory.path());
    let world = World::new(71, "fsync");
    let everybody = Everybody::begin(&world, Crowd::default());
    let node = serve(&world, &options, false);
    world.wait_for_progress(100, Duration::from_secs(5));
    world.fault(FaultKind::Kill);
    world.gone();
    node.kill();
    for (place, thread) in THREADS {
        let points = format!("{place}=panic@20");
        // Nobody waits for the names of a backtrace.
        let armed = options.clone().env("AOB_FAILPOINTS", &points).env("RUST_BACKTRACE", "0");
        let mut node = Node::start(&armed);
        world.fault(FaultKind::Restart);
        world.fault(FaultKind::Kill);
        world.serves(&node.address);
        node.says("panicked");
        let panicked = Instant::now();
        let status = node.ends_within(Duration::from_secs(10));
        let took = panicked.elapsed();
        world.gone();
        let status = status.unwrap_or_else(|| panic!("{place}: a half-dead node"));
        assert!(!status.success(), "{place}: {status}");
        assert!(took < Duration::from_secs(1), "{place}: {took:?}");
        let (_, log) = node.finish();
        assert!(log.contains(thread), "{place}: {log}");
        println!("{place}: {status} after {took:?}");
    }
    let node = serve(&world, &options, true);
    let report = judge(&world, everybody, node, &options);
    println!("threads that panic: {report}");
}

// RELIABILITY A6
#[test]
fn a_shard_that_stands_still_is_told_of_and_costs_the_others_nothing() {
    let directory = memory_directory();
    let options = options(directory.path());
    let world = World::still(81, "fsync");
    let everybody = Everybody::begin(&world, Crowd::default());
    let stands = options.clone().env("AOB_FAILPOINTS", "shard::turn=sleep(8000)@1500");
    let node = serve(&world, &stands, false);
    let said = node.says("has not moved for");
    assert!(said.contains("shard"), "{said}");
    // Its clients wait; those of the other shard are served.
    let (served, answers) = std::sync::mpsc::channel();
    for _ in 0..12 {
        let (address, served) = (node.address.clone(), served.clone());
        in_background(move || {
            let body = json!({"workflow": load::FILLER, "inputs": {"n": 1}});
            if Client::new(&address).post_with("/v1/runs", &[], &body).is_ok() {
                let _ = served.send(());
            }
        });
    }
    answers.recv_timeout(Duration::from_secs(2)).expect("somebody is served");
    node.says("moves again");
    let report = judge(&world, everybody, node, &options);
    println!("a shard stood still: {report}");
}
