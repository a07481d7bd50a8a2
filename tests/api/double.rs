//! A node in one thread: the real interface and hub, a shard that only keeps runs in a map, storage in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use aob::api::ports::{Location, Outcome, Registration, Runs, StorageError, Workflows};
use aob::api::{Catalog, Entropy, Gate, NodeView, ServiceParts, Services, serve};
use aob::engine::command::{
    Command, Envelope, GraphView, ListQuery, Located, NodeView as NodeState, OnConflict, Refusal, Reply,
    ReplyTo, RunView, Waits, Why,
};
use aob::fanout::{self, Hub, Push, hub};
use aob::limits;
use aob::model::event::{DocumentHash, Idempotency, RunStarted};
use aob::model::run_key;
use aob::model::token::Token;
use aob::model::{Event, EventBody, FrameRef, Place, Priority, RunId, RunSummary, Seq, Status, Value};
use aob::queue::{FullPolicy, Receiver, Sender, bounded};
use aob::time::Timestamp;
use aob::wire::node::NodeInfo;

/// State that the doubles share.
#[derive(Default)]
#[expect(clippy::disallowed_types, reason = "a double that no plane uses")]
pub(crate) struct Memory {
    registered: std::sync::Mutex<Vec<Registration>>,
    tags: std::sync::Mutex<BTreeMap<(String, String), String>>,
    histories: std::sync::Mutex<BTreeMap<RunId, (RunView, Vec<Event>)>>,
    archive: std::sync::Mutex<BTreeMap<RunId, Option<Idempotency>>>,
}

impl Memory {
    fn location(&self, run_id: RunId) -> Option<Location> {
        let histories = self.histories.lock().unwrap();
        let (view, _) = histories.get(&run_id)?;
        let frames = vec![FrameRef { segment: 1, offset: 0 }];
        Some(Location { summary: view.summary.clone(), document: view.document, shard: 0, frames })
    }
}

impl Workflows for Memory {
    fn register(
        &self,
        name: &str,
        version: Option<&str>,
        canonical: &[u8],
        hash: &DocumentHash,
    ) -> Result<Outcome, StorageError> {
        let mut all = self.registered.lock().unwrap();
        let same =
            |row: &&Registration| row.name == name && version.is_none_or(|version| row.version == version);
        if let Some(found) = all.iter().filter(same).find(|row| row.hash == *hash) {
            return Ok(Outcome::Registered { version: found.version.clone(), created: false });
        }
        if let (Some(_), Some(found)) = (version, all.iter().find(same)) {
            return Ok(Outcome::Conflict { existing: found.hash });
        }
        let version = version.map_or_else(|| (all.len() + 1).to_string(), str::to_owned);
        all.push(Registration {
            name: name.into(),
            version: version.clone(),
            hash: *hash,
            canonical: canonical.to_vec(),
        });
        Ok(Outcome::Registered { version, created: true })
    }

    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, StorageError> {
        let all = self.registered.lock().unwrap();
        let same =
            |row: &&Registration| row.name == name && version.is_none_or(|version| row.version == version);
        Ok(all.iter().rev().find(same).cloned())
    }

    fn tag(&self, name: &str, tag: &str, version: Option<&str>) -> Result<bool, StorageError> {
        let mut tags = self.tags.lock().unwrap();
        let key = (name.to_owned(), tag.to_owned());
        match version {
            Some(version) if Workflows::get(self, name, Some(version))?.is_none() => return Ok(false),
            Some(version) => drop(tags.insert(key, version.to_owned())),
            None => drop(tags.remove(&key)),
        }
        Ok(true)
    }

    fn tags(&self, name: &str) -> Result<aob::api::ports::Tags, StorageError> {
        let tags = self.tags.lock().unwrap();
        let own = tags.iter().filter(|((of, _), _)| of == name);
        Ok(own.map(|((_, tag), version)| (tag.as_str().into(), version.as_str().into())).collect())
    }

    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Registration>, StorageError> {
        Ok(self.registered.lock().unwrap().iter().find(|row| row.hash == *hash).cloned())
    }

    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, StorageError> {
        let mut all = self.registered.lock().unwrap().clone();
        all.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        all.retain(|row| after.is_none_or(|after| (row.name.as_str(), row.version.as_str()) > after));
        all.truncate(limit);
        Ok(all)
    }
}

