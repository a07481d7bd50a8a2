//! All that happened in a finished run, read back from its history: what a run in fast mode did not write down is decided
//! again ([`engine::replay`]).
//!
//! Blocking. Memory: one page of events, and for a run in fast mode its state, which is bounded as that of any run.

use std::sync::Arc;

use crate::api::Catalog;
use crate::api::ports::StorageError;
use crate::engine::{self, Run};
use crate::ir::Ir;
use crate::model::event::DocumentHash;
use crate::model::{Event, EventBody, Mode, RunId, Seq};

/// Events read at a time.
const PAGE_EVENTS: usize = 1_000;

/// Gives every event of the run to `seen`, in order.
///
/// # Errors
/// The storage failed, a document of a run in fast mode is missing, or its history is not one that it could have had.
pub(super) fn each(
    (page, catalog): (&mut Page<'_>, &Catalog),
    run_id: RunId,
    seen: &mut dyn FnMut(&EventBody),
) -> Result<(), StorageError> {
    let mut fast = Fast { run_id, catalog, run: None, derived: Vec::new() };
    let mut after = 0;
    loop {
        let events = page(after, PAGE_EVENTS, after == 0 || fast.run.is_some())?;
        let Some(last) = events.last() else { return Ok(()) };
        after = last.seq;
        for event in &events {
            fast.replay(event)?;
            fast.derived.drain(..).for_each(|derived| seen(&derived));
            seen(&event.body);
        }
    }
}

/// Gives at most so many events after a number; with their values in full when asked for.
pub(super) type Page<'a> = dyn FnMut(Seq, usize, bool) -> Result<Vec<Event>, StorageError> + 'a;

struct Fast<'a> {
    run_id: RunId,
    catalog: &'a Catalog,
    /// The run as far as it was read; none when everything of it is written down.
    run: Option<Run>,
    derived: Vec<EventBody>,
}

impl Fast<'_> {
    fn replay(&mut self, event: &Event) -> Result<(), StorageError> {
        let run_id = self.run_id;
        let misfit =
            |error: engine::FoldError| StorageError(format!("event {} of {run_id}: {error}", event.seq));
        if let EventBody::RunStarted(started) = &event.body {
            let run = Run::from_started(run_id, self.ir(&started.document)?, event).map_err(misfit)?;
            self.run = Some(run);
            return Ok(());
        }
        // Nothing starts before these: only then is the mode what it stays.
        let preface = matches!(
            event.body,
            EventBody::RunLinked { .. }
                | EventBody::RunKeyed { .. }
                | EventBody::ModeChanged { .. }
                | EventBody::RunLayered(_)
        );
        if self.run.as_ref().is_some_and(|run| run.mode() == Mode::Full) && !preface {
            self.run = None;
        }
        let Some(run) = &mut self.run else { return Ok(()) };
        if let EventBody::PatchApplied(patched) = &event.body {
            let change = run.proposed().ok_or_else(|| {
                StorageError(format!("event {} of {run_id}: nobody proposed it", event.seq))
            })?;
            let entry = self
                .catalog
                .after(run.base_document(), run.layers(), change, &patched.document)
                .map_err(|error| StorageError(error.to_string()))?;
            let ir = Arc::new(entry.compiled.ir.aligned(run.ir()));
            return engine::apply_patched(run, patched, ir, event.at).map_err(misfit);
        }
        engine::replay(run, &event.body, event.at, &mut self.derived).map_err(misfit)
    }

    fn ir(&self, document: &DocumentHash) -> Result<Arc<Ir>, StorageError> {
        let entry = self.catalog.load_hash(document).map_err(|error| StorageError(error.to_string()))?;
        let entry = entry.ok_or_else(|| StorageError("the document of the run is missing".into()))?;
        Ok(entry.compiled.ir.clone())
    }
}
