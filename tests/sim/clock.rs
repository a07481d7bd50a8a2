//! Time in a simulation: tokio's paused clock, which goes on when everybody waits, and a wall clock that may jump.

#![expect(clippy::disallowed_methods, reason = "the clock of tests")]

use std::cell::Cell;
use std::time::Duration;

use crate::time::simulated;

thread_local! {
    static START: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
    /// What the wall clock showed when the simulation began.
    static WALL_US: Cell<u64> = const { Cell::new(0) };
    static JUMPED_US: Cell<i64> = const { Cell::new(0) };
}

fn hands() -> (u64, u64) {
    let passed = passed_us();
    ((WALL_US.get() + passed).saturating_add_signed(JUMPED_US.get()), passed)
}

/// What the wall clock shows.
pub(super) fn wall_us() -> u64 {
    hands().0
}

/// Microseconds since the simulation began.
pub(super) fn passed_us() -> u64 {
    let start = START.get().unwrap_or_else(tokio::time::Instant::now);
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The clocks of this thread are simulated until this is dropped. Wants tokio's clock to be paused.
pub(super) struct Simulated(());

impl Simulated {
    pub(super) fn begin(wall_us: u64) -> Self {
        WALL_US.set(wall_us);
        START.set(Some(tokio::time::Instant::now()));
        JUMPED_US.set(0);
        simulated::set(Some(hands));
        Self(())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        simulated::set(None);
    }
}

/// The wall clock jumps, forward or back.
pub(super) fn jump(by_us: i64) {
    JUMPED_US.set(JUMPED_US.get() + by_us);
}

/// Lets simulated time pass.
pub(super) async fn sleep_ms(millis: u64) {
    crate::io::sleep(Duration::from_millis(millis)).await;
}

/// The machine's own time.
pub(super) fn real() -> std::time::Instant {
    std::time::Instant::now()
}
