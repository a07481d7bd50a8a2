//! One event as a client sees it: a row of the timeline and the `data` of a streamed event are the same object.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Hash, Shown};
use crate::model::event::{Done, Forked, Remembered, RunStarted, Waiting};
use crate::model::patch::{Decided, Held, Layered, Proposal, Rejection, Revocation};
use crate::model::workspace::shown;
use crate::model::{Admission, Concurrency, EventBody, Failure, Rate, Seq, Value, kept};
use crate::time::Timestamp;

/// One event with its node named.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its number in the run.
    pub seq: Seq,
    /// When it was decided.
    pub at: Timestamp,
    /// Path of the node it is about.
    pub node: Option<&'a str>,
    /// What happened.
    pub body: &'a EventBody,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("type", self.body.type_name())?;
        if let Some(node) = self.node {
            map.serialize_entry("node", node)?;
        }
        map.serialize_entry("at", &Shown(self.at))?;
        content(self.body, &mut map)?;
        map.end()
    }
}

fn content<M: SerializeMap>(body: &EventBody, map: &mut M) -> Result<(), M::Error> {
    match body {
        EventBody::RunStarted(started) => run_started(started, map),
        EventBody::NodeStarted { attempt, .. } => map.serialize_entry("attempt", attempt),
        EventBody::NodeWaiting { waiting, .. } => node_waiting(waiting, map),
        EventBody::NodeCompleted { output, .. } => map.serialize_entry("output", output),
        EventBody::NodeFailed { failure, continued, .. } => {
            map.serialize_entry("error", &Error(failure))?;
            map.serialize_entry("continued", continued)
        }
        EventBody::SignalReceived { name, payload, .. } => {
            map.serialize_entry("signal", &**name)?;
            map.serialize_entry("payload", payload)
        }
        EventBody::RunCompleted { outputs } => map.serialize_entry("outputs", outputs),
        EventBody::RunFailed { failure, .. } => map.serialize_entry("error", &Error(failure)),
        EventBody::RunCancelRequested { reason }
        | EventBody::RunCancelled { reason }
        | EventBody::RunPaused { reason } => map.serialize_entry("reason", &**reason),
        EventBody::TimerFired { .. }
        | EventBody::NodeSkipped { .. }
        | EventBody::NodeLost { .. }
        | EventBody::NodeRedriven { .. }
        | EventBody::RunResumed
        | EventBody::RunAdmitted
        | EventBody::ApprovalExpired { .. } => Ok(()),
        EventBody::RunWaiting(wanted) => run_waiting(wanted, map),
        EventBody::RunLinked { parent } => map.serialize_entry("parent", &Shown(parent.run_id)),
        EventBody::RunKeyed { run_key, replaces } => {
            map.serialize_entry("run_key", &**run_key)?;
            replaces.map_or(Ok(()), |replaced| map.serialize_entry("replaces", &Shown(replaced)))
        }
        EventBody::ModeChanged { mode } => map.serialize_entry("mode", mode),
        EventBody::EventsDerived { count } => map.serialize_entry("count", count),
        EventBody::TimerSet { due, .. } => map.serialize_entry("due", &Shown(due)),
        EventBody::NodeRetryScheduled { failure, due, .. } => {
            map.serialize_entry("error", &Error(failure))?;
            map.serialize_entry("due", &Shown(due))
        }
        EventBody::NodeFellBack { failure, .. } | EventBody::NodeUncertain { failure, .. } => {
            map.serialize_entry("error", &Error(failure))
        }
        EventBody::NodeLeased { worker, .. } => map.serialize_entry("worker", &**worker),
        EventBody::ApprovalDecided { decision, .. } => {
            map.serialize_entry("approved", &decision.approved)?;
            map.serialize_entry("reviewer", &*decision.reviewer)?;
            map.serialize_entry("reason", &decision.reason)?;
            map.serialize_entry("form", &decision.form)?;
            map.serialize_entry("digest", &Shown(Hash(&decision.digest)))
        }
        EventBody::LoopContinued { iteration, .. } => map.serialize_entry("iteration", iteration),
        EventBody::ApprovalEscalated { level, .. } => map.serialize_entry("level", level),
        EventBody::PatchApplied(patched) => {
            map.serialize_entry("version", &patched.version)?;
            map.serialize_entry("hash", &Shown(Hash(&patched.document)))
        }
        EventBody::PatchCreated(proposal) => patch_created(proposal, map),
        EventBody::PatchRejected(rejection) => patch_rejected(rejection, map),
        EventBody::PatchRevoked(revocation) => patch_revoked(revocation, map),
        EventBody::RunLayered(layered) => run_layered(layered, map),
        EventBody::RequestRemembered(request) => request_remembered(request, map),
        EventBody::PatchHeld(held) => patch_held(held, map),
        EventBody::PatchDecided(decided) => patch_decided(decided, map),
        EventBody::RunForked(forked) => run_forked(forked, map),
        other => super::agent::content(other, map),
    }
}

