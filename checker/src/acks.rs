//! What clients were told against what there is in the end: I-1, I-2, I-16 (acknowledgements), I-25.

use std::collections::BTreeMap;

use crate::history::{Dumped, History, Op, Row, text};
use crate::record::{Done, FaultKind, What};
use crate::report::Findings;

/// Where a token stands in the last dump.
type Tokens<'a> = BTreeMap<&'a str, Vec<(&'a Dumped, &'a Row)>>;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    levels(history, findings);
    let Some(dump) = history.last() else { return };
    let mut tokens = Tokens::new();
    for run in dump.runs.values() {
        for row in &run.rows {
            history.step();
            if let Some(token) = row.token() {
                tokens.entry(token).or_default().push((run, row));
            }
        }
    }
    for op in history.ops.values() {
        history.step();
        if let Some(done) = history.lasting(op) {
            acknowledged(history, &tokens, (op, done), findings);
        }
    }
    causes(history, &tokens, findings);
    children(history, findings);
}

/// No acknowledgement below the level, none after a failed sync.
fn levels(history: &History, findings: &mut Findings) {
    let mut failed: Option<(usize, u64)> = None;
    let mut faults = history.faults.iter().peekable();
    for (number, begins) in &history.order {
        history.step();
        let Some(op) = history.ops.get(number).filter(|op| op.invoke.what.changes()) else { continue };
        let at = if *begins { Some(op.line) } else { op.end };
        while let Some(fault) = faults.next_if(|fault| Some(fault.line) < at) {
            match fault.what {
                FaultKind::SyncFailed => failed = failed.or(Some((fault.line, fault.at_us))),
                FaultKind::Restart => failed = None,
                _ => {}
            }
        }
        let Some(done) = op.done().filter(|_| !*begins) else { continue };
        if let Some(level) = &done.durability
            && *level != history.head.durability
        {
            let what = format!("operation {number} was acknowledged at level {level}");
            findings.add("silent_downgrade", op.lines(), what);
        }
        if let Some((line, at_us)) = failed
            && op.invoke.at_us >= at_us
            && !done.replayed
        {
            let lines = op.lines().into_iter().chain([line]).collect();
            let what = format!("operation {number} was acknowledged though a sync had failed");
            findings.add("acknowledged_after_failed_sync", lines, what);
        }
    }
}

/// I-1: what was acknowledged is there.
fn acknowledged(history: &History, tokens: &Tokens<'_>, (op, done): (&Op, &Done), findings: &mut Findings) {
    if !op.invoke.what.changes() {
        return;
    }
    let number = op.invoke.op;
    let Some(id) = done.run.as_deref().or(op.invoke.run.as_deref()) else { return };
    let Some(run) = history.run(id) else {
        let what = format!("operation {number} was acknowledged and {id} is not there");
        return findings.add("lost_acknowledgement", op.lines(), what);
    };
    if let Some(seq) = done.seq
        && run.row(seq).is_none()
    {
        let what = format!("event {seq} of {id} was acknowledged; it has {} events", run.rows.len());
        let lines = op.lines().into_iter().chain([run.line]).collect();
        return findings.add("lost_acknowledgement", lines, what);
    }
    let started = run.rows.first().and_then(|row| Some((row, row.event.get("epoch")?.as_u64()?)));
    if let (Some(told), Some((row, epoch))) = (done.epoch, started)
        && told != epoch
    {
        let lines = op.lines().into_iter().chain([row.line]).collect();
        findings.add(
            "wrong_epoch",
            lines,
            format!("{id} is of epoch {epoch}, operation {number} says {told}"),
        );
    }
    followed(tokens, (op, done), run, findings);
}

/// A text of the answer.
fn says<'a>(done: &'a Done, member: &str) -> &'a str {
    done.body.as_ref().map_or("", |body| text(body, member))
}

/// The event that had to follow is there, up to the number that was acknowledged.
fn followed(tokens: &Tokens<'_>, (op, done): (&Op, &Done), run: &Dumped, findings: &mut Findings) {
    let token = op.invoke.token.as_deref().unwrap_or_default();
    let known = tokens.get(token).map(Vec::as_slice).unwrap_or_default();
    let here = known.iter().find(|(of, _)| of.run.run == run.run.run);
    let follows = |kinds: &[&str]| {
        known.iter().any(|(of, row)| of.run.run == run.run.run && kinds.contains(&row.kind()))
    };
    let id = &run.run.run;
    let has = |kinds: &[&str]| run.rows.iter().any(|row| kinds.contains(&row.kind()));
    let there = match op.invoke.what {
        What::Start => match (here, token.is_empty()) {
            (None, false) => {
                let what = format!("operation {} was answered with {id}, which is another's", op.invoke.op);
                let lines = op.lines().into_iter().chain(run.rows.first().map(|row| row.line)).collect();
                return findings.add("wrong_answer", lines, what);
            }
            _ => true,
        },
        What::Signal => follows(&["signal.received"]),
        What::Patch if says(done, "state") == "held" => follows(&["patch.held"]),
        What::Patch => follows(&["patch.created"]) || unchanged(done, run),
        // The same verdict again is acknowledged and leaves nothing new.
        What::Approve | What::Decline => {
            let approved = (op.invoke.what == What::Approve).into();
            run.rows.iter().any(|row| {
                row.kind() == "patch.decided"
                    && text(&row.event, "patch_id") == says(done, "patch_id")
                    && row.event.get("approved") == Some(&approved)
            })
        }
        What::Revoke => follows(&["patch.revoked"]),
        // The same verdict again is acknowledged and leaves nothing new.
        What::Decide => follows(&["approval.decided"]) || done.replayed,
        What::Complete => follows(&["node.completed"]),
        What::Fail => follows(&["node.retry_scheduled", "node.failed", "node.fell_back"]),
        // One that was asked for already is acknowledged and leaves nothing new.
        What::Cancel => has(&["run.cancel_requested", "run.cancelled"]),
        What::Terminate => has(&["run.cancelled"]),
        What::Pause => has(&["run.paused"]),
        What::Resume | What::Poll | What::Read => true,
    };
    if !there {
        let what = format!("operation {} was acknowledged and {id} has no event of it", op.invoke.op);
        let lines = op.lines().into_iter().chain([run.line]).collect();
        findings.add("lost_acknowledgement", lines, what);
    }
}

