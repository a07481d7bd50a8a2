//! What the index owes about dead letters ([`Letters`]).
//!
//! Obligations:
//! 1. What [`Archive::put_reviews`](super::Archive::put_reviews) put is found until its run is forgotten, then never again; put twice it is
//!    there once, as it was. At most [`crate::limits::LETTERS_PER_RUN_MAX`] of a run are kept.
//! 2. What became of a letter is durable when it is acknowledged, and no letter that is put again takes it back.
//! 3. A letter is found in its workspace only.
//!
//! Used by several threads at once; blocking.

use std::sync::Arc;

use super::Error;
use crate::model::letter::{Letter, LetterId};
use crate::model::{RunId, Workspace};

/// Which letters.
#[derive(Clone, Debug)]
pub struct Query {
    /// In this workspace.
    pub workspace: Workspace,
    /// Those that were redriven, in place of those that nobody has seen to.
    pub redriven: bool,
    /// Before this one: of a run with a smaller id, or of an earlier event of the same.
    pub before: Option<LetterId>,
    /// Of this workflow, named as inside the node.
    pub workflow: Option<Arc<str>>,
    /// Whose failure has this code.
    pub code: Option<Arc<str>>,
    /// At most this many.
    pub limit: usize,
    /// At most this many are looked at.
    pub scan_limit: usize,
}

/// A page of letters, those of the newest runs first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Those that match.
    pub letters: Vec<Letter>,
    /// Where to go on (`before`), when the page ended before the letters did.
    pub next: Option<LetterId>,
}

/// Dead letters. The module says what is owed.
pub trait Letters: Send + Sync {
    /// A page of letters.
    ///
    /// # Errors
    /// The store cannot be read.
    fn letters(&self, query: &Query) -> Result<Page, Error>;

    /// One that was not purged.
    ///
    /// # Errors
    /// The store cannot be read.
    fn letter(&self, workspace: &Workspace, id: LetterId) -> Result<Option<Letter>, Error>;

    /// This run does its work again.
    ///
    /// # Errors
    /// It could not be written down.
    fn redriven(&self, workspace: &Workspace, id: LetterId, as_run: RunId) -> Result<(), Error>;

    /// These are not wanted any more; how many there were.
    ///
    /// # Errors
    /// It could not be written down.
    fn purge(&self, workspace: &Workspace, ids: &[LetterId]) -> Result<usize, Error>;
}
