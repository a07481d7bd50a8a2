//! The models of the node as they are called: each with its breaker, its room and its counts.
//!
//! What must hold: a failure that says something of the request and nothing of the service opens no breaker.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::book::Book;
use super::counts::Counts;
use super::lines::Lines;
use super::settings::{Model, Settings};
use super::spell::Spell;
use super::suggest::Suggestions;
use crate::limits;
use crate::model::{Class, Failure, Value};
use crate::resilience::breaker::Ended;
use crate::resilience::{Bulkhead, CircuitBreaker, Config, Refusal, overload};

/// One model.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) model: Model,
    pub(super) counts: Arc<Counts>,
    pub(super) breaker: CircuitBreaker,
    room: Bulkhead,
    /// Is it too slow, or too dear?
    pub(super) spell: Spell,
    /// As many as calls may be under way: whoever has one of them finds room at once.
    pub(super) places: Arc<Semaphore>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Catalog {
    pub(super) default: Option<Arc<str>>,
    pub(super) models: BTreeMap<Arc<str>, Arc<Entry>>,
    pub(super) ladder: Vec<Arc<str>>,
    /// Agents of a role that have a turn at once.
    pub(super) agents_max: Option<usize>,
    pub(super) lines: Lines,
    pub(super) suggestions: Suggestions,
    /// What agents do with them.
    pub(super) book: Book,
}

impl Catalog {
    pub(super) fn new(settings: &Settings) -> Self {
        let entry = |model: &Model| Entry {
            model: model.clone(),
            counts: Arc::default(),
            breaker: CircuitBreaker::new(Config::default()),
            room: Bulkhead::new(model.provider.max_in_flight, limits::MODEL_CALLS_WAITING_MAX),
            spell: Spell::new(settings.spike),
            places: Arc::new(Semaphore::new(model.provider.max_in_flight)),
        };
        let models = settings.models.iter().map(|(name, model)| (name.clone(), Arc::new(entry(model))));
        Self {
            default: settings.default.clone(),
            models: models.collect(),
            ladder: settings.ladder.clone(),
            agents_max: settings.agents_max,
            lines: Lines::default(),
            suggestions: settings.suggestions.clone(),
            book: Book::default(),
        }
    }
}

/// Why there is no answer: it was not asked for, or what was asked failed.
enum Stopped {
    Refused(Refusal),
    Failed(Failure),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a failure says of the service.
fn weight(failure: &Failure) -> Ended {
    match &*failure.code {
        "overloaded" | "rate_limited" => overload::overloaded(failure.retry_after()),
        "api_error" => match failure.details.get("status") {
            // Below 500 it is the provider's trouble all the same.
            Some(Value::Int(status)) if *status >= 500 => {
                overload::weigh(u16::try_from(*status).unwrap_or(u16::MAX), failure.retry_after())
            }
            _ => Ended::Failed,
        },
        "timeout"
        | "connection_refused"
        | "connection_lost"
        | "name_not_found"
        | "tls_failed"
        | "model_answer_invalid"
        | "answer_too_large" => Ended::Failed,
        _ => Ended::Succeeded,
    }
}

/// Does this say that the service is in trouble?
pub(super) fn is_of_service(failure: &Failure) -> bool {
    // Who asks too often is told so by a service that is well.
    &*failure.code != "rate_limited" && weight(failure) != Ended::Succeeded
}

impl Entry {
    /// What metrics and failures call it.
    fn service(&self) -> String {
        format!("{}/{}", self.model.provider.name, self.model.name)
    }

    /// Makes a call when there is room for it and the model is not left alone.
    pub(super) async fn guarded<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        call: impl FnOnce() -> F,
    ) -> Result<T, Failure> {
        let weigh = |stopped: &Stopped| match stopped {
            Stopped::Failed(failure) => weight(failure),
            Stopped::Refused(_) => Ended::Unknown,
        };
        let call = || async { call().await.map_err(Stopped::Failed) };
        let outcome = self.room.call(|| self.breaker.call_weighing(weigh, call)).await;
        outcome.map_err(|stopped| match stopped {
            Stopped::Failed(failure) => failure,
            Stopped::Refused(refusal) => self.not_called(&refusal),
        })
    }

    fn not_called(&self, refusal: &Refusal) -> Failure {
        self.counts.refused.increment();
        let service = self.service();
        let message = format!("{service} is not called: {refusal}");
        let mut details = vec![("service", Value::string(service))];
        let failure = match refusal {
            Refusal::Open { last_failure_at, retry_after } => {
                let after = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX).max(1);
                details.push(("last_failure_at", Value::string(last_failure_at.to_string())));
                details.push(("retry_after_ms", Value::unsigned(after)));
                Failure::fatal("circuit_breaker_open", message)
            }
            Refusal::Full { .. } => Failure::fatal("overloaded", message),
            Refusal::TimedOut { .. } => Failure::fatal("timeout", message),
        };
        Failure { class: Class::Recoverable, details: Value::map(details), ..failure }
    }
}
