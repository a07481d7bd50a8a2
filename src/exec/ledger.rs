//! Budgets wider than a run: what a workspace, a workflow, an agent's role or the whole node may spend on models, in an hour, a
//! day or ever (N6, F384, F404).
//!
//! What must hold: of each budget, spent and reserved never come to more than its limit, however many runs ask at once; in a
//! window, over any stretch of time of its length. So the most that a call may take is reserved in all budgets that it counts
//! towards, or in none; what it took is settled once, by the run and the event that its turn follows from. Only a call that takes more than it
//! was quoted can go over, and only by that.
//!
//! Nothing here is durable: it follows from what finished runs used and from what unfinished ones have spent, and is
//! [restored](Ledger::restore) from these at a start, before the first call. A restored sum stands in the window as if it had been
//! spent when it is told of, so a restart lets nothing through that was not allowed before.
//!
//! Nobody asks it yet: there is no configuration of such budgets (docs/adr/0037).
//!
//! One lock, taken by control cores for a few additions. As many reservations as [`limits::LEDGER_OPEN_MAX`]; then calls
//! are refused (`ledger_open_max`) before they are made.

#![expect(clippy::disallowed_types, reason = "short, between control cores only (docs/adr/0037)")]

mod read;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::read::read;
use crate::limits;
use crate::model::agent::Quote;
use crate::model::budget::OnBreach;
use crate::model::money::Usd;
use crate::model::{Failure, RunId, Seq, Workspace};
use crate::time::Timestamp;

/// Buckets of a window. What was spent leaves it up to one bucket later than it would have to.
const BUCKETS: u64 = 60;

/// What a budget is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything here.
    Node,
    /// All runs of a workspace.
    Workspace(Arc<str>),
    /// All runs of a workflow, named as inside the node.
    Workflow(Arc<str>),
    /// All agents with a role.
    Agent(Arc<str>),
}

/// Over which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Any sixty minutes.
    Hour,
    /// Any twenty-four hours.
    Day,
    /// As far as usage is kept.
    Total,
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// For what.
    pub scope: Scope,
    /// Over which time.
    pub per: Per,
    /// Dollars.
    pub usd: Option<Usd>,
    /// Tokens, both ways.
    pub tokens: Option<u64>,
    /// What becomes of an agent whose next call could cost more than is left.
    pub on_breach: OnBreach,
    /// Models without a price may be asked although dollars are limited; they count as nothing.
    pub allow_unpriced: bool,
}

/// Whose call it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The run.
    pub run_id: RunId,
    /// Number of the event that the turn follows from.
    pub seq: Seq,
    /// Its workflow, named as inside the node.
    pub workflow: Arc<str>,
    /// The agent's role, if it has one.
    pub role: Option<Arc<str>>,
}

/// A call may be made. Whoever has it settles it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is reserved stays so until it is settled"]
pub struct Permit {
    run_id: RunId,
    seq: Seq,
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
pub struct Refused {
    /// As the agent is told.
    pub failure: Failure,
    /// What its budget wants.
    pub on_breach: OnBreach,
}

/// How a budget stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The budget.
    pub limit: Limit,
    /// Dollars spent in its window.
    pub usd: Usd,
    /// Dollars reserved.
    pub reserved: Usd,
    /// Tokens taken in its window.
    pub tokens: u64,
    /// Tokens reserved.
    pub tokens_reserved: u64,
}

impl Standing {
    /// Dollars that are left.
    pub fn left(&self) -> Option<Usd> {
        Some(self.limit.usd?.less(self.usd.plus(self.reserved)))
    }

    /// Tokens that are left.
    pub fn tokens_left(&self) -> Option<u64> {
        Some(self.limit.tokens?.saturating_sub(self.tokens.saturating_add(self.tokens_reserved)))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Workspace(name) => write!(f, "workspace:{name}"),
            Self::Workflow(name) => write!(f, "workflow:{name}"),
            Self::Agent(role) => write!(f, "agent:{role}"),
        }
    }
}

impl Scope {
    fn holds(&self, caller: &Caller) -> bool {
        match self {
            Self::Node => true,
            Self::Workspace(name) => **name == *Workspace::of(&caller.workflow).name(),
            Self::Workflow(name) => *name == caller.workflow,
            Self::Agent(role) => caller.role.as_ref() == Some(role),
        }
    }
}

impl Per {
    /// Its name, as in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Total => "total",
        }
    }

    fn window(self) -> Option<Duration> {
        match self {
            Self::Hour => Some(Duration::from_secs(3_600)),
            Self::Day => Some(Duration::from_secs(86_400)),
            Self::Total => None,
        }
    }
}

/// What was spent under one budget, and what is reserved.
#[derive(Debug, Default)]
struct Account {
    usd: Usd,
    tokens: u64,
    reserved: Usd,
    tokens_reserved: u64,
    /// Of a window: what was spent in each bucket, oldest first.
    buckets: VecDeque<(u64, Usd, u64)>,
}

