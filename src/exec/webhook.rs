//! Webhooks of reviews: the names of their messages, and the secrets they are signed with.
//!
//! A secret is kept nowhere. It is made of the webhook's id by the node's own key, so it outlives restarts, is gone with the
//! data directory, and no listing can show it.

use hmac::Mac as _;
use sha2::{Digest as _, Sha256};

use super::Leases;
use super::standard_webhooks::{SECRET_BYTES, Secret};
use crate::model::webhook::{DeliveryId, WebhookId};

/// The secret of a webhook.
pub fn secret(leases: &Leases, id: WebhookId) -> Secret {
    let mac = leases.tag_for(b"aob webhook\0", &id.0);
    // A key of any length will do.
    let bytes: [u8; SECRET_BYTES] = mac.map(|mac| mac.finalize().into_bytes().into()).unwrap_or_default();
    Secret::from(bytes)
}

/// `webhook-id`: the same whenever the delivery is made.
pub fn message_id(id: &DeliveryId) -> String {
    let hash = Sha256::new().chain_update(b"aob delivery\0").chain_update(id.run_id.as_bytes());
    let hash = hash.chain_update(id.seq.to_be_bytes()).chain_update(id.webhook.0).finalize();
    hash.iter().take(16).fold(String::from("msg_"), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Partition, RunId};
    use crate::time::Timestamp;

    // F317
    #[test]
    fn a_secret_is_of_one_webhook_of_one_node_and_a_delivery_keeps_its_id() {
        let (node, other) = (Leases::new([1; 32]), Leases::new([2; 32]));
        let (a, b) = (WebhookId([1; 16]), WebhookId([2; 16]));
        assert_eq!(secret(&node, a), secret(&Leases::new([1; 32]), a));
        assert_eq!(secret(&node, a).bytes().len(), 32);
        assert!(secret(&node, a) != secret(&node, b) && secret(&node, a) != secret(&other, a));
        assert!(secret(&node, a).reveal().starts_with("whsec_"));
        let run_id = RunId::new(Timestamp::from_micros(9), Partition::new(1), [7; 10]);
        let id = DeliveryId { run_id, seq: 3, webhook: a };
        assert_eq!(message_id(&id), message_id(&id));
        assert_ne!(message_id(&id), message_id(&DeliveryId { seq: 4, ..id }));
        assert_ne!(message_id(&id), message_id(&DeliveryId { webhook: b, ..id }));
    }
}
