//! The node's edge from outside: TLS, tokens, workspaces, reload, logs. Real binaries and sockets.

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

mod access;
mod beside;
mod client;
mod logs;
mod rate;
mod systemd;
mod tls;
mod tune;
