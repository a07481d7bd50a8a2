//! The token: what travels between cores on behalf of a run (`docs/formats/token.md`).
//!
//! A token is encoded once into a buffer that is used again, travels as bytes, and is read in place. Bytes from
//! outside the core are checked whole before a field is looked at: [`Token::access`] never panics and never gives
//! half a token. The layout is pinned by const asserts and golden bytes; a change is a new version.

use rkyv::rancor;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

use super::{Place, RunId, Value};
use crate::limits;
use crate::time::Timestamp;

/// First bytes of every token.
pub const MAGIC: [u8; 4] = *b"aobt";
/// The version written, and the only one read.
pub const VERSION: u16 = 1;
/// `node` of a token that is for the run as a whole.
pub const NODE_NONE: u32 = u32::MAX;

const HEADER_BYTES: usize = 8;
const ALIGNMENT: usize = 8;

/// What a token says.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(compare(PartialEq), derive(Clone, Copy, Debug, PartialEq, Eq))]
#[repr(u8)]
pub enum Kind {
    /// A node's attempt ended well; the payload is its output.
    Completed,
    /// A node's attempt failed; the payload is the failure.
    Failed,
    /// A signal for the run; the payload is what it brings.
    Signal,
    /// A timer of a node fired.
    Timer,
}

/// How urgent a token is.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(compare(PartialEq), derive(Clone, Copy, Debug, PartialEq, Eq))]
#[repr(u8)]
pub enum Priority {
    /// Before the others.
    High,
    /// The default.
    #[default]
    Medium,
    /// When nothing else waits.
    Low,
}

/// One scope gone through on the way to a node.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Step {
    /// Index of the node that owns the scope.
    pub node: u32,
    /// Item or iteration.
    pub item: u32,
}

/// What a token brings.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub enum Payload {
    /// Compact value bytes.
    Inline(Vec<u8>),
    /// Compact value bytes kept elsewhere, by content.
    Reference(Reference),
}

/// Where compact value bytes are kept.
#[derive(Archive, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Reference {
    /// Of those bytes.
    pub sha256: [u8; 32],
    /// How many there are.
    pub length: u64,
}

/// W3C trace context: all zero when there is none.
#[derive(Archive, Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Trace {
    /// Of the whole trace.
    pub trace_id: [u8; 16],
    /// Of the caller's span.
    pub span_id: [u8; 8],
    /// Sampled or not.
    pub flags: u8,
}

/// A token before it is encoded.
#[derive(Archive, Serialize, Clone, Debug, PartialEq, Eq)]
#[rkyv(derive(Debug))]
pub struct Token {
    /// [`RunId`] as bytes.
    pub run_id: [u8; 16],
    /// Scopes gone through, outermost first.
    pub scopes: Vec<Step>,
    /// Node in the innermost scope, or [`NODE_NONE`].
    pub node: u32,
    /// 1 for the first attempt; 0 when there is none.
    pub attempt: u32,
    /// Owner epoch; 0 when not made by an owner.
    pub epoch: u64,
    /// Version of the run's graph that the indexes belong to.
    pub ir_version: u64,
    /// Microseconds since the Unix epoch; 0 for none.
    pub deadline_us: u64,
    /// Who asked.
    pub trace: Trace,
    /// What it says.
    pub kind: Kind,
    /// How urgent it is.
    pub priority: Priority,
    /// Name of the signal; empty otherwise.
    pub name: String,
    /// What it brings.
    pub payload: Payload,
}

const _: () = assert!(size_of::<ArchivedToken>() == 144, "the root's size is part of the format");
const _: () = assert!(align_of::<ArchivedToken>() == ALIGNMENT, "the root's alignment is part of the format");
const _: () = assert!(size_of::<ArchivedStep>() == 8 && size_of::<ArchivedPayload>() == 48);
const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGNMENT), "the body starts aligned when the token does");

/// Why bytes are no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not ours.
    #[error("token does not start with \"aobt\"")]
    Magic,
    /// Of another version.
    #[error("token has version {0}; this node reads version {VERSION}")]
    Version(u16),
    /// The bytes do not start on an 8-byte boundary; [`Token::access_copied`] copies them.
    #[error("token bytes do not start on an 8-byte boundary")]
    Misaligned,
    /// A pointer, a tag or a text does not check out.
    #[error("token is damaged: {0}")]
    Damaged(String),
    /// Over a limit.
    #[error("token has {what} of {value}; at most {max} (limit {limit})")]
    Limit {
        /// Which part.
        what: &'static str,
        /// How much.
        value: usize,
        /// How much is allowed.
        max: usize,
        /// The limit's name.
        limit: &'static str,
    },
    /// The payload is no compact value, or is not here.
    #[error("token payload: {0}")]
    Payload(String),
}

impl Error {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Magic | Self::Misaligned | Self::Damaged(_) => "token_malformed",
            Self::Version(_) => "token_version",
            Self::Limit { .. } => "token_limit",
            Self::Payload(_) => "token_payload",
        }
    }
}

/// Bytes of the largest token: a value inline and what stands around it.
pub const TOKEN_BYTES_MAX: usize = limits::VALUE_BYTES_MAX + 4096;

