//! Leases as workers hold them: a text that names an attempt and proves that this node gave it out. Whoever holds it may
//! say how the attempt ended, with a worker's request or by the URL made of it, also after the node was restarted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::pool::Room;
use crate::model::{Place, RunId, Seq};

/// Names an attempt and the queue it was in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Of which run.
    pub run_id: RunId,
    /// Of which node.
    pub place: Place,
    /// Number of the event that handed it out.
    pub seq: Seq,
    /// Workspace and queue.
    pub room: Room,
}

#[derive(Serialize, Deserialize)]
struct Written {
    run_id: [u8; 16],
    place: Place,
    seq: Seq,
    room: Room,
}

const TAG_BYTES: usize = 16;
/// Letters of the longest lease: names and a place of the greatest depth.
const LETTERS_MAX: usize = 2_048;

/// Seals tickets and reads them.
#[derive(Clone)]
pub struct Leases {
    key: [u8; 32],
}

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leases")
    }
}

impl Leases {
    /// Sealed with `key`, which outlives restarts.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    fn tag(&self, bytes: &[u8]) -> Option<Hmac<Sha256>> {
        self.tag_for(b"aob lease\0", bytes)
    }

    /// The same key for something else: what is sealed for one purpose opens for no other.
    pub(super) fn tag_for(&self, purpose: &[u8], bytes: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(purpose);
        mac.update(bytes);
        Some(mac)
    }

    /// The lease of `ticket`, as text that may stand in a URL.
    pub fn seal(&self, ticket: &Ticket) -> String {
        let Ticket { run_id, place, seq, room } = ticket;
        let written =
            Written { run_id: *run_id.as_bytes(), place: place.clone(), seq: *seq, room: room.clone() };
        // Neither can fail: the parts are plain, and a key of any length will do.
        let mut bytes = postcard::to_stdvec(&written).unwrap_or_default();
        if let Some(mac) = self.tag(&bytes) {
            bytes.extend(mac.finalize().into_bytes().iter().take(TAG_BYTES));
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The ticket of a lease that this node gave out.
    pub fn open(&self, lease: &str) -> Option<Ticket> {
        if lease.len() > LETTERS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(lease).ok()?;
        let (bytes, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        self.tag(bytes)?.verify_truncated_left(tag).ok()?;
        let Written { run_id, place, seq, room } = postcard::from_bytes(bytes).ok()?;
        Some(Ticket { run_id: RunId::from_bytes(run_id), place, seq, room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    #[test]
    fn a_lease_opens_where_it_was_sealed_and_nowhere_else() {
        let leases = Leases::new([7; 32]);
        let mut place = Place::root(2);
        place.scopes.push((1, 9));
        let run_id = RunId::new(Timestamp::from_micros(5), Partition::new(3), [9; 10]);
        let ticket = Ticket { run_id, place, seq: 44, room: ("acme".into(), "thumbnails".into()) };
        let sealed = leases.seal(&ticket);
        assert_eq!(leases.open(&sealed), Some(ticket));
        assert_eq!(Leases::new([8; 32]).open(&sealed), None);
        for at in 0..sealed.len() {
            let mut other = sealed.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            // The last letter has bits that stand for nothing.
            assert!(leases.open(&other).is_none() || at == sealed.len() - 1, "{at}");
        }
        for wrong in ["", "x", "AAAA", &"A".repeat(LETTERS_MAX + 1)] {
            assert_eq!(leases.open(wrong), None);
        }
    }
}
