//! Patches of a run's graph: overlays in its log, never changes of the document it began with.
//!
//! The document of a run at version `n + 1` is the one at version `n` with the operations of the event right before
//! `patch.applied`: everything else (documents, graphs) is derived from the base document and these, and may be derived again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::DocumentHash;
use super::{Event, EventBody, RunId, Value};
use crate::time::Timestamp;

/// A run's id and a random number: it says by itself whose patch it is. Shown as `patch_` and 48 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PatchId {
    run_id: RunId,
    number: u64,
}

impl PatchId {
    /// Of this run; `number` is drawn at random.
    pub const fn new(run_id: RunId, number: u64) -> Self {
        Self { run_id, number }
    }

    /// Whose patch it is.
    pub const fn run_id(self) -> RunId {
        self.run_id
    }
}

impl fmt::Display for PatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "patch_{}{:016x}", uuid::Uuid::from_bytes(*self.run_id.as_bytes()).simple(), self.number)
    }
}

impl fmt::Debug for PatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PatchId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let digits = text.strip_prefix("patch_").filter(|digits| digits.len() == 48)?;
            // Lower case only: one id has one spelling.
            digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(())?;
            let (run, number) = digits.split_at_checked(32)?;
            let run_id = RunId::from_bytes(uuid::Uuid::try_parse(run).ok()?.into_bytes());
            Some(Self { run_id, number: u64::from_str_radix(number, 16).ok()? })
        };
        read().ok_or("a patch id is patch_ and 48 hexadecimal digits")
    }
}

/// What somebody wants to change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Its id.
    pub patch_id: PatchId,
    /// Who wants it.
    pub author: Arc<str>,
    /// Why, in the author's words.
    pub justification: Arc<str>,
    /// The version that the author knew.
    pub base_version: u32,
    /// RFC 6902, on the canonical document; nodes and edges by id. Null in a run in fast mode: then the document that they
    /// made is a content that the run refers to.
    pub operations: Value,
}

/// Patches are taken back: the graph goes on without them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revocation {
    /// Which, oldest first: the one that was named, and those that build on it.
    pub patch_ids: Vec<PatchId>,
    /// Who takes them back.
    pub author: Arc<str>,
    /// Why, in the author's words.
    pub reason: Arc<str>,
    /// RFC 6902: what turns the document as it is into the one without them. Null as in a [`Proposal`].
    pub operations: Value,
}

/// A patch was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its id.
    pub patch_id: PatchId,
    /// Who wanted it.
    pub author: Arc<str>,
    /// What stands against it; an error code.
    pub code: Arc<str>,
    /// The same in words.
    pub message: Arc<str>,
}

/// What a run began with, when that is not just a registered version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layered {
    /// Hash of the registered document below.
    pub base: DocumentHash,
    /// Ids of the workflow's patches that were put on it, in order.
    pub patches: Vec<Arc<str>>,
    /// Ids of patches in force that do not fit this version, each with the reason in words.
    pub left_out: Vec<(Arc<str>, Arc<str>)>,
    /// The patch set that the run is an arm of.
    pub set: Option<Arc<str>>,
}

/// A patch that was found good and waits for a human. Nothing has changed yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The patch.
    pub proposal: Proposal,
    /// Version of the graph that it was checked against.
    pub version: u32,
    /// Why it waits, in words.
    pub reason: Arc<str>,
}

/// What a human decided about a patch that waited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Which.
    pub patch_id: PatchId,
    /// Is it made?
    pub approved: bool,
    /// Who decided.
    pub by: Arc<str>,
    /// Why, in the words of whoever decided.
    pub reason: Arc<str>,
}

/// What raises the version of a run's graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A patch.
    Patch(Box<Proposal>),
    /// Patches are taken back.
    Revoked(Box<Revocation>),
}

impl Change {
    /// What turns the document before into the one after.
    pub fn operations(&self) -> &Value {
        match self {
            Self::Patch(proposal) => &proposal.operations,
            Self::Revoked(revocation) => &revocation.operations,
        }
    }

    /// Are its operations kept? Of runs in fast mode only the document is, in the content store.
    pub fn is_kept(&self) -> bool {
        *self.operations() != Value::Null
    }

    /// The same with these operations; null where they are not kept.
    #[must_use]
    pub fn with_operations(mut self, operations: Value) -> Self {
        match &mut self {
            Self::Patch(proposal) => proposal.operations = operations,
            Self::Revoked(revocation) => revocation.operations = operations,
        }
        self
    }
}

/// Documents that these events name instead of the operations that made them.
pub fn unkept(events: &[Event]) -> impl Iterator<Item = DocumentHash> {
    let kept = |asked: &EventBody| match asked {
        EventBody::PatchCreated(proposal) => proposal.operations != Value::Null,
        EventBody::PatchRevoked(revocation) => revocation.operations != Value::Null,
        _ => true,
    };
    events.windows(2).filter_map(move |pair| match pair {
        [asked, Event { body: EventBody::PatchApplied(made), .. }] if !kept(&asked.body) => {
            Some(made.document)
        }
        _ => None,
    })
}

/// A change of a run's graph that was made. The first makes version 2, and so on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// What was changed.
    pub change: Change,
    /// When.
    pub at: Timestamp,
    /// Identity of the document from then on.
    pub document: DocumentHash,
}

/// The patches among the layers that were not taken back, with the version that each made; oldest first.
pub fn in_force(layers: &[Arc<Layer>]) -> Vec<(u32, &Proposal)> {
    let mut found: Vec<(u32, &Proposal)> = Vec::new();
    for (version, layer) in (2..).zip(layers) {
        match &layer.change {
            Change::Patch(proposal) => found.push((version, proposal)),
            Change::Revoked(revocation) => {
                found.retain(|(_, proposal)| !revocation.patch_ids.contains(&proposal.patch_id));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> PatchId {
        PatchId::new(RunId::from_bytes([n; 16]), u64::from(n))
    }

    #[test]
    fn an_id_is_read_back_and_nothing_else_is() {
        assert_eq!(id(7).to_string().parse(), Ok(id(7)));
        for text in ["", "patch_", "run_00000000000000000000000000000000", "patch_zz", "patch_é"] {
            assert!(text.parse::<PatchId>().is_err(), "{text}");
        }
    }

    // F096
    #[test]
    fn what_was_taken_back_is_not_in_force() {
        let layer = |change| Arc::new(Layer { change, at: Timestamp::default(), document: [0; 32] });
        let patch = |n| {
            let proposal = Proposal {
                patch_id: id(n),
                author: "a".into(),
                justification: "".into(),
                base_version: 1,
                operations: Value::Null,
            };
            layer(Change::Patch(Box::new(proposal)))
        };
        let revoked = Revocation {
            patch_ids: vec![id(1)],
            author: "a".into(),
            reason: "".into(),
            operations: Value::Null,
        };
        let layers = [patch(1), patch(2), layer(Change::Revoked(Box::new(revoked))), patch(3)];
        let left: Vec<_> =
            in_force(&layers).iter().map(|(version, left)| (*version, left.patch_id)).collect();
        assert_eq!(left, [(3, id(2)), (5, id(3))]);
    }
}
