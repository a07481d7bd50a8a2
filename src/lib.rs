//! aob: a durable orchestration node for agentic workflows.
//!
//! This file is only the map. Read ARCHITECTURE.md for the design; `tests/tidy.rs` keeps who may use whom.
//!
//! | layer | modules | rule |
//! | --- | --- | --- |
//! | leaves | [`limits`] [`time`] [`queue`] [`telemetry`] [`catalogue`] | anyone may use them |
//! | pure | [`model`] [`expr`] [`ir`] [`compile`] [`engine`] [`replay`] [`schedule`] `draw` | data in, data out: no I/O, clock, randomness or async |
//! | edges | [`io`] [`wire`] [`auth`] [`store`] [`cas`] [`exec`] [`api`] [`fanout`] [`client`] [`resilience`] | touch the world |
//! | assembly | [`runtime`] [`config`] [`cli`] [`demo`] | know everyone, decide nothing |
//!
//! Without the feature `server` there is what a client of a node needs: `client`, `wire`, `model` and their leaves. This file is the one
//! place that says which modules those are.

// Tests may index and take apart what they built themselves.
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::too_many_lines, reason = "tests fail loudly by design")
)]

#[cfg(feature = "server")]
pub mod catalogue;
#[cfg(feature = "server")]
pub mod failpoint;
pub mod limits;
pub mod queue;
#[cfg(feature = "server")]
pub mod telemetry;
pub mod time;

#[cfg(feature = "server")]
pub mod compile;
#[cfg(feature = "server")]
mod draw;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod expr;
#[cfg(feature = "server")]
pub mod ir;
pub mod model;
#[cfg(feature = "server")]
pub mod schedule;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cas;
pub mod client;
#[cfg(feature = "server")]
pub mod exec;
#[cfg(feature = "server")]
pub mod fanout;
#[cfg(feature = "server")]
pub mod io;
/// What a client needs of the world beside its connections: whom to trust.
#[cfg(not(feature = "server"))]
pub mod io {
    pub mod trust;
}
#[cfg(feature = "server")]
pub mod replay;
#[cfg(feature = "server")]
pub mod resilience;
#[cfg(feature = "server")]
pub mod store;
pub mod wire;

#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "server")]
pub mod runtime;

// The unit tests, the simulator before all, run on the allocator that the node runs on.
#[cfg(all(test, feature = "mimalloc"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// What is fuzzed: built for tests and for `fuzz/` only.
#[cfg(all(any(test, fuzzing), feature = "server"))]
#[path = "../tests/fuzz/mod.rs"]
pub mod fuzzed;
