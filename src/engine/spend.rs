//! What a run has spent on models, what is reserved for the calls under way, and whether the next one may be made.
//!
//! What must hold (RELIABILITY I-18): spent and reserved never come to more than the run's budget, at any event. So the most
//! that a call may take is reserved before it is made; its answer settles what it took; a call of which nobody knows what it
//! took counts as having taken all that was reserved. A run without agents has one empty pointer, and nothing in its image.

mod bill;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::bill::{Bill, Whose};

use crate::ir::Budget;
use crate::model::agent::{Answer, Quote};
use crate::model::budget::Wider;
use crate::model::event::Idempotency;
use crate::model::money::Usd;
use crate::model::usage::{Part, Used};

/// More for a run to spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raise {
    /// More dollars.
    pub usd: Usd,
    /// More tokens.
    pub tokens: u64,
    /// Who gives it.
    pub by: Arc<str>,
    /// In their words.
    pub reason: Arc<str>,
    /// It is to go on, if it is paused: in the same step, so that neither is done without the other.
    pub resume: bool,
    /// The request is remembered under it.
    pub key: Option<Idempotency>,
}

/// What a run has spent. Of its children each has its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// Dollars spent.
    pub spent: Usd,
    /// Dollars reserved for calls under way.
    pub reserved: Usd,
    /// Tokens taken.
    pub tokens: u64,
    /// Tokens reserved for calls under way.
    pub tokens_reserved: u64,
    /// Answers of models.
    pub answers: u64,
    /// Those whose model has no price.
    pub unpriced: u64,
    /// Of `spent`: reserved for calls of which nobody knows what they took.
    pub unknown: Usd,
    /// It was warned that little is left.
    pub warned: bool,
    /// More dollars than the document says, given by hand.
    pub raised: Usd,
    /// More tokens than the document says, given by hand.
    pub tokens_raised: u64,
    /// The call for which too little was left, when the run was paused for it; none once it was resumed.
    pub refused: Option<Box<Quote>>,
    /// What calls took that are over, by role and model. In a fork: since it was one.
    pub used: Vec<Used>,
    /// The budget that refused the call of `refused`, when it was not the run's own. Stands behind all of this in an image, and
    /// only when there is one.
    #[serde(skip)]
    pub refused_by: Option<Box<Wider>>,
}

impl Spend {
    fn part(&mut self, role: &str, model: &str) -> &mut Part {
        let known = self.used.iter().position(|used| *used.role == *role && *used.model == *model);
        let at = known.unwrap_or(self.used.len());
        if known.is_none() {
            self.used.push(Used { role: role.into(), model: model.into(), part: Part::default() });
        }
        #[expect(clippy::indexing_slicing, reason = "one was pushed when there was none")]
        &mut self.used[at].part
    }
}

/// Why a run that its budget paused does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// The call that it wants to make next, with the most that this may take.
    pub quote: Quote,
    /// Dollars that are left of how many.
    pub usd: Option<(Usd, Usd)>,
    /// Tokens that are left of how many.
    pub tokens: Option<(u64, u64)>,
    /// How much more is needed for it; both nothing when it was given enough since.
    pub lacks: (Usd, u64),
    /// The budget that has too little left, as it was then, when it is not the run's own.
    pub by: Option<Wider>,
}

/// What became of a call's reservation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taken<'a> {
    /// Its answer says what it took.
    Answered(&'a Answer),
    /// It surely took nothing.
    Nothing,
    /// Nobody knows: all of it.
    Unknown,
}

/// Why a call may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// It could cost more than is left.
    Usd {
        /// What is left of how much.
        left: Usd,
        /// All that there was.
        of: Usd,
    },
    /// It could take more tokens than are left.
    Tokens {
        /// What is left of how many.
        left: u64,
        /// All that there were.
        of: u64,
    },
    /// Nobody knows what it costs.
    Unpriced,
}

/// The spend of a run, if it has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Purse(Option<Box<Spend>>);

impl Purse {
    pub(super) fn get(&self) -> Option<&Spend> {
        self.0.as_deref()
    }

    pub(super) fn set(&mut self, spend: Option<Spend>) {
        self.0 = spend.map(Box::new);
    }

    fn change(&mut self) -> &mut Spend {
        self.0.get_or_insert_default()
    }

