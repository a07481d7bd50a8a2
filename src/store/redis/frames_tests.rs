//! Frames of a real server, read beside the one that writes them.

use std::sync::mpsc::channel;

use super::super::log::ends;
use super::super::testing::{AOF, Server};
use super::super::{Known, Level, Tag};
use super::*;
use crate::store::log::Sink as _;
use crate::store::testing::{batch, on_tokio, run_id};

/// Batches in segments of a few, under an owner of its own; the segments that are sealed then.
fn written(server: &Server, batches: std::ops::Range<u64>) -> Vec<Sealed> {
    let (unclaimed, _, writing) = ends(&server.config(Level::Aof), 400);
    std::thread::spawn(move || on_tokio(writing().run()));
    let (sender, sealed) = channel();
    on_tokio(async move {
        let mut log = unclaimed.claim(Known::default(), 7).await.unwrap();
        log.read(&Default::default(), &mut |_, _| Ok(())).await.unwrap();
        let mut queue: std::collections::VecDeque<_> = batches.map(|n| batch(n, 60)).collect();
        while !queue.is_empty() {
            log.write(&mut queue, &mut Vec::new(), &mut Vec::new()).await.unwrap();
        }
        sender.send(log.sealed()).unwrap();
    });
    sealed.recv().unwrap()
}

/// Numbers of the events in a payload.
fn numbers(payload: &[u8]) -> Vec<u64> {
    Bursts::new(payload).unwrap().map(|burst| burst.unwrap().head.first_seq).collect()
}

// F063, F065
#[test]
fn frames_are_found_by_place_and_segments_are_read_as_they_were_sealed() {
    let Some(server) = Server::start(&AOF) else { return };
    let frames = RedisFrames::new(server.client(Tag::Partition(3)));
    assert!(frames.segments().unwrap().is_empty() && !frames.has(1).unwrap());
    let sealed = written(&server, 1..21);
    assert!(sealed.len() > 3, "{sealed:?}");

    let mut all = Vec::new();
    frames
        .each(&mut |frame, burst| {
            assert_eq!(burst.head.run_id, run_id(1));
            all.push((frame, burst.head.first_seq));
            Ok(())
        })
        .unwrap();
    assert_eq!(all.iter().map(|(_, n)| *n).collect::<Vec<_>>(), (1..21).collect::<Vec<_>>());
    let mut reader = frames.reader();
    for (frame, n) in all.iter().rev() {
        assert_eq!(numbers(&reader.payload(*frame).unwrap()), [*n]);
    }
    let segments = frames.segments().unwrap();
    assert!(sealed.iter().all(|sealed| segments.contains(&sealed.segment)), "{segments:?}");
    assert!(frames.has(1).unwrap() && !frames.has(21).unwrap());
    assert!(frames.bytes().unwrap().0 > 1_000);

    for part in &sealed {
        let mut reading = frames.sealed(*part).unwrap();
        let mut n = part.first;
        loop {
            let (offset, payload, is_last) = reading.next().unwrap();
            assert_eq!(u64::from(offset), n - part.segment);
            assert_eq!(numbers(&payload.unwrap()), [n]);
            assert_eq!(is_last, n == part.last);
            if is_last {
                break;
            }
            n += 1;
        }
    }

    // What is asked for is not what stands there.
    let other = Sealed { last_crc: sealed[0].last_crc ^ 1, ..sealed[0] };
    let mut reading = frames.sealed(other).unwrap();
    let error = loop {
        match reading.next() {
            Ok((_, _, is_last)) => assert!(!is_last),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "store_damaged", "{error}");
    let wrong = FrameRef { segment: sealed[1].segment - 1, offset: 1 };
    assert_eq!(reader.payload(wrong).unwrap_err().code(), "store_damaged");

    // What was given back, and what never was.
    server.command(&["XTRIM", "aob:{3}:log", "MINID", &format!("{}-0", sealed[1].first)]);
    server.command(&["HSET", "aob:{3}:state", "first", &sealed[1].first.to_string()]);
    for frame in [all[0].0, FrameRef { segment: 90, offset: 0 }, FrameRef { segment: u64::MAX, offset: 1 }] {
        assert_eq!(reader.payload(frame).unwrap_err().code(), "history_gone");
    }
    assert!(!frames.has(sealed[0].segment).unwrap());
    let place = frames.place(Some(7)).display().to_string();
    assert!(place.contains("aob:{3}:log segment 7"), "{place}");
}

// F063
#[test]
fn what_segments_are_marked_is_not_read_again() {
    let Some(server) = Server::start(&AOF) else { return };
    let sealed = written(&server, 1..21);
    let marks = sealed.iter().take(2).map(|sealed| (sealed.segment, *sealed)).collect();
    let (unclaimed, _, writing) = ends(&server.config(Level::Aof), 400);
    std::thread::spawn(move || on_tokio(writing().run()));
    on_tokio(async move {
        let mut log = unclaimed.claim(Known::default(), 8).await.unwrap();
        for _ in 0..2 {
            let mut first = None;
            let mut visit = |place, _: &[u8]| {
                first.get_or_insert(place);
                Ok(())
            };
            assert_eq!(log.read(&marks, &mut visit).await.unwrap(), 20 - sealed[1].last);
            assert_eq!(first, Some(FrameRef { segment: sealed[2].segment, offset: 0 }));
            // All are sealed: what the owner before left unfinished, too.
            assert_eq!(log.sealed()[..sealed.len()], sealed[..]);
            assert_eq!(log.sealed().last().map(|last| last.last), Some(20));
            assert_eq!(log.first_segment(), 1);
        }
    });
}
