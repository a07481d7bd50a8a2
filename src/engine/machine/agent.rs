//! `agent`: a conversation of a model with tools, a turn at a time. Begins and fails as any call does (`machine::call`); in
//! between:
//!
//! | the agent | input | events | next |
//! | --- | --- | --- | --- |
//! | a model's turn is under way | reserve, there is money for it | `model.called`; `budget.warned` when little is left | it may be called |
//! | same | reserve, there is not: `stop` | `budget.exceeded`, then as for a failure | failed, ... |
//! | same | reserve, there is not: `pause` | `budget.exceeded`, `run.paused` | the same turn when the run goes on |
//! | same | reserve, there is not: `degrade` | `model.degraded`; without a further model as `stop` | another model's turn |
//! | same | a wider budget refuses it: `stop`, `pause`, `degrade` | `budget.exceeded` with its scope, then as above | as above |
//! | same, not called | its model spikes | `model.degraded` with a measure | the same turn, of another model |
//! | same, not called | the model of its ladder is good again | `model.recovered` | the same turn, of that model |
//! | same | it does not fit, and another model is left | `model.degraded` | another model's turn |
//! | same | it does not fit, and turns may be left out | `context.trimmed` | the same model's turn, shorter |
//! | same, called | it does not fit | as for a failure with `context_overflow` | failed, ... |
//! | a model was called | a wider budget warns | `budget.warned` with its scope | same |
//! | same | answer | `model.answered` | gathered |
//! | same | failure of that model, another one is left | `model.degraded` | another model's turn |
//! | same | failure | as for any call | backoff, failed, ... |
//! | gathered, the answer asks for tools | continue | `tool.called` | tools are under way |
//! | gathered, and may have none of them | continue | `tool.returned` | a model's turn |
//! | gathered, the answer is good | continue | `node.completed` | completed |
//! | gathered, it is not, and was one of words | continue | `agent.corrected`, bounded | a model's turn |
//! | gathered, no turn is left | continue | as for a failure with `agent_turns_max` | failed, ... |
//! | tools are under way | they have returned | `tool.returned` | a model's turn |
//! | any other | any of these | - (stale) | same |

use std::sync::Arc;

use smallvec::SmallVec;

use super::end::{end, fits};
use super::{At, Step, Way};
use crate::engine::scope::Agent;
use crate::engine::spend::Breach;
use crate::engine::{Outcome, Permit, Raise, Run, Says, Spend, Verb};
use crate::ir::OnBreach;
use crate::limits;
use crate::model::agent::{Answer, Aside, Limit, Overflow, Quote, Returned, Stop, ToolCall, trim};
use crate::model::budget::Over;
use crate::model::event::Done;
use crate::model::money::Usd;
use crate::model::{EventBody, Failure, Place, Seq, Value};

/// What whoever makes an agent's turns says of the one under way.
pub(in crate::engine) fn said(at: At<'_>, seq: Seq, says: &Says, out: &mut Outcome) {
    let agent = at.state.agent().filter(|agent| agent.call.under_way && agent.call.seq == seq);
    let Some(agent) = agent else {
        out.stale = true;
        return;
    };
    match says {
        Says::Reserve(quote) => reserve(at, agent, quote, out),
        Says::Refused(over) => refused_by(at, agent, over, out),
        Says::Warned(by) if agent.wants_model() && agent.quote.is_some() => {
            out.push(EventBody::WiderWarned { place: at.place.clone(), by: by.clone() });
        }
        Says::Answered(answer) if agent.wants_model() && agent.quote.is_some() => {
            match over_limit(agent, answer) {
                None => {
                    let (place, answer, capture) = (at.place.clone(), answer.clone(), agent.capture());
                    out.push(EventBody::ModelAnswered { place, answer, capture });
                }
                Some(failure) => end(at, Step::Failed(failure, false), out),
            }
        }
        Says::Returned(results) if !agent.wants_model() => match in_order(agent, results) {
            Some(results) => {
                let (place, capture) = (at.place.clone(), agent.capture());
                out.push(EventBody::ToolReturned { place, results, capture });
            }
            None => out.stale = true,
        },
        Says::Spiked(_) | Says::Recovered { .. } | Says::Overflow(_) if !may_call(at, agent) => {
            out.stale = true;
        }
        Says::Spiked(spiked)
            if agent.quote.is_none()
                && *agent.aside() != Aside::Stays
                && *agent.aside() != Aside::To(spiked.to.clone()) =>
        {
            out.push(EventBody::ModelSpiked { place: at.place.clone(), spiked: spiked.clone() });
        }
        Says::Recovered { from, to }
            if agent.quote.is_none() && *agent.aside() == Aside::To(from.clone()) =>
        {
            let (place, from, to) = (at.place.clone(), from.clone(), to.clone());
            out.push(EventBody::ModelRecovered { place, from, to });
        }
        Says::Overflow(overflow) => overflown(at, agent, overflow, out),
        _ => out.stale = true,
    }
}

