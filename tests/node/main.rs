//! Black-box tests: the real binaries, real sockets, real files, kill -9.
//!
//! `AOB_TEST_DRIVER=tokio` runs the same tests without io_uring.

#![allow(clippy::indexing_slicing, clippy::too_many_lines, reason = "tests fail loudly by design")]

#[path = "../harness/mod.rs"]
mod harness;

mod bad_input;
mod crash;
mod demo;
mod planes;
mod runs;
mod start_up;
