//! Signed links to reviews: who holds one may see that review and decide it as the reviewer it names, until it expires.
//!
//! Sealed with the node's own key like leases, for this purpose only. A link names one ticket: after a decision it shows how
//! the review ended, and opens nothing else.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Mac as _;
use serde::{Deserialize, Serialize};

use super::Leases;
use crate::model::{Ticket, Workspace};
use crate::time::Timestamp;

const PURPOSE: &[u8] = b"aob review\0";
const TAG_BYTES: usize = 16;
/// Letters of the longest key: two names and some numbers.
const LETTERS_MAX: usize = 1_024;

/// What a link says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Of which review.
    pub ticket: Ticket,
    /// In which workspace.
    pub workspace: Arc<str>,
    /// Who decides; `None`: whoever has it says so, of a review that anybody may decide.
    pub reviewer: Option<Arc<str>>,
    /// Until when.
    pub expires: Timestamp,
}

impl Link {
    /// The key, as it stands in a URL.
    pub fn seal(&self, leases: &Leases) -> String {
        // Neither can fail: the parts are plain, and a key of any length will do.
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        if let Some(mac) = leases.tag_for(PURPOSE, &bytes) {
            bytes.extend(mac.finalize().into_bytes().iter().take(TAG_BYTES));
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a key says that this node made, and that has not expired.
    pub fn open(leases: &Leases, key: &str, now: Timestamp) -> Option<Self> {
        if key.len() > LETTERS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(key).ok()?;
        let (bytes, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        leases.tag_for(PURPOSE, bytes)?.verify_truncated_left(tag).ok()?;
        let link: Self = postcard::from_bytes(bytes).ok()?;
        (link.expires > now).then_some(link)
    }

    /// Whose it is.
    pub fn workspace(&self) -> Option<Workspace> {
        self.workspace.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Partition, RunId};

    // F317, F426
    #[test]
    fn a_link_opens_on_its_node_for_its_purpose_and_in_its_time() {
        let run_id = RunId::new(Timestamp::from_micros(9), Partition::new(1), [7; 10]);
        let expires = Timestamp::from_micros(1_000);
        let link = Link {
            ticket: Ticket { run_id, seq: 4 },
            workspace: "default".into(),
            reviewer: Some("ops".into()),
            expires,
        };
        let node = Leases::new([1; 32]);
        let key = link.seal(&node);
        let now = Timestamp::from_micros(999);
        assert_eq!(Link::open(&node, &key, now), Some(link.clone()));
        assert_eq!(Link::open(&node, &key, expires), None);
        assert_eq!(Link::open(&Leases::new([2; 32]), &key, now), None);
        let (lease, other) = (
            super::super::Ticket {
                run_id,
                place: crate::model::Place::root(0),
                seq: 1,
                room: ("a".into(), "b".into()),
            },
            Link { reviewer: Some("eve".into()), ..link },
        );
        assert_eq!(Link::open(&node, &node.seal(&lease), now), None, "a lease is no link");
        let (forged, sealed) = (other.seal(&Leases::new([0; 32])), key.as_bytes());
        assert_eq!(Link::open(&node, &forged, now), None);
        for at in 0..sealed.len() - 1 {
            let mut changed = sealed.to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(Link::open(&node, std::str::from_utf8(&changed).unwrap(), now), None, "{at}");
        }
    }
}
