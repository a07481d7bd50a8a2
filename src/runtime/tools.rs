//! What is done about a data directory without a node: looking it over, backing it up, bringing it back. What a node is told by hand:
//! to hand its store over. And what is done about the host that it is on.
//!
//! What is done about a data directory takes its lock: a running node is never looked at or copied, for what it writes meanwhile would be half
//! there. Blocking, one file or one segment in memory at a time.

pub mod backup;
#[cfg(feature = "redis")]
pub mod drain;
pub mod fsck;
mod images;
pub mod tune;