fn run_forked<M: SerializeMap>(forked: &Forked, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("forked_from", &json!({"run_id": Shown(forked.run_id), "seq": forked.seq}))?;
    map.serialize_entry("replay", &forked.replay)?;
    forked.inputs.as_ref().map_or(Ok(()), |inputs| map.serialize_entry("inputs", inputs))?;
    map.serialize_entry("epoch", &forked.epoch)
}

fn run_layered<M: SerializeMap>(layered: &Layered, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("base", &Shown(Hash(&layered.base)))?;
    map.serialize_entry("patches", &layered.patches)?;
    map.serialize_entry("left_out", &super::run::left_out(layered))?;
    map.serialize_entry("patch_set", &layered.set)
}

/// The key itself is a hash, which helps nobody; what it stands for does.
fn request_remembered<M: SerializeMap>(request: &Remembered, map: &mut M) -> Result<(), M::Error> {
    match &request.done {
        Done::Signal { seq, .. } => map.serialize_entry("received_seq", seq),
        Done::Budget { seq } => map.serialize_entry("raised_seq", seq),
        Done::Patch { patch_id, version, .. } => {
            patch_id.map_or(Ok(()), |patch_id| map.serialize_entry("patch_id", &Shown(patch_id)))?;
            map.serialize_entry("graph_version", version)
        }
    }
}

fn patch_held<M: SerializeMap>(held: &Held, map: &mut M) -> Result<(), M::Error> {
    patch_created(&held.proposal, map)?;
    map.serialize_entry("reason", &*held.reason)
}

fn patch_decided<M: SerializeMap>(decided: &Decided, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("patch_id", &Shown(decided.patch_id))?;
    map.serialize_entry("approved", &decided.approved)?;
    map.serialize_entry("by", &*decided.by)?;
    map.serialize_entry("reason", &*decided.reason)
}

fn patch_rejected<M: SerializeMap>(rejection: &Rejection, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("patch_id", &Shown(rejection.patch_id))?;
    map.serialize_entry("author", &*rejection.author)?;
    map.serialize_entry("code", &*rejection.code)?;
    map.serialize_entry("message", &*rejection.message)
}

fn patch_revoked<M: SerializeMap>(revocation: &Revocation, map: &mut M) -> Result<(), M::Error> {
    let patch_ids: Vec<_> = revocation.patch_ids.iter().copied().map(Shown).collect();
    map.serialize_entry("patch_ids", &patch_ids)?;
    map.serialize_entry("author", &*revocation.author)?;
    map.serialize_entry("reason", &*revocation.reason)?;
    map.serialize_entry("operations", &revocation.operations)
}

fn patch_created<M: SerializeMap>(proposal: &Proposal, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("patch_id", &Shown(proposal.patch_id))?;
    map.serialize_entry("author", &*proposal.author)?;
    map.serialize_entry("justification", &*proposal.justification)?;
    map.serialize_entry("base_version", &proposal.base_version)?;
    map.serialize_entry("operations", &proposal.operations)
}

fn run_started<M: SerializeMap>(started: &RunStarted, map: &mut M) -> Result<(), M::Error> {
    map.serialize_entry("workflow", shown(&started.workflow))?;
    map.serialize_entry("version", &*started.version)?;
    map.serialize_entry("hash", &Shown(Hash(&started.document)))?;
    map.serialize_entry("inputs", &started.inputs)?;
    if let Some(deadline) = started.deadline {
        map.serialize_entry("deadline", &Shown(deadline))?;
    }
    map.serialize_entry("epoch", &started.epoch)
}

