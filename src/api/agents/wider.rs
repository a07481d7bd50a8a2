//! Budgets that a run shares with others, asked before a model is called (`exec::ledger`).
//!
//! What must hold: what is reserved there is settled once, when the run has heard what came of the call, and as the run counts
//! it: a call that the run does not count as answered took all that was reserved. A turn that is given up takes its [`Hold`]
//! with it, which settles itself; while the run is being told of the call the hold goes with that, not with the turn, so the
//! two never tell different stories. A run that cannot be told (its shard is fenced) is not waited for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Under;
use crate::exec::Ledger;
use crate::exec::ledger::{Caller, Permit, Refused, Taken, Whose};
use crate::model::Value;
use crate::model::agent::Quote;
use crate::model::budget::Wider;
use crate::time::{Clock as _, SystemClock};

/// A run is told something: does it count?
pub(super) type Told = Pin<Box<dyn Future<Output = bool>>>;

/// What is reserved for a call. Dropped, it is settled.
pub(super) struct Hold {
    ledger: Arc<Ledger>,
    permit: Permit,
    /// What the call took, as far as that is known.
    taken: Taken,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.ledger.settle(&self.permit, self.taken, SystemClock.now());
    }
}

impl Hold {
    /// Budgets that warn with this call, once.
    pub(super) fn warned(&mut self) -> Vec<Wider> {
        std::mem::take(&mut self.permit.warned)
    }
}

/// Reserves what the call may take in all budgets that it counts towards; none when there are none.
pub(super) fn reserve(under: &Under<'_>, quote: &Quote) -> Result<Option<Hold>, Box<Refused>> {
    let ledger = &under.services.executors.ledger;
    let role = match under.ask.request.get("role") {
        Some(Value::String(role)) if !role.is_empty() => Some(role.clone()),
        _ => None,
    };
    let whose = Whose { workflow: under.dispatch.workflow.clone(), role };
    let caller = Caller { run_id: under.run_id, seq: under.dispatch.seq, whose };
    let permit = ledger.reserve(&caller, quote, SystemClock.now())?;
    Ok(permit.map(|permit| Hold { ledger: ledger.clone(), permit, taken: Taken::Nothing }))
}

/// Tells the run something with the hold in hand; when it counts, this is what the call has taken from then on. Gives the hold
/// back if it does; otherwise it is settled as it was before.
pub(super) async fn through(hold: Option<Hold>, told: Told, taken: Taken) -> Option<Option<Hold>> {
    let Some(mut hold) = hold else { return told.await.then_some(None) };
    let (done, outcome) = oneshot::channel();
    crate::io::spawn_local(async move {
        if told.await {
            hold.taken = taken;
            // Nobody is left to take it when the turn was given up meanwhile.
            drop(done.send(hold));
        }
    });
    outcome.await.ok().map(Some)
}
