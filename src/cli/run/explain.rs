//! `aob run explain RUN`: what it did, why, what it cost, where it failed; from recorded evidence only.
//!
//! Reads the run, its graph, what it cost, who patched the node that failed, and its timeline page by page up to [`EXPLAIN_EVENTS_MAX`]; what is beyond is not
//! explained, and that is said. [`told`] is pure.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::evidence::{Evidence, Explanation, agents, text};
use super::path;
use crate::cli::Error;
use crate::cli::output::{Output, harmless};
use crate::client::{Call, Client};
use crate::limits::EXPLAIN_EVENTS_MAX;

/// Rows asked for at a time; they carry values, so a page is kept small.
const PAGE_ROWS: u64 = 250;
/// Rows of a part that are shown to a person. Programs get all.
const SHOWN_ROWS: usize = 100;

const TITLE: Style = Style::new().bold();
const QUIET: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// Asks, folds, prints.
pub(super) async fn execute(mut client: Client, run: &str, output: &mut Output) -> Result<(), Error> {
    let about: Value = client.json(Call::get(path(run, ""))).await?;
    let graph: Value = client.json(Call::get(path(run, "/graph"))).await?;
    let mut evidence = Evidence::default();
    let (mut read, mut cursor) = (0_u64, String::from("0"));
    while read < EXPLAIN_EVENTS_MAX {
        let limit = PAGE_ROWS.min(EXPLAIN_EVENTS_MAX - read);
        let page = path(run, &format!("/timeline?cursor={cursor}&limit={limit}"));
        let page: Value = client.json(Call::get(page)).await?;
        let rows = page.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        rows.iter().for_each(|row| evidence.take(row));
        read += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) if !rows.is_empty() => next.clone_into(&mut cursor),
            _ => break,
        }
    }
    let mut explanation = evidence.told(&about, &graph);
    if !explanation.agents.is_empty() {
        explanation.spent = Some(client.json(Call::get(path(run, "/cost"))).await?);
    }
    if let Some(node) = explanation.failure.as_ref().and_then(|failed| failed.node.as_deref()) {
        // Where the versions of the graph cannot be had, the rest still tells.
        let blame: Result<Value, _> = client.json(Call::get(path(run, "/blame"))).await;
        explanation.patched = blame.ok().and_then(|blame| agents::patched(&blame, node).cloned());
    }
    if output.is_table() {
        return output.line(told(&explanation).trim_end());
    }
    output.document(&serde_json::to_value(&explanation).map_err(|error| Error::Invalid(error.to_string()))?)
}

/// The answers for a person.
pub(super) fn told(explanation: &Explanation) -> String {
    let mut out = String::new();
    let after = explanation.duration_ms.map(|millis| format!(", {}", duration(millis))).unwrap_or_default();
    let style = style(&explanation.status);
    let _ = writeln!(
        out,
        "{TITLE}{}@{}{TITLE:#}  {style}{}{style:#}{after}  {QUIET}{}{QUIET:#}",
        explanation.workflow, explanation.version, explanation.status, explanation.run_id
    );
    if explanation.cut {
        let _ = writeln!(
            out,
            "the first {} of {} events (limit explain_events_max); what came later is not explained",
            explanation.events_read, explanation.events_all
        );
    }
    if let Some(waiting) = &explanation.waiting {
        let _ = writeln!(out, "{}", pending(waiting));
    }
    idle(explanation, &mut out);
    did(explanation, &mut out);
    why(explanation, &mut out);
    outside(explanation, &mut out);
    cost(explanation, &mut out);
    failure(explanation, &mut out);
    out
}

/// Why it does not begin.
fn pending(waiting: &Value) -> String {
    let number = |member: &str| waiting.get(member).and_then(Value::as_u64);
    let (key, max) = (harmless(text(waiting, "key")), number("max").unwrap_or_default());
    let ahead = number("ahead").map(|ahead| format!(", {ahead} ahead of it")).unwrap_or_default();
    match number("per_ms") {
        Some(per_ms) => format!("it waits for its turn: key {key} has {max} in {}{ahead}", duration(per_ms)),
        None => {
            let held = number("held").unwrap_or_default();
            let holders = names(waiting, "holders");
            let by = if holders.is_empty() { holders } else { format!(" (by {holders})") };
            format!("it waits for a slot: key {key} has {max}, {held} taken{by}{ahead}")
        }
    }
}

