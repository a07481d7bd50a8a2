//! Everything the handlers of one control core need. Built once per core, never shared between threads.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;

use super::artifacts::Artifacts;
use super::catalog::Catalog;
use super::entropy::Entropy;
use super::gate::Gate;
use super::ports::{Contents, Location, Runs};
use super::triggers::Triggers;
use super::webhooks::Reviewing;
use crate::auth::Door;
use crate::engine::command::{Command, ListQuery, Refusal, Reply};
use crate::exec::Executors;
use crate::limits;
use crate::model::patch::PatchId;
use crate::model::run_key::{self, Claim};
use crate::model::{NoRoom, Partition, RunFilter, RunId, Workspace};
use crate::queue::{Sender, Stats};
use crate::store::Letters;
use crate::telemetry::{self, ShardCells};
use crate::time::{Clock as _, SystemClock};
use crate::wire::node::NodeInfo;
use crate::wire::problem::Problem;
use crate::wire::stream::ToHub;

/// What the node says about itself.
pub trait NodeView: Send + Sync {
    /// For `/v1/node`. Queues are filled in by the API.
    fn info(&self) -> NodeInfo;
    /// Why nothing new is begun here; what was found last.
    fn no_room(&self) -> Option<NoRoom> {
        None
    }
    /// May requests be sent here? The error says what is missing.
    ///
    /// # Errors
    /// In one sentence, why not.
    fn ready(&self) -> Result<(), String>;
    /// May it answer what runs are, without asking anybody else? Not when another may own them by now.
    fn may_read(&self) -> bool {
        true
    }
    /// What other nodes on the same store prove themselves with.
    fn hop_key(&self) -> Option<&super::front::HopKey> {
        None
    }
}

/// What a core's services are built from.
pub struct Parts {
    /// The door to the shards. Its `deliver` and `watch_overdue` run on this core.
    pub gate: Gate,
    /// Compiled workflows, shared by all cores.
    pub catalog: Arc<Catalog>,
    /// Finished runs and histories.
    pub runs: Arc<dyn Runs>,
    /// Values that do not stand in events.
    pub contents: Arc<dyn Contents>,
    /// Durable products of patches.
    pub artifacts: Arc<Artifacts>,
    /// The doors of the fanout cores; empty when there are none.
    pub hubs: Vec<Sender<ToHub>>,
    /// The node as a whole.
    pub node: Arc<dyn NodeView>,
    /// Counters of each shard.
    pub cells: Vec<Arc<ShardCells>>,
    /// What each fanout core counts of its streams.
    pub subscribers: Vec<Arc<telemetry::StreamCells>>,
    /// What fanout cores count of QUIC.
    pub quic_cells: Vec<Arc<telemetry::QuicCells>>,
    /// All queues of the node, for metrics and `/v1/node`.
    pub queues: Vec<Arc<Stats>>,
    /// Level of every acknowledgement: `fsync`, ...
    pub durability: Arc<str>,
    /// Whoever does work that is not the node's.
    pub executors: Executors,
    /// What is known of reviews, and who is told of them.
    pub reviewing: Reviewing,
    /// Work that was given up.
    pub letters: Arc<dyn Letters>,
    /// Unpredictable bytes.
    pub entropy: Entropy,
    /// Who may come in.
    pub door: Arc<Door>,
    /// Schedules and hooks.
    pub triggers: Arc<Triggers>,
    /// Connections that this core holds open at most.
    pub connections_max: usize,
    /// How long what is under way gets when the node stops.
    pub drain: Duration,
}

