//! The images of unfinished runs (`docs/formats/checkpoint.md`), looked over.
//!
//! An image that cannot be used loses nothing by itself: the node then reads everything that there is of all unfinished runs of
//! the shard. So it is a warning; and a problem where history and journal do not hold all of such a run.

use std::collections::{BTreeMap, BTreeSet};

use super::fsck::{Problem, Report};
use crate::model::{FrameRef, RunId, Seq};
use crate::runtime::shard::{Sources, image};
use crate::store::images::Tally;
use crate::store::index::Index;
use crate::store::record::Burst;
use crate::store::{Archive as _, Error};

/// Events of one run, as ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found(BTreeMap<Seq, Seq>);

impl Found {
    /// Events `first` to `last` are there.
    fn add(&mut self, mut first: Seq, mut last: Seq) {
        let touching = self.0.range(..=last.saturating_add(1)).rev();
        let touching: Vec<Seq> =
            touching.take_while(|(_, end)| end.saturating_add(1) >= first).map(|(begin, _)| *begin).collect();
        for begin in touching {
            let end = self.0.remove(&begin).unwrap_or(last);
            (first, last) = (first.min(begin), last.max(end));
        }
        self.0.insert(first, last);
    }

    /// Are all events from the first to `seq` at least there, and none missing after it?
    fn whole(&self, seq: Seq) -> bool {
        self.0.len() == 1 && self.0.get(&1).is_some_and(|last| *last >= seq)
    }
}

/// In words.
impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(|(first, last)| format!("{first} to {last}")).collect();
        if ranges.is_empty() { f.write_str("none") } else { f.write_str(&ranges.join(", ")) }
    }
}

/// The images of one shard, and what is found of their runs elsewhere.
#[derive(Debug, Default)]
pub(super) struct Images {
    shard: u16,
    /// Runs with images: the last event that each image knows (0: it cannot be read), and the events that are found.
    runs: BTreeMap<RunId, (Seq, Found)>,
    /// Frames that images name, and that were not seen yet.
    frames: BTreeSet<(RunId, FrameRef)>,
    /// What is wrong, and with which run.
    wrong: Vec<(Option<RunId>, String)>,
}

impl Images {
    /// Reads them all.
    pub(super) fn read(index: &Index, shard: u16, sources: &mut impl Sources) -> Self {
        let mut images = Self { shard, ..Self::default() };
        let mut counted = Tally::default();
        let read = index.images(shard, &mut |run_id, bytes| {
            counted.add(run_id, bytes);
            images.one(run_id, bytes, sources);
            Ok(())
        });
        match read {
            Ok(tally) if tally != counted => {
                let (there, put) = (counted.count, tally.count);
                let what =
                    if there == put { "some are other ones".into() } else { format!("{put} were put") };
                images.wrong.push((None, format!("{there} images are there, {what}")));
            }
            Ok(_) => {}
            Err(error) => images.wrong.push((None, format!("images cannot be read: {error}"))),
        }
        images
    }

    fn one(&mut self, run_id: RunId, bytes: &[u8], sources: &mut impl Sources) {
        let mut seq = 0;
        match image::look(run_id, bytes, sources) {
            Ok(looked) => {
                seq = looked.seq;
                self.frames.extend(looked.frames.into_iter().map(|frame| (run_id, frame)));
                if let Some(why) = looked.missing {
                    self.wrong.push((Some(run_id), why));
                }
            }
            Err(error) => self.wrong.push((Some(run_id), error.to_string())),
        }
        self.runs.insert(run_id, (seq, Found::default()));
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.runs.len() as u64
    }

    /// A burst is there.
    pub(super) fn burst(&mut self, frame: FrameRef, burst: &Burst<'_>) {
        let run_id = burst.head.run_id;
        if let Some((_, found)) = self.runs.get_mut(&run_id) {
            found.add(burst.head.first_seq, burst.last_seq());
            self.frames.remove(&(run_id, frame));
        }
    }

    /// After everything was read: what is to be said.
    pub(super) fn judge(mut self, report: &mut Report) {
        let mut places: BTreeMap<RunId, Vec<FrameRef>> = BTreeMap::new();
        for (run_id, frame) in std::mem::take(&mut self.frames) {
            places.entry(run_id).or_default().push(frame);
        }
        for (run_id, frames) in places {
            let first = frames.first().copied().unwrap_or(FrameRef { segment: 0, offset: 0 });
            let (segment, offset, count) = (first.segment, first.offset, frames.len());
            let why = format!(
                "it names {count} frames without events of the run, the first in segment {segment} at byte {offset}"
            );
            self.wrong.push((Some(run_id), why));
        }
        let shard = self.shard;
        for (run_id, why) in &self.wrong {
            let (what, lost) = match run_id.and_then(|run_id| Some((run_id, self.runs.get(&run_id)?))) {
                None => (
                    format!("shard {shard}: {why}"),
                    String::from("nothing; the next start reads everything that there is instead"),
                ),
                Some((run_id, (seq, found))) => {
                    let rest = if found.whole(*seq) {
                        format!(
                            "nothing; history and journal hold its events {found}, which the next start reads"
                        )
                    } else {
                        format!("see the problem of {run_id}")
                    };
                    (format!("shard {shard}: the image of {run_id} cannot be used: {why}"), rest)
                }
            };
            report.warn(Problem { code: "image_unusable", file: None, offset: None, what, lost });
        }
        if self.wrong.is_empty() {
            return;
        }
        // One bad image spoils all: the events of every run are read.
        for (run_id, (seq, found)) in self.runs.iter().filter(|(_, (seq, found))| !found.whole(*seq)) {
            let last = if *seq == 0 { String::from("its end") } else { seq.to_string() };
            report.problem(
                &Error::Index { why: format!("images of shard {shard} cannot be used, and of {run_id} not all events are there: {found}, of 1 to {last}") },
                format!("the run {run_id}: without its image the node does not start, or does not know it"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_events_grow_together_in_any_order() {
        let mut found = Found::default();
        assert!(!found.whole(0));
        for (first, last) in [(7, 9), (1, 2), (5, 6), (2, 3), (8, 8)] {
            found.add(first, last);
        }
        assert_eq!(found.to_string(), "1 to 3, 5 to 9");
        assert!(!found.whole(2), "4 is missing, and there is more after it");
        found.add(4, 4);
        assert_eq!(found.to_string(), "1 to 9");
        assert!(found.whole(9) && !found.whole(10));
        let mut late = Found::default();
        late.add(2, 9);
        assert!(!late.whole(1));
    }
}
