//! Dead letters: work that was given up, remembered beside its run until somebody sees to it.
//!
//! What must hold: a letter follows from the run's durable events ([`super::approval::What::GaveUp`]), so it may be written
//! down again from any part of a history; one that is known stays as it is. Only what became of it since (redriven, purged) is
//! a fact of its own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Class, Place, RunId, Ticket};
use crate::time::Timestamp;

const SCHEME: &str = "dead_";
const TICKET: &str = "tkt_";

/// What a letter is called: its run, and the event by which the node failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LetterId(pub Ticket);

/// The text is not `dead_`, 32 hex digits of a run's id, `_` and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dead letter: `dead_`, the 32 hexadecimal digits of a run's id, `_` and a number are expected")]
pub struct LetterIdError;

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ticket = self.0.to_string();
        write!(f, "{SCHEME}{}", ticket.strip_prefix(TICKET).unwrap_or(&ticket))
    }
}

impl FromStr for LetterId {
    type Err = LetterIdError;

    fn from_str(text: &str) -> Result<Self, LetterIdError> {
        let rest = text.strip_prefix(SCHEME).ok_or(LetterIdError)?;
        format!("{TICKET}{rest}").parse().map(Self).map_err(|_| LetterIdError)
    }
}

/// What the event says of work that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaveUp {
    /// Name of the workflow, as inside the node.
    pub workflow: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
    /// Path of the node.
    pub node: Arc<str>,
    /// Code of its failure.
    pub code: Arc<str>,
    /// Its message, at most [`crate::limits::LETTER_MESSAGE_LETTERS_MAX`] of it.
    pub message: Arc<str>,
    /// Its class.
    pub class: Class,
    /// The run went on without the node (`on_error: continue`).
    pub continued: bool,
    /// The node is a call, which can be made again as it was; anything else begins anew.
    pub call: bool,
}

/// How a letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nobody has seen to it.
    Dead,
    /// This run does its work again.
    Redriven(RunId),
    /// It is not wanted; it stays known as long as its run, so that it does not come back.
    Purged,
}

impl State {
    /// As in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Redriven(_) => "redriven",
            Self::Purged => "purged",
        }
    }
}

/// A letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// What it is called.
    pub id: LetterId,
    /// Which node, as events have it.
    pub place: Place,
    /// When it failed.
    pub at: Timestamp,
    /// What happened.
    pub what: GaveUp,
    /// What became of it.
    pub state: State,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;

    // F370
    #[test]
    fn a_letter_names_its_run_and_its_event_and_has_one_spelling() {
        let run_id = RunId::new(Timestamp::from_micros(1_700_000_000_000_000), Partition::new(7), [3; 10]);
        let id = LetterId(Ticket { run_id, seq: 41 });
        let text = id.to_string();
        assert!(text.starts_with("dead_") && text.ends_with("_41"), "{text}");
        assert_eq!(text.parse(), Ok(id));
        for wrong in [&text[5..], &id.0.to_string(), &text.replace("_41", "_041"), "dead_", ""] {
            assert_eq!(wrong.parse::<LetterId>(), Err(LetterIdError), "{wrong}");
        }
    }
}
