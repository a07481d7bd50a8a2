//! The JSON Schema (2020-12) of a workflow document: what `/v1/schema/workflow.json` serves and editors use.
//!
//! It is made from the types in `types.rs` and committed as `docs/workflow.schema.json`; a test keeps both equal, so a
//! node needs no generator. It may let through what the compiler refuses (expressions, edges, names), never the
//! reverse: whatever compiles fits it, which a test beside it checks.

/// The schema, as text.
pub const WORKFLOW: &str = include_str!("../../docs/workflow.schema.json");
/// Its media type.
pub const MEDIA_TYPE: &str = "application/schema+json";

#[cfg(test)]
mod tests;
#[cfg(test)]
mod types;
