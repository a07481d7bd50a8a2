//! What a shard wants done elsewhere: attempts to be made, attempts to be called back, parents to be told. Each waits in the
//! outbox for the events it follows from. After a restart all of it is asked for again, from the state alone.

use super::outbox::{Held, Release};
use super::{RunId, Shard, recalls};
use crate::engine::command::{Claiming, Errand, Work, child_cancelled, child_failed};
use crate::engine::{Effects, Input, Run};
use crate::ir::Executor;
use crate::model::Status;
use crate::time::Timestamp;

/// How many runs are above this one.
pub(super) fn depth(run: &Run) -> u32 {
    run.parent().map_or(0, |parent| parent.depth)
}

/// Holds back what one burst asks of the world, until its batch is durable.
pub(super) fn hold(held: &mut Held, (run_id, depth, epoch): (RunId, u32, u64), effects: &mut Effects) {
    let dispatches = effects.dispatches.drain(..);
    let dispatches = dispatches.map(|dispatch| Errand::Dispatch { run_id, depth, epoch, dispatch });
    let recalls = effects.recalls.drain(..).map(|recall| Errand::Recall { run_id, recall });
    // Work that is called back in the burst that handed it out has its recall behind it.
    let claims = effects.claims.drain(..).map(|claiming| Errand::Claim { run_id, claiming });
    let keeps = effects.keeps.drain(..).map(|keep| Errand::Keep { run_id, keep: Box::new(keep) });
    // Who gives its slot up has told everybody before.
    let errands =
        dispatches.chain(recalls).chain(claims).chain(keeps).map(|errand| Release::Errand(Box::new(errand)));
    held.releases.extend(errands);
}

/// Errands that were wanted before the shard had an epoch get it.
pub(super) fn set_epoch(errands: &mut [Errand], owner: u64) {
    for errand in errands {
        if let Errand::Dispatch { epoch, .. } = errand {
            *epoch = owner;
        }
    }
}

/// What a planted bug lets go at once.
pub(super) fn mutated(held: &mut Held) -> Vec<Errand> {
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    if crate::failpoint::mutant("effect_before_durable") {
        for release in held.releases.drain(..) {
            match release {
                Release::Errand(errand) => gone.push(*errand),
                other => kept.push(other),
            }
        }
        held.releases = kept;
    }
    gone
}

/// What the parent of an ended run is told.
pub(super) fn ended(run: &Run) -> Option<Errand> {
    let parent = run.parent()?.clone();
    let view = run.view();
    let result = match view.summary.status {
        Status::Completed => Ok(view.outputs.unwrap_or_default()),
        Status::Failed => Err(child_failed(run.id(), view.failure)),
        _ => Err(child_cancelled(run.id())),
    };
    Some(Errand::Ended { parent, child: run.id(), result })
}

impl Shard {
    /// After recovery: everything under way is asked for again; calls that went down with the node are reported lost.
    pub(super) fn ask_again(&mut self, run_id: RunId) {
        let Some(entry) = self.runs.get(&run_id) else { return };
        let (depth, epoch) = (depth(&entry.run), self.config.epoch);
        for dispatch in entry.run.dispatches() {
            match dispatch.work {
                // Whoever makes these forgets them with the node.
                Work::Call { executor: Executor::Http | Executor::Agent | Executor::Cached, .. }
                | Work::Agent(_) => {
                    self.lost.push((run_id, dispatch.place, dispatch.seq));
                }
                // A worker may still be at it; a child run is another run.
                Work::Call { executor: Executor::Task, .. } | Work::Child { .. } => {
                    self.releases.errands.push(Errand::Dispatch { run_id, depth, epoch, dispatch });
                }
            }
        }
        // Those who admit have heard of every claim before anybody serves; a child's has still to be looked at.
        if let Some((claim, false)) = entry.run.claim()
            && claim.parent.is_some()
        {
            let claiming = Claiming::Ask(Box::new(claim));
            self.releases.errands.push(Errand::Claim { run_id, claiming });
        }
        self.recalls.opened(run_id, recalls::of_children(entry.run.recalls()));
        let recalls = entry.run.recalls().iter().cloned();
        self.releases.errands.extend(recalls.map(|recall| Errand::Recall { run_id, recall }));
    }

    /// Tells runs of the calls that were lost in a crash.
    pub(super) fn give_lost(&mut self, now: Timestamp) {
        while let Some((run_id, place, seq)) = self.lost.pop() {
            crate::failpoint::pass("shard::lost");
            self.input(run_id, Input::Lost { place: &place, seq }, now);
        }
    }
}
