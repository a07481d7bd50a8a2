//! Which models are too slow, too dear, or fail too often to be asked first, and what is asked in their place (F389).
//!
//! What is decided is decided by [`crate::resilience::spike`]; here are the clock and the lock around it, and what a call of a model
//! says. Whoever makes a turn asks before its call ([`Models::watch`], [`Models::instead`]), writes into the run what it means to
//! do, and tells what came of the call ([`Watched::told`]). A call that is given up says that it is slow when it was under way for
//! longer than a call may take, and nothing otherwise.

#![expect(clippy::disallowed_types, reason = "held for a few sums, twice for each call of a model")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::catalog::{Entry, is_of_service};
use super::estimate::Written;
use super::settings::Model;
use super::{Models, estimate};
use crate::limits;
use crate::model::Failure;
use crate::model::Value;
use crate::model::agent::{Answer, Ask, Limit, Measure, Overflow, Quote, ToolSpec, memory_tokens};
use crate::resilience::spike::{self, Policy, Sample, Ticket, Watch};
use crate::resilience::{State, spike::Spike};
use crate::telemetry::Cell;
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, SystemClock};

/// What is known of one model.
#[derive(Debug)]
pub(super) struct Spell {
    policy: Policy,
    watch: Mutex<Watch>,
    /// Spikes so far: of time, cost, errors.
    pub(super) began: [Cell; 3],
}

impl Spell {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, watch: Mutex::default(), began: Default::default() }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Watch, u64) -> T) -> T {
        let now_us = SystemClock.monotonic_us();
        look(&mut self.watch.lock().unwrap_or_else(PoisonError::into_inner), now_us)
    }

    pub(super) fn state(&self) -> spike::State {
        self.with(|watch, now_us| watch.state(now_us))
    }

    fn is_free(&self) -> bool {
        self.with(|watch, now_us| watch.is_free(now_us))
    }
}

/// A model that may be asked. What came of it is told; otherwise, when this is dropped, that it was given up.
#[derive(Debug)]
pub struct Watched {
    entry: Arc<Entry>,
    ticket: Option<Ticket>,
    began_us: Option<u64>,
}

impl Watched {
    /// The call is made from here on.
    pub fn begins(&mut self) {
        self.began_us = Some(SystemClock.monotonic_us());
    }

    /// What came of the call.
    pub fn told(mut self, outcome: &Result<Answer, Failure>) {
        let sample = match outcome {
            Ok(answer) => Some(Sample {
                took_us: Some(answer.took_ms.saturating_mul(1_000)),
                output_tokens: answer.tokens.output,
                cost_nanos: answer.cost.map(|cost| cost.as_nanos()),
                failed: false,
            }),
            // What is refused here, or says something of the request, says nothing of the model.
            Err(failure) if !is_of_service(failure) => None,
            Err(failure) => {
                let took_us = (&*failure.code == "timeout").then(|| self.elapsed_us());
                Some(Sample { took_us, failed: true, ..Sample::default() })
            }
        };
        self.ended(sample);
    }

    fn elapsed_us(&self) -> u64 {
        self.began_us.map_or(0, |began_us| SystemClock.monotonic_us().saturating_sub(began_us))
    }

    fn ended(&mut self, sample: Option<Sample>) {
        let Some(ticket) = self.ticket.take() else { return };
        let Spell { policy, began, .. } = &self.entry.spell;
        let spike = self.entry.spell.with(|watch, now_us| watch.ended(policy, (ticket, sample), now_us));
        let Some(spike) = spike else { return };
        let [time, cost, errors] = began;
        match spike.measure {
            spike::Measure::CallTime | spike::Measure::TokenTime => time.increment(),
            spike::Measure::Cost => cost.increment(),
            spike::Measure::Errors => errors.increment(),
        }
        let (measure, model) = (measure(&spike), &*self.entry.model.name);
        let (measured, threshold, unit) = (spike.measured, spike.threshold, measure.unit());
        let reason = measure.reason();
        log::warn(
            Target::Work,
            format_args!(
                "the model {model} has a spike of {reason}: {measured} over {threshold} {unit}; others are asked"
            ),
        );
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let took_us = self.elapsed_us();
        let call_max = self.entry.spell.policy.call_max;
        let slow = call_max.is_some_and(|most| Duration::from_micros(took_us) > most);
        self.ended(slow.then(|| Sample { took_us: Some(took_us), ..Sample::default() }));
    }
}

