//! What each command does. Every path answers exactly once, now or through the outbox.

use std::collections::BinaryHeap;

use super::{Entry, Keyed, Release, Shard};
use crate::engine::command::{
    Command, Envelope, ListQuery, OnConflict, Refusal, Reply, ReplyTo, Start, Stretch,
};
use crate::engine::{self, Input, Permit, Run, Verb};
use crate::failpoint;
use crate::limits;
use crate::model::event::Event;
use crate::model::{NoRoom, RunId, RunSummary, Seq};
use crate::time::Timestamp;

impl Shard {
    /// Does as asked.
    pub(crate) fn command(&mut self, envelope: Envelope, now: Timestamp) {
        let Envelope { reply_to, command } = envelope;
        // Where a run's events stand can be told of a parked one: who walks through all runs must not unpack them all.
        if let Some(run_id) = command.run_id().filter(|_| !matches!(command, Command::Locate(_))) {
            self.unpark(run_id, now);
        }
        if self.is_fenced() && !self.is_readable(&command) {
            return self.refuse_untouched(reply_to);
        }
        if let Some(refusal) = self.unreadable(&command) {
            return self.reply_now(reply_to, Reply::Refused(refusal));
        }
        match command {
            Command::Start(start) => self.start(reply_to, (&start, None), now),
            Command::StartedBefore { start, no_room } => {
                self.start(reply_to, (&start, Some(no_room)), now);
            }
            Command::Fork(fork) => self.fork(reply_to, *fork, now),
            Command::Get(_) | Command::Graph(_) | Command::Layers(_) => self.shown(reply_to, &command),
            Command::AwaitEnd(run_id) => self.await_end(reply_to, run_id),
            Command::StopWaiting { run_id, waiter } => self.stop_waiting(reply_to, (run_id, waiter)),
            Command::Cancel { run_id, reason } => {
                self.steer(reply_to, run_id, (Verb::Cancel, Input::Cancel { reason: &reason }), now);
            }
            Command::Pause { run_id, reason } => {
                self.steer(reply_to, run_id, (Verb::Pause, Input::Pause { reason: &reason }), now);
            }
            Command::Resume(run_id) => self.steer(reply_to, run_id, (Verb::Resume, Input::Resume), now),
            Command::Raise { run_id, mut raise } => {
                raise.key = self.key_of(run_id);
                self.steer(reply_to, run_id, (Verb::Raise, Input::Raise { raise: &raise }), now);
            }
            Command::Terminate { run_id, reason } => {
                self.steer(reply_to, run_id, (Verb::Terminate, Input::Terminate { reason: &reason }), now);
            }
            Command::Settle(_) | Command::Lease(_) | Command::Agent(_) | Command::Admit { .. } => {
                self.told(reply_to, command, now);
            }
            Command::Signal(_) | Command::Update(_) => self.signalled(reply_to, command, now),
            Command::Patch(patch) => self.patch(reply_to, *patch, now),
            Command::Decline { run_id, decided } => self.decline(reply_to, run_id, decided, now),
            Command::Reject { run_id, rejection } => self.reject(reply_to, run_id, rejection, now),
            Command::List(query) => self.listed(reply_to, &query),
            Command::Ids(stretch) => {
                let ids = self.ids(&stretch);
                self.reply_as_of_now(reply_to, Reply::Ids(ids));
            }
            Command::Approvals(_) | Command::Ticket { .. } | Command::Decide(_) => {
                self.reviewed(reply_to, command, now);
            }
            Command::Watch { .. } | Command::Unwatch { .. } | Command::Feed { .. } => {
                self.watched(reply_to, &command);
            }
            Command::Locate(run_id) => self.locate(reply_to, run_id),
            Command::Recalled(run_id) => {
                self.recalled(run_id);
                self.reply_now(reply_to, Reply::Done);
            }
            Command::Keyed(claim) => self.keyed(reply_to, &claim, now),
            Command::Guarded { .. } | Command::Once { .. } | Command::Keeping { .. } => {
                self.wrapped(reply_to, command, now);
            }
        }
    }

    /// Which fanout cores its events go to.
    fn watched(&mut self, reply_to: ReplyTo, command: &Command) {
        match *command {
            Command::Watch { run_id, hub } => {
                if let Some(entry) = self.runs.get_mut(&run_id) {
                    entry.watchers.set(hub, true);
                }
                self.locate(reply_to, run_id);
            }
            Command::Unwatch { run_id, hub } => {
                if let Some(entry) = self.runs.get_mut(&run_id) {
                    entry.watchers.set(hub, false);
                }
                self.reply_now(reply_to, Reply::Done);
            }
            Command::Feed { hub, wanted } => {
                self.feeds.set(hub, wanted);
                self.reply_as_of_now(reply_to, Reply::Done);
            }
            _ => {}
        }
    }

