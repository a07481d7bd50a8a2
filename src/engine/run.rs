//! The state of one run: what its events so far add up to, and nothing else.
//!
//! The nodes of the run stand in scopes (`engine::scope`), what can be done next in the agenda (`engine::agenda`).
//! Everything in here is changed by the fold only, and equal histories leave equal runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::admission::{self, Turn};
use super::agenda::Agenda;
use super::command::Start;
use super::fork::Origin;
use super::keys::Keys;
use super::scope::{Node, Phase, Scope};
use super::spend::Purse;
use super::{FoldError, Permit, Recall, Timer, Verb};
use crate::ir::{self, Ir};
use crate::model::event::{DocumentHash, Idempotency, Parent, RunStarted};
use crate::model::patch::{Change, Held, Layer, Layered};
use crate::model::{Event, EventBody, Failure, Mode, Place, Priority, RunId, Seq, Status, Value};
use crate::time::Timestamp;

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) id: RunId,
    pub(super) ir: Arc<Ir>,
    pub(super) started: RunStarted,
    pub(super) parent: Option<Parent>,
    /// What it waits for before it begins, or waited for.
    pub(super) turn: Option<Turn>,
    pub(super) run_key: Option<Arc<str>>,
    /// What it began with, when that is not just a registered version.
    pub(super) layered: Option<Arc<Layered>>,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) status: Status,
    pub(super) seq: Seq,
    /// What is written down of it.
    pub(super) mode: Mode,
    /// The caller has chosen the mode, not the document.
    pub(super) mode_given: bool,
    /// Events that were decided and not written down.
    pub(super) derived: u64,
    /// Of its graph: 1, and one more with each patch.
    pub(super) version: u32,
    /// Changes of its graph, in order.
    pub(super) layers: Vec<Arc<Layer>>,
    /// The change that the event before this number stands for; `patch.applied` must come next.
    pub(super) proposed: Option<(Seq, Change)>,
    /// Patches that were refused.
    pub(super) rejections: u32,
    /// Patches that wait for a human, oldest first.
    pub(super) held: Vec<Arc<Held>>,
    /// Where it was forked from.
    pub(super) origin: Option<Origin>,
    /// Number of the event of a fork after which it asks to be admitted, when nothing had begun before.
    pub(super) asks_at: Option<Seq>,
    pub(super) root: Scope,
    pub(super) agenda: Agenda,
    /// Nodes that wait for a signal, by its name, in the order in which they began to. May hold places that wait no more.
    pub(super) waiting: BTreeMap<Arc<str>, VecDeque<Place>>,
    /// Signals that nobody has waited for yet, oldest first.
    pub(super) kept: VecDeque<(Arc<str>, Value)>,
    /// Weight of the inputs and of the signals kept; the rest is in the scopes.
    pub(super) own_bytes: usize,
    /// Attempts of calls whose answers count.
    pub(super) under_way: u32,
    /// Child runs that were called back, for telling them again after a restart.
    pub(super) recalled: Vec<Recall>,
    /// Someone wants the run to end: nothing starts any more.
    pub(super) cancel: Option<Cancel>,
    /// A node of the outermost scope failed and nobody takes care of it: nothing else happens any more.
    pub(super) doom: Option<(Failure, Place)>,
    pub(super) outputs: Option<Value>,
    pub(super) failure: Option<Failure>,
    pub(super) failed_at: Option<Place>,
    /// Requests with a key that it has done.
    pub(super) keys: Keys,
    /// What it has spent.
    pub(super) spend: Purse,
}

/// A run that is to be cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cancel {
    pub(super) reason: Arc<str>,
    /// When attempts under way are waited for no longer.
    pub(super) until: Timestamp,
}

impl Run {
    /// Decides `run.started`. The deadline is the document's or the caller's, whichever comes first.
    pub fn begin(start: &Start, now: Timestamp, epoch: u64) -> EventBody {
        let ir = &start.ir;
        let span = match (ir.deadline, start.deadline) {
            (Some(document), Some(caller)) => Some(document.min(caller)),
            (document, caller) => document.or(caller),
        };
        EventBody::RunStarted(Box::new(RunStarted {
            workflow: ir.name.clone(),
            version: ir.version.clone(),
            document: ir.document,
            semantics: ir::SEMANTICS_VERSION,
            inputs: start.inputs.clone(),
            seed: start.seed,
            deadline: span.map(|span| now.saturating_add(span)),
            idempotency: start.idempotency.clone(),
            epoch,
        }))
    }

    /// Decides `run.linked`, which follows `run.started` when the run is a child.
    pub fn linked(start: &Start) -> Option<EventBody> {
        start.parent.clone().map(|parent| EventBody::RunLinked { parent })
    }

    /// Decides `run.keyed`, which follows `run.started` when the run has a business key.
    pub fn keyed(start: &Start, replaces: Option<RunId>) -> Option<EventBody> {
        let (run_key, _) = start.run_key.as_ref()?;
        Some(EventBody::RunKeyed { run_key: run_key.as_str().clone(), replaces })
    }

