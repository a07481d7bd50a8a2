//! What agents say and are told: the turns of a conversation between models and tools, as they stand in events.
//!
//! What must hold: a turn that was recorded is never asked for again, so everything that the next turn is made of stands
//! in here. Text of models and results of tools are other people's data: they are shown, validated and passed on, never
//! obeyed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::money::{Tokens, Usd};
use super::{Failure, Value};

/// What an attempt of an agent asks for next.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Its settings, evaluated, with its role's filled in (docs/agents.md). Secrets are names in it.
    pub request: Value,
    /// The turns so far, oldest first.
    pub said: Arc<Vec<Said>>,
    /// What comes next.
    pub wanted: Wanted,
}

/// What comes next in a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Wanted {
    /// A model's turn.
    Model {
        /// The name of the model in the node's configuration; `None`: its default model.
        model: Option<Arc<str>>,
        /// Answers that were recorded before this one.
        turn: u32,
    },
    /// What the tools bring that the last answer asks for. Those that were refused are not among them.
    Tools(Vec<ToolCall>),
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// A model's.
    Model(Box<Answer>),
    /// What tools brought, in the order of the answer's calls; those that were refused among them.
    Tools(Vec<Returned>),
    /// What was wrong with the answer before, as the model is told.
    Correction(Arc<str>),
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The name of the model in the node's configuration.
    pub model: Arc<str>,
    /// The name of its provider there.
    pub provider: Arc<str>,
    /// The name the provider gave it in its answer.
    pub answered_by: Arc<str>,
    /// The provider's id of the answer; empty without one.
    pub response_id: Arc<str>,
    /// Its text; empty when it only asks for tools.
    pub content: Arc<str>,
    /// The tools it asks for.
    pub calls: Vec<ToolCall>,
    /// Why it stopped.
    pub stop: Stop,
    /// What it took.
    pub tokens: Tokens,
    /// The provider said what it took; otherwise it is an estimate that is not too low.
    pub measured: bool,
    /// What it cost; `None`: the model has no price.
    pub cost: Option<Usd>,
    /// From the request to the end of the answer.
    pub took_ms: u64,
}

/// Why a model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It has said all.
    End,
    /// It waits for tools.
    Tools,
    /// It may say no more: `max_output_tokens`.
    Length,
    /// The provider held its answer back.
    Filtered,
}

/// A tool that a model asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The provider's id of the call; unique in its answer.
    pub id: Arc<str>,
    /// The tool, as the model was told of it.
    pub name: Arc<str>,
    /// With what; a text when it was no JSON.
    pub arguments: Value,
    /// Why it is not made: it is not the agent's to use, or its arguments do not fit.
    pub refused: Option<Box<Failure>>,
}

/// What a tool brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Returned {
    /// Of which call.
    pub id: Arc<str>,
    /// The tool.
    pub name: Arc<str>,
    /// What it gave, or why there is nothing. The model is told either.
    pub outcome: Result<Value, Failure>,
    /// How long it took; 0 when it was refused.
    pub took_ms: u64,
}

/// The most that a call of a model may take, reserved before it is made (FEATURES D16).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The name of the model in the node's configuration.
    pub model: Arc<str>,
    /// The most it may cost; `None`: the model has no price.
    pub cost: Option<Usd>,
    /// The most tokens it may take, both ways.
    pub tokens: u64,
}

/// How much is shown of what an agent said and was told (`capture`). What it was given back to a run (its output) is a value
/// of the run, and shown as any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Nothing.
    None,
    /// Its sha-256.
    Hash,
    /// All but what looks like a key.
    #[default]
    Redacted,
    /// All.
    Full,
}

impl Capture {
    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "hash" => Self::Hash,
            "redacted" => Self::Redacted,
            "full" => Self::Full,
            _ => return None,
        })
    }
}

/// May a provider have billed a call that failed with this code? `false` only where it surely did not: nothing was sent, or it
/// was refused before the model was asked. What was reserved for such a call is given back.
pub fn is_billed(code: &str) -> bool {
    !matches!(
        code,
        // Not sent.
        "no_model"
            | "address_refused"
            | "circuit_breaker_open"
            | "connection_refused"
            | "http_request_invalid"
            | "name_not_found"
            | "secret_not_found"
            | "tls_failed"
            // Refused.
            | "context_overflow"
            | "model_request_invalid"
            | "model_unauthorized"
            | "model_unknown"
            | "overloaded"
            | "rate_limited"
            | "redirect_refused"
    )
}

/// A tool as a model is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolSpec {
    /// `[A-Za-z0-9_-]{1,64}`: what providers take.
    pub name: Arc<str>,
    /// What it does, in the words of whoever offers it.
    pub description: Arc<str>,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
}

impl Answer {
    /// About how many bytes it takes to keep.
    pub fn weight(&self) -> usize {
        let calls = self.calls.iter().map(ToolCall::weight).sum::<usize>();
        size_of::<Self>() + self.content.len() + self.response_id.len() + calls
    }
}

impl ToolCall {
    /// About how many bytes it takes to keep.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.name.len() + self.arguments.weight()
    }
}

impl Returned {
    /// About how many bytes it takes to keep.
    pub fn weight(&self) -> usize {
        let outcome = match &self.outcome {
            Ok(value) => value.weight(),
            Err(failure) => failure.message.len() + failure.details.weight(),
        };
        size_of::<Self>() + self.id.len() + outcome
    }
}

impl Said {
    /// About how many bytes it takes to keep.
    pub fn weight(&self) -> usize {
        match self {
            Self::Model(answer) => answer.weight(),
            Self::Tools(results) => results.iter().map(Returned::weight).sum(),
            Self::Correction(text) => text.len() + 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D16
    #[test]
    fn what_may_have_been_billed_is_not_given_back() {
        for code in
            ["rate_limited", "overloaded", "model_unauthorized", "connection_refused", "circuit_breaker_open"]
        {
            assert!(!is_billed(code), "{code}");
        }
        for code in [
            "timeout",
            "connection_lost",
            "api_error",
            "model_answer_invalid",
            "answer_too_large",
            "unheard_of",
        ] {
            assert!(is_billed(code), "{code}");
        }
    }
}
