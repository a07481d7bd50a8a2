//! A history that has been read: records by line, and what belongs together, found in one pass.
//!
//! Bad input is an error with its line, never a violation and never a panic: a history that is not one was not checked.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::record::{Call, Done, FaultKind, Head, Invoke, Record, Run, VERSION};

/// A line that does not belong in a history.
#[derive(Debug, PartialEq, Eq)]
pub struct BadInput {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for BadInput {}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Acknowledged.
    Ok(Box<Done>),
    /// Refused, with this code.
    Fail(String),
    /// Nobody knows, or nobody ever heard.
    Unknown,
}

/// An operation: where it begins and ends, and how.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) line: usize,
    pub(crate) end: Option<usize>,
    pub(crate) invoke: Invoke,
    pub(crate) outcome: Outcome,
}

impl Op {
    /// May it have had an effect?
    pub(crate) fn may_have_happened(&self) -> bool {
        !matches!(self.outcome, Outcome::Fail(_))
    }

    /// The answer, when it was acknowledged.
    pub(crate) fn done(&self) -> Option<&Done> {
        if let Outcome::Ok(done) = &self.outcome { Some(done) } else { None }
    }

    /// Its lines.
    pub(crate) fn lines(&self) -> Vec<usize> {
        std::iter::once(self.line).chain(self.end).collect()
    }
}

/// An event of a run, in a dump.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) line: usize,
    pub(crate) event: Value,
}

impl Row {
    pub(crate) fn kind(&self) -> &str {
        text(&self.event, "type")
    }

    pub(crate) fn node(&self) -> &str {
        text(&self.event, "node")
    }

    pub(crate) fn seq(&self) -> u64 {
        self.event.get("seq").and_then(Value::as_u64).unwrap_or(0)
    }

    /// The token that this event carries, where its type carries one.
    pub(crate) fn token(&self) -> Option<&str> {
        let at = match self.kind() {
            "run.started" => "/inputs/token",
            "signal.received" => "/payload/token",
            "patch.created" | "patch.held" => "/justification",
            "run.cancel_requested"
            | "run.paused"
            | "patch.revoked"
            | "patch.decided"
            | "approval.decided" => "/reason",
            "node.retry_scheduled" | "node.failed" | "node.fell_back" => "/error/message",
            "node.completed" if self.event.pointer("/output/token").is_some() => "/output/token",
            "node.completed" => "/output/body/answer",
            _ => return None,
        };
        self.event.pointer(at).and_then(Value::as_str).filter(|token| token.starts_with("t:"))
    }
}

/// A run in a dump.
#[derive(Clone, Debug)]
pub(crate) struct Dumped {
    pub(crate) line: usize,
    pub(crate) run: Run,
    pub(crate) rows: Vec<Row>,
}

impl Dumped {
    pub(crate) fn status(&self) -> &str {
        text(&self.run.body, "status")
    }

    pub(crate) fn seq(&self) -> u64 {
        self.run.body.get("seq").and_then(Value::as_u64).unwrap_or(0)
    }

    /// The event with this number, where there are no gaps.
    pub(crate) fn row(&self, seq: u64) -> Option<&Row> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.rows.get(at)
    }
}

/// All runs at one time.
#[derive(Clone, Debug)]
pub(crate) struct Dump {
    pub(crate) line: usize,
    pub(crate) still: bool,
    pub(crate) runs: BTreeMap<String, Dumped>,
}

/// A stream connection: where it was opened, and what came.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) line: usize,
    pub(crate) run: String,
    pub(crate) after: u64,
    pub(crate) workspace: Option<String>,
    pub(crate) events: Vec<(usize, u64, Value)>,
}

/// What was done to the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) at_us: u64,
    pub(crate) what: FaultKind,
    pub(crate) wall_ms: Option<u64>,
}

/// A whole history.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) head: Head,
    pub(crate) ops: BTreeMap<u64, Op>,
    /// Begins and ends of operations in the order of the file.
    pub(crate) order: Vec<(u64, bool)>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) calls: Vec<(usize, Call)>,
    pub(crate) faults: Vec<Fault>,
    /// First and last lines of the times in which acknowledgements may be lost.
    losses: Vec<(usize, usize)>,
    pub(crate) dumps: Vec<Dump>,
    pub(crate) documents: BTreeMap<String, Value>,
    steps: Cell<u64>,
}

