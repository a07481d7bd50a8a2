//! Layer 3: no URL that calls may not reach is brought in by a patch. What may be reached is handed in; nothing is looked up.

use std::collections::BTreeSet;

use super::candidate::meant;
use super::scope::{Scope, any, bodies, kind};
use super::{Finding, Layer, Patch, Refusal};
use crate::compile::pointer;
use crate::model::Value;

/// Judges the URLs of `http` nodes, in any scope, that stand in the document after a patch and not in the one before: those
/// that were there were its author's to reach. `refuses` says why a URL, as it is written, cannot be called.
///
/// # Errors
/// [`Layer::Security`], with the operation and the place of each.
pub fn reach(
    before: &Value,
    after: &Value,
    patch: &Patch,
    refuses: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Refusal> {
    if !any(after, &|node| kind(node) == "http") {
        return Ok(());
    }
    let (mut known, mut found) = (Vec::new(), Vec::new());
    urls(&Scope::of(before), "", &mut known);
    urls(&Scope::of(after), "", &mut found);
    let known: BTreeSet<&str> = known.into_iter().map(|(_, url)| url).collect();
    let new = found.into_iter().filter(|(_, url)| !known.contains(url));
    let refused = new.filter_map(|(at, url)| {
        let message = format!("no call may be made to this url: {}", refuses(url)?);
        Some(Finding::new("url_refused", meant(&patch.parsed, &at), at, message))
    });
    let refused: Vec<Finding> = refused.collect();
    if refused.is_empty() { Ok(()) } else { Err(Refusal::of(Layer::Security, refused)) }
}

fn urls<'d>(scope: &Scope<'d>, at: &str, found: &mut Vec<(String, &'d str)>) {
    for (id, node) in &scope.nodes {
        let at = if id.is_empty() { at.to_owned() } else { pointer::join(&format!("{at}/nodes"), id) };
        if kind(node) == "http"
            && let Some(url) = node.get("with").and_then(|with| with.get("url")).and_then(Value::as_str)
        {
            found.push((format!("{at}/with/url"), url));
        }
        for (slot, body) in bodies(node) {
            urls(&Scope::of(body), &format!("{at}{slot}"), found);
        }
    }
}
