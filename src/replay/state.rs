//! A run as it was: the fold of its record up to some event.

use std::sync::Arc;

use serde::Serialize;

use super::{Error, Record};
use crate::engine::{self, Graphs, Run};
use crate::limits;
use crate::model::{Event, EventBody, RunId, Seq};
use crate::time::Timestamp;
use crate::wire::{Hash, Shown};

/// A fold under way.
pub struct Folding<'g> {
    run_id: RunId,
    graphs: &'g mut dyn Graphs,
    /// As far as it was folded.
    pub run: Option<Run>,
    /// What the last event stood for without being it: a run in fast mode decides that again.
    pub derived: Vec<EventBody>,
}

impl<'g> Folding<'g> {
    /// Nothing yet.
    pub fn new(run_id: RunId, graphs: &'g mut dyn Graphs) -> Self {
        Self { run_id, graphs, run: None, derived: Vec::new() }
    }

    /// Whose.
    pub fn run_id(&self) -> RunId {
        self.run_id
    }

    /// Where graphs come from.
    pub fn graphs(&mut self) -> &mut dyn Graphs {
        self.graphs
    }

    /// Folds the next event.
    ///
    /// # Errors
    /// It does not fit, or its graph is not to be had.
    pub fn event(&mut self, event: &Event) -> Result<(), Error> {
        self.derived.clear();
        let seq = event.seq;
        let misfit = |error| Error::unfit(seq, &error);
        if let EventBody::RunStarted(started) = &event.body {
            if self.run.is_some() {
                return Err(Error::Unfit { seq, why: "a run starts once".into() });
            }
            if started.semantics != crate::ir::SEMANTICS_VERSION {
                return Err(Error::Semantics { found: started.semantics });
            }
            let ir = self.graphs.of(&started.document);
            let ir = ir.ok_or_else(|| no_document(seq))?;
            self.run = Some(Run::from_started(self.run_id, ir, event).map_err(misfit)?);
            return Ok(());
        }
        let Some(run) = &mut self.run else {
            return Err(Error::Unfit { seq, why: "it comes before run.started".into() });
        };
        if run.seq() + 1 != seq {
            return Err(Error::Unfit { seq, why: format!("event {} was expected", run.seq() + 1) });
        }
        if let EventBody::PatchApplied(patched) = &event.body {
            let change = run.proposed();
            let change = change.ok_or_else(|| Error::Unfit { seq, why: "nobody proposed it".into() })?;
            let ir = self.graphs.after(run.base_document(), run.layers(), change, &patched.document);
            let ir = Arc::new(ir.ok_or_else(|| no_document(seq))?.aligned(run.ir()));
            return engine::apply_patched(run, patched, ir, event.at).map_err(misfit);
        }
        engine::replay(run, &event.body, event.at, &mut self.derived).map_err(misfit)
    }
}

pub(super) fn no_document(seq: Seq) -> Error {
    Error::Document { seq, why: "its document is not to be had, or is not what the record says".into() }
}

/// The run after its event `seq`.
///
/// # Errors
/// There is no such event, or the record is not one that a node could have written.
pub fn at(record: &Record, graphs: &mut dyn Graphs, seq: Seq) -> Result<Run, Error> {
    let last = record.last_seq();
    if seq == 0 || seq > last {
        return Err(Error::NoEvent { seq, last });
    }
    let mut folding = Folding::new(record.run_id, graphs);
    for event in record.events().take_while(|event| event.seq <= seq) {
        folding.event(&event)?;
    }
    folding.run.filter(|run| run.seq() == seq).ok_or(Error::NoEvent { seq, last })
}

/// The state as a client sees it.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Whose.
    run_id: Shown<RunId>,
    /// After which event.
    seq: Seq,
    /// [`Run::state_hash`].
    hash: String,
    /// What the hash is of: another version of the layout gives another hash.
    format: u8,
    status: &'static str,
    workflow: String,
    graph_version: u32,
    document: String,
    started_at: Shown<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Shown<Timestamp>>,
    /// Nodes of the outermost scope, at most a page of them.
    nodes: Vec<Node>,
    /// More than are shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    nodes_cut: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Node {
    path: String,
    state: &'static str,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
}

impl State {
    /// Of this run.
    ///
    /// # Errors
    /// Its state cannot be written down.
    pub fn of(run: &Run) -> Result<Self, Error> {
        let view = run.graph();
        let nodes_cut = view.nodes.len() > limits::PAGE_ROWS_MAX;
        let nodes = view.nodes.into_iter().take(limits::PAGE_ROWS_MAX);
        Ok(Self {
            run_id: Shown(run.id()),
            seq: run.seq(),
            hash: Hash(&run.state_hash()?).to_string(),
            format: engine::IMAGE_VERSION,
            status: run.status().as_str(),
            workflow: crate::model::workspace::shown(run.workflow()).to_owned(),
            graph_version: run.version(),
            document: Hash(run.document()).to_string(),
            started_at: Shown(run.started_at()),
            ended_at: run.ended_at().map(Shown),
            nodes: nodes
                .map(|node| Node {
                    path: node.path,
                    state: node.state,
                    attempts: node.attempts,
                    waiting_for: node.waiting_for,
                })
                .collect(),
            nodes_cut,
        })
    }
}
