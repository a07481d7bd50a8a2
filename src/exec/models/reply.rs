//! From what a provider sent to an [`Answer`]: whole, under limits, its calls judged, its tokens counted, secrets out. Pure.
//!
//! What must hold: a call is refused here or it may be made: its tool was offered and its arguments fit; its id is unique. What
//! the provider does not say plainly of tokens, or cannot be true, counts as the most it can be, never as nothing (D16).

use std::sync::Arc;

use super::estimate::Bound;
use super::prompt::Json;
use super::settings::{Kind, Model};
use super::{anthropic, openai};
use crate::exec::secret::Redactor;
use crate::ir::Schema;
use crate::limits;
use crate::model::agent::{Answer, Quote, Stop, ToolCall, ToolSpec};
use crate::model::money::Tokens;
use crate::model::{Class, Failure, Value};

/// What has come of an answer so far, in no provider's words.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) text: String,
    pub(super) calls: Vec<RawCall>,
    pub(super) stop: Option<Stop>,
    /// As the provider says it.
    pub(super) usage: Json,
    /// The provider said that this is all.
    pub(super) over: bool,
    /// Of its text and its calls.
    pub(super) bytes: usize,
    /// Its text is vectors, written here: no words of anybody.
    pub(super) is_vectors: bool,
}

/// A call that a model asks for.
#[derive(Debug, Default)]
pub(super) struct RawCall {
    /// Where it stands in the answer.
    pub(super) index: u64,
    pub(super) id: String,
    pub(super) name: String,
    /// JSON, if the model made no mistake.
    pub(super) arguments: String,
}

/// An answer that is none.
pub(super) fn invalid(why: &str) -> Failure {
    let message = format!("the model's answer cannot be read: {why}");
    Failure { class: Class::Recoverable, ..Failure::fatal("model_answer_invalid", message) }
}

impl Raw {
    pub(super) fn has_begun(&self) -> bool {
        !self.text.is_empty() || !self.calls.is_empty()
    }

    fn room(&mut self, more: &str) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(more.len());
        match self.bytes <= limits::MODEL_ANSWER_BYTES_MAX {
            true => Ok(()),
            false => {
                let most = limits::MODEL_ANSWER_BYTES_MAX;
                Err(Failure::fatal(
                    "answer_too_large",
                    format!("the model's answer has more than {most} bytes (limit model_answer_bytes_max)"),
                ))
            }
        }
    }

    /// More of its text.
    pub(super) fn say(&mut self, piece: &str) -> Result<(), Failure> {
        self.room(piece)?;
        self.text.push_str(piece);
        Ok(())
    }

    /// A call begins, or more of its id and name comes.
    pub(super) fn call(&mut self, index: u64, id: &str, name: &str) -> Result<(), Failure> {
        self.room(id)?;
        self.room(name)?;
        let at = self.calls.iter().position(|call| call.index == index);
        let Some(call) = at.and_then(|at| self.calls.get_mut(at)) else {
            let most = limits::MODEL_TOOL_CALLS_MAX;
            if self.calls.len() >= most {
                return Err(invalid(&format!(
                    "it asks for more than {most} tools (limit model_tool_calls_max)"
                )));
            }
            self.calls.push(RawCall { index, id: id.into(), name: name.into(), arguments: String::new() });
            return Ok(());
        };
        if call.id.is_empty() {
            call.id.push_str(id);
        }
        if call.name.is_empty() {
            call.name.push_str(name);
        }
        Ok(())
    }

    /// More of the arguments of a call.
    pub(super) fn argue(&mut self, index: u64, piece: &str) -> Result<(), Failure> {
        self.room(piece)?;
        if let Some(call) = self.calls.iter_mut().find(|call| call.index == index) {
            call.arguments.push_str(piece);
        }
        Ok(())
    }
}

/// What an answer is judged by.
pub(super) struct Judge<'a> {
    pub(super) model: &'a Model,
    pub(super) tools: &'a [ToolSpec],
    pub(super) quote: &'a Quote,
    pub(super) bound: Bound,
    pub(super) redactor: &'a Redactor,
}

