//! Circuit breakers of the services that calls go to: whoever fails again and again is left alone for a while (F368).
//!
//! One for each service of each workspace, so nobody's calls shut out somebody else's. They are of this process: after a
//! restart all are closed, for nothing of a run is decided here; an attempt that was refused failed with
//! `circuit_breaker_open`, and that stands in the log like any failure. A service that never failed has none. At most
//! [`limits::BREAKERS_MAX`] are kept; with more, the one whose calls are longest ago is forgotten, which closes it.

#![expect(clippy::disallowed_types, reason = "one look for each call, away from the runners")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt::Arguments;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::limits;
use crate::model::{Class, Failure, Value};
use crate::resilience::breaker::{Breaker, Config, Ended, State, Ticket};
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, SystemClock, Timestamp};

/// When breakers open and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Without: every call is made.
    pub enabled: bool,
    /// The numbers.
    pub config: Config,
}

impl Default for Policy {
    fn default() -> Self {
        Self { enabled: true, config: Config::default() }
    }
}

/// A workspace, and a service as its calls name it: `host:port`.
pub type Key = (Arc<str>, Arc<str>);

/// The node's own store, which is everybody's: no workspace has an empty name.
pub(crate) fn store() -> Key {
    ("".into(), "store".into())
}

/// How a breaker is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose, and of what.
    pub key: Key,
    /// What it does with the next call.
    pub state: State,
    /// When a call to the service failed last.
    pub last_failure_at: Timestamp,
    /// Until calls are let through again; zero unless it is open.
    pub retry_after: Duration,
    /// How often it became closed, half open and open.
    pub transitions: [u64; 3],
}

/// Where a state stands in [`Standing::transitions`], and its number in metrics.
pub fn number(state: State) -> usize {
    match state {
        State::Closed => 0,
        State::HalfOpen => 1,
        State::Open => 2,
    }
}

#[derive(Debug)]
struct Kept {
    breaker: Breaker,
    /// The state that was told last.
    told: State,
    transitions: [u64; 3],
    failed_at: Timestamp,
    used_us: u64,
    /// Wakes whoever waits for what comes of the call that tries the service out.
    tried: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Registry {
    policy: Policy,
    services: BTreeMap<Key, Kept>,
}

impl Registry {
    /// Calls may be made whatever happens, or not (`http.breaker`); the store is always left alone when it fails.
    fn policy(&self, key: &Key) -> Policy {
        let timeout = Duration::from_secs(limits::STORE_OPEN_SECONDS);
        match key.0.is_empty() {
            true => Policy { enabled: true, config: Config { timeout, ..Config::default() } },
            false => self.policy,
        }
    }
}

/// All breakers of a node.
#[derive(Debug, Default)]
pub struct Breakers(Mutex<Registry>);

/// A call is not made.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The service is left alone.
    Open(Failure),
    /// Another call is trying it out. Who does not want to wait for what comes of it fails with this.
    Tried(Failure, Pin<Box<OwnedNotified>>),
}

/// A call that is let through; what came of it is told when this goes.
#[derive(Debug)]
pub(crate) struct Asked {
    of: Arc<Breakers>,
    key: Key,
    ticket: Option<Ticket>,
    due: Option<Timestamp>,
    ended: Ended,
}

impl Asked {
    /// What is told.
    pub(crate) fn ended(&mut self, ended: Ended) {
        self.ended = ended;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let now = SystemClock.now();
        // Given up because its time was over: nobody answered. Given up before: nobody knows.
        if self.ended == Ended::Unknown && self.due.is_some_and(|due| due <= now) {
            self.ended = Ended::Failed;
        }
        self.of.lock().ended(&self.key, (ticket, self.ended), (now, SystemClock.monotonic_us()));
    }
}

impl Breakers {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what holds from now on.
    pub(super) fn set(&self, policy: Policy) {
        self.lock().policy = policy;
    }

    /// What holds.
    pub fn policy(&self) -> Policy {
        self.lock().policy
    }

    /// Would a call be let through now? Holds up nobody.
    pub(super) fn look(&self, key: &Key) -> Result<(), Refused> {
        self.lock().look(key, SystemClock.monotonic_us())
    }

    /// Is this call let through? `due`: when it is given up.
    pub(crate) fn ask(self: &Arc<Self>, key: &Key, due: Option<Timestamp>) -> Result<Asked, Refused> {
        let ticket = self.lock().ask(key, SystemClock.monotonic_us())?;
        Ok(Asked { of: self.clone(), key: key.clone(), ticket, due, ended: Ended::Unknown })
    }