    /// A call was refused for which the run is paused, by its own budget or a wider one.
    pub(super) fn refuse(&mut self, quote: &Quote, by: Option<&Wider>) {
        let spend = self.change();
        spend.refused = Some(Box::new(quote.clone()));
        spend.refused_by = by.cloned().map(Box::new);
    }

    /// The run goes on: it asks again.
    pub(super) fn resume(&mut self) {
        if let Some(spend) = &mut self.0 {
            (spend.refused, spend.refused_by) = (None, None);
        }
    }

    /// What the run is paused for, when its budget has paused it.
    pub(super) fn short(&self, budget: Option<&Budget>) -> Option<Short> {
        let spend = self.get()?;
        let quote = Quote::clone(spend.refused.as_ref()?);
        let by = spend.refused_by.as_deref().cloned();
        let own_usd = budget.and_then(|budget| budget.usd).map(|limit| {
            let of = limit.plus(spend.raised);
            (of.less(spend.spent.plus(spend.reserved)), of)
        });
        let own_tokens = budget.and_then(|budget| budget.tokens).map(|limit| {
            let of = limit.saturating_add(spend.tokens_raised);
            (of.saturating_sub(spend.tokens.saturating_add(spend.tokens_reserved)), of)
        });
        let (usd, tokens) = by.as_ref().map_or((own_usd, own_tokens), |by| (by.usd, by.tokens));
        let lacks = (
            usd.map_or(Usd::ZERO, |(left, _)| quote.cost.unwrap_or_default().less(left)),
            tokens.map_or(0, |(left, _)| quote.tokens.saturating_sub(left)),
        );
        Some(Short { quote, usd, tokens, lacks, by })
    }

    /// May a call be made that takes no more than this?
    pub(super) fn allows(&self, budget: &Budget, quote: &Quote) -> Result<(), Breach> {
        let none = Spend::default();
        let spend = self.get().unwrap_or(&none);
        if let Some(limit) = budget.usd {
            let of = limit.plus(spend.raised);
            let left = of.less(spend.spent.plus(spend.reserved));
            match quote.cost {
                None if !budget.allow_unpriced => return Err(Breach::Unpriced),
                Some(cost) if cost > left => return Err(Breach::Usd { left, of }),
                _ => {}
            }
        }
        if let Some(limit) = budget.tokens {
            let of = limit.saturating_add(spend.tokens_raised);
            let left = of.saturating_sub(spend.tokens.saturating_add(spend.tokens_reserved));
            if quote.tokens > left {
                return Err(Breach::Tokens { left, of });
            }
        }
        Ok(())
    }

    /// Is it to be warned once this is reserved?
    pub(super) fn warns(&self, budget: &Budget, quote: &Quote) -> Option<(Usd, u64)> {
        let none = Spend::default();
        let spend = self.get().unwrap_or(&none);
        let used = spend.spent.plus(spend.reserved).plus(quote.cost.unwrap_or_default());
        let tokens = spend.tokens.saturating_add(spend.tokens_reserved).saturating_add(quote.tokens);
        let over = |used: u64, of: u64| {
            u128::from(used) * 1_000 >= u128::from(of) * u128::from(budget.warn_at_permille)
        };
        let usd = budget.usd.is_some_and(|of| over(used.as_nanos(), of.plus(spend.raised).as_nanos()));
        let many = budget.tokens.is_some_and(|of| over(tokens, of.saturating_add(spend.tokens_raised)));
        (!spend.warned && (usd || many)).then_some((used, tokens))
    }

    pub(super) fn warned(&mut self) {
        self.change().warned = true;
    }

    /// Gives more. Being warned begins again.
    pub(super) fn raise(&mut self, usd: Usd, tokens: u64) {
        let spend = self.change();
        spend.raised = spend.raised.plus(usd);
        spend.tokens_raised = spend.tokens_raised.saturating_add(tokens);
        spend.warned = false;
    }

    pub(super) fn reserve(&mut self, quote: &Quote) {
        let spend = self.change();
        spend.reserved = spend.reserved.plus(quote.cost.unwrap_or_default());
        spend.tokens_reserved = spend.tokens_reserved.saturating_add(quote.tokens);
    }

    /// The run is a fork from here on: what was used before is another run's.
    pub(super) fn forked(&mut self) {
        if let Some(spend) = &mut self.0 {
            spend.used.clear();
            (spend.reserved, spend.tokens_reserved) = (Usd::ZERO, 0);
        }
    }

