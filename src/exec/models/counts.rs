//! What is counted of calls to one model. Cells are written by whoever makes or awaits the call, and read by `/metrics`.

use super::embeddings;
use crate::model::Failure;
use crate::model::agent::{Answer, Ask};
use crate::telemetry::Cell;
use crate::time::{Clock as _, SystemClock};

/// Upper bounds of the buckets of durations; a last one has no bound.
pub const BUCKETS_SECONDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Upper bounds of the buckets of tokens, as the GenAI conventions advise; a last one has no bound.
pub const BUCKETS_TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// What a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Words.
    Chat,
    /// Vectors.
    Embeddings,
}

/// All of them.
pub const OPERATIONS: [Operation; 2] = [Operation::Chat, Operation::Embeddings];

impl Operation {
    pub(super) fn of(ask: &Ask) -> Self {
        if embeddings::is_wanted(ask) { Self::Embeddings } else { Self::Chat }
    }

    /// As the GenAI conventions name it (`gen_ai.operation.name`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
        }
    }
}

/// Values by size.
#[derive(Debug)]
pub struct Spread<const N: usize> {
    /// How many are up to the bound of the same place, and above all.
    pub buckets: [Cell; N],
    /// All of them together.
    pub sum: Cell,
}

impl<const N: usize> Default for Spread<N> {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Cell::default()), sum: Cell::default() }
    }
}

impl<const N: usize> Spread<N> {
    fn take(&self, bounds: &[f64], at: f64, amount: u64) {
        let place = bounds.iter().position(|bound| at <= *bound).unwrap_or(bounds.len());
        if let Some(cell) = self.buckets.get(place) {
            cell.increment();
        }
        self.sum.add(amount);
    }
}

/// Of the calls for one kind of thing.
#[derive(Debug, Default)]
pub struct OperationCounts {
    /// Tokens read by an answer, what came from a cache or went into it among them.
    pub input: Spread<{ BUCKETS_TOKENS.len() + 1 }>,
    /// Tokens written by an answer.
    pub output: Spread<{ BUCKETS_TOKENS.len() + 1 }>,
    /// Microseconds of calls, those that failed among them; by the bounds of [`BUCKETS_SECONDS`].
    pub micros: Spread<{ BUCKETS_SECONDS.len() + 1 }>,
}

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
    /// By what was asked for, in the order of [`OPERATIONS`].
    pub operations: [OperationCounts; OPERATIONS.len()],
}

/// One call, until it ends or is given up.
pub(super) struct Watch<'a> {
    counts: &'a Counts,
    operation: Operation,
    began_us: u64,
    over: bool,
}

impl Counts {
    pub(super) fn begin(&self, began_us: u64, operation: Operation) -> Watch<'_> {
        Watch { counts: self, operation, began_us, over: false }
    }

    fn of(&self, operation: Operation) -> &OperationCounts {
        let [chat, embeddings] = &self.operations;
        match operation {
            Operation::Chat => chat,
            Operation::Embeddings => embeddings,
        }
    }

    fn answered(&self, operation: Operation, answer: &Answer) {
        self.succeeded.increment();
        let tokens = &answer.tokens;
        let counts = self.of(operation);
        let read = tokens.total().saturating_sub(tokens.output);
        for (spread, count) in [(&counts.input, read), (&counts.output, tokens.output)] {
            spread.take(&BUCKETS_TOKENS, count as f64, count);
        }
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
            Ok(answer) => self.counts.answered(self.operation, answer),
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
        self.counts.of(self.operation).micros.take(&BUCKETS_SECONDS, seconds, took_us);
    }
}
