//! What a shard wants done elsewhere: attempts to be made, attempts to be called back, parents to be told. Each waits in the
//! outbox for the events it follows from. After a restart all of it is asked for again, from the state alone.
//!
//! One thing goes at once: a model's turn that reserves its call before it does anything else that could be seen outside. What is
//! weighed meanwhile is forgotten with the node, and the reservation is answered when it is durable, and all before it with it
//! (ADR 53).

use super::outbox::{Held, Release};
use super::{RunId, Shard, recalls};
use crate::engine::command::{Claiming, Dispatch, Errand, Work, child_cancelled, child_failed};
use crate::engine::{Effects, Input, Run};
use crate::ir::Executor;
use crate::model::Status;
use crate::time::Timestamp;

/// How many runs are above this one.
pub(super) fn depth(run: &Run) -> u32 {
    run.parent().map_or(0, |parent| parent.depth)
}

/// Holds back what one burst asks of the world, until its batch is durable; what need not be goes to `ahead`.
pub(super) fn hold(
    held: &mut Held,
    (run_id, depth, epoch): (RunId, u32, u64),
    effects: &mut Effects,
    ahead: &mut Vec<Errand>,
) {
    let errand = |dispatch| Errand::Dispatch { run_id, depth, epoch, dispatch };
    ahead.extend(effects.dispatches.extract_if(.., |dispatch| reserves_first(dispatch)).map(errand));
    let dispatches = effects.dispatches.drain(..).map(errand);
    let recalls = effects.recalls.drain(..).map(|recall| Errand::Recall { run_id, recall });
    // Work that is called back in the burst that handed it out has its recall behind it.
    let claims = effects.claims.drain(..).map(|claiming| Errand::Claim { run_id, claiming });
    let keeps = effects.keeps.drain(..).map(|keep| Errand::Keep { run_id, keep: Box::new(keep) });
    // Who gives its slot up has told everybody before.
    let errands =
        dispatches.chain(recalls).chain(claims).chain(keeps).map(|errand| Release::Errand(Box::new(errand)));
    held.releases.extend(errands);
}

fn reserves_first(dispatch: &Dispatch) -> bool {
    matches!(&dispatch.work, Work::Agent(ask) if ask.reserves_first())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::{Command, Envelope};
    use crate::runtime::shard::signals::tests::{NOW, address, commit, shard, token};

    /// The work that is handed out once a signal has come, before and after that is durable.
    fn handed_out(node: &str) -> [usize; 2] {
        let document =
            format!("{{name: w, nodes: {{go: {{type: wait, with: {{signal: go}}}}, next: {node}}}}}");
        let mut shard = shard(&document);
        assert_eq!(shard.releases().errands.len(), 0);
        shard.command(Envelope { reply_to: address(1), command: Command::Signal(token("go", "7")) }, NOW);
        let count = |shard: &mut Shard| {
            let errands = shard.releases().errands.drain(..);
            errands.filter(|errand| matches!(errand, Errand::Dispatch { .. })).count()
        };
        let before = count(&mut shard);
        commit(&mut shard);
        [before, count(&mut shard)]
    }

    #[test]
    fn only_a_turn_that_reserves_first_is_handed_out_before_its_cause_is_durable() {
        assert_eq!(handed_out("{type: task, needs: [go]}"), [0, 1]);
        assert_eq!(handed_out("{type: agent, needs: [go], with: {task: hi}}"), [1, 0]);
        assert_eq!(handed_out("{type: agent, needs: [go], with: {task: hi, tools: [patch]}}"), [1, 0]);
        let asks = "{type: agent, needs: [go], with: {task: hi, tools: [patch, 'mcp:files/*']}}";
        assert_eq!(handed_out(asks), [0, 1], "a server is asked for its tools");
    }
}