    /// The breakers of one workspace, or of all, by name. A service that never failed is not among them.
    pub fn standings(&self, workspace: Option<&str>) -> Vec<Standing> {
        let now_us = SystemClock.monotonic_us();
        let registry = self.lock();
        let whose = registry
            .services
            .iter()
            .filter(|(key, _)| workspace.is_none_or(|workspace| &*key.0 == workspace));
        whose.map(|(key, kept)| kept.standing(key, &registry.policy(key), now_us)).collect()
    }
}

impl Kept {
    fn new(now_us: u64) -> Self {
        Self {
            breaker: Breaker::default(),
            told: State::Closed,
            transitions: [0; 3],
            failed_at: Timestamp::default(),
            used_us: now_us,
            tried: Arc::default(),
        }
    }

    /// Counts and tells a change of state.
    fn tell(&mut self, key: &Key, policy: &Policy, now_us: u64) {
        let state = self.breaker.state(now_us);
        if state == self.told {
            return;
        }
        self.told = state;
        if let Some(count) = self.transitions.get_mut(number(state)) {
            *count += 1;
        }
        let (workspace, service) = key;
        let line = |why: Arguments<'_>| {
            let text = format_args!(
                "circuit breaker of {service:?} in workspace {workspace}: {} {why}",
                state.as_str()
            );
            match state {
                State::Open => log::warn(Target::Work, text),
                State::Closed | State::HalfOpen => log::info(Target::Work, text),
            }
        };
        match state {
            State::Open => line(format_args!("for {:?}; no calls are made", policy.config.timeout)),
            State::HalfOpen => line(format_args!("one call tries it out")),
            State::Closed => line(format_args!("it works again")),
        }
    }

    fn standing(&self, key: &Key, policy: &Policy, now_us: u64) -> Standing {
        let refused = { self.breaker }.ask(&policy.config, now_us).err();
        let state = self.breaker.state(now_us);
        let wait_us = refused.filter(|_| state == State::Open).map_or(0, |open| open.retry_after_us);
        Standing {
            key: key.clone(),
            state,
            last_failure_at: self.failed_at,
            retry_after: Duration::from_micros(wait_us),
            transitions: self.transitions,
        }
    }
}

impl Registry {
    fn look(&self, key: &Key, now_us: u64) -> Result<(), Refused> {
        let policy = self.policy(key);
        match self.services.get(key) {
            Some(kept) if policy.enabled => {
                let mut breaker = kept.breaker;
                let asked = breaker.ask(&policy.config, now_us);
                asked.map(drop).map_err(|open| refused(key, kept, now_us, open.retry_after_us))
            }
            _ => Ok(()),
        }
    }

    fn ask(&mut self, key: &Key, now_us: u64) -> Result<Option<Ticket>, Refused> {
        let policy = self.policy(key);
        if !policy.enabled {
            return Ok(None);
        }
        let Some(kept) = self.services.get_mut(key) else {
            // As every breaker begins; it is kept when there is something to keep.
            return Ok(Breaker::default().ask(&policy.config, now_us).ok());
        };
        kept.used_us = now_us;
        let asked = kept.breaker.ask(&policy.config, now_us);
        kept.tell(key, &policy, now_us);
        asked.map(Some).map_err(|open| refused(key, kept, now_us, open.retry_after_us))
    }

    fn ended(&mut self, key: &Key, (ticket, ended): (Ticket, Ended), (now, now_us): (Timestamp, u64)) {
        let policy = self.policy(key);
        if ended == Ended::Failed && !self.services.contains_key(key) {
            self.make_room();
        }
        let kept = match self.services.entry(key.clone()) {
            Slot::Occupied(kept) => kept.into_mut(),
            Slot::Vacant(slot) if ended == Ended::Failed => slot.insert(Kept::new(now_us)),
            Slot::Vacant(_) => return,
        };
        if ended == Ended::Failed {
            kept.failed_at = now;
        }
        kept.breaker.ended(&policy.config, (ticket, ended), now_us);
        kept.tell(key, &policy, now_us);
        kept.tried.notify_waiters();
    }

    fn make_room(&mut self) {
        if self.services.len() < limits::BREAKERS_MAX {
            return;
        }
        let oldest = self.services.iter().min_by_key(|(_, kept)| kept.used_us);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.services.remove(&key);
        }
    }
}

