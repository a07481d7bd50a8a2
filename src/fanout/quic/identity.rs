//! Ids of connections: eight bytes, of which the first two say which fanout core the connection belongs to. The kernel picks a core
//! by the client's address; when that changes, the id still says where the datagram has to go.
//!
//! The index of a core is all that an observer learns from an id. The other six bytes cannot be told in advance; a packet with an id
//! that nobody has is answered with a reset by the core that it names.

use quinn::{ConnectionId, ConnectionIdGenerator};
use sha2::{Digest as _, Sha256};

/// Bytes of an id.
pub(super) const LENGTH: usize = 8;
/// The bit of a first byte that long headers have: packets of a handshake, whose ids the client may have made.
const LONG_HEADER: u8 = 0x80;

/// Makes ids of one core's connections.
#[derive(Debug)]
pub(super) struct Identities {
    core: u16,
    key: [u8; 32],
    count: u64,
}

impl Identities {
    /// Those that this key makes; it is another one after every start.
    pub(super) fn new(core: u16, key: [u8; 32]) -> Self {
        Self { core, key, count: 0 }
    }
}

impl ConnectionIdGenerator for Identities {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count = self.count.wrapping_add(1);
        let core = self.core.to_be_bytes();
        let drawn = Sha256::new().chain_update(self.key).chain_update(core);
        let drawn = drawn.chain_update(self.count.to_be_bytes()).finalize();
        let mut id = [0; LENGTH];
        id.iter_mut().zip(core.iter().chain(&*drawn)).for_each(|(byte, drawn)| *byte = *drawn);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The core that a datagram names; `None` for one that begins a connection, and for what is no packet.
pub(super) fn core_of(datagram: &[u8]) -> Option<u16> {
    match datagram {
        [first, high, low, ..] if first & LONG_HEADER == 0 && datagram.len() > LENGTH => {
            Some(u16::from_be_bytes([*high, *low]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F235
    #[test]
    fn an_id_names_its_core_and_is_never_the_same() {
        let mut identities = Identities::new(258, [7; 32]);
        let ids: std::collections::BTreeSet<Vec<u8>> =
            (0..1_000).map(|_| identities.generate_cid().to_vec()).collect();
        assert_eq!(ids.len(), 1_000);
        for id in ids {
            let packet = [&[0x40][..], &id, b"rest"].concat();
            assert_eq!(core_of(&packet), Some(258));
            assert_eq!(core_of(&[&[0xc0][..], &id].concat()), None);
            assert_eq!(core_of(&packet[..LENGTH]), None);
        }
        assert_eq!(core_of(&[]), None);
    }
}
