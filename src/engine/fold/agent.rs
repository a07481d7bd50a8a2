//! Events about the turns of an agent.
//!
//! | event | the agent before | after |
//! | --- | --- | --- |
//! | `model.called` | its next turn is a model's, under way, nothing reserved | that much is reserved |
//! | `model.answered` | a model was called | gathered: what follows comes next |
//! | `tool.called` | gathered, the answer asks for tools | they are under way |
//! | `tool.returned` | they are under way; or gathered, and none may be called | the next turn is under way |
//! | `agent.corrected` | gathered, the answer asks for none | the next turn is under way |
//! | `model.degraded` | its next turn is a model's, under way | another model's is |
//! | `model.degraded` with a measure | its next turn is a model's, under way, nothing reserved | the same turn is another model's |
//! | `model.recovered` | same, of a model that is asked for another | the same turn is the ladder's model's |
//! | `context.trimmed` | its next turn is a model's, under way, called or not | the same with a shorter conversation |
//! | `budget.exceeded` | its next turn is a model's, under way, nothing reserved | the same; what follows is another event |
//! | `budget.warned` with a scope | a model was called | the same |
//!
//! A turn under way has the number of the event that it follows from. In a paused run it is handed out when the run goes on;
//! in one that is to be cancelled nothing is begun any more.

use std::sync::Arc;

use super::misplaced;
use super::node::change;
use crate::engine::route::{charge, node_mut};
use crate::engine::run::Run;
use crate::engine::scope::{Agent, Phase};
use crate::engine::spend::Taken;
use crate::engine::{Effects, FoldError, calls};
use crate::ir::OnBreach;
use crate::model::agent::{Aside, Quote, Returned, Said, ToolCall, Trimmed, is_billed};
use crate::model::{EventBody, Failure, Place};

pub(super) fn fold(run: &mut Run, body: &EventBody, effects: &mut Effects) -> Result<(), FoldError> {
    match body {
        EventBody::ModelCalled { place, quote } => {
            asks(run, body, place, false)?;
            run.spend.reserve(quote);
            change_agent(run, place, |agent| agent.quote = Some(Quote::clone(quote)));
        }
        EventBody::ModelAnswered { place, answer, .. } => {
            asks(run, body, place, true)?;
            settle(run, place, Taken::Answered(answer));
            calls::answered(run, place);
            say(run, place, Said::Model(answer.clone()));
            made(run, place);
            change(run, place, |node| node.phase = Phase::Gathered);
            run.agenda.end_first(place.clone());
        }
        EventBody::ToolCalled { place, calls, .. } => {
            if !gathered(run, body, place)?.calls().eq(calls.iter()) {
                return Err(misplaced(run, body, place, "the answer asks for other tools"));
            }
            go_on(run, place, effects);
        }
        EventBody::ToolReturned { place, results, .. } => {
            returned(run, body, (place, results), effects)?;
        }
        EventBody::AgentCorrected { place, message } => {
            if gathered(run, body, place)?.answer().is_none_or(|answer| !answer.calls.is_empty()) {
                return Err(misplaced(run, body, place, "its answer asks for tools"));
            }
            say(run, place, Said::Correction(message.clone()));
            go_on(run, place, effects);
        }
        EventBody::ModelDegraded { place, to, failure, .. } => {
            degraded(run, body, (place, *to, failure), effects)?;
        }
        EventBody::ModelSpiked { place, spiked } => {
            if *asks(run, body, place, false)?.aside() == Aside::Stays {
                return Err(misplaced(run, body, place, "no other model is asked in this attempt"));
            }
            say(run, place, Said::Aside(Aside::To(spiked.to.clone())));
        }
        EventBody::ModelRecovered { place, from, .. } => {
            if *asks(run, body, place, false)?.aside() != Aside::To(from.clone()) {
                return Err(misplaced(run, body, place, "that model is not asked"));
            }
            say(run, place, Said::Aside(Aside::Back));
        }
        EventBody::ContextTrimmed { place, trimmed } => {
            self::trimmed(run, body, (place, trimmed), effects)?;
        }
        EventBody::BudgetExceeded { place, quote } => {
            asks(run, body, place, false)?;
            if run.ir.budget.as_ref().is_some_and(|budget| budget.on_breach == OnBreach::Pause) {
                run.spend.refuse(quote, None);
            }
        }
        EventBody::WiderExceeded { place, over } => {
            asks(run, body, place, false)?;
            if over.by.on_breach == OnBreach::Pause {
                run.spend.refuse(&over.quote, Some(&over.by));
            }
        }
        EventBody::WiderWarned { place, .. } => drop(asks(run, body, place, true)?),
        _ => return Err(super::unfit(body, "it is about no node")),
    }
    Ok(())
}

/// Oldest turns are left out of a conversation, and its turn begins again.
fn trimmed(
    run: &mut Run,
    body: &EventBody,
    (place, trimmed): (&Place, &Trimmed),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    if trimmed.left_out as usize > asking(run, body, place)?.said.len() {
        return Err(misplaced(run, body, place, "so much was not said"));
    }
    // A provider that finds it too long asks no model.
    settle(run, place, Taken::Nothing);
    calls::answered(run, place);
    say(run, place, Said::Trimmed(trimmed.left_out));
    go_on(run, place, effects);
    Ok(())
}

fn change_agent(run: &mut Run, place: &Place, change: impl FnOnce(&mut Agent)) {
    if let Some(agent) = node_mut(&mut run.root, place).and_then(|node| node.agent_mut()) {
        change(agent);
    }
}

