//! How long `aob --version` takes from spawn to exit: what a person feels of every command.
//!
//! `cargo bench --bench cli_start` starts it [`STARTS`] times and prints the median, the 95th of a hundred and the
//! slowest, in milliseconds. It measures and asserts nothing about time: how long a process takes to start is the
//! machine's as much as ours. The goal is a 95th below 10 ms on a machine that does nothing else.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a measurement, not a service")]

use std::process::{Command, Stdio};

use aob::time::{Clock as _, SystemClock};

/// Starts that count; a few before them warm the page cache.
const STARTS: usize = 200;
const WARM: usize = 10;

fn main() {
    let mut took: Vec<u64> = (0..WARM + STARTS).map(|_| start()).skip(WARM).collect();
    took.sort_unstable();
    let at =
        |percent: usize| took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap();
    let millis = |micros: u64| format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10);
    println!(
        "aob --version, {STARTS} starts: p50 {}  p95 {}  slowest {}",
        millis(at(50)),
        millis(at(95)),
        millis(at(100))
    );
}

/// Microseconds of one start.
fn start() -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aob"));
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let began = SystemClock.monotonic_us();
    let status = command.status().unwrap();
    let took = SystemClock.monotonic_us() - began;
    assert!(status.success(), "aob --version ended with {status}");
    took
}
