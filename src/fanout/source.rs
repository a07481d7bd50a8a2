//! What the hub asks of storage: a small blocking trait, called from blocking threads only.

use std::sync::Arc;

use crate::engine::command::{Located, Stretch};
use crate::ir::Ir;
use crate::model::{Event, RunId, Seq};

/// Where the events of a run are, and whose journal that is.
#[derive(Clone, Debug)]
pub struct Location {
    /// Whose journal holds the frames.
    pub shard: u16,
    /// The run in one line, its document, its frames.
    pub located: Located,
}

/// The storage failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// History, the archive and the documents.
pub trait Source: Send + Sync {
    /// The graph that names the nodes of a run.
    ///
    /// # Errors
    /// The storage failed.
    fn graph(&self, location: &Location) -> Result<Option<Arc<Ir>>, SourceError>;

    /// A finished run.
    ///
    /// # Errors
    /// The storage failed.
    fn finished(&self, run_id: RunId) -> Result<Option<Location>, SourceError>;

    /// Finished runs like this with ids from one on and below another, oldest first, at most `limit`. When there may be more: the
    /// last that was looked at.
    ///
    /// # Errors
    /// The storage failed.
    fn stretch(&self, stretch: &Stretch) -> Result<(Vec<Location>, Option<RunId>), SourceError>;

    /// At most `limit` events after number `after`, in order.
    ///
    /// # Errors
    /// The storage failed.
    fn events(&self, location: &Location, after: Seq, limit: usize) -> Result<Vec<Event>, SourceError>;
}
