//! Tickets: what a human's review is called. Nothing is kept under a ticket; it says of itself which run it is of, and which
//! event of the run asked, so it stands for one review for ever.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{RunId, Seq};

const SCHEME: &str = "tkt_";
const RUN_SCHEME: &str = "run_";

/// One review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket {
    /// Of this run.
    pub run_id: RunId,
    /// Number of the event that asked.
    pub seq: Seq,
}

/// The text is not `tkt_`, 32 hex digits of a run's id, `_` and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a ticket: `tkt_`, the 32 hexadecimal digits of a run's id, `_` and a number are expected")]
pub struct TicketError;

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run_id = self.run_id.to_string();
        write!(f, "{SCHEME}{}_{}", run_id.strip_prefix(RUN_SCHEME).unwrap_or(&run_id), self.seq)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let (run, seq) =
            text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('_')).ok_or(TicketError)?;
        // One number has one spelling.
        let plain = seq.bytes().all(|byte| byte.is_ascii_digit()) && !seq.starts_with('0');
        let run_id = format!("{RUN_SCHEME}{run}").parse().map_err(|_| TicketError)?;
        let seq = seq.parse().ok().filter(|_| plain).ok_or(TicketError)?;
        Ok(Self { run_id, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    // F314
    #[test]
    fn a_ticket_names_its_run_and_its_event_and_has_one_spelling() {
        let run_id = RunId::new(Timestamp::from_micros(1_700_000_000_000_000), Partition::new(7), [3; 10]);
        let ticket = Ticket { run_id, seq: 41 };
        let text = ticket.to_string();
        assert!(text.starts_with("tkt_") && text.ends_with("_41"), "{text}");
        assert_eq!(text.parse(), Ok(ticket));
        for wrong in [
            &text[4..],
            &text[..text.len() - 3],
            &format!("{text}x"),
            &text.replace("_41", "_041"),
            "tkt__1",
            "",
        ] {
            assert_eq!(wrong.parse::<Ticket>(), Err(TicketError), "{wrong}");
        }
    }
}
