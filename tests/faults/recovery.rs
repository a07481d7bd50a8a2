//! Killed while it comes back, again and again: it comes back all the same, to the same state (RELIABILITY A3).

use std::process::Stdio;
use std::time::Duration;

use aob_checker::record::FaultKind;

use crate::harness::Node;
use crate::kills::{full, memory_directory, noted, options, serve};
use crate::recorder::load::{Crowd, Everybody};
use crate::recorder::{Dice, World, dump};

// RELIABILITY A3, I-17
#[test]
fn killed_during_recovery_it_comes_back_to_the_same_state() {
    let kills = if full() { 50 } else { 10 };
    let directory = memory_directory();
    let options = options(directory.path());
    let world = World::new(31, "fsync");
    let everybody = Everybody::begin(&world, Crowd::default());
    let node = serve(&world, &options, false);
    world.wait_for_progress(1_500, Duration::from_secs(8));
    // Nothing is under way any more but runs that wait for a signal, or for somebody who knows.
    world.quieten();
    dump::settle_but(&world, &node.address, false);
    everybody.end(&world);
    let runs = dump::all(&world, &node.address, (1, false));
    world.fault(FaultKind::Kill);
    node.kill();
    let mut dice = Dice::new(31, 999);
    for _ in 0..kills {
        let mut command = options.clone().wanted().command();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the binary starts");
        world.wait_for_progress(u64::from(u32::MAX), Duration::from_millis(5 + dice.below(300)));
        child.kill().expect("it is ours");
        child.wait().expect("a child can be waited for");
        world.fault(FaultKind::Kill);
    }
    let node = Node::start(&options);
    world.fault(FaultKind::Restart);
    assert_eq!(dump::all(&world, &node.address, (2, true)), runs);
    let report = world.judge();
    noted(&report);
    assert!(report.counts.runs > 100, "hardly any run: {report}");
    println!("{kills} kills during recovery: {report}");
}
