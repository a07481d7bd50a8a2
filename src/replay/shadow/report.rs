//! What comes out otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value as Json;

use super::recorded::Recorded;
use crate::engine::Run;
use crate::engine::command::RunView;
use crate::model::{EventBody, Failure, RunId, Value};
use crate::wire::Shown;

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ended {
    /// `completed`, `failed`, `skipped`, `continued`.
    pub state: &'static str,
    /// What it gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Code of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Ended {
    /// Notes what an event says of a node's end.
    pub(super) fn note(results: &mut BTreeMap<String, Self>, run: &Run, event: &EventBody) {
        let Some(place) = event.place().filter(|place| place.node != crate::model::Place::PASS) else {
            return;
        };
        let result = match event {
            EventBody::NodeCompleted { output, .. } => {
                Self { state: "completed", output: Some(output.clone()), error: None }
            }
            EventBody::NodeFailed { failure, continued, .. } => Self {
                state: if *continued { "continued" } else { "failed" },
                output: None,
                error: Some(failure.code.to_string()),
            },
            EventBody::NodeSkipped { .. } => Self { state: "skipped", output: None, error: None },
            _ => return,
        };
        results.insert(run.ir().path(place), result);
    }
}

/// A call that is not made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Path of its node.
    pub node: String,
    /// Which attempt.
    pub attempt: u32,
    /// `http`, `task`, `agent`, `child`.
    pub kind: &'static str,
    /// What would be asked for; secrets are names in it.
    pub request: Value,
    /// It is not what was asked for then; the answer is the recorded one all the same.
    pub changed: bool,
}

impl Call {
    pub(super) fn new(node: &str, attempt: u32, kind: &'static str, request: &Value) -> Self {
        Self { node: node.to_owned(), attempt, kind, request: request.clone(), changed: false }
    }
}

/// A node that ends otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its path.
    pub node: String,
    /// `null`: it did not end.
    pub recorded: Option<Ended>,
    /// `null`: it does not.
    pub shadow: Option<Ended>,
}

/// Both ways a run comes out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Both<T> {
    /// Then.
    pub recorded: T,
    /// Now.
    pub shadow: T,
}

/// What a run would do otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whose record.
    pub run_id: Shown<RunId>,
    /// Nothing is otherwise, and nothing would be called.
    pub same: bool,
    /// How the run ends; `stopped` when it waits for an answer that nobody has.
    pub status: Both<&'static str>,
    /// What it gives.
    pub outputs: Both<Option<Value>>,
    /// Why it fails: codes.
    pub error: Both<Option<String>>,
    /// Nodes that end otherwise.
    pub nodes: Vec<Difference>,
    /// Nodes that ended then and do not now.
    pub not_run: Vec<String>,
    /// Nodes that end now and did not then.
    pub newly_run: Vec<String>,
    /// Calls of which the record has no answer: they would be made.
    pub would_call: Vec<Call>,
    /// Calls that are asked for otherwise than then.
    pub requests_changed: Vec<Call>,
    /// Calls answered from the record.
    pub answered: usize,
    /// Calls made.
    pub calls_made: usize,
    /// Nodes at which the run stands when it does not end.
    pub waits_at: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

type Done = (BTreeMap<String, Ended>, Vec<Call>, Vec<Call>);

pub(super) fn of(recorded: &Recorded, view: RunView, done: Done, notes: Vec<String>) -> Report {
    let (results, calls, would_call) = done;
    let names: BTreeSet<&String> = recorded.results.keys().chain(results.keys()).collect();
    let mut nodes = Vec::new();
    for name in names {
        let (before, after) = (recorded.results.get(name), results.get(name));
        if before != after {
            nodes.push(Difference { node: name.clone(), recorded: before.cloned(), shadow: after.cloned() });
        }
    }
    let status = view.summary.status;
    let ended = if status.is_terminal() { status.as_str() } else { "stopped" };
    let recorded_status = if recorded.status.is_terminal() { recorded.status.as_str() } else { "stopped" };
    let code = |failure: &Option<Failure>| failure.as_ref().map(|failure| failure.code.to_string());
    let names = |missing: fn(&Difference) -> bool| -> Vec<String> {
        nodes.iter().filter(|node| missing(node)).map(|node| node.node.clone()).collect()
    };
    let status = Both { recorded: recorded_status, shadow: ended };
    let outputs = Both { recorded: recorded.outputs.clone(), shadow: view.outputs };
    let error = Both { recorded: code(&recorded.failure), shadow: code(&view.failure) };
    let same = nodes.is_empty()
        && would_call.is_empty()
        && status.recorded == status.shadow
        && outputs.recorded == outputs.shadow
        && error.recorded == error.shadow;
    Report {
        run_id: Shown(recorded.run_id),
        same,
        status,
        outputs,
        error,
        not_run: names(|node| node.shadow.is_none()),
        newly_run: names(|node| node.recorded.is_none()),
        nodes,
        would_call,
        requests_changed: calls.iter().filter(|call| call.changed).cloned().collect(),
        answered: calls.len(),
        calls_made: 0,
        waits_at: view.current_nodes,
        notes,
    }
}

impl Report {
    /// As JSON.
    pub fn to_json(&self) -> Json {
        serde_json::to_value(self).unwrap_or_default()
    }
}
