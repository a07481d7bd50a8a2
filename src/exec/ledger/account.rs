//! One budget: what was spent under it in its window, what is reserved, and whether it has warned.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Limit, Per, Standing};
use crate::model::agent::Quote;
use crate::model::money::Usd;
use crate::time::Timestamp;

/// Buckets of a window. What was spent leaves it up to one bucket later than it would have to.
const BUCKETS: u64 = 60;

/// What was spent, and what is reserved.
#[derive(Debug, Default)]
pub(super) struct Account {
    usd: Usd,
    tokens: u64,
    reserved: Usd,
    tokens_reserved: u64,
    /// Of a window: what was spent in each bucket, oldest first.
    buckets: VecDeque<(u64, Usd, u64)>,
    /// When it warned last.
    warned_at: Option<Timestamp>,
    /// How often it warned, and refused.
    warnings: u64,
    refusals: u64,
}

impl Account {
    /// What has left the window is forgotten.
    pub(super) fn pass(&mut self, per: Per, now: Timestamp) -> u64 {
        let Some(window) = per.window() else { return 0 };
        if self.warned_at.is_some_and(|at| at.saturating_add(window) <= now) {
            self.warned_at = None;
        }
        let bucket = bucket(window, now);
        while let Some((oldest, usd, tokens)) = self.buckets.front().copied() {
            if oldest.saturating_add(BUCKETS) >= bucket {
                break;
            }
            self.buckets.pop_front();
            self.usd = self.usd.less(usd);
            self.tokens = self.tokens.saturating_sub(tokens);
        }
        bucket
    }

    pub(super) fn spend(&mut self, per: Per, (usd, tokens): (Usd, u64), now: Timestamp) {
        let bucket = self.pass(per, now);
        self.usd = self.usd.plus(usd);
        self.tokens = self.tokens.saturating_add(tokens);
        if per.window().is_none() {
            return;
        }
        match self.buckets.back_mut() {
            // A clock that goes back spends now.
            Some((last, last_usd, last_tokens)) if *last >= bucket => {
                *last_usd = last_usd.plus(usd);
                *last_tokens = last_tokens.saturating_add(tokens);
            }
            _ => self.buckets.push_back((bucket, usd, tokens)),
        }
    }

    pub(super) fn reserve(&mut self, quote: &Quote) {
        self.reserved = self.reserved.plus(quote.cost.unwrap_or_default());
        self.tokens_reserved = self.tokens_reserved.saturating_add(quote.tokens);
    }

    pub(super) fn free(&mut self, (usd, tokens): (Usd, u64)) {
        self.reserved = self.reserved.less(usd);
        self.tokens_reserved = self.tokens_reserved.saturating_sub(tokens);
    }

    pub(super) fn refused(&mut self) {
        self.refusals = self.refusals.saturating_add(1);
    }

    /// Is it to warn now? Once in a window, and once altogether without one.
    pub(super) fn warns(&mut self, limit: &Limit, now: Timestamp) -> bool {
        let permille = limit.warn_at_permille;
        let over =
            |used: u64, of: u64| u128::from(used) * 1_000 >= u128::from(of) * u128::from(permille) && of > 0;
        let usd = self.usd.plus(self.reserved).as_nanos();
        let tokens = self.tokens.saturating_add(self.tokens_reserved);
        let crossed = limit.usd.is_some_and(|of| over(usd, of.as_nanos()))
            || limit.tokens.is_some_and(|of| over(tokens, of));
        if !crossed || self.warned_at.is_some() {
            return false;
        }
        self.warned_at = Some(now);
        self.warnings = self.warnings.saturating_add(1);
        true
    }

    /// The budget allows another amount from now on: it may warn again.
    pub(super) fn changed(&mut self) {
        self.warned_at = None;
    }

    pub(super) fn standing(&self, limit: &Limit) -> Standing {
        let Self { usd, tokens, reserved, tokens_reserved, warnings, refusals, .. } = *self;
        let warned = self.warned_at.is_some();
        Standing { limit: limit.clone(), usd, reserved, tokens, tokens_reserved, warned, warnings, refusals }
    }
}

fn bucket(window: Duration, now: Timestamp) -> u64 {
    let width_us = (window.as_micros() / u128::from(BUCKETS)).max(1);
    u64::try_from(u128::from(now.as_micros()) / width_us).unwrap_or(u64::MAX)
}
