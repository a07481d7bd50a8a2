//! What a replay found, for a human: tables; for a program: the whole of it.

use serde_json::Value as Json;

use super::super::Error;
use super::super::output::{Output, harmless};
use crate::replay::shadow::{Ended, Report};

/// Characters of a value in a table.
const SHOWN: usize = 60;

/// A state and its hash.
pub(in crate::cli) fn state(state: &Json, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(state);
    }
    for member in ["run_id", "seq", "hash", "status", "workflow", "graph_version"] {
        if let Some(value) = state.get(member) {
            output.line(&format!("{member:14}{}", plain(value)))?;
        }
    }
    for node in state.get("nodes").and_then(Json::as_array).into_iter().flatten() {
        let of = |member: &str| node.get(member).map(plain).unwrap_or_default();
        output.line(&format!("  {:30}  {:10}  {}", of("path"), of("state"), of("waiting_for")))?;
    }
    Ok(())
}

/// A run that was made of another.
pub(in crate::cli) fn made(made: &Json, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(made);
    }
    output.line(made.get("run_id").and_then(Json::as_str).unwrap_or_default())
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => harmless(text).to_string(),
        other => other.to_string(),
    }
}

/// What would be otherwise.
pub(super) fn shadow(report: &Report, output: &mut Output) -> Result<(), Error> {
    if !output.is_table() {
        return output.document(&report.to_json());
    }
    let json =
        |value: &Option<crate::model::Value>| value.as_ref().map_or("-".into(), |value| value.to_json());
    output.line(&format!("{}  {}", report.run_id.0, if report.same { "same" } else { "differs" }))?;
    line(output, "status", report.status.recorded, report.status.shadow)?;
    line(output, "outputs", &json(&report.outputs.recorded), &json(&report.outputs.shadow))?;
    if report.error.recorded != report.error.shadow {
        let code = |code: &Option<String>| code.clone().unwrap_or_else(|| "-".into());
        line(output, "error", &code(&report.error.recorded), &code(&report.error.shadow))?;
    }
    for node in &report.nodes {
        line(output, &node.node, &ended(node.recorded.as_ref()), &ended(node.shadow.as_ref()))?;
    }
    for call in &report.would_call {
        let request = cut(&call.request.to_json());
        let (node, attempt, kind) = (harmless(&call.node), call.attempt, call.kind);
        output.line(&format!("would call    {node} (attempt {attempt}, {kind}): {request}"))?;
    }
    for call in &report.requests_changed {
        let request = cut(&call.request.to_json());
        output.line(&format!(
            "asks otherwise  {} (attempt {}): {request}",
            harmless(&call.node),
            call.attempt
        ))?;
    }
    for note in &report.notes {
        output.line(&format!("note          {}", harmless(note)))?;
    }
    output.line(&format!("{} calls answered from the record, {} made", report.answered, report.calls_made))
}

fn line(output: &mut Output, what: &str, recorded: &str, shadow: &str) -> Result<(), Error> {
    let (what, recorded, shadow) = (harmless(what), cut(recorded), cut(shadow));
    if recorded == shadow {
        return output.line(&format!("{what:30}  {recorded}"));
    }
    output.line(&format!("{what:30}  {recorded}  ->  {shadow}"))
}

fn ended(ended: Option<&Ended>) -> String {
    let Some(Ended { state, output, error }) = ended else { return "not run".into() };
    match (output, error) {
        (Some(output), _) => format!("{state} {}", output.to_json()),
        (None, Some(error)) => format!("{state} {error}"),
        (None, None) => (*state).to_owned(),
    }
}

fn cut(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{more}", harmless(&cut))
}
