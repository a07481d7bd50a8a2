//! What was read, in the order of real time: I-14, I-15, I-20, and that nothing seen gets older.

use std::collections::BTreeMap;

use crate::history::{History, Op, is_terminal};
use crate::record::{Done, What};
use crate::report::Findings;

/// The newest of a run that somebody has seen.
#[derive(Clone, Copy)]
struct Seen {
    seq: u64,
    line: usize,
    ended: Option<usize>,
}

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let mut newest: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut floors: BTreeMap<u64, Seen> = BTreeMap::new();
    for (number, begins) in &history.order {
        history.step();
        let Some(op) = history.ops.get(number) else { continue };
        if *begins {
            let run = op.invoke.run.as_deref();
            if let Some(seen) = run.and_then(|run| newest.get(run)) {
                floors.insert(*number, *seen);
            }
            continue;
        }
        let floor = floors.remove(number);
        let Some(done) = op.done() else { continue };
        let (Some(run), Some(seq)) = (done.run.as_deref().or(op.invoke.run.as_deref()), done.seq) else {
            continue;
        };
        read(history, (op, done), (run, seq, floor), findings);
        // What a repeated start is answered with is as old as the start.
        if done.replayed {
            continue;
        }
        let line = op.end.unwrap_or(op.line);
        let ended = done.status.as_deref().is_some_and(is_terminal).then_some(line);
        let seen = newest.entry(run).or_insert(Seen { seq, line, ended });
        if seq > seen.seq {
            (seen.seq, seen.line) = (seq, line);
        }
        seen.ended = seen.ended.or(ended);
    }
}

fn read(
    history: &History,
    (op, done): (&Op, &Done),
    (run, seq, floor): (&str, u64, Option<Seen>),
    findings: &mut Findings,
) {
    let number = op.invoke.op;
    if let Some(floor) = floor.filter(|_| !done.replayed) {
        let lines = |line: usize| op.lines().into_iter().chain([line]).collect::<Vec<_>>();
        let status = done.status.as_deref().unwrap_or_default();
        match floor.ended {
            Some(line) if !status.is_empty() && !is_terminal(status) => {
                let what = format!("{run} had ended and is {status} in operation {number}");
                findings.add("unfinished_again", lines(line), what);
            }
            _ if seq < floor.seq => {
                let what =
                    format!("operation {number} shows event {seq} of {run}; {} was seen before", floor.seq);
                findings.add("stale_read", lines(floor.line), what);
            }
            _ => {}
        }
    }
    if op.invoke.min_seq.is_some_and(|min_seq| seq < min_seq) {
        let what = format!("operation {number} shows event {seq} of {run}");
        findings.add("read_below_min_seq", op.lines(), what);
    }
    if op.invoke.what != What::Read || history.last().is_none() {
        return;
    }
    let there = history.run(run);
    if there.is_none_or(|there| there.row(seq).is_none()) {
        let what = format!("operation {number} shows event {seq} of {run}, which is not there in the end");
        let lines = op.lines().into_iter().chain(there.map(|there| there.line)).collect();
        return findings.add("dirty_read", lines, what);
    }
    let status = done.status.as_deref().unwrap_or_default();
    if let Some(there) = there.filter(|there| is_terminal(status) && there.status() != status) {
        let what = format!("{run} was {status} in operation {number} and is {} in the end", there.status());
        let lines = op.lines().into_iter().chain([there.line]).collect();
        findings.add("changed_end", lines, what);
    }
}
