//! Changes of a run's graph: what is asked of a shard, and what it tells of those that were made.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ir::Ir;
use crate::model::event::DocumentHash;
use crate::model::patch::{Change, Decided, Held, Layer};
use crate::model::{Mode, RunId, RunSummary};

/// A change of a run's graph, checked and compiled against one version of it.
#[derive(Debug)]
pub struct Patch {
    /// Of which run.
    pub run_id: RunId,
    /// What its author asks for.
    pub change: Change,
    /// The version that it was compiled against; of another one the shard takes nothing.
    pub version: u32,
    /// The graph after it, aligned to that version's.
    pub ir: Arc<Ir>,
    /// Nodes of the outermost scope that are there and are changed.
    pub touched: BTreeSet<Arc<str>>,
    /// What is to become of it.
    pub step: Step,
}

/// What is to become of a change that may be made.
#[derive(Debug)]
pub enum Step {
    /// It is made.
    Make,
    /// It waits for a human, for this reason.
    Hold(Arc<str>),
    /// It has waited for a human, who wants it: it is made.
    Approve(Box<Decided>),
}

/// How the graph of a run came to be.
#[derive(Clone, Debug)]
pub struct LayersView {
    /// In one line.
    pub summary: RunSummary,
    /// Hash of the document it began with.
    pub base: DocumentHash,
    /// Version of the graph.
    pub version: u32,
    /// What is written down of the run.
    pub mode: Mode,
    /// The graph, aligned to all those before.
    pub ir: Arc<Ir>,
    /// Its changes, in order.
    pub layers: Vec<Arc<Layer>>,
    /// Patches that wait for a human, oldest first.
    pub held: Vec<Arc<Held>>,
}
