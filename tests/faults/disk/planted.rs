//! Bugs planted in the node that only a disk that fails brings to light. A harness that does not find them proves nothing.

use std::path::Path;

use super::clients::{self, Acks, Start};
use super::mount::{Kind, Mounted, or_skipped, run};
use crate::harness::Node;

/// The bugs that are looked for here; the others are in `mutants.rs` and in the simulator.
pub const HERE: [&str; 3] = ["acknowledge_before_sync", "never_sync", "sync_again_after_failure"];

/// Through the page cache: a write past it to a block that was written before stays on the device of a simulated power cut.
const DRIVER: &str = "tokio";

/// Acknowledged and lost on this disk, with this bug, after `fail`.
fn lost(mutant: &str, disk: &mut Mounted, fail: impl Fn(&Mounted, &Node, &mut Acks)) -> usize {
    let honest = clients::options(&disk.data()).set("runner.driver", DRIVER);
    let node = Node::start(&honest);
    Acks::register(&node);
    let mut acks = Acks::default();
    assert_eq!(acks.start_some(&mut node.client(), 10), Start::Acknowledged);
    let (status, said) = node.terminate();
    assert!(status.success(), "{said}");
    let node = Node::start(&honest.clone().env("AOB_MUTANT", mutant));
    fail(disk, &node, &mut acks);
    node.kill();
    disk.power_on();
    let node = Node::start(&honest);
    let missing = acks.missing(&node).len();
    println!("{mutant}: {missing} of {} acknowledged are missing", acks.runs.len());
    missing
}

/// The same, by a power cut.
fn cut(mutant: &str) -> Option<usize> {
    let mut disk = or_skipped(&format!("the planted bug {mutant}"), Mounted::image(Kind::Ext4, 300))?;
    Some(lost(mutant, &mut disk, power_cut))
}

fn power_cut(disk: &Mounted, node: &Node, acks: &mut Acks) {
    let cutter = disk.cutter();
    assert_eq!(acks.start_some(&mut node.client(), 200), Start::Acknowledged);
    cutter.cut();
}

// RELIABILITY B1: the harness of power cuts would see it.
#[test]
fn a_node_that_does_not_wait_for_the_sync_loses_what_it_acknowledged() {
    for mutant in ["acknowledge_before_sync", "never_sync"] {
        // The kernel may have written by itself: then once more.
        let found = (0..3).map_while(|_| cut(mutant)).any(|missing| missing > 0);
        assert!(found || Mounted::image(Kind::Ext4, 300).is_err(), "{mutant} was not found");
    }
    let honest = (0..1).map_while(|_| cut("")).all(|missing| missing == 0);
    assert!(honest, "an honest node loses nothing");
}

/// Where the bytes of a file behind `from` stand on its device, by what `filefrag -b1 -v` says: offset and length.
fn extents(said: &str, from: u64) -> Vec<(u64, u64)> {
    let number = |text: &str| text.trim().trim_end_matches("..").parse::<u64>().ok();
    let rows = said.lines().filter_map(|line| {
        // ` 0:  0.. 1048575:  139460608.. 140509183: 1048576: ...`
        let mut parts = line.split(':');
        number(parts.next()?)?;
        let first = |part: Option<&str>| number(part?.split("..").next()?);
        let (logical, physical) = (first(parts.next())?, first(parts.next())?);
        let length = number(parts.next()?)?;
        let skipped = from.saturating_sub(logical).min(length);
        Some((physical + skipped, length - skipped)).filter(|(_, length)| *length > 0)
    });
    rows.collect()
}

/// From now on the device of `disk` takes no write to this file behind `from` bytes: they are taken out of the image, and the
/// file system that the image lies in, `below`, is full. What stood there must be zeros. Another size of `below` ends it.
fn starve(disk: &Mounted, below: &Mounted, file: &Path, from: u64) {
    let text = |path: &Path| path.to_str().expect("a path is text").to_owned();
    let image = text(&disk.at().with_file_name("image"));
    for (at, length) in extents(&run("filefrag", &["-b1", "-v", &text(file)]).unwrap(), from) {
        run("fallocate", &["-p", "-o", &at.to_string(), "-l", &length.to_string(), &image]).unwrap();
    }
    // Somebody may write between the look and the order, which is refused then.
    let full = (0..50).any(|_| {
        let used = run("df", &["-k", "--output=used", &text(&below.at())]).unwrap();
        below.remount(&format!("size={}k", used.lines().last().unwrap_or_default().trim())).is_ok()
    });
    assert!(full, "the device still takes writes");
}

/// Bytes of a segment that stay on the device: what was acknowledged before stands there.
const KEPT_BYTES: u64 = 1 << 20;

/// The same, on a device that takes no more writes to the journal. The kernel reports such a write once, by the next sync,
/// and drops it: the sync after that one has nothing left to do, and says that all is well.
fn refused(mutant: &str) -> Option<usize> {
    let test = format!("the planted bug {mutant}");
    let below = or_skipped(&test, Mounted::memory(400))?;
    let mut disk = or_skipped(&test, Mounted::image_in(&below.at(), Kind::Ext4, 300))?;
    Some(lost(mutant, &mut disk, |disk, node, acks| {
        let segment = disk.data().join("shards/000/0000000000000001.seg");
        starve(disk, &below, &segment, KEPT_BYTES);
        acks.pad(60_000);
        acks.start_some(&mut node.client(), 50);
        // The power goes, so that the index knows no more than the journal; then the device is whole again.
        disk.cutter().cut();
        below.remount("size=400m").expect("it was that large");
    }))
}

// RELIABILITY B3: the harness of failed syncs would see it.
#[test]
fn a_node_that_syncs_again_after_a_failure_loses_what_it_acknowledged() {
    let Some(missing) = refused("sync_again_after_failure") else { return };
    assert!(missing > 0, "it was not found");
    assert_eq!(refused(""), Some(0), "an honest node loses nothing");
}