    /// Does the command in this one, as that says.
    fn wrapped(&mut self, reply_to: ReplyTo, command: Command, now: Timestamp) {
        match command {
            Command::Guarded { run_id, seqs, command } => {
                self.guarded(reply_to, (run_id, &seqs), *command, now);
            }
            Command::Once { run_id, idempotency, command } => {
                self.once(reply_to, (run_id, idempotency), *command, now);
            }
            Command::Keeping { run_id, kept, command } => {
                self.given = Some((run_id, kept));
                self.command(Envelope { reply_to, command: *command }, now);
                self.given = None;
            }
            _ => {}
        }
    }

    /// One run, as it is.
    fn shown(&mut self, reply_to: ReplyTo, command: &Command) {
        let Some(run_id) = command.run_id() else { return };
        self.read(reply_to, run_id, |entry| match command {
            Command::Graph(_) => Reply::Graph(Box::new(entry.run.graph())),
            Command::Layers(_) => Reply::Layers(Box::new(entry.run.layers_view())),
            _ => Reply::Run(Box::new(entry.view())),
        });
    }

    fn listed(&mut self, reply_to: ReplyTo, query: &ListQuery) {
        let rows = self.list(query);
        self.reply_as_of_now(reply_to, Reply::List(rows));
    }

    /// A listing shows runs whose events may still be on their way to the disk.
    pub(super) fn reply_as_of_now(&mut self, reply_to: ReplyTo, reply: Reply) {
        let batch = self.outbox.open();
        if self.is_fenced() {
            self.reply_now(reply_to, reply);
        } else if self.open.is_empty() {
            self.reply_after(batch.saturating_sub(1), reply_to, reply);
        } else {
            self.reply_after(batch, reply_to, reply);
        }
    }

    /// Does a command only read, and nothing that may be lost? A shard whose log has failed still tells what is durable.
    fn is_readable(&self, command: &Command) -> bool {
        let durable = |entry: &Entry| self.outbox.is_durable(entry.batch);
        match command {
            Command::Get(run_id)
            | Command::Graph(run_id)
            | Command::Layers(run_id)
            | Command::Locate(run_id)
            | Command::Ticket { run_id, .. }
            | Command::Watch { run_id, .. }
            | Command::Unwatch { run_id, .. } => self.runs.get(run_id).is_none_or(|entry| durable(entry)),
            Command::AwaitEnd(run_id) => {
                let ended = |entry: &Entry| durable(entry) && entry.run.status().is_terminal();
                self.runs.get(run_id).is_none_or(|entry| ended(entry))
            }
            Command::Feed { .. } => true,
            Command::List(_) | Command::Ids(_) | Command::Approvals(_) => {
                self.runs.values().all(|entry| durable(entry))
            }
            _ => false,
        }
    }

    fn guarded(
        &mut self,
        reply_to: ReplyTo,
        (run_id, seqs): (RunId, &[Seq]),
        command: Command,
        now: Timestamp,
    ) {
        match self.runs.get(&run_id) {
            Some(entry) if !seqs.contains(&entry.run.seq()) => {
                let (batch, seq) = (entry.batch, entry.run.seq());
                self.reply_after(batch, reply_to, Reply::Refused(Refusal::Changed { run_id, seq }));
            }
            _ => self.command(Envelope { reply_to, command }, now),
        }
    }

