//! What agents say and are told: the turns of a conversation between models and tools, as they stand in events.
//!
//! What must hold: a turn that was recorded is never asked for again, so everything that the next turn is made of stands
//! in here. Text of models and results of tools are other people's data: they are shown, validated and passed on, never
//! obeyed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::money::{Tokens, Usd};
use super::{Failure, Value};
use crate::limits;

/// What an attempt of an agent asks for next.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Its settings, evaluated, with its role's filled in (docs/agents.md). Secrets are names in it.
    pub request: Value,
    /// The turns so far, oldest first.
    pub said: Arc<Vec<Said>>,
    /// What comes next.
    pub wanted: Wanted,
    /// The model on its own ladder, whichever is asked instead of it; `None`: the node's default model.
    pub own: Option<Arc<str>>,
}

impl Ask {
    /// Does nothing of the turn leave the node before the run has said, durably, that the call is reserved? So it is with a
    /// model's turn, unless a tool server is to be asked for its tools first.
    pub fn reserves_first(&self) -> bool {
        matches!(self.wanted, Wanted::Model { .. })
            && !self.request.get("tools").is_some_and(super::tools::names_server)
    }
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
    /// A mark, which nobody is told of: which model is asked from here on.
    Aside(Aside),
    /// A mark: of what stands before this position nobody is told any more.
    Trimmed(u32),
}

/// Which model is asked: that on the agent's ladder, or another one in its place while it spikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aside {
    /// The ladder's.
    Back,
    /// This one.
    To(Arc<str>),
    /// The ladder's, and no other before the next attempt: what was asked instead has failed.
    Stays,
}

/// What of a model is over its threshold (F389).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Milliseconds of a call.
    CallTime,
    /// Microseconds of an output token.
    TokenTime,
    /// Billionths of a dollar of a call.
    Cost,
    /// Failures of the service in a thousand calls.
    Errors,
}

impl Measure {
    /// As events and metrics have it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::CallTime | Self::TokenTime => "latency",
            Self::Cost => "cost",
            Self::Errors => "errors",
        }
    }

    /// Of what is measured.
    pub fn unit(self) -> &'static str {
        match self {
            Self::CallTime => "ms_per_call",
            Self::TokenTime => "us_per_output_token",
            Self::Cost => "usd_nanos_per_call",
            Self::Errors => "failures_per_thousand_calls",
        }
    }
}

/// Another model is asked instead of one that spikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spiked {
    /// The model that is asked no more.
    pub from: Arc<str>,
    /// The one that is asked instead.
    pub to: Arc<str>,
    /// What is over its threshold.
    pub measure: Measure,
    /// The mean over the window.
    pub measured: u64,
    /// What it may be.
    pub threshold: u64,
}

/// Why a conversation does not fit (F390).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The agent's `memory.max_tokens`.
    Memory,
    /// What the model reads and writes in one call, as estimated.
    Window,
    /// The provider said so.
    Provider,
}

/// A conversation that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overflow {
    /// The model that would be asked.
    pub model: Arc<str>,
    /// Which limit it is over.
    pub limit: Limit,
    /// About how many tokens it takes.
    pub tokens: u64,
    /// How many it may take.
    pub most: u64,
    /// Bytes of a token, as it was counted.
    pub bytes_per_token: u64,
}

/// What is left out of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trimmed {
    /// Why.
    pub overflow: Overflow,
    /// Turns before this position of the conversation are not told any more.
    pub left_out: u32,
    /// Answers that are left out by this, with what their tools brought.
    pub turns: u32,
    /// About how many tokens are left.
    pub tokens_after: u64,
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
            Self::Aside(Aside::To(model)) => model.len() + 32,
            Self::Aside(_) | Self::Trimmed(_) => 32,
        }
    }

    /// About how many bytes a model is told of it.
    fn told_bytes(&self) -> u64 {
        // What a provider's form puts around a text.
        const AROUND: usize = 64;
        let bytes = match self {
            Self::Model(answer) => {
                let calls = answer.calls.iter().map(|call| AROUND + call.arguments.to_json().len());
                AROUND + answer.content.len() + calls.sum::<usize>()
            }
            Self::Tools(results) => {
                let one = |result: &Returned| match &result.outcome {
                    Ok(value) => value.to_json().len().min(limits::MODEL_TOOL_RESULT_BYTES_MAX),
                    Err(failure) => failure.message.len(),
                };
                results.iter().map(|result| AROUND + one(result)).sum()
            }
            Self::Correction(text) => AROUND + text.len(),
            Self::Aside(_) | Self::Trimmed(_) => 0,
        };
        bytes as u64
    }
}

/// The conversation as a model is told it, and how many answers are left out of it.
pub fn told(said: &[Said]) -> (impl Iterator<Item = &Said>, usize) {
    let from = left_out(said);
    let told = said.iter().skip(from).filter(|said| !matches!(said, Said::Aside(_) | Said::Trimmed(_)));
    (told, said.iter().take(from).filter(|said| matches!(said, Said::Model(_))).count())
}

