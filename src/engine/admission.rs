//! Whether a run may begin. A run of a document with `limits.concurrency` or `limits.rate` evaluates its keys first, says
//! that it waits (`run.waiting`) and is pending; nothing of it starts before it is admitted (`run.admitted`).
//!
//! Who is admitted when is decided by somebody who knows the other runs; a run only makes its claim, and gives it up when
//! it ends or is paused before its turn came. The claim follows from the state alone ([`Run::claim`]). It has the number of
//! the event that makes it, and only an admission that names this number counts: one that was on its way when the run was
//! paused finds the claim given up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::env::Surroundings;
use super::fold::unfit;
use super::run::Run;
use super::{Effects, FoldError};
use crate::ir::Limited;
use crate::limits;
use crate::model::{
    Admission, Claim, Concurrency, EventBody, Failure, Place, Priority, Rate, Seq, Status, Value,
};

/// A change of a run's claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claiming {
    /// It asks to be admitted.
    Ask(Box<Claim>),
    /// It gives up what it was given, or its place in the line.
    Release(Box<Claim>),
}

/// What a run waits for, or was admitted under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    pub(super) wanted: Arc<Admission>,
    /// Number of the event that asks.
    asked: Seq,
    pub(super) admitted: bool,
}

/// Does its first thing have to be a claim?
pub(super) fn must_ask(run: &Run) -> bool {
    run.ir.admission.is_some() && run.turn.is_none() && run.seq == first(run) && run.status == Status::Running
}

/// Number of the event after which it asks.
pub(super) fn first(run: &Run) -> Seq {
    if let Some(seq) = run.asks_at {
        return seq;
    }
    let preface = [run.parent.is_some(), run.run_key.is_some(), run.mode_given, run.layered.is_some()];
    1 + preface.into_iter().map(Seq::from).sum::<Seq>()
}

/// What the run waits for, its keys evaluated; or its end, when one has no value that will do.
pub(super) fn ask(run: &Run) -> EventBody {
    match wanted(run) {
        Ok(wanted) => EventBody::RunWaiting(Box::new(wanted)),
        Err(failure) => EventBody::RunFailed { failure, place: None },
    }
}

fn wanted(run: &Run) -> Result<Admission, Failure> {
    let Some(written) = &run.ir.admission else { return Ok(Admission { concurrency: None, rate: None }) };
    let concurrency = written.concurrency.as_ref().map(|limited| {
        let key = key(run, "limits.concurrency", limited)?;
        Ok(Concurrency { key, max: limited.max })
    });
    let rate = written.rate.as_ref().map(|(limited, per)| {
        let key = key(run, "limits.rate", limited)?;
        Ok(Rate { key, max: limited.max, per: *per })
    });
    Ok(Admission { concurrency: concurrency.transpose()?, rate: rate.transpose()? })
}

fn key(run: &Run, of: &str, limited: &Limited) -> Result<Arc<str>, Failure> {
    let surroundings = Surroundings::new(run, &Place::root(0));
    let value = surroundings.fill(&limited.key).map_err(|failure| {
        let message = format!("the key of {of}: {}", failure.message);
        Failure { message: message.into(), ..failure }
    })?;
    let key: Arc<str> = match value {
        Value::String(text) => text,
        Value::Int(_) | Value::UInt(_) | Value::Bool(_) => value.to_json().into(),
        other => {
            let found = other.type_name();
            let message = format!("the key of {of} is {found}; text, a whole number or a bool is expected");
            return Err(Failure::fatal("admission_key", message));
        }
    };
    let most = limits::ADMISSION_KEY_BYTES_MAX;
    match key.len() {
        0 => Err(Failure::fatal("admission_key", format!("the key of {of} is empty"))),
        long if long > most => {
            let message = format!(
                "the key of {of} has {long} bytes; at most {most} are allowed (limit admission_key_bytes_max)"
            );
            Err(Failure::fatal("admission_key_bytes_max", message))
        }
        _ => Ok(key),
    }
}

/// Does an admission with this number count?
pub(super) fn counts(run: &Run, seq: Seq) -> bool {
    run.status == Status::Pending
        && run.cancel.is_none()
        && run.turn.as_ref().is_some_and(|turn| !turn.admitted && turn.asked == seq)
}

/// Number of the event that makes the run's claim; 0 when it makes none.
pub(super) fn asked(run: &Run) -> Seq {
    run.turn.as_ref().map_or(0, |turn| turn.asked)
}

/// Folds `run.waiting`.
pub(super) fn waits(
    run: &mut Run,
    body: &EventBody,
    wanted: &Admission,
    effects: &mut Effects,
) -> Result<(), FoldError> {
    if !must_ask(run) {
        return Err(unfit(body, "it comes directly after run.started, run.linked or run.keyed"));
    }
    run.status = Status::Pending;
    run.turn = Some(Turn { wanted: Arc::new(wanted.clone()), asked: 0, admitted: false });
    claim(run, effects);
    Ok(())
}

/// Folds `run.admitted`.
pub(super) fn admitted(run: &mut Run, body: &EventBody, effects: &mut Effects) -> Result<(), FoldError> {
    let pending = run.status == Status::Pending && run.cancel.is_none();
    let turn = run.turn.as_mut().filter(|turn| pending && !turn.admitted);
    let turn = turn.ok_or_else(|| unfit(body, "it does not wait to be admitted"))?;
    turn.admitted = true;
    run.status = Status::Running;
    // Of a fork: those that fired while it stood in line came too early.
    if run.origin.is_some() {
        effects.timers.extend(run.timers());
    }
    Ok(())
}

/// The event that is being folded makes a claim.
pub(super) fn claim(run: &mut Run, effects: &mut Effects) {
    let asked = run.seq + 1;
    if let Some(turn) = &mut run.turn {
        turn.asked = asked;
    }
    if let Some((claim, _)) = run.claim() {
        effects.claims.push(Claiming::Ask(Box::new(claim)));
    }
}

/// The event that is being folded gives the claim up, when there is one.
pub(super) fn release(run: &Run, effects: &mut Effects) {
    if let Some((claim, _)) = run.claim() {
        effects.claims.push(Claiming::Release(Box::new(claim)));
    }
}

impl Run {
    /// Does it wait to be admitted, or would it if it were not paused?
    pub(super) fn is_outside(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| !turn.admitted)
    }

    /// The status that it has once its pause is over.
    pub(super) fn status_resumed(&self) -> Status {
        if self.is_outside() { Status::Pending } else { Status::Running }
    }

    /// The run's claim, and whether it was admitted; none for a run that needs no admission, that has ended, or that is
    /// paused before its turn came.
    pub fn claim(&self) -> Option<(Claim, bool)> {
        let turn = self.turn.as_ref()?;
        if self.status.is_terminal() || (!turn.admitted && self.status != Status::Pending) {
            return None;
        }
        let claim = Claim {
            seq: turn.asked,
            workflow: self.started.workflow.clone(),
            wanted: turn.wanted.clone(),
            priority: self.first_priority(),
            since: self.started_at,
            parent: self.parent.as_ref().map(|parent| parent.run_id),
        };
        Some((claim, turn.admitted))
    }

    /// The priority of what it begins with.
    fn first_priority(&self) -> Priority {
        let first =
            self.agenda.front(false, |_| false).and_then(|place| super::route::graph_node(self, place));
        first.map_or(Priority::Medium, |node| node.priority)
    }
}
