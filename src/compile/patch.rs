//! A document, a JSON Patch (RFC 6902), and the document that follows.
//!
//! | layer | what is judged | by |
//! | --- | --- | --- |
//! | [`Layer::Syntax`], [`Layer::Limit`] | the operations alone | [`read`] |
//! | [`Layer::Conflict`] | whether they fit the document: a `test` that fails, a path that is not there | [`Patch::apply`] |
//! | [`Layer::Schema`], [`Layer::Limit`] | the document that follows: it compiles, may be started, and has not grown too far | [`candidate`] |
//! | [`Layer::Security`] | that no human who had to be asked is left out (`gates.rs`, `governed.rs`) | [`candidate`] |
//! | [`Layer::Security`] | that no URL is brought in that calls may not reach | [`reach()`] |
//!
//! A patch is made against the canonical document, and only of its `nodes`, `edges` and `metadata`: a workflow's name, its
//! inputs and its limits are not a patch's to change. Both maps are keyed, so a patch means the same whatever other patches
//! did to other members ([`Touched`]); `/nodes/-` and `/edges/-` are read as adds by id and by key. What a name stands for
//! is judged where it is looked up, at the call.
//!
//! Nothing is changed in place and nothing is half done. What a patch may cost is bounded before it is applied: its
//! operations, their bytes, and what `copy` makes of a document.

mod apply;
mod candidate;
mod derive;
mod diff;
mod gates;
mod governed;
mod operation;
mod reach;
mod read;
mod scope;
mod tools;
mod touched;

pub use candidate::{Candidate, candidate, candidate_for};
pub use derive::{difference, remake};
pub use diff::{Diff, Item, Member, What, diff, only_adds};
pub use governed::with_gates;
pub use reach::reach;
pub(super) use scope::{Edge, Scope, each, kind};
pub use tools::no_wider_tools;
pub use touched::Touched;

use super::Compiled;
use super::known::Known;
use crate::limits;
use crate::model::Value;
use operation::{Operation, Verb};

/// The document that a patch is put on; of one that was compiled, what a patch leaves as it was is not compiled again.
#[derive(Clone, Copy, Debug)]
pub struct Base<'d> {
    document: &'d Value,
    known: Option<&'d Known>,
}

impl<'d> From<&'d Value> for Base<'d> {
    fn from(document: &'d Value) -> Self {
        Self { document, known: None }
    }
}

impl<'d> From<&'d Compiled> for Base<'d> {
    fn from(compiled: &'d Compiled) -> Self {
        Self { document: &compiled.document, known: Some(&compiled.known) }
    }
}

/// What operations are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Somebody's patch.
    Make,
    /// They lead to the document as it is without patches that are taken back.
    TakeBack,
}

/// The part of the checks that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// An operation is none.
    Syntax,
    /// Too many, too large, or a document that grows too far.
    Limit,
    /// It does not fit the document.
    Conflict,
    /// The document that follows is wrong.
    Schema,
    /// It goes around somebody who has to be asked.
    Security,
}

/// Why a patch was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Whose findings they are.
    pub layer: Layer,
    /// At least one, at most [`limits::DIAGNOSTICS_MAX`].
    pub findings: Vec<Finding>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Stable, snake_case.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// Index of the operation that it is about, when it can be told.
    pub operation: Option<usize>,
    /// JSON Pointer: for [`Layer::Syntax`] and for a limit of the operations themselves into the request
    /// (`/operations/0/path`), otherwise into the document as patched so far (`/nodes/email/type`).
    pub pointer: String,
}

impl Finding {
    fn new(
        code: &'static str,
        operation: impl Into<Option<usize>>,
        pointer: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { code, message: message.into(), operation: operation.into(), pointer: pointer.into() }
    }
}

impl Refusal {
    fn one(layer: Layer, finding: Finding) -> Self {
        Self { layer, findings: vec![finding] }
    }

    fn of(layer: Layer, mut findings: Vec<Finding>) -> Self {
        findings.truncate(limits::DIAGNOSTICS_MAX);
        Self { layer, findings }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            let comma = if index == 0 { "" } else { "\n" };
            write!(f, "{comma}{} at {:?}: {}", finding.code, finding.pointer, finding.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// A patch that has been read.
#[derive(Clone, Debug)]
pub struct Patch {
    /// The list of operations, normalised: members that RFC 6902 does not name are dropped, adds at `-` have their id or
    /// key, numbers are as in a canonical document. What is stored; reading it again gives the same patch.
    pub operations: Value,
    parsed: Vec<Operation>,
}

/// Reads the value of `operations` as a client sent it.
///
/// # Errors
/// [`Layer::Syntax`] and [`Layer::Limit`].
pub fn read(operations: &Value) -> Result<Patch, Refusal> {
    let parsed = read::read(operations)?;
    Ok(Patch { operations: Value::list(parsed.iter().map(Operation::to_value).collect()), parsed })
}

impl Patch {
    /// Nothing but tests, or nothing at all: it changes no document.
    pub fn is_test_only(&self) -> bool {
        self.parsed.iter().all(|operation| operation.verb == Verb::Test)
    }

    /// Must whoever sends it say which version it was made against? So it is when it replaces, removes or moves what is
    /// there, and tests nothing. See [`Patch::overwrites`] for adds.
    pub fn needs_base(&self) -> bool {
        let takes = |verb| matches!(verb, Verb::Replace | Verb::Remove | Verb::Move);
        !self.has_test() && self.parsed.iter().any(|operation| takes(operation.verb))
    }

    /// Does it, without a test, put something in the place of a node, an edge or other member that this document has? By
    /// RFC 6902 an `add` or a `copy` may; it then needs a base as a `replace` does.
    pub fn overwrites(&self, document: &Value) -> bool {
        let puts = |operation: &&Operation| matches!(operation.verb, Verb::Add | Verb::Copy);
        !self.has_test()
            && self.parsed.iter().filter(puts).any(|operation| operation.path.is_member(document))
    }

    fn has_test(&self) -> bool {
        self.parsed.iter().any(|operation| operation.verb == Verb::Test)
    }

    /// Bytes of its operations, roughly.
    pub fn weight(&self) -> usize {
        self.operations.weight()
    }

    /// What it changes and what it looks at.
    pub fn touched(&self) -> Touched {
        touched::of(&self.parsed)
    }

    /// The document with all operations applied, by RFC 6902; it may have sugar in it, which compiling it takes out.
    /// `edges` and `metadata` of a document that has none are empty maps.
    ///
    /// # Errors
    /// [`Layer::Conflict`], and [`Layer::Limit`] for what grows too far on the way.
    pub fn apply(&self, document: &Value) -> Result<Value, Refusal> {
        apply::apply(&self.parsed, document)
    }
}

#[cfg(test)]
mod tests;
