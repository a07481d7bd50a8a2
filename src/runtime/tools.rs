//! What is done about a data directory without a node: looking it over, backing it up, bringing it back. And what a node is told by hand:
//! to hand its store over.
//!
//! All but the last takes the directory's lock: a running node is never looked at or copied, for what it writes meanwhile would be half
//! there. Blocking, one file or one segment in memory at a time.

pub mod backup;
#[cfg(feature = "redis")]
pub mod drain;
pub mod fsck;
mod images;
