//! What a run did, why, what it cost and where it failed: a fold over its recorded events, and nothing else.
//!
//! Pure: events go in one by one, in order, an [`Explanation`] comes out. What the record does not say stays `None`;
//! nothing is guessed. Memory grows with the nodes and decisions in the events given, whose number the caller bounds;
//! values (inputs, outputs, payloads) are not kept.

pub(super) mod agents;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use agents::Agent;

/// The answers. Its members are a stable format: they may be added to, never renamed.
#[derive(Debug, Default, Serialize)]
pub(super) struct Explanation {
    pub(super) run_id: String,
    /// Fifteen words at most.
    pub(super) summary: String,
    pub(super) workflow: String,
    pub(super) version: String,
    pub(super) status: String,
    pub(super) duration_ms: Option<u64>,
    pub(super) events_read: u64,
    pub(super) events_all: u64,
    /// Is there more than was read?
    pub(super) cut: bool,
    pub(super) did: Vec<Step>,
    pub(super) why: Why,
    /// What came from outside, in order.
    pub(super) outside: Vec<Outside>,
    /// What was recorded about cost, by node; empty when nothing was.
    pub(super) cost: Vec<Cost>,
    /// What agents spent, as the node says; none when no model was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spent: Option<Value>,
    /// What each agent did, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) agents: Vec<Agent>,
    pub(super) failure: Option<Failed>,
    /// The patch that put the failed node there as it is, with its author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) patched: Option<Value>,
    /// Why it is pending, as the node says now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting: Option<Value>,
    /// Nodes that neither run nor have settled, and why, as the node says now.
    pub(super) idle: Vec<Idle>,
}

/// A node that does not run.
#[derive(Debug, Serialize)]
pub(super) struct Idle {
    pub(super) node: String,
    pub(super) priority: String,
    pub(super) waiting: Value,
}

/// A node, at the place where it began.
#[derive(Debug, Default, Serialize)]
pub(super) struct Step {
    pub(super) node: String,
    pub(super) outcome: String,
    pub(super) attempts: u64,
    pub(super) duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) worker: Option<String>,
    #[serde(skip)]
    began: Option<i64>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Why {
    pub(super) edges: Vec<Edge>,
    pub(super) retries: Vec<Retry>,
    pub(super) waits: Vec<Wait>,
    /// Failures that were made good by a fallback or an edge for errors.
    pub(super) survived: Vec<Failed>,
}

