//! What services and workers saw against what the history says caused it: I-6, I-7, I-16 (calls).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::history::{History, Row, milliseconds, text};
use crate::record::Call;
use crate::report::Findings;

/// Times at which one node was handed out, as its history tells.
#[derive(Default)]
struct HandedOut {
    attempt: u64,
    /// Of HTTP calls: each attempt, also the one after the node went down, has its own event.
    calls: Vec<(usize, String)>,
    /// Of jobs: each lease, by attempt.
    leases: BTreeMap<u64, Vec<(usize, String)>>,
}

impl HandedOut {
    fn event(&mut self, row: &Row) {
        let at = (row.line, text(&row.event, "at").to_owned());
        match row.kind() {
            "node.started" => self.attempt = row.event.get("attempt").and_then(Value::as_u64).unwrap_or(1),
            "node.waiting" if text(&row.event, "waiting_for") == "call" => self.calls.push(at),
            "node.lost" => self.calls.push(at),
            "node.leased" => self.leases.entry(self.attempt).or_default().push(at),
            _ => {}
        }
    }

    fn cause(&self, call: &Call) -> Option<&(usize, String)> {
        if call.service == "worker" {
            return self.leases.get(&call.attempt)?.first();
        }
        self.calls.get(usize::try_from(call.attempt.checked_sub(1)?).ok()?)
    }

    fn recorded(&self, worker: bool) -> usize {
        if worker { self.leases.values().map(Vec::len).sum() } else { self.calls.len() }
    }
}

type Steps<'a> = BTreeMap<(&'a str, &'a str), HandedOut>;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let Some(dump) = history.last() else { return };
    let mut steps = Steps::new();
    for run in dump.runs.values() {
        for row in &run.rows {
            history.step();
            if !row.node().is_empty() {
                steps.entry((&run.run.run, row.node())).or_default().event(row);
            }
        }
    }
    let mut by_key: BTreeMap<&str, Vec<&(usize, Call)>> = BTreeMap::new();
    let mut by_step: BTreeMap<(&str, &str), Vec<&(usize, Call)>> = BTreeMap::new();
    for call in &history.calls {
        history.step();
        let (line, of) = call;
        cause(history, &steps, (*line, of), findings);
        by_step.entry((&of.run, &of.node)).or_default().push(call);
        if let Some(key) = &of.key {
            by_key.entry(key).or_default().push(call);
        }
    }
    for (step, calls) in &by_step {
        repeated(history, (step, steps.get(step)), calls, findings);
    }
    for (key, calls) in &by_key {
        keyed(key, calls, findings);
    }
}

/// I-6: there is an event that caused it, and it is older.
fn cause(history: &History, steps: &Steps<'_>, (line, call): (usize, &Call), findings: &mut Findings) {
    let Call { run, node, attempt, .. } = call;
    let handed_out = steps.get(&(run.as_str(), node.as_str()));
    let Some((cause, at)) = handed_out.and_then(|handed_out| handed_out.cause(call)) else {
        let what = format!("attempt {attempt} of {node} of {run} was made and is in no history");
        return findings.add("effect_without_cause", vec![line], what);
    };
    if milliseconds(at).is_some_and(|at| at > call.wall_ms + history.head.clock_slack_ms) {
        let what = format!("attempt {attempt} of {node} of {run} was decided at {at}, after the call");
        findings.add("effect_before_cause", vec![line, *cause], what);
    }
}

/// I-7: as often as recorded at most, and once where it says so.
fn repeated(
    history: &History,
    (step, handed_out): (&(&str, &str), Option<&HandedOut>),
    calls: &[&(usize, Call)],
    findings: &mut Findings,
) {
    let (run, node) = step;
    let lines = || calls.iter().map(|(line, _)| *line).collect::<Vec<_>>();
    let worker = calls.first().is_some_and(|(_, call)| call.service == "worker");
    let recorded = handed_out.map_or(0, |handed_out| handed_out.recorded(worker));
    if calls.len() > recorded && recorded > 0 {
        let what = format!("{node} of {run}: {} calls, {recorded} attempts recorded", calls.len());
        findings.add("too_many_calls", lines(), what);
    }
    let first = history.run(run).and_then(|run| run.rows.first());
    let document = first.and_then(|row| history.documents.get(text(&row.event, "hash")));
    let once = document.and_then(|document| document.pointer(&format!("/nodes/{node}/at_most_once")));
    if once == Some(&Value::Bool(true)) && calls.len() > 1 {
        findings.add("repeated_at_most_once", lines(), format!("{node} of {run}: {} calls", calls.len()));
    }
    let mut key: Option<(&str, usize)> = None;
    for (line, call) in calls {
        history.step();
        let Some(own) = &call.key else { continue };
        match key {
            Some((known, first)) if known != own => {
                findings.add("two_keys_for_a_step", vec![first, *line], format!("{node} of {run}"));
            }
            _ => key = key.or(Some((own, *line))),
        }
    }
}

/// All calls with one key.
fn keyed(key: &str, calls: &[&(usize, Call)], findings: &mut Findings) {
    let effects: Vec<usize> =
        calls.iter().filter(|(_, call)| call.honours && call.effect).map(|(line, _)| *line).collect();
    if effects.len() > 1 {
        findings.add("doubled_effect", effects, format!("{key} had {} effects", calls.len()));
    }
    let mut ordered: Vec<&&(usize, Call)> = calls.iter().collect();
    ordered.sort_by_key(|(line, call)| (call.attempt, call.epoch, *line));
    for (before, after) in ordered.iter().zip(ordered.iter().skip(1)) {
        let ((first, earlier), (second, later)) = (before, after);
        if (&earlier.run, &earlier.node) != (&later.run, &later.node) {
            let what =
                format!("{key}: {} of {} and {} of {}", earlier.node, earlier.run, later.node, later.run);
            findings.add("one_key_for_two_steps", vec![*first, *second], what);
        } else if later.attempt > earlier.attempt && later.epoch < earlier.epoch {
            let what = format!("attempt {} of {key} is of epoch {}", later.attempt, later.epoch);
            findings.add("epoch_went_back", vec![*first, *second], what);
        }
    }
}
