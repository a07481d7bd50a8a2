//! State in Redis: the journal of a partition as a stream, and its index, on a server that is checked to keep what it acknowledges.
//!
//! ```text
//!   aob:{p}:log     stream    POSITION-0   f = fence that appended it   b = checksum, batch   s = its segment
//!   aob:{p}:state   hash      fence = EPOCH/NONCE   epoch   last = position   first = position kept   writes
//!   aob:{p}:v:NAME  hash      values of a keyspace by key       aob:{p}:k:NAME  sorted set   its keys in order
//!   p is the number of a partition; `index` and `contents` have a state and keyspaces too, `index` the lease of all ([`lease`])
//! ```
//!
//! Must hold: fence and position are checked by the server in the step that appends (`append.lua`). Nothing is acknowledged below
//! the level asked for: the server's configuration is looked at on every connection ([`server`]), and one that does not give the level
//! is refused, never taken with less. A request without an answer is sent again on a *new* connection, for it is idempotent; the
//! old one is dropped, so that a late answer meets nobody. What a server has once acknowledged and no longer has is
//! [`StoreRegressed`](super::Error::StoreRegressed), and never taken for an empty store.
//!
//! When full: a server without memory or disk refuses before it writes anything ([`StoreRefused`](super::Error::StoreRefused)); it may be
//! asked again. One that is away for longer than [`Config::outage`] ends the journal, as a failed sync does.

pub mod client;
pub mod fault;
pub mod frames;
pub mod journal;
pub mod keyspaces;
pub mod lease;
mod link;
pub mod log;
pub mod server;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what the server says is read away by a thread of the test")]
pub(super) mod testing;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "who kills servers and who swallows answers are threads of the test"
)]
mod tests;
pub mod water;

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "who kills servers and who moves slots are threads of the test"
)]
mod cluster_tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use client::Client;
pub use frames::RedisFrames;
pub use journal::{Known, RedisJournal};
pub use keyspaces::RedisKeyspaces;
pub use log::RedisLog;
pub use server::{Level, Replicas};

use crate::store::Error;

/// What is kept together: in one slot of a cluster, by one owner at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The journal of a partition, and what was moved from it.
    Partition(u16),
    /// Rows that are looked up across partitions.
    Index,
    /// Contents by their hashes, which anybody may add.
    Contents,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(partition) => partition.fmt(f),
            Self::Index => f.write_str("index"),
            Self::Contents => f.write_str("contents"),
        }
    }
}

/// What addresses begin with.
pub const SCHEMES: [&str; 3] = ["redis://", "rediss://", "redis+unix://"];

/// Where something is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// `redis://`, `rediss://`, `redis+unix://`, with `?protocol=resp3` where wanted; at least one. Of several, a server with its replicas or
    /// some of a cluster, one is used at a time.
    pub urls: Vec<String>,
    /// For `rediss://`.
    pub tls: Tls,
    /// When something is acknowledged.
    pub level: Level,
    /// What of it.
    pub tag: Tag,
    /// How many replicas there are, for [`Level::ReplicatedToAll`].
    pub replicas: Arc<Replicas>,
    /// How long a server may be away before the journal ends (`limits::STORE_OUTAGE_SECONDS_MAX`).
    pub outage: Duration,
}

/// How a server's certificate is judged, and what we show of our own. All in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// What the server's certificate has to lead to; `None`: what the system trusts.
    pub roots: Option<Vec<u8>>,
    /// Our certificate and its key; `None`: the server asks for none.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { roots, identity } = self;
        let (roots, identity) = (roots.is_some(), identity.is_some());
        f.debug_struct("Tls").field("roots", &roots).field("identity", &identity).finish()
    }
}

/// The keys of a partition, and of what else has one owner. All have the same hash tag, so that a cluster keeps them in one slot.
#[derive(Clone, Debug)]
struct Keys {
    log: String,
    state: String,
}

impl Keys {
    fn of(tag: Tag) -> Self {
        Self { log: format!("aob:{{{tag}}}:log"), state: format!("aob:{{{tag}}}:state") }
    }
}

/// Servers' addresses as they may stand in messages.
fn shown(urls: &[String]) -> String {
    urls.iter().map(|url| without_password(url)).collect::<Vec<_>>().join(", ")
}

/// A server's address as it may stand in messages: without its password.
fn without_password(url: &str) -> String {
    match url::Url::parse(url) {
        // In the query stand users and passwords of sockets.
        Ok(mut url) => {
            url.set_query(None);
            if url.password().is_some() && url.set_password(Some("***")).is_err() {
                return String::from("(not an address)");
            }
            url.into()
        }
        Err(_) => String::from("(not an address)"),
    }
}

/// What stands at `key` was not written by a node.
fn damaged(key: &str, why: impl Into<String>) -> Error {
    Error::StoreDamaged { key: key.to_owned(), why: why.into() }
}
