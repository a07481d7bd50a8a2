//! What was found: each broken promise by a name that stays, with the lines that show it.

use std::fmt::{self, Write as _};

/// Every name, the invariant of RELIABILITY 5 it belongs to, and what it means.
pub const NAMES: &[(&str, &str, &str)] = &[
    ("lost_acknowledgement", "I-1", "what was acknowledged is not in the last dump"),
    ("wrong_answer", "I-1", "the run has not what its acknowledgement said"),
    ("phantom_event", "I-2", "an event that nobody asked for, or that was refused"),
    ("doubled_operation", "I-2", "one request, several events"),
    ("orphan_child", "I-2", "a child run that its parent does not know"),
    ("lost_without_fault", "I-2", "a call was declared lost though the node never went down"),
    ("gap", "I-3", "the numbers of a run's events are not 1, 2, 3, ..."),
    ("rewritten_event", "I-3", "one number, two events, at two times or two ways of reading"),
    ("lost_event", "I-3", "an event that was there before is not there any more"),
    ("lost_run", "I-3", "a run that was there before is not there any more"),
    ("two_runs_for_a_key", "I-4", "one idempotency key, two runs"),
    ("two_effects_for_a_key", "I-4", "one idempotency key, two effects"),
    ("replay_differs", "I-4", "one idempotency key, two answers"),
    ("not_linearizable", "I-4", "no order of the requests under a key explains their answers"),
    ("two_outcomes", "I-5", "a node has two outcomes"),
    ("event_after_end", "I-5", "an event after the end of its run"),
    ("started_after_outcome", "I-5", "a node begins again that had its outcome"),
    ("outcome_without_start", "I-5", "a node has an outcome and never began"),
    ("attempt_out_of_order", "I-5", "attempts of a node are not 1, 2, 3, ..."),
    ("wrong_status", "I-5", "a run's status is not what its events say"),
    ("time_went_back", "I-5", "an event is older than the one before it"),
    ("started_after_cancel", "I-5", "a node begins after a cancel was asked for"),
    ("effect_without_cause", "I-6", "a call of a run, a node or an attempt that the history does not know"),
    ("effect_before_cause", "I-6", "a call came before the event that caused it"),
    ("too_many_calls", "I-7", "a step was called more often than attempts are recorded"),
    ("doubled_effect", "I-7", "a service that keeps keys had two effects for one"),
    ("repeated_at_most_once", "I-7", "a call that may be made at most once was made again"),
    ("two_keys_for_a_step", "I-7", "attempts of one step carry two keys"),
    ("one_key_for_two_steps", "I-7", "two steps carry one key"),
    ("dispatch_before_inputs", "I-8", "a node began before what it depends on was settled"),
    ("wrong_graph_hash", "I-9", "patches do not give the graph that the run says it has"),
    ("wrong_graph_version", "I-10", "a patch did not make the next version of its run's graph"),
    ("half_a_patch", "I-10", "a patch was asked for and not made, or made and not asked for"),
    ("altered_after_start", "I-10", "a patch altered a node that had begun, or what leads to it"),
    ("held_patch_made", "I-10", "a patch that waits was made, or an approved one not in the same step"),
    ("node_of_no_graph", "I-10", "something happened to a node that the run's graph does not have"),
    ("patch_decided_twice", "I-11", "a patch was decided that did not wait, or no more"),
    ("two_decisions", "I-11", "a review was answered twice, or after its time"),
    ("passed_closed_gate", "I-11", "what stands behind a review began and nobody had approved"),
    ("early_timer", "I-12", "a timer fired before it was due"),
    ("timer_fired_twice", "I-12", "a timer fired twice"),
    ("late_timer", "I-12", "a timer fired too late though the node was there"),
    ("early_retry", "I-12", "an attempt began before its time"),
    ("stream_gap", "I-13", "a stream left events out"),
    ("stream_repeated", "I-13", "a stream gave events again"),
    ("dirty_read", "I-14", "something was seen that is not there in the end"),
    ("stale_read", "I-14", "something older was read than had been seen before"),
    ("read_below_min_seq", "I-15", "an answer does not include what it was asked to"),
    ("wrong_epoch", "I-16", "an acknowledgement carries another epoch than its run"),
    ("epoch_went_back", "I-16", "a later attempt carries an earlier epoch"),
    ("changed_by_recovery", "I-17", "a run is not after a restart what it was before"),
    ("overspent", "I-18", "a run has spent and reserved more than its budget"),
    ("paid_twice", "I-18", "a model is asked, or answers, for a turn of an agent that has its answer"),
    ("unreserved_answer", "I-18", "a model answered a call for which nothing was reserved"),
    ("too_many_attempts", "I-19", "a node was tried more often than its policy allows"),
    ("too_many_nodes", "I-19", "patches grew a graph beyond what its workflow allows"),
    ("unfinished_again", "I-20", "a run that had ended goes on"),
    ("changed_end", "I-20", "a run that had ended has ended otherwise"),
    ("stuck_run", "I-21", "a run neither ended nor waits for anybody though nothing goes wrong"),
    ("unlisted_run", "I-22", "a run is there and not in the listing"),
    ("crossed_workspaces", "I-23", "somebody saw or changed what is in another workspace"),
    ("silent_downgrade", "I-25", "an acknowledgement names another level than the configured one"),
    ("acknowledged_after_failed_sync", "I-25", "an acknowledgement after a failed sync and before a restart"),
];

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// One of [`NAMES`].
    pub name: &'static str,
    /// What happened, in words.
    pub what: String,
    /// The lines that show it, and no others.
    pub lines: Vec<usize>,
}

