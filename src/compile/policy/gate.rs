//! Which gates stand already, and how strict they are. Reads documents as they are: an author's own review counts when it
//! is no easier to pass than the rule's would be.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::Rule;
use crate::compile::patch::{Edge, Scope, kind};
use crate::model::Value;
use crate::model::workflow::ON_SUCCESS;

/// The edges of a scope by their ends.
pub(super) struct Ends<'d> {
    pub(super) scope: Scope<'d>,
    into: BTreeMap<&'d str, Vec<Edge<'d>>>,
    out: BTreeMap<&'d str, Vec<Edge<'d>>>,
}

impl<'d> Ends<'d> {
    pub(super) fn of(value: &'d Value) -> Self {
        let scope = Scope::of(value);
        let (mut into, mut out) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for edge in &scope.edges {
            into.entry(edge.to).or_default().push(*edge);
            out.entry(edge.from).or_default().push(*edge);
        }
        Self { scope, into, out }
    }

    /// The edges into a node.
    pub(super) fn into(&self, id: &str) -> Option<&[Edge<'d>]> {
        self.into.get(id).map(Vec::as_slice)
    }

    /// Does every way to this node pass a review that is as strict as the rule? Looked for directly before it, and through
    /// other rules' gates. A rule's own gate must be the very one that it would get now: what it shows is what is done.
    pub(super) fn is_behind(&self, id: &str, rule: &Rule, wanted: &Value) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let Some(edges) = self.into.get(id) else { return false };
            for edge in edges {
                let Some(from) = self.scope.nodes.get(edge.from) else { return false };
                if !matches!(edge.on, ON_SUCCESS | "approved") || kind(from) != "human_review" {
                    return false;
                }
                match policy(from) {
                    None if is_strict(from, rule) => {}
                    None => return false,
                    Some(_) if *from == wanted || !seen.insert(edge.from) => {}
                    Some(_) => open.push(edge.from),
                }
            }
        }
        true
    }

    /// Is what this node gives looked at by this rule, and goes nowhere else?
    pub(super) fn is_looked_at(&self, id: &str, low: &str, wanted: &Value) -> bool {
        let edges = self.out.get(id).map(Vec::as_slice).unwrap_or_default();
        let review = |edge: &Edge<'_>| {
            let to = self.scope.nodes.get(edge.to);
            let alone =
                !self.out.contains_key(edge.to) && self.into.get(edge.to).is_some_and(|into| into.len() == 1);
            edge.on == ON_SUCCESS && alone && to.is_some_and(|to| policy(to).is_some())
        };
        let asks = |edge: &Edge<'_>| {
            edge.when.and_then(Value::as_str) == Some(low)
                && self.scope.nodes.get(edge.to).is_some_and(|to| *to == wanted)
        };
        edges.iter().all(review) && edges.iter().any(asks)
    }
}

/// The rule that put a review there.
pub(super) fn policy(node: &Value) -> Option<&str> {
    node.get("with")?.get("policy")?.as_str()
}

/// Is this review no easier to pass than the rule's own?
fn is_strict(node: &Value, rule: &Rule) -> bool {
    let says = |key: &str| node.get("with").and_then(|with| with.get(key));
    let gives_up = node.get("fallback").is_some() || node.get("on_error").is_some();
    if kind(node) != "human_review" || gives_up || node.get("timeout").is_some() {
        return false;
    }
    let only = |names: Option<&Value>| match names {
        Some(Value::List(names)) => {
            !names.is_empty() && names.iter().all(|name| name.as_str().is_some_and(|name| rule.asks(name)))
        }
        Some(name) => name.as_str().is_some_and(|name| rule.asks(name)),
        None => false,
    };
    let later = match says("escalate") {
        Some(Value::List(steps)) => steps.iter().all(|step| only(step.get("to"))),
        _ => true,
    };
    let explains =
        rule.with.get("reason").is_none() || says("reason").and_then(Value::as_str) == Some("required");
    let waits = says("on_timeout").and_then(Value::as_str) != Some("approve");
    only(says("reviewers")) && later && explains && waits
}
