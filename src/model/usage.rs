//! What was spent on models, as sums: of a run, by role and model, and of a day.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::agent::{Answer, Quote};
use super::money::{Tokens, Usd};

/// What was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Dollars spent, `unknown` among them.
    pub usd: Usd,
    /// Of calls of which nobody knows what they took: all that was reserved.
    pub unknown: Usd,
    /// For calls under way.
    pub reserved: Usd,
    /// Of answers.
    pub tokens: Tokens,
    /// As `unknown`; not among `tokens`.
    pub tokens_unknown: u64,
    /// As `reserved`.
    pub tokens_reserved: u64,
    /// Calls that were begun.
    pub calls: u64,
    /// Calls that were answered.
    pub answers: u64,
    /// Answers of models without a price.
    pub unpriced: u64,
    /// Answers of which the provider did not say what they took.
    pub estimated: u64,
    /// How long answers took, together.
    pub took_ms: u64,
}

/// What one role took of one model, in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The agent's role; empty without one.
    pub role: Arc<str>,
    /// The model's name in the node's configuration.
    pub model: Arc<str>,
    /// What was taken.
    pub part: Part,
}

/// What all runs of a workflow that ended on a day took of a model, for a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayUsage {
    /// Since 1970-01-01, in UTC.
    pub day: u32,
    /// The workflow, named as inside the node.
    pub workflow: Arc<str>,
    /// The role; empty without one.
    pub role: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// Runs that took any of it.
    pub runs: u64,
    /// What was taken.
    pub part: Part,
}

/// What all runs of a workflow that ended in a minute took, for a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteUsage {
    /// Since 1970-01-01.
    pub minute: u32,
    /// The workflow, named as inside the node.
    pub workflow: Arc<str>,
    /// The role; empty without one.
    pub role: Arc<str>,
    /// Dollars.
    pub usd: Usd,
    /// Tokens, both ways.
    pub tokens: u64,
}

impl Part {
    /// All tokens that count as taken.
    pub fn tokens_taken(&self) -> u64 {
        self.tokens.total().saturating_add(self.tokens_unknown)
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.usd = self.usd.plus(other.usd);
        self.unknown = self.unknown.plus(other.unknown);
        self.reserved = self.reserved.plus(other.reserved);
        self.tokens = sum(&self.tokens, &other.tokens);
        let counts = [
            (&mut self.tokens_unknown, other.tokens_unknown),
            (&mut self.tokens_reserved, other.tokens_reserved),
            (&mut self.calls, other.calls),
            (&mut self.answers, other.answers),
            (&mut self.unpriced, other.unpriced),
            (&mut self.estimated, other.estimated),
            (&mut self.took_ms, other.took_ms),
        ];
        counts.into_iter().for_each(|(count, more)| *count = count.saturating_add(more));
    }

    /// A call was answered.
    pub fn answered(&mut self, answer: &Answer) {
        self.usd = self.usd.plus(answer.cost.unwrap_or_default());
        self.tokens = sum(&self.tokens, &answer.tokens);
        self.answers = self.answers.saturating_add(1);
        self.unpriced = self.unpriced.saturating_add(u64::from(answer.cost.is_none()));
        self.estimated = self.estimated.saturating_add(u64::from(!answer.measured));
        self.took_ms = self.took_ms.saturating_add(answer.took_ms);
    }

    /// A call is begun.
    pub fn reserve(&mut self, quote: &Quote) {
        self.reserved = self.reserved.plus(quote.cost.unwrap_or_default());
        self.tokens_reserved = self.tokens_reserved.saturating_add(quote.tokens);
    }

    /// A call is over.
    pub fn free(&mut self, quote: &Quote) {
        self.reserved = self.reserved.less(quote.cost.unwrap_or_default());
        self.tokens_reserved = self.tokens_reserved.saturating_sub(quote.tokens);
    }

    /// Nobody knows what a call took: all of it.
    pub fn lost(&mut self, quote: &Quote) {
        let cost = quote.cost.unwrap_or_default();
        self.usd = self.usd.plus(cost);
        self.unknown = self.unknown.plus(cost);
        self.tokens_unknown = self.tokens_unknown.saturating_add(quote.tokens);
    }
}

fn sum(one: &Tokens, other: &Tokens) -> Tokens {
    Tokens {
        input: one.input.saturating_add(other.input),
        output: one.output.saturating_add(other.output),
        cache_read: one.cache_read.saturating_add(other.cache_read),
        cache_write: one.cache_write.saturating_add(other.cache_write),
    }
}