/// The agent at `place`, whose model's turn is under way, called or not.
fn asks<'r>(run: &'r Run, body: &EventBody, place: &Place, called: bool) -> Result<&'r Agent, FoldError> {
    let node = run.node(place).filter(|node| node.phase == Phase::Waiting);
    node.and_then(|node| node.agent())
        .filter(|agent| agent.call.under_way && agent.wants_model() && agent.quote.is_some() == called)
        .ok_or_else(|| misplaced(run, body, place, "no such turn of a model is under way"))
}

/// The same, whether it was called or not.
fn asking<'r>(run: &'r Run, body: &EventBody, place: &Place) -> Result<&'r Agent, FoldError> {
    let node = run.node(place).filter(|node| node.phase == Phase::Waiting);
    node.and_then(|node| node.agent())
        .filter(|agent| agent.call.under_way && agent.wants_model())
        .ok_or_else(|| misplaced(run, body, place, "no turn of a model is under way"))
}

/// The agent at `place`, which has been answered.
fn gathered<'r>(run: &'r Run, body: &EventBody, place: &Place) -> Result<&'r Agent, FoldError> {
    let node = run.node(place).filter(|node| node.phase == Phase::Gathered);
    node.and_then(|node| node.agent())
        .filter(|agent| !agent.wants_model())
        .ok_or_else(|| misplaced(run, body, place, "no model has answered it"))
}

fn returned(
    run: &mut Run,
    body: &EventBody,
    (place, results): (&Place, &[Returned]),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let wrong = |problem| misplaced(run, body, place, problem);
    let node = run.node(place).ok_or_else(|| wrong("there is no such node"))?;
    let agent = node.agent().ok_or_else(|| wrong("it is no agent"))?;
    let all: &[ToolCall] = agent.answer().map_or(&[], |answer| &answer.calls);
    let own = node.phase == Phase::Gathered && agent.calls().next().is_none();
    if !(own || (node.phase == Phase::Waiting && agent.call.under_way)) || all.is_empty() {
        return Err(wrong("no tools are under way"));
    }
    if !all.iter().map(|call| &call.id).eq(results.iter().map(|result| &result.id)) {
        return Err(wrong("they are not what the answer asks for"));
    }
    calls::answered(run, place);
    say(run, place, Said::Tools(results.to_vec()));
    made(run, place);
    if run.cancel.is_some() {
        change(run, place, |node| node.phase = Phase::Gathered);
    } else {
        go_on(run, place, effects);
    }
    Ok(())
}

fn degraded(
    run: &mut Run,
    body: &EventBody,
    (place, to, failure): (&Place, u32, &Failure),
    effects: &mut Effects,
) -> Result<(), FoldError> {
    let agent = asking(run, body, place)?;
    let aside = matches!(agent.aside(), Aside::To(_));
    // Back to the model that another one was asked for, or down.
    let back = aside && to == agent.rung;
    if !back && (to <= agent.rung || !agent.has_rung(to)) {
        return Err(misplaced(run, body, place, "there is no such model further down its ladder"));
    }
    failed(run, place, failure);
    calls::answered(run, place);
    change_agent(run, place, |agent| agent.rung = to);
    if aside {
        say(run, place, Said::Aside(if back { Aside::Stays } else { Aside::Back }));
    }
    go_on(run, place, effects);
    Ok(())
}

/// A new attempt asks the model on the agent's ladder.
pub(super) fn begins_again(run: &mut Run, place: &Place) {
    let agent = run.node(place).and_then(|node| node.agent());
    if agent.is_some_and(|agent| *agent.aside() != Aside::Back) {
        say(run, place, Said::Aside(Aside::Back));
    }
}

/// One more turn was had, or a mark is made.
fn say(run: &mut Run, place: &Place, said: Said) {
    let bytes = said.weight();
    charge(&mut run.root, &place.scopes, bytes, 0);
    change_agent(run, place, |agent| {
        Arc::make_mut(&mut agent.said).push(said);
        agent.bytes += bytes;
    });
}

/// A turn was made: the next one has all attempts before it, and nothing of it was lost.
fn made(run: &mut Run, place: &Place) {
    change(run, place, |node| {
        let earlier = node.attempts.saturating_sub(1);
        if let Some(agent) = node.agent_mut() {
            agent.earlier = earlier;
            agent.call.lost = 0;
        }
    });
}

/// The next turn is under way.
fn go_on(run: &mut Run, place: &Place, effects: &mut Effects) {
    let seq = run.seq + 1;
    change_agent(run, place, |agent| {
        agent.call.seq = seq;
        agent.call.under_way = true;
    });
    change(run, place, |node| node.phase = Phase::Waiting);
    run.under_way += 1;
    if !run.is_paused() {
        effects.dispatches.extend(run.dispatch(place));
    }
}

/// What was reserved for the agent's call is settled, if there is any.
pub(super) fn settle(run: &mut Run, place: &Place, taken: Taken<'_>) {
    let agent = node_mut(&mut run.root, place).and_then(|node| node.agent_mut());
    let open = agent.and_then(|agent| Some((agent.quote.take()?, agent.role())));
    if let Some((quote, role)) = open {
        run.spend.settle(&quote, taken, &role);
    }
}

/// The call that the agent at `place` may have under way ended with a failure.
pub(super) fn failed(run: &mut Run, place: &Place, failure: &Failure) {
    let taken = if is_billed(&failure.code) { Taken::Unknown } else { Taken::Nothing };
    settle(run, place, taken);
}
