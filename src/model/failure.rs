//! What a failure looks like everywhere: in events, in problem documents, on the command line.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Value;

/// What may be done about a failure (FEATURES D11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Passes by itself (a lost connection, a timeout): tried again after the policy's delay.
    Transient,
    /// Passes when something else has changed (a rate limit, an overload): tried again after the policy's delay.
    Recoverable,
    /// Trying again gives the same answer.
    Fatal,
}

impl Class {
    /// The class of a failure that says only its code: what is about connections and time is transient, what is about
    /// the input is fatal, anything else is recoverable (F352, F353).
    pub fn of(code: &str) -> Self {
        let code = code.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| code.contains(word));
        if says(&["validation", "invalid", "unauthorized", "forbidden", "not_found", "unsupported"]) {
            Self::Fatal
        } else if says(&["timeout", "timed_out", "connection", "unreachable", "reset"]) {
            Self::Transient
        } else {
            Self::Recoverable
        }
    }
}

/// Why a node or a run failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, snake_case: `expression_failed`, `map_items_max`, `join_unsatisfiable`, `deadline_exceeded`.
    pub code: Arc<str>,
    /// One sentence that names the thing, the value and the limit.
    pub message: Arc<str>,
    /// What may be done about it.
    pub class: Class,
    /// More, for machines; `Null` when there is none.
    pub details: Value,
}

impl Failure {
    /// A failure that no retry mends.
    pub fn fatal(code: &str, message: impl Into<Arc<str>>) -> Self {
        Self { code: code.into(), message: message.into(), class: Class::Fatal, details: Value::Null }
    }

    /// A failure that another attempt may not meet.
    pub fn transient(code: &str, message: impl Into<Arc<str>>) -> Self {
        Self { class: Class::Transient, ..Self::fatal(code, message) }
    }

    /// A failure of unknown class, classed by its code (F353).
    pub fn classed(code: &str, message: impl Into<Arc<str>>) -> Self {
        Self { class: Class::of(code), ..Self::fatal(code, message) }
    }

    /// May the same call be made again?
    pub fn retryable(&self) -> bool {
        self.class != Class::Fatal
    }

    /// How long whoever failed asked to be left alone: `details.retry_after_ms`.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.details.get("retry_after_ms")? {
            Value::Int(millis) => u64::try_from(*millis).ok().map(Duration::from_millis),
            Value::UInt(millis) => Some(Duration::from_millis(*millis)),
            _ => None,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_classed_by_its_code() {
        // F352, F353, F374, F375, F376, F377, F378
        for (code, class) in [
            ("connection_refused", Class::Transient),
            ("TIMEOUT", Class::Transient),
            ("rate_limit", Class::Recoverable),
            ("VALIDATION_ERROR", Class::Fatal),
            ("DB_ERROR", Class::Recoverable),
            ("EXTERNAL_SERVICE_ERROR", Class::Recoverable),
            ("circuit_breaker_open", Class::Recoverable),
            ("anything_else", Class::Recoverable),
        ] {
            let failure = Failure::classed(code, "it");
            assert_eq!((failure.class, failure.retryable()), (class, class != Class::Fatal), "{code}");
        }
    }

    #[test]
    fn a_failure_may_say_when_to_come_back() {
        let mut failure = Failure::classed("rate_limit", "slow down");
        assert_eq!(failure.retry_after(), None);
        for (details, expected) in [
            (Value::Int(1_500), Some(Duration::from_millis(1_500))),
            (Value::Int(-1), None),
            (Value::Float(1.0), None),
        ] {
            failure.details = Value::map([("retry_after_ms", details)]);
            assert_eq!(failure.retry_after(), expected);
        }
    }
}
