//! Budgets wider than a run: what a workspace, a workflow, an agent's role or the whole node may spend on models, in an hour, a
//! day or ever (N6, F384, F404).
//!
//! What must hold: of each budget, spent and reserved never come to more than its limit, however many runs ask at once; in a
//! window, over any stretch of time of its length. So the most that a call may take is reserved in all budgets that it counts
//! towards, or in none; what it took is settled once, by the run and the event that its turn follows from. Only a call that takes more than it
//! was quoted can go over, and only by that.
//!
//! Nothing here is durable: it follows from what finished runs used and from what unfinished ones have spent, and is
//! [restored](Ledger::restore) from these at a start, before the first call. What an unfinished run has spent stands in the window
//! as if it had been spent when the node started, so a restart lets nothing through that was not allowed before.
//!
//! One lock, taken by control cores for a few additions. As many reservations as [`limits::LEDGER_OPEN_MAX`]; then calls
//! are refused (`ledger_open_max`) before they are made.

#![expect(clippy::disallowed_types, reason = "short, between control cores only (docs/adr/0037)")]

mod account;
mod limit;
mod read;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::account::Account;
pub use self::limit::{Limit, Per, Scope, Standing};
pub use self::read::read;
use crate::limits;
use crate::model::agent::Quote;
use crate::model::budget::{Over, Wider};
use crate::model::money::Usd;
use crate::model::{Failure, RunId, Seq};
use crate::time::Timestamp;

/// Whose money it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The workflow, named as inside the node.
    pub workflow: Arc<str>,
    /// The agent's role, if it has one.
    pub role: Option<Arc<str>>,
}

/// Whose call it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The run.
    pub run_id: RunId,
    /// Number of the event that the turn follows from.
    pub seq: Seq,
    /// Who pays.
    pub whose: Whose,
}

/// A call may be made. Whoever has it settles it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is reserved stays so until it is settled"]
pub struct Permit {
    run_id: RunId,
    seq: Seq,
    /// Budgets that have come to where they warn with this call.
    pub warned: Vec<Wider>,
}

/// What a call took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was not made, or surely billed nothing.
    Nothing,
    /// So many dollars and tokens.
    Some(Usd, u64),
    /// Nobody knows: all that was reserved.
    Unknown,
}

/// Why a call may not be made.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// Too many are under way.
    Full(Failure),
    /// This budget has too little left.
    Over(Box<Over>),
}

/// A budget and how it stands. Its number is never another's.
#[derive(Debug)]
struct Kept {
    number: u64,
    limit: Limit,
    account: Account,
}

/// What is reserved for a call, in which budgets.
#[derive(Debug)]
struct Held {
    usd: Usd,
    tokens: u64,
    budgets: Vec<u64>,
}

#[derive(Debug, Default)]
struct Book {
    /// In the order of the configuration.
    budgets: Vec<Kept>,
    /// Budgets that there were so far.
    numbers: u64,
    open: BTreeMap<(RunId, Seq), Held>,
}

/// All budgets of a node.
#[derive(Debug, Default)]
pub struct Ledger {
    book: Mutex<Book>,
}

impl Ledger {
    /// With these budgets, and nothing spent.
    pub fn new(limits: Vec<Limit>) -> Self {
        let ledger = Self::default();
        ledger.govern(limits);
        ledger
    }

    /// These are the budgets from now on. What counts towards one goes on to count when scope and time stay the same; a new one
    /// counts from now on: it is given back, with those.
    pub fn govern(&self, limits: Vec<Limit>) -> Vec<Limit> {
        let mut book = self.book();
        let (mut before, mut fresh) = (std::mem::take(&mut book.budgets), Vec::new());
        for limit in limits {
            let known =
                before.iter().position(|kept| kept.limit.scope == limit.scope && kept.limit.per == limit.per);
            let kept = match known {
                Some(at) => {
                    let mut kept = before.swap_remove(at);
                    if (kept.limit.usd, kept.limit.tokens, kept.limit.warn_at_permille)
                        != (limit.usd, limit.tokens, limit.warn_at_permille)
                    {
                        kept.account.changed();
                    }
                    Kept { limit, ..kept }
                }
                None => {
                    fresh.push(limit.clone());
                    book.numbers += 1;
                    Kept { number: book.numbers, limit, account: Account::default() }
                }
            };
            book.budgets.push(kept);
        }
        fresh
    }

