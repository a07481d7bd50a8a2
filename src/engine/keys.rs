//! `request.remembered`: a run's memory of requests with an `Idempotency-Key`, so that each of them is done once.
//!
//! What must hold: the event stands in the same burst as what it remembers, behind it, so both are there or neither; a key is
//! remembered for 24 hours at least ([`limits::IDEMPOTENCY_KEY_SECONDS`], by the times of events), whatever becomes of the
//! run; what is older goes when another one comes, so equal histories leave equal memories. When all
//! [`limits::KEYS_PER_RUN_MAX`] are younger a further key is refused before anything is done: to forget one would be to do it
//! again when it is sent again, which is what its key is there against. A fork has none: a key belongs to the run that it was
//! sent to. A run that never saw a key has one empty pointer, and nothing in its image.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FoldError;
use super::fold::unfit;
use super::run::Run;
use crate::limits;
use crate::model::event::{Done, Idempotency, Remembered};
use crate::model::{EventBody, RunSummary, Seq, Status};
use crate::time::Timestamp;

/// The requests that a run remembers, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::box_collection, reason = "nearly every run has none: eight bytes instead of thirty-two")]
pub(super) struct Keys(Option<Box<VecDeque<Known>>>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Number of the event that remembers it.
    pub seq: Seq,
    /// When that was.
    pub at: Timestamp,
    /// What it was.
    pub request: Arc<Remembered>,
}

impl Known {
    /// The run in one line, as it was when the request was done.
    pub fn summary(&self, run: RunSummary) -> RunSummary {
        RunSummary { status: self.request.status, seq: self.seq, ended_at: None, ..run }
    }

    fn is_old(&self, now: Timestamp) -> bool {
        let kept = Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS);
        self.at.saturating_add(kept) <= now
    }
}

impl Keys {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Known> {
        self.0.iter().flat_map(|known| known.iter())
    }

    /// How many go when another one comes now.
    fn old(&self, now: Timestamp) -> usize {
        self.iter().take_while(|known| known.is_old(now)).count()
    }

    /// How many there are then.
    fn left(&self, now: Timestamp) -> usize {
        self.0.as_ref().map_or(0, |known| known.len()) - self.old(now)
    }

    /// For the end of an image.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, postcard::Error> {
        self.0.as_ref().map_or_else(|| postcard::to_stdvec(&VecDeque::<Known>::new()), postcard::to_stdvec)
    }

    /// As an image ends.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), postcard::Error> {
        if bytes.is_empty() {
            return Ok((Self::default(), bytes));
        }
        let (known, rest) = postcard::take_from_bytes::<VecDeque<Known>>(bytes)?;
        Ok((Self((!known.is_empty()).then(|| Box::new(known))), rest))
    }
}

impl Run {
    /// What was done under this key, if it is remembered.
    pub fn remembered(&self, key: &[u8; 16]) -> Option<&Known> {
        self.keys.iter().rev().find(|known| known.request.idempotency.key == *key)
    }

    /// How many keys it remembers, when there is no room for another one yet.
    pub fn keys_full(&self, now: Timestamp) -> Option<usize> {
        Some(self.keys.left(now)).filter(|left| *left >= limits::KEYS_PER_RUN_MAX)
    }

    /// Decides `request.remembered`, which comes directly behind what was done.
    pub fn remember(&self, idempotency: Idempotency, done: Done) -> EventBody {
        self.remember_as(self.status(), idempotency, done)
    }

    /// The same, of what gives the run this status.
    pub(super) fn remember_as(&self, status: Status, idempotency: Idempotency, done: Done) -> EventBody {
        EventBody::RequestRemembered(Arc::new(Remembered { idempotency, status, done }))
    }
}

/// Folds `request.remembered`.
pub(super) fn remember(
    run: &mut Run,
    body: &EventBody,
    request: &Arc<Remembered>,
    at: Timestamp,
) -> Result<(), FoldError> {
    if request.status != run.status {
        return Err(unfit(body, "it says what the run's status is"));
    }
    if run.proposed().is_some() {
        return Err(unfit(body, "patch.applied comes first"));
    }
    if run.keys_full(at).is_some() {
        return Err(unfit(body, "the run remembers as many requests as it may"));
    }
    let old = run.keys.old(at);
    if run.keys.iter().skip(old).any(|known| known.request.idempotency.key == request.idempotency.key) {
        return Err(unfit(body, "its key stands for another request"));
    }
    let known = run.keys.0.get_or_insert_default();
    known.drain(..old);
    known.push_back(Known { seq: run.seq + 1, at, request: request.clone() });
    Ok(())
}
