//! What must hold of changes of a run's graph (I-10) and of humans' decisions (I-11), within each run of the last dump.

use std::collections::BTreeMap;

use crate::history::{Dumped, History, Row, text};
use crate::report::Findings;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let Some(dump) = history.last() else { return };
    for run in dump.runs.values() {
        versions(history, run, findings);
        decisions(history, run, findings);
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
            let made = row.event.get("version").and_then(serde_json::Value::as_u64);
            if made != Some(version) {
                let what = format!("the graph of {id} has version {made:?} where {version} should be");
                findings.add("wrong_graph_version", lines(), what);
            }
        }
        before = Some(row);
    }
}

/// What is asked once is answered once, in time.
fn decisions(history: &History, run: &Dumped, findings: &mut Findings) {
    let id = &run.run.run;
    let mut answered: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &run.rows {
        history.step();
        let node = text(&row.event, "node");
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
