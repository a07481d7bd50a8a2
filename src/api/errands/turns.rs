//! Calls and turns under way on a core, by the attempt they are made for.
//!
//! An attempt that is handed out twice is made once. A model's turn that was refused, for its run was paused, is handed out again
//! under the same name when the run goes on, and that may be heard before the refusal is: it is kept then, and begun when the
//! first has ended. Was the first not refused after all, the second finds its call reserved and ends. Turns of tools are not
//! refused, so what comes again of those is dropped. At most one is kept for each that is under way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::{Services, agents, worklog};
use crate::engine::command::Dispatch;
use crate::model::agent::{Ask, Wanted};
use crate::model::{RunId, Seq};
use crate::time::Clock as _;

/// Of which run, following from which event.
pub(super) type Name = (RunId, Seq);

/// A turn that was handed out: to a run with so many above it, in this epoch.
pub(super) struct Turn {
    pub(super) depth: u32,
    pub(super) epoch: u64,
    pub(super) dispatch: Dispatch,
    pub(super) ask: Ask,
}

struct One<T> {
    /// Dropped, it gives it up.
    _give_up: oneshot::Sender<()>,
    again: Option<T>,
}

/// What is under way; clones are the same.
pub(super) struct Calls<T = Box<Turn>>(Rc<RefCell<BTreeMap<Name, One<T>>>>);

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self(Rc::default())
    }
}

impl<T> Clone for Calls<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Calls<T> {
    /// One is under way from now on, until what is given completes, or it has ended.
    pub(super) fn begin(&self, name: Name) -> oneshot::Receiver<()> {
        let (give_up, given_up) = oneshot::channel();
        self.0.borrow_mut().insert(name, One { _give_up: give_up, again: None });
        given_up
    }

    /// Is it under way? Then `again` is begun after it, unless it is given up.
    fn is_under_way(&self, name: Name, again: impl FnOnce() -> Option<T>) -> bool {
        let mut calls = self.0.borrow_mut();
        let Some(one) = calls.get_mut(&name) else { return false };
        one.again = again().or(one.again.take());
        true
    }

    /// It has ended; what was handed out meanwhile.
    pub(super) fn end(&self, name: Name) -> Option<T> {
        self.0.borrow_mut().remove(&name)?.again
    }

    /// Gives it up.
    pub(super) fn give_up(&self, name: Name) {
        self.0.borrow_mut().remove(&name);
    }
}

/// Makes a turn of an agent; none is begun on a node that stops, for the next start hands it out again.
pub(super) fn turn(services: &Rc<Services>, run_id: RunId, turn: Box<Turn>, calls: &Calls) {
    let name = (run_id, turn.dispatch.seq);
    let mut turn = Some(turn);
    let again = || turn.take_if(|turn| matches!(turn.ask.wanted, Wanted::Model { .. }));
    if services.stopping.get() || calls.is_under_way(name, again) {
        return;
    }
    let Some(turn) = turn else { return };
    let given_up = calls.begin(name);
    let (services, calls) = (services.clone(), calls.clone());
    let begun = services.executors.http.begin();
    crate::io::spawn_local(async move {
        let Turn { depth, epoch, dispatch, ask } = *turn;
        let began_us = services.clock.monotonic_us();
        let outcome = tokio::select! {
            biased;
            _ = given_up => return worklog::given_up(run_id, &dispatch),
            outcome = agents::run(services.clone(), (run_id, depth, epoch), &dispatch, ask) => outcome,
        };
        let took_us = services.clock.monotonic_us().saturating_sub(began_us);
        worklog::called(run_id, &dispatch, outcome.as_ref().err(), took_us);
        if let Some(again) = calls.end(name) {
            self::turn(&services, run_id, again, &calls);
        }
        drop(begun);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    #[test]
    fn what_is_handed_out_again_is_begun_after_the_first_unless_that_is_given_up() {
        let calls = Calls::<u32>::default();
        let name = (RunId::new(Timestamp::from_micros(9), Partition::new(1), [7; 10]), 3);
        assert!(!calls.is_under_way(name, || Some(1)), "nobody keeps it");
        let mut given_up = calls.begin(name);
        assert!(calls.is_under_way(name, || Some(2)) && calls.is_under_way(name, || None));
        assert_eq!((calls.end(name), calls.end(name)), (Some(2), None));
        assert!(given_up.try_recv().is_err());
        let mut given_up = calls.begin(name);
        assert!(calls.is_under_way(name, || Some(3)));
        calls.give_up(name);
        assert_eq!(given_up.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(calls.end(name), None, "neither is wanted");
    }
}
