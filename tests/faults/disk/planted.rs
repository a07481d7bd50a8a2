//! Bugs planted in the node that only a disk that fails brings to light. A harness that does not find them proves nothing.

use std::time::Duration;

use super::clients::{self, Acks, Start};
use super::mount::{Kind, Mounted, or_skipped};
use crate::harness::Node;

/// The bugs that are looked for here; the others are in `mutants.rs` and in the simulator.
pub const HERE: [&str; 3] = ["acknowledge_before_sync", "never_sync", "sync_again_after_failure"];

/// Through the page cache: a write past it to a block that was written before stays on the device of a simulated power cut.
const DRIVER: &str = "tokio";

/// Acknowledged and lost, with this bug, after `fail`.
fn lost(mutant: &str, fail: impl Fn(&mut Mounted, &Node, &mut Acks)) -> Option<usize> {
    let test = format!("the planted bug {mutant}");
    let mut disk = or_skipped(&test, Mounted::image(Kind::Ext4, 300))?;
    let honest = clients::options(&disk.data()).set("runner.driver", DRIVER);
    let node = Node::start(&honest);
    Acks::register(&node);
    let mut acks = Acks::default();
    assert_eq!(acks.start_some(&mut node.client(), 10), Start::Acknowledged);
    let (status, said) = node.terminate();
    assert!(status.success(), "{said}");
    let node = Node::start(&honest.clone().env("AOB_MUTANT", mutant));
    fail(&mut disk, &node, &mut acks);
    node.kill();
    disk.power_on();
    let node = Node::start(&honest);
    let missing = acks.missing(&node).len();
    println!("{mutant}: {missing} of {} acknowledged are missing", acks.runs.len());
    Some(missing)
}

fn power_cut(disk: &mut Mounted, node: &Node, acks: &mut Acks) {
    let cutter = disk.cutter();
    assert_eq!(acks.start_some(&mut node.client(), 200), Start::Acknowledged);
    cutter.cut();
}

// RELIABILITY B1: the harness of power cuts would see it.
#[test]
fn a_node_that_does_not_wait_for_the_sync_loses_what_it_acknowledged() {
    for mutant in ["acknowledge_before_sync", "never_sync"] {
        // The kernel may have written by itself: then once more.
        let found = (0..3).map_while(|_| lost(mutant, power_cut)).any(|missing| missing > 0);
        assert!(found || Mounted::image(Kind::Ext4, 300).is_err(), "{mutant} was not found");
    }
    let honest = (0..1).map_while(|_| lost("", power_cut)).all(|missing| missing == 0);
    assert!(honest, "an honest node loses nothing");
}

// RELIABILITY B3: the harness of failed syncs would see it.
#[test]
fn a_node_that_syncs_again_after_a_failure_loses_what_it_acknowledged() {
    let aborted = |disk: &mut Mounted, node: &Node, acks: &mut Acks| {
        let _ = disk.remount("abort");
        acks.start_some(&mut node.client(), 50);
        std::thread::park_timeout(Duration::from_millis(20));
    };
    let Some(missing) = lost("sync_again_after_failure", aborted) else { return };
    assert!(missing > 0, "it was not found");
    assert_eq!(lost("", aborted), Some(0), "an honest node loses nothing");
}