impl Token {
    /// A signal `name` for a run.
    ///
    /// # Errors
    /// The payload is larger than `value_bytes_max`, or the name longer than `name_bytes_max`.
    pub fn signal(run_id: RunId, name: &str, payload: &Value) -> Result<Self, Error> {
        let payload = postcard::to_stdvec(payload).map_err(|error| Error::Payload(error.to_string()))?;
        within("a name", name.len(), limits::NAME_BYTES_MAX, "name_bytes_max")?;
        within("a payload", payload.len(), limits::VALUE_BYTES_MAX, "value_bytes_max")?;
        Ok(Self {
            run_id: *run_id.as_bytes(),
            scopes: Vec::new(),
            node: NODE_NONE,
            attempt: 0,
            epoch: 0,
            ir_version: 1,
            deadline_us: 0,
            trace: Trace::default(),
            kind: Kind::Signal,
            priority: Priority::default(),
            name: name.to_owned(),
            payload: Payload::Inline(payload),
        })
    }

    /// Writes the token into `buffer`, whose old content is dropped and whose memory is used again.
    ///
    /// # Errors
    /// Out of memory, or larger than 2 GiB.
    pub fn encode(&self, buffer: &mut AlignedVec) -> Result<(), Error> {
        let mut writer = std::mem::take(buffer);
        writer.clear();
        writer.extend_from_slice(&MAGIC);
        writer.extend_from_slice(&VERSION.to_le_bytes());
        writer.extend_from_slice(&[0, 0]);
        *buffer = rkyv::api::high::to_bytes_in::<_, rancor::Error>(self, writer)
            .map_err(|error| Error::Damaged(error.to_string()))?;
        Ok(())
    }

    /// The token in `bytes`, read in place and checked whole.
    ///
    /// # Errors
    /// The bytes are no token, or do not start on an 8-byte boundary.
    pub fn access(bytes: &[u8]) -> Result<&ArchivedToken, Error> {
        within("a length", bytes.len(), TOKEN_BYTES_MAX, "value_bytes_max")?;
        let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(Error::Magic)?;
        let [m0, m1, m2, m3, v0, v1, f0, f1] = *header else { return Err(Error::Magic) };
        if [m0, m1, m2, m3] != MAGIC {
            return Err(Error::Magic);
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION || [f0, f1] != [0, 0] {
            return Err(Error::Version(version));
        }
        if !bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Err(Error::Misaligned);
        }
        let token = rkyv::access::<ArchivedToken, rancor::Error>(body)
            .map_err(|error| Error::Damaged(error.to_string()))?;
        within("a name", token.name.len(), limits::NAME_BYTES_MAX, "name_bytes_max")?;
        within("a depth", token.scopes.len(), limits::SCOPE_DEPTH_MAX, "scope_depth_max")?;
        if let ArchivedPayload::Inline(inline) = &token.payload {
            within("a payload", inline.len(), limits::VALUE_BYTES_MAX, "value_bytes_max")?;
        }
        Ok(token)
    }

    /// As [`access`](Self::access), for bytes that may start anywhere: they are copied into `buffer` when they have
    /// to be.
    ///
    /// # Errors
    /// The bytes are no token.
    pub fn access_copied<'a>(
        bytes: &'a [u8],
        buffer: &'a mut AlignedVec,
    ) -> Result<&'a ArchivedToken, Error> {
        if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Self::access(bytes);
        }
        within("a length", bytes.len(), TOKEN_BYTES_MAX, "value_bytes_max")?;
        buffer.clear();
        buffer.extend_from_slice(bytes);
        Self::access(buffer)
    }
}

impl ArchivedToken {
    /// Which run it is for.
    pub fn run(&self) -> RunId {
        RunId::from_bytes(self.run_id)
    }

    /// Which node it is for; `None` when it is for the run.
    pub fn place(&self) -> Option<Place> {
        let node = self.node.to_native();
        (node != NODE_NONE).then(|| Place {
            scopes: self.scopes.iter().map(|step| (step.node.to_native(), step.item.to_native())).collect(),
            node,
        })
    }

    /// When it is no longer of use.
    pub fn deadline(&self) -> Option<Timestamp> {
        let micros = self.deadline_us.to_native();
        (micros != 0).then(|| Timestamp::from_micros(micros))
    }

    /// The payload, when it is inline and a value.
    ///
    /// # Errors
    /// It is kept elsewhere, or its bytes are no compact value.
    pub fn value(&self) -> Result<Value, Error> {
        match &self.payload {
            ArchivedPayload::Inline(bytes) => {
                let (value, rest) =
                    postcard::take_from_bytes(bytes).map_err(|error| Error::Payload(error.to_string()))?;
                if rest.is_empty() { Ok(value) } else { Err(Error::Payload("bytes after the value".into())) }
            }
            ArchivedPayload::Reference(_) => Err(Error::Payload("it is kept by reference".into())),
        }
    }
}

fn within(what: &'static str, value: usize, max: usize, limit: &'static str) -> Result<(), Error> {
    if value > max { Err(Error::Limit { what, value, max, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
