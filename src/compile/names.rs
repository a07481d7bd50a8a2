//! Compiles expressions and templates, and finds where each name in them gets its value. An expression may name what
//! is settled whenever it is evaluated: ancestors in its own scope, and ancestors of the owning nodes around it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::Reading;
use super::finding::{did_you_mean, quoted};
use super::order::Order;
use super::pointer;
use crate::expr::Reference;
use crate::expr::template::{self, Piece};
use crate::ir::{Expr, Part, Slot, Template};
use crate::model::Value;
use crate::model::workflow::{Graph, Written};

/// The nodes of one scope that may be named.
pub(super) struct Names<'g> {
    pub(super) order: Order<'g>,
    /// Declared output names: who declares them.
    outputs: BTreeMap<&'g str, Vec<u32>>,
}

impl<'g> Names<'g> {
    pub(super) fn new(graph: &'g Graph, order: Order<'g>) -> Self {
        let mut outputs: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (index, id) in (0_u32..).zip(&order.ids) {
            for name in graph.nodes.get(&***id).into_iter().flat_map(|node| &node.outputs) {
                outputs.entry(name).or_default().push(index);
            }
        }
        Self { order, outputs }
    }
}

/// Which nodes of a scope are settled where an expression stands.
#[derive(Clone, Copy)]
pub(super) enum Seen {
    /// Ancestors of this node.
    Before(u32),
    /// This node and its ancestors: on its outgoing edges.
    Through(u32),
    /// All: where a scope is complete.
    All,
}

/// Where an expression stands: a scope, and those around it.
#[derive(Clone, Copy)]
pub(super) struct View<'v, 'g> {
    pub(super) names: &'v Names<'g>,
    pub(super) seen: Seen,
    pub(super) outer: Option<&'v View<'v, 'g>>,
    /// May `input` be named?
    pub(super) input: bool,
    /// May `output` be named?
    pub(super) output: bool,
    /// May a secret be named? Only where an executor sends it; its name stays in the text.
    pub(super) secrets: bool,
    /// What the scope is a pass of.
    pub(super) pass: Pass,
    /// Is this a loop's condition, where `iteration` is the next one's?
    pub(super) condition: bool,
}

/// What a scope is a pass of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// A map: there is an `item` and an `index`.
    Map,
    /// A loop: there is an `iteration`.
    Loop,
    /// Anything else, or the workflow itself.
    Other,
}