/// May its model be called, once there is money for it?
fn may_call(at: At<'_>, agent: &Agent) -> bool {
    agent.wants_model() && !at.run.is_paused() && at.run.cancel.is_none()
}

/// The conversation does not fit: another model's turn, a shorter one, or a failure. Who only wants it shorter asks no other
/// model, and whoever is not told by the provider that it does not fit may try.
fn overflown(at: At<'_>, agent: &Agent, overflow: &Overflow, out: &mut Outcome) {
    let Overflow { model, limit, tokens, most, .. } = overflow;
    let message = format!(
        "the conversation takes about {tokens} tokens, and {model} may be told {most}; its last {} answers stay \
         (memory.keep_turns)",
        agent.kept_turns()
    );
    let failure = Failure::fatal("context_overflow", message);
    if *limit != Limit::Memory
        && let Some(degraded) = degraded(at, &failure, false)
    {
        return out.push(degraded);
    }
    match trim(&agent.said, overflow, agent.kept_turns()) {
        Some(trimmed) => {
            out.push(EventBody::ContextTrimmed { place: at.place.clone(), trimmed: Box::new(trimmed) });
        }
        None if agent.quote.is_some() => end(at, Step::Failed(failure, false), out),
        None => out.stale = true,
    }
}

/// Somebody gives the run more to spend, and may end its pause with it.
pub(in crate::engine) fn raised(run: &Run, raise: &Raise, out: &mut Outcome) {
    let Raise { usd, tokens, by, reason, resume, key } = raise.clone();
    out.push(EventBody::BudgetRaised { usd, tokens, by, reason });
    let resumes = resume && run.may(Verb::Resume) == Permit::Go;
    if resumes {
        out.push(EventBody::RunResumed);
    }
    if let Some(key) = key {
        let status = match resumes {
            true => run.status_resumed(),
            false => run.status(),
        };
        out.push(run.remember_as(status, key, Done::Budget { seq: run.seq() + 1 }));
    }
}

/// Why an answer cannot be kept.
fn over_limit(agent: &Agent, answer: &Answer) -> Option<Failure> {
    let (bytes, calls) = (answer.weight(), answer.calls.len());
    if bytes > limits::AGENT_ANSWER_BYTES_MAX {
        let most = limits::AGENT_ANSWER_BYTES_MAX;
        let message = format!(
            "the answer of {} has {bytes} bytes (limit agent_answer_bytes_max: {most})",
            answer.model
        );
        return Some(Failure::fatal("agent_answer_bytes_max", message));
    }
    if calls > limits::AGENT_CALLS_MAX {
        let most = limits::AGENT_CALLS_MAX;
        let message =
            format!("the answer of {} asks for {calls} tools (limit agent_calls_max: {most})", answer.model);
        return Some(Failure::fatal("agent_calls_max", message));
    }
    let all = agent.bytes.saturating_add(bytes);
    (all > limits::AGENT_CONVERSATION_BYTES_MAX).then(|| {
        let most = limits::AGENT_CONVERSATION_BYTES_MAX;
        let message =
            format!("the conversation has {all} bytes (limit agent_conversation_bytes_max: {most})");
        Failure::fatal("agent_conversation_bytes_max", message)
    })
}

fn reserve(at: At<'_>, agent: &Agent, quote: &Quote, out: &mut Outcome) {
    if !may_call(at, agent) || agent.quote.is_some() {
        out.stale = true;
        return;
    }
    let place = at.place.clone();
    let called = EventBody::ModelCalled { place: place.clone(), quote: Box::new(quote.clone()) };
    let Some(budget) = &at.run.ir.budget else { return out.push(called) };
    let Err(breach) = at.run.spend.allows(budget, quote) else {
        out.push(called);
        if let Some((used, tokens)) = at.run.spend.warns(budget, quote) {
            out.push(EventBody::BudgetWarned { used, tokens });
        }
        return;
    };
    let failure = breached(breach, quote);
    let next = agent.next_rung();
    if budget.on_breach == OnBreach::Degrade && agent.has_rung(next) {
        let quote = Some(Box::new(quote.clone()));
        return out.push(EventBody::ModelDegraded { place, to: next, failure, quote });
    }
    out.push(EventBody::BudgetExceeded { place, quote: Box::new(quote.clone()) });
    match budget.on_breach {
        OnBreach::Pause => out.push(EventBody::RunPaused { reason: failure.message }),
        OnBreach::Stop | OnBreach::Degrade => end(at, Step::Failed(failure, false), out),
    }
}

