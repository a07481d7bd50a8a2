//! A run's graph changes: `patch.applied`. Settled history stays as it is.
//!
//! | what the patch touches | may it? | then |
//! | --- | --- | --- |
//! | a node that is pending, or not there yet | yes | the new graph decides about it |
//! | a node that is ready, begun, settled or skipped | no (`node_started`) | |
//! | an edge into such a node | no (`node_started`) | |
//! | an edge taken away from a node that has settled, to one that stays | no (`node_started`): its verdict stands | |
//! | a new edge from a node that has settled | yes | it settles at once; its verdict stands in the event |
//! | a body of a node that has begun | no (`node_started`) | |
//!
//! A new node with no incoming edges is ready at once. The new graph must be aligned to the one before
//! ([`Ir::aligned`]), so every place is what it was. Which nodes a patch touches is known from the documents, so the
//! caller says it; that every edge obeys the table is checked here.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::FoldError;
use super::env::Surroundings;
use super::machine;
use super::route::is_due;
use super::run::Run;
use super::scope::{Node, Phase};
use crate::ir::{Edge, Ir, On};
use crate::limits;
use crate::model::event::{Patched, Verdicts};
use crate::model::patch::{Change, Decided, Held, Layer, PatchId};
use crate::model::{EventBody, Place, Value};
use crate::time::Timestamp;

/// Why a patch cannot be applied to a run as it stands. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchRefusal {
    /// The run is over, or about to be.
    #[error("the run takes no patch any more")]
    Over,
    /// The patch touches what has started.
    #[error("{what} {name} has started: a patch may not touch it")]
    Started {
        /// `the node`, `the edge`.
        what: &'static str,
        /// Its id, or `from/to`.
        name: String,
    },
    /// It would go over a limit.
    #[error("{what}: {value}; at most {most} are allowed (limit {limit})")]
    Limit {
        /// Its name.
        limit: &'static str,
        /// Of what there would be too much.
        what: &'static str,
        /// How much there would be.
        value: usize,
        /// The limit.
        most: usize,
    },
    /// No such patch waits for a human (any more).
    #[error("{0} does not wait for a decision")]
    NotHeld(PatchId),
    /// The graph does not follow from the run's.
    #[error("the patched graph is not aligned to the run's")]
    Unaligned,
    /// An expression of a new edge gave no verdict.
    #[error("on the edge from {from} to {to}: {cause}")]
    Unjudged {
        /// Its source.
        from: String,
        /// Its target.
        to: String,
        /// The expression's words.
        cause: String,
    },
}

/// Two edges are the same when they lead from and to the same nodes on the same way of ending.
fn has(edges: &[Edge], edge: &Edge) -> bool {
    edges.iter().any(|other| (other.from, other.to, &other.on) == (edge.from, edge.to, &edge.on))
}

/// Limits by name, with what there would be of what, and what may be.
fn within(counted: &[(&'static str, &'static str, usize, usize)]) -> Result<(), PatchRefusal> {
    let over = counted.iter().find(|(_, _, value, most)| value > most);
    over.map_or(Ok(()), |&(limit, what, value, most)| Err(PatchRefusal::Limit { limit, what, value, most }))
}

/// Does every node of the graph before have its place in the new one?
fn is_aligned(before: &Ir, after: &Ir) -> bool {
    let same = |before: &crate::ir::Scope, after: &crate::ir::Scope| {
        before.nodes.len() <= after.nodes.len()
            && before.nodes.iter().zip(&after.nodes).all(|(before, after)| before.id == after.id)
    };
    before.scopes.len() <= after.scopes.len()
        && same(before.root(), after.root())
        && before.scopes.iter().zip(&after.scopes).skip(1).all(|(before, after)| {
            // The bodies of a node that was taken out, or was changed to another kind, are empty.
            after.nodes.is_empty() || same(before, after)
        })
}

