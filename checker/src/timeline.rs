//! What must hold within each run of the last dump: I-3 (no gaps), I-5, I-8, I-12, I-19 (attempts).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::fold::{self, Change};
use crate::history::{Dumped, History, Row, is_terminal, milliseconds, text};
use crate::outages::Outages;
use crate::report::Findings;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let Some(dump) = history.last() else { return };
    let outages = Outages::of(history);
    for run in dump.runs.values() {
        numbers(history, run, findings);
        end(run, findings);
        let mut fold = Fold::new(run, Known::of(history, run, &outages), findings);
        for row in &run.rows {
            history.step();
            fold.event(row);
        }
        if !run.listed() {
            findings.add("unlisted_run", vec![run.line], format!("{} is not in the listing", run.run.run));
        }
    }
}

impl Dumped {
    fn listed(&self) -> bool {
        self.run.listed
    }
}

fn numbers(history: &History, run: &Dumped, findings: &mut Findings) {
    let id = &run.run.run;
    let mut before: Option<&Row> = None;
    for row in &run.rows {
        history.step();
        let wanted = before.map_or(1, |before| before.seq() + 1);
        let lines: Vec<usize> = before.iter().map(|row| row.line).chain([row.line]).collect();
        if row.seq() != wanted {
            let what = format!("event {} of {id} stands where {wanted} should", row.seq());
            findings.add("gap", lines.clone(), what);
        }
        if let Some(before) = before
            && text(&before.event, "at") > text(&row.event, "at")
        {
            findings.add("time_went_back", lines, format!("event {} of {id} is older", row.seq()));
        }
        before = Some(row);
    }
    if before.map_or(0, Row::seq) != run.seq() {
        let lines = std::iter::once(run.line).chain(before.map(|row| row.line)).collect();
        findings.add("gap", lines, format!("{id} says that it has {} events", run.seq()));
    }
}

fn end(run: &Dumped, findings: &mut Findings) {
    let id = &run.run.run;
    let ends = |row: &&Row| matches!(row.kind(), "run.completed" | "run.failed" | "run.cancelled");
    let Some(end) = run.rows.iter().find(ends) else {
        if is_terminal(run.status()) {
            let what = format!("{id} is {} and no event says so", run.status());
            findings.add("wrong_status", vec![run.line], what);
        }
        return;
    };
    if end.kind() != format!("run.{}", run.status()) {
        let what = format!("{id} is {} and its end is {}", run.status(), end.kind());
        findings.add("wrong_status", vec![run.line, end.line], what);
    }
    if let Some(last) = run.rows.last().filter(|last| last.line != end.line) {
        let what = format!("{id} ended with event {}, and {} follows", end.seq(), last.kind());
        findings.add("event_after_end", vec![end.line, last.line], what);
    }
}

/// For each node of the outermost scope: the nodes it waits for, and whether one of them is enough.
type Before = BTreeMap<String, (Vec<String>, bool)>;

/// What is known of a run besides its events.
struct Known<'a> {
    before: Before,
    /// What it runs, until a patch changes that.
    document: Option<Cow<'a, Value>>,
    /// What it runs then.
    changes: Vec<Change<'a>>,
    outages: &'a Outages,
    /// Nothing of a paused run is late.
    paused: bool,
}

impl<'a> Known<'a> {
    fn of(history: &'a History, run: &'a Dumped, outages: &'a Outages) -> Self {
        let has = |kind: &str| run.rows.iter().any(|row| row.kind() == kind);
        let document = fold::base(history, run).map(Cow::Borrowed);
        let before = document.as_deref().map(before).unwrap_or_default();
        let mut changes = fold::changes(history, run);
        changes.reverse();
        Self { before, document, changes, outages, paused: has("run.paused") }
    }

    /// The graph is another from here on. What became of it may be unknown: then nothing is said of it.
    fn changed(&mut self) {
        let document = self.changes.pop().and_then(|change| change.document.ok());
        self.before = document.as_ref().map(before).unwrap_or_default();
        self.document = document.map(Cow::Owned);
    }
}

fn before(document: &Value) -> Before {
    let mut before = Before::new();
    for edge in fold::edges(document) {
        let (from, to) = (text(edge, "from"), text(edge, "to"));
        let wait = document.pointer(&format!("/nodes/{to}/with/wait"));
        let any = wait.is_some_and(|wait| wait != "all");
        before.entry(to.to_owned()).or_insert_with(|| (Vec::new(), any)).0.push(from.to_owned());
    }
    before
}

/// One node as far as its events say.
#[derive(Default)]
struct Node {
    attempts: u64,
    /// Attempts that were over when the turn of an agent began: each turn has all of them.
    earlier: u64,
    started: Option<usize>,
    /// Line and time of what it waits for.
    due: Option<(usize, String)>,
    /// The due time that fired already.
    fired: Option<usize>,
    retry: Option<(usize, String)>,
}

struct Fold<'a> {
    id: &'a str,
    known: Known<'a>,
    nodes: BTreeMap<String, Node>,
    outcomes: BTreeMap<String, usize>,
    cancelled: Option<usize>,
    findings: &'a mut Findings,
}

impl<'a> Fold<'a> {
    fn new(run: &'a Dumped, known: Known<'a>, findings: &'a mut Findings) -> Self {
        let (nodes, outcomes) = Default::default();
        Self { id: &run.run.run, known, nodes, outcomes, cancelled: None, findings }
    }