/// Why its nodes do not run; nothing when none waits.
fn idle(explanation: &Explanation, out: &mut String) {
    if explanation.idle.is_empty() {
        return;
    }
    title("What it waits for", out);
    let width = explanation.idle.iter().take(SHOWN_ROWS).map(|idle| idle.node.chars().count()).max();
    let width = width.unwrap_or_default().min(40);
    let rows = explanation.idle.iter().map(|idle| {
        let priority = match idle.priority.as_str() {
            "" | "medium" => String::new(),
            other => format!("  (priority {other})"),
        };
        format!("{:width$}  {}{priority}", idle.node, waits_for(&idle.waiting))
    });
    list(rows, "", out);
}

fn names(waiting: &Value, member: &str) -> String {
    let names = waiting.get(member).and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn waits_for(waiting: &Value) -> String {
    let number = |member: &str| waiting.get(member).and_then(Value::as_u64);
    let names = |member: &str| names(waiting, member);
    let said = match text(waiting, "reason") {
        "edges" => format!("{} to settle", names("nodes")),
        "admission" => String::from("the run to be admitted"),
        "paused" => String::from("the run to be resumed"),
        "cancelling" => String::from("nothing: the run is being cancelled"),
        "turn" => String::from("its turn; its shard is busy"),
        "timer" => String::from("time"),
        "retry" => String::from("its next attempt"),
        "signal" => format!("signal {}", text(waiting, "signal")),
        "human" => format!("a decision of {}", names("reviewers")),
        "passes" => String::from("its items, branches or body"),
        "child" => format!("the end of {}", text(waiting, "run_id")),
        "outcome" => String::from("somebody who knows what became of its call"),
        "worker" => {
            let ahead = number("ahead").map(|ahead| format!(", {ahead} ahead of it")).unwrap_or_default();
            let most = number("max").map(|max| format!(" of {max}")).unwrap_or_default();
            let leased = number("leased").unwrap_or_default();
            format!("a worker of queue {}{ahead}, {leased}{most} leased", text(waiting, "queue"))
        }
        "http_slot" => {
            let host = waiting.get("host").and_then(Value::as_str);
            let host = host.map(|host| format!(" to {host}")).unwrap_or_default();
            let max = number("max").unwrap_or_default();
            format!("a place: {max} calls{host} are under way ({})", text(waiting, "limit"))
        }
        "agent_slot" => {
            let max = number("max").unwrap_or_default();
            format!("its turn: {max} agents of its role are at work ({})", text(waiting, "limit"))
        }
        "answer" => match waiting.get("host").and_then(Value::as_str) {
            Some(host) => format!("the answer of {host}"),
            None => String::from("the answer to its call"),
        },
        other => other.to_owned(),
    };
    let until = waiting.get("until").and_then(Value::as_str);
    let until = until.map(|until| format!(", until {until}")).unwrap_or_default();
    harmless(&format!("{said}{until}"))
}

fn did(explanation: &Explanation, out: &mut String) {
    title("What it did", out);
    let width = explanation.did.iter().take(SHOWN_ROWS).map(|step| step.node.chars().count()).max();
    let width = width.unwrap_or_default().min(40);
    let rows = explanation.did.iter().map(|step| {
        let style = style(&step.outcome);
        let tries = match step.attempts {
            0 | 1 => String::new(),
            many => format!("  {many} attempts"),
        };
        let took = step.duration_ms.map(|millis| format!("  {}", duration(millis))).unwrap_or_default();
        let worker =
            step.worker.as_ref().map(|worker| format!("  by {}", harmless(worker))).unwrap_or_default();
        format!("{:width$}  {style}{}{style:#}{tries}{took}{worker}", step.node, step.outcome)
    });
    let agents = explanation.agents.iter();
    let agents = agents.map(|agent| format!("agent  {}  {}", agent.node, harmless(&agent.told())));
    list(rows.chain(agents), "nothing yet", out);
}

fn why(explanation: &Explanation, out: &mut String) {
    title("Why", out);
    let why = &explanation.why;
    let edges = why.edges.iter().map(|edge| {
        let (style, verdict) = match edge.taken {
            Some(true) => (GOOD, "taken"),
            Some(false) => (QUIET, "not taken"),
            None => (QUIET, "not recorded"),
        };
        let on = if edge.on == "success" { String::new() } else { format!("  on {}", edge.on) };
        let when = edge.when.as_ref().map(|when| format!("  when {when}")).unwrap_or_default();
        format!("edge   {} -> {}  {style}{verdict}{style:#}{on}{when}", edge.from, edge.to)
    });
    let retries = why.retries.iter().map(|retry| {
        let delay = retry.delay_ms.map(|millis| format!(" after {}", duration(millis))).unwrap_or_default();
        format!("retry  {}  again{delay}: {}", retry.node, fault(&retry.error))
    });
    let waits = why.waits.iter().map(|wait| {
        let long = wait.waited_ms.map_or_else(|| String::from("still waits"), duration);
        format!("wait   {}  {}, {long}", wait.node, wait.waited_for)
    });
    let survived = why.survived.iter().map(|failed| {
        format!("went on after  {}  {}", failed.node.as_deref().unwrap_or("-"), fault(&failed.error))
    });
    let turns = explanation.agents.iter().flat_map(|agent| agent.why.iter().map(move |why| (agent, why)));
    let turns = turns.map(|(agent, why)| {
        let of = why.of.as_ref().map(|of| format!(" {of}")).unwrap_or_default();
        harmless(&format!("agent  {}  {}{of}: {}", agent.node, why.what.replace('_', " "), why.said))
    });
    list(
        edges.chain(retries).chain(waits).chain(survived).chain(turns),
        "no edge, retry or wait is recorded",
        out,
    );
}

fn outside(explanation: &Explanation, out: &mut String) {
    title("What came from outside", out);
    let rows = explanation.outside.iter().map(|event| {
        let detail =
            event.detail.as_ref().map(|detail| format!("  {}", harmless(detail))).unwrap_or_default();
        format!("{}  {}{detail}", event.at, event.what)
    });
    list(rows, "no signal, pause, cancel or patch is recorded", out);
}

fn cost(explanation: &Explanation, out: &mut String) {
    title("What it cost", out);
    let rows = explanation.cost.iter();
    let rows = rows.map(|cost| format!("{}  {}", cost.node.as_deref().unwrap_or("run"), cost.recorded));
    let spent = explanation.spent.iter().flat_map(agents::spent).map(|line| harmless(&line));
    list(rows.chain(spent), "no cost recorded", out);
}

fn failure(explanation: &Explanation, out: &mut String) {
    title("Where it failed", out);
    let Some(failed) = &explanation.failure else {
        return list(std::iter::empty(), "it did not fail", out);
    };
    let node = failed.node.as_deref().unwrap_or("the run as a whole");
    let patched = explanation.patched.as_ref().map(|row| {
        let why = Some(text(row, "justification")).filter(|why| !why.is_empty());
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let (patch, author) = (text(row, "layer"), text(row, "author"));
        harmless(&format!("as it is since {patch} by {author}{why}"))
    });
    let rows = [
        format!("{BAD}{node}{BAD:#}  {}", fault(&failed.error)),
        format!("{QUIET}what to do: aob explain {}{QUIET:#}", text(&failed.error, "code")),
    ];
    list(rows.into_iter().chain(patched), "", out);
}

fn title(title: &str, out: &mut String) {
    let _ = writeln!(out, "\n{TITLE}{title}{TITLE:#}");
}

fn list(rows: impl Iterator<Item = String>, nothing: &str, out: &mut String) {
    let mut count = 0;
    for row in rows {
        if count < SHOWN_ROWS {
            let _ = writeln!(out, "  {row}");
        }
        count += 1;
    }
    if count == 0 {
        let _ = writeln!(out, "  {QUIET}{nothing}{QUIET:#}");
    } else if count > SHOWN_ROWS {
        let _ = writeln!(out, "  {QUIET}and {} more; -o json shows all{QUIET:#}", count - SHOWN_ROWS);
    }
}

fn fault(error: &Value) -> String {
    harmless(&format!("{}: {}", text(error, "code"), text(error, "message")))
}

fn style(outcome: &str) -> Style {
    match outcome {
        "completed" => GOOD,
        "failed" | "cancelled" | "uncertain" => BAD,
        _ => QUIET,
    }
}

/// As a person says it.
pub(super) fn duration(millis: u64) -> String {
    let (seconds, minutes, hours) = (millis / 1_000, millis / 60_000, millis / 3_600_000);
    match (hours, minutes, seconds) {
        (0, 0, 0) => format!("{millis} ms"),
        (0, 0, _) => format!("{seconds}.{} s", millis % 1_000 / 100),
        (0, _, _) => format!("{minutes} min {} s", seconds % 60),
        _ => format!("{hours} h {} min", minutes % 60),
    }
}