impl Judge<'_> {
    /// The answer.
    ///
    /// # Errors
    /// `model_answer_invalid`: it is not whole, or says nothing.
    pub(super) fn answer(&self, raw: Raw, took_ms: u64) -> Result<Answer, Failure> {
        let stop = match raw.stop {
            _ if !raw.over => return Err(invalid("it ends before its end")),
            None => return Err(invalid("it does not say why it ends")),
            // Some say `stop` and ask for tools.
            Some(Stop::End) if !raw.calls.is_empty() => Stop::Tools,
            Some(Stop::Tools) if raw.calls.is_empty() => Stop::End,
            Some(stop) => stop,
        };
        if stop == Stop::End && raw.text.trim().is_empty() {
            return Err(invalid("it is empty"));
        }
        // A call that was cut off in the middle is none.
        let calls = if stop == Stop::Tools { self.calls(&raw.calls) } else { Vec::new() };
        let (tokens, measured) = self.tokens(&raw);
        let cost = match measured {
            true => self.model.price.map(|price| price.of(&tokens)),
            false => self.quote.cost,
        };
        let text = |text: &str| -> Arc<str> { self.redactor.text(text).into() };
        // Secrets go first, so that no cut leaves a part of one.
        let short = |name: &str| -> Arc<str> {
            let name = self.redactor.text(name);
            name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default().into()
        };
        Ok(Answer {
            model: self.model.name.clone(),
            provider: self.model.provider.name.clone(),
            answered_by: short(&raw.model),
            response_id: short(&raw.id),
            content: if raw.is_vectors { raw.text.as_str().into() } else { text(&raw.text) },
            calls,
            stop,
            tokens,
            measured,
            cost,
            took_ms,
        })
    }

    /// What it took, and whether the provider said so in a way that can be true.
    fn tokens(&self, raw: &Raw) -> (Tokens, bool) {
        let said = match self.model.provider.kind {
            Kind::OpenAi => openai::tokens(&raw.usage),
            Kind::Anthropic => anthropic::tokens(&raw.usage),
        };
        let Bound { input, output, input_possible } = self.bound;
        let most = Tokens { input, output, ..Tokens::default() };
        let Some(said) = said else { return (most, false) };
        let read = Tokens { output: 0, ..said }.total();
        if read == 0 || (said.output == 0 && raw.has_begun() && !raw.is_vectors) {
            return (most, false);
        }
        let (read_fits, output_fits) = (read <= input_possible, said.output <= output);
        let tokens = match read_fits {
            true => Tokens { output: said.output.min(output), ..said },
            false => Tokens { output: said.output.min(output), ..most },
        };
        (tokens, read_fits && output_fits)
    }

    fn calls(&self, raw: &[RawCall]) -> Vec<ToolCall> {
        let mut calls: Vec<ToolCall> = Vec::with_capacity(raw.len());
        for call in raw {
            let id = unique(&self.redactor.text(&call.id), &calls);
            let name: Arc<str> = self.redactor.text(&call.name).into();
            let name = name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default().into();
            let written = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
            let (arguments, refused) = match Value::from_json(written.as_bytes()) {
                Ok(arguments) => {
                    let refused = self.objection(&call.name, &arguments);
                    (arguments, refused)
                }
                Err(error) => {
                    let refused = self.offered(&call.name).err();
                    let refused =
                        refused.unwrap_or_else(|| unfit(format!("the arguments are no JSON: {error}")));
                    (Value::string(written), Some(refused))
                }
            };
            let arguments = self.redactor.value(arguments);
            let refused = refused.map(|failure| Box::new(self.redactor.failure(failure)));
            calls.push(ToolCall { id, name, arguments, refused });
        }
        calls
    }

    fn offered(&self, name: &str) -> Result<&ToolSpec, Failure> {
        self.tools.iter().find(|tool| &*tool.name == name).ok_or_else(|| {
            let shown: String = self.redactor.text(name).chars().take(NAME_BYTES_MAX).collect();
            let offered: Vec<&str> = self.tools.iter().map(|tool| &*tool.name).collect();
            let message = format!("there is no tool {shown:?} for you; there is: {}", offered.join(", "));
            Failure::fatal("tool_not_allowed", message)
        })
    }

    /// Why the call is not made; nothing when it may be.
    fn objection(&self, name: &str, arguments: &Value) -> Option<Failure> {
        let tool = match self.offered(name) {
            Ok(tool) => tool,
            Err(failure) => return Some(failure),
        };
        let schema = match Schema::new(&tool.parameters) {
            Ok(schema) => schema,
            Err(why) => return Some(unfit(format!("the schema of the tool {name} cannot be read: {why}"))),
        };
        const TOLD_MAX: usize = 5;
        let violations = schema.check(arguments, TOLD_MAX).err()?;
        let told: Vec<String> =
            violations.iter().map(|one| format!("{:?}: {}", one.pointer, one.message)).collect();
        Some(unfit(format!("the arguments do not fit the tool {name}: {}", told.join("; "))))
    }
}

/// Bytes of names and ids that are kept.
const NAME_BYTES_MAX: usize = 128;

fn unfit(message: String) -> Failure {
    Failure::fatal("tool_arguments_invalid", message)
}

/// The id as it is when every provider takes it and no other call has it; else one that is.
fn unique(id: &str, calls: &[ToolCall]) -> Arc<str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let fits = (1..=NAME_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain);
    let free = |id: &str| calls.iter().all(|call| &*call.id != id);
    if fits && free(id) {
        return id.into();
    }
    let mut number = calls.len() + 1;
    loop {
        let made = format!("call_{number}");
        if free(&made) {
            return made.into();
        }
        number += 1;
    }
}

#[cfg(test)]
#[path = "tests/reply.rs"]
mod tests;
