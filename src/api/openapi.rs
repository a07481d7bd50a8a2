//! The description of this interface: OpenAPI 3.1, served at `/openapi.json`.
//!
//! It is made by a test from the types of `wire` and the operations beside it, and committed as `docs/openapi.json`, so
//! that a node needs no generator. Tests hold it to the routes of the source and execute each of its examples.

/// The description, as text.
pub(super) const DOCUMENT: &str = include_str!("../../docs/openapi.json");
/// Its media type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.oai.openapi+json;version=3.1";

#[cfg(test)]
mod agents;
#[cfg(test)]
mod approvals;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod batch;
#[cfg(test)]
mod contents;
#[cfg(test)]
mod described;
#[cfg(test)]
mod letters;
#[cfg(test)]
mod money;
#[cfg(test)]
mod operation;
#[cfg(test)]
mod overlays;
#[cfg(test)]
mod parameters;
#[cfg(test)]
mod patches;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod triggers;
#[cfg(test)]
mod updates;
#[cfg(test)]
mod webhooks;
#[cfg(test)]
mod workers;
