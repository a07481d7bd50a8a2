//! The end of a shard whose log failed: what was under way has an outcome that nobody knows, and nothing more is done.
//!
//! What must hold: who waited for the log is told `unknown`, once; who comes later is refused before anything is done, and is
//! told so; what is durable can still be read. Nothing waits here, so nothing gets full.

use std::sync::Arc;

use super::Shard;
use crate::engine::command::{Refusal, Reply, ReplyTo};

impl Shard {
    /// The log failed: everyone who waits is told that the outcome is unknown, everyone who comes is refused.
    pub(crate) fn fence(&mut self, cause: Arc<str>) {
        if self.fenced.is_some() {
            return;
        }
        self.fenced = Some(cause);
        self.cells.fenced.set(1);
        let waiters = self.runs.values_mut().flat_map(|entry| entry.waiters.drain(..));
        let mut waiters: Vec<_> = waiters.map(|waiter| waiter.reply_to).collect();
        // The map has no order that anybody may see.
        waiters.sort_unstable_by_key(|waiter| (waiter.core, waiter.slot));
        for reply_to in self.outbox.abandon().into_iter().chain(waiters) {
            self.refuse_fenced(reply_to);
        }
        self.work.clear();
        self.open.clear();
    }

    /// Is the log gone?
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.is_some()
    }

    /// Refuses what was under way when the log failed.
    pub(super) fn refuse_fenced(&mut self, reply_to: ReplyTo) {
        self.refuse(reply_to, false);
    }

    /// Refuses what came after the log had failed, and was not begun.
    pub(super) fn refuse_untouched(&mut self, reply_to: ReplyTo) {
        self.refuse(reply_to, true);
    }

    fn refuse(&mut self, reply_to: ReplyTo, untouched: bool) {
        let cause = self.fenced.clone().unwrap_or_else(|| "unknown".into());
        let refusal = Refusal::Fenced { shard: self.config.index, cause, untouched };
        self.releases.replies.push((reply_to, Reply::Refused(refusal)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::engine::command::{Command, Envelope, Refusal, Reply, ReplyTo, Start};
    use crate::model::{FrameRef, Partition, RunId, Value};
    use crate::runtime::shard::{Shard, ShardConfig};
    use crate::time::Timestamp;

    const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

    /// A start of a run that waits for ever.
    fn start(byte: u8) -> Start {
        let document =
            br#"{"name": "one", "nodes": {"wait": {"type": "wait", "with": {"signal": "never"}}}}"#;
        let compiled =
            crate::compile::compile(document, crate::compile::Format::Json, &Default::default()).unwrap();
        Start {
            run_id: RunId::new(NOW, Partition::new(0), [byte; 10]),
            ir: compiled.ir,
            inputs: Value::Null,
            seed: 1,
            idempotency: None,
            run_key: None,
            mode: None,
            layered: None,
            deadline: None,
            parent: None,
        }
    }

    fn give(shard: &mut Shard, slot: u32, command: Command) {
        let reply_to = ReplyTo { core: 0, slot, generation: 0 };
        shard.command(Envelope { reply_to, command }, NOW);
    }

    /// Slots that were refused, and whether nothing was done for them.
    fn refused(shard: &mut Shard) -> Vec<(u32, bool)> {
        let replies = shard.releases().replies.drain(..);
        let fenced = replies.filter_map(|(to, reply)| match reply {
            Reply::Refused(Refusal::Fenced { untouched, .. }) => Some((to.slot, untouched)),
            _ => None,
        });
        fenced.collect()
    }

    // RELIABILITY B3
    #[test]
    fn what_was_under_way_is_unknown_and_what_comes_later_is_not_applied() {
        let config = ShardConfig { index: 0, epoch: 1, retention: Duration::ZERO, runs_live_max: 9 };
        let mut shard = Shard::new(config, Arc::default());
        let (first, second) = (start(1).run_id, start(2).run_id);
        give(&mut shard, 0, Command::Start(Box::new(start(1))));
        shard.seal(Vec::new()).unwrap();
        shard.committed(FrameRef { segment: 1, offset: 0 });
        give(&mut shard, 1, Command::AwaitEnd(first));
        give(&mut shard, 2, Command::Start(Box::new(start(2))));
        shard.seal(Vec::new()).unwrap();
        give(&mut shard, 3, Command::Terminate { run_id: first, reason: "enough".into() });
        shard.fence("the disk is gone".into());
        assert_eq!(refused(&mut shard), [(2, false), (1, false), (3, false)]);
        give(&mut shard, 4, Command::Start(Box::new(start(4))));
        give(&mut shard, 5, Command::Terminate { run_id: second, reason: "enough".into() });
        give(&mut shard, 6, Command::Resume(first));
        assert_eq!(refused(&mut shard), [(4, true), (5, true), (6, true)]);
        assert!(!shard.has_open_batch() && !shard.has_work(), "and nothing was done");
    }
}
