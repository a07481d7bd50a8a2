//! Group commit into a real server, from a core that speaks to no server.

use std::cell::RefCell;
use std::rc::Rc;

use super::super::Level;
use super::super::testing::{AOF, Server};
use super::*;
use crate::io;
use crate::store::log::{CommitHandle, Committer};
use crate::store::testing::{on_each_driver, on_tokio};

type Found = Vec<(FrameRef, Vec<u8>)>;

/// Opens the partition; a thread speaks to the server from then on. And what it held.
fn open(config: &Config, segment_bytes: u64) -> (RedisLog, Found) {
    open_knowing(config, segment_bytes, Known::default()).unwrap()
}

fn open_knowing(config: &Config, segment_bytes: u64, known: Known) -> Result<(RedisLog, Found), Error> {
    let (unclaimed, water, writing) = ends(config, segment_bytes);
    std::thread::spawn(move || on_tokio(writing().run()));
    // A thread of its own, for its caller may be within tokio.
    let opening = std::thread::spawn(move || {
        let mut opened = None;
        on_tokio(async {
            let opening = async {
                let mut log = unclaimed.claim(known, 7).await?;
                assert_eq!(water.known(), Known { epoch: log.fence.epoch, position: log.next - 1 });
                let mut found = Found::new();
                let mut visit = |place, bytes: &[u8]| {
                    found.push((place, bytes.to_vec()));
                    Ok(())
                };
                let shown = log.read(&BTreeMap::new(), &mut visit).await?;
                assert_eq!(shown, found.len() as u64);
                Ok((log, found))
            };
            opened = Some(opening.await);
        });
        opened.unwrap()
    });
    opening.join().unwrap()
}

type Ended = Rc<RefCell<Option<Result<(), Error>>>>;

/// Its committer, running.
fn commit(log: RedisLog) -> (CommitHandle, Ended) {
    let (handle, committer) = Committer::start(log).unwrap();
    let ended = Ended::default();
    let result = ended.clone();
    io::spawn_local(async move {
        let end = committer.run().await;
        *result.borrow_mut() = Some(end);
    });
    (handle, ended)
}

async fn stop(handle: &CommitHandle, ended: &Ended) {
    handle.stop();
    while ended.borrow().is_none() {
        io::yield_now().await;
    }
    ended.take().unwrap().unwrap();
}

fn bytes(n: u64) -> Vec<u8> {
    vec![n as u8; 100]
}

fn entries(server: &Server) -> usize {
    match server.command(&["XLEN", "aob:{3}:log"]) {
        redis::Value::Int(entries) => usize::try_from(entries).unwrap(),
        other => panic!("{other:?}"),
    }
}