impl Run {
    /// Decides `patch.applied`: may the run go on with `ir`, aligned to its graph, in which the nodes `touched` (ids of the
    /// outermost scope) are not what they were?
    ///
    /// # Errors
    /// By the table above.
    pub fn patch(
        &self,
        ir: &Ir,
        touched: &BTreeSet<Arc<str>>,
        now: Timestamp,
    ) -> Result<EventBody, PatchRefusal> {
        if self.status().is_terminal() || self.is_ending() || self.cancel.is_some() {
            return Err(PatchRefusal::Over);
        }
        self.has_room(ir)?;
        if !is_aligned(&self.ir, ir) {
            return Err(PatchRefusal::Unaligned);
        }
        let (before, after) = (self.ir.root(), ir.root());
        let has_begun =
            |node: u32| self.root.nodes.get(node as usize).is_some_and(|state| state.phase != Phase::Pending);
        let id = |node: u32| after.nodes.get(node as usize).map_or("?", |node| &node.id).to_owned();
        for (at, (old, new)) in (0..).zip(before.nodes.iter().zip(&after.nodes)) {
            if has_begun(at) && (touched.contains(&old.id) || (new.is_removed() && !old.is_removed())) {
                return Err(PatchRefusal::Started { what: "the node", name: old.id.to_string() });
            }
        }
        let started = |edge: &Edge| PatchRefusal::Started {
            what: "the edge",
            name: format!("{}/{}", id(edge.from), id(edge.to)),
        };
        for edge in before.edges.iter().filter(|edge| !has(&after.edges, edge)) {
            let source = self.root.nodes.get(edge.from as usize);
            if after.nodes.get(edge.to as usize).is_some_and(crate::ir::Node::is_removed) {
                continue;
            }
            if has_begun(edge.to) || source.is_some_and(|source| source.phase.is_settled()) {
                return Err(started(edge));
            }
        }
        let mut verdicts = Verdicts::new();
        for edge in after.edges.iter().filter(|edge| !has(&before.edges, edge)) {
            if has_begun(edge.to) {
                return Err(started(edge));
            }
            if let Some(source) =
                self.root.nodes.get(edge.from as usize).filter(|node| node.phase.is_settled())
            {
                let verdict = self.verdict(edge, source, now);
                verdicts.push(verdict.map_err(|cause| PatchRefusal::Unjudged {
                    from: id(edge.from),
                    to: id(edge.to),
                    cause,
                })?);
            }
        }
        Ok(EventBody::PatchApplied(Box::new(Patched {
            version: self.version + 1,
            document: ir.document,
            verdicts,
        })))
    }

    /// Does this patch wait for a human?
    pub fn holds(&self, patch_id: PatchId) -> bool {
        self.held.iter().any(|held| held.proposal.patch_id == patch_id)
    }

    /// Why the run takes no patch any more, and no refused one is written down: it has had too many refused, or its history
    /// is full but for its end.
    pub fn patch_limit(&self) -> Option<PatchRefusal> {
        const KEPT_BACK: u64 = 16;
        let events = usize::try_from(self.seq + self.derived + KEPT_BACK).unwrap_or(usize::MAX);
        let (rejections, rejections_max) = (self.rejections, limits::PATCH_REJECTIONS_PER_RUN_MAX);
        let counted = [
            (
                "patch_rejections_per_run_max",
                "refused patches of the run",
                rejections as usize + 1,
                rejections_max as usize,
            ),
            ("run_events_max", "events of the run", events, limits::RUN_EVENTS_MAX as usize),
        ];
        within(&counted).err()
    }

    /// Is there room for what the log is to keep of this change?
    ///
    /// # Errors
    /// A limit is reached.
    pub fn room_for(&self, change: &Change) -> Result<(), PatchRefusal> {
        if let Some(refusal) = self.patch_limit() {
            return Err(refusal);
        }
        let weight = change.operations().weight();
        // One that has waited is counted already.
        let own = match change {
            Change::Patch(proposal) => Some(proposal.patch_id),
            Change::Revoked(_) => None,
        };
        let waits = |held: &&Arc<Held>| Some(held.proposal.patch_id) != own;
        let (mut others, mut waiting) = (0, 0_usize);
        for held in self.held.iter().filter(waits) {
            others += 1;
            waiting = waiting.saturating_add(held.proposal.operations.weight());
        }
        let made: usize = self.layers.iter().map(|layer| layer.change.operations().weight()).sum();
        let counted = if others == self.held.len() { weight } else { 0 };
        within(&[
            (
                "patches_per_run_max",
                "patches of the run",
                self.layers.len() + others + 1,
                limits::PATCHES_PER_RUN_MAX,
            ),
            (
                "patch_bytes_per_run_max",
                "bytes of the run's patches",
                made.saturating_add(waiting).saturating_add(weight),
                limits::PATCH_BYTES_PER_RUN_MAX,
            ),
            (
                "run_value_bytes_max",
                "bytes of values that the run keeps",
                self.value_bytes().saturating_add(counted),
                limits::RUN_VALUE_BYTES_MAX,
            ),
        ])
    }

    fn has_room(&self, ir: &Ir) -> Result<(), PatchRefusal> {
        let nodes = ir.scopes.iter().map(|scope| scope.nodes.len()).sum();
        let counted = [
            ("patches_per_run_max", "patches of the run", self.layers.len() + 1, limits::PATCHES_PER_RUN_MAX),
            ("run_graph_nodes_max", "nodes of the run's graph", nodes, limits::RUN_GRAPH_NODES_MAX),
        ];
        within(&counted)
    }

    /// The verdict on a new edge whose source has settled. How it ended is read off its phase and its output; that it
    /// ended by running out of time is not kept, so a new edge `on: timeout` is dead.
    fn verdict(&self, edge: &Edge, source: &Node, now: Timestamp) -> Result<bool, String> {
        let place = Place::root(edge.from);
        let decided = source.output.get("approved");
        let (approved, rejected) = (Value::Bool(true), Value::Bool(false));
        let completed = source.phase == Phase::Completed;
        let is_review = super::route::graph_node(self, &place)
            .is_some_and(|node| matches!(node.kind, crate::ir::Kind::HumanReview(_)));
        let ended_so = match &edge.on {
            On::Success => completed && !(is_review && decided == Some(&rejected)),
            On::Error => source.phase == Phase::Failed,
            On::Approved => completed && is_review && decided == Some(&approved),
            On::Rejected => completed && is_review && decided == Some(&rejected),
            On::Branch(name) => completed && machine::took_branch(self, &place, name, now),
            On::Timeout => false,
        };
        match &edge.when {
            _ if !ended_so => Ok(false),
            None => Ok(true),
            Some(when) => Surroundings::on_edge(self, &place, source.output.clone())
                .holds(when)
                .map_err(|failure| failure.message.to_string()),
        }
    }
}

