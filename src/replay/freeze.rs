//! `freeze`: the inputs of a record are given to the engine again, and every event that comes out is compared with the one
//! recorded, byte by byte. Nothing is called; the time is that of each burst.
//!
//! What came from outside is pinned: who started the run with what, answers, signals, decisions, leases, steering, patches
//! and refusals ([`engine::Cause`](crate::engine::Cause) reads inputs off the record). Everything else is decided again: what
//! starts when, every expression, verdict and output of the run's own, due times, draws, which attempt follows which
//! failure, admission keys, the graph after a patch and its new edges, the end. In fast mode the counts are compared too.
//!
//! The prefix of a fork is another run's: it is folded, and verification begins where the fork does. So it is with
//! everything before the node that is asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value as Json;

use super::state::no_document;
use super::{Burst, Error, Folding, Record, difference};
use crate::engine::command::{OnConflict, Start};
use crate::engine::{self, Cause, Graphs, Input, Outcome, Run};
use crate::model::event::RunStarted;
use crate::model::{EventBody, RunKey, Seq};

/// The first event in which engine and record differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Its number.
    pub seq: Seq,
    /// Its type, as recorded; as decided when the record has none there.
    pub event: &'static str,
    /// Path of the node that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The field that differs; `type` when it is another event, `event` when there is none.
    pub field: String,
    /// What the record has.
    pub expected: Json,
    /// What the engine decides.
    pub got: Json,
}

impl std::fmt::Display for Divergence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seq, event, node, field, expected, got } = self;
        write!(f, "event {seq} ({event}")?;
        if let Some(node) = node {
            write!(f, " of {node}")?;
        }
        write!(f, ") diverges in {field}: the record has {expected}, the engine decides {got}")
    }
}

/// What was found to be as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Number of the first event that was compared.
    pub from: Seq,
    /// Number of the last.
    pub to: Seq,
    /// Of the state after it ([`Run::state_hash`]).
    pub hash: [u8; 32],
}

/// Verifies a record, from the first event of a node on when one is named.
///
/// # Errors
/// [`Error::Diverged`], or why nobody can tell.
pub fn freeze(record: &Record, graphs: &mut dyn Graphs, from: Option<&str>) -> Result<Verified, Error> {
    let fork = record.bursts.iter().rposition(|burst| is_fork(burst.events.first()));
    let mut begin = (fork.unwrap_or(0), 0);
    if let Some(node) = from {
        begin = begin.max(beginning(record, graphs, node)?);
    }
    let (first, offset) = begin;
    let mut folding = Folding::new(record.run_id, graphs);
    for burst in record.bursts.iter().take(first) {
        burst.events().try_for_each(|event| folding.event(&event))?;
    }
    let mut replaying = Replaying { folding, steps: record.steps, out: Outcome::default() };
    let mut from = None;
    for (at, burst) in record.bursts.iter().enumerate().skip(first) {
        let skipped = if at == first { offset } else { 0 };
        from.get_or_insert(burst.first_seq + skipped as u64);
        if skipped == 0 { replaying.burst(burst)? } else { replaying.rest(burst, skipped)? }
    }
    let run = replaying.folding.run.ok_or(Error::NoEvent { seq: 1, last: 0 })?;
    Ok(Verified { from: from.unwrap_or(1), to: run.seq(), hash: run.state_hash()? })
}

fn is_fork(event: Option<&EventBody>) -> bool {
    matches!(event, Some(EventBody::RunForked(_)))
}

/// Where a node has its first event: the burst, and how many of its events come before. In fast mode the node may have
/// begun in what is not written down; then it is the whole burst.
pub(super) fn beginning(
    record: &Record,
    graphs: &mut dyn Graphs,
    node: &str,
) -> Result<(usize, usize), Error> {
    let mut folding = Folding::new(record.run_id, graphs);
    for (at, burst) in record.bursts.iter().enumerate() {
        for (before, event) in burst.events().enumerate() {
            folding.event(&event)?;
            let Some(run) = &folding.run else { continue };
            let is_its = |body: &EventBody| {
                body.place().is_some_and(|place| {
                    let path = run.ir().path(place);
                    path == node || without_passes(&path) == node
                })
            };
            if folding.derived.iter().any(is_its) {
                return Ok((at, 0));
            }
            if is_its(&event.body) {
                return Ok((at, if run.mode() == crate::model::Mode::Full { before } else { 0 }));
            }
        }
    }
    let last = without_passes(node);
    let last = last.rsplit('.').next().unwrap_or(&last);
    let known = folding.run.is_some_and(|run| {
        run.ir().scopes.iter().any(|scope| scope.nodes.iter().any(|node| &*node.id == last))
    });
    Err(if known { Error::NotBegun(node.into()) } else { Error::NoNode(node.into()) })
}

