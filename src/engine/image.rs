//! A run as bytes: its whole state, so that it goes on without its history being folded again (`docs/formats/checkpoint.md`).
//!
//! What must hold: the image of a fold of a history is the fold; folding what comes after it gives what folding everything
//! gives. The graph is not in it: it is derived again from the document that the run began with and the changes of that, in
//! their order. The layout is that of the state's own types, so a change of any of them is a new
//! [`IMAGE_VERSION`]; images of another version are not read, and the history is folded instead. Requests that the run
//! remembers, and what it has spent, stand behind it all, if there are any: a run without them has the image that it always had.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Recall;
use super::admission::Turn;
use super::agenda::Agenda;
use super::fork::Origin;
use super::keys::Keys;
use super::run::{Cancel, Run};
use super::scope::Scope;
use super::spend::{Purse, Spend};
use crate::ir::{self, Ir};
use crate::model::event::{DocumentHash, Parent, RunStarted};
use crate::model::patch::{Change, Held, Layer, Layered};
use crate::model::{Failure, Mode, Place, RunId, Seq, Status, Value, kept};
use crate::time::Timestamp;

/// Version of the layout.
///
/// 2: changes of the graph stand in the image with their operations, reviews with what was answered.
/// 3: patches that wait for a human, and those of the workflow that a run began with; where the run was forked from.
pub const IMAGE_VERSION: u8 = 3;

/// Why bytes are no image that this engine can go on from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// They do not decode.
    #[error("it does not decode: {0}")]
    Undecodable(String),
    /// The run was begun under another meaning.
    #[error("written under semantics {found}; this node knows {known}", known = ir::SEMANTICS_VERSION)]
    Semantics {
        /// The run's.
        found: u32,
    },
    /// A document that it runs, or ran before a patch, is not known.
    #[error("a document of the run is not in the registry")]
    NoDocument,
    /// The state has not as many nodes as the graph.
    #[error("it is of another graph")]
    OtherGraph,
}

/// Who has the graphs of documents. None of those that are given is aligned.
pub trait Graphs {
    /// The graph of a registered document.
    fn of(&mut self, document: &DocumentHash) -> Option<Arc<Ir>>;
    /// The graph of the document that the base document and its layers become by a change: derived, unless it is at hand,
    /// like any registered one, for who does not say otherwise.
    fn after(
        &mut self,
        base: &DocumentHash,
        layers: &[Arc<Layer>],
        change: &Change,
        document: &DocumentHash,
    ) -> Option<Arc<Ir>> {
        let _ = (base, layers, change);
        self.of(document)
    }
}

/// The state as it is written; [`Read`] has the same fields in the same order.
#[derive(Serialize)]
struct Written<'r> {
    id: RunId,
    started: &'r RunStarted,
    parent: &'r Option<Parent>,
    turn: &'r Option<Turn>,
    run_key: &'r Option<Arc<str>>,
    layered: &'r Option<Arc<Layered>>,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    status: Status,
    seq: Seq,
    mode: Mode,
    mode_given: bool,
    derived: u64,
    version: u32,
    layers: &'r [Arc<Layer>],
    proposed: &'r Option<(Seq, Change)>,
    rejections: u32,
    held: &'r [Arc<Held>],
    origin: Option<Origin>,
    asks_at: Option<Seq>,
    root: &'r Scope,
    agenda: &'r Agenda,
    waiting: &'r BTreeMap<Arc<str>, VecDeque<Place>>,
    kept: &'r VecDeque<(Arc<str>, Value)>,
    own_bytes: usize,
    under_way: u32,
    recalled: &'r [Recall],
    cancel: &'r Option<Cancel>,
    doom: &'r Option<(Failure, Place)>,
    outputs: &'r Option<Value>,
    failure: &'r Option<Failure>,
    failed_at: &'r Option<Place>,
}

