//! `fallback: {cache: {max_age}}`: a body of one call, which asks for what the node's own call brought before.
//!
//! It is a body like any other, so that what is used, and how old it was, stands in the run's events as the answer of that call.
//! Its request holds that of the node, filled in again from the same places seen from one scope further in: nothing that
//! settled before the node changes while it runs, so both come to the same value, which is what answers are known by. The body has a
//! name for its node, so that it ends by its own template: the value alone.

use std::sync::Arc;
use std::time::Duration;

use crate::compile::document::Reading;
use crate::ir::{Executor, Expr, Kind, Node, OnError, Part, Policy, Scope, Slot, Template};
use crate::limits;
use crate::model::{Priority, Value};

/// Makes the body; gives its number. `None` for what is no call, or with findings.
pub(super) fn body(
    id: &Arc<str>,
    kind: &Kind,
    max_age: Duration,
    scopes: &mut Vec<Scope>,
    reading: &mut Reading<'_>,
) -> Option<u32> {
    let Kind::Call { request, .. } = kind else { return None };
    let age_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
    let request = Template::Map(vec![
        (Arc::from("max_age_ms"), Template::Value(Value::Int(age_ms))),
        (Arc::from("node"), Template::Value(Value::String(id.clone()))),
        (Arc::from("request"), inwards(request)),
    ]);
    let program = reading.spent.compile("outputs.value", "", reading.findings)?.ok()?;
    let slots = vec![Slot::Output { up: 0, node: 0, member: Arc::from("value") }];
    let node = Node {
        id: Arc::from("cached"),
        kind: Kind::Call { executor: Executor::Cached, request },
        input: None,
        policy: Policy::All,
        on_error: OnError::Fail,
        retry: None,
        timeout: Some(Duration::from_secs(limits::CACHED_SECONDS_MAX)),
        output_schema: None,
        fallback: None,
        at_most_once: false,
        priority: Priority::default(),
        outputs: Vec::new(),
        incoming: Vec::new(),
        outgoing: Vec::new(),
    };
    let number = u32::try_from(scopes.len()).ok()?;
    let output = Some(Template::Expr(Expr { program, slots }));
    scopes.push(Scope { nodes: vec![node], edges: Vec::new(), output, anonymous: false });
    Some(number)
}

/// The same template, seen from a body of the node it belongs to.
fn inwards(template: &Template) -> Template {
    match template {
        Template::Value(value) => Template::Value(value.clone()),
        Template::Expr(expr) => Template::Expr(moved(expr)),
        Template::Text(parts) => Template::Text(
            parts
                .iter()
                .map(|part| match part {
                    Part::Text(text) => Part::Text(text.clone()),
                    Part::Expr(expr) => Part::Expr(moved(expr)),
                })
                .collect(),
        ),
        Template::List(items) => Template::List(items.iter().map(inwards).collect()),
        Template::Map(entries) => {
            Template::Map(entries.iter().map(|(key, value)| (key.clone(), inwards(value))).collect())
        }
    }
}

fn moved(expr: &Expr) -> Expr {
    let slots = expr.slots.iter().cloned().map(|slot| match slot {
        Slot::Node { up, node } => Slot::Node { up: up + 1, node },
        Slot::Output { up, node, member } => Slot::Output { up: up + 1, node, member },
        Slot::Item { up } => Slot::Item { up: up + 1 },
        Slot::Index { up } => Slot::Index { up: up + 1 },
        Slot::Iteration { up } => Slot::Iteration { up: up + 1 },
        same @ (Slot::Inputs | Slot::Input | Slot::EdgeOutput | Slot::NextIteration | Slot::Run) => same,
    });
    Expr { program: expr.program.clone(), slots: slots.collect() }
}
