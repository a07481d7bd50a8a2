//! A shard that only keeps runs in a map, and answers every command.

use std::collections::BTreeMap;
use std::sync::Arc;

use aob::api::ports::Runs as _;
use aob::engine::command::{
    Command, Envelope, GraphView, Ir, LayersView, ListedReview, Located, NodeView as NodeState, OnConflict,
    OpenReview, Raise, Refusal, Reply, ReplyTo, RunView, Settled, Step, TicketView, Update, Updated, Waits,
    Why,
};
use aob::fanout::Push;
use aob::model::event::{Idempotency, Patched, Review, RunStarted};
use aob::model::patch::{Change, Held, Layer};
use aob::model::run_key;
use aob::model::token::Token;
use aob::model::{Event, EventBody, Place, Priority, RunId, RunSummary, Seq, Status, Value};
use aob::queue::{Receiver, Sender};
use aob::time::Timestamp;

use super::memory::{Memory, fits};

/// Keeps runs in a map. A workflow named `slow` waits for the signal `go`; any other ends as it starts.
pub(super) struct Shard {
    memory: Arc<Memory>,
    live: BTreeMap<RunId, Option<Idempotency>>,
    waiting: Vec<(RunId, ReplyTo)>,
    watched: Vec<RunId>,
    /// Of runs that were patched: the graph, and how it came to be.
    graphs: BTreeMap<RunId, (Arc<Ir>, Vec<Arc<Layer>>)>,
    /// Patches that wait for a human.
    held: Vec<Arc<Held>>,
    replies: [Sender<(ReplyTo, Reply)>; 2],
    pushes: Sender<Push>,
}

impl Shard {
    /// A shard without runs.
    pub(super) fn new(
        memory: Arc<Memory>,
        replies: [Sender<(ReplyTo, Reply)>; 2],
        pushes: Sender<Push>,
    ) -> Self {
        let (live, graphs, waiting, watched, held) = Default::default();
        Self { memory, live, waiting, watched, graphs, held, replies, pushes }
    }

    pub(super) async fn run(mut self, mut commands: Receiver<Envelope>) {
        loop {
            let Envelope { reply_to, command } = commands.recv().await;
            if let Some(reply) = self.answer(reply_to, command) {
                self.reply(reply_to, reply);
            }
        }
    }

    fn reply(&self, to: ReplyTo, reply: Reply) {
        self.replies[usize::from(to.core)].send((to, reply)).unwrap();
    }

