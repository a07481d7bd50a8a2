//! Slow disks: acknowledgements wait, everything that needs no disk goes on, memory stays where it is.

#![allow(clippy::disallowed_methods, reason = "what is tested is how long things take")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::clients::{self, Acks, Start};
use super::mount::{Kind, Mounted, or_skipped};
use crate::harness::{Client, Node, in_background};

/// How long the disk stands still.
const STALL: Duration = Duration::from_millis(2_000);

// RELIABILITY B6
#[test]
fn while_the_disk_stands_still_acknowledgements_wait_and_reads_go_on() {
    for driver in ["auto", "tokio"] {
        let Some(disk) = or_skipped("a disk that stands still", Mounted::image(Kind::Ext4, 300)) else {
            return;
        };
        let node = Node::start(&clients::options(&disk.data()).set("runner.driver", driver));
        Acks::register(&node);
        let mut acks = Acks::default();
        assert_eq!(acks.start_some(&mut node.client(), 20), Start::Acknowledged);
        let run = acks.runs.keys().next().unwrap().clone();
        let frozen = disk.freeze();
        let address = node.address.clone();
        let waiting = in_background(move || {
            let (mut acks, began) = (Acks::default(), Instant::now());
            let start = acks.start(&mut Client::new(&address));
            (start, began.elapsed(), acks)
        });
        let (began, mut reads, mut slowest) = (Instant::now(), 0, Duration::ZERO);
        let mut client = node.client();
        while began.elapsed() < STALL {
            let asked = Instant::now();
            client.get(&format!("/v1/runs/{run}")).expect(200);
            client.get("/livez").expect(200);
            slowest = slowest.max(asked.elapsed());
            reads += 1;
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert!(!waiting.is_finished(), "acknowledged though nothing can be synced");
        drop(frozen);
        let (start, took, late) = waiting.join().unwrap();
        assert_eq!(start, Start::Acknowledged);
        assert!(took >= STALL - Duration::from_millis(200), "{took:?}");
        assert!(
            reads > 20 && slowest < Duration::from_secs(1),
            "{reads} reads, the slowest took {slowest:?}"
        );
        late.all_there(&node);
        println!(
            "{driver}: {reads} reads meanwhile, the slowest in {slowest:?}; acknowledged after {took:?}"
        );
    }
}

/// A group of processes whose writes to a device are slowed down; gone when it is dropped.
struct Throttle(std::path::PathBuf);

impl Throttle {
    fn new(pid: u32, device: &str, bytes_per_second: u64) -> Result<Self, String> {
        let parent = std::path::Path::new("/sys/fs/cgroup/blkio");
        if !parent.join("blkio.throttle.write_bps_device").exists() {
            return Err(String::from("there is no blkio controller of cgroup v1"));
        }
        let group = Self(parent.join(format!("aob-{}", std::process::id())));
        let failed = |error: std::io::Error| error.to_string();
        std::fs::create_dir_all(&group.0).map_err(failed)?;
        let rule = format!("{device} {bytes_per_second}");
        std::fs::write(group.0.join("blkio.throttle.write_bps_device"), rule).map_err(failed)?;
        std::fs::write(group.0.join("cgroup.procs"), pid.to_string()).map_err(failed)?;
        Ok(group)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // Its process has ended, or goes back to where it came from.
        let procs = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let _ = std::fs::write("/sys/fs/cgroup/blkio/cgroup.procs", pid);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

// RELIABILITY B7, I-26
#[test]
fn on_a_slow_disk_memory_stays_and_nothing_acknowledged_is_lost() {
    let test = "a slow disk";
    let Some(disk) = or_skipped(test, Mounted::image(Kind::Ext4, 400)) else { return };
    // Past the page cache: a write waits for the device itself.
    let node = Node::start(&clients::options(&disk.data()));
    if !node.client().get("/v1/node").json().to_string().contains("\"glommio\"") {
        return super::mount::skipped(
            test,
            "io_uring is refused here, and the page cache takes what the disk does not",
        );
    }
    Acks::register(&node);
    let mut acks = Acks::default();
    assert_eq!(acks.start_some(&mut node.client(), 50), Start::Acknowledged);
    let throttled = disk.device().and_then(|device| Throttle::new(node.pid(), &device, 2 << 20));
    let Some(throttle) = or_skipped(test, throttled) else { return };
    let before_kib = node.resident_kib();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (address, stop) = (node.address.clone(), stop.clone());
            in_background(move || {
                let (mut acks, mut client, mut refused) = (Acks::default(), Client::new(&address), 0);
                acks.pad(60_000);
                while !stop.load(Ordering::Acquire) {
                    match acks.start(&mut client) {
                        Start::Acknowledged => {}
                        Start::Refused(429 | 503, _) => refused += 1,
                        other => panic!("{other:?}"),
                    }
                }
                (acks, refused)
            })
        })
        .collect();
    let (began, mut most_kib) = (Instant::now(), before_kib);
    while began.elapsed() < Duration::from_secs(5) {
        most_kib = most_kib.max(node.resident_kib());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Release);
    let done: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    drop(throttle);
    let acknowledged: usize = done.iter().map(|(acks, _)| acks.runs.len()).sum();
    let refused: usize = done.iter().map(|(_, refused)| refused).sum();
    println!("{acknowledged} acknowledged, {refused} refused, memory {before_kib} to {most_kib} KiB");
    assert!(acknowledged > 20, "{acknowledged}");
    // Sixteen requests of 60 kB wait at most, and what they began.
    assert!(most_kib < before_kib + (96 << 10), "{before_kib} to {most_kib} KiB");
    for (acks, _) in &done {
        acks.all_there(&node);
    }
}