/// As events have it.
pub fn measure(spike: &Spike) -> Measure {
    match spike.measure {
        spike::Measure::CallTime => Measure::CallTime,
        spike::Measure::TokenTime => Measure::TokenTime,
        spike::Measure::Cost => Measure::Cost,
        spike::Measure::Errors => Measure::Errors,
    }
}

impl Models {
    /// May this model be asked as any? `None`: there is no such model, or nothing is too much for one.
    ///
    /// # Errors
    /// It spikes.
    pub fn watch(&self, name: &str) -> Result<Option<Watched>, Spike> {
        let Some(entry) = self.catalog.models.get(name).filter(|entry| !entry.spell.policy.is_none()) else {
            return Ok(None);
        };
        let ticket = entry.spell.with(|watch, now_us| watch.ask(&entry.spell.policy, now_us))?;
        Ok(Some(Watched { entry: entry.clone(), ticket: Some(ticket), began_us: None }))
    }

    /// What is asked in the place of the model on an agent's ladder: the first below it, there and then on the node's, that is
    /// called at the moment, does not spike itself and reads the whole conversation; the one that is asked already, as long as it
    /// will do. `None`: there is none.
    pub fn instead(&self, ask: &Ask, own: &str, tools: &[ToolSpec], now: Option<&str>) -> Option<Arc<str>> {
        let will_do = |name: &str| {
            name != own
                && self.catalog.models.get(name).is_some_and(|entry| {
                    entry.breaker.state() != State::Open
                        && entry.spell.is_free()
                        && self.overflow(ask, name, tools).is_none_or(|over| over.limit == Limit::Memory)
                })
        };
        let ladder = match ask.request.get("models") {
            Some(Value::List(models)) => &models[..],
            _ => &[],
        };
        let theirs = ladder.iter().filter_map(|model| model.as_str()).skip_while(|name| *name != own).skip(1);
        let node = self.catalog.ladder.iter().map(|name| &**name).skip_while(|name| *name != own).skip(1);
        now.into_iter().chain(theirs).chain(node).find(|name| will_do(name)).map(Arc::from)
    }

    /// What of a conversation does not fit this model, or what the agent wants to have read, as far as that can be told
    /// before it is sent.
    pub fn overflow(&self, ask: &Ask, name: &str, tools: &[ToolSpec]) -> Option<Overflow> {
        let model = &self.catalog.models.get(name)?.model;
        over(model, ask, &estimate::write(model, ask, tools).ok()?)
    }

    /// The most that the next call may take, as [`Models::quote`] has it, and what of the conversation does not fit.
    ///
    /// # Errors
    /// As for [`Models::quote`].
    pub fn weigh(&self, ask: &Ask, tools: &[ToolSpec]) -> Result<(Quote, Option<Overflow>), Failure> {
        let model = &self.entry(ask)?.model;
        let written = estimate::write(model, ask, tools)?;
        Ok((estimate::quote(model, written.bound), over(model, ask, &written)))
    }

    /// The provider says that a conversation does not fit. It does not say by how much: the next one is half as long.
    pub fn halved(&self, ask: &Ask, name: &str, tools: &[ToolSpec]) -> Option<Overflow> {
        let model = &self.catalog.models.get(name)?.model;
        let (bytes_per_token, tokens) = likely(model, &estimate::write(model, ask, tools).ok()?);
        let (limit, most) = (Limit::Provider, tokens / 2);
        Some(Overflow { model: model.name.clone(), limit, tokens, most, bytes_per_token })
    }
}

/// Bytes of a token, and about how many tokens are read.
fn likely(model: &Model, written: &Written) -> (u64, u64) {
    let bytes_per_token = model.bytes_per_token.max(limits::MODEL_TOKEN_BYTES_LIKELY);
    (bytes_per_token, (written.body.len() as u64).div_ceil(bytes_per_token))
}

fn over(model: &Model, ask: &Ask, written: &Written) -> Option<Overflow> {
    let (bytes_per_token, tokens) = likely(model, written);
    let window = model.context_tokens.saturating_sub(written.bound.output);
    let (limit, most) = match memory_tokens(&ask.request) {
        Some(most) if tokens > most => (Limit::Memory, most.min(window)),
        _ if tokens > window => (Limit::Window, window),
        _ => return None,
    };
    Some(Overflow { model: model.name.clone(), limit, tokens, most, bytes_per_token })
}
