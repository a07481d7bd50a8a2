//! Bodies about dead letters: work that was given up, in a listing and in full.

use serde::Serialize;

use super::Shown;
use super::event::Error;
use crate::model::letter::{Letter, LetterId, State};
use crate::model::workspace::shown;
use crate::model::{Class, Failure, RunId, Value};
use crate::time::Timestamp;

/// A dead letter, in one line.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DeadLetter"))]
pub struct Line<'a> {
    /// What it is called.
    pub id: Shown<LetterId>,
    /// Its run.
    pub run_id: Shown<RunId>,
    /// Name of the workflow.
    pub workflow: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Path of the node.
    pub node: &'a str,
    /// `dead`, or `redriven` once a run does its work again.
    pub status: &'static str,
    /// Code of the failure.
    pub code: &'a str,
    /// The first part of its message.
    pub message: &'a str,
    /// Its class.
    #[cfg_attr(test, schemars(with = "String"))]
    pub class: Class,
    /// The run went on without the node.
    pub continued: bool,
    /// When the node failed.
    pub failed_at: Shown<Timestamp>,
    /// The run that does its work again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redriven_as: Option<Shown<RunId>>,
}

impl<'a> Line<'a> {
    /// Of this letter.
    pub fn new(letter: &'a Letter) -> Self {
        let what = &letter.what;
        let redriven_as = match letter.state {
            State::Redriven(run_id) => Some(Shown(run_id)),
            State::Dead | State::Purged => None,
        };
        Self {
            id: Shown(letter.id),
            run_id: Shown(letter.id.0.run_id),
            workflow: shown(&what.workflow),
            version: &what.version,
            node: &what.node,
            status: letter.state.as_str(),
            code: &what.code,
            message: &what.message,
            class: what.class,
            continued: what.continued,
            failed_at: Shown(letter.at),
            redriven_as,
        }
    }
}

/// A page of dead letters.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DeadLetterPage"))]
pub struct Page<'a> {
    /// Those of the newest runs first.
    pub letters: Vec<Line<'a>>,
    /// Give it back as `cursor` for the next page; null at the end.
    pub next_cursor: Option<Shown<LetterId>>,
}

/// A dead letter in full.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DeadLetterInFull"))]
pub struct Full<'a> {
    /// In one line.
    #[serde(flatten)]
    pub line: Line<'a>,
    /// Attempts that were made; null when the record of the run cannot be read.
    pub attempts: Option<u32>,
    /// The whole failure.
    #[cfg_attr(test, schemars(with = "Option<super::event::ErrorShape>"))]
    pub error: Option<Error<'a>>,
    /// What the last attempt asked for, secrets by their names; null when none was under way.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub request: &'a Value,
    /// Why the record of the run cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<&'a str>,
}

impl<'a> Full<'a> {
    /// The failure as clients see it.
    pub fn error(failure: Option<&Failure>) -> Option<Error<'_>> {
        failure.map(Error)
    }
}

/// What a purge did.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DeadLettersPurged"))]
pub struct Purged {
    /// Letters that are gone.
    pub purged: usize,
    /// There are others that fit: send it again.
    pub more: bool,
}
