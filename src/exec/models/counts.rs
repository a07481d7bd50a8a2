//! What is counted of calls to one model. Cells are written by whoever makes or awaits the call, and read by `/metrics`.

use crate::model::Failure;
use crate::model::agent::Answer;
use crate::telemetry::Cell;
use crate::time::{Clock as _, SystemClock};

/// Upper bounds of the buckets of durations; a last one has no bound.
pub const BUCKETS_SECONDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The numbers of one model.
#[derive(Debug, Default)]
pub struct Counts {
    /// Tokens read, but for those that were cached.
    pub input: Cell,
    /// Tokens written.
    pub output: Cell,
    /// Tokens read from the provider's cache.
    pub cache_read: Cell,
    /// Tokens put into it.
    pub cache_write: Cell,
    /// What answers cost, in billionths of a dollar. Of an unpriced model: 0.
    pub cost_nanos: Cell,
    /// Calls with an answer.
    pub succeeded: Cell,
    /// Calls without one; those that were refused are among them.
    pub failed: Cell,
    /// Calls that were not made: no room, or an open breaker.
    pub refused: Cell,
    /// Calls that were given up before they ended.
    pub given_up: Cell,
    /// Answers whose tokens are an estimate.
    pub unmeasured: Cell,
    /// Calls by how long they took: up to the bound of the same place in [`BUCKETS_SECONDS`], and longer.
    pub durations: [Cell; BUCKETS_SECONDS.len() + 1],
    /// Microseconds of all calls.
    pub micros: Cell,
}

/// One call, until it ends or is given up.
pub(super) struct Watch<'a> {
    counts: &'a Counts,
    began_us: u64,
    over: bool,
}

impl Counts {
    pub(super) fn begin(&self, began_us: u64) -> Watch<'_> {
        Watch { counts: self, began_us, over: false }
    }

    fn answered(&self, answer: &Answer) {
        self.succeeded.increment();
        let tokens = &answer.tokens;
        for (cell, count) in [
            (&self.input, tokens.input),
            (&self.output, tokens.output),
            (&self.cache_read, tokens.cache_read),
            (&self.cache_write, tokens.cache_write),
            (&self.cost_nanos, answer.cost.unwrap_or_default().as_nanos()),
            (&self.unmeasured, u64::from(!answer.measured)),
        ] {
            cell.add(count);
        }
    }
}

impl Watch<'_> {
    pub(super) fn ended(&mut self, outcome: &Result<Answer, Failure>) {
        self.over = true;
        match outcome {
            Ok(answer) => self.counts.answered(answer),
            Err(_) => self.counts.failed.increment(),
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.counts.given_up.increment();
        }
        let took_us = SystemClock.monotonic_us().saturating_sub(self.began_us);
        let seconds = std::time::Duration::from_micros(took_us).as_secs_f64();
        let at = BUCKETS_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS_SECONDS.len());
        if let Some(cell) = self.counts.durations.get(at) {
            cell.increment();
        }
        self.counts.micros.add(took_us);
    }
}
