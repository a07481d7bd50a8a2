//! Work in the world: calls that leave the node, and jobs that workers come for.
//!
//! One door leads out ([`Http`]): every address is checked before it is connected to, on every redirect again, and what
//! comes back is read under limits. Models are asked through it too ([`Models`]). Work for workers waits in [`pool`], in memory, made again from the log after a restart.
//! Nothing here decides anything of a run: an attempt comes in, its outcome goes out, and the engine says what follows.

mod address;
mod answer;
pub mod breakers;
mod cached;
mod connect;
#[cfg(test)]
#[path = "exec/http_tests/hostile.rs"]
mod hostile;
mod http;
mod key;
mod lease;
pub mod ledger;
pub mod models;
pub mod places;
pub mod pool;
mod reach;
mod request;
pub mod review;
pub mod secret;
pub mod slots;
pub mod standard_webhooks;
pub mod tools;
pub mod webhook;

pub use address::Rule;
pub use breakers::Breakers;
pub use cached::{Answer, Cached};
pub use http::{Call, Counts, Http, Jobs, UnderWay, serve};
pub use key::{idempotency_key, traceparent};
pub use lease::{Leases, Ticket};
pub use ledger::Ledger;
pub use models::Models;
pub use pool::Pool;
pub use reach::Reach;
pub use request::is_unkeyed;
pub use secret::Secrets;
pub use slots::Slots;
pub use tools::Tools;

/// Everything a control core needs to have work done.
#[derive(Clone, Debug)]
pub struct Executors {
    /// Makes HTTP calls.
    pub http: Http,
    /// Asks models.
    pub models: Models,
    /// Jobs of workers.
    pub pool: std::sync::Arc<Pool>,
    /// Says which runs may begin.
    pub slots: std::sync::Arc<Slots>,
    /// Budgets that are wider than a run.
    pub ledger: std::sync::Arc<Ledger>,
    /// Seals what workers hold.
    pub leases: Leases,
    /// What calls may reach.
    pub reach: std::sync::Arc<Reach>,
    /// Makes calls of agents' tools.
    pub tools: Tools,
    /// What calls brought, for nodes that fall back on it.
    pub cached: std::sync::Arc<Cached>,
    /// Summaries of events by a model; `None`: rules make them.
    pub summaries: Option<std::sync::Arc<models::summaries::Summaries>>,
}

/// What calls may reach, and how.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Addresses and names that are open though they are not the public internet.
    pub allow: Vec<Rule>,
    /// When not empty, nothing else is reached.
    pub only: Vec<Rule>,
    /// Certificates (PEM) that are trusted beside the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// Calls under way at once.
    pub calls_max: usize,
    /// Calls under way at once to one host and port.
    pub calls_per_host_max: usize,
    /// When calls to a service that fails are not made for a while.
    pub breaker: breakers::Policy,
}
