//! The embedded journal: conformance, group commit, fencing, recycling. Recovery has a file of its own.

mod recovery;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::*;
use crate::io;
use crate::io::file::Faults;
use crate::model::FrameRef;
use crate::store::Error;
use crate::store::conformance::{self, Backend};
use crate::store::journal::Journal;
use crate::store::testing::{batch, copy_dir, on_each_driver, on_tokio};

pub(super) const IDENTITY: Identity = Identity { cluster: [0xab; 16], shard: 2 };

pub(super) fn config(dir: &Path, segment_bytes: u64, file_kind: FileKind) -> Config {
    let durability = Durability::Fsync;
    Config { dir: dir.into(), identity: IDENTITY, segment_bytes, durability, file_kind }
}

/// What recovery finds: (seq, frame) of every burst.
pub(super) fn read(dir: &Path) -> Result<(Recovered, Vec<(u64, FrameRef)>), Error> {
    let mut found = Vec::new();
    let source = Source { dir, identity: IDENTITY, marks: &BTreeMap::new() };
    let recovered = recover(source, &mut |frame, burst| {
        found.push((burst.head.first_seq, frame));
        Ok(())
    })?;
    Ok((recovered, found))
}

/// Where the log ends, whatever its batches hold.
fn bounds(dir: &Path) -> Result<Recovered, Error> {
    recover_frames(Source { dir, identity: IDENTITY, marks: &BTreeMap::new() }, &mut |_, _| Ok(()))
}

pub(super) fn seqs(found: &[(u64, FrameRef)]) -> Vec<u64> {
    found.iter().map(|(seq, _)| *seq).collect()
}

pub(super) async fn open(config: &Config) -> Log {
    let recovered = bounds(&config.dir).unwrap();
    Log::open(config.clone(), recovered).await.unwrap()
}

/// A claimed log and its committer, running.
async fn start(config: &Config) -> (CommitHandle, Rc<RefCell<Option<Result<(), Error>>>>) {
    let mut log = open(config).await;
    log.claim(99).await.unwrap();
    let (handle, committer) = Committer::start(log).unwrap();
    let ended = Rc::new(RefCell::new(None));
    let result = ended.clone();
    io::spawn_local(async move {
        let end = committer.run().await;
        *result.borrow_mut() = Some(end);
    });
    (handle, ended)
}

async fn stop(handle: &CommitHandle, ended: &Rc<RefCell<Option<Result<(), Error>>>>) {
    handle.stop();
    while ended.borrow().is_none() {
        io::yield_now().await;
    }
}

struct OnDisk {
    dir: PathBuf,
    kind: FileKind,
    segment_bytes: u64,
}

impl Backend for OnDisk {
    type Journal = Log;

    async fn open(&self) -> Log {
        Faults::clear();
        open(&config(&self.dir, self.segment_bytes, self.kind)).await
    }

    fn fail_sync(&self, nth: u64) {
        Faults::fail_sync(nth);
    }

    fn syncs(&self) -> u64 {
        Faults::syncs()
    }

    async fn crash(&self) {
        // The preparation of the next segment goes on for a moment: its thread did not die with the journal.
        loop {
            let tail = bounds(&self.dir).unwrap().tail;
            let prepared = tail.map_or(1, |tail| tail.segment) + 1;
            let listing = segment::list(&self.dir).unwrap();
            if listing.leftovers.is_empty() && listing.segments.contains_key(&prepared) {
                return;
            }
            io::yield_now().await;
        }
    }
}

#[test]
fn the_log_conforms_on_both_runtimes() {
    // The directory outlives the executors: glommio panics when a path vanishes while it is being opened, and a dropped
    // journal's next segment may be just then.
    let parent = tempfile::tempdir().unwrap();
    let count = &std::cell::Cell::new(0);
    let parent = parent.path();
    on_each_driver(|kind| async move {
        for segment_bytes in [32 << 10, 1 << 20] {
            let fresh = || {
                count.set(count.get() + 1);
                OnDisk { dir: parent.join(count.get().to_string()), kind, segment_bytes }
            };
            conformance::run(fresh).await;
        }
    });
}

#[test]
fn a_thousand_concurrent_submits_are_durable_in_order_and_share_writes() {
    on_each_driver(|kind| async move {
        let dir = tempfile::tempdir().unwrap();
        let (handle, ended) = start(&config(dir.path(), 1 << 20, kind)).await;
        let finished = Rc::new(RefCell::new(Vec::new()));
        for n in 1..=1000 {
            let (handle, finished) = (handle.clone(), finished.clone());
            io::spawn_local(async move {
                let position = handle.submit(batch(n, 50)).unwrap();
                handle.wait(position).await.unwrap();
                assert!(handle.durable() >= position && handle.synced() >= position);
                finished.borrow_mut().push(n);
            });
            if n % 100 == 0 {
                io::yield_now().await;
            }
        }
        while finished.borrow().len() < 1000 {
            io::yield_now().await;
        }
        let mut places = Vec::new();
        handle.drain_completed(&mut places);
        stop(&handle, &ended).await;
        let (_, found) = read(dir.path()).unwrap();
        assert_eq!(seqs(&found), (1..=1000).collect::<Vec<_>>());
        assert_eq!(
            found.iter().map(|(_, frame)| *frame).collect::<Vec<_>>(),
            places.iter().map(|(_, frame)| *frame).collect::<Vec<_>>()
        );
        let (frames, writes) = handle.frames_and_writes();
        assert!(frames == 1000 && writes <= 500, "{frames} frames in {writes} writes");
        assert_eq!(handle.backlog_bytes(), 0);
        assert!(matches!(*ended.borrow(), Some(Ok(()))));
        assert_eq!(handle.submit(batch(1, 1)).unwrap_err().code(), "journal_fenced");
    });
}

