//! Where expressions of a run find their values, and templates around them.
//!
//! Everything here is lazy: a name is looked up when an evaluation asks for it. What is not there is null. Each
//! evaluation has a budget of its own ([`limits::EXPRESSION_STEPS_MAX`]); over it the node fails.

use std::sync::Arc;

use super::run::Run;
use super::scope::Scope;
use crate::expr::{self, Budget, Env};
use crate::ir::{Expr, Part, Slot, Template};
use crate::limits;
use crate::model::workspace::shown;
use crate::model::{Failure, Map, Place, Value};

/// The surroundings of one evaluation: a node of a run, seen from its scope.
pub(super) struct Surroundings<'a> {
    run: &'a Run,
    chain: smallvec::SmallVec<[&'a Scope; 4]>,
    /// The node's input, when it stands.
    pub(super) input: Value,
    /// The node's own output, when edges are judged before it is folded.
    pub(super) output: Option<(u32, Value)>,
    /// What `output` means where no edge is judged: a loop's last.
    pub(super) edge_output: Option<Value>,
    /// In a loop's condition.
    pub(super) next_iteration: Option<u32>,
}

struct Slots<'a, 'b> {
    surroundings: &'a Surroundings<'b>,
    slots: &'a [Slot],
}

impl Env for Slots<'_, '_> {
    fn value(&self, index: usize) -> Value {
        self.slots.get(index).map_or(Value::Null, |slot| self.surroundings.value(slot))
    }
}

impl<'a> Surroundings<'a> {
    /// Seen from the scope that holds the node at `place`.
    pub(super) fn new(run: &'a Run, place: &Place) -> Self {
        let chain = run.chain(place);
        Self { run, chain, input: Value::Null, output: None, edge_output: None, next_iteration: None }
    }

    /// Seen from an edge that leaves the node at `place`, which ended with `output`.
    pub(super) fn on_edge(run: &'a Run, place: &Place, output: Value) -> Self {
        Self { output: Some((place.node, output)), ..Self::new(run, place) }
    }

    fn outwards(&self, up: u32) -> Option<&'a Scope> {
        let at = self.chain.len().checked_sub(1 + up as usize)?;
        self.chain.get(at).copied()
    }

    fn node_output(&self, up: u32, node: u32) -> Value {
        match &self.output {
            Some((own, output)) if up == 0 && *own == node => output.clone(),
            _ => {
                let node = self.outwards(up).and_then(|scope| scope.nodes.get(node as usize));
                node.map_or(Value::Null, |node| node.output.clone())
            }
        }
    }

    fn value(&self, slot: &Slot) -> Value {
        match slot {
            Slot::Inputs => self.run.started.inputs.clone(),
            Slot::Node { up, node } => self.node_output(*up, *node),
            Slot::Output { up, node, member } => {
                self.node_output(*up, *node).get(member).cloned().unwrap_or_default()
            }
            Slot::Input => self.input.clone(),
            Slot::EdgeOutput => {
                let output = self.output.as_ref().map(|(_, output)| output);
                output.or(self.edge_output.as_ref()).cloned().unwrap_or_default()
            }
            Slot::Item { up } => self.outwards(*up).and_then(|scope| scope.given.clone()).unwrap_or_default(),
            Slot::Index { up } | Slot::Iteration { up } => {
                self.outwards(*up).map_or(Value::Null, |scope| Value::Int(i64::from(scope.index)))
            }
            Slot::NextIteration => {
                self.next_iteration.map_or(Value::Null, |iteration| Value::Int(i64::from(iteration)))
            }
            Slot::Run => Value::map([
                ("id", Value::string(self.run.id.to_string())),
                ("started_at", Value::string(self.run.started_at.to_string())),
                ("version", Value::String(self.run.started.version.clone())),
                ("workflow", Value::string(shown(&self.run.started.workflow))),
            ]),
        }
    }

    /// Evaluates an expression under its own budget.
    pub(super) fn evaluate(&self, expr: &Expr) -> Result<Value, Failure> {
        let mut budget = Budget { steps: limits::EXPRESSION_STEPS_MAX };
        let slots = Slots { surroundings: self, slots: &expr.slots };
        expr.program.evaluate(&slots, &mut budget).map_err(|error| failure(&error, &expr.program))
    }

    /// Evaluates an expression that must say yes or no.
    pub(super) fn holds(&self, expr: &Expr) -> Result<bool, Failure> {
        match self.evaluate(expr)? {
            Value::Bool(verdict) => Ok(verdict),
            other => Err(Failure::fatal(
                "expression_type",
                format!("`{}` gave {}, a bool is expected", expr.program.source(), other.type_name()),
            )),
        }
    }

    /// Fills in a template.
    pub(super) fn fill(&self, template: &Template) -> Result<Value, Failure> {
        Ok(match template {
            Template::Value(value) => value.clone(),
            Template::Expr(expr) => self.evaluate(expr)?,
            Template::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Text(plain) => text.push_str(plain),
                        Part::Expr(expr) => match self.evaluate(expr)? {
                            Value::String(value) => text.push_str(&value),
                            value => text.push_str(&value.to_json()),
                        },
                    }
                    if text.len() > limits::VALUE_BYTES_MAX {
                        return Err(Failure::fatal(
                            "value_bytes_max",
                            format!(
                                "a text grew above {} bytes (limit value_bytes_max)",
                                limits::VALUE_BYTES_MAX
                            ),
                        ));
                    }
                }
                Value::string(text)
            }
            Template::List(items) => {
                Value::list(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?)
            }
            Template::Map(entries) => {
                let filled = entries.iter().map(|(key, value)| Ok((key.clone(), self.fill(value)?)));
                Value::Map(Arc::new(filled.collect::<Result<Map, Failure>>()?))
            }
        })
    }
}

fn failure(error: &expr::Error, program: &expr::Program) -> Failure {
    let source: String = program.source().chars().take(200).collect();
    Failure::fatal(error.code, format!("{} in `{source}`", error.message))
}