fn run_waiting<M: SerializeMap>(wanted: &Admission, map: &mut M) -> Result<(), M::Error> {
    if let Some(Concurrency { key, max }) = &wanted.concurrency {
        map.serialize_entry("concurrency", &json!({"key": &**key, "max": max}))?;
    }
    wanted.rate.as_ref().map_or(Ok(()), |rate| map.serialize_entry("rate", &rate_shown(rate)))
}

/// A rate as clients see it.
pub(super) fn rate_shown(rate: &Rate) -> serde_json::Value {
    let per_ms = u64::try_from(rate.per.as_millis()).unwrap_or(u64::MAX);
    json!({"key": &*rate.key, "max": rate.max, "per_ms": per_ms})
}

fn node_waiting<M: SerializeMap>(waiting: &Waiting, map: &mut M) -> Result<(), M::Error> {
    match waiting {
        Waiting::Timer { due } => {
            map.serialize_entry("waiting_for", "timer")?;
            map.serialize_entry("due", &Shown(due))
        }
        Waiting::Signal { name, due } => {
            map.serialize_entry("waiting_for", "signal")?;
            map.serialize_entry("signal", &**name)?;
            due.map_or(Ok(()), |due| map.serialize_entry("due", &Shown(due)))
        }
        Waiting::Items { items } => {
            map.serialize_entry("waiting_for", "items")?;
            map.serialize_entry("items", &kept::items_of(items).unwrap_or(0))
        }
        Waiting::Passes { .. } => map.serialize_entry("waiting_for", "passes"),
        Waiting::Call { due, .. } => {
            map.serialize_entry("waiting_for", "call")?;
            map.serialize_entry("due", &Shown(due))
        }
        Waiting::Child { run_id, due, .. } => {
            map.serialize_entry("waiting_for", "child")?;
            map.serialize_entry("child", &Shown(run_id))?;
            due.map_or(Ok(()), |due| map.serialize_entry("due", &Shown(due)))
        }
        Waiting::Review(review) => {
            map.serialize_entry("waiting_for", "review")?;
            map.serialize_entry("reviewers", &review.reviewers)?;
            map.serialize_entry("data", &review.data)?;
            review.due.map_or(Ok(()), |due| map.serialize_entry("due", &Shown(due)))
        }
    }
}

/// A failure as clients see it.
#[derive(Clone, Copy, Debug)]
pub struct Error<'a>(pub &'a Failure);

impl Serialize for Error<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", &*self.0.code)?;
        map.serialize_entry("message", &*self.0.message)?;
        map.serialize_entry("class", &self.0.class)?;
        map.serialize_entry("retryable", &self.0.retryable())?;
        if self.0.details != Value::Null {
            map.serialize_entry("details", &self.0.details)?;
        }
        map.end()
    }
}

/// The members of an [`Error`], for the description of the interface.
#[cfg(test)]
pub(super) struct ErrorShape;

#[cfg(test)]
impl schemars::JsonSchema for ErrorShape {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Failure".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "required": ["code", "message", "class", "retryable"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "class": {"enum": ["transient", "recoverable", "fatal"]},
                "retryable": {"type": "boolean"},
                "details": true,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place;

    #[test]
    fn a_row_has_seq_type_node_and_time_and_what_happened() {
        let body = EventBody::NodeFailed {
            place: Place::root(0),
            failure: Failure::fatal("expression_failed", "no"),
            edges: smallvec::smallvec![true],
            continued: false,
        };
        let row = Row { seq: 7, at: Timestamp::from_micros(0), node: Some("each[3].score"), body: &body };
        assert_eq!(
            String::from_utf8(crate::wire::to_json(&row)).unwrap(),
            r#"{"seq":7,"type":"node.failed","node":"each[3].score","at":"1970-01-01T00:00:00.000Z","error":{"code":"expression_failed","message":"no","class":"fatal","retryable":false},"continued":false}"#
        );
    }
}
