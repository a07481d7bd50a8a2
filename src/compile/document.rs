//! The top of a document: which spelling it is, its name and version, and everything that is not nodes and edges.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fields::{Fields, shown, wrong};
use super::finding::{Findings, quoted};
use super::known::Known;
use super::read::Source;
use super::spent::Spent;
use super::{Options, admission, agents, graph, node, pointer, policy, steps};
use crate::limits;
use crate::model::workflow::{Admission, Defaults, Role, Workflow, Written};
use crate::model::{Mode, Value};

/// What is shared while a document is read.
pub(super) struct Reading<'f> {
    pub(super) findings: &'f mut Findings,
    pub(super) nodes: usize,
    pub(super) edges: usize,
    /// Bodies around what is being read.
    pub(super) depth: usize,
    /// Expressions parsed so far, and schemas.
    pub(super) spent: Spent<'f>,
    /// Bytes of all schemas so far.
    pub(super) schema_bytes: usize,
    /// Regular expressions in all schemas so far.
    pub(super) schema_patterns: usize,
    /// Names of the inputs, when the document's schema says that there are no others.
    pub(super) inputs: Option<Vec<Arc<str>>>,
    /// The roles of the document's agents.
    pub(super) agents: BTreeMap<Arc<str>, Role>,
    /// The text is the node's own, so it may say what a policy made of it.
    pub(super) own: bool,
}

impl<'f> Reading<'f> {
    pub(super) fn new(findings: &'f mut Findings, known: Option<&'f Known>) -> Self {
        Self {
            findings,
            nodes: 0,
            edges: 0,
            depth: 0,
            spent: Spent::new(known),
            schema_bytes: 0,
            schema_patterns: 0,
            inputs: None,
            agents: BTreeMap::new(),
            own: false,
        }
    }
}

impl Reading<'_> {
    /// One node more; `false` over the limit, which is reported once.
    pub(super) fn count_node(&mut self, at: &str) -> bool {
        self.nodes += 1;
        if self.nodes == limits::NODES_MAX + 1 {
            let message = format!("more than {} nodes (limit nodes_max)", limits::NODES_MAX);
            self.findings.error("nodes_max", at, message);
        }
        self.nodes <= limits::NODES_MAX
    }

    /// One edge more; `false` over the limit, which is reported once.
    pub(super) fn count_edge(&mut self, at: &str) -> bool {
        self.edges += 1;
        if self.edges == limits::EDGES_MAX + 1 {
            let message = format!("more than {} edges (limit edges_max)", limits::EDGES_MAX);
            self.findings.error("edges_max", at, message);
        }
        self.edges <= limits::EDGES_MAX
    }

    /// May a run have an input of this name?
    pub(super) fn may_be_input(&self, name: &str) -> bool {
        self.inputs.as_ref().is_none_or(|inputs| inputs.iter().any(|input| **input == *name))
    }

    /// Where an edge says `member`: edges made by sugar stand at one value and have no members.
    pub(super) fn end_of(&self, at: &str, member: &str) -> String {
        let parent = pointer::parent(at).unwrap_or_default();
        if parent.ends_with("/edges") { pointer::join(at, member) } else { at.to_owned() }
    }
}

const KNOWN: [&str; 15] = [
    "aob",
    "name",
    "version",
    "metadata",
    "inputs",
    "mode",
    "retention",
    "defaults",
    "limits",
    "patches",
    "agents",
    "policy",
    "nodes",
    "edges",
    "outputs",
];
const KNOWN_IN_STEPS: [&str; 13] = [
    "aob",
    "name",
    "version",
    "metadata",
    "inputs",
    "mode",
    "retention",
    "defaults",
    "limits",
    "patches",
    "agents",
    "steps",
    "outputs",
];

/// Letters, digits, `_` and `-`, within the limit.
pub(super) fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= limits::NODE_ID_BYTES_MAX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

pub(super) fn id_fits(id: &str, at: &str, findings: &mut Findings) {
    if !is_id(id) {
        let message = format!(
            "the node id {} does not fit [A-Za-z0-9_-]{{1,{}}} (limit node_id_bytes_max)",
            quoted(id),
            limits::NODE_ID_BYTES_MAX
        );
        findings.error("node_id", at, message);
    }
}