/// `each[3].score` is `each.score`.
pub(super) fn without_passes(path: &str) -> String {
    let mut depth = 0;
    let outside = path.chars().filter(|letter| match letter {
        '[' => {
            depth += 1;
            false
        }
        ']' => {
            depth -= 1;
            false
        }
        _ => depth == 0,
    });
    outside.collect()
}

struct Replaying<'g> {
    folding: Folding<'g>,
    steps: u32,
    out: Outcome,
}

impl Replaying<'_> {
    /// Decides a burst again, and compares.
    fn burst(&mut self, burst: &Burst) -> Result<(), Error> {
        if burst.first_seq != self.folding.run.as_ref().map_or(0, Run::seq) + 1 {
            let why = format!("event {} was expected", self.folding.run.as_ref().map_or(0, Run::seq) + 1);
            return Err(Error::Unfit { seq: burst.first_seq, why });
        }
        match burst.events.first() {
            Some(EventBody::RunStarted(started)) => {
                let given = self.start(burst, started)?;
                self.go_on(burst, given, &Cause::Own)
            }
            // Made once against who was there then; what it makes of the graph is decided again.
            Some(EventBody::PatchCreated(_) | EventBody::PatchRevoked(_)) => self.patch(burst, 0),
            Some(EventBody::PatchDecided(decided)) if decided.approved => {
                self.fold(burst, 0..1)?;
                self.patch(burst, 1)
            }
            Some(EventBody::PatchRejected(_) | EventBody::PatchHeld(_) | EventBody::PatchDecided(_)) => {
                let given = 1 + keyed(burst, 1);
                self.fold(burst, 0..given)?;
                if burst.events.len() == given { Ok(()) } else { self.go_on(burst, given, &Cause::Own) }
            }
            Some(EventBody::RunForked(_)) => {
                let given =
                    1 + usize::from(matches!(burst.events.get(1), Some(EventBody::NodeRedriven { .. })));
                self.fold(burst, 0..given)?;
                self.go_on(burst, given, &Cause::Own)
            }
            Some(_) => {
                let run = self.folding.run.as_ref();
                let run = run.ok_or_else(|| unstarted(burst.first_seq))?;
                match Cause::of(run, &burst.events, burst.at) {
                    Cause::Own => self.own(burst),
                    cause => self.go_on(burst, 0, &cause),
                }
            }
            None => Ok(()),
        }
    }

    /// The run went on by itself. An input that came too late leaves nothing behind but a slice that is a step shorter.
    fn own(&mut self, burst: &Burst) -> Result<(), Error> {
        let before = self.folding.run.clone();
        let whole = self.go_on(burst, 0, &Cause::Own);
        if whole.is_ok() || self.steps < 2 {
            return whole;
        }
        self.folding.run = before;
        self.steps -= 1;
        let shorter = self.go_on(burst, 0, &Cause::Own);
        self.steps += 1;
        if shorter.is_ok() { shorter } else { whole }
    }

    /// Verifies what is left of a burst after some of its events. How many steps its slice had left is not known, so the
    /// engine may go further than the record.
    fn rest(&mut self, burst: &Burst, skipped: usize) -> Result<(), Error> {
        self.fold(burst, 0..skipped)?;
        let run = self.folding.run.as_ref().ok_or_else(|| unstarted(burst.first_seq))?;
        let seq = run.seq() + 1;
        let mut trial = run.clone();
        self.out.clear();
        engine::advance(&mut trial, Input::Continue, burst.at, self.steps, &mut self.out)
            .map_err(|error| Error::unfit(seq, &error))?;
        let recorded = burst.events.get(skipped..).unwrap_or_default();
        self.out.events.truncate(recorded.len());
        compare(run, seq, recorded, &self.out.events)?;
        self.fold(burst, skipped..burst.events.len())
    }

    fn fold(&mut self, burst: &Burst, which: std::ops::Range<usize>) -> Result<(), Error> {
        let events = burst.events().skip(which.start).take(which.len());
        events.into_iter().try_for_each(|event| self.folding.event(&event))
    }

    /// Gives the input, and compares what comes of it with the events of the burst after the first `given`.
    fn go_on(&mut self, burst: &Burst, given: usize, cause: &Cause) -> Result<(), Error> {
        let run = self.folding.run.as_mut().ok_or_else(|| unstarted(burst.first_seq))?;
        let seq = run.seq() + 1;
        self.out.clear();
        engine::advance(run, cause.input(), burst.at, self.steps, &mut self.out)
            .map_err(|error| Error::unfit(seq, &error))?;
        compare(run, seq, burst.events.get(given..).unwrap_or_default(), &self.out.events)
    }

    /// Decides the start again; gives how many events of the burst that were.
    fn start(&mut self, burst: &Burst, recorded: &RunStarted) -> Result<usize, Error> {
        let folding = &mut self.folding;
        let seq = burst.first_seq;
        let ir = folding.graphs().of(&recorded.document).ok_or_else(|| no_document(seq))?;
        let mut start = Start {
            run_id: folding.run_id(),
            ir,
            inputs: recorded.inputs.clone(),
            seed: recorded.seed,
            idempotency: recorded.idempotency.clone(),
            // The caller's is known by what became of it: it counts when it comes before the document's.
            deadline: recorded.deadline.map(|deadline| burst.at.until(deadline)),
            parent: None,
            run_key: None,
            mode: None,
            layered: None,
        };
        let mut replaced = None;
        let mut given = 1;
        for event in burst.events.iter().skip(1) {
            match event {
                EventBody::RunLinked { parent } => start.parent = Some(parent.clone()),
                EventBody::RunKeyed { run_key, replaces } => {
                    let key = RunKey::new(run_key);
                    let key = key.map_err(|error| Error::Unfit { seq: seq + 1, why: error.to_string() })?;
                    start.run_key = Some((key, OnConflict::default()));
                    replaced = *replaces;
                }
                EventBody::ModeChanged { mode } => start.mode = Some(*mode),
                EventBody::RunLayered(layered) => start.layered = Some(layered.clone()),
                _ => break,
            }
            given += 1;
        }
        let first = burst.events().next().ok_or_else(|| unstarted(seq))?;
        folding.event(&first)?;
        let begun = Run::begin(&start, burst.at, recorded.epoch);
        let more = [Run::linked(&start), Run::keyed(&start, replaced), Run::moded(&start), Run::laid(&start)];
        let decided: Vec<EventBody> = std::iter::once(begun).chain(more.into_iter().flatten()).collect();
        let run = folding.run.as_ref().ok_or_else(|| unstarted(seq))?;
        compare(run, seq, burst.events.get(..given).unwrap_or_default(), &decided)?;
        self.fold(burst, 1..given)?;
        Ok(given)
    }

    /// Decides `patch.applied` again, which comes directly after event `at` of the burst, and what follows from it.
    fn patch(&mut self, burst: &Burst, at: usize) -> Result<(), Error> {
        let seq = burst.first_seq + at as Seq + 1;
        let before = self.folding.run.clone().ok_or_else(|| unstarted(seq))?;
        self.fold(burst, at..at + 1)?;
        let Some(EventBody::PatchApplied(patched)) = burst.events.get(at + 1) else {
            return Err(Error::Unfit { seq, why: "patch.applied comes directly after it".into() });
        };
        let layers = before.layers().to_vec();
        let change = self.folding.run.as_ref().and_then(Run::proposed).cloned();
        let change = change.ok_or_else(|| Error::Unfit { seq, why: "nobody proposed it".into() })?;
        let ir = self.folding.graphs().after(before.base_document(), &layers, &change, &patched.document);
        let ir = Arc::new(ir.ok_or_else(|| no_document(seq))?.aligned(before.ir()));
        let decided = before
            .patch(&ir, &BTreeSet::new(), burst.at)
            .map_err(|refusal| Error::Unfit { seq, why: refusal.to_string() })?;
        compare(&before, seq, burst.events.get(at + 1..at + 2).unwrap_or_default(), &[decided])?;
        let given = at + 2 + keyed(burst, at + 2);
        self.fold(burst, at + 1..given)?;
        self.go_on(burst, given, &Cause::Own)
    }
}

