//! What each kind of node becomes.

use std::sync::Arc;

use super::{Making, body, call};
use crate::compile::document::Reading;
use crate::compile::fields::{duration, seconds, wrong};
use crate::compile::finding::{did_you_mean, quoted};
use crate::compile::names::{Pass, Seen, View};
use crate::compile::schema;
use crate::ir::{
    Form, Kind, Merge, OnExhausted, OnItemError, OnTimeout, ParentClose, Review, Schema, Span, Template,
};
use crate::model::parse_duration;
use crate::model::workflow::{Graph, Written};
use crate::model::{Value, node};

/// Stands where a finding leaves no kind.
const NOTHING: Kind = Kind::Function { expr: None };

pub(super) fn kind<'g>(
    written: &'g node::Node,
    id: &Arc<str>,
    view: &View<'_, 'g>,
    making: &mut Making<'_>,
    reading: &mut Reading<'_>,
) -> Kind {
    let lowered = match &written.kind {
        node::Kind::Function { expr } => {
            Some(Kind::Function { expr: expr.as_ref().and_then(|expr| view.cel(expr, reading)) })
        }
        node::Kind::Map { over, body: graph, max_concurrency, on_item_error } => {
            let over = view.cel(over, reading);
            let body = body(graph, (view, Pass::Map), making, reading);
            let on_item_error = match on_item_error.as_deref() {
                Some("collect") => OnItemError::Collect,
                Some("skip") => OnItemError::Skip,
                _ => OnItemError::Fail,
            };
            over.map(|over| Kind::Map { over, body, max_concurrency: *max_concurrency, on_item_error })
        }
        node::Kind::Join { merge, .. } => join(merge.as_ref(), view, reading),
        node::Kind::Conditional { branches, default } => {
            let branches = branches
                .iter()
                .filter_map(|branch| Some((branch.name.clone(), view.cel(&branch.when, reading)?)))
                .collect();
            Some(Kind::Conditional { branches, default: default.clone() })
        }
        node::Kind::Parallel { branches, results } => {
            Some(parallel(branches, results.as_deref(), view, (making, reading)))
        }
        node::Kind::Loop { condition, body: graph, max_iterations, on_exhausted } => {
            let while_ = View { output: true, condition: true, ..*view };
            let condition = while_.cel(condition, reading);
            let body = body(graph, (view, Pass::Loop), making, reading);
            let on_exhausted = match on_exhausted.as_deref() {
                Some("continue") => OnExhausted::Continue,
                _ => OnExhausted::Fail,
            };
            let max_iterations = *max_iterations;
            condition.map(|condition| Kind::Loop { condition, body, max_iterations, on_exhausted })
        }
        node::Kind::Composite { body: graph } => {
            Some(Kind::Composite { body: body(graph, (view, Pass::Other), making, reading) })
        }
        node::Kind::Child { workflow, parent_close } => Some(Kind::Child {
            workflow: workflow.clone(),
            parent_close: match parent_close.as_deref() {
                Some("abandon") => ParentClose::Abandon,
                _ => ParentClose::Cancel,
            },
        }),
        node::Kind::HumanReview { .. } => review(&written.kind, view, reading),
        node::Kind::Call { name, with } => call::call(name, (written, with), id, view, reading),
        node::Kind::Delay { span, until } => delay(span.as_ref(), until.as_ref(), view, reading),
        node::Kind::Wait { .. } => wait(written, view, reading),
        node::Kind::Other { .. } => None,
    };
    lowered.unwrap_or(NOTHING)
}

/// In the order of `results` when it is given.
fn parallel<'g>(
    branches: &'g [(Arc<str>, Graph)],
    results: Option<&[Arc<str>]>,
    view: &View<'_, 'g>,
    (making, reading): (&mut Making<'_>, &mut Reading<'_>),
) -> Kind {
    let lowered = branches
        .iter()
        .map(|(name, graph)| (name.clone(), body(graph, (view, Pass::Other), making, reading)));
    let mut lowered: Vec<(Arc<str>, u32)> = lowered.collect();
    if let Some(names) = results {
        lowered.sort_by_key(|(name, _)| names.iter().position(|other| other == name));
    }
    Kind::Parallel { branches: lowered, results: results.is_some() }
}

/// A duration that has been checked before.
pub(super) fn plain_duration(value: &Value) -> Option<std::time::Duration> {
    match value {
        Value::String(text) => parse_duration(text),
        other => seconds(other),
    }
}

