//! Bodies about updates.

use serde::Serialize;

use super::event::Error;
use super::run::Line;
use crate::model::Value;

/// An update that was taken.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Update"))]
pub struct Update<'a> {
    /// The run in one line.
    #[serde(flatten)]
    pub line: Line<'a>,
    /// Number of the event that says so, `signal.received`.
    pub received_seq: u64,
    /// Path of the node that took it.
    pub node: &'a str,
    /// Path of the node that answers, when it is another one (`with.reply`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<&'a str>,
    /// How the node that answers ended: `completed`, `failed`, `skipped`, or `cancelled` when its run went on or ended without
    /// it; `waiting`: it has not.
    pub state: &'static str,
    /// `completed`: its output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub output: Option<&'a Value>,
    /// `failed`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<super::event::ErrorShape>"))]
    pub error: Option<Error<'a>>,
}
