//! Webhooks: whom the node tells what happens to reviews, and what of it is on its way.
//!
//! A webhook's secret is kept nowhere: it follows from its id and the node's key (`exec::webhook`). A delivery has the same
//! id whenever it is made, so whoever is told twice can tell.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::approval::Row;
use super::{RunId, Seq};
use crate::time::Timestamp;

const SCHEME: &str = "wh_";

/// What a webhook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WebhookId(pub [u8; 16]);

/// The text is not `wh_` and 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a webhook: `wh_` and 32 digits 0-9 a-f are expected")]
pub struct WebhookIdError;

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for WebhookId {
    type Err = WebhookIdError;

    fn from_str(text: &str) -> Result<Self, WebhookIdError> {
        let digits = text.strip_prefix(SCHEME).filter(|digits| digits.len() == 32).ok_or(WebhookIdError)?;
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if !digits.as_bytes().iter().all(digit) {
            return Err(WebhookIdError);
        }
        let number = u128::from_str_radix(digits, 16).map_err(|_| WebhookIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// What a webhook may be told, in the order in which it happens.
pub const EVENTS: [&str; 3] = ["approval.requested", "approval.escalated", "approval.decided"];

/// Whom to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// What it is called.
    pub id: WebhookId,
    /// Whose reviews it is told of.
    pub workspace: Arc<str>,
    /// Where.
    pub url: Arc<str>,
    /// Which of [`EVENTS`], by their number.
    pub events: Vec<u8>,
    /// Only what this one may decide.
    pub reviewer: Option<Arc<str>>,
    /// Since when.
    pub created_at: Timestamp,
    /// Deliveries that arrived.
    pub delivered: u64,
    /// When the last one did.
    pub delivered_at: Option<Timestamp>,
}

impl Webhook {
    /// Is it told of this?
    pub fn wants(&self, row: &Row) -> bool {
        let event = EVENTS.iter().position(|event| *event == row.event());
        event.is_some_and(|event| self.events.iter().any(|wanted| usize::from(*wanted) == event))
            && self.reviewer.as_deref().is_none_or(|reviewer| row.asks(reviewer))
    }
}

/// What a delivery is about, and to whom it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliveryId {
    /// The run.
    pub run_id: RunId,
    /// Number of its event.
    pub seq: Seq,
    /// The webhook.
    pub webhook: WebhookId,
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// What, and to whom.
    pub id: DeliveryId,
    /// The review as it was when that happened.
    pub row: Row,
    /// Attempts so far.
    pub attempts: u32,
    /// When the next one is made; `None`: none is, it is a dead letter.
    pub next_at: Option<Timestamp>,
    /// How the last one failed.
    pub error: Option<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_has_one_spelling() {
        let id = WebhookId([0xab; 16]);
        assert_eq!(id.to_string(), format!("wh_{}", "ab".repeat(16)));
        assert_eq!(id.to_string().parse(), Ok(id));
        let short = format!("wh_{}", "a".repeat(31));
        for wrong in
            ["wh_", "ab", &short, &format!("wh_+{}", "a".repeat(31)), &format!("wh_{}", "A".repeat(32))]
        {
            assert_eq!(wrong.parse::<WebhookId>(), Err(WebhookIdError), "{wrong}");
        }
    }
}
