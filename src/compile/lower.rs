//! From the checked document to the IR: nodes in an order in which every edge goes forward, names resolved to places,
//! each body a scope of its own. What is wrong with an expression or a cycle is found here.

use std::sync::Arc;

use super::document::Reading;
use super::duration::parse_duration;
use super::fields::{duration, seconds};
use super::names::{Names, Seen, View};
use super::order::Order;
use crate::ir::{Edge, Kind, Merge, Node, On, OnError, OnItemError, Policy, Scope, Span, Template};
use crate::model::workflow::{self, Graph, ON_SUCCESS, Written};
use crate::model::{Priority, Value, node};

/// The scopes of a document and its outputs.
pub(super) struct Lowered {
    pub(super) scopes: Vec<Scope>,
    pub(super) outputs: Vec<(Arc<str>, Template)>,
}

/// Lowers everything. With findings the result is of no use.
pub(super) fn lower(graph: &Graph, reading: &mut Reading<'_>) -> Lowered {
    let mut scopes = Vec::new();
    let names = Names::new(graph, Order::new(graph, reading));
    scope(graph, &names, None, &mut scopes, reading);
    let view =
        View { names: &names, seen: Seen::All, outer: None, input: false, output: false, secrets: false };
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
    Lowered { scopes, outputs }
}

/// Lowers one scope and the bodies in it; gives its number.
fn scope<'g>(
    graph: &'g Graph,
    names: &Names<'g>,
    outer: Option<&View<'_, 'g>>,
    scopes: &mut Vec<Scope>,
    reading: &mut Reading<'_>,
) -> u32 {
    let number = u32::try_from(scopes.len()).unwrap_or(u32::MAX);
    scopes.push(Scope::default());
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
        let view =
            View { names, seen: Seen::Through(from), outer, input: false, output: true, secrets: false };
        let when = written.when.as_ref().and_then(|when| view.cel(when, reading));
        edges.push(Edge { from, to, on: on(written), when });
    }
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (((place, id), incoming), outgoing) in (0_u32..).zip(&names.order.ids).zip(incoming).zip(outgoing) {
        let Some(written) = graph.nodes.get(&***id) else { continue };
        let view =
            View { names, seen: Seen::Before(place), outer, input: true, output: false, secrets: false };
        let before = View { input: false, ..view };
        let input = written.input.as_ref().and_then(|input| before.template(input, reading));
        let kind = kind(written, &view, scopes, reading);
        let policy = policy(written, id, incoming.len(), reading);
        let on_error = if written.continues { OnError::Continue } else { OnError::Fail };
        let id = if graph.anonymous { Arc::from("body") } else { (*id).clone() };
        let outputs = written.outputs.clone();
        nodes.push(Node {
            id,
            kind,
            input,
            policy,
            on_error,
            retry: None,
            timeout: None,
            output_schema: None,
            fallback: None,
            at_most_once: false,
            priority: Priority::default(),
            outputs,
            incoming,
            outgoing,
        });
    }
    let view = View { names, seen: Seen::All, outer, input: false, output: false, secrets: false };
    // The outputs of the workflow itself are named one by one.
    let output = outer.and(graph.outputs.as_ref()).and_then(|outputs| view.template(outputs, reading));
    if let Some(scope) = scopes.get_mut(number as usize) {
        *scope = Scope { nodes, edges, output, anonymous: graph.anonymous };
    }
    number
}

fn on(edge: &workflow::Edge) -> On {
    match &*edge.on {
        ON_SUCCESS => On::Success,
        "error" => On::Error,
        "timeout" => On::Timeout,
        "approved" => On::Approved,
        "rejected" => On::Rejected,
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

/// Stands where a finding leaves no kind.
const NOTHING: Kind = Kind::Function { expr: None };

fn kind<'g>(
    written: &'g node::Node,
    view: &View<'_, 'g>,
    scopes: &mut Vec<Scope>,
    reading: &mut Reading<'_>,
) -> Kind {
    let lowered = match &written.kind {
        node::Kind::Function { expr } => {
            Some(Kind::Function { expr: expr.as_ref().and_then(|expr| view.cel(expr, reading)) })
        }
        node::Kind::Map { over, body, max_concurrency, on_item_error } => {
            let over = view.cel(over, reading);
            let names = Names::new(body, Order::new(body, reading));
            let around = View { input: false, ..*view };
            let body = scope(body, &names, Some(&around), scopes, reading);
            let on_item_error = match on_item_error.as_deref() {
                Some("collect") => OnItemError::Collect,
                Some("skip") => OnItemError::Skip,
                _ => OnItemError::Fail,
            };
            over.map(|over| Kind::Map { over, body, max_concurrency: *max_concurrency, on_item_error })
        }
        node::Kind::Join { merge, .. } => match merge {
            Some(node::Merge::Cel(merge)) => {
                view.cel(merge, reading).map(|merge| Kind::Join { merge: Merge::Cel(merge) })
            }
            Some(node::Merge::Array) => Some(Kind::Join { merge: Merge::Array }),
            _ => Some(Kind::Join { merge: Merge::Object }),
        },
        node::Kind::Conditional { branches, default } => {
            let branches = branches
                .iter()
                .filter_map(|branch| Some((branch.name.clone(), view.cel(&branch.when, reading)?)))
                .collect();
            Some(Kind::Conditional { branches, default: default.clone() })
        }
        node::Kind::Delay { span, until } => delay(span.as_ref(), until.as_ref(), view, reading),
        node::Kind::Wait { signal, timeout } => {
            let timeout = timeout.as_ref().and_then(|timeout| match &timeout.value {
                Value::String(text) => parse_duration(text),
                other => seconds(other),
            });
            view.template(signal, reading).map(|signal| Kind::Wait { signal, timeout })
        }
        node::Kind::Other { name, with } => {
            other(name, with, view, reading);
            None
        }
    };
    lowered.unwrap_or(NOTHING)
}

/// Checks the templates of a kind that does not run here. Bodies and schemas in it are left alone.
fn other(name: &str, with: &Written, view: &View<'_, '_>, reading: &mut Reading<'_>) {
    let Value::Map(map) = &with.value else { return };
    if !matches!(name, "http" | "agent" | "human_review" | "task") {
        return;
    }
    let view = View { secrets: matches!(name, "http" | "agent"), ..*view };
    for (key, value) in map.iter().filter(|(key, _)| !matches!(&***key, "form" | "output_schema")) {
        let written = Written { value: value.clone(), at: super::pointer::join(&with.at, key) };
        let _checked = view.template(&written, reading);
    }
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
                let message = format!(
                    "until must be a time such as 2030-01-31T12:00:00Z, not {}",
                    super::finding::quoted(text)
                );
                reading.findings.error("timestamp", until.at.clone(), message);
                return None;
            }
            if until.value.as_str().is_none() {
                super::fields::wrong(
                    reading.findings,
                    until.at.clone(),
                    "until",
                    "a time (RFC 3339)",
                    &until.value,
                );
                return None;
            }
            Span::Until(view.template(until, reading)?)
        }
        (None, None) => return None,
    };
    Some(Kind::Delay { span })
}