impl Runs for Memory {
    fn get(&self, run_id: RunId) -> Result<Option<Location>, StorageError> {
        let archived = self.archive.lock().unwrap().contains_key(&run_id);
        Ok(self.location(run_id).filter(|_| archived))
    }

    fn list(&self, query: &ListQuery) -> Result<(Vec<RunSummary>, Option<RunId>), StorageError> {
        let archive = self.archive.lock().unwrap();
        let histories = self.histories.lock().unwrap();
        let all = archive.keys().rev().map(|run_id| histories[run_id].0.summary.clone());
        Ok((all.filter(|run| fits(query, run)).take(query.limit).collect(), None))
    }

    fn by_key(&self, key: &[u8; 16]) -> Result<Option<(RunSummary, Idempotency)>, StorageError> {
        let archive = self.archive.lock().unwrap();
        let found = archive.iter().find_map(|(run_id, known)| {
            known.clone().filter(|known| known.key == *key).map(|known| (*run_id, known))
        });
        Ok(found.map(|(run_id, known)| (self.histories.lock().unwrap()[&run_id].0.summary.clone(), known)))
    }

    fn last_event(&self, location: &Location) -> Result<Option<Event>, StorageError> {
        Ok(Runs::events(self, location, 0, usize::MAX)?.pop())
    }

    fn erase(&self, run_id: RunId) -> Result<bool, StorageError> {
        Ok(self.archive.lock().unwrap().remove(&run_id).is_some())
    }

    fn events(&self, location: &Location, after: Seq, limit: usize) -> Result<Vec<Event>, StorageError> {
        let histories = self.histories.lock().unwrap();
        let (_, events) = &histories[&location.summary.run_id];
        Ok(events.iter().skip(after as usize).take(limit).cloned().collect())
    }

    fn each(&self, location: &Location, seen: &mut dyn FnMut(&EventBody)) -> Result<(), StorageError> {
        let histories = self.histories.lock().unwrap();
        histories[&location.summary.run_id].1.iter().for_each(|event| seen(&event.body));
        Ok(())
    }
}

fn fits(query: &ListQuery, run: &RunSummary) -> bool {
    query.before.is_none_or(|before| run.run_id < before) && query.filter.fits_summary(run)
}

/// What the hub reads, from the same memory.
struct Source {
    memory: Arc<Memory>,
    catalog: Arc<Catalog>,
}

impl fanout::Source for Source {
    fn ir(&self, hash: &DocumentHash) -> Result<Option<Arc<aob::ir::Ir>>, fanout::source::SourceError> {
        Ok(self.catalog.load_hash(hash).unwrap().map(|entry| entry.compiled.ir.clone()))
    }

    fn finished(&self, run: RunId) -> Result<Option<fanout::source::Location>, fanout::source::SourceError> {
        let found = Runs::get(&*self.memory, run).unwrap();
        Ok(found.map(|found| fanout::source::Location {
            shard: found.shard,
            located: Located { summary: found.summary, document: found.document, frames: found.frames },
        }))
    }