/// Was it a patch that would change nothing? It is acknowledged and leaves nothing: the answer names no patch, and the graph as it is.
fn unchanged(done: &Done, run: &Dumped) -> bool {
    let versions = run.rows.iter().filter(|row| matches!(row.kind(), "run.started" | "patch.applied"));
    let stands = versions.take_while(|row| Some(row.seq()) <= done.seq).last();
    let hash = says(done, "hash");
    says(done, "patch_id").is_empty()
        && !hash.is_empty()
        && stands.is_some_and(|row| text(&row.event, "hash") == hash)
}

/// I-2: every event that somebody must have asked for was asked for, and not refused, and not more often.
fn causes(history: &History, tokens: &Tokens<'_>, findings: &mut Findings) {
    let mut asked: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history.ops.values() {
        history.step();
        if let Some(token) = op.invoke.token.as_deref() {
            asked.entry(token).or_default().push(op);
        }
    }
    let answers: BTreeMap<&str, usize> =
        history.calls.iter().filter_map(|(line, call)| Some((call.answer.as_deref()?, *line))).collect();
    for (token, places) in tokens {
        history.step();
        let ops = asked.get(token).map(Vec::as_slice).unwrap_or_default();
        let lines = || places.iter().map(|(_, row)| row.line);
        let possible = ops.iter().filter(|op| op.may_have_happened()).count();
        let answered = usize::from(answers.contains_key(token));
        if possible + answered == 0 {
            let why = if ops.is_empty() { "nobody asked for" } else { "was refused" };
            let all = lines().chain(ops.iter().flat_map(|op| op.lines())).collect();
            findings.add("phantom_event", all, format!("{token} {why} is in the history"));
        }
        let keyed = ops.iter().any(|op| op.invoke.key.is_some());
        // A signal's payload is the output of the node that waited for it: events of one kind count.
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        places.iter().for_each(|(_, row)| *kinds.entry(row.kind()).or_default() += 1);
        let most = kinds.into_values().max().unwrap_or(0);
        if !keyed && most > (possible + answered).max(1) {
            let all = lines().chain(ops.iter().flat_map(|op| op.lines())).collect();
            let what = format!("{token} was sent {possible} times and stands in {most} events of a kind");
            findings.add("doubled_operation", all, what);
        }
    }
    others(history, findings);
}

/// Events without a token that have a cause all the same.
fn others(history: &History, findings: &mut Findings) {
    let polled: std::collections::BTreeSet<&str> = history
        .ops
        .values()
        .filter(|op| op.invoke.what == What::Poll)
        .map(|op| &*op.invoke.process)
        .collect();
    let broke = |kind| matches!(kind, FaultKind::Kill | FaultKind::Stop | FaultKind::Cut);
    let broken = history.faults.iter().any(|fault| broke(fault.what));
    for run in history.last().into_iter().flat_map(|dump| dump.runs.values()) {
        let child = run.rows.iter().any(|row| row.kind() == "run.linked");
        for (index, row) in run.rows.iter().enumerate() {
            history.step();
            let id = &run.run.run;
            match row.kind() {
                "run.started" if index == 0 && !child && row.token().is_none() => {
                    findings.add("phantom_event", vec![row.line], format!("nobody started {id}"));
                }
                "node.leased" if !polled.contains(text(&row.event, "worker")) => {
                    let what = format!("{} of {id} was given to somebody who never asked", row.node());
                    findings.add("phantom_event", vec![row.line], what);
                }
                "node.lost" if !broken => {
                    let what = format!("{} of {id}", row.node());
                    findings.add("lost_without_fault", vec![row.line], what);
                }
                _ => {}
            }
        }
    }
}

/// A child is one that its parent waits for, or waited for.
fn children(history: &History, findings: &mut Findings) {
    let runs = || history.last().into_iter().flat_map(|dump| dump.runs.values());
    let mut known = std::collections::BTreeSet::new();
    for row in runs().flat_map(|run| &run.rows) {
        history.step();
        known.insert(text(&row.event, "child"));
    }
    for run in runs() {
        let linked = run.rows.iter().take(3).find(|row| row.kind() == "run.linked");
        if let Some(linked) = linked.filter(|_| !known.contains(&*run.run.run)) {
            let what = format!("{} of {}", run.run.run, text(&linked.event, "parent"));
            findings.add("orphan_child", vec![linked.line], what);
        }
    }
}
