//! Black-box tests: the real binaries, real sockets, real files, kill -9.
//!
//! `AOB_TEST_DRIVER=tokio` runs the same tests without io_uring.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a test takes apart what it built, and fails loudly"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod abuse;
mod agent_seeds;
mod agents;
mod agents_budgets;
mod agents_money;
mod approvals;
mod approvals_over;
mod artifacts;
mod audit;
mod bad_input;
mod batch;
mod budget_keys;
mod cached;
mod canaries;
mod cas;
mod checkpoints;
mod children;
mod cluster;
mod crash;
mod demo;
mod denied;
mod drain;
mod edge;
mod examples;
mod experiments;
mod explained;
mod forks;
mod gateway;
mod history;
mod hooks;
mod images;
mod in_redis;
mod keys;
mod letters;
mod modes;
mod once;
mod overlays;
mod overload;
mod patches;
mod patches_held;
mod patches_seen;
mod patterns;
mod planes;
mod policy;
mod quic;
mod quic_abuse;
mod rebinding;
mod redrives;
mod replay;
mod resilience;
mod room;
mod run_keys;
mod runs;
mod schedules;
mod shares;
mod slow_readers;
mod sockets;
mod spikes;
mod start_up;
mod steer;
mod store_outage;
mod streams;
mod summaries;
mod tether;
mod tiers;
mod tls_streams;
mod transports;
mod transports_http2;
mod untaken;
mod updates;
mod waits;
mod webhooks;
mod webtransport;
mod work;
mod workflow_tools;
