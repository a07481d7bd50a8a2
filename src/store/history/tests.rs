//! Reading back: from the journal, from history files, and what is said of damage.

use super::*;
use crate::io::file::FileKind;
use crate::model::EventBody;
use crate::store::journal::{Durability, Journal};
use crate::store::log::{Config, Log, Source, recover, segment};
use crate::store::record::{BurstHead, append};
use crate::store::signing::SigningKey;
use crate::store::testing::{on_tokio, run_id};
use crate::time::Timestamp;

pub(super) const CLUSTER: [u8; 16] = [4; 16];

/// A log in which two runs alternate: run 1 has `bursts` bursts of three events.
pub(super) fn log_of_two_runs(root: &Path, bursts: u64) -> Vec<FrameRef> {
    log_of_runs(root, bursts, "run")
}

/// The same, with another word in its events.
pub(super) fn log_of_runs(root: &Path, bursts: u64, word: &str) -> Vec<FrameRef> {
    let config = Config {
        dir: shard_dir(root, 0),
        identity: Identity { cluster: CLUSTER, shard: 0 },
        segment_bytes: 32 << 10,
        durability: Durability::Fsync,
        file_kind: FileKind::Plain,
    };
    let marks = Default::default();
    let source = Source { dir: &config.dir, identity: config.identity, marks: &marks };
    on_tokio(async {
        let recovered = recover(source, &mut |_, _| Ok(())).unwrap();
        let mut log = Log::open(config.clone(), recovered).await.unwrap();
        let fence = log.claim(1).await.unwrap();
        for burst in 0..bursts {
            let mut payload = Vec::new();
            for run in [1, 2] {
                let events: Vec<_> = (0..3)
                    .map(|i| EventBody::RunCancelRequested {
                        reason: format!("{word} {run} event {} {}", burst * 3 + i + 1, "x".repeat(900))
                            .into(),
                    })
                    .collect();
                let head =
                    BurstHead { run_id: run_id(run), first_seq: burst * 3 + 1, at: Timestamp::default() };
                append(&mut payload, head, &events).unwrap();
            }
            let position = log.next();
            log.append(fence, position, &payload).await.unwrap();
        }
        log.close().await;
    });
    let mut frames = Vec::new();
    recover(source, &mut |frame, burst| {
        if burst.head.run_id == run_id(1) {
            frames.push(frame);
        }
        Ok(())
    })
    .unwrap();
    frames
}

fn query(frames: &[FrameRef], after: Seq, limit: usize) -> Query<'_> {
    Query { run_id: run_id(1), shard: 0, frames, class: None, after, limit }
}

#[test]
fn a_run_is_read_back_from_any_event_on_and_no_other_run_with_it() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 24);
    assert!(frames.last().unwrap().segment > 1);
    let history = History::new(root.path(), CLUSTER);
    for after in 0..=73 {
        for limit in [0, 1, 4, 100] {
            let events = history.events(&query(&frames, after, limit)).unwrap();
            let expected: Vec<Seq> = (after + 1..=72).take(limit).collect();
            assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), expected);
            for event in events {
                let EventBody::RunCancelRequested { reason } = &event.body else { panic!() };
                assert!(reason.starts_with(&format!("run 1 event {} ", event.seq)));
            }
        }
    }
}

#[test]
fn a_page_far_into_a_run_does_not_need_what_lies_before_it() {
    let root = tempfile::tempdir().unwrap();
    let mut frames = log_of_two_runs(root.path(), 24);
    let history = History::new(root.path(), CLUSTER);
    let seqs = |frames: &[FrameRef], after| {
        let events = history.events(&query(frames, after, 100))?;
        Ok::<_, Error>(events.iter().map(|event| event.seq).collect::<Vec<_>>())
    };
    assert_eq!(seqs(&frames, Seq::MAX).unwrap(), Vec::<Seq>::new());
    let nothing = FrameRef { offset: frames[1].offset + 4096, ..frames[1] };
    frames[1] = nothing;
    assert_eq!(seqs(&frames, 60).unwrap(), (61..=72).collect::<Vec<_>>());
    assert_eq!(seqs(&frames, 0).unwrap_err().code(), "journal_corrupt");
    // One that is looked at on the way: then all is read, and judged.
    frames[12] = nothing;
    assert_eq!(seqs(&frames, 60).unwrap_err().code(), "journal_corrupt");
}

