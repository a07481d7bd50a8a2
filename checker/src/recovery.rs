//! Dumps against each other (I-3, I-17, I-20), and the last one by itself (I-21).

use crate::history::{Dump, Dumped, History, is_terminal};
use crate::record::FaultKind;
use crate::report::Findings;

/// What a run may wait for when nothing goes wrong.
const MAY_WAIT_FOR: [&str; 6] = ["signal", "human", "timer", "outcome", "retry", "child"];

pub(crate) fn check(history: &History, findings: &mut Findings) {
    for (before, after) in history.dumps.iter().zip(history.dumps.iter().skip(1)) {
        for (id, run) in &before.runs {
            history.step();
            match after.runs.get(id) {
                None => {
                    let lines = vec![run.line, after.line];
                    findings.add("lost_run", lines, format!("{id} is not in the next dump"));
                }
                Some(again) => compare(history, run, (after, again), findings),
            }
        }
        if after.still {
            for (id, run) in after.runs.iter().filter(|(id, _)| !before.runs.contains_key(*id)) {
                let what = format!("{id} came out of nothing");
                findings.add("changed_by_recovery", vec![before.line, run.line], what);
            }
        }
    }
    if history.faults.iter().any(|fault| fault.what == FaultKind::Heal) {
        alive(history, findings);
    }
}

fn compare(history: &History, run: &Dumped, (dump, again): (&Dump, &Dumped), findings: &mut Findings) {
    let id = &run.run.run;
    for (index, row) in run.rows.iter().enumerate() {
        history.step();
        match again.rows.get(index) {
            None => {
                let lines = vec![row.line, again.line];
                findings.add("lost_event", lines, format!("event {} of {id}", row.seq()));
                break;
            }
            Some(other) if other.event != row.event => {
                let lines = vec![row.line, other.line];
                findings.add("rewritten_event", lines, format!("event {} of {id}", row.seq()));
            }
            Some(_) => {}
        }
    }
    let lines = vec![run.line, again.line];
    let ended = is_terminal(run.status());
    if ended && !is_terminal(again.status()) {
        findings.add(
            "unfinished_again",
            lines,
            format!("{id} was {} and is {}", run.status(), again.status()),
        );
    } else if ended && run.status() != again.status() {
        findings.add("changed_end", lines, format!("{id} was {} and is {}", run.status(), again.status()));
    } else if (ended || dump.still) && (&run.run.body, run.rows.len()) != (&again.run.body, again.rows.len())
    {
        findings.add("changed_by_recovery", lines, format!("{id} is not what it was"));
    }
}

/// Every run has ended, or waits for somebody.
fn alive(history: &History, findings: &mut Findings) {
    for run in history.last().into_iter().flat_map(|dump| dump.runs.values()) {
        history.step();
        let may_wait = |what: &String| MAY_WAIT_FOR.contains(&what.as_str());
        if !is_terminal(run.status()) && !run.run.waits.iter().any(may_wait) {
            let what = format!("{} is {} and waits for {:?}", run.run.run, run.status(), run.run.waits);
            let last = run.rows.last().map(|row| row.line);
            findings.add("stuck_run", std::iter::once(run.line).chain(last).collect(), what);
        }
    }
}