/// A text member, empty when it is not there.
pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// `2027-01-15T08:00:00.123Z` in milliseconds since 1970.
pub(crate) fn milliseconds(at: &str) -> Option<u64> {
    let part = |from: usize, to: usize| at.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    // Days from a year that begins in March: leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + part(11, 13)? * 3_600 + part(14, 16)? * 60 + part(17, 19)?;
    u64::try_from(seconds * 1_000 + part(20, 23)?).ok()
}

/// Has a run with this status ended?
pub(crate) fn is_terminal(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

impl History {
    /// Reads a history, one JSON object on each line.
    pub(crate) fn read(source: &str) -> Result<Self, BadInput> {
        let mut lines = source.lines().enumerate();
        let bad = |line: usize, why: String| BadInput { line, why };
        let first = lines.next().ok_or_else(|| bad(1, String::from("the history is empty")))?;
        let head = match serde_json::from_str(first.1).map_err(|error| bad(1, error.to_string()))? {
            Record::Head(head) if head.version == VERSION => head,
            Record::Head(head) => {
                let why = format!("version {} is not known; this checker reads {VERSION}", head.version);
                return Err(bad(1, why));
            }
            _ => return Err(bad(1, String::from("a history begins with its head"))),
        };
        let mut reader = Reader {
            history: Self {
                head,
                ops: BTreeMap::new(),
                order: Vec::new(),
                streams: BTreeMap::new(),
                calls: Vec::new(),
                faults: Vec::new(),
                losses: Vec::new(),
                dumps: Vec::new(),
                documents: BTreeMap::new(),
                steps: Cell::new(0),
            },
            at_us: 0,
            times: Vec::new(),
            busy: BTreeSet::new(),
        };
        for (index, line) in lines {
            let record = serde_json::from_str(line).map_err(|error| bad(index + 1, error.to_string()))?;
            reader.take(index + 1, record).map_err(|why| bad(index + 1, why))?;
        }
        Ok(reader.history)
    }

    /// Counts one thing looked at: the whole of them must stay linear in the length of the history.
    pub(crate) fn step(&self) {
        self.steps.set(self.steps.get() + 1);
    }

    /// Things looked at so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Was what this line saw lost again before that line, as level `os` allows by a power cut?
    pub(crate) fn is_lost(&self, line: usize, before: usize) -> bool {
        self.losses.iter().any(|(first, last)| (*first..=*last).contains(&line) && *last < before)
    }

    /// May what this line saw be lost in the end?
    pub(crate) fn may_be_lost(&self, line: usize) -> bool {
        self.is_lost(line, usize::MAX)
    }

    /// The answer of an operation, when it was acknowledged and lasts.
    pub(crate) fn lasting<'a>(&self, op: &'a Op) -> Option<&'a Done> {
        op.done().filter(|_| !op.end.is_some_and(|line| self.may_be_lost(line)))
    }

    /// What there is in the end.
    pub(crate) fn last(&self) -> Option<&Dump> {
        self.dumps.last()
    }

    /// The run in the end.
    pub(crate) fn run(&self, run: &str) -> Option<&Dumped> {
        self.last()?.runs.get(run)
    }
}

/// Reads one record after the other.
struct Reader {
    history: History,
    at_us: u64,
    /// Of lines, in order.
    times: Vec<(u64, usize)>,
    /// Processes with an operation under way.
    busy: BTreeSet<String>,
}