#[test]
fn buffers_come_back_for_reuse() {
    on_tokio(async {
        let dir = tempfile::tempdir().unwrap();
        let (handle, _) = start(&config(dir.path(), 1 << 20, FileKind::Plain)).await;
        let position = handle.submit(batch(1, 5000)).unwrap();
        assert_eq!(handle.buffer().capacity(), 0);
        handle.wait(position).await.unwrap();
        let buffer = handle.buffer();
        assert!(buffer.is_empty() && buffer.capacity() >= 5000);
    });
}

#[test]
fn a_failed_write_or_sync_fences_for_good_and_names_the_cause() {
    // B3, B4
    on_each_driver(|kind| async move {
        for (errno, expected) in [(Some(5), "cannot write"), (Some(28), "disk_full"), (None, "cannot sync")] {
            Faults::clear();
            let dir = tempfile::tempdir().unwrap();
            let (handle, ended) = start(&config(dir.path(), 1 << 20, kind)).await;
            let acknowledged = handle.submit(batch(1, 10)).unwrap();
            handle.wait(acknowledged).await.unwrap();
            match errno {
                Some(errno) => Faults::fail_write(1, errno),
                None => Faults::fail_sync(1),
            }
            let lost = handle.submit(batch(2, 10)).unwrap();
            assert_eq!(handle.wait(lost).await.unwrap_err().code(), "journal_fenced");
            let cause = handle.failure().unwrap();
            assert!(cause.contains(expected), "{cause}");
            let syncs = Faults::syncs();
            assert_eq!(handle.submit(batch(3, 10)).unwrap_err().code(), "journal_fenced");
            assert_eq!((handle.durable(), Faults::syncs()), (acknowledged, syncs));
            while ended.borrow().is_none() {
                io::yield_now().await;
            }
            assert!(matches!(*ended.borrow(), Some(Err(Error::Fenced { .. }))));
            let (_, found) = read(dir.path()).unwrap();
            assert_eq!(found[0].0, 1);
        }
    });
}

#[test]
fn a_segment_that_cannot_be_prepared_fences_only_when_it_is_needed() {
    on_each_driver(|kind| async move {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("log");
        let mut log = open(&config(&dir, 32 << 10, kind)).await;
        let fence = log.claim(1).await.unwrap();
        // The segment after the next can not be made: its temporary name is taken by a directory.
        std::fs::create_dir(dir.join("0000000000000003.tmp")).unwrap();
        let mut failed = None;
        let mut taken = 0;
        for n in 1..100 {
            let position = log.next();
            match log.append(fence, position, &batch(n, 3000)).await {
                Ok(()) => taken = n,
                Err(error) => {
                    failed = Some(error.to_string());
                    break;
                }
            }
        }
        let failed = failed.unwrap();
        log.close().await;
        assert!(failed.contains("prepare segment") && failed.contains("0000000000000003"), "{failed}");
        assert_eq!(taken, 15, "both segments are filled before");
        let (_, found) = read(&dir).unwrap();
        assert_eq!(seqs(&found), (1..=15).collect::<Vec<_>>());
    });
}

#[test]
fn a_batch_larger_than_a_segment_is_refused_and_nothing_is_queued() {
    on_tokio(async {
        let dir = tempfile::tempdir().unwrap();
        let (handle, ended) = start(&config(dir.path(), 32 << 10, FileKind::Plain)).await;
        let max = (32 << 10) - frame::HEADER_BYTES;
        assert_eq!(handle.submit(vec![0; max + 1]).unwrap_err().code(), "batch_too_large");
        let largest = batch(1, 32_000);
        let position = handle.submit(largest).unwrap();
        handle.wait(position).await.unwrap();
        stop(&handle, &ended).await;
        assert_eq!(seqs(&read(dir.path()).unwrap().1), [1]);
    });
}

#[test]
fn at_level_os_the_sync_follows_and_its_failure_fences() {
    on_each_driver(|kind| async move {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { durability: Durability::Os, ..config(dir.path(), 1 << 20, kind) };
        let (handle, ended) = start(&config).await;
        let before = Faults::syncs();
        let position = handle.submit(batch(1, 10)).unwrap();
        handle.wait(position).await.unwrap();
        assert_eq!(
            (Faults::syncs(), handle.synced()),
            (before, position - 1),
            "acknowledged before the sync"
        );
        std::future::poll_fn(|context| handle.poll_progress(context, position, position - 1)).await;
        assert_eq!((Faults::syncs(), handle.synced()), (before + 1, position));

        Faults::fail_sync(1);
        let position = handle.submit(batch(2, 10)).unwrap();
        handle.wait(position).await.unwrap();
        std::future::poll_fn(|context| handle.poll_progress(context, position, position)).await;
        assert!(handle.failure().unwrap().contains("cannot sync"));
        assert_eq!(handle.synced(), position - 1);
        stop(&handle, &ended).await;
    });
}

