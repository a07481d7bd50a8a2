//! Names of runs and positions. A run's id says which partition owns it, so no routing table exists.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::time::Timestamp;

/// One of [`limits::PARTITIONS`] slices of all runs; a partition lives on one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(u16);

impl Partition {
    /// Partition `index` modulo the number of partitions.
    pub const fn new(index: u16) -> Self {
        Self(index & (limits::PARTITIONS - 1))
    }

    /// The partition that owns a key: idempotency keys and, later, every other thing that hashes elsewhere.
    pub fn of_key(hash: &[u8; 16]) -> Self {
        Self::new(u16::from_be_bytes([hash[0], hash[1]]))
    }

    /// 0 .. `limits::PARTITIONS`.
    pub const fn index(self) -> u16 {
        self.0
    }

    /// The shard that owns this partition when there are `shards` of them.
    pub fn shard(self, shards: usize) -> usize {
        usize::from(self.0) % shards.max(1)
    }
}

/// UUIDv7 (RFC 9562) with the partition in the low bits of `rand_a`. Shown as `run_` and 32 hex digits.
/// Ids sort by the millisecond of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId([u8; 16]);

impl RunId {
    /// A new id. `random` must be unpredictable: it is what makes ids unguessable and unique within a millisecond.
    pub fn new(now: Timestamp, partition: Partition, random: [u8; 10]) -> Self {
        let mut bytes =
            uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid().into_bytes();
        let spare = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x0fff & !(limits::PARTITIONS - 1);
        let rand_a = 0x7000 | spare | partition.index();
        [bytes[6], bytes[7]] = rand_a.to_be_bytes();
        Self(bytes)
    }

    /// The partition that owns this run.
    pub fn partition(self) -> Partition {
        Partition::new(u16::from_be_bytes([self.0[6], self.0[7]]))
    }

    /// Big-endian bytes; they sort as the ids do.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// From bytes that [`as_bytes`](Self::as_bytes) gave.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Not after any id made in this millisecond, and after every id made before.
    pub fn first_of(millis: u64) -> Self {
        let mut bytes = [0; 16];
        let millis = millis.min((1 << 48) - 1).to_be_bytes();
        for (byte, from) in bytes.iter_mut().zip(millis.iter().skip(2)) {
            *byte = *from;
        }
        Self(bytes)
    }

    /// Before every id.
    pub const FIRST: Self = Self([0; 16]);

    /// After every id.
    pub const LAST: Self = Self([0xff; 16]);

    /// The id right behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(u128::from_be_bytes(self.0).saturating_add(1).to_be_bytes())
    }

    /// Milliseconds since the epoch at which the run was made.
    pub fn created_millis(self) -> u64 {
        let b = &self.0;
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run_{}", uuid::Uuid::from_bytes(self.0).simple())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `run_` and 32 hex digits of a version 7 UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a run id: `run_` and 32 hexadecimal digits are expected")]
pub struct RunIdError;

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        let digits = text.strip_prefix("run_").ok_or(RunIdError)?;
        if digits.len() != 32 {
            return Err(RunIdError);
        }
        let uuid = uuid::Uuid::try_parse(digits).map_err(|_| RunIdError)?;
        if uuid.get_version_num() != 7 {
            return Err(RunIdError);
        }
        Ok(Self(uuid.into_bytes()))
    }
}

/// Number of an event in its run: 1, 2, 3, ... without gaps. 0 is "before the first".
pub type Seq = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_carries_its_partition_and_survives_text() {
        // F009
        for index in 0..limits::PARTITIONS {
            let id =
                RunId::new(Timestamp::from_micros(1_700_000_000_000_000), Partition::new(index), [0xff; 10]);
            assert_eq!(id.partition().index(), index);
            assert_eq!(id.to_string().parse::<RunId>(), Ok(id));
            assert_eq!(id.created_millis(), 1_700_000_000_000);
        }
    }

    #[test]
    fn text_that_is_no_run_id_is_refused() {
        for text in [
            "",
            "run_",
            "run_7f3e4a",
            "node_018bcfe568007fffbfffffffffffffff",
            "run_018bcfe5-6800-7fff-bfff-ffffffffffff",
        ] {
            assert_eq!(text.parse::<RunId>(), Err(RunIdError), "{text}");
        }
    }
}
