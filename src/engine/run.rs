//! The state of one run: what its events so far add up to, and nothing else.
//!
//! A scope holds the nodes of one pass through a graph: the workflow itself, or one item of a map, kept inside the node
//! that owns it and gone with the item. The agenda holds the places where something can be done without anyone, in the
//! order in which the fold found them. An entry whose place has been dealt with, or is gone with its item, is stale; the
//! fold keeps the front of the agenda fresh, so an agenda that is not empty always has something to do.
//!
//! Everything in here is changed by the fold only, and equal histories leave equal runs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use super::command::Start;
use super::{FoldError, Timer};
use crate::ir::{self, Ir};
use crate::model::event::{DocumentHash, Idempotency, RunStarted};
use crate::model::{Event, EventBody, Failure, Place, RunId, Seq, Status, Value};
use crate::time::Timestamp;

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) id: RunId,
    pub(super) ir: Arc<Ir>,
    pub(super) started: RunStarted,
    pub(super) parent: Option<crate::model::event::Parent>,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) status: Status,
    pub(super) seq: Seq,
    pub(super) root: Scope,
    pub(super) agenda: VecDeque<Place>,
    /// Nodes that wait for a signal, by its name, in the order in which they began to. May hold places that wait no more.
    pub(super) waiting: BTreeMap<Arc<str>, VecDeque<Place>>,
    /// Signals that nobody has waited for yet, oldest first.
    pub(super) kept: VecDeque<(Arc<str>, Value)>,
    /// Weight of the inputs and of the signals kept; the rest is in the scopes.
    pub(super) own_bytes: usize,
    /// Someone wants the run to end: nothing else happens any more.
    pub(super) cancel: Option<Arc<str>>,
    /// A node of the outermost scope failed and nobody takes care of it: nothing else happens any more.
    pub(super) doom: Option<(Failure, Place)>,
    pub(super) outputs: Option<Value>,
    pub(super) failure: Option<Failure>,
    pub(super) failed_at: Option<Place>,
}

/// One pass through a graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scope {
    /// Index of its graph in the IR.
    pub(super) graph: u32,
    /// Nodes that are ready or under way: the tokens of this pass.
    pub(super) open: u32,
    /// The item and its index, in a body.
    pub(super) item: Option<(Value, u32)>,
    pub(super) nodes: Vec<Node>,
    /// A node that ended and the position of its edge whose `when` gave no verdict: the pass fails.
    pub(super) unjudged: Option<(u32, u32)>,
    /// Weight of everything in here and further in.
    pub(super) bytes: usize,
}

/// One node of a scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Node {
    pub(super) phase: Phase,
    pub(super) attempts: u32,
    /// Incoming edges that settled.
    pub(super) settled: u32,
    /// Sources of the live ones among them, in order of arrival. What comes after the node was ready is not in here.
    pub(super) live: SmallVec<[u32; 4]>,
    pub(super) output: Value,
    /// Of a node that waits.
    pub(super) due: Option<Timestamp>,
    pub(super) items: Option<Box<Items>>,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not all that it waits for has settled.
    #[default]
    Pending,
    /// To be started, or to be skipped when nothing live arrived.
    Ready,
    /// Begun; its step follows.
    Running,
    /// For time, a signal or its items.
    Waiting,
    /// Its time has come; what follows from it comes next.
    Fired,
    /// A signal was handed to it and stands in its output; its end comes next.
    Handed,
    /// Its items are done, or one failed for all; its end comes next.
    Gathered,
    Completed,
    Failed,
    Skipped,
}

impl Phase {
    /// Can something be done about such a node without anyone?
    pub(super) fn is_due(self) -> bool {
        matches!(self, Self::Ready | Self::Running | Self::Fired | Self::Handed | Self::Gathered)
    }

    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Skipped)
    }
}

