//! Places stay what they were when a graph is patched: nodes and scopes of the patched graph take the numbers that they had
//! in the graph before, what is new comes after, and what was taken out leaves an empty place ([`Kind::Removed`]).
//!
//! So a history names its nodes by the run's latest graph from its first event to its last, and timers, calls and signals
//! under way find their nodes across patches. Aligning is a pure function of the two graphs; a graph aligned to itself is
//! itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Expr, Fallback, Ir, Kind, Merge, Node, OnError, Part, Policy, Scope, Slot, Span, Template};
use crate::model::{Place, Priority};

/// Where the scopes and nodes of the new graph go.
struct Moves {
    /// By scope of the new graph: its number, and the number of each of its nodes.
    scopes: Vec<(u32, Vec<u32>)>,
    /// Scopes so far.
    count: u32,
}

impl Ir {
    /// This graph with its numbers in line with those of `before`.
    #[must_use]
    pub fn aligned(&self, before: &Self) -> Self {
        let mut moves = Moves {
            scopes: vec![(u32::MAX, Vec::new()); self.scopes.len()],
            count: u32::try_from(before.scopes.len()).unwrap_or(u32::MAX),
        };
        moves.scope(self, 0, before, Some(0));
        let mut scopes = vec![Scope::default(); moves.count as usize];
        let mut outputs = self.outputs.clone();
        for (_, template) in &mut outputs {
            moves.template(template, &[0]);
        }
        moves.place((self, before), 0, &mut Vec::new(), &mut scopes);
        Self {
            scopes,
            outputs,
            name: self.name.clone(),
            version: self.version.clone(),
            admission: self.admission.clone(),
            budget: self.budget.clone(),
            ..*self
        }
    }
}

/// The bodies of a node, each with what tells it from the others.
fn bodies(node: &Node) -> Vec<(Option<&Arc<str>>, u32)> {
    let mut bodies: Vec<(Option<&Arc<str>>, u32)> = match &node.kind {
        Kind::Map { body, .. } | Kind::Loop { body, .. } | Kind::Composite { body } => vec![(None, *body)],
        Kind::Parallel { branches, .. } => branches.iter().map(|(name, body)| (Some(name), *body)).collect(),
        _ => Vec::new(),
    };
    bodies.extend(node.body(Place::FALLBACK).map(|body| (None, body)));
    bodies
}

/// The body of `before` that the one called `name` (of `kind`) stands in for.
fn counterpart(before: &Node, node: &Node, name: Option<&Arc<str>>, is_fallback: bool) -> Option<u32> {
    if is_fallback {
        return before.body(Place::FALLBACK);
    }
    match (&before.kind, &node.kind) {
        (Kind::Parallel { branches, .. }, Kind::Parallel { .. }) => {
            branches.iter().find(|(other, _)| Some(other) == name).map(|(_, body)| *body)
        }
        (Kind::Map { body, .. }, Kind::Map { .. })
        | (Kind::Loop { body, .. }, Kind::Loop { .. })
        | (Kind::Composite { body }, Kind::Composite { .. }) => Some(*body),
        _ => None,
    }
}

impl Moves {
    /// Gives scope `number` of the new graph, and everything further in, its number.
    fn scope(&mut self, new: &Ir, number: u32, before: &Ir, was: Option<u32>) {
        let target = was.unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        let Some(scope) = new.scopes.get(number as usize) else { return };
        let old = was.and_then(|was| before.scopes.get(was as usize)).map_or(&[][..], |old| &old.nodes);
        let places: BTreeMap<&str, u32> = (0..).zip(old).map(|(at, node)| (&*node.id, at)).collect();
        let mut next = u32::try_from(old.len()).unwrap_or(u32::MAX);
        let nodes = scope.nodes.iter().map(|node| {
            places.get(&*node.id).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        });
        let nodes: Vec<u32> = nodes.collect();
        for node in &scope.nodes {
            let same = places.get(&*node.id).and_then(|at| old.get(*at as usize));
            for (name, body) in bodies(node) {
                let is_fallback = node.body(Place::FALLBACK) == Some(body);
                let was = same.and_then(|same| counterpart(same, node, name, is_fallback));
                self.scope(new, body, before, was);
            }
        }
        if let Some(slot) = self.scopes.get_mut(number as usize) {
            *slot = (target, nodes);
        }
    }