// F052, F065
#[test]
fn batches_are_committed_in_groups_and_come_back_where_they_were() {
    let Some(server) = Server::start(&AOF) else { return };
    let config = server.config(Level::Aof);
    let before = &RefCell::new(Found::new());
    on_each_driver(|_| {
        let (log, found) = open(&config, 1_000);
        assert_eq!(found, *before.borrow());
        let sealed: Vec<_> = log.sealed().iter().map(|sealed| (sealed.segment, sealed.last)).collect();
        assert!(sealed.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{sealed:?}");
        assert_eq!(
            sealed.last().map(|(_, last)| *last),
            found.len().checked_sub(1).map(|last| last as u64 + 1)
        );
        async move {
            let first = log.next;
            let (handle, ended) = commit(log);
            let mut last = 0;
            for n in 0..200 {
                last = handle.submit(bytes(first + n)).unwrap();
            }
            assert!(handle.durable() < last, "nothing is durable at once");
            handle.wait(last).await.unwrap();
            let (frames, writes) = handle.frames_and_writes();
            assert!(frames == 200 && writes <= 40, "{writes} requests");
            let mut done = Vec::new();
            handle.drain_completed(&mut done);
            assert_eq!(
                done.iter().map(|(position, _)| *position).collect::<Vec<_>>(),
                (first..=last).collect::<Vec<_>>()
            );
            // Ten batches fill a segment.
            assert!(done.iter().all(|(position, place)| {
                place.segment == first + (position - first) / 10 * 10
                    && place.segment + u64::from(place.offset) == *position
            }));
            before.borrow_mut().extend(done.iter().map(|(position, place)| (*place, bytes(*position))));
            stop(&handle, &ended).await;
        }
    });
    assert_eq!(before.borrow().len(), 600);
}

// F065
#[test]
fn segments_that_are_given_back_are_forgotten_the_oldest_first() {
    let Some(server) = Server::start(&AOF) else { return };
    let config = server.config(Level::Aof);
    let (log, _) = open(&config, 1_000);
    on_tokio(async {
        let (handle, ended) = commit(log);
        let more = async || {
            let position = handle.submit(bytes(1)).unwrap();
            handle.wait(position).await.unwrap();
        };
        for _ in 0..35 {
            more().await;
        }
        assert_eq!(handle.sealed().iter().map(|sealed| sealed.segment).collect::<Vec<_>>(), [1, 11, 21]);
        handle.release(11);
        more().await;
        assert_eq!(entries(&server), 36, "the first one is needed yet");
        handle.release(1);
        more().await;
        assert_eq!(entries(&server), 37 - 20);
        assert_eq!(handle.sealed().iter().map(|sealed| sealed.segment).collect::<Vec<_>>(), [21]);
        stop(&handle, &ended).await;
    });
    let (log, found) = open(&config, 1_000);
    assert_eq!(found.first().unwrap().0, FrameRef { segment: 21, offset: 0 });
    assert_eq!(found.len(), 17);
    assert_eq!(
        log.sealed().iter().map(|sealed| (sealed.first, sealed.last)).collect::<Vec<_>>(),
        [(21, 30), (31, 37)]
    );
}

// RELIABILITY C1, C2
#[test]
fn kills_of_the_server_under_a_committer_lose_nothing_and_double_nothing() {
    let Some(mut server) = Server::start(&AOF) else { return };
    let config = server.config(Level::Aof);
    let (log, _) = open(&config, 10_000);
    let count = 3_000;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let seen = acknowledged.clone();
    let killer = std::thread::spawn(move || {
        for round in 1..=4 {
            while seen.load(Ordering::Relaxed) < round * count / 5 {
                std::thread::yield_now();
            }
            server.restart();
        }
        server
    });
    on_tokio(async {
        let (handle, ended) = commit(log);
        for n in 1..=count {
            let position = handle.submit(n.to_be_bytes().to_vec()).unwrap();
            // Some together, so that kills meet batches of several.
            if n % 7 == 0 {
                handle.wait(position).await.unwrap();
                acknowledged.store(handle.durable(), Ordering::Relaxed);
            }
        }
        stop(&handle, &ended).await;
    });
    let _server = killer.join().unwrap();
    let (_, found) = open(&config, 10_000);
    assert_eq!(found.len() as u64, count);
    assert!((1..).zip(&found).all(|(n, (_, bytes)): (u64, _)| *bytes == n.to_be_bytes()));
}

// RELIABILITY C10, 2.7
#[test]
fn an_owner_that_was_followed_by_another_ends_and_adds_nothing() {
    let Some(server) = Server::start(&AOF) else { return };
    let config = server.config(Level::Aof);
    on_tokio(async {
        let (handle, ended) = commit(open(&config, 1_000).0);
        let position = handle.submit(bytes(1)).unwrap();
        handle.wait(position).await.unwrap();
        let (next, found) = open(&config, 1_000);
        assert_eq!(found.len(), 1);
        assert!(next.fence().unwrap().epoch > handle.fence().epoch);
        let position = handle.submit(bytes(2)).unwrap();
        let error = handle.wait(position).await.unwrap_err();
        assert_eq!(error.code(), "journal_fenced", "{error}");
        assert!(error.to_string().contains(&next.fence().unwrap().to_string()), "{error}");
        assert!(ended.borrow().is_some());
        assert_eq!(handle.submit(bytes(3)).unwrap_err().code(), "journal_fenced");
    });
    assert_eq!(entries(&server), 1);
}

// RELIABILITY C4
#[test]
fn while_the_server_has_no_memory_batches_wait_and_are_written_once() {
    let Some(server) = Server::start(&[&AOF[..], &["--maxmemory", "6mb"]].concat()) else { return };
    let config = server.config(Level::Aof);
    let (log, _) = open(&config, 1 << 30);
    on_tokio(async {
        let (handle, ended) = commit(log);
        let mut last = 0;
        for _ in 0..40 {
            last = handle.submit(vec![7; 256 << 10]).unwrap();
        }
        // More than the server takes.
        while !matches!(server.command(&["INFO", "errorstats"]), redis::Value::BulkString(said) if String::from_utf8_lossy(&said).contains("OOM"))
        {
            io::yield_now().await;
        }
        assert!(handle.durable() < last && handle.failure().is_none());
        assert!(handle.backlog_bytes() > 0, "whoever submits sees that it waits");
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        handle.wait(last).await.unwrap();
        stop(&handle, &ended).await;
        assert_eq!(entries(&server), 40);
    });
}