/// An edge of the outermost scope.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Edge {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) on: String,
    pub(super) when: Option<String>,
    /// `None`: the record does not tell, as the source has not ended or the target has several edges.
    pub(super) taken: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct Retry {
    pub(super) node: String,
    pub(super) error: Value,
    pub(super) delay_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Wait {
    pub(super) node: String,
    /// A timer, a signal and its name, a review, a child run.
    pub(super) waited_for: String,
    /// `None`: it still waits.
    pub(super) waited_ms: Option<u64>,
    #[serde(skip)]
    since: Option<i64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Outside {
    pub(super) at: String,
    pub(super) what: String,
    /// The signal's name, the reason, the parent, the version of a patch.
    pub(super) detail: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Cost {
    pub(super) node: Option<String>,
    pub(super) recorded: Value,
}

#[derive(Debug, Serialize)]
pub(super) struct Failed {
    pub(super) node: Option<String>,
    pub(super) error: Value,
}

/// Takes events until it is asked for the answers.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    told: Explanation,
    steps: BTreeMap<String, usize>,
    /// Waits that have not ended: node -> position.
    waits: BTreeMap<String, usize>,
    first: Option<i64>,
    last: Option<i64>,
}

impl Evidence {
    /// The next row of the timeline.
    pub(super) fn take(&mut self, row: &Value) {
        let at = millis(row.get("at"));
        self.first = self.first.or(at);
        self.last = at.or(self.last);
        self.told.events_read += 1;
        let kind = text(row, "type");
        if kind.starts_with("node.") || kind == "timer.fired" {
            self.node(kind, row, at);
        } else if agents::concerns(kind) {
            agents::take(&mut self.told.agents, kind, row);
        } else {
            self.outside(kind, row);
        }
        for member in ["cost", "usage"] {
            if let Some(recorded) = row.get(member) {
                let node = row.get("node").and_then(Value::as_str).map(str::to_owned);
                self.told.cost.push(Cost { node, recorded: recorded.clone() });
            }
        }
    }

    fn node(&mut self, kind: &str, row: &Value, at: Option<i64>) {
        let node = text(row, "node").to_owned();
        if kind != "node.waiting" && kind != "node.progress" {
            self.wait_ended(&node, at);
        }
        match kind {
            "node.started" => {
                let step = self.step(&node, at);
                step.attempts = row.get("attempt").and_then(Value::as_u64).unwrap_or(step.attempts + 1);
                step.outcome = String::from("running");
            }
            "node.waiting" => self.waiting(node.clone(), row, at),
            "node.completed" => self.step_ended(&node, at, "completed"),
            "node.failed" => {
                self.step_ended(&node, at, "failed");
                if row.get("continued") == Some(&Value::Bool(true)) {
                    self.told.why.survived.push(failed(row));
                }
            }
            "node.skipped" => self.step_ended(&node, at, "skipped"),
            "node.uncertain" => self.step(&node, at).outcome = String::from("uncertain"),
            "node.fell_back" => self.told.why.survived.push(failed(row)),
            "node.retry_scheduled" => {
                self.step(&node, at).outcome = String::from("retrying");
                let delay_ms = between(at, millis(row.get("due")));
                let retry = Retry { node: node.clone(), error: error(row), delay_ms };
                self.told.why.retries.push(retry);
            }
            _ => {}
        }
        if let (Some(worker), Some(at)) = (row.get("worker").and_then(Value::as_str), self.steps.get(&node))
            && let Some(step) = self.told.did.get_mut(*at)
        {
            step.worker = Some(worker.to_owned());
        }
    }

    fn step(&mut self, node: &str, at: Option<i64>) -> &mut Step {
        let next = self.told.did.len();
        let place = *self.steps.entry(node.to_owned()).or_insert(next);
        if place >= self.told.did.len() {
            self.told.did.push(Step { node: node.to_owned(), began: at, ..Step::default() });
        }
        let last = self.told.did.len().saturating_sub(1);
        #[expect(clippy::indexing_slicing, reason = "one was pushed when there was none")]
        &mut self.told.did[place.min(last)]
    }

    fn step_ended(&mut self, node: &str, at: Option<i64>, outcome: &str) {
        let step = self.step(node, at);
        step.outcome = outcome.to_owned();
        // What was skipped, or is only the end of a pass, has no beginning of its own.
        step.duration_ms = (step.attempts > 0).then(|| between(step.began, at)).flatten();
    }

    fn waiting(&mut self, node: String, row: &Value, at: Option<i64>) {
        let waited_for = match text(row, "waiting_for") {
            // These are the node at work, not a wait.
            "call" | "items" | "passes" => return,
            "signal" => format!("signal {}", text(row, "signal")),
            "child" => format!("child {}", text(row, "child")),
            other => other.to_owned(),
        };
        self.waits.insert(node.clone(), self.told.why.waits.len());
        self.told.why.waits.push(Wait { node, waited_for, waited_ms: None, since: at });
    }

    fn wait_ended(&mut self, node: &str, at: Option<i64>) {
        let wait = self.waits.remove(node).and_then(|place| self.told.why.waits.get_mut(place));
        if let Some(wait) = wait {
            wait.waited_ms = between(wait.since, at);
        }
    }

    fn outside(&mut self, kind: &str, row: &Value) {
        let member = match kind {
            "signal.received" => "signal",
            "run.cancel_requested" | "run.cancelled" | "run.paused" => "reason",
            "budget.raised" => "reason",
            "budget.warned" if row.get("scope").is_some() => "scope",
            "budget.warned" => "used_usd",
            "run.linked" => "parent",
            "run.waiting" | "run.admitted" => return self.admission(kind, row),
            "run.keyed" => "run_key",
            "patch.applied" => "version",
            "run.resumed" | "approval.expired" => "node",
            "approval.escalated" => "level",
            "approval.decided" => "reviewer",
            "run.failed" => {
                self.told.failure = Some(failed(row));
                return;
            }
            _ => return,
        };
        let detail = row.get(member).map(shown).filter(|detail| !detail.is_empty());
        self.told.outside.push(Outside { at: text(row, "at").to_owned(), what: kind.to_owned(), detail });
    }

    /// The run waited before it began.
    fn admission(&mut self, kind: &str, row: &Value) {
        let at = millis(row.get("at"));
        if kind == "run.admitted" {
            return self.wait_ended("", at);
        }
        let limits = ["concurrency", "rate"].into_iter().filter_map(|limit| {
            let key = text(row.get(limit)?, "key");
            Some(format!("{limit} of key {key:?}"))
        });
        let waited_for = limits.collect::<Vec<_>>().join(", then ");
        self.waits.insert(String::new(), self.told.why.waits.len());
        self.told.why.waits.push(Wait { node: String::from("run"), waited_for, waited_ms: None, since: at });
    }

    /// The answers; `run` and `graph` are what the node says of the run as a whole.
    pub(super) fn told(self, run: &Value, graph: &Value) -> Explanation {
        let mut told = self.told;
        (told.run_id, told.workflow) = (text(run, "run_id").to_owned(), text(run, "workflow").to_owned());
        (told.version, told.status) = (text(run, "version").to_owned(), text(run, "status").to_owned());
        told.events_all = run.get("seq").and_then(Value::as_u64).unwrap_or(0).max(told.events_read);
        told.cut = told.events_read < told.events_all;
        let ended = millis(run.get("ended_at"));
        told.duration_ms = between(self.first.or_else(|| millis(run.get("started_at"))), ended.or(self.last));
        told.why.edges = edges(graph);
        let nodes = graph.get("nodes").and_then(Value::as_object).into_iter().flatten();
        let idle = nodes.filter_map(|(node, state)| {
            let waiting = state.get("waiting").filter(|waiting| waiting.is_object())?.clone();
            Some(Idle { node: node.clone(), priority: text(state, "priority").to_owned(), waiting })
        });
        told.idle = idle.collect();
        told.summary = crate::wire::summary::of_run(run);
        told.waiting = run.get("waiting").filter(|waiting| waiting.is_object()).cloned();
        if matches!(told.status.as_str(), "completed" | "failed" | "cancelled") && !told.cut {
            let open = told.did.iter_mut().filter(|step| matches!(&*step.outcome, "running" | "retrying"));
            open.for_each(|step| step.outcome = String::from("stopped"));
        }
        if let Some(recorded) = run.get("cost") {
            told.cost.insert(0, Cost { node: None, recorded: recorded.clone() });
        }
        if let Some(error) = run.get("error").filter(|error| error.is_object()) {
            let node = run.get("failed_node").and_then(Value::as_str).map(str::to_owned);
            told.failure = Some(Failed { node, error: error.clone() });
        }
        told
    }
}

/// The edges of the document, each with what the states of its ends say about it.
fn edges(graph: &Value) -> Vec<Edge> {
    let Some(document) = graph.get("document") else { return Vec::new() };
    let mut edges = match document.get("edges") {
        Some(Value::Object(map)) => map.iter().filter_map(|(key, edge)| read_edge(key, edge)).collect(),
        Some(Value::Array(items)) => items.iter().filter_map(|edge| read_edge("", edge)).collect(),
        _ => Vec::new(),
    };
    let mut incoming: BTreeMap<String, usize> = BTreeMap::new();
    for edge in &edges {
        *incoming.entry(edge.to.clone()).or_default() += 1;
    }
    for edge in &mut edges {
        let state = |node: &str| {
            let node = graph.get("nodes").and_then(|nodes| nodes.get(node));
            node.map_or("", |node| text(node, "state")).to_owned()
        };
        let alone = incoming.get(&edge.to) == Some(&1);
        edge.taken = taken(edge, &state(&edge.from), &state(&edge.to), alone);
    }
    edges
}

fn read_edge(key: &str, edge: &Value) -> Option<Edge> {
    let (pair, label) = key.split_once(':').map_or((key, None), |(pair, label)| (pair, Some(label)));
    let (first, second) = pair.split_once('/').unwrap_or_default();
    let of = |member: &str, otherwise: &str| edge.get(member).map_or_else(|| otherwise.to_owned(), shown);
    let (from, to) = (of("from", first), of("to", second));
    let on = of("on", label.unwrap_or("success"));
    let when = edge.get("when").map(shown);
    (!from.is_empty() && !to.is_empty()).then_some(Edge { from, to, on, when, taken: None })
}

/// Was it taken? By the end of its source, and where that leaves a choice, by what became of its only target.
fn taken(edge: &Edge, source: &str, target: &str, alone: bool) -> Option<bool> {
    let ended = match source {
        "skipped" => return Some(false),
        "completed" | "failed" => source,
        _ => return None,
    };
    match edge.on.as_str() {
        "error" | "timeout" if ended == "completed" => return Some(false),
        "success" if ended == "failed" => return Some(false),
        "success" if edge.when.is_none() => return Some(true),
        "error" if edge.when.is_none() => return Some(true),
        _ => {}
    }
    match target {
        "skipped" if alone => Some(false),
        "completed" | "failed" | "running" | "waiting" | "retrying" | "uncertain" if alone => Some(true),
        _ => None,
    }
}

fn failed(row: &Value) -> Failed {
    Failed { node: row.get("node").and_then(Value::as_str).map(str::to_owned), error: error(row) }
}

fn error(row: &Value) -> Value {
    row.get("error").cloned().unwrap_or_default()
}

pub(super) fn text<'v>(row: &'v Value, member: &str) -> &'v str {
    row.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn millis(time: Option<&Value>) -> Option<i64> {
    let time: jiff::Timestamp = time?.as_str()?.parse().ok()?;
    Some(time.as_millisecond())
}

fn between(from: Option<i64>, to: Option<i64>) -> Option<u64> {
    u64::try_from(to? - from?).ok()
}

#[cfg(test)]
mod tests;
