//! Checks a recorded history of clients, services and faults against what the node promises (RELIABILITY 5).
//!
//! Each run has one writer, so everything but the contended idempotency key is one pass over the events: the work is
//! linear in the length of the history ([`report::Counts::steps`] counts it). Nothing here knows the node's code: it
//! reads what clients were told, what services saw, and what the node says in the end.

mod acks;
mod agents;
mod effects;
mod fold;
mod graph;
mod history;
mod isolation;
mod keys;
mod linear;
mod outages;
mod reads;
pub mod record;
mod recovery;
pub mod report;
mod streams;
mod timeline;

pub use history::BadInput;
pub use report::{Report, Violation};

use history::{History, Outcome};
use record::FaultKind;
use report::{Counts, Findings};

/// Checks a history: one JSON object on each line.
///
/// # Errors
/// A line that is no record, or does not belong where it stands.
pub fn check(source: &str) -> Result<Report, BadInput> {
    let history = History::read(source)?;
    let mut findings = Findings::default();
    timeline::check(&history, &mut findings);
    graph::check(&history, &mut findings);
    acks::check(&history, &mut findings);
    keys::check(&history, &mut findings);
    effects::check(&history, &mut findings);
    streams::check(&history, &mut findings);
    reads::check(&history, &mut findings);
    recovery::check(&history, &mut findings);
    isolation::check(&history, &mut findings);
    agents::check(&history, &mut findings);
    Ok(Report { counts: counts(&history), violations: findings.into_sorted() })
}

fn counts(history: &History) -> Counts {
    let mut counts = Counts {
        operations: history.ops.len() as u64,
        calls: history.calls.len() as u64,
        streamed: history.streams.values().map(|stream| stream.events.len() as u64).sum(),
        ..Counts::default()
    };
    for op in history.ops.values() {
        match op.outcome {
            Outcome::Ok(_) => counts.acknowledged += 1,
            Outcome::Fail(_) => counts.refused += 1,
            Outcome::Unknown => counts.unknown += 1,
        }
    }
    let broke = |kind| matches!(kind, FaultKind::Kill | FaultKind::Stop | FaultKind::Cut);
    counts.faults = history.faults.iter().filter(|fault| broke(fault.what)).count() as u64;
    if let Some(dump) = history.last() {
        counts.runs = dump.runs.len() as u64;
        counts.events = dump.runs.values().map(|run| run.rows.len() as u64).sum();
    }
    counts.steps = history.steps();
    counts
}