/// What a check looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Operations begun.
    pub operations: u64,
    /// Those that were acknowledged.
    pub acknowledged: u64,
    /// Those of which nobody knows.
    pub unknown: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Runs in the last dump.
    pub runs: u64,
    /// Their events.
    pub events: u64,
    /// Calls in the ledgers.
    pub calls: u64,
    /// Events that streams delivered.
    pub streamed: u64,
    /// Kills, stops and cuts.
    pub faults: u64,
    /// Things looked at.
    pub steps: u64,
}

/// What came of a check.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was looked at.
    pub counts: Counts,
    /// Broken promises, in the order of the lines that show them first.
    pub violations: Vec<Violation>,
}

impl Report {
    /// Is nothing broken?
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }

    /// Names of what is broken, each once.
    pub fn names(&self) -> std::collections::BTreeSet<&'static str> {
        self.violations.iter().map(|violation| violation.name).collect()
    }

    /// With the lines of the history that show each violation, at most `violations_max` of them.
    pub fn shown(&self, history: &str, violations_max: usize) -> String {
        let lines: Vec<&str> = history.lines().collect();
        let mut text = format!("{self}\n");
        for violation in self.violations.iter().take(violations_max) {
            let invariant = NAMES.iter().find(|(name, ..)| *name == violation.name).map_or("", |row| row.1);
            let _ = writeln!(text, "\n{} ({invariant}): {}", violation.name, violation.what);
            for line in &violation.lines {
                let shown = line.checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or_default();
                let _ = writeln!(text, "  {line}: {shown}");
            }
        }
        if self.violations.len() > violations_max {
            let _ = writeln!(text, "\n... and {} more", self.violations.len() - violations_max);
        }
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { operations, acknowledged, unknown, refused, .. } = self.counts;
        let Counts { runs, events, calls, streamed, faults, .. } = self.counts;
        write!(
            f,
            "{operations} operations ({acknowledged} acknowledged, {refused} refused, {unknown} unknown), {runs} runs, \
             {events} events, {calls} calls, {streamed} streamed, {faults} kills: {} violations",
            self.violations.len()
        )
    }
}

/// Collects what is broken.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Violation>);

impl Findings {
    /// One more.
    pub(crate) fn add(&mut self, name: &'static str, mut lines: Vec<usize>, what: String) {
        debug_assert!(NAMES.iter().any(|(known, ..)| *known == name), "{name} is in no table");
        lines.sort_unstable();
        lines.dedup();
        self.0.push(Violation { name, what, lines });
    }

    /// All, by line.
    pub(crate) fn into_sorted(mut self) -> Vec<Violation> {
        self.0.sort_by(|a, b| (a.lines.first(), a.name, &a.what).cmp(&(b.lines.first(), b.name, &b.what)));
        self.0.dedup();
        self.0
    }
}
