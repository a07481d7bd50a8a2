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

// Tests may index and take apart what they built themselves.
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::too_many_lines, reason = "tests fail loudly by design")
)]

pub mod catalogue;
pub mod failpoint;
pub mod limits;
pub mod queue;
pub mod telemetry;
pub mod time;

pub mod compile;
mod draw;
pub mod engine;
pub mod expr;
pub mod ir;
pub mod model;
pub mod schedule;

pub mod api;
pub mod audit;
pub mod auth;
pub mod cas;
pub mod client;
pub mod exec;
pub mod fanout;
pub mod io;
pub mod replay;
pub mod resilience;
pub mod store;
pub mod wire;

pub mod cli;
pub mod config;
pub mod demo;
pub mod runtime;

// The unit tests, the simulator before all, run on the allocator that the node runs on.
#[cfg(all(test, feature = "mimalloc"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// What is fuzzed: built for tests and for `fuzz/` only.
#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/mod.rs"]
pub mod fuzzed;