    /// Decides `mode.changed`, which comes next when the caller wants another mode than the document's.
    pub fn moded(start: &Start) -> Option<EventBody> {
        start.mode.filter(|mode| *mode != start.ir.mode).map(|mode| EventBody::ModeChanged { mode })
    }

    /// Decides `run.layered`, which comes after these when the document has patches of its workflow on it.
    pub fn laid(start: &Start) -> Option<EventBody> {
        start.layered.clone().map(EventBody::RunLayered)
    }

    /// What is written down of it.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Its business key.
    pub fn run_key(&self) -> Option<&Arc<str>> {
        self.run_key.as_ref()
    }

    /// The patch set of its workflow that it is an arm of.
    pub fn arm(&self) -> Option<&Arc<str>> {
        self.layered.as_ref()?.set.as_ref()
    }

    /// The run whose child this is.
    pub fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }

    /// Folds `run.started`: all entry nodes are ready.
    ///
    /// # Errors
    /// The event is another one, was written under other semantics, or names another document than `ir`.
    pub fn from_started(run_id: RunId, ir: Arc<Ir>, event: &Event) -> Result<Self, FoldError> {
        let EventBody::RunStarted(started) = &event.body else { return Err(FoldError::NotStarted) };
        if event.seq != 1 {
            return Err(FoldError::NotStarted);
        }
        if started.semantics != ir::SEMANTICS_VERSION {
            return Err(FoldError::Semantics { found: started.semantics });
        }
        if started.document != ir.document {
            return Err(FoldError::Document);
        }
        let mut agenda = Agenda::default();
        let root = Scope::open(&ir, 0, (None, 0), &[], &mut agenda);
        Ok(Self {
            id: run_id,
            own_bytes: started.inputs.weight(),
            started: (**started).clone(),
            parent: None,
            turn: None,
            run_key: None,
            layered: None,
            started_at: event.at,
            ended_at: None,
            status: Status::Running,
            seq: 1,
            mode: ir.mode,
            mode_given: false,
            derived: 0,
            version: 1,
            layers: Vec::new(),
            proposed: None,
            rejections: 0,
            held: Vec::new(),
            origin: None,
            asks_at: None,
            root,
            agenda,
            waiting: BTreeMap::new(),
            kept: VecDeque::new(),
            under_way: 0,
            recalled: Vec::new(),
            cancel: None,
            doom: None,
            outputs: None,
            failure: None,
            failed_at: None,
            keys: Keys::default(),
            spend: Purse::default(),
            ir,
        })
    }

    /// Which run this is.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Its status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Number of its last event.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Does somebody want it to end, or has it ended so?
    pub fn is_cancelling(&self) -> bool {
        self.cancel.is_some() || self.status == Status::Cancelled
    }

    /// Name of its workflow, as registered.
    pub fn workflow(&self) -> &str {
        &self.started.workflow
    }

    /// The same, to be kept.
    pub fn workflow_shared(&self) -> &Arc<str> {
        &self.started.workflow
    }

    /// What it runs.
    pub fn ir(&self) -> &Arc<Ir> {
        &self.ir
    }

    /// Hash of the document it runs.
    pub fn document(&self) -> &DocumentHash {
        &self.ir.document
    }

    /// When it started.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// When it ended.
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.ended_at
    }

    /// When it fails by itself.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.started.deadline
    }

    /// The key it was started under.
    pub fn idempotency(&self) -> Option<&Idempotency> {
        self.started.idempotency.as_ref()
    }

    /// What the run keeps hot, in bytes, as estimated by [`Value::weight`]; open nodes of items count too.
    pub fn value_bytes(&self) -> usize {
        self.own_bytes.saturating_add(self.root.bytes)
    }

    /// Signals that nobody has waited for yet.
    pub fn signals_kept(&self) -> usize {
        self.kept.len()
    }

    /// Version of its graph: 1, and one more with each patch.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Hash of the document it began with.
    pub fn base_document(&self) -> &DocumentHash {
        &self.started.document
    }

    /// Changes of its graph, in order.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// The change that `patch.applied` is about to make.
    pub fn proposed(&self) -> Option<&Change> {
        self.proposed.as_ref().filter(|(seq, _)| *seq == self.seq).map(|(_, change)| change)
    }

    /// May this be asked of the run, as it stands? (F294, F299)
    ///
    /// | status | pause | resume | cancel | terminate |
    /// | --- | --- | --- | --- | --- |
    /// | pending, running | go | illegal | go | go |
    /// | running, being cancelled | illegal | illegal | already | go |
    /// | paused | already | go | go | go |
    /// | paused, being cancelled | illegal | illegal | already | go |
    /// | completed, failed, cancelled | illegal | illegal | illegal | illegal |
    pub fn may(&self, verb: Verb) -> Permit {
        let illegal = Permit::Illegal(self.status);
        match (verb, self.status, self.cancel.is_some()) {
            (_, Status::Completed | Status::Failed | Status::Cancelled, _) => illegal,
            (Verb::Terminate, ..) | (Verb::Cancel | Verb::Raise, _, false) => Permit::Go,
            (Verb::Cancel, _, true) | (Verb::Pause, Status::Paused, false) => Permit::Already,
            (Verb::Pause, _, false) | (Verb::Resume, Status::Paused, false) => Permit::Go,
            (Verb::Pause | Verb::Resume | Verb::Raise, ..) => illegal,
        }
    }

    /// Can something be done without anyone?
    pub fn is_ready(&self) -> bool {
        if self.status.is_terminal() {
            return false;
        }
        if self.cancel.is_some() {
            return self.is_ending();
        }
        let drained = self.is_drained() && !self.is_paused() && !self.is_outside();
        self.is_ending() || self.next().is_some() || drained || admission::must_ask(self)
    }

    /// What is done next, unless the run is about to end.
    pub(super) fn next(&self) -> Option<&Place> {
        if self.is_outside() {
            return None;
        }
        let begun = |place: &Place| self.node(place).is_some_and(|node| node.phase == Phase::Running);
        self.agenda.front(self.is_paused(), begun)
    }

    /// What goes first among runs that can go on: the priority of what this one would do next.
    pub fn priority(&self) -> Priority {
        let next = self.next().and_then(|place| super::route::graph_node(self, place));
        next.map_or(Priority::Medium, |node| node.priority)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.status == Status::Paused
    }

    /// Its end is decided and only has to be written down.
    pub(super) fn is_ending(&self) -> bool {
        (self.cancel.is_some() && self.under_way == 0) || self.doom.is_some() || self.root.unjudged.is_some()
    }

    /// Is no node ready, running or waiting?
    pub(super) fn is_drained(&self) -> bool {
        self.root.open == 0
    }

    /// All armed timers, the run's deadline among them, for arming them again after recovery.
    pub fn timers(&self) -> impl Iterator<Item = (Timestamp, Timer)> + use<> {
        let mut timers = Vec::new();
        if !self.status.is_terminal() {
            timers.extend(self.started.deadline.map(|due| (due, Timer::Deadline)));
            timers.extend(self.cancel.as_ref().map(|cancel| (cancel.until, Timer::Grace)));
            self.root.walk(&mut SmallVec::new(), &mut |scopes, index, node| {
                if let Some(due) = node.due {
                    timers.push((due, Timer::Node(Place { scopes: scopes.clone(), node: index })));
                }
                true
            });
        }
        timers.into_iter()
    }

    /// The scope that holds the node at `place`.
    pub(super) fn scope(&self, place: &Place) -> Option<&Scope> {
        let mut scope = &self.root;
        for (owner, pass) in &place.scopes {
            scope = scope.nodes.get(*owner as usize)?.pass(*pass)?;
        }
        Some(scope)
    }

    /// The scopes from the outermost to the one that holds the node at `place`.
    pub(super) fn chain(&self, place: &Place) -> SmallVec<[&Scope; 4]> {
        let mut chain = SmallVec::new();
        let mut scope = &self.root;
        chain.push(scope);
        for (owner, pass) in &place.scopes {
            let Some(inner) = scope.nodes.get(*owner as usize).and_then(|node| node.pass(*pass)) else {
                break;
            };
            scope = inner;
            chain.push(scope);
        }
        chain
    }

    pub(super) fn node(&self, place: &Place) -> Option<&Node> {
        self.scope(place)?.nodes.get(place.node as usize)
    }

    /// The graph of the scope that holds the node at `place`.
    pub(super) fn graph_of(&self, place: &Place) -> Option<&ir::Scope> {
        self.ir.scopes.get(self.scope(place)?.graph as usize)
    }

    /// The node that has waited longest for this signal.
    pub(super) fn waiter(&self, name: &str) -> Option<&Place> {
        let waiting = |place: &&Place| self.node(place).is_some_and(|node| node.phase == Phase::Waiting);
        self.waiting.get(name)?.iter().find(waiting)
    }
}

