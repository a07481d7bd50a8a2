//! The state of one run: what its events so far add up to, and nothing else.
//!
//! A scope holds the nodes of one pass through a graph: the workflow itself, or one item of a map, kept inside the node
//! that owns it. The agenda holds the places something can be done about without anyone, in the order in which the fold
//! found them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Timer;
use super::command::{GraphView, NodeView, RunView, Start};
use super::fold::FoldError;
use crate::ir::{self, Ir, Kind};
use crate::limits;
use crate::model::event::{DocumentHash, Idempotency, RunStarted};
use crate::model::{Event, EventBody, Failure, Place, RunId, RunSummary, Seq, Status, Value};
use crate::time::Timestamp;

/// One run.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) id: RunId,
    pub(super) ir: Arc<Ir>,
    pub(super) started: RunStarted,
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) status: Status,
    pub(super) seq: Seq,
    pub(super) root: Scope,
    pub(super) agenda: VecDeque<Place>,
    /// Nodes that wait for a signal, in the order in which they began to.
    pub(super) waiting: Vec<(Arc<str>, Place)>,
    /// Signals that nobody has waited for yet.
    pub(super) signals: VecDeque<(Arc<str>, Value)>,
    pub(super) value_bytes: usize,
    pub(super) outputs: Option<Value>,
    pub(super) failure: Option<Failure>,
    pub(super) failed_at: Option<Place>,
}

/// One pass through a graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scope {
    /// Index of its graph in the IR.
    pub(super) graph: u32,
    /// The item and its index, in a body.
    pub(super) item: Option<(Value, u32)>,
    pub(super) nodes: Vec<Node>,
    /// Nodes that are ready, running or waiting.
    pub(super) open: u32,
}

/// One node of a scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Node {
    pub(super) phase: Phase,
    pub(super) attempts: u32,
    /// Incoming edges that settled, and those of them that are live. The sources of the live ones, in order.
    pub(super) settled: u32,
    pub(super) live: smallvec::SmallVec<[u32; 4]>,
    pub(super) output: Value,
    /// Of a node that waits.
    pub(super) due: Option<Timestamp>,
    pub(super) items: Option<Box<Items>>,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not all it waits for has settled.
    #[default]
    Pending,
    /// On the agenda: to be started, or to be skipped when nothing live arrived.
    Ready,
    /// Begun, nothing decided yet.
    Running,
    /// For time, a signal or its items.
    Waiting,
    Completed,
    Failed,
    Skipped,
}

/// The items of a map that is under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Items {
    pub(super) list: Arc<[Value]>,
    /// The next item to begin.
    pub(super) next: u32,
    /// Items ended.
    pub(super) done: u32,
    /// `None` where the item was left out, or is not done.
    pub(super) results: Vec<Option<Value>>,
    pub(super) scopes: std::collections::BTreeMap<u32, Scope>,
    /// The first failure, under `on_item_error: fail`.
    pub(super) failure: Option<(u32, Failure)>,
    /// The map is on the agenda for its own end.
    pub(super) finishing: bool,
}