    fn events(
        &self,
        location: &fanout::source::Location,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Event>, fanout::source::SourceError> {
        let location = self.memory.location(location.located.summary.run_id).unwrap();
        Ok(self.memory.events(&location, after, limit).unwrap())
    }
}

struct View;

impl NodeView for View {
    fn info(&self) -> NodeInfo {
        NodeInfo { version: "test".into(), durability: "fsync".into(), ..NodeInfo::default() }
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Keeps runs in a map. A workflow named `slow` waits for the signal `go`; any other ends as it starts.
struct Shard {
    memory: Arc<Memory>,
    live: BTreeMap<RunId, Option<Idempotency>>,
    waiting: Vec<(RunId, ReplyTo)>,
    watched: Vec<RunId>,
    replies: [Sender<(ReplyTo, Reply)>; 2],
    pushes: Sender<Push>,
}

impl Shard {
    async fn run(mut self, mut commands: Receiver<Envelope>) {
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
            Command::Keeping { command, .. } => return self.answer(reply_to, *command),
            Command::Settle(settle) => missing(settle.run_id)(),
            Command::Lease(lease) => missing(lease.run_id)(),
            Command::Admit { run_id, .. } => missing(run_id)(),
            Command::Recalled(_) => Reply::Done,
            Command::Signal(bytes) => self.signal(&bytes),
            Command::List(query) => {
                let all = self.live.keys().rev().filter_map(|run_id| Some(self.view(*run_id)?.summary));
                Reply::List(all.filter(|run| fits(&query, run)).take(query.limit).collect())
            }
            Command::Watch(run_id) | Command::Locate(run_id) => match self.view(run_id) {
                Some(view) => {
                    self.watched.push(run_id);
                    Reply::Located(Located {
                        summary: view.summary,
                        document: view.document,
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
            Command::Keyed(claim) => Reply::Keyed(self.holder(&claim)),
            Command::Unwatch(run_id) => {
                self.watched.retain(|watched| *watched != run_id);
                Reply::Done
            }
        })
    }

    fn view(&self, run_id: RunId) -> Option<RunView> {
        self.live.get(&run_id)?;
        self.memory.histories.lock().unwrap().get(&run_id).map(|(view, _)| view.clone())
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
            inputs: start.inputs.clone(),
            outputs: None,
            failure: None,
            failed_node: None,
            current_nodes: vec!["a".into()],
            deadline: None,
            parent: None,
            admission: None,
            kept: None,
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
                .send(Push { run_id, first_seq, at, events: bodies, kept: None, lagged: false })
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

/// A lease that the node would have given out, for an attempt that is over.
pub(crate) fn lease() -> String {
    let run_id = RunId::new(Timestamp::from_micros(1), aob::model::Partition::new(0), [0; 10]);
    let room = ("default".into(), "mail".into());
    aob::exec::Leases::new([7; 32]).seal(&aob::exec::Ticket { run_id, place: Place::root(0), seq: 1, room })
}

/// Runs `test` against a node of its own.
pub(crate) fn with_node<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let memory = Arc::new(Memory::default());
        let catalog = Catalog::new(memory.clone());
        let (commands, shard_end) =
            bounded("shard-0", limits::SHARD_QUEUE_COMMANDS_MAX, FullPolicy::RefuseCaller);
        let (core_replies, core_end) = bounded("replies-0", limits::REPLY_QUEUE_MAX, FullPolicy::Reserved);
        let (hub_replies, hub_end) = bounded("replies-1", limits::REPLY_QUEUE_MAX, FullPolicy::Reserved);
        let (pushes, pushes_end) = bounded("fanout-0", limits::FANOUT_QUEUE_MAX, FullPolicy::DropAndResync);
        let (requests, requests_end) = bounded("hub-0", limits::HUB_QUEUE_MAX, FullPolicy::RefuseCaller);
        let subscribers = Arc::new(aob::telemetry::Cell::default());
        let shard = Shard {
            memory: memory.clone(),
            live: BTreeMap::new(),
            waiting: Vec::new(),
            watched: Vec::new(),
            replies: [core_replies, hub_replies],
            pushes,
        };
        tokio::task::spawn_local(shard.run(shard_end));
        let hub = Hub::new(hub::Parts {
            core: 1,
            shards: vec![commands.clone()],
            replies: hub_end,
            pushes: pushes_end,
            requests: requests_end,
            source: Arc::new(Source { memory: memory.clone(), catalog: catalog.clone() }),
            subscribers: subscribers.clone(),
        });
        tokio::task::spawn_local(hub.run(std::future::pending()));
        let cells = Arc::new(aob::telemetry::ShardCells::default());
        cells.runs_started.add(3);
        cells.finished.cells(&"w".into())[0].add(2);
        let gate = Gate::new(0, vec![commands.clone()]);
        tokio::task::spawn_local(gate.clone().deliver(core_end));
        let services = Services::new(ServiceParts {
            gate,
            catalog,
            runs: memory,
            contents: Arc::new(crate::inline::Inline::default()),
            hubs: vec![requests],
            node: Arc::new(View),
            cells: vec![cells],
            subscribers: vec![subscribers],
            queues: vec![commands.stats().clone()],
            durability: "fsync".into(),
            executors: aob::exec::Executors {
                http: aob::exec::Http::new().0,
                pool: Arc::default(),
                slots: Arc::default(),
                leases: aob::exec::Leases::new([7; 32]),
            },
            entropy: Entropy::from_system().unwrap(),
            door: Arc::default(),
            connections_max: limits::CONNECTIONS_PER_CORE_MAX,
            drain: std::time::Duration::from_secs(5),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let server = tokio::task::spawn_local(serve(listener, Rc::clone(&services), stopped));
        test(address).await;
        stop.send(true).unwrap();
        server.await.unwrap().unwrap();
    });
}