    fn answer(&mut self, reply_to: ReplyTo, command: Command) -> Option<Reply> {
        Some(match command {
            Command::Start(start) => self.start(*start),
            Command::StartedBefore { no_room, .. } => Reply::Refused(Refusal::NoRoom(no_room)),
            Command::Fork(fork) => self.fork(*fork),
            Command::Get(run_id) => {
                self.view(run_id).map_or_else(missing(run_id), |v| Reply::Run(Box::new(v)))
            }
            Command::AwaitEnd(run_id) if self.live.contains_key(&run_id) => {
                self.waiting.push((run_id, reply_to));
                return None;
            }
            Command::AwaitEnd(run_id) => missing(run_id)(),
            Command::StopWaiting { waiter, .. } => {
                if let Some(at) = self.waiting.iter().position(|(_, to)| *to == waiter) {
                    self.waiting.remove(at);
                    self.reply(waiter, Reply::Done);
                }
                Reply::Done
            }
            Command::Graph(run_id) => self.view(run_id).map_or_else(missing(run_id), |view| {
                let node = NodeState {
                    path: "a".into(),
                    state: "waiting",
                    attempts: 1,
                    waiting_for: Some("signal go".into()),
                    waits: Some(Waits { why: Why::Signal("go".into()), until: None }),
                    priority: Priority::Medium,
                    items: None,
                };
                Reply::Graph(Box::new(GraphView {
                    summary: view.summary,
                    document: view.document,
                    nodes: vec![node],
                    version: 1,
                    admission: None,
                }))
            }),
            Command::Cancel { run_id, reason } if self.live.contains_key(&run_id) => {
                self.append(
                    run_id,
                    Status::Running,
                    vec![EventBody::RunCancelRequested { reason: reason.clone() }],
                );
                let accepted =
                    self.append(run_id, Status::Cancelled, vec![EventBody::RunCancelled { reason }]);
                Reply::Accepted(accepted)
            }
            Command::Cancel { run_id, .. } => missing(run_id)(),
            Command::Pause { run_id, reason } if self.live.contains_key(&run_id) => {
                Reply::Accepted(self.append(run_id, Status::Paused, vec![EventBody::RunPaused { reason }]))
            }
            Command::Resume(run_id) if self.live.contains_key(&run_id) => {
                Reply::Accepted(self.append(run_id, Status::Running, vec![EventBody::RunResumed]))
            }
            Command::Terminate { run_id, reason } if self.live.contains_key(&run_id) => {
                let ended = vec![EventBody::RunCancelled { reason }];
                Reply::Accepted(self.append(run_id, Status::Cancelled, ended))
            }
            Command::Pause { run_id, .. } | Command::Terminate { run_id, .. } | Command::Resume(run_id) => {
                missing(run_id)()
            }
            Command::Keeping { command, .. } | Command::Once { command, .. } => {
                return self.answer(reply_to, *command);
            }
            Command::Raise { run_id, raise } if self.live.contains_key(&run_id) => {
                let Raise { usd, tokens, by, reason, .. } = *raise;
                let raised = vec![EventBody::BudgetRaised { usd, tokens, by, reason }];
                Reply::Accepted(self.append(run_id, Status::Running, raised))
            }
            Command::Raise { run_id, .. } => missing(run_id)(),
            Command::Agent(turn) => missing(turn.run_id)(),
            Command::Settle(settle) => missing(settle.run_id)(),
            Command::Lease(lease) => missing(lease.run_id)(),
            Command::Patch(patch) => self.patch(*patch),
            Command::Reject { run_id, .. } => missing(run_id)(),
            Command::Decline { run_id, decided } => {
                self.held.retain(|held| held.proposal.patch_id != decided.patch_id);
                let events = vec![EventBody::PatchDecided(decided)];
                Reply::Accepted(self.append(run_id, Status::Running, events))
            }
            Command::Layers(run_id) => {
                self.layers(run_id).map_or_else(missing(run_id), |view| Reply::Layers(Box::new(view)))
            }
            Command::Admit { run_id, .. } => missing(run_id)(),
            Command::Recalled(_) => Reply::Done,
            Command::Signal(bytes) => self.signal(&bytes),
            Command::Update(update) => self.update(&update),
            Command::Ids(stretch) => {
                let within = |run_id: &RunId| (stretch.from..stretch.before).contains(run_id);
                let fits = |run_id: &RunId| {
                    within(run_id)
                        && self.view(*run_id).is_some_and(|view| stretch.filter.fits_summary(&view.summary))
                };
                Reply::Ids(self.live.keys().copied().filter(fits).take(stretch.limit).collect())
            }
            Command::List(query) => {
                let all = self.live.keys().rev().filter_map(|run_id| Some(self.view(*run_id)?.summary));
                Reply::List(all.filter(|run| fits(&query, run)).take(query.limit).collect())
            }
            Command::Watch { run_id, .. } | Command::Locate(run_id) => match self.view(run_id) {
                Some(view) => {
                    self.watched.push(run_id);
                    Reply::Located(Located {
                        summary: view.summary,
                        document: view.document,
                        graph: None,
                        version: 1,
                        frames: Vec::new(),
                    })
                }
                None => missing(run_id)(),
            },
            Command::Guarded { run_id, seqs, command } => match self.view(run_id) {
                Some(view) if !seqs.contains(&view.summary.seq) => {
                    Reply::Refused(Refusal::Changed { run_id, seq: view.summary.seq })
                }
                _ => return self.answer(reply_to, *command),
            },
            // Every run that goes on asks ops.
            Command::Ticket { run_id, .. } => self.ticket(run_id),
            Command::Approvals(query) => {
                let rows = self.live.keys().rev().filter_map(|run_id| match self.ticket(*run_id) {
                    Reply::Ticket(view) => {
                        Some(ListedReview { run_id: *run_id, workflow: view.run.workflow, review: view.open })
                    }
                    _ => None,
                });
                Reply::Approvals(rows.take(query.limit).collect())
            }
            Command::Decide(decide) => {
                let decided =
                    EventBody::ApprovalDecided { place: decide.place, decision: Box::new(decide.decision) };
                Reply::Accepted(self.append(decide.run_id, Status::Running, vec![decided]))
            }
            Command::Keyed(claim) => Reply::Keyed(self.holder(&claim)),
            Command::Feed { .. } => Reply::Done,
            Command::Unwatch { run_id, .. } => {
                self.watched.retain(|watched| *watched != run_id);
                Reply::Done
            }
        })
    }