#[test]
fn a_segment_that_is_gone_or_used_again_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 10);
    let history = History::new(root.path(), CLUSTER);
    let dir = shard_dir(root.path(), 0);
    let last = frames.last().unwrap().segment;
    // The file of segment 1 now holds what the last one holds, as a reader sees it that had opened it
    // before.
    let original = std::fs::read(segment::path(&dir, 1)).unwrap();
    std::fs::copy(segment::path(&dir, last), segment::path(&dir, 1)).unwrap();
    let first = FrameRef { segment: 1, offset: 0 };
    assert_eq!(history.events(&query(&[first], 0, 10)).unwrap_err().code(), "history_gone");
    std::fs::write(segment::path(&dir, 1), original).unwrap();
    std::fs::rename(segment::path(&dir, 1), segment::free_path(&dir, 1)).unwrap();
    assert_eq!(history.events(&query(&frames, 0, 100)).unwrap_err().code(), "history_gone");
}

#[test]
fn damage_a_wrong_place_and_a_gap_are_named() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 4);
    let history = History::new(root.path(), CLUSTER);
    let code = |frames: &[FrameRef]| history.events(&query(frames, 0, 100)).unwrap_err().code();
    assert_eq!(code(&[FrameRef { offset: frames[0].offset + 4096, ..frames[0] }]), "journal_corrupt");
    assert_eq!(code(&[FrameRef { offset: !4095, ..frames[0] }]), "journal_corrupt");
    assert_eq!(code(&[frames[0], frames[2]]), "journal_corrupt");
    let stranger = History::new(root.path(), [5; 16]);
    assert_eq!(stranger.events(&query(&frames, 0, 100)).unwrap_err().code(), "journal_corrupt");
    let path = segment::path(&shard_dir(root.path(), 0), frames[1].segment);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[frames[1].offset as usize + 2000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(code(&frames), "journal_corrupt");
    assert_eq!(history.events(&query(&frames[..1], 0, 100)).unwrap().len(), 3);
}

/// Moves segment 1 of such a log: run 1 is kept for a day, run 2 for a week unless it is forgotten.
fn move_first(root: &Path, forgotten: bool) -> Moved {
    let history = History::new(root, CLUSTER);
    let marks = Default::default();
    let dir = shard_dir(root, 0);
    let source = Source { dir: &dir, identity: history.identity(0), marks: &marks };
    let sealed = recover(source, &mut |_, _| Ok(())).unwrap().sealed[0];
    let mut moving = Move::begin(&history, 0, sealed).unwrap();
    let fate = |burst: &&Burst<'_>| match burst.head.run_id == run_id(1) {
        true => Fate::Ended(day(), Timestamp::from_micros(7)),
        false if forgotten => Fate::Forgotten,
        false => Fate::Live(week()),
    };
    let mut asked = 0;
    let mut fates = |bursts: &[&Burst<'_>]| {
        asked += bursts.len();
        Ok(bursts.iter().map(fate).collect())
    };
    while moving.step(&mut fates).unwrap() {}
    assert_eq!(asked, 2, "each run is asked for once");
    moving.finish().unwrap()
}

/// Moves and seals all segments that are full; how many those are.
pub(super) fn move_all(root: &Path, key: &SigningKey) -> usize {
    let history = History::new(root, CLUSTER);
    let marks = Default::default();
    let dir = shard_dir(root, 0);
    let source = Source { dir: &dir, identity: history.identity(0), marks: &marks };
    let sealed = recover(source, &mut |_, _| Ok(())).unwrap().sealed;
    for segment in &sealed {
        let mut moving = Move::begin(&history, 0, *segment).unwrap();
        let ended = Fate::Ended(day(), Timestamp::from_micros(7));
        while moving.step(&mut |bursts| Ok(vec![ended; bursts.len()])).unwrap() {}
        let parts = moving.take_parts();
        moving.finish().unwrap();
        let place = (history.identity(0), segment.segment);
        seal::write(&*history.files(0), place, &parts, (Timestamp::from_micros(8), key)).unwrap();
        std::fs::remove_file(segment::path(&dir, segment.segment)).unwrap();
    }
    sealed.len()
}

fn day() -> RetentionClass {
    RetentionClass::named("1d").unwrap()
}

fn week() -> RetentionClass {
    RetentionClass::named("7d").unwrap()
}

