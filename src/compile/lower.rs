//! From the checked document to the IR: nodes in an order in which every edge goes forward, names resolved to places,
//! each body a scope of its own. What is wrong with an expression or a cycle is found here.

mod agent;
mod cached;
mod call;
mod kind;
pub(super) mod secrets;

use std::sync::Arc;

use super::admission;
use super::document::Reading;
use super::names::{Names, Pass, Seen, View};
use super::order::Order;
use super::schema;
use crate::ir::{Admission, Edge, Fallback, Node, On, OnError, Policy, Scope, Template};
use crate::model::workflow::{self, Defaults, Graph, ON_SUCCESS, Workflow, Written};
use crate::model::{Value, node};

/// The scopes of a document and its outputs.
pub(super) struct Lowered {
    pub(super) scopes: Vec<Scope>,
    pub(super) outputs: Vec<(Arc<str>, Template)>,
    pub(super) admission: Option<Box<Admission>>,
}

/// Lowers everything. With findings the result is of no use.
pub(super) fn lower(workflow: &Workflow, reading: &mut Reading<'_>) -> Lowered {
    let Workflow { graph, defaults, .. } = workflow;
    let mut making = Making { scopes: Vec::new(), defaults };
    let names = Names::new(graph, Order::new(graph, reading));
    scope(graph, &names, (None, Pass::Other), &mut making, reading);
    let scopes = making.scopes;
    let view = View::new(&names, Seen::All, None, Pass::Other);
    let outputs = match &graph.outputs {
        Some(Written { value: Value::Map(map), at }) => map
            .iter()
            .filter_map(|(key, value)| {
                let written = Written { value: value.clone(), at: super::pointer::join(at, key) };
                Some((key.clone(), view.template(&written, reading)?))
            })
            .collect(),
        _ => Vec::new(),
    };
    Lowered { scopes, outputs, admission: admission::lower(&workflow.admission, &names, reading) }
}

/// What is shared while a document is lowered.
struct Making<'d> {
    scopes: Vec<Scope>,
    defaults: &'d Defaults,
}

/// Lowers one scope and the bodies in it; gives its number.
fn scope<'g>(
    graph: &'g Graph,
    names: &Names<'g>,
    (outer, pass): (Option<&View<'_, 'g>>, Pass),
    making: &mut Making<'_>,
    reading: &mut Reading<'_>,
) -> u32 {
    let number = u32::try_from(making.scopes.len()).unwrap_or(u32::MAX);
    making.scopes.push(Scope::default());
    let mut edges = Vec::with_capacity(graph.edges.len());
    let mut incoming = vec![Vec::new(); graph.nodes.len()];
    let mut outgoing = incoming.clone();
    for written in &graph.edges {
        let (Some(&from), Some(&to)) =
            (names.order.index.get(&*written.from), names.order.index.get(&*written.to))
        else {
            continue;
        };
        let index = u32::try_from(edges.len()).unwrap_or(u32::MAX);
        outgoing.get_mut(from as usize).into_iter().for_each(|list: &mut Vec<u32>| list.push(index));
        incoming.get_mut(to as usize).into_iter().for_each(|list: &mut Vec<u32>| list.push(index));
        let view = View { output: true, ..View::new(names, Seen::Through(from), outer, pass) };
        let when = written.when.as_ref().and_then(|when| view.cel(when, reading));
        edges.push(Edge { from, to, on: on(written, graph.nodes.get(&written.from)), when });
    }
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (((place, id), incoming), outgoing) in (0_u32..).zip(&names.order.ids).zip(incoming).zip(outgoing) {
        let Some(written) = graph.nodes.get(&***id) else { continue };
        let before = View::new(names, Seen::Before(place), outer, pass);
        let view = View { input: true, ..before };
        let input = written.input.as_ref().and_then(|input| before.template(input, reading));
        let policy = policy(written, id, incoming.len(), reading);
        let id = if graph.anonymous { Arc::from("body") } else { (*id).clone() };
        let kind = kind::kind(written, &id, &view, making, reading);
        let node = node(written, (id, kind, input, policy), &view, making, reading);
        nodes.push(Node { incoming, outgoing, ..node });
    }
    let view = View::new(names, Seen::All, outer, pass);
    // The outputs of the workflow itself are named one by one.
    let output = outer.and(graph.outputs.as_ref()).and_then(|outputs| view.template(outputs, reading));
    if let Some(scope) = making.scopes.get_mut(number as usize) {
        *scope = Scope { nodes, edges, output, anonymous: graph.anonymous };
    }
    number
}

/// A body within the node that `view` stands at; gives its number.
fn body<'g>(
    graph: &'g Graph,
    (view, pass): (&View<'_, 'g>, Pass),
    making: &mut Making<'_>,
    reading: &mut Reading<'_>,
) -> u32 {
    let names = Names::new(graph, Order::new(graph, reading));
    let around = View { input: false, ..*view };
    scope(graph, &names, (Some(&around), pass), making, reading)
}

/// The keys that all kinds share. Edges are the caller's.
fn node<'g>(
    written: &'g node::Node,
    (id, kind, input, policy): (Arc<str>, crate::ir::Kind, Option<Template>, Policy),
    view: &View<'_, 'g>,
    making: &mut Making<'_>,
    reading: &mut Reading<'_>,
) -> Node {
    let fallback = written.fallback.as_ref().and_then(|fallback| match fallback {
        node::Fallback::Value(template) => view.template(template, reading).map(Fallback::Value),
        node::Fallback::Body(graph) => {
            Some(Fallback::Body(body(graph, (view, Pass::Other), making, reading)))
        }
        node::Fallback::Cached { max_age, .. } => {
            cached::body(&id, &kind, *max_age, &mut making.scopes, reading).map(Fallback::Body)
        }
    });
    let own = agent::output_schema(written);
    let output_schema = written.output_schema.as_ref().or(own.as_ref());
    let output_schema = output_schema.and_then(|written| schema::check(written, "output_schema", reading));
    Node {
        id,
        kind,
        input,
        policy,
        on_error: if written.continues { OnError::Continue } else { OnError::Fail },
        retry: call::retry(written, making.defaults),
        timeout: call::timeout(written, making.defaults),
        output_schema,
        fallback,
        at_most_once: written.at_most_once,
        priority: written.priority.unwrap_or_default(),
        outputs: written.outputs.clone(),
        incoming: Vec::new(),
        outgoing: Vec::new(),
    }
}

/// `approved` and `rejected` are words of a review; of a conditional they are branches like any other.
fn on(edge: &workflow::Edge, source: Option<&node::Node>) -> On {
    let is_review = source.is_some_and(|node| matches!(node.kind, node::Kind::HumanReview { .. }));
    match &*edge.on {
        ON_SUCCESS => On::Success,
        "error" => On::Error,
        "timeout" => On::Timeout,
        "approved" if is_review => On::Approved,
        "rejected" if is_review => On::Rejected,
        _ => On::Branch(edge.on.clone()),
    }
}

fn policy(written: &node::Node, id: &str, incoming: usize, reading: &mut Reading<'_>) -> Policy {
    match &written.kind {
        node::Kind::Join { wait: Some(node::Wait::Any), .. } => Policy::Any,
        node::Kind::Join { wait: Some(node::Wait::AtLeast(count)), .. } => {
            if *count as usize > incoming {
                let message = format!(
                    "join {} waits for {count} live edges, but only {incoming} lead to it",
                    super::finding::quoted(id)
                );
                reading.findings.error("join_unsatisfiable", format!("{}/with/wait", written.at), message);
            }
            Policy::AtLeast(*count)
        }
        _ => Policy::All,
    }
}
