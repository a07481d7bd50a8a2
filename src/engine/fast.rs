//! Fast mode: a run writes down only what cannot be decided again (F242; ARCHITECTURE, "Fast mode").
//!
//! What comes from outside, what goes there, and every time that was drawn stands in the history as in full mode. What
//! the run decided by itself (pure nodes, edges, passes) is only counted: `events.derived` says that so many events
//! belong there, and [`replay`] decides them again. That gives the same, because a decision looks at the state and at
//! nothing else: expressions have no clock, and what does depend on the time (due times) is written down.
//! `node.started` is left out where a written `node.waiting` follows, which says it too.
//!
//! Every slice ends with its count, so the history has all of what anybody has seen, and its fold is the run as it was.
//! What is derived has no number; it counts towards [`crate::limits::RUN_EVENTS_MAX`] all the same.

use super::fold::{fold, unfit};
use super::run::Run;
use super::{Effects, FoldError, Input, Outcome, decide};
use crate::model::event::Waiting;
use crate::model::{EventBody, Mode, Place};
use crate::time::Timestamp;

/// Is it decided again, given that nothing came from outside?
fn is_derivable(event: &EventBody) -> bool {
    match event {
        EventBody::NodeStarted { .. }
        | EventBody::NodeCompleted { .. }
        | EventBody::NodeFailed { .. }
        | EventBody::NodeSkipped { .. }
        | EventBody::NodeFellBack { .. }
        | EventBody::LoopContinued { .. } => true,
        EventBody::NodeWaiting { waiting, .. } => {
            matches!(waiting, Waiting::Items { .. } | Waiting::Passes { .. })
        }
        _ => false,
    }
}

/// What one slice of a run in fast mode has derived and not written down yet.
#[derive(Debug, Default)]
pub(super) struct Slice {
    count: u32,
    /// The last of it, when it is a start that the next event may say.
    begun: Option<Place>,
}

impl Slice {
    /// Folds what a step has decided: the events of `out` from `before` on. What is derivable leaves `out`; `idle` when
    /// nothing came from outside.
    pub(super) fn step(
        &mut self,
        run: &mut Run,
        (before, idle): (usize, bool),
        now: Timestamp,
        out: &mut Outcome,
    ) -> Result<(), FoldError> {
        for event in out.events.split_off(before) {
            out.observe(&event);
            if idle && is_derivable(&event) {
                self.counted();
                derive(run, &event, now, &mut out.effects)?;
                out.derived.add(&event);
                match event {
                    EventBody::NodeStarted { place, .. } => self.begun = Some(place),
                    _ => self.count += 1,
                }
                continue;
            }
            match &event {
                EventBody::NodeWaiting { place, .. } if self.begun.as_ref() == Some(place) => {
                    self.begun = None;
                }
                _ => self.counted(),
            }
            self.flush(run, out);
            fold(run, &event, now, &mut out.effects)?;
            out.value_bytes = out.value_bytes.saturating_add(super::weight(&event));
            out.push(event);
        }
        Ok(())
    }

    /// The slice is over: what is left is written down as a number.
    pub(super) fn end(mut self, run: &mut Run, out: &mut Outcome) {
        self.counted();
        self.flush(run, out);
    }

    fn counted(&mut self) {
        self.count += u32::from(self.begun.take().is_some());
    }

    fn flush(&mut self, run: &mut Run, out: &mut Outcome) {
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            run.seq += 1;
            out.push(EventBody::EventsDerived { count });
        }
    }
}

/// Folds an event that has no number.
fn derive(run: &mut Run, event: &EventBody, at: Timestamp, effects: &mut Effects) -> Result<(), FoldError> {
    fold(run, event, at, effects)?;
    run.seq -= 1;
    run.derived += 1;
    Ok(())
}

/// Says that the node at `place` has begun, when `node.waiting` of a run in fast mode comes without `node.started`.
pub(super) fn begun(run: &Run, place: &Place) -> Option<EventBody> {
    let node = run.node(place).filter(|node| node.phase == super::scope::Phase::Ready)?;
    let attempt = node.attempts + 1;
    (run.mode == Mode::Fast).then(|| EventBody::NodeStarted { place: place.clone(), attempt })
}

/// Folds one event of a history, the run's next, and decides again what `events.derived` stands for; that is appended to
/// `derived`. Of everything else it is [`apply`](super::apply).
///
/// # Errors
/// As [`apply`](super::apply); or the run would not decide so many events by itself, as it stands.
pub fn replay(
    run: &mut Run,
    body: &EventBody,
    at: Timestamp,
    derived: &mut Vec<EventBody>,
) -> Result<(), FoldError> {
    let EventBody::EventsDerived { count } = body else {
        if let EventBody::NodeWaiting { place, .. } = body {
            derived.extend(begun(run, place));
        }
        return super::apply(run, body, at);
    };
    if run.mode != Mode::Fast || run.status().is_terminal() {
        return Err(unfit(body, "the run writes everything down, or has ended"));
    }
    let mut out = Outcome::default();
    let mut left = *count;
    while left > 0 {
        out.clear();
        decide(run, &Input::Continue, at, &mut out);
        let decided = out.events.drain(..).take_while(is_derivable).take(left as usize);
        let decided: Vec<EventBody> = decided.collect();
        if decided.is_empty() {
            return Err(unfit(body, "the run does not decide so many events by itself"));
        }
        for event in decided {
            derive(run, &event, at, &mut Effects::default())?;
            derived.push(event);
            left -= 1;
        }
    }
    run.seq += 1;
    Ok(())
}