// F016
#[test]
fn a_moved_run_is_read_under_the_same_address_wherever_it_is() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 10);
    let history = History::new(root.path(), CLUSTER);
    let before = history.events(&query(&frames, 0, 100)).unwrap();
    let moved = move_first(root.path(), false);
    let files: Vec<_> =
        moved.files.iter().map(|file| (file.file.class, file.ended.len(), file.live.len())).collect();
    assert_eq!(files, [(day(), 1, 0), (week(), 0, 1)]);
    assert_eq!(moved.files[0].last_ended, Timestamp::from_micros(7));
    // Both are there, then only the history file.
    for _ in 0..2 {
        for class in [None, Some(day()), Some(week())] {
            for after in [0, 4, 29] {
                let found = history.events(&Query { class, ..query(&frames, after, 100) }).unwrap();
                assert_eq!(found, before[after as usize..], "{class:?} after {after}");
            }
        }
        let dir = shard_dir(root.path(), 0);
        let _ = std::fs::rename(segment::path(&dir, 1), segment::free_path(&dir, 1));
    }
    let other = Query { run_id: run_id(2), class: Some(week()), ..query(&frames, 0, 100) };
    assert_eq!(history.events(&other).unwrap().len(), 30);
}

#[test]
fn a_forgotten_run_is_left_behind_and_all_bursts_can_be_read_in_order() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 10);
    let history = History::new(root.path(), CLUSTER);
    let all = |moved: &Moved| {
        let files: Vec<_> = moved.files.iter().map(|file| file.file).collect();
        let mut seen = Vec::new();
        history
            .each_burst(0, &files, &mut |frame, burst| {
                seen.push((frame, burst.head.run_id, burst.head.first_seq));
                Ok(())
            })
            .unwrap();
        seen
    };
    let both = all(&move_first(root.path(), false));
    let own = frames.iter().filter(|frame| frame.segment == 1).count();
    assert_eq!(both.len(), 2 * own);
    for run in [1, 2] {
        let of_run: Vec<_> = both.iter().filter(|(_, id, _)| *id == run_id(run)).collect();
        assert!(of_run.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].2 < pair[1].2));
    }
    std::fs::remove_dir_all(root.path().join("history")).unwrap();
    let moved = move_first(root.path(), true);
    assert_eq!(moved.forgotten, [run_id(2)]);
    assert!(all(&moved).iter().all(|(_, id, _)| *id == run_id(1)));
    assert_eq!(all(&moved).len(), own);
}

// RELIABILITY B10
#[test]
fn any_changed_byte_and_any_cut_of_a_history_file_is_seen() {
    let root = tempfile::tempdir().unwrap();
    log_of_two_runs(root.path(), 10);
    let moved = move_first(root.path(), false);
    let history = History::new(root.path(), CLUSTER);
    let file = moved.files[0].file;
    let target = history.files(0).place(&name(file.segment, file.class));
    let whole = std::fs::read(&target).unwrap();
    let read = || -> Result<usize, Error> {
        let open = HistoryFile::open(&history, file)?.unwrap();
        let mut frames = 0;
        open.each_frame(&mut |_, _| {
            frames += 1;
            Ok(())
        })?;
        Ok(frames + open.runs()?.len())
    };
    assert!(read().unwrap() > 2);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(&target, &bytes).unwrap();
        assert_eq!(read().unwrap_err().code(), "history_corrupt", "byte {at}");
    }
    for cut in (0..whole.len()).step_by(7) {
        std::fs::write(&target, &whole[..cut]).unwrap();
        assert_eq!(read().unwrap_err().code(), "history_corrupt", "cut at {cut}");
    }
    // A sound file of another place.
    std::fs::write(&target, &whole).unwrap();
    std::fs::rename(&target, history.files(0).place(&name(file.segment, week()))).unwrap();
    let error = HistoryFile::open(&history, FileId { class: week(), ..file });
    assert_eq!(error.unwrap_err().code(), "history_corrupt");
}

#[test]
fn a_segment_that_is_not_what_its_seal_says_is_not_moved() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 10);
    let target = segment::path(&shard_dir(root.path(), 0), 1);
    let history = History::new(root.path(), CLUSTER);
    let marks = Default::default();
    let source = Source { dir: &shard_dir(root.path(), 0), identity: history.identity(0), marks: &marks };
    let sealed = recover(source, &mut |_, _| Ok(())).unwrap().sealed[0];
    let mut bytes = std::fs::read(&target).unwrap();
    bytes[frames[1].offset as usize + 500] ^= 1;
    std::fs::write(&target, bytes).unwrap();
    let mut moving = Move::begin(&history, 0, sealed).unwrap();
    let error = loop {
        match moving.step(&mut |bursts| Ok(vec![Fate::Live(day()); bursts.len()])) {
            Ok(true) => {}
            Ok(false) => panic!("the damage was not seen"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "journal_corrupt");
    moving.abandon();
    assert_eq!(history.files(0).list().unwrap(), []);
}
