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
mod approvals;
mod bad_input;
mod cas;
mod checkpoints;
mod children;
mod crash;
mod demo;
mod denied;
mod drain;
mod examples;
mod history;
mod images;
mod keys;
mod modes;
mod patches;
mod patterns;
mod planes;
mod rebinding;
mod room;
mod run_keys;
mod runs;
mod shares;
mod start_up;
mod steer;
mod waits;
mod work;