    fn ticket(&self, run_id: RunId) -> Reply {
        let Some(view) = self.view(run_id) else { return missing(run_id)() };
        let since = Timestamp::from_micros(1_500_000);
        let reviewers = vec!["ops".into()];
        Reply::Ticket(Box::new(TicketView {
            run: view.summary,
            document: view.document,
            open: OpenReview {
                seq: 2,
                node: "a".into(),
                reviewers: reviewers.clone(),
                anybody: false,
                since,
                until: None,
                policy: None,
            },
            place: Place::root(0),
            review: Review { reviewers, data: Value::Int(1), due: None, escalations: Vec::new() },
            level: 0,
            reason_required: false,
            form: None,
            kept: None,
        }))
    }

    fn view(&self, run_id: RunId) -> Option<RunView> {
        self.live.get(&run_id)?;
        self.memory.histories.lock().unwrap().get(&run_id).map(|(view, _)| view.clone())
    }

    fn layers(&self, run_id: RunId) -> Option<LayersView> {
        let view = self.view(run_id)?;
        let (ir, layers) = match self.graphs.get(&run_id) {
            Some((ir, layers)) => (ir.clone(), layers.clone()),
            None => (self.memory.graph(&self.memory.location(run_id)?).unwrap()?, Vec::new()),
        };
        let version = layers.len() as u32 + 1;
        let held =
            self.held.iter().filter(|held| held.proposal.patch_id.run_id() == run_id).cloned().collect();
        let (summary, mode) = (view.summary, aob::model::Mode::Full);
        Some(LayersView { summary, base: view.document, version, mode, ir, layers, held })
    }

    fn patch(&mut self, patch: aob::engine::command::Patch) -> Reply {
        let (run_id, document) = (patch.run_id, patch.ir.document);
        let Some(view) = self.layers(run_id) else { return missing(run_id)() };
        let mut events = match (&patch.step, &patch.change) {
            (Step::Hold(reason), Change::Patch(proposal)) => {
                let (proposal, reason) = ((**proposal).clone(), reason.clone());
                let held = Held { proposal, version: patch.version, reason };
                self.held.push(Arc::new(held.clone()));
                let events = vec![EventBody::PatchHeld(Box::new(held))];
                return Reply::Patched(self.append(run_id, Status::Running, events), patch.version);
            }
            (Step::Approve(decided), _) => vec![EventBody::PatchDecided(decided.clone())],
            _ => Vec::new(),
        };
        self.held.retain(|held| !matches!(&patch.step, Step::Approve(decided) if decided.patch_id == held.proposal.patch_id));
        let mut layers = view.layers;
        let proposed = match &patch.change {
            Change::Patch(proposal) => EventBody::PatchCreated(proposal.clone()),
            Change::Revoked(revocation) => EventBody::PatchRevoked(revocation.clone()),
        };
        layers.push(Arc::new(Layer { change: patch.change, at: view.summary.started_at, document }));
        let version = layers.len() as u32 + 1;
        self.graphs.insert(run_id, (patch.ir, layers));
        let applied = Patched { version, document, verdicts: [].into_iter().collect() };
        events.extend([proposed, EventBody::PatchApplied(Box::new(applied))]);
        Reply::Patched(self.append(run_id, Status::Running, events), version)
    }