/// 1 when the event there remembers the request that was done by those before it: given, as these are.
fn keyed(burst: &Burst, at: usize) -> usize {
    usize::from(matches!(burst.events.get(at), Some(EventBody::RequestRemembered(_))))
}

fn unstarted(seq: Seq) -> Error {
    Error::Unfit { seq, why: "it comes before run.started".into() }
}

/// Compares what was recorded with what was decided, byte by byte.
fn compare(run: &Run, first_seq: Seq, recorded: &[EventBody], decided: &[EventBody]) -> Result<(), Error> {
    let node = |event: &EventBody| event.place().map(|place| run.ir().path(place));
    for (seq, at) in (first_seq..).zip(0..recorded.len().max(decided.len())) {
        let divergence = match (recorded.get(at), decided.get(at)) {
            (Some(expected), Some(got)) if difference::canonical(expected) == difference::canonical(got) => {
                continue;
            }
            (Some(expected), Some(got)) => {
                let (field, of_record, of_engine) = difference::of(expected, got);
                let (event, node) = (expected.type_name(), node(expected));
                Divergence { seq, event, node, field, expected: of_record, got: of_engine }
            }
            (Some(expected), None) => Divergence {
                seq,
                event: expected.type_name(),
                node: node(expected),
                field: "event".into(),
                expected: expected.type_name().into(),
                got: Json::Null,
            },
            (None, Some(got)) => Divergence {
                seq,
                event: got.type_name(),
                node: node(got),
                field: "event".into(),
                expected: Json::Null,
                got: got.type_name().into(),
            },
            (None, None) => break,
        };
        return Err(Error::Diverged(Box::new(divergence)));
    }
    Ok(())
}
