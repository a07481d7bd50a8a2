//! What a failure looks like everywhere: in events, in problem documents, on the command line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Value;

/// What may be done about a failure (FEATURES D11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Passes by itself: try again after the policy's delay.
    Transient,
    /// Someone can mend it (a human, a fallback, another tool), then it may be tried again.
    Recoverable,
    /// Trying again gives the same answer.
    Fatal,
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

    /// May the same call be made again?
    pub fn retryable(&self) -> bool {
        self.class == Class::Transient
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