impl Account {
    /// What has left the window is forgotten.
    fn pass(&mut self, per: Per, now: Timestamp) -> u64 {
        let Some(window) = per.window() else { return 0 };
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

    fn spend(&mut self, per: Per, (usd, tokens): (Usd, u64), now: Timestamp) {
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

    fn standing(&self, limit: &Limit) -> Standing {
        let Self { usd, tokens, reserved, tokens_reserved, .. } = *self;
        Standing { limit: limit.clone(), usd, reserved, tokens, tokens_reserved }
    }
}

fn bucket(window: Duration, now: Timestamp) -> u64 {
    let width_us = (window.as_micros() / u128::from(BUCKETS)).max(1);
    u64::try_from(u128::from(now.as_micros()) / width_us).unwrap_or(u64::MAX)
}

/// What is reserved for a call, in which budgets.
#[derive(Debug)]
struct Held {
    usd: Usd,
    tokens: u64,
    accounts: Vec<usize>,
}

#[derive(Debug, Default)]
struct Book {
    /// One for each budget.
    accounts: Vec<Account>,
    open: BTreeMap<(RunId, Seq), Held>,
}

/// All budgets of a node.
#[derive(Debug, Default)]
pub struct Ledger {
    limits: Vec<Limit>,
    book: Mutex<Book>,
}

impl Ledger {
    /// With these budgets, and nothing spent.
    pub fn new(limits: Vec<Limit>) -> Self {
        let accounts = limits.iter().map(|_| Account::default()).collect();
        Self { limits, book: Mutex::new(Book { accounts, open: BTreeMap::new() }) }
    }

    /// Reserves the most that a call may take, in all budgets that it counts towards. Asked again for the same turn before that is
    /// settled, it is the same reservation.
    ///
    /// # Errors
    /// The first budget of which too little is left, or under which the model may not be asked; nothing is reserved then.
    pub fn reserve(&self, caller: &Caller, quote: &Quote, now: Timestamp) -> Result<Permit, Box<Refused>> {
        let permit = Permit { run_id: caller.run_id, seq: caller.seq };
        let name = (caller.run_id, caller.seq);
        let mine: Vec<usize> = (0..)
            .zip(&self.limits)
            .filter(|(_, limit)| limit.scope.holds(caller))
            .map(|(at, _)| at)
            .collect();
        if mine.is_empty() {
            return Ok(permit);
        }
        let mut book = self.book();
        if book.open.contains_key(&name) {
            return Ok(permit);
        }
        if book.open.len() >= limits::LEDGER_OPEN_MAX {
            return Err(full(book.open.len()));
        }
        for at in &mine {
            let (Some(limit), Some(account)) = (self.limits.get(*at), book.accounts.get_mut(*at)) else {
                continue;
            };
            account.pass(limit.per, now);
            check(&account.standing(limit), quote)?;
        }
        let (usd, tokens) = (quote.cost.unwrap_or_default(), quote.tokens);
        for at in &mine {
            let Some(account) = book.accounts.get_mut(*at) else { continue };
            account.reserved = account.reserved.plus(usd);
            account.tokens_reserved = account.tokens_reserved.saturating_add(tokens);
        }
        book.open.insert(name, Held { usd, tokens, accounts: mine });
        Ok(permit)
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
        for at in held.accounts {
            let (Some(limit), Some(account)) = (self.limits.get(at), book.accounts.get_mut(at)) else {
                continue;
            };
            account.reserved = account.reserved.less(held.usd);
            account.tokens_reserved = account.tokens_reserved.saturating_sub(held.tokens);
            if let Some(spent) = spent {
                account.spend(limit.per, spent, now);
            }
        }
    }

    /// What was spent before the node was started.
    pub fn restore(&self, caller: &Caller, spent: (Usd, u64), at: Timestamp) {
        let mut book = self.book();
        for (limit, account) in self.limits.iter().zip(&mut book.accounts) {
            if limit.scope.holds(caller) {
                account.spend(limit.per, spent, at);
            }
        }
    }

    /// How each budget stands now, in the order of the configuration.
    pub fn standings(&self, now: Timestamp) -> Vec<Standing> {
        let mut book = self.book();
        let all = self.limits.iter().zip(&mut book.accounts);
        let standing = all.map(|(limit, account)| {
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
    let failure = Failure::transient("overloaded", message);
    Box::new(Refused { failure, on_breach: OnBreach::Stop })
}

fn check(standing: &Standing, quote: &Quote) -> Result<(), Box<Refused>> {
    let Limit { scope, per, usd, tokens, on_breach, allow_unpriced } = &standing.limit;
    let (model, per) = (&quote.model, per.as_str());
    let refused = |failure| Err(Box::new(Refused { failure, on_breach: *on_breach }));
    if let (Some(of), Some(left)) = (usd, standing.left()) {
        match quote.cost {
            None if !allow_unpriced => {
                let message = format!(
                    "the model {model} has no price, and the budget {scope} limits dollars; give it one \
                     (models.names.{model}.price), or set its allow_unpriced"
                );
                return refused(Failure::fatal("unpriced_model", message));
            }
            Some(cost) if cost > left => {
                let message = format!(
                    "the next call of {model} may cost ${cost}, and ${left} of ${of} are left to {scope} (budgets, per {per})"
                );
                return refused(Failure::fatal("budget_exceeded", message));
            }
            _ => {}
        }
    }
    match (tokens, standing.tokens_left()) {
        (Some(of), Some(left)) if quote.tokens > left => {
            let message = format!(
                "the next call of {model} may take {} tokens, and {left} of {of} are left to {scope} (budgets, per {per})",
                quote.tokens
            );
            refused(Failure::fatal("budget_exceeded", message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