/// Answers that stay when a conversation is trimmed, by an agent's settings (`memory.keep_turns`).
pub fn kept_turns(request: &Value) -> usize {
    memory(request, "keep_turns").map_or(limits::MEMORY_TURNS_DEFAULT, |turns| turns as usize)
}

/// The most tokens that an agent wants to have read in one call (`memory.max_tokens`).
pub fn memory_tokens(request: &Value) -> Option<u64> {
    memory(request, "max_tokens")
}

fn memory(request: &Value, key: &str) -> Option<u64> {
    match request.get("memory")?.get(key)? {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::UInt(number) => Some(*number),
        _ => None,
    }
}

/// The position of the first turn that is told.
fn left_out(said: &[Said]) -> usize {
    let last = said.iter().rev().find_map(|said| match said {
        Said::Trimmed(from) => Some(*from as usize),
        _ => None,
    });
    last.unwrap_or_default()
}

/// What to leave out so that a conversation fits: its oldest answers, each with what its tools brought and what it was told
/// of it, until it fits or only the last `keep` answers are left. `None`: there is nothing that may be left out.
pub fn trim(said: &[Said], overflow: &Overflow, keep: usize) -> Option<Trimmed> {
    let from = left_out(said);
    let answers: Vec<usize> = said
        .iter()
        .enumerate()
        .skip(from)
        .filter_map(|(at, said)| matches!(said, Said::Model(_)).then_some(at))
        .collect();
    let may_begin = answers.get(1..=answers.len().checked_sub(keep.max(1))?)?;
    let per_token = overflow.bytes_per_token.max(1);
    let excess = overflow.tokens.saturating_sub(overflow.most).saturating_mul(per_token);
    let (mut bytes, mut cut, mut turns) = (0_u64, from, 0_u32);
    for begin in may_begin {
        let between = said.iter().take(*begin).skip(cut);
        bytes = bytes.saturating_add(between.map(Said::told_bytes).sum());
        (cut, turns) = (*begin, turns.saturating_add(1));
        if bytes >= excess {
            break;
        }
    }
    let left_out = u32::try_from(cut).ok().filter(|_| turns > 0)?;
    let tokens_after = overflow.tokens.saturating_sub(bytes / per_token);
    Some(Trimmed { overflow: overflow.clone(), left_out, turns, tokens_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Said {
        let calls =
            vec![ToolCall { id: "c".into(), name: "find".into(), arguments: Value::Null, refused: None }];
        Said::Model(Box::new(Answer {
            model: "m".into(),
            provider: "p".into(),
            answered_by: "m".into(),
            response_id: "r".into(),
            content: "x".repeat(bytes).into(),
            calls,
            stop: Stop::Tools,
            tokens: Tokens::default(),
            measured: true,
            cost: None,
            took_ms: 1,
        }))
    }

    fn result(bytes: usize) -> Said {
        let outcome = Ok(Value::string("x".repeat(bytes)));
        Said::Tools(vec![Returned { id: "c".into(), name: "find".into(), outcome, took_ms: 1 }])
    }

    fn over(tokens: u64, most: u64) -> Overflow {
        Overflow { model: "m".into(), limit: Limit::Window, tokens, most, bytes_per_token: 1 }
    }

    // F390: what is left out is the oldest, no call loses its result, and the last turns stay.
    #[test]
    fn the_oldest_turns_are_left_out_with_what_their_tools_brought() {
        let turn = |bytes| [answer(10), result(bytes)];
        let mut said: Vec<Said> = [turn(1_000), turn(2_000), turn(3_000), turn(10)].concat();
        let trimmed = trim(&said, &over(7_000, 6_500), 2).unwrap();
        assert_eq!((trimmed.left_out, trimmed.turns), (2, 1), "one is enough");
        assert!((5_700..6_000).contains(&trimmed.tokens_after), "{trimmed:?}");
        // As little as may be stays, when nothing is enough.
        assert_eq!(trim(&said, &over(7_000, 10), 2).unwrap().left_out, 4);
        assert_eq!(trim(&said, &over(7_000, 10), 0).unwrap().left_out, 6, "the last answer always stays");
        assert_eq!(trim(&said, &over(7_000, 10), 4), None);
        assert_eq!(trim(&said, &over(7_000, 10), 9), None);
        assert_eq!(trim(&[], &over(7_000, 10), 1), None);
        // What is left out once stays out, and marks are told to nobody.
        said.push(Said::Trimmed(2));
        said.push(Said::Aside(Aside::To("small".into())));
        let (told, answers) = told(&said);
        let told: Vec<&Said> = told.collect();
        assert_eq!((told.len(), answers), (6, 1));
        assert!(matches!(told[0], Said::Model(_)));
        assert_eq!(trim(&said, &over(5_800, 5_000), 2).unwrap().left_out, 4);
        said.push(Said::Trimmed(4));
        assert_eq!(trim(&said, &over(5_800, 5_000), 2), None);
    }

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
