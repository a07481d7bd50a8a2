//! The idempotency key, the one thing that clients contend for (I-4): one run or one effect, one answer, and an order of the
//! requests that explains all answers.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{History, Op, Outcome};
use crate::linear::{self, Answer, Asked};
use crate::record::What;
use crate::report::Findings;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let mut by_key: BTreeMap<&str, Vec<&Op>> = BTreeMap::new();
    for op in history.ops.values() {
        history.step();
        if let Some(key) = op.invoke.key.as_deref() {
            by_key.entry(key).or_default().push(op);
        }
    }
    let stands = places(history);
    let mut started: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    for run in history.last().into_iter().flat_map(|dump| dump.runs.values()) {
        history.step();
        if let Some((token, row)) = run.rows.first().and_then(|row| Some((row.token()?, row))) {
            started.entry(token).or_default().push((&run.run.run, row.line));
        }
    }
    for (key, ops) in by_key {
        match ops.iter().any(|op| op.invoke.what == What::Start) {
            true => runs(history, (key, &ops), &started, findings),
            false => effects(history, (key, &ops), &stands, findings),
        }
        answers(history, (key, &ops), findings);
        order(history, key, &ops, findings);
    }
}

/// All runs that a key stands for, by answers and by what there is.
fn runs(
    history: &History,
    (key, ops): (&str, &[&Op]),
    started: &BTreeMap<&str, Vec<(&str, usize)>>,
    findings: &mut Findings,
) {
    let mut found: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for op in ops {
        if let Some(run) = history.lasting(op).and_then(|done| done.run.as_deref()) {
            found.entry(run).or_default().extend(op.lines());
        }
        let token = op.invoke.token.as_deref().unwrap_or_default();
        for (run, line) in started.get(token).into_iter().flatten() {
            found.entry(run).or_default().push(*line);
        }
    }
    if found.len() > 1 {
        let what = format!("{key} stands for {}", found.keys().copied().collect::<Vec<_>>().join(" and "));
        let lines = found.into_values().filter_map(|lines| lines.into_iter().max()).collect();
        findings.add("two_runs_for_a_key", lines, what);
    }
}

/// Where tokens stand in the last dump: lines of events of one kind in one run.
type Places<'h> = BTreeMap<&'h str, BTreeMap<(&'h str, &'h str), Vec<usize>>>;

fn places(history: &History) -> Places<'_> {
    let mut places = Places::new();
    for run in history.last().into_iter().flat_map(|dump| dump.runs.values()) {
        for row in &run.rows {
            history.step();
            if let Some(token) = row.token() {
                let of_token = places.entry(token).or_default();
                of_token.entry((run.run.run.as_str(), row.kind())).or_default().push(row.line);
            }
        }
    }
    places
}

/// What is asked of a run under a key stands there once.
fn effects(history: &History, (key, ops): (&str, &[&Op]), places: &Places<'_>, findings: &mut Findings) {
    let tokens: BTreeSet<&str> = ops.iter().filter_map(|op| op.invoke.token.as_deref()).collect();
    let mut doubled = Vec::new();
    for token in tokens {
        history.step();
        let of_token = places.get(token).into_iter().flatten();
        let most = of_token.map(|(_, lines)| lines).max_by_key(|lines| lines.len());
        doubled.extend(most.into_iter().flatten().copied());
    }
    if doubled.len() > 1 {
        let lines = doubled.into_iter().chain(ops.iter().flat_map(|op| op.lines())).collect();
        findings.add("two_effects_for_a_key", lines, format!("{key} had more than one effect"));
    }
}

/// All acknowledgements under a key are the same.
fn answers(history: &History, (key, ops): (&str, &[&Op]), findings: &mut Findings) {
    let mut first: Option<&Op> = None;
    for op in ops {
        let Some(done) = history.lasting(op) else { continue };
        let Some((before, said)) = first.and_then(|before| Some((before, before.done()?))) else {
            first = Some(op);
            continue;
        };
        let same_run = said.run == done.run;
        if same_run && (&said.body, said.seq, said.epoch) != (&done.body, done.seq, done.epoch) {
            let lines = before.lines().into_iter().chain(op.lines()).collect();
            findings.add("replay_differs", lines, format!("{key} was answered in two ways"));
        }
    }
}

fn order(history: &History, key: &str, ops: &[&Op], findings: &mut Findings) {
    let mut asked = Vec::new();
    for op in ops {
        let lost = op.end.is_some_and(|line| history.may_be_lost(line));
        let answer = match &op.outcome {
            // It was so, and may be so no more.
            Outcome::Ok(_) if lost => Answer::Unknown,
            Outcome::Fail(_) if lost => continue,
            Outcome::Ok(done) if done.replayed => Answer::Replayed,
            Outcome::Ok(_) => Answer::Fresh,
            Outcome::Unknown => Answer::Unknown,
            Outcome::Fail(code) if code == "idempotency_key_reused" => Answer::Reused,
            // It did not happen.
            Outcome::Fail(_) => continue,
        };
        let ends = op.end.filter(|_| answer != Answer::Unknown).unwrap_or(usize::MAX);
        let request = op.invoke.token.as_deref().unwrap_or_default();
        asked.push(Asked { begins: op.line, ends, request, answer });
    }
    if let Some(culprits) = linear::check(&mut asked, &mut || history.step()) {
        let what = format!("no order of the requests under {key} explains their answers");
        findings.add("not_linearizable", culprits, what);
    }
}
