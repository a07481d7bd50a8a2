//! Nobody sees or changes what is in another workspace (I-23), where the history says in whose name things were asked.

use std::collections::BTreeMap;

use crate::history::History;
use crate::report::Findings;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let homes = homes(history);
    let mut judge = |workspace: &Option<String>, run: &str, mut lines: Vec<usize>, what: &str| {
        history.step();
        if let (Some(workspace), Some((home, line))) = (workspace, homes.get(run))
            && workspace != home
        {
            lines.push(*line);
            findings.add("crossed_workspaces", lines, format!("{workspace} {what} {run}, which is {home}'s"));
        }
    };
    for op in history.ops.values() {
        let Some(done) = op.done() else { continue };
        if let Some(run) = done.run.as_deref().or(op.invoke.run.as_deref()) {
            judge(&op.invoke.workspace, run, op.lines(), "was answered about");
        }
    }
    for stream in history.streams.values() {
        if let Some((line, ..)) = stream.events.first() {
            judge(&stream.workspace, &stream.run, vec![stream.line, *line], "was sent events of");
        }
    }
    for (line, call) in &history.calls {
        judge(&call.workspace, &call.run, vec![*line], "was given a job of");
    }
}

/// Where each run is at home: where its start was acknowledged, or where a dump found it.
fn homes(history: &History) -> BTreeMap<&str, (&str, usize)> {
    let mut homes = BTreeMap::new();
    for run in history.dumps.iter().flat_map(|dump| dump.runs.values()) {
        history.step();
        if let Some(workspace) = &run.run.workspace {
            homes.entry(&*run.run.run).or_insert((&**workspace, run.line));
        }
    }
    homes
}