impl Run {
    /// Decides `run.started`.
    pub fn begin(start: &Start, now: Timestamp, epoch: u64) -> EventBody {
        let ir = &start.ir;
        let span = match (ir.deadline, start.deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
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

    /// Folds `run.started`.
    ///
    /// # Errors
    /// The event is another one, was written under other semantics, or names another document than `ir`.
    pub fn from_started(id: RunId, ir: Arc<Ir>, event: &Event) -> Result<Self, FoldError> {
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
            id,
            value_bytes: started.inputs.weight(),
            started: (**started).clone(),
            started_at: event.at,
            ended_at: None,
            status: Status::Running,
            seq: 1,
            root,
            agenda,
            waiting: Vec::new(),
            signals: VecDeque::new(),
            outputs: None,
            failure: None,
            failed_at: None,
            ir,
        })
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

    /// What the values it keeps weigh.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Signals that nobody has waited for yet.
    pub fn signals_kept(&self) -> usize {
        self.signals.len()
    }

    /// Can something be done without anyone?
    pub fn is_ready(&self) -> bool {
        !self.status.is_terminal() && (!self.agenda.is_empty() || self.is_drained())
    }

    /// Is no node ready, running or waiting?
    pub(super) fn is_drained(&self) -> bool {
        self.root.open == 0
    }

    pub(super) fn next_ready(&self) -> Option<&Place> {
        self.agenda.front()
    }

    /// Everything it waits for by the clock.
    pub fn timers(&self) -> Vec<(Timestamp, Timer)> {
        let mut timers = Vec::new();
        if self.status.is_terminal() {
            return timers;
        }
        timers.extend(self.started.deadline.map(|due| (due, Timer::Deadline)));
        self.root.walk(&mut Vec::new(), &mut |path, index, node| {
            if let (Phase::Waiting, Some(due)) = (node.phase, node.due) {
                timers.push((due, Timer::Node(Place { scopes: path.iter().copied().collect(), node: index })));
            }
        });
        timers
    }

    /// In one line.
    pub fn summary(&self) -> RunSummary {
        RunSummary {
            run_id: self.id,
            workflow: self.started.workflow.clone(),
            version: self.started.version.clone(),
            status: self.status,
            seq: self.seq,
            epoch: self.started.epoch,
            started_at: self.started_at,
            ended_at: self.ended_at,
        }
    }

    /// In full.
    pub fn view(&self) -> RunView {
        let mut current_nodes = Vec::new();
        if !self.status.is_terminal() {
            self.root.walk(&mut Vec::new(), &mut |path, index, node| {
                if matches!(node.phase, Phase::Running | Phase::Waiting) && current_nodes.len() < limits::PAGE_ROWS_DEFAULT
                {
                    let place = Place { scopes: path.iter().copied().collect(), node: index };
                    current_nodes.push(self.ir.path(&place));
                }
            });
        }
        RunView {
            summary: self.summary(),
            document: self.document(),
            inputs: self.started.inputs.clone(),
            outputs: self.outputs.clone(),
            failure: self.failure.clone(),
            failed_node: self.failed_at.as_ref().map(|place| self.ir.path(place)),
            current_nodes,
            deadline: self.started.deadline,
        }
    }

    /// States of the nodes of its outermost scope.
    pub fn graph(&self) -> GraphView {
        let ended = self.status.is_terminal();
        let nodes = self.ir.root().nodes.iter().zip(&self.root.nodes);
        let nodes = nodes.map(|(graph, node)| NodeView {
            path: graph.id.to_string(),
            state: node.state(ended),
            attempts: node.attempts,
            waiting_for: if ended { None } else { node.waiting_for(graph, self) },
            items: node.items.as_ref().map(|items| (items.done, u32::try_from(items.list.len()).unwrap_or(u32::MAX))),
        });
        GraphView { summary: self.summary(), document: self.document(), nodes: nodes.collect() }
    }

    fn document(&self) -> DocumentHash {
        self.ir.document
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
    pub(super) fn chain(&self, place: &Place) -> Option<smallvec::SmallVec<[&Scope; 4]>> {
        let mut chain = smallvec::SmallVec::new();
        let mut scope = &self.root;
        chain.push(scope);
        for (owner, item) in &place.scopes {
            scope = scope.nodes.get(*owner as usize)?.items.as_ref()?.scopes.get(item)?;
            chain.push(scope);
        }
        Some(chain)
    }

    pub(super) fn node(&self, place: &Place) -> Option<&Node> {
        self.scope(place)?.nodes.get(place.node as usize)
    }
}

/// Two runs are equal when their histories left the same state. (The IR is the same when the document is.)
impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.ir.document == other.ir.document
            && (&self.started, self.started_at, self.ended_at) == (&other.started, other.started_at, other.ended_at)
            && (self.status, self.seq, self.value_bytes) == (other.status, other.seq, other.value_bytes)
            && (&self.root, &self.agenda) == (&other.root, &other.agenda)
            && (&self.waiting, &self.signals) == (&other.waiting, &other.signals)
            && (&self.outputs, &self.failure, &self.failed_at) == (&other.outputs, &other.failure, &other.failed_at)
    }
}

impl Scope {
    /// A fresh pass through graph `graph`; its entry nodes go on the agenda.
    pub(super) fn open(
        ir: &Ir,
        graph: u32,
        item: Option<(Value, u32)>,
        path: &[(u32, u32)],
        agenda: &mut VecDeque<Place>,
    ) -> Self {
        let count = ir.scopes.get(graph as usize).map_or(0, |graph| graph.nodes.len());
        let mut scope = Self { graph, item, nodes: vec![Node::default(); count], open: 0 };
        let Some(graph) = ir.scopes.get(graph as usize) else { return scope };
        for (index, (node, state)) in (0..).zip(graph.nodes.iter().zip(&mut scope.nodes)) {
            if node.incoming.is_empty() {
                state.phase = Phase::Ready;
                scope.open += 1;
                agenda.push_back(Place { scopes: path.into(), node: index });
            }
        }
        scope
    }

    /// Calls `seen` for every node in here and further in.
    fn walk(&self, path: &mut Vec<(u32, u32)>, seen: &mut dyn FnMut(&[(u32, u32)], u32, &Node)) {
        for (index, node) in (0..).zip(&self.nodes) {
            seen(path, index, node);
            for (item, scope) in node.items.iter().flat_map(|items| &items.scopes) {
                path.push((index, *item));
                scope.walk(path, seen);
                path.pop();
            }
        }
    }
}

impl Node {
    fn state(&self, run_ended: bool) -> &'static str {
        match self.phase {
            Phase::Completed => "completed",
            Phase::Failed => "failed",
            Phase::Skipped => "skipped",
            Phase::Pending => "pending",
            _ if run_ended => "cancelled",
            Phase::Ready => "ready",
            Phase::Running => "running",
            Phase::Waiting => "waiting",
        }
    }

    fn waiting_for(&self, graph: &ir::Node, run: &Run) -> Option<String> {
        if self.phase != Phase::Waiting {
            return None;
        }
        let until = self.due.map_or_else(String::new, |due| format!(" until {due}"));
        match &graph.kind {
            Kind::Delay { .. } => Some(format!("time{until}")),
            Kind::Wait { .. } => {
                let mut names = run.waiting.iter().filter(|(_, place)| place.scopes.is_empty());
                let node = names.find(|(_, place)| {
                    run.ir.root().nodes.get(place.node as usize).is_some_and(|node| node.id == graph.id)
                });
                node.map(|(name, _)| format!("signal {name}{until}"))
            }
            Kind::Map { .. } => Some(String::from("its items")),
            _ => None,
        }
    }
}