fn join(merge: Option<&node::Merge>, view: &View<'_, '_>, reading: &mut Reading<'_>) -> Option<Kind> {
    let merge = match merge {
        Some(node::Merge::Cel(merge)) => Merge::Cel(view.cel(merge, reading)?),
        Some(node::Merge::Array) => Merge::Array,
        _ => Merge::Object,
    };
    Some(Kind::Join { merge })
}

fn review(kind: &node::Kind, view: &View<'_, '_>, reading: &mut Reading<'_>) -> Option<Kind> {
    let node::Kind::HumanReview { reviewers, escalate, on_timeout, form, data, reason, policy, .. } = kind
    else {
        return None;
    };
    let reviewers = match reviewers {
        Some(reviewers) => view.template(reviewers, reading)?,
        None => Template::Value(Value::list(Vec::new())),
    };
    let data = match data {
        Some(data) => Some(view.template(data, reading)?),
        None => None,
    };
    let mut steps = Vec::with_capacity(escalate.len());
    for step in escalate {
        steps.push((plain_duration(&step.after.value)?, view.template(&step.to, reading)?));
    }
    let on_timeout = match on_timeout.as_deref() {
        Some("approve") => OnTimeout::Approve,
        Some("fail") => OnTimeout::Fail,
        _ => OnTimeout::Reject,
    };
    // It was checked where it was read; one that is no schema has its finding.
    let form = form
        .as_ref()
        .and_then(|written| Some(Form { written: written.clone(), schema: Schema::new(written).ok()? }));
    let (reason_required, policy) = (reason.as_deref() == Some("required"), policy.clone());
    let review = Review { reviewers, data, escalate: steps, on_timeout, form, reason_required, policy };
    Some(Kind::HumanReview(Box::new(review)))
}

fn wait(written: &node::Node, view: &View<'_, '_>, reading: &mut Reading<'_>) -> Option<Kind> {
    let node::Kind::Wait { signal, timeout, accepts, reply } = &written.kind else { return None };
    let own = timeout.as_ref().and_then(|timeout| plain_duration(&timeout.value));
    let timeout = [own, written.timeout].into_iter().flatten().min();
    let accepts = accepts.as_ref().and_then(|accepts| schema::check(accepts, "accepts", reading));
    let reply = reply.as_ref().and_then(|reply| replying(reply, view, reading));
    Some(Kind::Wait { signal: view.template(signal, reading)?, timeout, accepts, reply })
}

/// The node that answers an update: one that comes after the wait, in its scope.
fn replying(reply: &Written, view: &View<'_, '_>, reading: &mut Reading<'_>) -> Option<u32> {
    let id = reply.value.as_str()?;
    let order = &view.names.order;
    let Some(&node) = order.index.get(id) else {
        let room = reading.findings.has_room();
        let help = if room { did_you_mean(id, order.index.keys().copied()) } else { None };
        let message = format!("reply names the node {}, which is not in this scope", quoted(id));
        reading.findings.error_with("unknown_node", reply.at.clone(), message, help);
        return None;
    };
    if !matches!(view.seen, Seen::Before(wait) if order.is_ancestor(wait, node)) {
        let message = format!("reply names the node {}, to which no edges lead from this one", quoted(id));
        let help =
            Some("an update is answered by a node behind the wait: add an edge, or leave reply out".into());
        reading.findings.error_with("reply_not_behind", reply.at.clone(), message, help);
        return None;
    }
    Some(node)
}

fn delay(
    span: Option<&Written>,
    until: Option<&Written>,
    view: &View<'_, '_>,
    reading: &mut Reading<'_>,
) -> Option<Kind> {
    let span = match (span, until) {
        (Some(span), _) if span.value.as_str().is_some_and(|text| text.contains("${")) => {
            Span::ForExpr(view.template(span, reading)?)
        }
        (Some(span), _) => Span::For(duration(&span.value, || span.at.clone(), "for", reading.findings)?),
        (None, Some(until)) => {
            if let Some(text) = until.value.as_str()
                && !text.contains("${")
                && text.parse::<jiff::Timestamp>().is_err()
            {
                let message =
                    format!("until must be a time such as 2030-01-31T12:00:00Z, not {}", quoted(text));
                reading.findings.error("timestamp", until.at.clone(), message);
                return None;
            }
            if until.value.as_str().is_none() {
                wrong(reading.findings, until.at.clone(), "until", "a time (RFC 3339)", &until.value);
                return None;
            }
            Span::Until(view.template(until, reading)?)
        }
        (None, None) => return None,
    };
    Some(Kind::Delay { span })
}