/// Takes a document apart. `None` when nothing is left to check; there is a finding then.
pub(super) fn read(source: &Source, options: &Options, reading: &mut Reading<'_>) -> Option<Workflow> {
    let fields = Fields::new(&source.value, String::new(), "the document", reading.findings)?;
    let in_steps = fields.has("steps");
    let known: &[&str] = if in_steps { &KNOWN_IN_STEPS } else { &KNOWN };
    fields.only(known, "the document", reading.findings);
    policy::reserved(&fields, "policy", reading);
    let mut workflow = Workflow {
        name: named(&fields, "name", options.name.as_deref(), None, reading.findings),
        version: named(
            &fields,
            "version",
            options.version.as_deref(),
            source.version.as_ref(),
            reading.findings,
        ),
        inputs: fields.written("inputs"),
        ..Workflow::default()
    };
    reading.inputs = match fields.get("inputs").and_then(|schema| schema.get("properties")) {
        Some(Value::Map(properties)) => Some(properties.iter().map(|(name, _)| name.clone()).collect()),
        _ => None,
    };
    if workflow.name.is_none() && options.require_name && !fields.has("name") {
        reading.findings.error("missing_key", "", "the workflow has no `name`");
    }
    (workflow.defaults, workflow.admission) = settings(&fields, reading.findings);
    workflow.budget = agents::budget(&fields, reading.findings);
    reading.agents = agents::read(&fields, reading);
    workflow.agents = reading.agents.clone();
    let taken = ["name", "version", "inputs", "nodes", "edges", "steps", "outputs"];
    let rest = fields.iter().filter(|(key, _)| !taken.contains(&&***key));
    workflow.rest = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
    let graph = if in_steps { steps::read(&fields, reading) } else { graph::read(&fields, reading) };
    workflow.graph = graph?;
    workflow.graph.outputs = fields.written("outputs");
    if let Some(Written { value, at }) = &workflow.graph.outputs
        && !matches!(value, Value::Map(_))
    {
        wrong(reading.findings, at.clone(), "outputs", "a map", value);
    }
    Some(workflow)
}

/// `name` or `version`: the document's own, else the caller's. They must not contradict each other.
fn named(
    fields: &Fields<'_>,
    key: &str,
    asked: Option<&str>,
    number: Option<&Arc<str>>,
    findings: &mut Findings,
) -> Option<Arc<str>> {
    let own = match (fields.get(key), number) {
        (Some(Value::String(text)), _) => Some(text.clone()),
        (Some(_), Some(text)) => {
            let message = format!("version is a number; it is taken as the text {text:?}");
            findings.warning("version_number", fields.at(key), message);
            Some(text.clone())
        }
        (Some(other), None) => {
            wrong(findings, fields.at(key), key, "text", other);
            return None;
        }
        (None, _) => None,
    };
    let at = if own.is_some() { fields.at(key) } else { String::new() };
    if let (Some(own), Some(asked)) = (&own, asked)
        && &**own != asked
    {
        let message = format!("the document's {key} is {}, but {} was asked for", quoted(own), quoted(asked));
        findings.error("name_mismatch", at.clone(), message);
    }
    let name = own.or_else(|| asked.map(Arc::from))?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX || !name.bytes().all(fits) {
        let most = limits::NAME_BYTES_MAX;
        let message = format!(
            "the {key} {} does not fit [A-Za-z0-9_.-]{{1,{most}}} (limit name_bytes_max)",
            quoted(&name)
        );
        findings.error("invalid_name", at, message);
    }
    Some(name)
}

/// Keys of the top that are neither names nor the graph.
fn settings(fields: &Fields<'_>, findings: &mut Findings) -> (Defaults, Admission) {
    let (mut found, mut admitted) = (Defaults::default(), Admission::default());
    match fields.get("aob") {
        None => {}
        Some(Value::String(text)) if &**text == "1" => {}
        Some(other) => {
            let message = format!("aob must be the text \"1\", not {}", shown(other));
            findings.error("language_version", fields.at("aob"), message);
        }
    }
    if let Some(other) = fields.get("metadata").filter(|value| !matches!(value, Value::Map(_))) {
        wrong(findings, fields.at("metadata"), "metadata", "a map", other);
    }
    fields.word("mode", &Mode::ALL.map(Mode::as_str), findings);
    fields.duration("retention", findings);
    if let Some(value) = fields.get("defaults")
        && let Some(defaults) = Fields::new(value, fields.at("defaults"), "defaults", findings)
    {
        defaults.only(&node::DEFAULTS, "defaults", findings);
        found.timeout = defaults.duration("timeout", findings);
        found.retry = node::retry(&defaults, findings);
    }
    if let Some(value) = fields.get("limits")
        && let Some(limits) = Fields::new(value, fields.at("limits"), "limits", findings)
    {
        limits.only(&["deadline", "agents", "nodes", "concurrency", "rate", "budget"], "limits", findings);
        limits.duration("deadline", findings);
        for key in ["agents", "nodes"] {
            // What patches may grow the graph to.
            limits.number(key, 0, u32::MAX, findings);
        }
        admitted = admission::read(&limits, findings);
    }
    if fields.has("patches") {
        findings.warning("key_ignored", fields.at("patches"), "`patches` has no effect yet");
    }
    (found, admitted)
}