    fn start(&mut self, reply_to: ReplyTo, (start, no_room): (&Start, Option<NoRoom>), now: Timestamp) {
        failpoint::pass(if start.idempotency.is_some() { "shard::start_keyed" } else { "shard::start" });
        if let Some(idempotency) = &start.idempotency
            && let Some(keyed) = self.keys.get(&idempotency.key).copied()
        {
            self.unpark(keyed.run_id, now);
            return self.start_again(reply_to, keyed, &idempotency.fingerprint);
        }
        let claim = start.run_key.as_ref().map(|(key, how)| (key.claim(&start.ir.name), *how));
        let holder = claim.and_then(|(claim, _)| self.holder(&claim, now));
        if let (Some(run_id), Some((_, how @ (OnConflict::Reject | OnConflict::Return)))) = (holder, claim) {
            return self.key_in_use(reply_to, run_id, how);
        }
        if let Some(no_room) = no_room {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NoRoom(no_room)));
        }
        let live = self.live();
        if live >= self.config.runs_live_max {
            let refusal = Refusal::Limit {
                limit: "runs_live_per_shard_max",
                what: "unfinished runs on this shard",
                value: live as u64,
            };
            return self.reply_now(reply_to, Reply::Refused(refusal));
        }
        if let Some(run_id) = holder {
            self.replace(run_id, start.run_id, now);
            if self.is_fenced() {
                return self.refuse_fenced(reply_to);
            }
        }
        let body = Run::begin(start, now, self.config.epoch);
        let event = Event { seq: 1, at: now, body };
        let run = match Run::from_started(start.run_id, start.ir.clone(), &event) {
            Ok(run) => run,
            Err(error) => return self.fence(format!("the engine refused a start: {error}").into()),
        };
        let mut entry = Entry::new(run, self.outbox.open());
        self.outcome.clear();
        self.outcome.effects.timers.extend(entry.run.timers());
        self.outcome.events.push(event.body);
        let preface = [Run::linked(start), Run::keyed(start, holder), Run::moded(start), Run::laid(start)];
        for more in preface.into_iter().flatten() {
            if let Err(error) = engine::apply(&mut entry.run, &more, now) {
                return self.fence(format!("the engine refused a start: {error}").into());
            }
            self.outcome.events.push(more);
        }
        let steps = limits::STEPS_PER_SLICE;
        let advanced = engine::advance(&mut entry.run, Input::Continue, now, steps, &mut self.outcome);
        if let Err(error) = advanced {
            return self.fence(format!("the engine refused its own event: {error}").into());
        }
        entry.acknowledged = (entry.run.status(), entry.run.seq());
        let run = entry.run.summary();
        self.keep_key(start);
        if let Some((claim, _)) = claim {
            self.run_keys.insert(claim, start.run_id);
        }
        self.runs.insert(start.run_id, entry);
        self.cells.runs_started.increment();
        let batch = self.outbox.open();
        self.burst(start.run_id, 1, now);
        failpoint::pass("shard::started");
        self.reply_after(batch, reply_to, Reply::Started { run, replayed: false });
    }

    /// Its key stands for it from here on.
    fn keep_key(&mut self, start: &Start) {
        if let Some(idempotency) = &start.idempotency
            && !failpoint::mutant("key_not_kept")
        {
            let keyed = Keyed { run_id: start.run_id, fingerprint: idempotency.fingerprint };
            self.keys.insert(idempotency.key, keyed);
        }
    }

    /// The key has started a run before: the same answer, or a refusal when it stands for another request.
    pub(super) fn start_again(&mut self, reply_to: ReplyTo, keyed: Keyed, fingerprint: &[u8; 16]) {
        if keyed.fingerprint != *fingerprint {
            // That the key is taken is not said before it is durably so.
            let batch = self.runs.get(&keyed.run_id).map_or(0, |entry| entry.batch);
            return self.reply_after(batch, reply_to, Reply::Refused(Refusal::KeyReused));
        }
        match self.runs.get(&keyed.run_id) {
            Some(entry) => {
                let (batch, run) = (entry.batch, entry.acknowledgement());
                self.reply_after(batch, reply_to, Reply::Started { run, replayed: true });
            }
            // Indexed since the caller looked there: it looks again.
            None => self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(keyed.run_id))),
        }
    }

    pub(super) fn read(&mut self, reply_to: ReplyTo, run_id: RunId, view: impl FnOnce(&Entry) -> Reply) {
        match self.runs.get(&run_id) {
            Some(entry) => {
                let (batch, reply) = (entry.batch, view(entry));
                self.reply_after(batch, reply_to, reply);
            }
            None => self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(run_id))),
        }
    }

    fn locate(&mut self, reply_to: ReplyTo, run_id: RunId) {
        match self.runs.get(&run_id) {
            Some(entry) => {
                let batch = entry.batch;
                if let Some(release) = self.outbox.put(batch, Release::Located(reply_to, run_id)) {
                    self.let_go(release);
                }
            }
            None => {
                let parked = self.parking.located(run_id).map(Reply::Located);
                self.reply_now(reply_to, parked.unwrap_or(Reply::Refused(Refusal::NotFound(run_id))));
            }
        }
    }

    pub(super) fn change(&mut self, reply_to: ReplyTo, run_id: RunId, input: Input<'_>, now: Timestamp) {
        let Some(entry) = self.runs.get(&run_id) else {
            return self.reply_now(reply_to, Reply::Refused(Refusal::NotFound(run_id)));
        };
        let status = entry.run.status();
        if status.is_terminal() {
            let (batch, refusal) = (entry.batch, Refusal::Finished { run_id, status });
            return self.reply_after(batch, reply_to, Reply::Refused(refusal));
        }
        self.input(run_id, input, now);
        if self.is_fenced() {
            return self.refuse_fenced(reply_to);
        }
        // What met the end of the run, or a run that is being cancelled, left nothing behind.
        if self.outcome.stale {
            return self.refuse_dropped(reply_to, run_id, "signalled, for it is being cancelled");
        }
        let key = self.key_of(run_id).map(|asked| asked.key);
        self.read(reply_to, run_id, |entry| Reply::Accepted(entry.done_now(key)));
    }

    /// An input was dropped: the run has ended, or cannot take it as it stands.
    pub(super) fn refuse_dropped(&mut self, reply_to: ReplyTo, run_id: RunId, verb: &'static str) {
        self.read(reply_to, run_id, |entry| match entry.run.status() {
            status if status.is_terminal() => Reply::Refused(Refusal::Finished { run_id, status }),
            status => Reply::Refused(Refusal::Illegal { run_id, status, verb }),
        });
    }

    /// Asks something of a run as a whole, if its status allows it. What it has done already is no error.
    fn steer(&mut self, reply_to: ReplyTo, run_id: RunId, (verb, input): (Verb, Input<'_>), now: Timestamp) {
        failpoint::pass("shard::cancel");
        match self.runs.get(&run_id).map(|entry| (entry.run.may(verb), entry.batch)) {
            Some((Permit::Already, _)) => {
                self.read(reply_to, run_id, |entry| Reply::Accepted(entry.run.summary()));
            }
            Some((Permit::Illegal(status), batch)) if !status.is_terminal() => {
                let verb = match verb {
                    Verb::Pause => "paused",
                    Verb::Resume => "resumed",
                    Verb::Cancel => "cancelled",
                    Verb::Terminate => "terminated",
                    Verb::Raise => "given more to spend",
                };
                let refusal = Refusal::Illegal { run_id, status, verb };
                self.reply_after(batch, reply_to, Reply::Refused(refusal));
            }
            _ => self.change(reply_to, run_id, input, now),
        }
    }

    /// The oldest unfinished runs of a stretch. One pass, bounded memory.
    fn ids(&self, stretch: &Stretch) -> Vec<RunId> {
        let mut oldest: BinaryHeap<RunId> = BinaryHeap::new();
        if stretch.limit == 0 {
            return Vec::new();
        }
        let within = |run_id: &RunId| (stretch.from..stretch.before).contains(run_id);
        let held = self
            .runs
            .iter()
            .filter(|(run_id, entry)| within(run_id) && stretch.filter.fits(entry.run.facts()));
        let parked = self.parking.summaries();
        let parked = parked.filter(|summary| within(&summary.run_id) && stretch.filter.fits_summary(summary));
        for run_id in held.map(|(run_id, _)| *run_id).chain(parked.map(|summary| summary.run_id)) {
            if oldest.len() < stretch.limit {
                oldest.push(run_id);
            } else if let Some(mut last) = oldest.peek_mut().filter(|last| run_id < **last) {
                *last = run_id;
            }
        }
        oldest.into_sorted_vec()
    }

    /// The newest unfinished runs that match. One pass, bounded memory.
    fn list(&self, query: &ListQuery) -> Vec<RunSummary> {
        // One more than a page tells whether there is another.
        let limit = query.limit.min(limits::PAGE_ROWS_MAX + 1);
        let mut newest: BinaryHeap<std::cmp::Reverse<RunId>> = BinaryHeap::with_capacity(limit + 1);
        let mut take = |run_id: RunId, fits: bool| {
            if fits && query.before.is_none_or(|before| run_id < before) {
                newest.push(std::cmp::Reverse(run_id));
                if newest.len() > limit {
                    newest.pop();
                }
            }
        };
        for (run_id, entry) in &self.runs {
            take(*run_id, query.filter.fits(entry.run.facts()));
        }
        for summary in self.parking.summaries() {
            take(summary.run_id, query.filter.fits_summary(summary));
        }
        let summary = |run_id: &RunId| match self.runs.get(run_id) {
            Some(entry) => Some(entry.run.summary()),
            None => self.parking.summary(*run_id).cloned(),
        };
        newest.into_sorted_vec().iter().filter_map(|id| summary(&id.0)).collect()
    }
}
