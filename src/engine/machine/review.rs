//! `human_review`: asks a human, and lets nothing through that was not approved. Output `{approved, reviewer, feedback,
//! form}`.
//!
//! | phase | input | events | next |
//! | --- | --- | --- | --- |
//! | ready | continue | `node.started`, `node.waiting` with whom to ask, what to show, and when to ask others | waiting |
//! | ready | continue, its settings fail | `node.started`, `node.failed` with the code | failed |
//! | running | continue (cut history) | as for ready, without `node.started` | as for ready |
//! | waiting | timer, an escalation is due | `approval.escalated` | waiting |
//! | waiting | timer, its time has run out | `approval.expired` | fired |
//! | fired | continue, `on_timeout: reject` | `node.completed`; `rejected` and `timeout` edges live | completed |
//! | fired | continue, `on_timeout: approve` | `node.completed`; `approved`, `success` and `timeout` edges live | completed |
//! | fired | continue, `on_timeout: fail` | `node.failed` `review_timeout`; `timeout` or `error` edges live | failed |
//! | waiting | decision of this review, its time has not run out | `approval.decided` | fired |
//! | waiting | decision, its time has run out | `approval.expired` (the decision is stale) | fired |
//! | fired | continue, approved | `node.completed`; `approved` and `success` edges live | completed |
//! | fired | continue, rejected, or so by its timeout, and a policy asked | `node.failed` `gate_rejected`; `error` edges live | failed |
//! | fired | continue, rejected | `node.completed`; `rejected` edges live | completed |
//! | any other | timer, decision | - (stale) | same |
//! | any | signal, answer | - (not its own) | same |

use std::sync::Arc;

use super::{At, Step, Way};
use crate::engine::Outcome;
use crate::engine::check::check;
use crate::engine::env::Surroundings;
use crate::engine::scope::Asked;
use crate::ir::{self, OnTimeout, Template};
use crate::limits;
use crate::model::event::{Decision, Escalation, Review, Waiting};
use crate::model::{EventBody, Failure, Seq, Value};

pub(super) fn step(
    at: At<'_>,
    review: &ir::Review,
    surroundings: &Surroundings<'_>,
) -> Result<Waiting, Failure> {
    let data = match &review.data {
        Some(template) => surroundings.fill(template)?,
        None => surroundings.input.clone(),
    };
    check("its data", &data)?;
    let escalations = review.escalate.iter().map(|(after, to)| {
        Ok(Escalation { at: at.now.saturating_add(*after), to: names(to, surroundings)? })
    });
    Ok(Waiting::Review(Box::new(Review {
        reviewers: names(&review.reviewers, surroundings)?,
        data,
        due: at.node.timeout.map(|timeout| at.now.saturating_add(timeout)),
        escalations: escalations.collect::<Result<_, Failure>>()?,
    })))
}

/// The names that a template gives: a list of them, or a single one.
fn names(template: &Template, surroundings: &Surroundings<'_>) -> Result<Vec<Arc<str>>, Failure> {
    let filled = surroundings.fill(template)?;
    let items = match &filled {
        Value::List(items) => &items[..],
        one => std::slice::from_ref(one),
    };
    let most = limits::REVIEWERS_MAX;
    if items.len() > most {
        let message = format!("{} reviewers; at most {most} may be asked (limit reviewers_max)", items.len());
        return Err(Failure::fatal("reviewers_max", message));
    }
    let name = |item: &Value| match item {
        Value::String(name) if !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX => Ok(name.clone()),
        other => {
            let most = limits::NAME_BYTES_MAX;
            let message = format!(
                "a {} names no reviewer; 1 to {most} bytes of text do (limit name_bytes_max)",
                other.type_name()
            );
            Err(Failure::fatal("invalid_reviewer", message))
        }
    };
    items.iter().map(name).collect()
}

/// A review's next point in time has come.
pub(in crate::engine) fn due(at: At<'_>, out: &mut Outcome) {
    let Some(Asked { review, level, .. }) = at.state.asked() else { return };
    let place = at.place.clone();
    if review.due.is_some_and(|due| due <= at.now) {
        return out.push(EventBody::ApprovalExpired { place });
    }
    match review.escalations.get(*level as usize) {
        Some(next) if next.at <= at.now => {
            out.push(EventBody::ApprovalEscalated { place, level: level + 1 });
        }
        _ => out.stale = true,
    }
}

/// Somebody decides the review that event `seq` asked for. Who may is not judged here.
pub(in crate::engine) fn decide(at: At<'_>, seq: Seq, decision: &Decision, out: &mut Outcome) {
    let Some(asked) = at.state.open_review().filter(|asked| asked.seq == seq) else {
        out.stale = true;
        return;
    };
    let place = at.place.clone();
    if asked.review.due.is_some_and(|due| due <= at.now) {
        // Its timer is on its way; which of the two comes first decides nothing.
        out.stale = true;
        return out.push(EventBody::ApprovalExpired { place });
    }
    out.push(EventBody::ApprovalDecided { place, decision: Box::new(decision.clone()) });
}

/// What follows from a decision, or from there being none in time.
pub(super) fn settled(review: &ir::Review, asked: Option<&Asked>) -> Step {
    let Some(decision) = asked.and_then(|asked| asked.decision.as_deref()) else { return expired(review) };
    if let (Some(policy), false) = (&review.policy, decision.approved) {
        let why = decision.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        return rejected(policy, &format!("{} rejected it{why}", decision.reviewer), false);
    }
    let output = Value::map([
        ("approved", Value::Bool(decision.approved)),
        ("reviewer", Value::String(decision.reviewer.clone())),
        ("feedback", decision.reason.clone().map_or(Value::Null, Value::String)),
        ("form", decision.form.clone()),
    ]);
    let way =
        if decision.approved { Way::Approved { expired: false } } else { Way::Rejected { expired: false } };
    Step::Done(output, way)
}

/// What a policy asked about was not approved: whatever stood behind the gate has failed.
fn rejected(policy: &str, how: &str, timed_out: bool) -> Step {
    Step::Failed(Failure::fatal("gate_rejected", format!("{how} (policy: {policy})")), timed_out)
}

/// Nobody decided in time.
fn expired(review: &ir::Review) -> Step {
    let decided = |approved: bool| {
        Value::map([
            ("approved", Value::Bool(approved)),
            ("reviewer", Value::Null),
            ("feedback", Value::Null),
            ("form", Value::Null),
        ])
    };
    match review.on_timeout {
        OnTimeout::Approve => Step::Done(decided(true), Way::Approved { expired: true }),
        OnTimeout::Reject => match &review.policy {
            Some(policy) => rejected(policy, "nobody decided in time", true),
            None => Step::Done(decided(false), Way::Rejected { expired: true }),
        },
        OnTimeout::Fail => Step::Failed(Failure::fatal("review_timeout", "nobody decided in time"), true),
    }
}
