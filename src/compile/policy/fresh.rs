//! Gates of a rule that stand before a node that has changed since: they come to show what it does now, and what it newly
//! needs is put in front of them, so that nobody is asked twice about one thing.
//!
//! Only gates that stand one behind the other directly before the node, with no other way to it, are taken for its own, and
//! only what they could show where they stand. Otherwise nothing is done here, and the node is wrapped anew around them
//! (`wrap`): then it is asked about twice, and never too little.

use std::sync::Arc;

use super::gate::Ends;
use super::rules::{About, Rule};
use super::with;
use super::wrap::{Wrapping, edge, gate};
use crate::model::workflow::ON_SUCCESS;
use crate::model::{Map, Value};

/// What changes in a scope.
#[derive(Default)]
struct Changes {
    nodes: Vec<(Arc<str>, Value)>,
    edges: Vec<(Arc<str>, Value)>,
    gone: Vec<Arc<str>>,
}

/// The scope with gates that fit what they stand before.
pub(super) fn scope(wrapping: &Wrapping<'_>, value: &Value) -> Value {
    let ends = Ends::of(value);
    let mut changes = Changes::default();
    for (id, node) in &ends.scope.nodes {
        if let Some(own) = of_node(wrapping, &ends, (*id, *node), &changes) {
            changes.nodes.extend(own.nodes);
            changes.edges.extend(own.edges);
            changes.gone.extend(own.gone);
        }
    }
    if changes.nodes.is_empty() {
        return value.clone();
    }
    let changed = |key: &str, gone: &[Arc<str>], put: Vec<(Arc<str>, Value)>| {
        let mut map: Map = match value.get(key) {
            Some(Value::Map(map)) => map
                .iter()
                .filter(|(key, _)| !gone.contains(key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            _ => Map::default(),
        };
        put.into_iter().for_each(|(key, value)| map.insert(key, value));
        Some(Value::Map(Arc::new(map)))
    };
    let nodes = changed("nodes", &[], changes.nodes);
    let edges = changed("edges", &changes.gone, changes.edges);
    with(value, [("nodes", nodes), ("edges", edges)])
}

/// `None`: its gates are as they should be, or not its own.
fn of_node<'d>(
    wrapping: &Wrapping<'_>,
    ends: &Ends<'d>,
    (id, node): (&'d str, &'d Value),
    before: &Changes,
) -> Option<Changes> {
    let Some(Value::List(tags)) = node.get("tags") else { return None };
    let chain = ends.chain(id);
    let first = *chain.last()?;
    let about = |rule: &&Rule| match &rule.about {
        About::Tag(tag) => tags.iter().any(|own| own.as_str() == Some(tag)),
        About::Confidence(_) => false,
    };
    let mut changes = Changes::default();
    let mut head: Arc<str> = first.into();
    for rule in wrapping.rules.rules.iter().filter(about) {
        let wanted = gate(rule, id, node, node.get("input"));
        let stands =
            chain.iter().find(|gate| ends.scope.nodes.get(**gate).is_some_and(|gate| is_of(gate, &wanted)));
        let gate = *stands.unwrap_or(&first);
        let now = *ends.scope.nodes.get(gate)?;
        let is_asked = if stands.is_some() { *now == wanted } else { ends.is_behind(id, rule, &wanted) };
        if is_asked {
            continue;
        }
        if !may_show(ends, id, (now, &wanted)) {
            return None;
        }
        if stands.is_some() {
            changes.nodes.push((gate.into(), wanted));
            continue;
        }
        let put: Map = before.nodes.iter().chain(&changes.nodes).cloned().collect();
        let new = wrapping.free(&put, &format!("gate_{id}"));
        changes.edges.push(edge((&*new, &*head), Some("approved"), None));
        changes.nodes.push((new.clone(), wanted));
        head = new;
    }
    if &*head != first {
        let (key, from) = ends.way_in(first)?;
        changes.gone.push(key.into());
        changes.edges.push(edge((from, &*head), None, None));
    }
    (!changes.nodes.is_empty()).then_some(changes)
}

/// Is this gate that of a rule, whatever it shows?
fn is_of(gate: &Value, wanted: &Value) -> bool {
    let rest = |gate: &Value| {
        let settings = gate.get("with").map(|settings| with(settings, [("data", None)]));
        with(gate, [("input", None), ("with", settings)])
    };
    rest(gate) == rest(wanted)
}

/// Can a gate that shows `now` show what is wanted where it stands? What it names must be there by then.
fn may_show(ends: &Ends<'_>, id: &str, (now, wanted): (&Value, &Value)) -> bool {
    let (now, wanted) = (now.to_json(), wanted.to_json());
    ends.scope.nodes.keys().all(|other| *other == id || !wanted.contains(*other) || now.contains(*other))
}

impl<'d> Ends<'d> {
    /// Gates of rules that stand directly before this node, each the only way to the next; the nearest first.
    fn chain(&self, id: &'d str) -> Vec<&'d str> {
        let mut chain = Vec::new();
        let mut at = id;
        while let Some([one]) = self.into(at) {
            let is_gate =
                self.scope.nodes.get(one.from).is_some_and(|from| super::gate::policy(from).is_some());
            if !is_gate || !matches!(one.on, ON_SUCCESS | "approved") || one.when.is_some() {
                break;
            }
            chain.push(one.from);
            at = one.from;
        }
        chain
    }

    /// The only edge into a node: its key, and where it comes from.
    fn way_in(&self, id: &str) -> Option<(&'d str, &'d str)> {
        let [one] = self.into(id)? else { return None };
        (one.on == ON_SUCCESS && one.when.is_none()).then_some((one.key, one.from))
    }
}
