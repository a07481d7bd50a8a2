//! A run as others see it: one line, in full, its nodes. Reads the state, changes nothing.

use smallvec::SmallVec;

use super::command::{GraphView, NodeView, RunView};
use super::run::{Node, Phase, Run};
use crate::ir::{self, Kind};
use crate::limits;
use crate::model::{Place, RunSummary};

impl Run {
    /// May this be asked of the run, as it stands?
    pub fn may(&self, _verb: super::Verb) -> super::Permit {
        super::Permit::Illegal(self.status)
    }

    /// Attempts under way, for handing them out again after recovery.
    pub fn dispatches(&self) -> Vec<super::Dispatch> {
        Vec::new()
    }

    /// What goes first among runs that can go on.
    pub fn priority(&self) -> crate::model::Priority {
        crate::model::Priority::Medium
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
        let nodes = (0..).zip(self.ir.root().nodes.iter().zip(&self.root.nodes));
        let nodes = nodes.map(|(index, (graph, node))| NodeView {
            path: graph.id.to_string(),
            state: self.state(node),
            attempts: node.attempts,
            waiting_for: self.waiting_for(index, graph, node),
            items: node.items.as_ref().map(|items| (items.done, count(items.list.len()))),
        });
        GraphView { summary: self.summary(), document: self.ir.document, nodes: nodes.collect() }
    }

    fn state(&self, node: &Node) -> &'static str {
        match node.phase {
            Phase::Completed => "completed",
            Phase::Failed => "failed",
            Phase::Skipped => "skipped",
            _ if self.status.is_terminal() => "cancelled",
            Phase::Pending => "pending",
            Phase::Ready => "ready",
            Phase::Waiting => "waiting",
            Phase::Running | Phase::Fired | Phase::Handed | Phase::Gathered => "running",
        }
    }

    fn waiting_for(&self, index: u32, graph: &ir::Node, node: &Node) -> Option<String> {
        if node.phase != Phase::Waiting || self.status.is_terminal() {
            return None;
        }
        let until = node.due.map_or_else(String::new, |due| format!(" until {due}"));
        match &graph.kind {
            Kind::Delay { .. } => Some(format!("time{until}")),
            Kind::Wait { .. } => {
                let here = Place::root(index);
                let (name, _) = self.waiting.iter().find(|(_, places)| places.contains(&here))?;
                Some(format!("signal {name}{until}"))
            }
            Kind::Map { .. } => Some(String::from("its items")),
            _ => None,
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
