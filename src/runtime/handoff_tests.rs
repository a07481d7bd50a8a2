//! Hand-offs from plain threads to a ring, under the watchdog: nothing lost, nothing out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::watchdog::{Watched, watch};
use crate::io::ring::{RingConfig, run};
use crate::io::socket::allowed_cores;
use crate::queue::{FullPolicy, bounded};
use crate::telemetry::ShardCells;
use crate::time::{Clock as _, SystemClock};

const SENDERS: u64 = 2;

fn config() -> RingConfig {
    RingConfig {
        name: String::from("aob-test-ring"),
        core: *allowed_cores().last().unwrap(),
        preempt: Duration::from_micros(500),
        spin: Duration::ZERO,
        small_memory: true,
    }
}

/// Sends `count` numbers from each sender in bursts, and checks at the ring that all arrive in order.
fn hand_off(count: u64) -> Arc<ShardCells> {
    let (sender, mut receiver) = bounded::<(u64, u64)>("hand-offs", 4_096, FullPolicy::RefuseCaller);
    let cells = Arc::new(ShardCells::default());
    let stop = Arc::new(AtomicBool::new(false));
    let config = config();
    let stats = receiver.stats().clone();
    let beat = cells.clone();
    let ring = run(&config, move || async move {
        let mut next = [0_u64; SENDERS as usize];
        let mut missing = SENDERS * count;
        while missing > 0 {
            let (from, number) = receiver.recv().await;
            beat.heartbeat_us.set(SystemClock.monotonic_us());
            assert_eq!(number, next[from as usize], "in order and none lost");
            next[from as usize] += 1;
            missing -= 1;
            if number % 4_096 == 0 {
                crate::io::yield_now().await;
            }
        }
    })
    .unwrap();
    let watched = vec![Watched::new(vec![stats], cells.clone(), Some(ring.nudge()))];
    let until = stop.clone();
    let watchdog =
        std::thread::Builder::new().spawn(|| crate::io::net::block_on(watch(watched, until))).unwrap();
    let senders: Vec<_> = (0..SENDERS)
        .map(|from| {
            let sender = sender.clone();
            let send = move || {
                for number in 0..count {
                    let mut item = (from, number);
                    while let Err(back) = sender.send(item) {
                        item = back;
                        std::thread::yield_now();
                    }
                    // Now and then the ring runs dry and parks.
                    if number % 1_000 == 999 {
                        while sender.stats().depth() > 0 {
                            std::thread::yield_now();
                        }
                    }
                }
            };
            std::thread::Builder::new().spawn(send).unwrap()
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    ring.join().unwrap();
    stop.store(true, Ordering::Release);
    watchdog.join().unwrap().unwrap();
    cells
}

// F232. AOB_FULL=1 makes it 10^7 hand-offs.
#[test]
fn nothing_is_lost_between_threads_and_a_ring() {
    let count = if std::env::var_os("AOB_FULL").is_some() { 5_000_000 } else { 250_000 };
    let cells = hand_off(count);
    println!("{} hand-offs, {} wakes given by the watchdog", SENDERS * count, cells.watchdog_wakes.value());
}

// One in some thousands sleeps through its start on a busy machine; AOB_FULL=1 starts enough to meet it.
#[test]
fn every_executor_begins_what_it_is_given() {
    let count = if std::env::var_os("AOB_FULL").is_some() { 5_000 } else { 50 };
    for number in 0..count {
        let (began, begun) = std::sync::mpsc::channel();
        let ring = run(&config(), move || async move { began.send(()).unwrap() }).unwrap();
        assert_eq!(begun.recv(), Ok(()), "number {number}");
        ring.join().unwrap();
    }
}