/// Services of one core.
pub struct Services {
    pub(super) gate: Gate,
    pub(super) catalog: Arc<Catalog>,
    pub(super) runs: Arc<dyn Runs>,
    pub(super) contents: Arc<dyn Contents>,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) hubs: Vec<Sender<ToHub>>,
    pub(super) node: Arc<dyn NodeView>,
    pub(super) cells: Vec<Arc<ShardCells>>,
    pub(super) subscribers: Vec<Arc<telemetry::StreamCells>>,
    pub(super) quic_cells: Vec<Arc<telemetry::QuicCells>>,
    pub(super) queues: Vec<Arc<Stats>>,
    pub(super) durability: Arc<str>,
    pub(super) executors: Executors,
    pub(super) reviewing: Reviewing,
    pub(super) letters: Arc<dyn Letters>,
    pub(super) polls: Cell<usize>,
    turns: Cell<usize>,
    own: Weak<Self>,
    pub(super) clock: SystemClock,
    /// Nothing new is begun.
    pub(super) stopping: Cell<bool>,
    /// Whoever waits for that.
    stops: tokio::sync::Notify,
    /// Whoever has it makes the audit log durable; others of this core wait for its end.
    pub(super) auditing: tokio::sync::Mutex<()>,
    /// When this core last had it made durable, by its monotonic clock.
    pub(super) audited_us: Cell<u64>,
    /// How many of this core wait for it.
    pub(super) audit_waits: Cell<usize>,
    /// Connections end with the request that they have under way.
    pub(super) closing: Cell<bool>,
    pub(super) drain: Duration,
    pub(super) door: Arc<Door>,
    pub(super) triggers: Arc<Triggers>,
    pub(super) connections_max: usize,
    /// Whose run it is, of runs that this core was asked about; a run never moves.
    workspaces: RefCell<AHashMap<RunId, Workspace>>,
    entropy: RefCell<Entropy>,
    request_prefix: u64,
    requests: Cell<u64>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services").field("requests", &self.requests.get()).finish_non_exhaustive()
    }
}

impl Services {
    /// The services of one core.
    pub fn new(mut parts: Parts) -> Rc<Self> {
        let (_, request_prefix) = parts.entropy.run();
        Rc::new_cyclic(|own| Self {
            gate: parts.gate,
            catalog: parts.catalog,
            runs: parts.runs,
            contents: parts.contents,
            artifacts: parts.artifacts,
            hubs: parts.hubs,
            node: parts.node,
            cells: parts.cells,
            subscribers: parts.subscribers,
            quic_cells: parts.quic_cells,
            queues: parts.queues,
            durability: parts.durability,
            executors: parts.executors,
            reviewing: parts.reviewing,
            letters: parts.letters,
            polls: Cell::new(0),
            turns: Cell::new(0),
            own: own.clone(),
            clock: SystemClock,
            stopping: Cell::new(false),
            stops: Default::default(),
            auditing: Default::default(),
            audited_us: Cell::new(0),
            audit_waits: Cell::new(0),
            closing: Cell::new(false),
            drain: parts.drain,
            door: parts.door,
            triggers: parts.triggers,
            connections_max: parts.connections_max,
            workspaces: RefCell::default(),
            entropy: RefCell::new(parts.entropy),
            request_prefix,
            requests: Cell::new(0),
        })
    }

    /// For work that goes on when the request that began it has gone; `None` when the core ends.
    pub(super) fn own(&self) -> Option<Rc<Self>> {
        self.own.upgrade()
    }

    /// A number that is another one each time.
    pub(super) fn turn(&self) -> usize {
        self.turns.replace(self.turns.get().wrapping_add(1))
    }

    /// An id for a request that brought none.
    pub(super) fn request_id(&self) -> String {
        let number = self.requests.get().wrapping_add(1);
        self.requests.set(number);
        format!("req_{:016x}{number:08x}", self.request_prefix)
    }

    /// An id for a new run, on `partition` or on any, and the seed of its draws.
    pub(super) fn new_run(&self, partition: Option<Partition>) -> (RunId, u64) {
        let (random, seed) = self.entropy.borrow_mut().run();
        let partition = partition.unwrap_or_else(|| {
            let [a, b, ..] = seed.to_be_bytes();
            Partition::new(u16::from_be_bytes([a, b]))
        });
        (RunId::new(self.clock.now(), partition, random), seed)
    }

    /// Sixteen bytes that nobody knows beforehand.
    pub(super) fn random(&self) -> [u8; 16] {
        let (random, number) = self.entropy.borrow_mut().run();
        let mut bytes = [0; 16];
        let (head, tail) = bytes.split_at_mut(8);
        head.copy_from_slice(&number.to_be_bytes());
        tail.iter_mut().zip(random).for_each(|(to, from)| *to = from);
        bytes
    }

    /// An id for a patch.
    pub(super) fn new_patch(&self, run_id: RunId) -> PatchId {
        let (_, number) = self.entropy.borrow_mut().run();
        PatchId::new(run_id, number)
    }

    /// Drawn at random.
    pub(super) fn draw_number(&self) -> u64 {
        self.entropy.borrow_mut().run().1
    }
    /// Bytes that nobody can guess.
    pub(super) fn draw(&self) -> [u8; 32] {
        self.entropy.borrow_mut().draw()
    }

    /// An execution id that nobody can guess.
    pub(super) fn execution_id(&self) -> String {
        execution_id(&self.draw())
    }