    fn event(&mut self, row: &Row) {
        let node = row.node().to_owned();
        match row.kind() {
            "node.started" => self.started(row, &node),
            "node.completed" | "node.failed" | "node.skipped" => self.outcome(row, &node),
            "node.fell_back" => self.forget_passes(&node),
            "timer.fired" => self.fired(row, &node),
            "model.answered" | "tool.returned" => {
                let state = self.nodes.entry(node.clone()).or_default();
                state.earlier = state.attempts.saturating_sub(1);
            }
            "run.cancel_requested" => self.cancelled = Some(row.line),
            "patch.applied" => self.known.changed(),
            _ => {}
        }
        let due = text(&row.event, "due");
        if due.is_empty() || node.is_empty() {
            return;
        }
        let state = self.nodes.entry(node).or_default();
        if row.kind() == "node.retry_scheduled" {
            state.retry = Some((row.line, due.to_owned()));
        }
        state.due = Some((row.line, due.to_owned()));
        state.fired = None;
    }

    fn started(&mut self, row: &Row, node: &str) {
        let attempt = row.event.get("attempt").and_then(Value::as_u64).unwrap_or(1);
        if let Some(line) = self.outcomes.get(node) {
            let what = format!("{node} of {} had its outcome and begins again", self.id);
            self.findings.add("started_after_outcome", vec![*line, row.line], what);
        }
        if let Some(line) = self.cancelled {
            let what = format!("{node} of {} begins after the cancel", self.id);
            self.findings.add("started_after_cancel", vec![line, row.line], what);
        }
        let state = self.nodes.entry(node.to_owned()).or_default();
        if attempt != state.attempts + 1 {
            let what = format!("attempt {attempt} of {node} of {} follows {}", self.id, state.attempts);
            let lines = state.started.into_iter().chain([row.line]).collect();
            self.findings.add("attempt_out_of_order", lines, what);
        }
        if let Some((line, due)) = state.retry.take()
            && text(&row.event, "at") < due.as_str()
        {
            let what = format!("{node} of {} was to begin again at {due}", self.id);
            self.findings.add("early_retry", vec![line, row.line], what);
        }
        (state.attempts, state.started) = (attempt, Some(row.line));
        let earlier = state.earlier;
        let policy = format!("/nodes/{node}/retry/max_attempts");
        let max = self
            .known
            .document
            .as_deref()
            .and_then(|document| document.pointer(&policy))
            .and_then(Value::as_u64);
        if max.is_some_and(|max| attempt.saturating_sub(earlier) > max) {
            let what = format!("attempt {attempt} of {node} of {}, which has {max:?}", self.id);
            self.findings.add("too_many_attempts", vec![row.line], what);
        }
        if attempt > 1 {
            self.forget_passes(node);
        }
        self.inputs(row, node);
    }

    /// Everything that leads to it is settled (I-8).
    fn inputs(&mut self, row: &Row, node: &str) {
        let Some((sources, any)) = self.known.before.get(node) else { return };
        let open: Vec<&String> = sources.iter().filter(|from| !self.outcomes.contains_key(*from)).collect();
        if open.is_empty() || (*any && open.len() < sources.len()) {
            return;
        }
        let what = format!("{node} of {} began before {open:?} had settled", self.id);
        self.findings.add("dispatch_before_inputs", vec![row.line], what);
    }

    fn outcome(&mut self, row: &Row, node: &str) {
        if let Some(line) = self.outcomes.insert(node.to_owned(), row.line) {
            let what = format!("{node} of {} has two outcomes", self.id);
            self.findings.add("two_outcomes", vec![line, row.line], what);
        }
        // A pass as a whole has no beginning of its own.
        let inner = node.contains(['[', '.']);
        let started = self.nodes.get(node).is_some_and(|state| state.started.is_some());
        if row.kind() == "node.completed" && !inner && !started {
            let what = format!("{node} of {} is done and never began", self.id);
            self.findings.add("outcome_without_start", vec![row.line], what);
        }
    }

    /// The node begins anew, and with it everything in it.
    fn forget_passes(&mut self, node: &str) {
        let prefix = format!("{node}[");
        let inside = |path: &String| path.starts_with(&prefix);
        let gone: BTreeSet<String> = self
            .nodes
            .range(prefix.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| inside(path))
            .cloned()
            .collect();
        let settled = self.outcomes.range(prefix.clone()..).map(|(path, _)| path);
        let settled: Vec<String> = settled.take_while(|path| inside(path)).cloned().collect();
        for path in gone.into_iter().chain(settled) {
            self.nodes.remove(&path);
            self.outcomes.remove(&path);
        }
    }

    fn fired(&mut self, row: &Row, node: &str) {
        let state = self.nodes.entry(node.to_owned()).or_default();
        if let Some((line, due)) = &state.due
            && text(&row.event, "at") < due.as_str()
        {
            let what = format!("a timer of {node} of {} was due at {due}", self.id);
            self.findings.add("early_timer", vec![*line, row.line], what);
        }
        if let Some((line, due)) = &state.due
            && let (Some(due_ms), Some(at_ms)) = (milliseconds(due), milliseconds(text(&row.event, "at")))
            && !self.known.paused
            && self.known.outages.is_late(due_ms, at_ms)
        {
            let what = format!("a timer of {node} of {} was due at {due}", self.id);
            self.findings.add("late_timer", vec![*line, row.line], what);
        }
        if let Some(line) = state.fired.replace(row.line) {
            let what = format!("a timer of {node} of {} fired twice", self.id);
            self.findings.add("timer_fired_twice", vec![line, row.line], what);
        }
    }
}