#[test]
fn segments_given_back_are_used_again_and_never_show_their_old_frames() {
    // B9
    on_each_driver(|kind| async move {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), 32 << 10, kind);
        let mut n = 0;
        let mut inodes = std::collections::BTreeSet::new();
        for round in 0..4 {
            let (handle, ended) = start(&config).await;
            for _ in 0..60 {
                n += 1;
                let position = handle.submit(batch(n, 3000 + (n as usize * 911) % 5000)).unwrap();
                handle.wait(position).await.unwrap();
                let sealed = handle.sealed();
                // Two sealed segments are kept.
                for old in sealed.iter().take(sealed.len().saturating_sub(2)) {
                    handle.release(old.segment);
                }
                if n % 7 == round {
                    let crashed = tempfile::tempdir().unwrap();
                    copy_dir(dir.path(), crashed.path());
                    let (recovered, found) = read(crashed.path()).unwrap();
                    let first = found[0].0;
                    assert_eq!(seqs(&found), (first..=n).collect::<Vec<_>>());
                    assert!(first > 1 || n < 40, "something was given back");
                    assert_eq!(recovered.next, position + 1);
                }
            }
            stop(&handle, &ended).await;
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                inodes.insert(std::os::unix::fs::MetadataExt::ino(&entry.unwrap().metadata().unwrap()));
            }
        }
        assert!(inodes.len() < 16, "files are used again: {} inodes", inodes.len());
    });
}

#[test]
fn a_segment_given_back_out_of_turn_waits_for_the_older_ones() {
    on_tokio(async {
        let dir = tempfile::tempdir().unwrap();
        let (handle, ended) = start(&config(dir.path(), 32 << 10, FileKind::Plain)).await;
        let exists = |id| segment::path(dir.path(), id).exists();
        let mut n = 0;
        while handle.sealed().len() < 3 {
            n += 1;
            let position = handle.submit(batch(n, 3000)).unwrap();
            handle.wait(position).await.unwrap();
        }
        handle.release(2);
        let mut more = async |handle: &CommitHandle| {
            n += 1;
            let position = handle.submit(batch(n, 10)).unwrap();
            handle.wait(position).await.unwrap();
        };
        more(&handle).await;
        assert_eq!(handle.sealed().iter().map(|sealed| sealed.segment).collect::<Vec<_>>(), [1, 3]);
        assert!(exists(1) && exists(2));
        handle.release(1);
        more(&handle).await;
        more(&handle).await;
        assert!(!exists(1) && !exists(2) && exists(3));
        stop(&handle, &ended).await;
        assert!(read(dir.path()).unwrap().1.len() > 1);
    });
}

#[test]
fn a_crash_at_any_moment_keeps_everything_acknowledged() {
    // A1: a copy of the directory is what a killed process leaves.
    on_each_driver(|kind| async move {
        let dir = tempfile::tempdir().unwrap();
        let (handle, ended) = start(&config(dir.path(), 64 << 10, kind)).await;
        let mut last = 0;
        for n in 1..=300 {
            last = handle.submit(batch(n, (n as usize * 7919) % 3000)).unwrap();
            if n % 3 == 0 {
                io::yield_now().await;
            }
            if n % 20 == 0 {
                let acknowledged = handle.durable();
                let crashed = tempfile::tempdir().unwrap();
                copy_dir(dir.path(), crashed.path());
                let (recovered, found) = read(crashed.path()).unwrap();
                assert!(recovered.next > acknowledged, "{} <= {acknowledged}", recovered.next);
                assert_eq!(seqs(&found), (1..=found.len() as u64).collect::<Vec<_>>());
                // And goes on from there.
                let mut log = open(&config(crashed.path(), 64 << 10, kind)).await;
                let fence = log.claim(n).await.unwrap();
                let position = log.next();
                log.append(fence, position, &batch(found.len() as u64 + 1, 10)).await.unwrap();
                log.close().await;
                assert_eq!(read(crashed.path()).unwrap().1.len(), found.len() + 1);
            }
        }
        handle.wait(last).await.unwrap();
        stop(&handle, &ended).await;
        assert_eq!(read(dir.path()).unwrap().1.len(), 300);
    });
}

/// A log of `sizes` batches, appended one by one; returns its directory.
pub(super) fn written(sizes: &[usize], segment_bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    on_tokio(async {
        let mut log = open(&config(&path, segment_bytes, FileKind::Plain)).await;
        let fence = log.claim(1).await.unwrap();
        for (n, size) in (1..).zip(sizes) {
            let position = log.next();
            log.append(fence, position, &batch(n, *size)).await.unwrap();
        }
        log.close().await;
    });
    (dir, path)
}
