//! Bugs planted in the node, to see that the tests find them, each by its name. A harness that finds nothing proves nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use aob::failpoint::MUTANTS;
use aob_checker::record::FaultKind;

use crate::harness::Node;
use crate::kills::{memory_directory, options, serve};
use crate::recorder::load::{Crowd, Everybody};
use crate::recorder::{World, dump};

/// What is broken by each bug: one of these must be found.
const FOUND_AS: [(&str, &[&str]); 4] = [
    ("acknowledge_before_durable", &["lost_acknowledgement"]),
    ("effect_before_durable", &["effect_without_cause", "effect_before_cause", "too_many_calls"]),
    ("key_not_kept", &["two_runs_for_a_key"]),
    // What was seen is not there, or the run has ended otherwise since.
    ("read_before_durable", &["dirty_read", "changed_end"]),
];
/// Directories tried until a bug must have been found. A dirty read needs somebody who waits for just the run that ends in
/// the batch that is lost: about one directory in four shows it.
const TRIES_MAX: u64 = 30;
/// Ends of the node in each.
const ENDS: u64 = 8;

/// Violations after a few ends of a node with this bug, each with a batch on its way to the disk.
fn found(mutant: &str, seed: u64) -> BTreeSet<&'static str> {
    let directory = memory_directory();
    let honest = options(directory.path()).set("cores.runner", "1");
    let world = World::new(seed, "fsync");
    let everybody = Everybody::begin(&world, Crowd { clients: 10, ..Crowd::default() });
    let node = serve(&world, &honest, false);
    world.fault(FaultKind::Kill);
    world.gone();
    node.kill();
    for round in 0..ENDS {
        // The node has the bug, and dies with a batch that is never written, after what left too early has arrived.
        let points = format!("journal::before_write=kill(30)@{}", 40 + 13 * round);
        let planted = honest.clone().env("AOB_MUTANT", mutant).env("AOB_FAILPOINTS", &points);
        let mut node = Node::start(&planted);
        world.fault(FaultKind::Restart);
        world.fault(FaultKind::Kill);
        world.serves(&node.address);
        let ended = node.ends_within(Duration::from_secs(10));
        world.gone();
        assert!(ended.is_some(), "{mutant}: it writes nothing");
    }
    let node = serve(&world, &honest, true);
    world.quieten();
    dump::settle_within(&world, &node.address, (true, 5));
    everybody.end(&world);
    dump::all(&world, &node.address, (1, false));
    node.kill();
    let (report, history) = world.checked();
    println!("{mutant}: {}", report.shown(&history, 1));
    report.names()
}

/// Those that the simulator looks for.
const SIMULATED: [&str; 2] = ["take_answer_of_old_attempt", "call_before_reserved"];

#[test]
fn every_planted_bug_is_found_by_its_name() {
    let known: BTreeSet<&str> = MUTANTS.iter().map(|(name, _)| *name).collect();
    let tried = FOUND_AS.iter().map(|(name, _)| *name);
    let tried: BTreeSet<&str> = tried.chain(crate::disk::planted::HERE).chain(SIMULATED).collect();
    assert_eq!(tried, known, "a bug that nobody looks for");
    // Without a bug the same ends break nothing that a bug is found by.
    let honest = found("", 6_999);
    assert!(FOUND_AS.iter().flat_map(|(_, names)| *names).all(|name| !honest.contains(name)), "{honest:?}");
    for (mutant, names) in FOUND_AS {
        let mut all = BTreeSet::new();
        let seen = (0..TRIES_MAX).any(|seed| {
            all.extend(found(mutant, 7_000 + seed));
            names.iter().any(|name| all.contains(name))
        });
        assert!(seen, "{mutant}: found {all:?}, not {names:?}");
    }
}
