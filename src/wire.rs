//! The shapes of our HTTP and stream protocols, shared by `api`, `fanout` and `client`.
//!
//! What a client reads is made here and nowhere else, so a timeline row and a streamed event are the same bytes.
//! Nothing here does I/O. Times are RFC 3339 with milliseconds, ids and hashes are text, members are snake_case.

mod agent;
pub mod approval;
pub mod asked;
pub mod breaker;
pub mod event;
pub mod frame;
pub mod letter;
pub mod node;
pub mod origin;
pub mod problem;
pub mod quic;
pub mod run;
pub mod schema;
pub mod sse;
pub mod stream;
pub mod summary;
pub mod update;
pub mod webhook;
pub mod workflow;

use std::fmt::Display;

use serde::{Serialize, Serializer};

use crate::model::event::DocumentHash;

/// Serialises anything by its text form.
#[derive(Clone, Copy, Debug)]
pub struct Shown<T>(pub T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
impl<T> schemars::JsonSchema for Shown<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string"})
    }
}

/// A document's hash as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, Debug)]
pub struct Hash<'a>(pub &'a DocumentHash);

impl Display for Hash<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// JSON bytes of something that always serialises.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    if serde_json::to_writer(&mut bytes, value).is_err() {
        // Only a map with keys that are not text, or a failing Serialize of ours, can bring us here.
        return b"null".to_vec();
    }
    bytes
}

/// The known name nearest to `unknown`, when one is near enough to be what was meant.
pub fn did_you_mean<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), *name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_named_and_a_far_one_is_not() {
        let known = ["workflow", "inputs", "version"];
        assert_eq!(did_you_mean("worklfow", &known), Some("workflow"));
        assert_eq!(did_you_mean("input", &known), Some("inputs"));
        assert_eq!(did_you_mean("banana", &known), None);
    }

    #[test]
    fn a_hash_is_shown_with_its_algorithm() {
        let text = Hash(&[0xab; 32]).to_string();
        assert_eq!(text, format!("sha256:{}", "ab".repeat(32)));
    }
}