    /// Puts scope `number` of the new graph, and everything further in, where it goes. `around` are the new graph's scopes
    /// around it, outermost first.
    fn place(&self, (new, before): (&Ir, &Ir), number: u32, around: &mut Vec<u32>, into: &mut [Scope]) {
        let Some((target, moved)) = self.scopes.get(number as usize) else { return };
        let Some(scope) = new.scopes.get(number as usize) else { return };
        around.push(number);
        let old = before.scopes.get(*target as usize).map_or(&[][..], |old| &old.nodes);
        let count = moved.iter().map(|at| at + 1).max().unwrap_or(0) as usize;
        let mut nodes: Vec<Node> = old.iter().map(removed).collect();
        nodes.resize_with(count.max(old.len()), || removed_as("".into()));
        for (node, at) in scope.nodes.iter().zip(moved) {
            let mut node = node.clone();
            for (_, body) in bodies(&node) {
                self.place((new, before), body, around, into);
            }
            self.node(&mut node, around);
            if let Some(slot) = nodes.get_mut(*at as usize) {
                *slot = node;
            }
        }
        let mut edges = scope.edges.clone();
        for edge in &mut edges {
            edge.from = moved.get(edge.from as usize).copied().unwrap_or(edge.from);
            edge.to = moved.get(edge.to as usize).copied().unwrap_or(edge.to);
            edge.when.iter_mut().for_each(|when| self.expr(when, around));
        }
        let mut output = scope.output.clone();
        output.iter_mut().for_each(|output| self.template(output, around));
        if let Some(slot) = into.get_mut(*target as usize) {
            *slot = Scope { nodes, edges, output, anonymous: scope.anonymous };
        }
        around.pop();
    }

    fn body(&self, body: &mut u32) {
        if let Some((target, _)) = self.scopes.get(*body as usize) {
            *body = *target;
        }
    }

    /// A node of the innermost scope, by its index.
    fn sibling(&self, node: &mut u32, around: &[u32]) {
        let moved = around.last().and_then(|scope| self.scopes.get(*scope as usize));
        if let Some(target) = moved.and_then(|(_, moved)| moved.get(*node as usize)) {
            *node = *target;
        }
    }

    fn node(&self, node: &mut Node, around: &[u32]) {
        node.input.iter_mut().for_each(|input| self.template(input, around));
        match &mut node.fallback {
            Some(Fallback::Value(template)) => self.template(template, around),
            Some(Fallback::Body(body)) => self.body(body),
            None => {}
        }
        match &mut node.kind {
            Kind::Function { expr } => expr.iter_mut().for_each(|expr| self.expr(expr, around)),
            Kind::Map { over, body, .. } => {
                self.expr(over, around);
                self.body(body);
            }
            Kind::Join { merge: Merge::Cel(expr) } => self.expr(expr, around),
            Kind::Conditional { branches, .. } => {
                branches.iter_mut().for_each(|(_, when)| self.expr(when, around));
            }
            Kind::Delay { span: Span::ForExpr(template) | Span::Until(template) }
            | Kind::Call { request: template, .. } => self.template(template, around),
            Kind::Wait { signal, reply, .. } => {
                self.template(signal, around);
                reply.iter_mut().for_each(|reply| self.sibling(reply, around));
            }
            Kind::Parallel { branches, .. } => branches.iter_mut().for_each(|(_, body)| self.body(body)),
            Kind::Loop { condition, body, .. } => {
                self.expr(condition, around);
                self.body(body);
            }
            Kind::Composite { body } => self.body(body),
            Kind::HumanReview(review) => {
                self.template(&mut review.reviewers, around);
                review.data.iter_mut().for_each(|data| self.template(data, around));
                review.escalate.iter_mut().for_each(|(_, to)| self.template(to, around));
            }
            Kind::Join { merge: Merge::Object | Merge::Array }
            | Kind::Delay { span: Span::For(_) }
            | Kind::Child { .. }
            | Kind::Removed => {}
        }
    }

    fn expr(&self, expr: &mut Expr, around: &[u32]) {
        for slot in &mut expr.slots {
            if let Slot::Node { up, node } | Slot::Output { up, node, .. } = slot
                && let Some(scope) = around.len().checked_sub(1 + *up as usize)
                && let Some((_, moved)) = around.get(scope).and_then(|scope| self.scopes.get(*scope as usize))
                && let Some(target) = moved.get(*node as usize)
            {
                *node = *target;
            }
        }
    }

    fn template(&self, template: &mut Template, around: &[u32]) {
        match template {
            Template::Value(_) => {}
            Template::Expr(expr) => self.expr(expr, around),
            Template::Text(parts) => {
                for part in parts {
                    if let Part::Expr(expr) = part {
                        self.expr(expr, around);
                    }
                }
            }
            Template::List(items) => items.iter_mut().for_each(|item| self.template(item, around)),
            Template::Map(entries) => entries.iter_mut().for_each(|(_, value)| self.template(value, around)),
        }
    }
}

/// What stays where a node was.
fn removed(node: &Node) -> Node {
    removed_as(node.id.clone())
}

fn removed_as(id: Arc<str>) -> Node {
    Node {
        id,
        kind: Kind::Removed,
        input: None,
        policy: Policy::All,
        on_error: OnError::Fail,
        retry: None,
        timeout: None,
        output_schema: None,
        fallback: None,
        at_most_once: false,
        priority: Priority::Medium,
        outputs: Vec::new(),
        incoming: Vec::new(),
        outgoing: Vec::new(),
    }
}
