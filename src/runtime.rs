//! The node: configuration, start, phases, shutdown. Knows everyone, decides nothing.
//!
//! The order of a start matters, and is: check the machine, take the data directory, take the port, recover every
//! shard, start the planes, accept. Whatever fails before `Serving` is one [`Error`] with one line and an exit code;
//! afterwards a thread that ends badly stops the process, because a node with a dead core behind a healthy `/readyz`
//! is worse than none.

mod clock;
// pub mod index;
pub mod plan;
// pub mod plane;
// pub mod recover;
// pub mod shard;
pub mod shutdown;
pub mod startup;
pub mod thread;
pub mod topology;
pub mod watchdog;

#[cfg(test)]
mod handoff_tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;


/// Everything the node is told. Made by `config`, immutable after the start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds journal, index and registry.
    pub data_dir: PathBuf,
    /// Of the HTTP API.
    pub listen: SocketAddr,
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
    /// How long requests under way get after SIGTERM.
    pub drain: Duration,
    /// Unfinished runs of one shard.
    pub runs_live_per_shard_max: usize,
    /// Open connections of one control core.
    pub connections_per_core_max: usize,
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