/// Folds `patch.held` and `patch.decided`.
pub(super) fn waits(run: &mut Run, event: &EventBody) -> Result<(), FoldError> {
    match event {
        EventBody::PatchHeld(held) => hold(run, event, held),
        EventBody::PatchDecided(decided) => decide(run, event, decided),
        other => Err(super::fold::unfit(other, "it is about no patch that waits")),
    }
}

fn hold(run: &mut Run, event: &EventBody, held: &Held) -> Result<(), FoldError> {
    let patch_id = held.proposal.patch_id;
    if run.held.iter().any(|other| other.proposal.patch_id == patch_id) {
        return Err(super::fold::unfit(event, "this patch waits already"));
    }
    run.own_bytes = run.own_bytes.saturating_add(held.proposal.operations.weight());
    run.held.push(Arc::new(held.clone()));
    Ok(())
}

/// What is made of an approved patch has events of its own.
fn decide(run: &mut Run, event: &EventBody, decided: &Decided) -> Result<(), FoldError> {
    let at = run.held.iter().position(|held| held.proposal.patch_id == decided.patch_id);
    let Some(at) = at else { return Err(super::fold::unfit(event, "no such patch waits")) };
    let held = run.held.remove(at);
    run.own_bytes = run.own_bytes.saturating_sub(held.proposal.operations.weight());
    if !decided.approved {
        run.rejections = run.rejections.saturating_add(1);
    }
    Ok(())
}

/// Folds `patch.applied` together with the graph that it names, aligned to the run's.
///
/// # Errors
/// The event does not fit the run's state, which stays as it is.
pub fn apply_patched(run: &mut Run, patched: &Patched, ir: Arc<Ir>, at: Timestamp) -> Result<(), FoldError> {
    const EVENT: &str = "patch.applied";
    let unfit = |problem| Err(FoldError::Unfit { event: EVENT, problem });
    if run.status.is_terminal() {
        return Err(FoldError::Ended { event: EVENT });
    }
    let Some(change) = run.proposed().cloned() else {
        return unfit("it comes directly after patch.created or patch.revoked");
    };
    if patched.version != run.version + 1 {
        return unfit("versions are 1, 2, 3, ...");
    }
    if ir.document != patched.document {
        return Err(FoldError::Document);
    }
    if !is_aligned(&run.ir, &ir) {
        return unfit("its graph is not aligned to the run's");
    }
    let settled = |node: u32| run.root.nodes.get(node as usize).is_some_and(|node| node.phase.is_settled());
    let added: Vec<(u32, u32)> = ir
        .root()
        .edges
        .iter()
        .filter(|edge| !has(&run.ir.root().edges, edge) && settled(edge.from))
        .map(|edge| (edge.from, edge.to))
        .collect();
    if added.len() != patched.verdicts.len() {
        return unfit("it has not one verdict for each new edge from a settled node");
    }
    let gone = |(old, new): (&crate::ir::Node, &crate::ir::Node)| new.is_removed() && !old.is_removed();
    let nodes = run.ir.root().nodes.iter().zip(&ir.root().nodes).zip(&run.root.nodes);
    let mut begun = nodes.filter(|(pair, state)| gone(*pair) && state.phase != Phase::Pending);
    if begun.next().is_some() {
        return unfit("it takes out a node that has started");
    }
    run.version = patched.version;
    run.proposed = None;
    run.layers.push(Arc::new(Layer { change, at, document: patched.document }));
    run.ir = ir;
    let Run { ir, root, agenda, .. } = run;
    let graph = ir.root();
    let new = graph.nodes.len().saturating_sub(root.nodes.len());
    root.nodes.resize_with(graph.nodes.len(), Node::default);
    root.bytes += new * size_of::<Node>();
    for ((from, to), live) in added.into_iter().zip(&patched.verdicts) {
        if let Some(target) = root.nodes.get_mut(to as usize) {
            target.settled += 1;
            if *live {
                target.live.push(from);
            }
        }
    }
    for (at, (node, state)) in (0..).zip(graph.nodes.iter().zip(&mut root.nodes)) {
        if node.is_removed() && state.phase == Phase::Pending {
            // Should it come back, its edges are new.
            *state = Node::default();
        }
        if state.phase == Phase::Pending && !node.is_removed() && is_due(node, state) {
            state.phase = Phase::Ready;
            root.open += 1;
            agenda.start(Place::root(at), node.priority);
        }
    }
    super::fold::settle_down(run);
    Ok(())
}