fn refused(key: &Key, kept: &Kept, now_us: u64, retry_after_us: u64) -> Refused {
    let service = &key.1;
    let (at, millis) = (kept.failed_at, retry_after_us.div_ceil(1_000));
    let message = format!(
        "calls to {service} are not made for now: the last one failed at {at}, and the next may be in {millis} ms"
    );
    let details = Value::map([
        ("service", Value::String(service.clone())),
        ("last_failure_at", Value::string(at.to_string())),
        ("retry_after_ms", Value::unsigned(millis)),
    ]);
    let failure =
        Failure { class: Class::Recoverable, details, ..Failure::fatal("circuit_breaker_open", message) };
    match kept.breaker.state(now_us) {
        State::HalfOpen => Refused::Tried(failure, Box::pin(kept.tried.clone().notified_owned())),
        State::Open | State::Closed => Refused::Open(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn key(workspace: &str, service: &str) -> Key {
        (workspace.into(), service.into())
    }

    fn at(now_us: u64) -> (Timestamp, u64) {
        // The wall clock and the other one do not begin together.
        (Timestamp::from_micros(1_000 * SECOND + now_us), now_us)
    }

    fn call(registry: &mut Registry, key: &Key, ended: Ended, now_us: u64) {
        let ticket = registry.ask(key, now_us).unwrap().unwrap();
        registry.ended(key, (ticket, ended), at(now_us));
    }

    // F364, F365, F366, F367, F368
    #[test]
    fn a_service_that_fails_is_left_alone_tried_out_and_used_again_and_no_other_is_touched() {
        let mut registry = Registry::default();
        let (down, up, theirs) = (key("a", "down:80"), key("a", "up:80"), key("b", "down:80"));
        for second in 0..5 {
            call(&mut registry, &down, Ended::Failed, second * SECOND);
            call(&mut registry, &up, Ended::Succeeded, second * SECOND);
        }
        assert!(!registry.services.contains_key(&up), "who never failed is not kept");
        for refused in
            [registry.look(&down, 5 * SECOND).unwrap_err(), registry.ask(&down, 5 * SECOND).unwrap_err()]
        {
            let Refused::Open(failure) = refused else { panic!("{refused:?}") };
            assert_eq!((&*failure.code, failure.class), ("circuit_breaker_open", Class::Recoverable));
            assert_eq!(
                failure.details.get("last_failure_at"),
                Some(&Value::string("1970-01-01T00:16:44.000Z"))
            );
            assert_eq!(failure.retry_after(), Some(Duration::from_secs(59)));
        }
        call(&mut registry, &theirs, Ended::Succeeded, 5 * SECOND);
        let probe = registry.ask(&down, 64 * SECOND).unwrap().unwrap();
        let Err(Refused::Tried(..)) = registry.ask(&down, 65 * SECOND) else { panic!("two at a time") };
        registry.ended(&down, (probe, Ended::Succeeded), at(66 * SECOND));
        call(&mut registry, &down, Ended::Succeeded, 67 * SECOND);
        let standing = registry.services[&down].standing(&down, &registry.policy, 68 * SECOND);
        assert_eq!((standing.state, standing.transitions), (State::Closed, [1, 1, 1]));
        assert_eq!(standing.retry_after, Duration::ZERO);
    }

    #[test]
    fn a_call_that_was_given_up_when_its_time_was_over_counts_and_one_that_was_called_back_does_not() {
        crate::time::simulated::set(Some(|| (9 * SECOND, 9 * SECOND)));
        let breakers = Arc::<Breakers>::default();
        let key = key("a", "slow:80");
        for due in [None, Some(10 * SECOND), Some(9 * SECOND)] {
            assert_eq!(breakers.standings(None), []);
            drop(breakers.ask(&key, due.map(Timestamp::from_micros)).unwrap());
        }
        crate::time::simulated::set(None);
        let [standing] = &breakers.standings(Some("a"))[..] else { panic!() };
        assert_eq!(standing.last_failure_at, Timestamp::from_micros(9 * SECOND));
        assert_eq!(breakers.standings(Some("b")), []);
    }

    #[test]
    fn with_too_many_the_one_that_was_not_called_longest_goes() {
        let mut registry = Registry::default();
        let name = |number: u64| key("a", &format!("h{number}:80"));
        for number in 0..limits::BREAKERS_MAX as u64 {
            call(&mut registry, &name(number), Ended::Failed, number);
        }
        let late = limits::BREAKERS_MAX as u64;
        call(&mut registry, &name(0), Ended::Failed, late);
        call(&mut registry, &name(late), Ended::Failed, late + 1);
        assert_eq!(registry.services.len(), limits::BREAKERS_MAX);
        assert!(registry.services.contains_key(&name(0)) && !registry.services.contains_key(&name(1)));
    }

    #[test]
    fn switched_off_it_refuses_nothing() {
        let mut registry = Registry::default();
        let down = key("a", "down:80");
        (0..5).for_each(|now_us| call(&mut registry, &down, Ended::Failed, now_us));
        assert!(registry.look(&down, 6).is_err());
        registry.policy.enabled = false;
        assert!(registry.look(&down, 6).is_ok() && matches!(registry.ask(&down, 6), Ok(None)));
    }
}