    fn start(&mut self, start: aob::engine::command::Start) -> Reply {
        if let Some(asked) = &start.idempotency {
            let known =
                self.live.iter().find(|(_, known)| known.as_ref().is_some_and(|k| k.key == asked.key));
            if let Some((run_id, Some(known))) = known {
                return if known.fingerprint == asked.fingerprint {
                    Reply::Started { run: self.view(*run_id).unwrap().summary, replayed: true }
                } else {
                    Reply::Refused(Refusal::KeyReused)
                };
            }
        }
        if let Some((key, how)) = &start.run_key
            && let Some(run_id) = self.holder(&key.claim(&start.ir.name))
        {
            match how {
                OnConflict::Reject => return Reply::Refused(Refusal::RunKeyInUse { run_id }),
                OnConflict::Return => return Reply::Existing(self.view(run_id).unwrap().summary),
                OnConflict::Replace => {
                    let reason = "replaced".into();
                    self.append(run_id, Status::Cancelled, vec![EventBody::RunCancelled { reason }]);
                }
            }
        }
        let (run_id, ir) = (start.run_id, start.ir);
        let summary = RunSummary {
            run_id,
            workflow: ir.name.clone(),
            version: ir.version.clone(),
            status: Status::Running,
            seq: 0,
            epoch: 1,
            started_at: Timestamp::from_micros(1_000_000),
            ended_at: None,
            run_key: start.run_key.as_ref().map(|(key, _)| key.as_str().clone()),
        };
        let view = RunView {
            summary,
            document: ir.document,
            layered: None,
            inputs: start.inputs.clone(),
            outputs: None,
            failure: None,
            failed_node: None,
            current_nodes: vec!["a".into()],
            deadline: None,
            parent: None,
            admission: None,
            reviews: Vec::new(),

            pauses: Vec::new(),
            kept: None,
            origin: None,
        };
        self.memory.histories.lock().unwrap().insert(run_id, (view, Vec::new()));
        self.live.insert(run_id, start.idempotency.clone());
        let started = EventBody::RunStarted(Box::new(RunStarted {
            workflow: ir.name.clone(),
            version: ir.version.clone(),
            document: ir.document,
            semantics: 1,
            inputs: start.inputs,
            seed: start.seed,
            deadline: None,
            idempotency: start.idempotency,
            epoch: 1,
        }));
        let node = EventBody::NodeStarted { place: Place::root(0), attempt: 1 };
        let mut run = self.append(run_id, Status::Running, vec![started, node]);
        if &*ir.name != "slow" {
            run = self.complete(run_id, Value::Int(42));
        }
        Reply::Started { run, replayed: false }
    }

    fn fork(&mut self, fork: aob::engine::command::Fork) -> Reply {
        let run_id = fork.run.id();
        let mut view = fork.run.view();
        (view.summary.seq, view.summary.epoch) = (0, 1);
        self.memory.histories.lock().unwrap().insert(run_id, (view, Vec::new()));
        self.live.insert(run_id, fork.idempotency);
        let events = fork.bursts.into_iter().flat_map(|(_, _, events)| events).collect();
        self.append(run_id, Status::Running, events);
        Reply::Started { run: self.complete(run_id, Value::Int(42)), replayed: false }
    }