impl Reader {
    fn take(&mut self, line: usize, record: Record) -> Result<(), String> {
        self.history.step();
        if let Some(at_us) = record.at_us() {
            if at_us < self.at_us {
                return Err(format!("time goes back, from {} us to {at_us} us", self.at_us));
            }
            self.at_us = at_us;
            self.times.push((at_us, line));
        }
        match record {
            Record::Head(_) => return Err(String::from("a second head")),
            Record::Invoke(invoke) => return self.invoke(line, invoke),
            Record::Ok(done) => return self.end(line, done.op, Outcome::Ok(Box::new(done))),
            Record::Fail { op, code, .. } => return self.end(line, op, Outcome::Fail(code)),
            Record::Unknown { op, .. } => return self.end(line, op, Outcome::Unknown),
            Record::Open { stream, run, after, workspace, .. } => {
                let opened = Stream { line, run, after, workspace, events: Vec::new() };
                if self.history.streams.insert(stream, opened).is_some() {
                    return Err(format!("stream {stream} is opened twice"));
                }
            }
            Record::Event { stream, seq, event, .. } => {
                self.stream(stream)?.events.push((line, seq, event));
            }
            Record::Resync { stream, .. } | Record::Close { stream, .. } => {
                self.stream(stream)?;
            }
            Record::Call(call) => self.history.calls.push((line, call)),
            Record::Fault { at_us, what, from_us, wall_ms } => {
                if what == FaultKind::LossWindow {
                    let from = self.times.partition_point(|(time, _)| *time < from_us.unwrap_or(at_us));
                    let first = self.times.get(from).map_or(line, |(_, line)| *line);
                    self.history.losses.push((first, line));
                }
                self.history.faults.push(Fault { line, at_us, what, wall_ms });
            }
            dumped => return self.dumped(line, dumped),
        }
        Ok(())
    }

    fn dumped(&mut self, line: usize, record: Record) -> Result<(), String> {
        let count = self.history.dumps.len() as u64;
        let current =
            |given: u64| if given == count { Ok(()) } else { Err(format!("dump {given} is not open")) };
        match record {
            Record::Dump { dump, still, .. } => {
                current(dump.saturating_sub(1))?;
                self.history.dumps.push(Dump { line, still, runs: BTreeMap::new() });
            }
            Record::Run(run) => {
                current(run.dump)?;
                let runs = self.history.dumps.last_mut().map(|dump| &mut dump.runs);
                let id = run.run.clone();
                let doubled = runs.and_then(|runs| runs.insert(id, Dumped { line, run, rows: Vec::new() }));
                if let Some(doubled) = doubled {
                    return Err(format!("{} stands in this dump already", doubled.run.run));
                }
            }
            Record::Row { dump, run, event } => {
                current(dump)?;
                let runs = self.history.dumps.last_mut().and_then(|dump| dump.runs.get_mut(&run));
                let of = runs.ok_or_else(|| format!("{run} is not in this dump"))?;
                of.rows.push(Row { line, event });
            }
            Record::Document { hash, document } => {
                self.history.documents.insert(hash, document);
            }
            _ => {}
        }
        Ok(())
    }

    fn invoke(&mut self, line: usize, invoke: Invoke) -> Result<(), String> {
        if !self.busy.insert(invoke.process.clone()) {
            return Err(format!("{} does two things at a time", invoke.process));
        }
        let op = invoke.op;
        self.history.order.push((op, true));
        let begun = Op { line, end: None, invoke, outcome: Outcome::Unknown };
        match self.history.ops.insert(op, begun) {
            Some(_) => Err(format!("operation {op} begins twice")),
            None => Ok(()),
        }
    }

    fn end(&mut self, line: usize, op: u64, outcome: Outcome) -> Result<(), String> {
        let begun = self.history.ops.get_mut(&op).ok_or_else(|| format!("operation {op} never began"))?;
        if begun.end.is_some() {
            return Err(format!("operation {op} ends twice"));
        }
        (begun.end, begun.outcome) = (Some(line), outcome);
        self.busy.remove(&begun.invoke.process);
        self.history.order.push((op, false));
        Ok(())
    }

    fn stream(&mut self, stream: u64) -> Result<&mut Stream, String> {
        self.history.streams.get_mut(&stream).ok_or_else(|| format!("stream {stream} is not open"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(milliseconds("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(milliseconds("2000-02-29T12:00:00.001Z"), Some(951_825_600_001));
        assert_eq!(milliseconds("2026-11-21T17:38:38.250Z"), Some(1_795_282_718_250));
        assert_eq!(milliseconds("soon"), None);
    }
}
