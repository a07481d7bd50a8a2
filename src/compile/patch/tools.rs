//! Layer 3: an agent gives nobody more than it has itself (F414). Agents that its patch brings in, or changes, use no tools that
//! it may not use.

use super::candidate::meant;
use super::scope::{Scope, bodies, kind};
use super::{Finding, Layer, Patch, Refusal};
use crate::compile::pointer;
use crate::model::Value;

/// Judges the tools of the `agent` nodes, in any scope, that are not as they were before a patch of an agent that may use
/// `allowed` (a list, as in a document).
///
/// # Errors
/// [`Layer::Security`], with the operation and the place of each.
pub fn no_wider_tools(
    (before, after): (&Value, &Value),
    allowed: &Value,
    patch: &Patch,
) -> Result<(), Refusal> {
    let allowed = list(Some(allowed));
    let (mut known, mut found) = (Vec::new(), Vec::new());
    tools(&Scope::of(before), (before, ""), &mut known);
    tools(&Scope::of(after), (after, ""), &mut found);
    let new = found.into_iter().filter(|(at, tool)| !known.iter().any(|other| other == &(at.clone(), *tool)));
    let wider = new.filter(|(_, tool)| !allowed.contains(tool)).map(|(at, tool)| {
        let message = format!("the agent that proposes this may not use {tool} itself");
        Finding::new("tool_not_allowed", meant(&patch.parsed, &at), at, message)
    });
    let wider: Vec<Finding> = wider.collect();
    if wider.is_empty() { Ok(()) } else { Err(Refusal::of(Layer::Security, wider)) }
}

fn list(tools: Option<&Value>) -> &[Value] {
    match tools {
        Some(Value::List(tools)) => tools,
        _ => &[],
    }
}

/// Every tool that an agent may use, and where the agent stands. A node that names none has those of its role.
fn tools<'d>(scope: &Scope<'d>, (document, at): (&'d Value, &str), found: &mut Vec<(String, &'d Value)>) {
    for (id, node) in &scope.nodes {
        let at = if id.is_empty() { at.to_owned() } else { pointer::join(&format!("{at}/nodes"), id) };
        if kind(node) == "agent" {
            let with = node.get("with");
            let role = with.and_then(|with| with.get("role")).and_then(Value::as_str);
            let role = role.and_then(|role| document.get("agents")?.get(role));
            let own = with.and_then(|with| with.get("tools")).or(role.and_then(|role| role.get("tools")));
            found.extend(list(own).iter().map(|tool| (format!("{at}/with"), tool)));
        }
        for (slot, body) in bodies(node) {
            tools(&Scope::of(body), (document, &format!("{at}{slot}")), found);
        }
    }
}
