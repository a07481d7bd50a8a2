//! What agents do, by workflow and role, since the node began (F395): for whoever looks at an agent, and for nothing else.
//!
//! What must hold: it decides nothing. It is of this process and begins empty after a restart; what finished runs spent is kept
//! by the index. At most [`limits::AGENTS_SEEN_MAX`] agents are remembered; with more, the one that was called longest ago and
//! has no call under way is forgotten; when there is none such, the new one is not noted.

#![expect(clippy::disallowed_types, reason = "one look for each call of a model, away from the runners")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits;
use crate::model::agent::Answer;
use crate::model::money::Usd;
use crate::model::{Failure, credential};
use crate::time::{Clock as _, SystemClock, Timestamp};

/// What one agent does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doing {
    /// Calls of models under way.
    pub under_way: u64,
    /// Calls that were begun.
    pub calls: u64,
    /// Calls that were answered.
    pub answers: u64,
    /// Calls that failed; those that were given up are in none of both.
    pub failures: u64,
    /// What answers cost; of models without a price nothing.
    pub usd: Usd,
    /// Tokens of all answers, both ways.
    pub tokens: u64,
    /// Tokens of the last answer, both ways: how much of its context the agent fills.
    pub context_tokens: u64,
    /// The model that was called last.
    pub model: Arc<str>,
    /// When.
    pub called_at: Option<Timestamp>,
    /// How a call failed last.
    pub last_failure: Option<Failed>,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// When.
    pub at: Timestamp,
    /// Of which model.
    pub model: Arc<str>,
    /// Why.
    pub code: Arc<str>,
    /// In the words of whoever refused it, cut, without what looks like a key.
    pub message: Arc<str>,
}

/// Workflow as it is named inside the node, and role.
type Key = (Arc<str>, Arc<str>);

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<BTreeMap<Key, Doing>>);

/// A call, until it ends or is given up.
pub(super) struct Noted<'a> {
    book: &'a Book,
    key: Key,
    model: Arc<str>,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Doing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an agent does; `None`: nothing that is remembered.
    pub(super) fn of(&self, workflow: &str, role: &str) -> Option<Doing> {
        self.lock().get(&(workflow.into(), role.into())).cloned()
    }

    /// A call begins.
    pub(super) fn begin(&self, key: Key, model: &Arc<str>) -> Noted<'_> {
        let mut all = self.lock();
        if all.len() >= limits::AGENTS_SEEN_MAX && !all.contains_key(&key) {
            let idle = all.iter().filter(|(_, doing)| doing.under_way == 0);
            let oldest = idle.min_by_key(|(_, doing)| doing.called_at).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        if all.len() < limits::AGENTS_SEEN_MAX || all.contains_key(&key) {
            let doing = all.entry(key.clone()).or_default();
            doing.under_way += 1;
            doing.calls += 1;
            doing.model = model.clone();
            doing.called_at = Some(SystemClock.now());
        }
        Noted { book: self, key, model: model.clone() }
    }
}

impl Noted<'_> {
    pub(super) fn ended(&self, outcome: &Result<Answer, Failure>) {
        let mut all = self.book.lock();
        let Some(doing) = all.get_mut(&self.key) else { return };
        match outcome {
            Ok(answer) => {
                let tokens = answer.tokens.total();
                doing.answers += 1;
                doing.usd = doing.usd.plus(answer.cost.unwrap_or_default());
                doing.tokens = doing.tokens.saturating_add(tokens);
                doing.context_tokens = tokens;
            }
            Err(failure) => {
                doing.failures += 1;
                // Before it is cut: the beginning of a key looks like none.
                let message = credential::masked(&failure.message);
                doing.last_failure = Some(Failed {
                    at: SystemClock.now(),
                    model: self.model.clone(),
                    code: failure.code.as_ref().into(),
                    message: message.chars().take(limits::MODEL_WORDS_MAX).collect::<String>().into(),
                });
            }
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if let Some(doing) = self.book.lock().get_mut(&self.key) {
            doing.under_way = doing.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::agent::Stop;
    use crate::model::money::Tokens;

    fn answer(tokens: u64, cost: Option<u64>) -> Answer {
        Answer {
            model: "m".into(),
            provider: "p".into(),
            answered_by: "".into(),
            response_id: "".into(),
            content: "".into(),
            calls: Vec::new(),
            stop: Stop::End,
            tokens: Tokens { input: tokens, ..Tokens::default() },
            measured: true,
            cost: cost.map(Usd::from_nanos),
            took_ms: 1,
        }
    }

    fn key(role: &str) -> Key {
        ("w".into(), role.into())
    }

    // F395
    #[test]
    fn an_agents_calls_tokens_cost_and_last_failure_are_known() {
        let book = Book::default();
        let first = book.begin(key("r"), &"m".into());
        let second = book.begin(key("r"), &"n".into());
        assert_eq!(book.of("w", "r").unwrap().under_way, 2);
        first.ended(&Ok(answer(40, Some(7))));
        drop(first);
        second.ended(&Err(Failure::transient("api_error", "sk-proj-abcdefghijklmnopqrstuvwx is wrong")));
        drop(second);
        book.begin(key("r"), &"m".into()).ended(&Ok(answer(60, None)));
        drop(book.begin(key("r"), &"m".into()));
        let doing = book.of("w", "r").unwrap();
        assert_eq!((doing.under_way, doing.calls, doing.answers, doing.failures), (0, 4, 2, 1));
        assert_eq!((doing.usd, doing.tokens, doing.context_tokens), (Usd::from_nanos(7), 100, 60));
        let failed = doing.last_failure.unwrap();
        assert_eq!(
            (&*failed.code, &*failed.model, &*failed.message),
            ("api_error", "n", "[redacted] is wrong")
        );
        let words = format!("{} sk-proj-abcdefghijklmnopqrstuvwx", "x".repeat(limits::MODEL_WORDS_MAX - 12));
        book.begin(key("r"), &"m".into()).ended(&Err(Failure::transient("api_error", words)));
        let told = book.of("w", "r").unwrap().last_failure.unwrap().message;
        assert!(!told.contains("sk-"), "a key is taken out before the words are cut: {told}");
        assert_eq!(book.of("w", "other"), None);
        assert_eq!(book.of("v", "r"), None);
    }

    #[test]
    fn only_so_many_are_remembered_and_one_that_works_is_not_forgotten() {
        let book = Book::default();
        let busy = book.begin(key("busy"), &"m".into());
        for number in 0..limits::AGENTS_SEEN_MAX + 3 {
            drop(book.begin(key(&number.to_string()), &"m".into()));
        }
        assert_eq!(book.lock().len(), limits::AGENTS_SEEN_MAX);
        assert_eq!(book.of("w", "busy").map(|doing| doing.under_way), Some(1));
        assert!(book.of("w", &(limits::AGENTS_SEEN_MAX + 2).to_string()).is_some(), "the newest is known");
        drop(busy);
    }
}