    /// What was reserved is free again; what was taken is spent, by an agent with this role.
    pub(super) fn settle(&mut self, quote: &Quote, taken: Taken<'_>, role: &str) {
        let part = self.change().part(role, &quote.model);
        part.calls = part.calls.saturating_add(1);
        match taken {
            Taken::Nothing => {}
            Taken::Unknown => part.lost(quote),
            Taken::Answered(answer) => part.answered(answer),
        }
        let reserved = quote.cost.unwrap_or_default();
        let spend = self.change();
        spend.reserved = spend.reserved.less(reserved);
        spend.tokens_reserved = spend.tokens_reserved.saturating_sub(quote.tokens);
        let (usd, tokens) = match taken {
            Taken::Nothing => (Usd::ZERO, 0),
            Taken::Unknown => {
                spend.unknown = spend.unknown.plus(reserved);
                (reserved, quote.tokens)
            }
            Taken::Answered(answer) => {
                spend.answers = spend.answers.saturating_add(1);
                spend.unpriced = spend.unpriced.saturating_add(u64::from(answer.cost.is_none()));
                (answer.cost.unwrap_or_default(), answer.tokens.total())
            }
        };
        spend.spent = spend.spent.plus(usd);
        spend.tokens = spend.tokens.saturating_add(tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::OnBreach;

    fn quote(nanos: Option<u64>, tokens: u64) -> Quote {
        Quote { model: "m".into(), cost: nanos.map(Usd::from_nanos), tokens }
    }

    fn budget(usd: Option<u64>, tokens: Option<u64>) -> Budget {
        let usd = usd.map(Usd::from_nanos);
        Budget { usd, tokens, warn_at_permille: 800, on_breach: OnBreach::Stop, allow_unpriced: false }
    }

    // F402, F403, D16
    #[test]
    fn what_is_reserved_counts_until_it_is_settled_and_the_last_billionth_may_be_spent() {
        let (mut purse, of) = (Purse::default(), budget(Some(100), None));
        assert_eq!(purse.allows(&of, &quote(Some(100), 0)), Ok(()));
        let breach = Breach::Usd { left: Usd::from_nanos(100), of: Usd::from_nanos(100) };
        assert_eq!(purse.allows(&of, &quote(Some(101), 0)), Err(breach));
        purse.reserve(&quote(Some(60), 0));
        assert!(purse.allows(&of, &quote(Some(41), 0)).is_err());
        assert_eq!(purse.warns(&of, &quote(Some(19), 0)), None);
        assert_eq!(purse.warns(&of, &quote(Some(20), 7)), Some((Usd::from_nanos(80), 7)));
        purse.settle(&quote(Some(60), 0), Taken::Nothing, "");
        assert_eq!(purse.allows(&of, &quote(Some(100), 0)), Ok(()));
        purse.reserve(&quote(Some(60), 0));
        purse.settle(&quote(Some(60), 0), Taken::Unknown, "");
        assert!(purse.allows(&of, &quote(Some(41), 0)).is_err(), "nobody knows that it was less");
        assert_eq!(
            purse.get().map(|spend| (spend.spent, spend.unknown)),
            Some((Usd::from_nanos(60), Usd::from_nanos(60)))
        );
    }

    // D15
    #[test]
    fn without_a_price_nothing_is_asked_for_under_a_limit_of_dollars() {
        let purse = Purse::default();
        assert_eq!(purse.allows(&budget(Some(100), None), &quote(None, 1)), Err(Breach::Unpriced));
        assert_eq!(purse.allows(&budget(None, Some(10)), &quote(None, 1)), Ok(()));
        let allowed = Budget { allow_unpriced: true, ..budget(Some(100), None) };
        assert_eq!(purse.allows(&allowed, &quote(None, 1)), Ok(()));
    }

    #[test]
    fn tokens_have_a_limit_of_their_own_and_both_can_be_raised() {
        let (mut purse, of) = (Purse::default(), budget(None, Some(10)));
        assert_eq!(purse.allows(&of, &quote(None, 11)), Err(Breach::Tokens { left: 10, of: 10 }));
        purse.raise(Usd::ZERO, 1);
        assert_eq!(purse.allows(&of, &quote(None, 11)), Ok(()));
    }
}
