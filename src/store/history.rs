//! Reads the events of one run back from the frames that hold them: timelines, replay, lagging subscribers.
//!
//! Blocking; for the small pools of the control and fanout planes. It shares nothing with the writer but the
//! files: every frame is checked before a byte of it is believed, and a segment that was used again
//! meanwhile is [`Error::Gone`], never another run's events. Memory: one frame.

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::layout::shard_dir;
use super::log::frame::{Identity, decode};
use super::log::segment;
use super::record::Bursts;
use crate::io::disk::{self, OpenFile};
use crate::model::{Event, FrameRef, RunId, Seq};

/// Reads histories under one data directory.
#[derive(Clone, Debug)]
pub struct History {
    root: PathBuf,
    cluster: [u8; 16],
}

/// Which events.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Of which run.
    pub run_id: RunId,
    /// The shard whose journal holds them.
    pub shard: u16,
    /// The frames that hold them, in order.
    pub frames: &'a [FrameRef],
    /// Only events after this one.
    pub after: Seq,
    /// At most this many.
    pub limit: usize,
}

impl History {
    /// Of the data directory at `root`, whose id is `cluster`.
    pub fn new(root: &Path, cluster: [u8; 16]) -> Self {
        Self { root: root.into(), cluster }
    }

    /// The run's events after `after`, in order, at most `limit`. Blocking.
    ///
    /// # Errors
    /// `Gone` when a frame's segment has been given back; `Corrupt` when a frame is damaged or the events
    /// have a gap.
    pub fn events(&self, query: &Query<'_>) -> Result<Vec<Event>, Error> {
        let dir = shard_dir(&self.root, query.shard);
        let identity = Identity { cluster: self.cluster, shard: query.shard };
        let mut events = Vec::new();
        let mut reader = FrameReader { dir, identity, open: None, bytes: Vec::new() };
        let mut last = None;
        for &frame in query.frames {
            if events.len() >= query.limit {
                break;
            }
            let corrupt = |reader: &FrameReader, why: String| Error::Corrupt {
                file: segment::path(&reader.dir, frame.segment),
                offset: u64::from(frame.offset),
                position: 0,
                why,
            };
            let payload = reader.payload(frame)?.to_vec();
            let bursts = Bursts::new(&payload)?;
            for burst in bursts {
                let burst = burst.map_err(|error| corrupt(&reader, error.to_string()))?;
                if burst.head.run_id != query.run_id {
                    continue;
                }
                if last.is_some_and(|last: Seq| last + 1 != burst.head.first_seq) {
                    return Err(corrupt(
                        &reader,
                        format!("{} has a gap before its event {}", query.run_id, burst.head.first_seq),
                    ));
                }
                last = Some(burst.last_seq());
                if burst.last_seq() <= query.after {
                    continue;
                }
                for event in burst.events() {
                    let event = event.map_err(|error| corrupt(&reader, error.to_string()))?;
                    if event.seq > query.after && events.len() < query.limit {
                        events.push(event);
                    }
                }
            }
        }
        Ok(events)
    }
}

struct FrameReader {
    dir: PathBuf,
    identity: Identity,
    open: Option<(u64, OpenFile)>,
    bytes: Vec<u8>,
}

impl FrameReader {
    /// The payload of one frame, after every check.
    fn payload(&mut self, frame: FrameRef) -> Result<&[u8], Error> {
        let path = segment::path(&self.dir, frame.segment);
        let read = self.read(frame, &path);
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Gone { segment: frame.segment });
            }
            read => read.map_err(|error| Error::io(format!("read {}", path.display()), error))?,
        }
        let found = decode(&self.bytes);
        let ours = found.filter(|found| {
            let header = &found.header;
            (header.identity, header.segment, header.offset) == (self.identity, frame.segment, frame.offset)
        });
        match ours {
            Some(found) => Ok(found.payload),
            // An open file may have been renamed and written over since.
            None if disk::length(&path).is_err()
                || found.is_some_and(|found| found.header.segment > frame.segment) =>
            {
                Err(Error::Gone { segment: frame.segment })
            }
            None => Err(Error::Corrupt {
                file: path,
                offset: u64::from(frame.offset),
                position: 0,
                why: "no sound frame stands here".into(),
            }),
        }
    }

    fn read(&mut self, frame: FrameRef, path: &Path) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(segment, _)| *segment != frame.segment) {
            self.open = Some((frame.segment, OpenFile::open(path)?));
        }
        let Some((_, file)) = &self.open else { return Err(io::ErrorKind::NotFound.into()) };
        segment::read_frame(file, u64::from(frame.offset), &mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::file::FileKind;
    use crate::model::EventBody;
    use crate::store::journal::{Durability, Journal};
    use crate::store::log::{Config, Log, Source, recover};
    use crate::store::record::{BurstHead, append};
    use crate::store::testing::{on_tokio, run_id};
    use crate::time::Timestamp;

    const CLUSTER: [u8; 16] = [4; 16];

    /// A log in which two runs alternate: run 1 has `bursts` bursts of three events.
    fn log_of_two_runs(root: &Path, bursts: u64) -> Vec<FrameRef> {
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
                            reason: format!("run {run} event {} {}", burst * 3 + i + 1, "x".repeat(900))
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
        Query { run_id: run_id(1), shard: 0, frames, after, limit }
    }

    #[test]
    fn a_run_is_read_back_from_any_event_on_and_no_other_run_with_it() {
        let root = tempfile::tempdir().unwrap();
        let frames = log_of_two_runs(root.path(), 10);
        assert!(frames.last().unwrap().segment > 1);
        let history = History::new(root.path(), CLUSTER);
        for after in 0..=31 {
            for limit in [0, 1, 4, 100] {
                let events = history.events(&query(&frames, after, limit)).unwrap();
                let expected: Vec<Seq> = (after + 1..=30).take(limit).collect();
                assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), expected);
                for event in events {
                    let EventBody::RunCancelRequested { reason } = &event.body else { panic!() };
                    assert!(reason.starts_with(&format!("run 1 event {} ", event.seq)));
                }
            }
        }
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
}
