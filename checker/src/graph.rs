//! What must hold of changes of a run's graph (I-9, I-10, I-19) and of humans' decisions (I-11), about reviews and about
//! patches that wait, within each run of the last dump.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::fold::{self, Change};
use crate::history::{Dumped, History, Row, text};
use crate::report::Findings;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let Some(dump) = history.last() else { return };
    for run in dump.runs.values() {
        versions(history, run, findings);
        held(history, run, findings);
        decisions(history, run, findings);
        let Some(base) = fold::base(history, run) else { continue };
        let changes = fold::changes(history, run);
        Walk { id: &run.run.run, document: base, begun: BTreeSet::new(), open: BTreeSet::new(), findings }
            .all(history, run, &changes);
    }
}

/// A change makes the next version, right behind what asked for it.
fn versions(history: &History, run: &Dumped, findings: &mut Findings) {
    let (id, mut version) = (&run.run.run, 1);
    let mut before: Option<&Row> = None;
    for row in &run.rows {
        history.step();
        let asked = before.is_some_and(|before| matches!(before.kind(), "patch.created" | "patch.revoked"));
        let applied = row.kind() == "patch.applied";
        let lines = || before.iter().map(|row| row.line).chain([row.line]).collect();
        if applied != asked {
            let what =
                format!("event {} of {id} is {} and its patch is not one with it", row.seq(), row.kind());
            findings.add("half_a_patch", lines(), what);
        }
        if applied {
            version += 1;
            let made = row.event.get("version").and_then(Value::as_u64);
            if made != Some(version) {
                let what = format!("the graph of {id} has version {made:?} where {version} should be");
                findings.add("wrong_graph_version", lines(), what);
            }
        }
        before = Some(row);
    }
}

/// A patch that waits is decided once, made by an approval and by nothing else, in the same step.
fn held(history: &History, run: &Dumped, findings: &mut Findings) {
    let id = &run.run.run;
    // By patch: where it began to wait, and where it was decided.
    let mut patches: BTreeMap<&str, (&Row, Option<&Row>)> = BTreeMap::new();
    let mut approved: Option<&Row> = None;
    for row in &run.rows {
        history.step();
        let patch = text(&row.event, "patch_id");
        let is_made = row.kind() == "patch.created";
        let lines = |other: Option<&Row>| other.map(|row| row.line).into_iter().chain([row.line]).collect();
        if let Some(decided) = approved.take()
            && !(is_made && text(&decided.event, "patch_id") == patch)
        {
            let what =
                format!("event {} of {id} approves a patch, and {} follows", decided.seq(), row.kind());
            findings.add("held_patch_made", lines(Some(decided)), what);
        } else if let Some((held, decided)) = patches.get(patch).filter(|_| is_made) {
            let just = decided.is_some_and(|decided| decided.seq() + 1 == row.seq() && is_approval(decided));
            if !just {
                let what =
                    format!("event {} of {id} makes {patch}, which waits or was not wanted", row.seq());
                findings.add("held_patch_made", lines(decided.or(Some(*held))), what);
            }
        }
        match row.kind() {
            "patch.held" => {
                if let Some((before, _)) = patches.insert(patch, (row, None)) {
                    let what = format!("{patch} of {id} waits twice");
                    findings.add("patch_decided_twice", lines(Some(before)), what);
                }
            }
            "patch.decided" => {
                approved = Some(row).filter(|row| is_approval(row));
                let before = match patches.get_mut(patch) {
                    Some((_, decided)) => decided.replace(row).map(Some),
                    None => Some(None),
                };
                if let Some(before) = before {
                    let what = format!("event {} of {id} decides {patch}, which does not wait", row.seq());
                    findings.add("patch_decided_twice", lines(before), what);
                }
            }
            _ => {}
        }
    }
}

fn is_approval(decided: &Row) -> bool {
    decided.event.get("approved") == Some(&Value::Bool(true))
}

/// What is asked once is answered once, in time.
fn decisions(history: &History, run: &Dumped, findings: &mut Findings) {
    let id = &run.run.run;
    let mut answered: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &run.rows {
        history.step();
        let node = row.node();
        match row.kind() {
            "node.waiting" => drop(answered.remove(node)),
            "approval.decided" | "approval.expired" => {
                if let Some(line) = answered.insert(node, row.line) {
                    let what = format!("{node} of {id} was answered already, and then {}", row.kind());
                    findings.add("two_decisions", vec![line, row.line], what);
                }
            }
            _ => {}
        }
    }
}

/// A run's events from the first to the last, with the graph that it had at each.
struct Walk<'a> {
    id: &'a str,
    document: &'a Value,
    /// Nodes of the outermost scope that have begun, or never will.
    begun: BTreeSet<&'a str>,
    /// Reviews that somebody approved.
    open: BTreeSet<&'a str>,
    findings: &'a mut Findings,
}