/// Two runs are equal when their histories left the same state. The IR is the same when the document is.
impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.ir.document == other.ir.document
            && self.started == other.started
            && (&self.parent, &self.turn, self.version) == (&other.parent, &other.turn, other.version)
            && (&self.layers, &self.run_key) == (&other.layers, &other.run_key)
            && (&self.proposed, self.rejections) == (&other.proposed, other.rejections)
            && (&self.held, &self.layered) == (&other.held, &other.layered)
            && (self.origin, self.asks_at) == (other.origin, other.asks_at)
            && (self.started_at, self.ended_at) == (other.started_at, other.ended_at)
            && (self.status, self.seq, self.own_bytes) == (other.status, other.seq, other.own_bytes)
            && (self.mode, self.mode_given, self.derived) == (other.mode, other.mode_given, other.derived)
            && (self.under_way, &self.recalled) == (other.under_way, &other.recalled)
            && (&self.root, &self.agenda) == (&other.root, &other.agenda)
            && (&self.waiting, &self.kept) == (&other.waiting, &other.kept)
            && (&self.cancel, &self.doom, &self.keys) == (&other.cancel, &other.doom, &other.keys)
            && (&self.outputs, &self.failure, &self.failed_at)
                == (&other.outputs, &other.failure, &other.failed_at)
    }
}