/// Code, message and help.
type Refused = (&'static str, String, Option<String>);

impl<'v, 'g> View<'v, 'g> {
    /// Seen from a scope that is a pass of this kind; nothing but nodes may be named.
    pub(super) fn new(names: &'v Names<'g>, seen: Seen, outer: Option<&'v View<'v, 'g>>, pass: Pass) -> Self {
        Self { names, seen, outer, input: false, output: false, secrets: false, pass, condition: false }
    }
}

impl View<'_, '_> {
    /// Does some node before this place declare an output of this name?
    pub(super) fn has_output(&self, name: &str) -> bool {
        self.around().any(|(_, view)| {
            let nodes = view.names.outputs.get(name);
            nodes.is_some_and(|nodes| nodes.iter().any(|node| view.sees(*node)))
        })
    }

    fn sees(&self, node: u32) -> bool {
        match self.seen {
            Seen::Before(of) => self.names.order.is_ancestor(node, of),
            Seen::Through(of) => node == of || self.names.order.is_ancestor(node, of),
            Seen::All => true,
        }
    }

    fn around(&self) -> impl Iterator<Item = (u32, &View<'_, '_>)> {
        let mut next = Some(self);
        (0_u32..).zip(std::iter::from_fn(move || {
            let view = next?;
            next = view.outer;
            Some(view)
        }))
    }

    /// How many scopes outwards the nearest pass of this kind is.
    fn nearest(&self, pass: Pass) -> Option<u32> {
        self.around().find(|(_, view)| view.pass == pass).map(|(up, _)| up)
    }

    fn slot(&self, reference: &Reference, room: bool) -> Result<Slot, Refused> {
        let misplaced = |name: &str| Err(("name_not_here", format!("`{name}` has no value here"), None));
        match reference {
            Reference::Inputs => Ok(Slot::Inputs),
            Reference::Run => Ok(Slot::Run),
            Reference::Input if self.input => Ok(Slot::Input),
            Reference::Input => misplaced("input"),
            Reference::EdgeOutput if self.output => Ok(Slot::EdgeOutput),
            Reference::EdgeOutput => misplaced("output"),
            Reference::Item => match self.nearest(Pass::Map) {
                Some(up) => Ok(Slot::Item { up }),
                None => misplaced("item"),
            },
            Reference::Index => match self.nearest(Pass::Map) {
                Some(up) => Ok(Slot::Index { up }),
                None => misplaced("index"),
            },
            Reference::Iteration if self.condition => Ok(Slot::NextIteration),
            Reference::Iteration => match self.nearest(Pass::Loop) {
                Some(up) => Ok(Slot::Iteration { up }),
                None => misplaced("iteration"),
            },
            Reference::Node(id) => self.node(id, room),
            Reference::Output(name) => self.declared(name, room),
        }
    }

    fn node(&self, id: &str, room: bool) -> Result<Slot, Refused> {
        let mut found = false;
        for (up, view) in self.around() {
            if let Some(&node) = view.names.order.index.get(id) {
                found = true;
                if view.sees(node) {
                    return Ok(Slot::Node { up, node });
                }
            }
        }
        if found {
            let message = format!(
                "the node {} does not come before this place, so it may have no output yet",
                quoted(id)
            );
            let help =
                Some("an expression may name ancestors only: add an edge, or move the expression".into());
            return Err(("not_an_ancestor", message, help));
        }
        let known = self.around().flat_map(|(_, view)| view.names.order.index.keys().copied());
        let help = if room { did_you_mean(id, known) } else { None };
        Err(("unknown_node", format!("there is no node {}", quoted(id)), help))
    }

    fn declared(&self, name: &Arc<str>, room: bool) -> Result<Slot, Refused> {
        let mut found = false;
        for (up, view) in self.around() {
            let Some(nodes) = view.names.outputs.get(&**name) else { continue };
            found = true;
            let mut seen = nodes.iter().filter(|&&node| view.sees(node));
            match (seen.next(), seen.next()) {
                (Some(&node), None) => return Ok(Slot::Output { up, node, member: name.clone() }),
                (Some(_), Some(_)) => {
                    let message =
                        format!("several nodes before this place declare the output {}", quoted(name));
                    let help = Some("name the node: nodes.<id>.output".into());
                    return Err(("ambiguous_output", message, help));
                }
                (None, _) => {}
            }
        }
        if found {
            let message = format!("the output {} is declared by no node before this place", quoted(name));
            return Err(("not_an_ancestor", message, None));
        }
        let known = self.around().flat_map(|(_, view)| view.names.outputs.keys().copied());
        let help = if room { did_you_mean(name, known) } else { None };
        Err(("unknown_output", format!("no node declares the output {}", quoted(name)), help))
    }

    /// A bare CEL expression.
    pub(super) fn expression(&self, source: &str, at: &str, reading: &mut Reading<'_>) -> Option<Expr> {
        if source.contains("${") && !source.contains(['"', '\'']) {
            let help = Some("this is bare CEL: write it without ${ }".into());
            reading.findings.error_with("expression_syntax", at, "`${ }` inside an expression", help);
            return None;
        }
        let program = match reading.spent.compile(source, at, reading.findings)? {
            Ok(program) => program,
            Err(failure) => {
                reading.findings.error(failure.code(), at, failure.message);
                return None;
            }
        };
        let mut slots = Vec::with_capacity(program.references().len());
        for reference in program.references() {
            match self.slot(reference, reading.findings.has_room()) {
                Ok(slot) => slots.push(slot),
                Err((code, message, help)) => reading.findings.error_with(code, at, message, help),
            }
        }
        (slots.len() == program.references().len()).then_some(Expr { program, slots })
    }

    /// Bare CEL as written.
    pub(super) fn cel(&self, written: &Written, reading: &mut Reading<'_>) -> Option<Expr> {
        self.expression(written.value.as_str()?, &written.at, reading)
    }

    /// A template as written. Nesting is bounded: it has been read under `value_depth_max`.
    pub(super) fn template(&self, written: &Written, reading: &mut Reading<'_>) -> Option<Template> {
        self.value(&written.value, &written.at, reading)
    }

    fn value(&self, value: &Value, at: &str, reading: &mut Reading<'_>) -> Option<Template> {
        match value {
            Value::String(text) => self.text(text, at, reading),
            Value::List(items) if has_holes(value) => {
                let parts: Vec<Option<Template>> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.value(item, &pointer::index(at, index), reading))
                    .collect();
                parts.into_iter().collect::<Option<_>>().map(Template::List)
            }
            Value::Map(map) if has_holes(value) => {
                let parts: Vec<Option<(Arc<str>, Template)>> = map
                    .iter()
                    .map(|(key, item)| {
                        let template = self.value(item, &pointer::join(at, key), reading)?;
                        Some((key.clone(), template))
                    })
                    .collect();
                parts.into_iter().collect::<Option<_>>().map(Template::Map)
            }
            other => Some(Template::Value(other.clone())),
        }
    }

    fn text(&self, text: &Arc<str>, at: &str, reading: &mut Reading<'_>) -> Option<Template> {
        if !text.contains("${") {
            return Some(Template::Value(Value::String(text.clone())));
        }
        let pieces = match template::split(text) {
            Ok(pieces) => pieces,
            Err(failure) => {
                reading.findings.error(failure.code(), at, failure.message);
                return None;
            }
        };
        if let [Piece::Expression { source, .. }] = pieces.as_slice() {
            return self.expression(source, at, reading).map(Template::Expr);
        }
        let mut parts: Vec<Option<Part>> = Vec::with_capacity(pieces.len());
        let mut plain = String::new();
        let mut only_text = true;
        for piece in pieces {
            match piece {
                Piece::Text(text) => {
                    plain.push_str(text);
                    parts.push(Some(Part::Text(text.into())));
                }
                Piece::Expression { source, .. } => {
                    only_text = false;
                    parts.push(self.expression(source, at, reading).map(Part::Expr));
                }
                Piece::Secret(name) if self.secrets => {
                    // Whoever sends it puts the value in; until then it is the text it was.
                    let kept = format!("${{secret:{name}}}");
                    plain.push_str(&kept);
                    parts.push(Some(Part::Text(kept.into())));
                }
                Piece::Secret(name) => {
                    only_text = false;
                    let message = format!("the secret {name} cannot be used here: it would be stored");
                    reading.findings.error("secret_not_allowed", at, message);
                    parts.push(None);
                }
            }
        }
        if only_text {
            return Some(Template::Value(Value::string(plain)));
        }
        parts.into_iter().collect::<Option<_>>().map(Template::Text)
    }
}

/// Is there a `${` in it, escaped or not?
fn has_holes(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::List(items) => items.iter().any(has_holes),
        Value::Map(map) => map.iter().any(|(_, item)| has_holes(item)),
        _ => false,
    }
}
