//! Power cuts: what was not synced is gone. The device itself keeps what it was given, so that a write past the page cache
//! to blocks that were written before is never lost here (that is for the simulator); hence the driver with a page cache
//! too.

use std::time::Duration;

use aob_checker::record::FaultKind;

use super::clients::{self, Acks, Start};
use super::mount::{Kind, Mounted, or_skipped};
use crate::harness::Options;
use crate::kills::{judge, options, rounds, serve};
use crate::recorder::load::{Crowd, Everybody};
use crate::recorder::{Dice, World};

/// Milliseconds within which `durability = os` syncs, with what the sync itself may take.
const OS_WINDOW_MS: u64 = 50 + 400;

fn small(options: Options, driver: &str) -> Options {
    options
        .set("journal.segment_bytes", &(32_u64 << 20).to_string())
        .set("runner.driver", driver)
        .set("storage.free_bytes_min", "0")
}

/// Cuts the power under everything that clients do, and has the history judged.
fn cut_under_load(kind: Kind, (driver, durability): (&str, &str), (seed, cuts): (u64, u64)) {
    let test = format!("power cuts on {kind:?}");
    let Some(mut disk) = or_skipped(&test, Mounted::image(kind, 400)) else { return };
    let options = small(options(&disk.data()), driver).set("durability", durability);
    let world = World::new(seed, durability);
    let everybody = Everybody::begin(&world, Crowd::default());
    let mut dice = Dice::new(seed, 998);
    for round in 0..cuts {
        let node = serve(&world, &options, round > 0);
        let cutter = disk.cutter();
        let (answers, millis) = (20 + dice.below(150), 50 + dice.below(700));
        world.wait_for_progress(answers, Duration::from_millis(millis));
        let from_us = world.now_us().saturating_sub(OS_WINDOW_MS * 1_000);
        world.fault(FaultKind::Cut);
        cutter.cut();
        world.gone();
        node.kill();
        disk.power_on();
        // Until the power is there again: in the meantime the node may have told of what it could not write down any more.
        if durability == "os" {
            world.loss_window(from_us);
        }
    }
    let node = serve(&world, &options, true);
    let report = judge(&world, everybody, node, &options);
    crate::ledger::add("process faults", &[("cuts", cuts)]);
    println!("{kind:?}, {driver}, {durability}, {cuts} cuts: {report}");
    assert!(report.counts.acknowledged > cuts, "hardly anything was acknowledged: {report}");
}

// RELIABILITY B1, I-1..I-7, I-14
#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_on_ext4() {
    cut_under_load(Kind::Ext4, ("auto", "fsync"), (501, rounds(2, 60)));
    cut_under_load(Kind::Ext4, ("tokio", "fsync"), (502, rounds(2, 60)));
}

// RELIABILITY B1, I-1..I-7, I-14
#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_on_xfs() {
    cut_under_load(Kind::Xfs, ("tokio", "fsync"), (503, rounds(2, 50)));
}

// RELIABILITY B1
#[test]
fn at_level_os_a_power_cut_takes_no_more_than_the_window() {
    cut_under_load(Kind::Ext4, ("tokio", "os"), (504, rounds(2, 30)));
}

/// Segments of a shard, as a listing of its directory shows them.
pub fn newest_segment(disk: &Mounted) -> u64 {
    let entries = std::fs::read_dir(disk.data().join("shards/000")).expect("a shard");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok()).max().unwrap_or(0)
}

// RELIABILITY B2
#[test]
fn the_first_acknowledgements_of_a_new_segment_survive_a_power_cut() {
    for (kind, driver) in [(Kind::Ext4, "auto"), (Kind::Ext4, "tokio"), (Kind::Xfs, "tokio")] {
        let test = format!("a power cut in a new segment on {kind:?}");
        let Some(mut disk) = or_skipped(&test, Mounted::image(kind, rounds(400, 2_000))) else { continue };
        let options = clients::options(&disk.data()).set("runner.driver", driver);
        let mut acks = Acks::default();
        for round in 0..rounds(2, 20) {
            let node = crate::harness::Node::start(&options);
            if round == 0 {
                Acks::register(&node);
            }
            let (mut client, cutter, before) = (node.client(), disk.cutter(), newest_segment(&disk));
            // The segment after the next appears when the next one takes its first frame.
            acks.pad(600_000);
            while newest_segment(&disk) == before {
                let started = acks.start(&mut client);
                if started != Start::Acknowledged {
                    node.ask_to_end();
                    let (_, log) = node.finish();
                    panic!("round {round}: {started:?}\n{log}");
                }
            }
            acks.pad(0);
            acks.start_some(&mut client, 1 + round as usize % 3);
            cutter.cut();
            node.kill();
            disk.power_on();
            let node = crate::harness::Node::start(&options);
            acks.all_there(&node);
            node.kill();
        }
        println!("{kind:?}, {driver}: {} acknowledged, all there", acks.runs.len());
    }
}