    /// Reserves the most that a call may take, in all budgets that it counts towards; `None` when it counts towards none. Asked
    /// again for the same turn before that is settled, it is the same reservation.
    ///
    /// # Errors
    /// The first budget of which too little is left, or under which the model may not be asked; nothing is reserved then.
    pub fn reserve(
        &self,
        caller: &Caller,
        quote: &Quote,
        now: Timestamp,
    ) -> Result<Option<Permit>, Box<Refused>> {
        let name = (caller.run_id, caller.seq);
        let mut permit = Permit { run_id: caller.run_id, seq: caller.seq, warned: Vec::new() };
        let mut book = self.book();
        let Book { budgets, open, .. } = &mut *book;
        let mut mine: Vec<&mut Kept> =
            budgets.iter_mut().filter(|kept| kept.limit.scope.holds(&caller.whose)).collect();
        if mine.is_empty() {
            return Ok(None);
        }
        if open.contains_key(&name) {
            return Ok(Some(permit));
        }
        if open.len() >= limits::LEDGER_OPEN_MAX {
            return Err(full(open.len()));
        }
        for Kept { limit, account, .. } in &mut mine {
            account.pass(limit.per, now);
            account.standing(limit).check(quote).inspect_err(|_| account.refused())?;
        }
        for Kept { limit, account, .. } in &mut mine {
            account.reserve(quote);
            if account.warns(limit, now) {
                permit.warned.push(account.standing(limit).wider());
            }
        }
        let budgets = mine.iter().map(|kept| kept.number).collect();
        open.insert(name, Held { usd: quote.cost.unwrap_or_default(), tokens: quote.tokens, budgets });
        Ok(Some(permit))
    }

    /// What was reserved is free again, and what was taken is spent. A call that was settled before is not settled again.
    pub fn settle(&self, permit: &Permit, taken: Taken, now: Timestamp) {
        let mut book = self.book();
        let Some(held) = book.open.remove(&(permit.run_id, permit.seq)) else { return };
        let spent = match taken {
            Taken::Nothing => None,
            Taken::Some(usd, tokens) => Some((usd, tokens)),
            Taken::Unknown => Some((held.usd, held.tokens)),
        };
        for Kept { number, limit, account } in &mut book.budgets {
            if !held.budgets.contains(number) {
                continue;
            }
            account.free((held.usd, held.tokens));
            match spent {
                Some(spent) => account.spend(limit.per, spent, now),
                // Nobody was told of a call that was not made.
                None if permit.warned.iter().any(|by| limit.is(by)) => account.changed(),
                None => {}
            }
        }
    }

    /// What was spent before the node was started, for budgets of these times. The oldest first.
    pub fn restore(&self, whose: &Whose, over: &[Per], spent: (Usd, u64), at: Timestamp) {
        for Kept { limit, account, .. } in &mut self.book().budgets {
            if over.contains(&limit.per) && limit.scope.holds(whose) {
                account.spend(limit.per, spent, at);
            }
        }
    }

    /// Everything is restored. Those that have come to where they warn have warned: their runs were told before.
    pub fn restored(&self, now: Timestamp) -> Vec<Standing> {
        let mut told = Vec::new();
        for Kept { limit, account, .. } in &mut self.book().budgets {
            account.pass(limit.per, now);
            if account.warns(limit, now) {
                told.push(account.standing(limit));
            }
        }
        told
    }

    /// Is there a budget over such a time?
    pub fn has(&self, per: Per) -> bool {
        self.book().budgets.iter().any(|kept| kept.limit.per == per)
    }

    /// How each budget stands now, in the order of the configuration.
    pub fn standings(&self, now: Timestamp) -> Vec<Standing> {
        let mut book = self.book();
        let standing = book.budgets.iter_mut().map(|Kept { limit, account, .. }| {
            account.pass(limit.per, now);
            account.standing(limit)
        });
        standing.collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(open: usize) -> Box<Refused> {
    let most = limits::LEDGER_OPEN_MAX;
    let message = format!("{open} calls of models are under way (limit ledger_open_max: {most})");
    Box::new(Refused::Full(Failure::transient("overloaded", message)))
}

#[cfg(test)]
mod tests;