/// A budget that the run shares with others has too little left for its next turn.
fn refused_by(at: At<'_>, agent: &Agent, over: &Over, out: &mut Outcome) {
    if !may_call(at, agent) || agent.quote.is_some() {
        out.stale = true;
        return;
    }
    let (place, failure, next) = (at.place.clone(), over.failure(), agent.next_rung());
    out.push(EventBody::WiderExceeded { place: place.clone(), over: Box::new(over.clone()) });
    match over.by.on_breach {
        OnBreach::Degrade if agent.has_rung(next) => {
            let quote = Some(Box::new(over.quote.clone()));
            out.push(EventBody::ModelDegraded { place, to: next, failure, quote });
        }
        OnBreach::Pause => out.push(EventBody::RunPaused { reason: failure.message }),
        OnBreach::Stop | OnBreach::Degrade => end(at, Step::Failed(failure, false), out),
    }
}

fn breached(breach: Breach, quote: &Quote) -> Failure {
    let model = &quote.model;
    let message = match breach {
        Breach::Unpriced => {
            let message = format!(
                "the model {model} has no price, and limits.budget.usd is set; give it one (models.names.{model}.price), or set \
                 limits.budget.allow_unpriced"
            );
            return Failure::fatal("unpriced_model", message);
        }
        Breach::Usd { left, of } => {
            let cost = quote.cost.unwrap_or_default();
            format!(
                "the next call of {model} may cost ${cost}, and ${left} of ${of} are left (limits.budget.usd)"
            )
        }
        Breach::Tokens { left, of } => format!(
            "the next call of {model} may take {} tokens, and {left} of {of} are left (limits.budget.tokens)",
            quote.tokens
        ),
    };
    Failure::fatal("budget_exceeded", message)
}

/// What all calls of the last answer brought, in its order: what came for those that were made, and why the others were not.
fn in_order(agent: &Agent, results: &[Returned]) -> Option<Vec<Returned>> {
    let calls = &agent.answer()?.calls;
    let of = |call: &ToolCall| match &call.refused {
        Some(failure) => Some(refused(call, failure)),
        None => results.iter().find(|result| result.id == call.id).cloned(),
    };
    calls.iter().map(of).collect()
}

fn refused(call: &ToolCall, failure: &Failure) -> Returned {
    let (id, name) = (call.id.clone(), call.name.clone());
    Returned { id, name, outcome: Err(failure.clone()), took_ms: 0 }
}

/// What follows from an answer.
pub(super) fn answered(at: At<'_>, out: &mut Outcome) {
    let Some((agent, answer)) = at.state.agent().and_then(|agent| Some((agent, agent.answer()?))) else {
        return;
    };
    if answer.stop == Stop::Filtered {
        let message = format!("the provider held back the answer of {}", answer.model);
        return end(at, Step::Failed(Failure::fatal("content_filtered", message), false), out);
    }
    let place = at.place.clone();
    let is_last = agent.turns() >= agent.turns_max();
    if !answer.calls.is_empty() {
        if is_last {
            return end(at, Step::Failed(out_of_turns(agent), false), out);
        }
        let calls: Vec<ToolCall> = agent.calls().cloned().collect();
        let capture = agent.capture();
        return out.push(if calls.is_empty() {
            EventBody::ToolReturned { place, results: in_order(agent, &[]).unwrap_or_default(), capture }
        } else {
            EventBody::ToolCalled { place, calls, capture }
        });
    }
    match output(at, agent, answer) {
        Ok(output) => end(at, Step::Done(output, Way::Plain), out),
        // Numbers are not corrected.
        Err(failure) if is_last || agent.embeds() || agent.corrections() >= limits::AGENT_CORRECTIONS_MAX => {
            end(at, Step::Failed(failure, false), out);
        }
        Err(failure) => out.push(EventBody::AgentCorrected { place, message: failure.message }),
    }
}

fn out_of_turns(agent: &Agent) -> Failure {
    let message = format!(
        "after {} answers it still asks for tools; it may have {} (with.max_turns)",
        agent.turns(),
        agent.turns_max()
    );
    Failure::fatal("agent_turns_max", message)
}