impl<'a> Walk<'a> {
    fn all(mut self, history: &History, run: &'a Dumped, changes: &'a [Change<'a>]) {
        let mut changes = changes.iter().peekable();
        for row in &run.rows {
            history.step();
            if let Some(change) = changes.next_if(|change| change.row.line == row.line) {
                self.change(change);
            }
            let node = row.node();
            let outer = node.split(['[', '.']).next().unwrap_or_default();
            if row.kind().starts_with("node.") && !outer.is_empty() && !self.has(outer) {
                let what = format!(
                    "event {} of {} is about {outer}, which its graph does not have",
                    row.seq(),
                    self.id
                );
                self.findings.add("node_of_no_graph", vec![row.line], what);
            }
            match row.kind() {
                "node.started" if node == outer => {
                    self.gates(row, node);
                    self.begun.insert(outer);
                }
                "node.started" | "node.waiting" | "node.completed" | "node.failed" | "node.skipped" => {
                    self.begun.insert(outer);
                }
                "approval.decided" if row.event.get("approved") == Some(&Value::Bool(true)) => {
                    self.open.insert(node);
                }
                // Nobody came, and the workflow said that it is to go on then.
                "approval.expired" if self.says(node, "on_timeout") == "approve" => {
                    self.open.insert(node);
                }
                _ => {}
            }
        }
    }

    /// Is there such a node?
    fn has(&self, node: &str) -> bool {
        let nodes = self.document.get("nodes");
        nodes.is_none_or(|nodes| nodes.get(node).is_some())
    }

    /// A setting of a node.
    fn says(&self, node: &str, setting: &str) -> &'a str {
        let node = self.document.get("nodes").and_then(|nodes| nodes.get(node));
        node.and_then(|node| node.get("with")).map(|with| text(with, setting)).unwrap_or_default()
    }

    fn change(&mut self, change: &'a Change<'a>) {
        let (row, id) = (change.row, self.id);
        let mut add = |name, what| self.findings.add(name, vec![row.line], what);
        let after = match &change.document {
            Ok(after) => after,
            Err(why) => return add("wrong_graph_hash", format!("event {} of {id}: {why}", row.seq())),
        };
        let (told, found) = (text(&row.event, "hash"), fold::hash(after));
        if told != found {
            let what = format!("event {} of {id} says {told}, its patches give {found}", row.seq());
            add("wrong_graph_hash", what);
        }
        for node in &self.begun {
            if shape(self.document, node) != shape(after, node) {
                add(
                    "altered_after_start",
                    format!("event {} of {id} alters {node}, which has begun", row.seq()),
                );
            }
        }
        let (was, is) = (count(self.document), count(after));
        let most = after.pointer("/limits/nodes").and_then(Value::as_u64);
        if most.is_some_and(|most| is > most) && is > was {
            add("too_many_nodes", format!("the graph of {id} has {is} nodes, {most:?} are allowed"));
        }
        self.document = after;
    }

    /// A node behind reviews alone begins after one of them was approved.
    fn gates(&mut self, row: &Row, node: &str) {
        let mut leading = fold::edges(self.document).filter(|edge| text(edge, "to") == node).peekable();
        let gate = |edge: &Value| {
            let from = self.document.get("nodes").and_then(|nodes| nodes.get(text(edge, "from")));
            let kind = from.map(|from| text(from, "type")).unwrap_or_default();
            text(edge, "on") == "approved" && matches!(kind, "human_review" | "approval")
        };
        let open = |edge: &Value| !gate(edge) || self.open.contains(text(edge, "from"));
        if leading.peek().is_some() && !leading.any(open) {
            let what = format!("{node} of {} began and nobody had approved", self.id);
            self.findings.add("passed_closed_gate", vec![row.line], what);
        }
    }
}

/// What a node is, and what leads to it.
fn shape<'d>(document: &'d Value, node: &str) -> (Option<&'d Value>, Vec<&'d Value>) {
    let definition = document.get("nodes").and_then(|nodes| nodes.get(node));
    (definition, fold::edges(document).filter(|edge| text(edge, "to") == node).collect())
}

/// Nodes in all, bodies included.
fn count(document: &Value) -> u64 {
    let nodes = document.get("nodes").and_then(Value::as_object).into_iter().flatten();
    nodes
        .map(|(_, node)| {
            let with = node.get("with");
            let bodies = with.and_then(|with| with.get("body")).into_iter();
            let branches = with.and_then(|with| with.get("branches")).and_then(Value::as_object);
            let bodies = bodies.chain(branches.into_iter().flat_map(serde_json::Map::values));
            1 + bodies.map(|body| if body.get("type").is_some() { 1 } else { count(body) }).sum::<u64>()
        })
        .sum()
}
