//! Faults of the process: killed at random and at named places, during recovery, by its own threads, by its limits. Clients,
//! workers and services record what they saw, and the checker says whether a promise was broken (RELIABILITY 3.A).
//!
//! `AOB_FULL=1` does more rounds. With the feature `failpoints` there is more: `tests/run` says how.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test takes apart what it built, and fails loudly"
)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../ledger/mod.rs"]
mod ledger;
#[path = "../recorder/mod.rs"]
mod recorder;

#[cfg(feature = "failpoints")]
mod agents;
mod clock;
mod cluster;
mod disk;
mod ends;
#[cfg(feature = "failpoints")]
mod failpoints;
mod kills;
#[cfg(feature = "failpoints")]
mod mutants;
mod recovery;
#[cfg(feature = "failpoints")]
mod threads;