    /// The latest run under a business key: its owner is asked, then the index. Whatever its owner has forgotten is there.
    pub(super) async fn keyed(
        &self,
        workspace: &Workspace,
        (run_key, claim): (&str, &Claim),
    ) -> Result<Option<RunId>, Box<Problem>> {
        let now_us = self.clock.monotonic_us();
        let shard = self.gate.owner(run_key::partition(claim));
        match self.gate.call(shard, Command::Keyed(*claim), now_us).await? {
            Reply::Keyed(Some(run_id)) => return Ok(Some(run_id)),
            Reply::Keyed(None) => {}
            other => return Err(unexpected(other)),
        }
        let (runs, workspace) = (self.runs.clone(), workspace.clone());
        let filter = RunFilter { workspace, run_key: Some(run_key.into()), ..RunFilter::default() };
        let query = ListQuery { before: None, filter, limit: 1 };
        let (found, _) = self.read(move || runs.list(&query)).await?;
        Ok(found.first().map(|run| run.run_id))
    }

    /// Asks the owner of `run_id`.
    pub(super) async fn ask(&self, run_id: RunId, command: Command) -> Result<Reply, Box<Problem>> {
        let now_us = self.clock.monotonic_us();
        Ok(self.gate.call(self.gate.shard_of(run_id), command, now_us).await?)
    }

    /// Asks the owner of `run_id` for something that may take its time: so long at most, then for what there is of it.
    pub(super) async fn ask_within(
        &self,
        run_id: RunId,
        command: Command,
        seconds: u64,
    ) -> Result<Reply, Box<Problem>> {
        let now_us = self.clock.monotonic_us();
        let mut pending = self.gate.send(self.gate.shard_of(run_id), command, now_us)?;
        if let Ok(reply) = tokio::time::timeout(Duration::from_secs(seconds), &mut pending).await {
            return Ok(reply?);
        }
        pending.hurry(self.clock.monotonic_us());
        Ok(pending.await?)
    }

    /// A finished run, or 404.
    pub(super) async fn finished(&self, run_id: RunId) -> Result<Location, Box<Problem>> {
        let runs = self.runs.clone();
        self.read(move || runs.get(run_id)).await?.ok_or_else(|| no_run(run_id))
    }

    /// Where the events of a run are, finished or not.
    pub(super) async fn locate(&self, run_id: RunId) -> Result<Location, Box<Problem>> {
        match self.ask(run_id, Command::Locate(run_id)).await? {
            Reply::Located(located) => Ok(Location {
                summary: located.summary,
                document: located.document,
                graph: located.graph,
                version: located.version,
                shard: self.gate.shard_of(run_id),
                frames: located.frames,
            }),
            Reply::Refused(Refusal::NotFound(_)) => self.finished(run_id).await,
            other => Err(unexpected(other)),
        }
    }

    /// The workspace of a run, or 404.
    pub(super) async fn workspace_of(&self, run_id: RunId) -> Result<Workspace, Box<Problem>> {
        if let Some(known) = self.workspaces.borrow().get(&run_id) {
            return Ok(known.clone());
        }
        let workspace = Workspace::of(&self.locate(run_id).await?.summary.workflow);
        self.remember(run_id, &workspace);
        Ok(workspace)
    }

    /// Notes the workspace of a run.
    pub(super) fn remember(&self, run_id: RunId, workspace: &Workspace) {
        let mut known = self.workspaces.borrow_mut();
        if known.len() >= limits::RUN_WORKSPACES_KEPT_MAX {
            known.clear();
        }
        known.insert(run_id, workspace.clone());
    }

    /// From now on nothing new is begun.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.stops.notify_waiters();
    }

    /// Waits until the node stops.
    pub(super) async fn until_stopping(&self) {
        let stops = self.stops.notified();
        if !self.stopping.get() {
            stops.await;
        }
    }

    /// Nothing new is begun while the node stops.
    pub(super) fn refuse_when_stopping(&self) -> Result<(), Box<Problem>> {
        if self.stopping.get() {
            return Err(Problem::unavailable("stopping", "this node is shutting down"));
        }
        Ok(())
    }
}

/// Runs something that may touch the disk away from the core's thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Box<Problem>> {
    #[cfg(test)]
    if crate::io::disk::simulated::current().is_some() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Problem::new(500, "internal", format!("a blocking task ended badly: {error}")))
}

/// `exec_` and 12 hexadecimal digits of these bytes.
pub(super) fn execution_id(bytes: &[u8]) -> String {
    let digits = bytes.iter().take(6).map(|byte| format!("{byte:02x}"));
    format!("exec_{}", digits.collect::<String>())
}

