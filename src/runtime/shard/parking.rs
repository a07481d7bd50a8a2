//! Runs that wait for nothing but time, a signal or a human, kept as the bytes of their images.
//!
//! Such a run costs its image, a line for listings and its timers; it is unpacked, at once and without I/O, when anything
//! is to be done with it. What must hold: only a run is parked whose image in the index is what it is now, so nothing is
//! lost by unpacking; nobody sees whether a run is parked. One that was only looked at is parked again after
//! [`LOOKED_AT_FOR`]; one that has changed is parked when its next image is in the index. Runs under way, waiting to be
//! admitted, watched, or larger than [`PARKED_BYTES_MAX`] are not parked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::image::{self, Graphs};
use super::timers::Held;
use super::{Entry, IdMap, Shard};
use crate::ir::Ir;
use crate::model::{RunId, RunSummary, Seq};
use crate::time::Timestamp;

/// Largest image that is kept instead of its run: unpacking it holds nobody up.
const PARKED_BYTES_MAX: usize = 32 << 10;
/// How long a run stays unpacked that nothing has changed in.
const LOOKED_AT_FOR: Duration = Duration::from_secs(10);
/// Runs looked at again in one turn.
const LOOKS_PER_TURN: usize = 256;

/// A run that is kept as its image.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) summary: RunSummary,
    ir: Arc<Ir>,
    timers: Held,
    image: Arc<[u8]>,
}

/// All parked runs of a shard.
#[derive(Debug, Default)]
pub(super) struct Parking {
    runs: IdMap<RunId, Box<Parked>>,
    /// Runs that were unpacked and when, with their images and the last event in these.
    unpacked: VecDeque<(Timestamp, RunId, Seq, Arc<[u8]>)>,
}

impl Parking {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Is it here?
    pub(super) fn contains(&self, run_id: RunId) -> bool {
        self.runs.contains_key(&run_id)
    }

    /// Number of the last event of a parked run.
    pub(super) fn seq(&self, run_id: RunId) -> Option<Seq> {
        self.runs.get(&run_id).map(|parked| parked.summary.seq)
    }

    /// For listings.
    pub(super) fn summaries(&self) -> impl Iterator<Item = &RunSummary> {
        self.runs.values().map(|parked| &parked.summary)
    }

    /// For listings.
    pub(super) fn summary(&self, run_id: RunId) -> Option<&RunSummary> {
        self.runs.get(&run_id).map(|parked| &parked.summary)
    }

    /// Keeps an entry as its image.
    pub(super) fn put(&mut self, run_id: RunId, entry: Entry, image: Arc<[u8]>) {
        let (summary, ir) = (entry.run.summary(), entry.run.ir().clone());
        self.runs.insert(run_id, Box::new(Parked { summary, ir, timers: entry.timers, image }));
    }
}

impl Entry {
    /// May it be kept as an image of this size, which the index has?
    pub(super) fn may_park(&self, image: &[u8]) -> bool {
        image.len() <= PARKED_BYTES_MAX
            && self.saved.seq == self.run.seq()
            && self.durable_seq == self.run.seq()
            && self.saved.frames == self.frames.len()
            && !(self.queued || self.watched || self.saved.is_under_way())
            && self.waiters.is_empty()
            && self.run.is_at_rest()
    }
}

impl Shard {
    /// Keeps a run as its image if it may be.
    pub(super) fn park(&mut self, run_id: RunId, image: Arc<[u8]>) {
        if self.runs.get(&run_id).is_some_and(|entry| entry.may_park(&image))
            && let Some(entry) = self.runs.remove(&run_id)
        {
            self.parking.put(run_id, *entry, image);
        }
    }

    /// Unpacks a run if it is parked: from now on it is like the others.
    pub(super) fn unpark(&mut self, run_id: RunId, now: Timestamp) {
        let Some(parked) = self.parking.runs.remove(&run_id) else { return };
        let Parked { summary, ir, timers, image } = *parked;
        match image::decode(run_id, &image, Graphs::Known(ir)) {
            Ok((run, kept)) => {
                let mut entry = Entry::restored(run, kept);
                entry.timers = timers;
                self.runs.insert(run_id, entry);
                self.parking.unpacked.push_back((now, run_id, summary.seq, image));
            }
            // These bytes were read or made by this process.
            Err(error) => self.fence(format!("the parked run {run_id} cannot be unpacked: {error}").into()),
        }
    }

    /// Parks runs again that were unpacked a while ago and have not changed. Returns whether there are more.
    pub(crate) fn park_again(&mut self, now: Timestamp) -> bool {
        for _ in 0..LOOKS_PER_TURN {
            let unpacked = &mut self.parking.unpacked;
            let next = unpacked.pop_front_if(|(since, ..)| since.saturating_add(LOOKED_AT_FOR) <= now);
            let Some((_, run_id, seq, image)) = next else { return false };
            if self.runs.get(&run_id).is_some_and(|entry| entry.run.seq() == seq) {
                self.park(run_id, image);
            }
        }
        true
    }
}
