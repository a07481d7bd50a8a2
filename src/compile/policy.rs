//! Rules that force a human gate, put into documents: (canonical document, rules) gives the document with gates.
//!
//! A node that a rule asks about becomes a `composite` under its own id: its body holds the node as it was, a review that it
//! stands behind (`gate_N`, for a tag) and one that its output must pass (`review_N`, for a low confidence). Nothing outside
//! changes: edges, inputs, outputs, `nodes.N.output`, `on_error` are those of the composite. A rejected gate fails with
//! `gate_rejected`, so the composite does, and what N's failures lead to is where a rejection leads (docs/policy.md, ADR 28).
//!
//! What must hold:
//! - pure and deterministic; a document with its gates comes out as it is; one that no rule concerns too;
//! - every node with a tag of a rule stands behind a review that is at least as strict as the rule, in every scope;
//! - what a policy made says so (`policy` at the top, `with.policy` of a review); no author may ([`reserved`]).
//!
//! What does not fit any more (nested too deep, too many nodes) does not compile, and is not run.

mod fresh;
mod gate;
mod rules;
mod wrap;

use std::sync::Arc;

pub use rules::Rules;

use super::document::Reading;
use super::fields::Fields;
use super::patch::each;
use super::{Compiled, Diagnostics, compile_canonical};
use crate::model::{Map, Value};

/// Where a document says what a policy made of it.
const KEY: &str = "policy";

/// Refuses a key that only a policy may write.
pub(super) fn reserved(fields: &Fields<'_>, key: &str, reading: &mut Reading<'_>) {
    if !reading.own && fields.has(key) {
        let message = format!("`{key}` is written by the node that runs the workflow, never by its author");
        let help = Some("give nodes `tags`; what they ask for is the configuration's (policy.gates)".into());
        reading.findings.error_with("policy_reserved", fields.at(key), message, help);
    }
}

/// The document with the gates that these rules ask for.
pub fn gated(document: &Value, rules: &Rules) -> Value {
    if rules.is_empty() { document.clone() } else { wrap::Wrapping::new(document, rules).scope(document) }
}

/// What runs of a registered document run under these rules. `None`: the document itself, because no rule is about the
/// workflow. The result has the rules in it, so that they stay what they were.
///
/// # Errors
/// With its gates it is beyond a limit of documents.
pub fn materialise(compiled: &Compiled, name: &str, rules: &Rules) -> Result<Option<Compiled>, Diagnostics> {
    let rules = rules.of(name);
    if rules.is_empty() {
        return Ok(None);
    }
    let mut document = gated(&compiled.document, &rules);
    let base = Value::string(format!("sha256:{}", hex(&compiled.hash)));
    let recorded = Value::map([("base", base), ("gates", rules.to_value())]);
    if let Value::Map(map) = &mut document {
        Arc::make_mut(map).insert(KEY.into(), recorded);
    }
    compile_canonical(document.to_json().as_bytes()).map(Some)
}

/// The rules that a document was made with.
pub fn recorded(document: &Value) -> Option<Rules> {
    Rules::read(document.get(KEY)?.get("gates")?).ok()
}

/// Has this document every gate that its own rules ask for?
pub(super) fn holds(document: &Value) -> bool {
    recorded(document).is_none_or(|rules| gated(document, &rules) == *document)
}

/// The gates that rules put into a document: JSON Pointer of the review, and why it stands there.
pub fn gates(document: &Value) -> Vec<(String, String)> {
    let why =
        |node: &Value| node.get("with").and_then(|with| with.get("policy")?.as_str().map(str::to_owned));
    let mut found = Vec::new();
    each(document, &mut |path, node| found.extend(why(node).map(|why| (path.to_owned(), why))));
    found
}

fn hex(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A map with other members.
fn with(value: &Value, members: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let mut map = match value {
        Value::Map(map) => Map::clone(map),
        _ => Map::default(),
    };
    for (key, value) in members {
        match value {
            Some(value) => map.insert(key.into(), value),
            None => {
                map = map.iter().filter(|(k, _)| &***k != key).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
        }
    }
    Value::Map(Arc::new(map))
}

#[cfg(test)]
mod tests;
