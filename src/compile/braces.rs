//! `{topic}` in the task of an agent: an output that some node before declares, else an input (seed 001). `{{` and `}}`
//! stand for the braces themselves; braces around anything but a name are text.

use std::sync::Arc;

use super::document::Reading;
use super::finding::quoted;
use super::names::View;

/// The text with every `{name}` as `${ outputs.name }` or `${ inputs.name }`. `None` when a name cannot be resolved; there
/// is a finding then.
pub(super) fn expand(
    text: &Arc<str>,
    at: &str,
    view: &View<'_, '_>,
    reading: &mut Reading<'_>,
) -> Option<Arc<str>> {
    if !text.contains(['{', '}']) {
        return Some(text.clone());
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = &**text;
    while let Some(next) = rest.find(['{', '}', '$']) {
        let (before, from) = rest.split_at(next);
        expanded.push_str(before);
        if from.starts_with("${") {
            // An expression of its own: it is taken whole, up to the first closing brace that balances it.
            let end = balanced(from.get(1..).unwrap_or_default()).map_or(from.len(), |end| end + 1);
            let (whole, after) = from.split_at(end);
            expanded.push_str(whole);
            rest = after;
            continue;
        }
        let single = from.get(..1).unwrap_or_default();
        if let Some(after) = from.strip_prefix("{{").or(from.strip_prefix("}}")) {
            expanded.push_str(single);
            rest = after;
        } else if let Some((name, after)) = named(from) {
            if view.has_output(name) {
                expanded.push_str("${ outputs.");
            } else if reading.may_be_input(name) {
                expanded.push_str("${ inputs.");
            } else {
                let message = format!(
                    "{} is neither an input nor an output of a node before this one",
                    quoted(&format!("{{{name}}}"))
                );
                let help = Some("write {{ and }} for braces that are meant as they stand".into());
                reading.findings.error_with("unknown_name", at, message, help);
                return None;
            }
            expanded.push_str(name);
            expanded.push_str(" }");
            rest = after;
        } else {
            expanded.push_str(single);
            rest = from.get(1..).unwrap_or_default();
        }
    }
    expanded.push_str(rest);
    Some(expanded.into())
}

/// `{name}` at the start of a text, and what follows.
fn named(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let mut bytes = name.bytes();
    let first = bytes.next()?;
    let is_name = (first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some((name, after))
}

/// Where the brace that opens a text is closed, one past it.
fn balanced(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