/// The items of a map that is under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Items {
    pub(super) list: Arc<[Value]>,
    /// The next item to begin.
    pub(super) next: u32,
    /// Items ended.
    pub(super) done: u32,
    /// By item; `None` where the item was left out, or is not done.
    pub(super) results: Vec<Option<Value>>,
    /// Items under way.
    pub(super) scopes: BTreeMap<u32, Scope>,
    /// The first failure, under `on_item_error: fail`.
    pub(super) failure: Option<(u32, Failure)>,
    /// Weight of the list and the results.
    pub(super) bytes: usize,
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

    /// The run whose child this is.
    pub fn parent(&self) -> Option<&crate::model::event::Parent> {
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
        let mut agenda = VecDeque::new();
        let root = Scope::open(&ir, 0, None, &[], &mut agenda);
        Ok(Self {
            id: run_id,
            own_bytes: started.inputs.weight(),
            started: (**started).clone(),
            parent: None,
            started_at: event.at,
            ended_at: None,
            status: Status::Running,
            seq: 1,
            root,
            agenda,
            waiting: BTreeMap::new(),
            kept: VecDeque::new(),
            cancel: None,
            doom: None,
            outputs: None,
            failure: None,
            failed_at: None,
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

    /// Name of its workflow, as registered.
    pub fn workflow(&self) -> &str {
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

    /// Can something be done without anyone?
    pub fn is_ready(&self) -> bool {
        !self.status.is_terminal() && (self.is_ending() || !self.agenda.is_empty() || self.is_drained())
    }

    /// Its end is decided and only has to be written down.
    pub(super) fn is_ending(&self) -> bool {
        self.cancel.is_some() || self.doom.is_some() || self.root.unjudged.is_some()
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
            self.root.walk(&mut SmallVec::new(), &mut |scopes, index, node| {
                if let (Phase::Waiting, Some(due)) = (node.phase, node.due) {
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
        for (owner, item) in &place.scopes {
            scope = scope.nodes.get(*owner as usize)?.items.as_ref()?.scopes.get(item)?;
        }
        Some(scope)
    }

    /// The scopes from the outermost to the one that holds the node at `place`.
    pub(super) fn chain(&self, place: &Place) -> SmallVec<[&Scope; 4]> {
        let mut chain = SmallVec::new();
        let mut scope = &self.root;
        chain.push(scope);
        for (owner, item) in &place.scopes {
            let inner =
                scope.nodes.get(*owner as usize).and_then(|node| node.items.as_ref()?.scopes.get(item));
            let Some(inner) = inner else { break };
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
            && (self.started_at, self.ended_at) == (other.started_at, other.ended_at)
            && (self.status, self.seq, self.own_bytes) == (other.status, other.seq, other.own_bytes)
            && (&self.root, &self.agenda) == (&other.root, &other.agenda)
            && (&self.waiting, &self.kept) == (&other.waiting, &other.kept)
            && (&self.cancel, &self.doom) == (&other.cancel, &other.doom)
            && (&self.outputs, &self.failure, &self.failed_at)
                == (&other.outputs, &other.failure, &other.failed_at)
    }
}

/// Looks at a node in the scopes of a path; false ends the walk.
type Seen<'a> = dyn FnMut(&SmallVec<[(u32, u32); 2]>, u32, &Node) -> bool + 'a;

impl Scope {
    /// A fresh pass through graph `graph`; its entry nodes go on the agenda, or the pass itself when it has no nodes.
    pub(super) fn open(
        ir: &Ir,
        graph: u32,
        item: Option<(Value, u32)>,
        scopes: &[(u32, u32)],
        agenda: &mut VecDeque<Place>,
    ) -> Self {
        let nodes = ir.scopes.get(graph as usize).map_or(&[][..], |graph| &graph.nodes);
        let count = nodes.len();
        let mut scope = Self {
            graph,
            open: 0,
            item,
            nodes: vec![Node::default(); count],
            unjudged: None,
            bytes: size_of::<Self>() + count * size_of::<Node>(),
        };
        for (index, (node, state)) in (0..).zip(nodes.iter().zip(&mut scope.nodes)) {
            if node.incoming.is_empty() {
                state.phase = Phase::Ready;
                scope.open += 1;
                agenda.push_back(Place { scopes: scopes.into(), node: index });
            }
        }
        if scope.open == 0 && !scopes.is_empty() {
            agenda.push_back(Place { scopes: scopes.into(), node: Place::PASS });
        }
        scope
    }

    /// Calls `seen` for every node in here and further in, until it says no. As deep as scopes are
    /// ([`crate::limits::SCOPE_DEPTH_MAX`]).
    pub(super) fn walk(&self, scopes: &mut SmallVec<[(u32, u32); 2]>, seen: &mut Seen<'_>) -> bool {
        (0..).zip(&self.nodes).all(|(index, node)| {
            seen(scopes, index, node)
                && node.items.iter().flat_map(|items| &items.scopes).all(|(item, scope)| {
                    scopes.push((index, *item));
                    let go_on = scope.walk(scopes, seen);
                    scopes.pop();
                    go_on
                })
        })
    }
}
