//! One record as it stands in a file: the chain's hash up to it, a space, JSON, a line end.
//!
//! `hash = sha256(hash before || JSON bytes)`, so that `sha256sum` and a few lines of script can check it without us.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::limits;
use crate::store::signing::{PublicKey, Signature, from_hex, hex, is_signed};

/// A SHA-256.
pub(super) type Digest = [u8; 32];

const DOMAIN: &[u8] = b"aob audit v1";
const CHECKPOINT: &[u8] = b"aob audit checkpoint v1";
const ANCHOR: &[u8] = b"aob audit anchor v1";

/// The chain before the first record of a data directory.
pub(super) fn genesis(cluster: [u8; 16]) -> Digest {
    Sha256::new().chain_update(DOMAIN).chain_update(cluster).finalize().into()
}

/// A signature over the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Public key, in hexadecimal digits.
    pub key: String,
    /// The signature, in hexadecimal digits.
    pub signature: String,
}

impl Signed {
    pub(super) fn new(key: PublicKey, signature: &Signature) -> Self {
        Self { key: hex(&key), signature: hex(signature) }
    }

    /// Is it over this, by its key, and by this one when one is expected?
    pub(super) fn is_over(&self, message: &[u8], expected: Option<&PublicKey>) -> bool {
        let (Some(key), Some(signature)) = (from_hex::<32>(&self.key), from_hex::<64>(&self.signature))
        else {
            return false;
        };
        expected.is_none_or(|expected| *expected == key) && is_signed(&key, message, &signature)
    }
}

/// What a checkpoint signs: its number, and the chain before it.
pub(super) fn checkpoint_message(seq: u64, before: &Digest) -> Vec<u8> {
    [CHECKPOINT, &seq.to_le_bytes(), before].concat()
}

/// What an anchor signs: the number of the first record that is left, and the chain before it.
pub(super) fn anchor_message(first: u64, before: &Digest) -> Vec<u8> {
    [ANCHOR, &first.to_le_bytes(), before].concat()
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number: 1, 2, 3, ...
    pub seq: u64,
    /// When, RFC 3339.
    pub at: String,
    /// What was asked for (`POST /v1/runs/{id}/cancel`), or of the log itself: `opened`, `checkpoint`, `set_aside`.
    pub action: String,
    /// `accepted`, `refused`, or `noted` for what the log says about itself.
    pub outcome: String,
    /// Where; none for a request from nobody that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Name of the token; `anyone` on a node without tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The address it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The path, without what could be a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// `X-Request-Id` of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Refusals since the record before that were too many to be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<u64>,
    /// In words, of what the log says about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// Appends the record's line to `out`; the chain with it.
pub(super) fn append(out: &mut Vec<u8>, before: &Digest, record: &Record) -> Digest {
    let json = serde_json::to_vec(record).unwrap_or_default();
    let hash = link(before, &json);
    out.extend_from_slice(hex(&hash).as_bytes());
    out.push(b' ');
    out.extend_from_slice(&json);
    out.push(b'\n');
    hash
}

fn link(before: &Digest, json: &[u8]) -> Digest {
    Sha256::new().chain_update(before).chain_update(json).finalize().into()
}

/// A line without its line end, taken apart; nothing is judged.
pub(super) fn parse(line: &[u8]) -> Option<(Digest, Record)> {
    if line.len() > limits::AUDIT_RECORD_BYTES_MAX {
        return None;
    }
    let (digits, json) = line.split_at_checked(65)?;
    let hash = from_hex(std::str::from_utf8(digits).ok()?.strip_suffix(' ')?)?;
    Some((hash, serde_json::from_slice(json).ok()?))
}

/// The same, when it follows `before` as number `seq`. The error says what is wrong.
pub(super) fn check(line: &[u8], before: &Digest, seq: u64) -> Result<(Digest, Record), String> {
    let (hash, record) = parse(line).ok_or_else(|| format!("record {seq} is no record"))?;
    if record.seq != seq {
        return Err(format!("record {seq} is expected, and {} stands there", record.seq));
    }
    if link(before, line.get(65..).unwrap_or_default()) != hash {
        return Err(format!("record {seq} is not the one that was written"));
    }
    Ok((hash, record))
}