/// The state as it is read.
#[derive(Deserialize)]
struct Read {
    id: RunId,
    started: RunStarted,
    parent: Option<Parent>,
    turn: Option<Turn>,
    run_key: Option<Arc<str>>,
    layered: Option<Arc<Layered>>,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    status: Status,
    seq: Seq,
    mode: Mode,
    mode_given: bool,
    derived: u64,
    version: u32,
    layers: Vec<Arc<Layer>>,
    proposed: Option<(Seq, Change)>,
    rejections: u32,
    held: Vec<Arc<Held>>,
    origin: Option<Origin>,
    asks_at: Option<Seq>,
    root: Scope,
    agenda: Agenda,
    waiting: BTreeMap<Arc<str>, VecDeque<Place>>,
    kept: VecDeque<(Arc<str>, Value)>,
    own_bytes: usize,
    under_way: u32,
    recalled: Vec<Recall>,
    cancel: Option<Cancel>,
    doom: Option<(Failure, Place)>,
    outputs: Option<Value>,
    failure: Option<Failure>,
    failed_at: Option<Place>,
    /// Stands behind all others, and only when there is any.
    #[serde(skip)]
    keys: Keys,
    /// Stands behind the keys, and only when there is any.
    #[serde(skip)]
    spend: Purse,
}

impl Read {
    fn from_bytes(bytes: &[u8]) -> Result<Self, ImageError> {
        let undecodable = |error: postcard::Error| ImageError::Undecodable(error.to_string());
        let (mut read, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(undecodable)?;
        let (keys, rest) = Keys::from_bytes(rest).map_err(undecodable)?;
        read.keys = keys;
        let rest = match rest {
            [] => rest,
            _ => {
                let (spend, rest): (Spend, _) = postcard::take_from_bytes(rest).map_err(undecodable)?;
                let (refused_by, rest) = match rest {
                    [] => (None, rest),
                    _ => postcard::take_from_bytes(rest)
                        .map(|(by, rest)| (Some(by), rest))
                        .map_err(undecodable)?,
                };
                read.spend.set(Some(Spend { refused_by, ..spend }));
                rest
            }
        };
        if !rest.is_empty() {
            return Err(ImageError::Undecodable(format!("{} bytes are left over", rest.len())));
        }
        if read.started.semantics != ir::SEMANTICS_VERSION {
            return Err(ImageError::Semantics { found: read.started.semantics });
        }
        Ok(read)
    }

    /// Names that many runs have are kept once.
    fn share_names(&mut self, ir: &Ir) {
        for (own, shared) in
            [(&mut self.started.workflow, &ir.name), (&mut self.started.version, &ir.version)]
        {
            if *own == *shared {
                own.clone_from(shared);
            }
        }
    }

    fn run(mut self, ir: Arc<Ir>) -> Result<Run, ImageError> {
        if self.root.nodes.len() != ir.root().nodes.len() {
            return Err(ImageError::OtherGraph);
        }
        self.share_names(&ir);
        Ok(Run {
            id: self.id,
            ir,
            started: self.started,
            parent: self.parent,
            turn: self.turn,
            run_key: self.run_key,
            layered: self.layered,
            started_at: self.started_at,
            ended_at: self.ended_at,
            status: self.status,
            seq: self.seq,
            mode: self.mode,
            mode_given: self.mode_given,
            derived: self.derived,
            version: self.version,
            layers: self.layers,
            proposed: self.proposed,
            rejections: self.rejections,
            held: self.held,
            origin: self.origin,
            asks_at: self.asks_at,
            root: self.root,
            agenda: self.agenda,
            waiting: self.waiting,
            kept: self.kept,
            own_bytes: self.own_bytes,
            under_way: self.under_way,
            recalled: self.recalled,
            cancel: self.cancel,
            doom: self.doom,
            outputs: self.outputs,
            failure: self.failure,
            failed_at: self.failed_at,
            keys: self.keys,
            spend: self.spend,
        })
    }
}

impl Run {
    /// Its image.
    ///
    /// # Errors
    /// A value cannot be written down; none that the engine makes.
    pub fn to_image(&self) -> Result<Vec<u8>, ImageError> {
        self.image_as(self.id)
    }

