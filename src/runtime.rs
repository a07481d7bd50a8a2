//! The node: configuration, start, phases, shutdown. Knows everyone, decides nothing.
//!
//! The order of a start matters, and is: check the machine, take the data directory, take the port, recover every
//! shard, start the planes, accept. Whatever fails before `Serving` is one [`Error`] with one line and an exit code;
//! afterwards a thread that ends badly stops the process, because a node with a dead core behind a healthy `/readyz`
//! is worse than none.

mod clock;
#[cfg(feature = "redis")]
mod cluster;
#[cfg(not(feature = "redis"))]
#[path = "runtime/cluster/alone.rs"]
mod cluster;
pub mod contents;
mod drive;
mod history;
mod index;
mod logs;
pub mod materializer;
mod node;
mod origin;
mod patched;
pub mod plan;
mod plane;
mod recorded;
mod recover;
mod refold;
mod reload;
pub mod room;
mod shard;
pub mod shutdown;
pub mod startup;
mod storage;
pub mod systemd;
pub mod thread;
pub mod tools;
pub mod topology;
pub mod watchdog;
mod wheel;

#[cfg(test)]
mod handoff_tests;
#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod sim;

pub use node::{End, Node};
pub use reload::{Fresh, Reread};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Durability;

/// Everything the node is told. Made by `config`, immutable after the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which nodes a human is asked about first.
    pub policy: Arc<crate::compile::policy::Rules>,
    /// What may be spent on models, by more than one run.
    pub budgets: Vec<crate::exec::ledger::Limit>,
    /// Who may come in.
    pub auth: crate::auth::Settings,
    /// What is recorded of requests.
    pub audit: crate::audit::Settings,
    /// What is said on standard error.
    pub log: crate::telemetry::log::Settings,
    /// Holds journal, index and registry.
    pub data_dir: PathBuf,
    /// Of the HTTP API.
    pub listen: SocketAddr,
    /// Of QUIC, when it is on.
    pub quic: Option<crate::fanout::quic::Settings>,
    /// Where state is kept, and when something is acknowledged.
    pub store: StoreChoice,
    /// How long finished runs stay readable.
    pub retention: Duration,
    /// Which cores each plane gets.
    pub cores: plan::Cores,
    /// Which runtime the runner plane gets.
    pub driver: DriverChoice,
    /// After how long a busy shard looks at its ring.
    pub preempt: Duration,
    /// How long a shard spins before it parks.
    pub spin: Duration,
    /// Bytes of one segment file.
    pub segment_bytes: u64,
    /// What the disk may be used for.
    pub room: room::Settings,
    /// What the content store is told.
    pub contents: contents::Settings,
    /// What stores the products of patches is told.
    pub materializer: materializer::Settings,
    /// How long requests under way get after SIGTERM.
    pub drain: Duration,
    /// Unfinished runs of one shard.
    pub runs_live_per_shard_max: usize,
    /// Open connections of one control core.
    pub connections_per_core_max: usize,
    /// What HTTP calls may reach.
    pub http: crate::exec::Settings,
    /// Which models there are.
    pub models: crate::exec::models::Settings,
    /// Where reviewers reach the node; by the address it listens on unless it stands here.
    pub reviews_url: Option<String>,
    /// Attempts of a webhook's delivery, and how long it rests after the first.
    pub webhook_attempts: (u32, Duration),
    /// Where secrets are looked for.
    pub secrets: crate::exec::Secrets,
    /// What workers get.
    pub workers: crate::exec::pool::Workers,
    /// The tool servers of agents.
    pub tools: crate::exec::tools::Settings,
}

/// `store.url` and `durability`.
#[derive(Clone, Debug)]
pub enum StoreChoice {
    /// In the data directory.
    Embedded(Durability),
    /// In Redis.
    #[cfg(feature = "redis")]
    Redis(crate::store::redis::Config, Membership),
}

/// How a node stands among others on the same store.
#[cfg(feature = "redis")]
#[derive(Clone, Debug)]
pub struct Membership {
    /// For how long the lease of the store is good.
    pub lease: Duration,
    /// Where others reach this node (`HOST:PORT`); by where it listens unless it stands here.
    pub address: Option<String>,
    /// It has just handed over: others go first.
    pub stands_back: bool,
}

impl StoreChoice {
    /// Others go first where nodes share a store.
    pub fn stand_back(&mut self) {
        match self {
            Self::Embedded(_) => {}
            #[cfg(feature = "redis")]
            Self::Redis(_, membership) => membership.stands_back = true,
        }
    }

    /// The level that acknowledgements name.
    pub fn durability(&self) -> String {
        match self {
            Self::Embedded(durability) => durability.as_str().to_owned(),
            #[cfg(feature = "redis")]
            Self::Redis(config, _) => config.level.to_string(),
        }
    }
}

/// `runner.driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring when the kernel lets us.
    Auto,
    /// io_uring, or no start.
    Ring,
    /// Plain files on a helper thread.
    Tokio,
}

/// Why the node does not start, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration.
    #[error("configuration: {0}")]
    Config(String),
    /// A certificate or the tokens.
    #[error("{0}")]
    Auth(#[from] crate::auth::Error),
    /// The machine.
    #[error("{0}")]
    Startup(#[from] startup::StartupError),
    /// The plan.
    #[error("{0}")]
    Plan(#[from] plan::PlanError),
    /// The port.
    #[error("{0}")]
    Listen(#[from] crate::io::socket::ListenError),
    /// The data directory, or a journal in it.
    #[error("{0}")]
    Store(#[from] crate::store::Error),
    /// The content store.
    #[error("{0}")]
    Contents(#[from] crate::cas::Error),
    /// A thread.
    #[error("{0}")]
    Spawn(#[from] thread::SpawnError),
    /// A ring.
    #[error("{0}")]
    Ring(#[from] crate::io::ring::RingError),
    /// Anything that ended the node.
    #[error("{0}")]
    Ended(String),
}

impl Error {
    /// What the process exits with (sysexits.h where one fits).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Plan(_) | Self::Auth(_) => 78,
            Self::Startup(_) | Self::Spawn(_) | Self::Ring(_) => 71,
            Self::Listen(_) => 69,
            Self::Store(_) | Self::Contents(_) => 74,
            Self::Ended(_) => 70,
        }
    }
}
