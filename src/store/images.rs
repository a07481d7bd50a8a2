//! Images of unfinished runs: what is kept of a run so that its old events need not be read at start.
//!
//! The bytes are the shard's (`docs/formats/checkpoint.md`); here they are a key and a value. Beside them stands a
//! [`Tally`] of the whole set, changed in the same batch, so that an image that went missing, or is older than it was, is
//! noticed: nothing else would miss it, for the segments that it stands for are no longer read.

use std::sync::Arc;

use super::Error;
use crate::model::RunId;

/// Looks at an image; an error ends the reading.
pub type Seen<'a> = dyn FnMut(RunId, &[u8]) -> Result<(), Error> + 'a;

/// The image of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Whose.
    pub run_id: RunId,
    /// What its shard made of it.
    pub bytes: Arc<[u8]>,
}

/// What a shard's images add up to. The order in which they came does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// How many there are.
    pub count: u64,
    /// Sum of their checksums.
    pub sum: u64,
}

impl Tally {
    /// What no set adds up to.
    pub const NONE: Self = Self { count: u64::MAX, sum: 0 };

    /// One more image.
    pub fn add(&mut self, run_id: RunId, bytes: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(digest(run_id, bytes));
    }

    /// An image that was there is gone, or another stands in its place.
    pub fn remove(&mut self, run_id: RunId, bytes: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(digest(run_id, bytes));
    }
}

fn digest(run_id: RunId, bytes: &[u8]) -> u64 {
    let whole = crc32c::crc32c_append(crc32c::crc32c(run_id.as_bytes()), bytes);
    u64::from(crc32c::crc32c(bytes)) << 32 | u64::from(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_tells_a_set_from_every_other() {
        let (one, two) = (RunId::from_bytes([1; 16]), RunId::from_bytes([2; 16]));
        let of = |images: &[(RunId, &[u8])]| {
            let mut tally = Tally::default();
            images.iter().for_each(|(run_id, bytes)| tally.add(*run_id, bytes));
            tally
        };
        let both = of(&[(one, b"a"), (two, b"b")]);
        assert_eq!(both, of(&[(two, b"b"), (one, b"a")]), "in any order");
        for other in [
            of(&[(one, b"a")]),
            of(&[(one, b"b"), (two, b"a")]),
            of(&[(one, b"a"), (two, b"a")]),
            of(&[(one, b"a"), (one, b"b")]),
        ] {
            assert_ne!(both, other);
        }
        let mut changed = both;
        changed.remove(one, b"a");
        assert_eq!(changed, of(&[(two, b"b")]));
        changed.add(one, b"a");
        assert_eq!(changed, both);
    }
}
