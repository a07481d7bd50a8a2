//! `with` of the kinds that have bodies, besides `map`: `parallel`, `loop`, `composite`.

use super::missing;
use crate::compile::document::{Reading, is_id};
use crate::compile::fields::{Fields, wrong};
use crate::compile::finding::{did_you_mean, quoted};
use crate::compile::{graph, pointer};
use crate::limits;
use crate::model::Value;
use crate::model::node::Kind;

pub(super) fn parallel(with: &Fields<'_>, id: &str, reading: &mut Reading<'_>) -> Option<Kind> {
    missing(with, id, "branches", reading.findings);
    let map = match with.get("branches")? {
        Value::Map(map) => map,
        other => {
            wrong(reading.findings, with.at("branches"), "branches", "a map of bodies", other);
            return None;
        }
    };
    let most = limits::PARALLEL_BRANCHES_MAX;
    if map.is_empty() || map.len() > most {
        let message =
            format!("{} branches; 1 to {most} are allowed (limit parallel_branches_max)", map.len());
        reading.findings.error("parallel_branches_max", with.at("branches"), message);
        return None;
    }
    let mut branches = Vec::with_capacity(map.len());
    for (name, body) in map.iter() {
        let at = pointer::join(&with.at("branches"), name);
        if !is_id(name) {
            let message = format!(
                "the branch name {} does not fit [A-Za-z0-9_-]{{1,{}}} (limit node_id_bytes_max)",
                quoted(name),
                limits::NODE_ID_BYTES_MAX
            );
            reading.findings.error("branch_name", at.clone(), message);
        }
        branches.push((name.clone(), graph::read_body(body, at, reading)?));
    }
    let mut results = None;
    if with.has("results") {
        let names = with.texts("results", reading.findings);
        let mut sorted: Vec<_> = names.iter().map(|(name, _)| name.clone()).collect();
        sorted.sort();
        if !sorted.iter().eq(branches.iter().map(|(name, _)| name)) {
            let message = "results must name each branch once";
            reading.findings.error("unknown_branch", with.at("results"), message);
        }
        results = Some(names.into_iter().map(|(name, _)| name).collect());
    }
    Some(Kind::Parallel { branches, results })
}

pub(super) fn repeat(with: &Fields<'_>, id: &str, reading: &mut Reading<'_>) -> Option<Kind> {
    for key in ["while", "body"] {
        missing(with, id, key, reading.findings);
    }
    let most = limits::LOOP_ITERATIONS_MAX;
    if !with.has("max_iterations") {
        let message = format!("a loop needs `max_iterations` (1 to {most})");
        reading.findings.error("missing_key", with.at.clone(), message);
    }
    let max_iterations = with.number("max_iterations", 1, most, reading.findings);
    let on_exhausted = with.word("on_exhausted", &["fail", "continue"], reading.findings);
    let condition = with.cel("while", reading.findings);
    let body = with.get("body").and_then(|body| graph::read_body(body, with.at("body"), reading));
    Some(Kind::Loop {
        condition: condition?,
        body: Box::new(body?),
        max_iterations: max_iterations?,
        on_exhausted,
    })
}

pub(super) fn composite(with: &Fields<'_>, id: &str, reading: &mut Reading<'_>) -> Option<Kind> {
    if with.has("body") == with.has("workflow") {
        let message = format!("node {}: a composite needs either `body` or `workflow`", quoted(id));
        reading.findings.error("missing_key", with.at.clone(), message);
        return None;
    }
    let parent_close = with.word("parent_close", &["cancel", "abandon"], reading.findings);
    if let Some(body) = with.get("body") {
        if with.has("parent_close") {
            let message = "`parent_close` has no effect on a composite with a `body`";
            reading.findings.warning("key_ignored", with.at("parent_close"), message);
        }
        let body = graph::read_body(body, with.at("body"), reading)?;
        return Some(Kind::Composite { body: Box::new(body) });
    }
    let workflow = with.text("workflow", reading.findings)?;
    if !names_workflow(&workflow) {
        let most = limits::NAME_BYTES_MAX;
        let message = format!(
            "{} names no workflow: name, name@version or name@tag, each [A-Za-z0-9_.-]{{1,{most}}} (limit \
             name_bytes_max)",
            quoted(&workflow)
        );
        let help = did_you_mean(&workflow.replace(':', "@"), [&*workflow]);
        reading.findings.error_with("invalid_name", with.at("workflow"), message, help);
        return None;
    }
    Some(Kind::Child { workflow, parent_close })
}

/// `name`, `name@version` or `name@tag`.
fn names_workflow(text: &str) -> bool {
    let fits = |part: &str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        !part.is_empty() && part.len() <= limits::NAME_BYTES_MAX && part.bytes().all(byte)
    };
    match text.split_once('@') {
        Some((name, version)) => fits(name) && fits(version),
        None => fits(text),
    }
}
