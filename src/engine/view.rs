//! A run as others see it: one line, in full, its nodes. Reads the state, changes nothing.

use std::sync::Arc;

use smallvec::SmallVec;

use super::command::{GraphView, LayersView, NodeView, RunView};
use super::run::Run;
use super::scope::{Callee, Node, Phase};
use crate::ir::{self, Kind};
use crate::limits;
use crate::model::filter::Facts;
use crate::model::{Admission, Place, RunSummary};

impl Run {
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
            run_key: self.run_key.clone(),
        }
    }

    /// What a listing judges it by.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            workflow: &self.started.workflow,
            version: &self.started.version,
            run_key: self.run_key.as_deref(),
            status: self.status,
            started_at: self.started_at,
        }
    }

    /// In full. At most [`limits::PAGE_ROWS_DEFAULT`] current nodes are named.
    pub fn view(&self) -> RunView {
        let mut current_nodes = Vec::new();
        if !self.status.is_terminal() {
            self.root.walk(&mut SmallVec::new(), &mut |scopes, index, node| {
                if !matches!(node.phase, Phase::Pending | Phase::Ready) && !node.phase.is_settled() {
                    current_nodes.push(self.ir.path(&Place { scopes: scopes.clone(), node: index }));
                }
                current_nodes.len() < limits::PAGE_ROWS_DEFAULT
            });
        }
        RunView {
            summary: self.summary(),
            document: self.ir.document,
            layered: self.layered.clone(),
            inputs: self.started.inputs.clone(),
            outputs: self.outputs.clone(),
            failure: self.failure.clone(),
            failed_node: self.failed_at.as_ref().map(|place| self.ir.path(place)),
            current_nodes,
            deadline: self.started.deadline,
            parent: self.parent.as_ref().map(|parent| parent.run_id),
            admission: self.admission(),
            reviews: self.open_reviews(limits::PAGE_ROWS_DEFAULT),
            pauses: self.pauses(limits::PAGE_ROWS_DEFAULT),
            kept: None,
            origin: self.origin,
        }
    }

    /// States of the nodes of its outermost scope.
    pub fn graph(&self) -> GraphView {
        let nodes = (0..).zip(self.ir.root().nodes.iter().zip(&self.root.nodes));
        let nodes = nodes.filter(|(_, (graph, _))| !graph.is_removed());
        let nodes = nodes.map(|(index, (graph, node))| NodeView {
            path: graph.id.to_string(),
            state: self.state(node),
            attempts: node.attempts,
            waiting_for: self.waiting_for(index, graph, node),
            waits: self.waits(index, graph, node),
            priority: graph.priority,
            items: self.items(graph, node),
        });
        GraphView {
            summary: self.summary(),
            document: self.ir.document,
            nodes: nodes.collect(),
            version: self.version(),
            admission: self.admission(),
        }
    }

    /// How its graph came to be.
    pub fn layers_view(&self) -> LayersView {
        LayersView {
            summary: self.summary(),
            base: *self.base_document(),
            version: self.version(),
            mode: self.mode(),
            ir: self.ir.clone(),
            layers: self.layers.clone(),
            held: self.held.clone(),
        }
    }

    fn admission(&self) -> Option<(Arc<Admission>, bool)> {
        self.turn.as_ref().map(|turn| (turn.wanted.clone(), turn.admitted))
    }

    fn state(&self, node: &Node) -> &'static str {
        match node.phase {
            Phase::Completed => "completed",
            Phase::Failed => "failed",
            Phase::Skipped => "skipped",
            _ if self.status.is_terminal() => "cancelled",
            Phase::Pending => "pending",
            Phase::Ready => "ready",
            Phase::Waiting if node.call_under_way().is_some_and(|call| call.worker.is_some()) => "running",
            Phase::Waiting => "waiting",
            Phase::Backoff => "retrying",
            Phase::Uncertain => "uncertain",
            Phase::Running | Phase::Fired | Phase::Handed | Phase::Gathered | Phase::FellBack => "running",
        }
    }

    /// Passes of a map, a parallel or a loop: those done and those there are.
    fn items(&self, graph: &ir::Node, node: &Node) -> Option<(u32, u32)> {
        let passes = node.passes().filter(|passes| !passes.fallback)?;
        match &graph.kind {
            Kind::Loop { max_iterations, .. } => Some((passes.done, *max_iterations)),
            Kind::Map { .. } | Kind::Parallel { .. } => Some((passes.done, passes.count)),
            _ => None,
        }
    }

    fn waiting_for(&self, index: u32, graph: &ir::Node, node: &Node) -> Option<String> {
        if self.status.is_terminal() {
            return None;
        }
        let until = node.due.map_or_else(String::new, |due| format!(" until {due}"));
        match node.phase {
            Phase::Waiting => {}
            Phase::Backoff => return Some(format!("the next attempt{until}")),
            Phase::Uncertain => return Some(String::from("a human who knows what became of its call")),
            _ => return None,
        }
        if node.passes().is_some_and(|passes| passes.fallback) {
            return Some(String::from("its fallback"));
        }
        match &graph.kind {
            Kind::Delay { .. } => Some(format!("time{until}")),
            Kind::Wait { .. } => {
                let here = Place::root(index);
                let (name, _) = self.waiting.iter().find(|(_, places)| places.contains(&here))?;
                Some(format!("signal {name}{until}"))
            }
            Kind::Map { .. } => Some(String::from("its items")),
            Kind::Parallel { .. } => Some(String::from("its branches")),
            Kind::Loop { .. } | Kind::Composite { .. } => Some(String::from("its body")),
            Kind::HumanReview(_) => {
                let due = node.asked().and_then(|asked| asked.review.due);
                Some(due.map_or_else(|| String::from("a human"), |due| format!("a human until {due}")))
            }
            Kind::Call { executor: ir::Executor::Task, .. } => {
                let call = node.call()?;
                let queue =
                    call.request.get("queue").and_then(crate::model::Value::as_str).unwrap_or(&graph.id);
                Some(match &call.worker {
                    Some(worker) => format!("the worker {worker}, who has it{until}"),
                    None => {
                        format!("a worker of queue {queue} (priority {}){until}", graph.priority.as_str())
                    }
                })
            }
            Kind::Call { executor, .. } => Some(format!("the answer to its {} call{until}", executor.kind())),
            Kind::Child { .. } => match node.call().map(|call| call.to) {
                Some(Callee::Child(run_id, _)) => Some(format!("the end of {run_id}{until}")),
                _ => None,
            },
            Kind::Function { .. } | Kind::Join { .. } | Kind::Conditional { .. } | Kind::Removed => None,
        }
    }
}
