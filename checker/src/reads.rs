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
    // The newest last; what a power cut takes at level `os` uncovers what was seen before.
    let mut newest: BTreeMap<&str, Vec<Seen>> = BTreeMap::new();
    let mut floors: BTreeMap<u64, Seen> = BTreeMap::new();
    for (number, begins) in &history.order {
        history.step();
        let Some(op) = history.ops.get(number) else { continue };
        if *begins {
            let run = op.invoke.run.as_deref();
            let seen = run.and_then(|run| standing(history, newest.get_mut(run)?, op.line));
            if let Some(seen) = seen {
                floors.insert(*number, seen);
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
        let all = newest.entry(run).or_default();
        match standing(history, all, line) {
            None => all.push(Seen { seq, line, ended }),
            Some(seen) if seq > seen.seq || (seen.ended.is_none() && ended.is_some()) => {
                all.push(Seen { seq: seq.max(seen.seq), line, ended: seen.ended.or(ended) });
            }
            Some(_) => {}
        }
    }
}

/// The newest that was seen and was not lost before this line.
fn standing(history: &History, all: &mut Vec<Seen>, line: usize) -> Option<Seen> {
    while all.pop_if(|seen| history.is_lost(seen.line, line)).is_some() {
        history.step();
    }
    all.last().copied()
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
    let lost = op.end.is_some_and(|line| history.may_be_lost(line));
    if op.invoke.what != What::Read || history.last().is_none() || lost {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    /// What is wrong when event 3 was seen, then event 5, then from `from_us` on things were lost, then `again` is seen.
    fn wrong(from_us: u64, again: u64) -> BTreeSet<&'static str> {
        let read = |op: u64, at_us: u64, seq: u64| {
            let asked = json!({"kind": "invoke", "at_us": at_us, "op": op, "process": "c", "what": "read", "run": "r"});
            let told = json!({"kind": "ok", "at_us": at_us + 1, "op": op, "run": "r", "seq": seq, "status": "running"});
            [asked, told]
        };
        let head = json!({"kind": "head", "version": 1, "seed": 1, "durability": "os", "clock_slack_ms": 0});
        let lost = json!({"kind": "fault", "at_us": 30, "what": "loss_window", "from_us": from_us});
        let before = std::iter::once(head).chain(read(1, 10, 3)).chain(read(2, 20, 5));
        let all = before.chain([lost]).chain(read(3, 40, again)).chain(read(4, 50, again));
        let text: Vec<String> = all.map(|line| line.to_string()).collect();
        crate::check(&text.join("\n")).unwrap().names()
    }

    #[test]
    fn what_was_lost_by_leave_may_be_read_older_and_nothing_else() {
        assert_eq!(wrong(15, 3), BTreeSet::new());
        assert_eq!(wrong(21, 4), BTreeSet::new(), "the answer counts, not the question");
        assert_eq!(wrong(15, 2), BTreeSet::from(["stale_read"]), "3 had been seen before");
        assert_eq!(wrong(22, 3), BTreeSet::from(["stale_read"]), "5 had been seen before");
    }
}
