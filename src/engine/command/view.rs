//! What a shard tells of a run: as it is, as durable at the moment it was asked.

use std::sync::Arc;

use super::approval::{OpenReview, Pause};
use super::{Ir, Origin, Waits};
use crate::model::event::DocumentHash;
use crate::model::patch::Layered;
use crate::model::{Admission, Failure, FrameRef, Kept, Priority, RunId, RunSummary, Value};
use crate::time::Timestamp;

/// A run in full.
#[derive(Clone, Debug)]
pub struct RunView {
    /// In one line.
    pub summary: RunSummary,
    /// Hash of the document.
    pub document: DocumentHash,
    /// What it was given.
    pub inputs: Value,
    /// What it began with, when that is not just a registered version.
    pub layered: Option<Arc<Layered>>,
    /// What it gave.
    pub outputs: Option<Value>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Path of the node that brought it down.
    pub failed_node: Option<String>,
    /// Paths of nodes that are running or waiting, at most a page.
    pub current_nodes: Vec<String>,
    /// When it fails by itself.
    pub deadline: Option<Timestamp>,
    /// The run whose child it is.
    pub parent: Option<RunId>,
    /// What it had to be admitted under, and whether it was; unfinished runs only.
    pub admission: Option<(Arc<Admission>, bool)>,
    /// What humans are asked, at most a page of it.
    pub reviews: Vec<OpenReview>,
    /// For what else it waits that does not come by itself; not all when they are many.
    pub pauses: Vec<Pause>,
    /// Which of its values are shown by reference.
    pub kept: Option<Arc<Kept>>,
    /// Where it was forked from.
    pub origin: Option<Origin>,
}

/// States of a run's nodes.
#[derive(Clone, Debug)]
pub struct GraphView {
    /// In one line.
    pub summary: RunSummary,
    /// Hash of the document.
    pub document: DocumentHash,
    /// (path, state) of every node of the outermost scope, in IR order.
    pub nodes: Vec<NodeView>,
    /// Version of the graph.
    pub version: u32,
    /// What the run had to be admitted under, and whether it was; unfinished runs only.
    pub admission: Option<(Arc<Admission>, bool)>,
}

/// State of one node.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its path.
    pub path: String,
    /// `pending`, `ready`, `running`, `waiting`, `retrying`, `uncertain`, `completed`, `failed`, `skipped`, `cancelled`.
    pub state: &'static str,
    /// Attempts begun.
    pub attempts: u32,
    /// For what it waits, in words.
    pub waiting_for: Option<String>,
    /// Why it does not run, when it neither runs nor has settled.
    pub waits: Option<Waits>,
    /// What goes first.
    pub priority: Priority,
    /// Items: (done, all), for a map.
    pub items: Option<(u32, u32)>,
}

/// Where a run's durable events stand.
#[derive(Clone, Debug)]
pub struct Located {
    /// In one line, as of the last durable event.
    pub summary: RunSummary,
    /// Hash of the document, for naming nodes.
    pub document: DocumentHash,
    /// The graph that names nodes, when the run is not over.
    pub graph: Option<Arc<Ir>>,
    /// Version of the graph.
    pub version: u32,
    /// Frames that hold events of this run, oldest first.
    pub frames: Vec<FrameRef>,
}