/// 404 for a run.
pub(super) fn no_run(run_id: RunId) -> Box<Problem> {
    Problem::new(404, "run_not_found", format!("there is no run {run_id}"))
}

/// The problem that a refusal, or an answer to another question, is.
pub(super) fn unexpected(reply: Reply) -> Box<Problem> {
    let Reply::Refused(refusal) = reply else {
        return Problem::new(500, "internal", "a shard answered another question");
    };
    let detail = refusal.to_string();
    match refusal {
        Refusal::NotFound(run_id) => no_run(run_id),
        Refusal::Finished { .. } => Problem::new(409, "run_finished", detail),
        Refusal::Illegal { .. } => Problem::new(409, "illegal_transition", detail),
        Refusal::NotAwaited { .. } => {
            let mut problem = Problem::new(409, "update_not_awaited", detail);
            problem.outcome = Some("not_applied".into());
            problem
        }
        Refusal::Unfit { .. } => super::signals::payload_refused("payload_invalid", refusal),
        Refusal::Stale { .. } => Problem::new(409, "attempt_stale", detail),
        Refusal::Changed { .. } => Problem::new(412, "precondition_failed", detail),
        Refusal::GraphChanged { .. } => Problem::new(409, "patch_conflict", detail),
        Refusal::NotPatched(refusal) => super::patches::refused(refusal),
        Refusal::RunKeyInUse { run_id } => {
            let mut problem = Problem::new(409, "run_key_in_use", detail);
            problem.run_id = Some(run_id.to_string());
            problem.outcome = Some("not_applied".into());
            problem
        }
        Refusal::NoReview { .. } => Problem::new(404, "approval_not_found", detail),
        Refusal::NotAsked { .. } => Problem::new(403, "not_a_reviewer", detail),
        Refusal::Unreadable { .. } => Problem::new(500, "run_unreadable", detail),
        Refusal::KeyReused => Problem::new(422, "idempotency_key_reused", detail),
        Refusal::Limit { limit: "runs_live_per_shard_max", .. } => {
            Problem::unavailable("too_many_runs", detail).limit("runs_live_per_shard_max")
        }
        Refusal::Limit { limit, .. } => {
            let mut problem = Problem::new(429, "limit_reached", detail).limit(limit);
            problem.retryable = true;
            problem.outcome = Some("not_applied".into());
            problem.retry_after_ms = Some(1_000);
            problem
        }
        Refusal::NoRoom(no_room) => no_room.into(),
        Refusal::Malformed(_) => Problem::new(500, "internal", detail),
        Refusal::Fenced { untouched, .. } => {
            let mut problem = Problem::unavailable("shard_fenced", detail);
            if !untouched {
                // What was under way when the journal failed may or may not be on the disk.
                problem.outcome = Some("unknown".into());
            }
            problem
        }
    }
}

impl From<NoRoom> for Box<Problem> {
    fn from(no_room: NoRoom) -> Self {
        let (code, limit) = (no_room.lack.code(), no_room.lack.key());
        Problem::unavailable(code, no_room.to_string()).limit(limit)
    }
}

impl From<super::ports::StorageError> for Box<Problem> {
    fn from(error: super::ports::StorageError) -> Self {
        // Asking again does not mend it.
        if error.0.starts_with("history_corrupt") {
            return Problem::new(500, "history_corrupt", error.0);
        }
        Problem::unavailable("storage_failed", error.to_string())
    }
}

impl From<super::catalog::Error> for Box<Problem> {
    fn from(error: super::catalog::Error) -> Self {
        use super::catalog::Error;
        let detail = error.to_string();
        match error {
            Error::Storage(error) => error.into(),
            Error::NoVersion { .. } => Problem::new(404, "workflow_not_found", detail),
            Error::TagIsVersion { .. } => Problem::new(409, "tag_is_version", detail),
            Error::TooManyTags { .. } => {
                Problem::new(422, "limit_exceeded", detail).limit("tags_per_workflow_max")
            }
            Error::Conflict { .. } => Problem::new(409, "workflow_conflict", detail),
            Error::Note(..) => Problem::new(500, "storage_failed", detail),
            Error::Unfit(..) => Problem::new(422, "policy_unfit", detail),
            Error::Stale(..) => Problem::new(500, "workflow_stale", detail),
            Error::NoDocument(_) | Error::Underivable(..) => Problem::new(500, "run_unreadable", detail),
        }
    }
}