/// The node's output: a value when one is asked for (`output_schema`, several `outputs`), `{name: text}` for one output, else
/// the text.
fn output(at: At<'_>, agent: &Agent, answer: &Answer) -> Result<Value, Failure> {
    if answer.stop == Stop::Length {
        let message = "the answer was cut at max_output_tokens; a shorter one is needed, or a higher limit";
        return Err(Failure::fatal("answer_truncated", message));
    }
    if agent.embeds() {
        return vectors(at, agent, answer);
    }
    let names = agent.outputs();
    let json = || Value::from_json(unfenced(&answer.content).as_bytes());
    let output = match names.as_slice() {
        [] if at.node.output_schema.is_none() => Value::String(answer.content.clone()),
        [name] if at.node.output_schema.is_none() => match json() {
            Ok(value) if value.get(name).is_some() => value,
            _ => Value::map([((*name).clone(), Value::String(answer.content.clone()))]),
        },
        _ => json().map_err(|error| invalid(format!("the answer is no JSON: {error}")))?,
    };
    let missing: Vec<&str> =
        names.iter().filter(|name| output.get(name).is_none()).map(|name| &***name).collect();
    if at.node.output_schema.is_none() && !missing.is_empty() {
        return Err(invalid(format!(
            "the answer has to be a JSON object with the members {}",
            missing.join(", ")
        )));
    }
    fits(at, &output).map(|()| output)
}

/// What one gives that was asked for vectors: the list of them.
fn vectors(at: At<'_>, agent: &Agent, answer: &Answer) -> Result<Value, Failure> {
    let vectors = Value::from_json(answer.content.as_bytes())
        .map_err(|error| invalid(format!("the vectors are no JSON: {error}")))?;
    let output = match agent.outputs().first() {
        Some(name) => Value::map([((*name).clone(), vectors)]),
        None => vectors,
    };
    fits(at, &output).map(|()| output)
}

fn invalid(message: String) -> Failure {
    Failure::fatal("output_schema", message)
}

/// What stands in a code fence around the whole text; the text itself without one.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.and_then(|inner| inner.split_once('\n')).map_or(text, |(_, inner)| inner.trim())
}

/// The model to be asked next, when the one that failed like this is not asked again: at once when that is of no use, else
/// when its attempts are used up.
pub(super) fn degraded(at: At<'_>, failure: &Failure, retried: bool) -> Option<EventBody> {
    let agent = at.state.agent().filter(|agent| agent.call.under_way && agent.wants_model())?;
    let next = agent.next_rung();
    // What was asked in the place of the ladder's model is not the only one that there is.
    let back = matches!(agent.aside(), Aside::To(_)) && !agent.has_rung(next);
    let to = if back { agent.rung } else { next };
    let at_once = matches!(
        &*failure.code,
        "context_overflow"
            | "circuit_breaker_open"
            | "model_unauthorized"
            | "model_unknown"
            | "model_content_filtered"
            | "secret_not_found"
            | "address_refused"
    );
    let by_model = at_once
        || matches!(
            &*failure.code,
            "rate_limited"
                | "overloaded"
                | "api_error"
                | "model_answer_invalid"
                | "answer_too_large"
                | "timeout"
                | "connection_lost"
                | "connection_refused"
                | "name_not_found"
                | "tls_failed"
        );
    ((back || agent.has_rung(to)) && by_model && (at_once || !retried)).then(|| EventBody::ModelDegraded {
        place: at.place.clone(),
        to,
        failure: failure.clone(),
        quote: None,
    })
}

impl Run {
    /// May the model be called for this turn of the agent at this place: is its cost reserved, and nobody has called it back?
    pub fn is_reserved(&self, place: &Place, seq: Seq) -> bool {
        let agent = self.node(place).and_then(|node| node.agent());
        agent.is_some_and(|agent| agent.call.under_way && agent.call.seq == seq && agent.quote.is_some())
    }

    /// What counts as spent by it, by role: what its calls took, and what is reserved for those under way. In a fork: since it was
    /// one.
    pub fn charges(&self) -> Vec<(Arc<str>, Usd, u64)> {
        let Some(spend) = self.spend.get() else { return Vec::new() };
        let used = spend.used.iter();
        let mut charges: Vec<_> =
            used.map(|used| (used.role.clone(), used.part.usd, used.part.tokens_taken())).collect();
        self.root.walk(&mut SmallVec::new(), &mut |_, _, state| {
            let open = state.agent().and_then(|agent| Some((agent.quote.as_ref()?, agent.role())));
            charges.extend(open.map(|(quote, role)| (role, quote.cost.unwrap_or_default(), quote.tokens)));
            true
        });
        charges
    }

    /// What it has spent; `None`: no model was called yet.
    pub fn spend(&self) -> Option<&Spend> {
        self.spend.get()
    }
}