    /// Sha-256 of the state: of its image with all values in full and zeros for its id, so that a fork has the hash of what
    /// it was forked from. The same events always give the same hash; another [`IMAGE_VERSION`] gives another one.
    ///
    /// # Errors
    /// As [`to_image`](Self::to_image).
    pub fn state_hash(&self) -> Result<[u8; 32], ImageError> {
        let image = kept::plainly(|| self.image_as(RunId::from_bytes([0; 16])))?;
        let head = [b"aob state ".as_slice(), &[IMAGE_VERSION], &ir::SEMANTICS_VERSION.to_le_bytes()];
        let hasher = head.into_iter().fold(Sha256::new(), |hasher, part| hasher.chain_update(part));
        Ok(hasher.chain_update(image).finalize().into())
    }

    fn image_as(&self, id: RunId) -> Result<Vec<u8>, ImageError> {
        let written = Written {
            id,
            started: &self.started,
            parent: &self.parent,
            turn: &self.turn,
            run_key: &self.run_key,
            layered: &self.layered,
            started_at: self.started_at,
            ended_at: self.ended_at,
            status: self.status,
            seq: self.seq,
            mode: self.mode,
            mode_given: self.mode_given,
            derived: self.derived,
            version: self.version,
            layers: &self.layers,
            proposed: &self.proposed,
            rejections: self.rejections,
            held: &self.held,
            origin: self.origin,
            asks_at: self.asks_at,
            root: &self.root,
            agenda: &self.agenda,
            waiting: &self.waiting,
            kept: &self.kept,
            own_bytes: self.own_bytes,
            under_way: self.under_way,
            recalled: &self.recalled,
            cancel: &self.cancel,
            doom: &self.doom,
            outputs: &self.outputs,
            failure: &self.failure,
            failed_at: &self.failed_at,
        };
        let undecodable = |error: postcard::Error| ImageError::Undecodable(error.to_string());
        let mut image = postcard::to_stdvec(&written).map_err(undecodable)?;
        let spend = self.spend.get();
        if !self.keys.is_empty() || spend.is_some() {
            image.extend(self.keys.to_bytes().map_err(undecodable)?);
        }
        if let Some(spend) = spend {
            image.extend(postcard::to_stdvec(spend).map_err(undecodable)?);
            if let Some(by) = &spend.refused_by {
                image.extend(postcard::to_stdvec(by).map_err(undecodable)?);
            }
        }
        Ok(image)
    }

    /// The run that an image is of.
    ///
    /// # Errors
    /// The bytes are damaged, of another layout, or of a document that is not known.
    pub fn from_image<G: Graphs + ?Sized>(bytes: &[u8], graphs: &mut G) -> Result<Self, ImageError> {
        let mut read = Read::from_bytes(bytes)?;
        let base = read.started.document;
        let mut ir = graphs.of(&base).ok_or(ImageError::NoDocument)?;
        read.share_names(&ir);
        for (at, layer) in read.layers.iter().enumerate() {
            let before = read.layers.get(..at).unwrap_or_default();
            let next = graphs.after(&base, before, &layer.change, &layer.document);
            ir = Arc::new(next.ok_or(ImageError::NoDocument)?.aligned(&ir));
        }
        read.run(ir)
    }

    /// As [`from_image`](Self::from_image), by one who still has the run's graph.
    ///
    /// # Errors
    /// As there.
    pub fn from_image_with(bytes: &[u8], ir: Arc<Ir>) -> Result<Self, ImageError> {
        let read = Read::from_bytes(bytes)?;
        let document = read.layers.last().map_or(&read.started.document, |layer| &layer.document);
        if *document != ir.document {
            return Err(ImageError::OtherGraph);
        }
        read.run(ir)
    }

    /// Does it wait for nothing but time, a signal or a human?
    pub fn is_at_rest(&self) -> bool {
        !self.status.is_terminal()
            && !self.is_ready()
            && self.under_way == 0
            && self.recalled.is_empty()
            && self.claim().is_none()
    }
}