    fn holder(&self, claim: &run_key::Claim) -> Option<RunId> {
        let claimed = |run_id: &&RunId| {
            let summary = self.view(**run_id).unwrap().summary;
            summary.run_key.is_some_and(|key| run_key::claim(&key, &summary.workflow) == *claim)
        };
        self.live.keys().find(claimed).copied()
    }

    fn signal(&mut self, bytes: &[u8]) -> Reply {
        let mut buffer = rkyv::util::AlignedVec::new();
        let token = Token::access_copied(bytes, &mut buffer).unwrap();
        let (run_id, payload) = (token.run(), token.value().unwrap());
        if !self.live.contains_key(&run_id) {
            return missing(run_id)();
        }
        let name = token.name.as_str().into();
        let event = EventBody::SignalReceived { name, payload: payload.clone(), waiter: None };
        let summary = self.append(run_id, Status::Running, vec![event]);
        Reply::Accepted(if token.name == "go" { self.complete(run_id, payload) } else { summary })
    }

    /// What a run waits for is taken at once.
    fn update(&mut self, update: &Update) -> Reply {
        let mut buffer = rkyv::util::AlignedVec::new();
        let token = Token::access_copied(&update.token, &mut buffer).unwrap();
        let (run_id, name) = (update.run_id, Arc::from(token.name.as_str()));
        let payload = token.value().unwrap();
        if self.live.contains_key(&run_id) && &*name != "go" {
            return Reply::Refused(Refusal::NotAwaited { run_id, name, awaited: vec!["go".into()] });
        }
        let Reply::Accepted(run) = self.signal(&update.token) else { return missing(run_id)() };
        let seq = run.seq - 2;
        Reply::Updated(Box::new(Updated {
            run,
            seq,
            node: "a".into(),
            reply: None,
            settled: Some(Settled::Completed(payload)),
            replayed: false,
            kept: None,
        }))
    }

    fn complete(&mut self, run_id: RunId, outputs: Value) -> RunSummary {
        let place = Place::root(0);
        let done = EventBody::NodeCompleted { place, output: outputs.clone(), edges: smallvec::smallvec![] };
        if let Some((view, _)) = self.memory.histories.lock().unwrap().get_mut(&run_id) {
            view.outputs = Some(outputs.clone());
            view.current_nodes.clear();
        }
        self.append(run_id, Status::Completed, vec![done, EventBody::RunCompleted { outputs }])
    }

    /// Appends, pushes, and archives a run that has ended.
    fn append(&mut self, run_id: RunId, status: Status, bodies: Vec<EventBody>) -> RunSummary {
        let at = Timestamp::from_micros(2_000_000);
        let (view, first_seq) = {
            let mut histories = self.memory.histories.lock().unwrap();
            let (view, events) = histories.get_mut(&run_id).unwrap();
            let first_seq = events.len() as Seq + 1;
            events.extend((first_seq..).zip(&bodies).map(|(seq, body)| Event {
                seq,
                at,
                body: body.clone(),
            }));
            view.summary.seq = events.len() as Seq;
            view.summary.status = status;
            view.summary.ended_at = status.is_terminal().then_some(at);
            (view.clone(), first_seq)
        };
        if self.watched.contains(&run_id) {
            self.pushes
                .send(Push { first_seq, at, events: bodies, feed_lagged: false, ..Push::gap(run_id) })
                .unwrap();
        }
        if status.is_terminal() {
            let key = self.live.remove(&run_id).flatten();
            self.memory.archive.lock().unwrap().insert(run_id, key);
            for at in (0..self.waiting.len()).rev() {
                if self.waiting[at].0 == run_id {
                    let (_, to) = self.waiting.remove(at);
                    self.reply(to, Reply::Run(Box::new(view.clone())));
                }
            }
        }
        view.summary
    }
}

fn missing(run_id: RunId) -> impl FnOnce() -> Reply {
    move || Reply::Refused(Refusal::NotFound(run_id))
}
