//! Patches of documents that a policy has put gates into: what they add is gated too, in the same version, and what they may
//! not take away. The gates become operations of the patch, so that whoever has the log needs to know no rules.

use std::collections::BTreeMap;

use super::candidate::{go_around, wrong};
use super::gates::{self, Gates};
use super::scope::{any, each, members};
use super::{Aim, Base, Finding, Layer, Patch, Refusal, read};
use crate::compile::{compile_made, pointer, policy};
use crate::model::Value;

/// The patch with the gates that the document's own rules ask for behind it. `None`: it is whole as it is.
///
/// # Errors
/// It does not fit the document, it says itself that a policy speaks in it or changes what one says, or it has too many
/// operations with the gates.
pub fn with_gates<'d>(base: impl Into<Base<'d>>, patch: &Patch, aim: Aim) -> Result<Option<Patch>, Refusal> {
    let Base { document, known } = base.into();
    let rules = policy::recorded(document);
    // Nothing else can claim to be a policy's.
    let claims = patch.operations.to_json().contains("\"policy\"");
    if rules.is_none() && !claims {
        return Ok(None);
    }
    let next = patch.apply(document)?;
    let compiled = match compile_made(&next, known) {
        Ok(compiled) => compiled,
        Err(refused) => return Err(wrong(&patch.parsed, &refused.errors)),
    };
    if claims {
        let known = policy::gates(document);
        let claimed = policy::gates(&compiled.document).into_iter().find(|gate| !known.contains(gate));
        if let Some((at, _)) = claimed {
            let message = "`policy` is written by the node that runs the workflow, never by its author";
            let finding = Finding::new("policy_reserved", None, at, message);
            return Err(Refusal::one(Layer::Security, finding));
        }
    }
    let Some(rules) = rules else { return Ok(None) };
    if aim == Aim::Make {
        let around = gates::check(document, &compiled.document, (aim, Gates::Stay));
        go_around(&patch.parsed, around)?;
    }
    let gated = policy::gated(&compiled.document, &rules);
    if gated == compiled.document {
        return Ok(None);
    }
    let Value::List(own) = &patch.operations else { return Ok(None) };
    let all = own.iter().cloned().chain(between(&next, &gated)).collect();
    read(&Value::list(all)).map(Some)
}

/// Operations from one document to the other, whole nodes and edges at a time.
fn between(before: &Value, after: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    let mut put = |verb: &str, path: String, value: Option<&Value>| {
        let value = value.map(|value| ("value", value.clone()));
        let entries = [("op", Value::from(verb)), ("path", Value::string(path))];
        found.push(Value::map(entries.into_iter().chain(value)));
    };
    for root in ["nodes", "edges"] {
        let was: BTreeMap<&str, &Value> = members(before.get(root)).collect();
        let is: BTreeMap<&str, &Value> = members(after.get(root)).collect();
        for (key, value) in &is {
            let path = pointer::join(&format!("/{root}"), key);
            match was.get(key) {
                Some(same) if same == value => {}
                Some(_) => put("replace", path, Some(value)),
                None => put("add", path, Some(value)),
            }
        }
        for key in was.keys().filter(|key| !is.contains_key(*key)) {
            put("remove", pointer::join(&format!("/{root}"), key), None);
        }
    }
    found
}

/// What the document after lacks: gates under the rules of the one before, and tags. Rules are put onto a workflow's patched
/// document only when a run begins, so tags stay whether rules are in force or not.
pub(super) fn check(before: &Value, after: &Value) -> Vec<(String, String)> {
    let mut found = tags_lost(before, after);
    if found.is_empty() && policy::recorded(before).is_some() && !policy::holds(after) {
        let message = "a node would run without the review that a policy asks for";
        found.push(("/nodes".into(), message.into()));
    }
    found
}

fn tags_lost(before: &Value, after: &Value) -> Vec<(String, String)> {
    let tags = |node: &Value| match node.get("tags") {
        Some(Value::List(tags)) => tags.to_vec(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    if !any(before, &|node| !tags(node).is_empty()) {
        return found;
    }
    let mut still = BTreeMap::new();
    each(after, &mut |at, node| drop(still.insert(at.to_owned(), tags(node))));
    each(before, &mut |at, node| {
        // With another gate around it, it has moved into that one's body.
        let id = at.rsplit('/').next().unwrap_or_default();
        let moved = format!("{at}/with/body/nodes/{id}");
        let keeps = |tag: &Value| {
            [at, &*moved].iter().any(|at| still.get(*at).is_some_and(|tags| tags.contains(tag)))
        };
        let lost = still.get(at).and_then(|_| tags(node).into_iter().find(|tag| !keeps(tag)));
        found.extend(
            lost.map(|tag| (at.to_owned(), format!("the tag {tag} cannot be taken away by a patch"))),
        );
    });
    found
}
