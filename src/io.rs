//! The world behind small functions. The only module that names a runtime crate (protocol edges name socket types).
//!
//! A thread runs one of two drivers. What is generic over them (the shard's loop, the journal) uses the functions here,
//! which do the right thing for the thread they are called on.

pub mod disk;
pub mod file;
pub mod net;
pub mod passed;
pub mod ring;
pub mod socket;
pub mod trust;

use std::cell::Cell;
use std::time::Duration;

/// Which runtime a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// glommio, on a ring of its own.
    Ring,
    /// tokio, current thread.
    Tokio,
}

thread_local! {
    static DRIVER: Cell<Driver> = const { Cell::new(Driver::Tokio) };
}

/// The driver of this thread.
pub fn driver() -> Driver {
    DRIVER.get()
}

/// Runs `task` on this thread, beside the caller. A panic in it is the thread's.
pub fn spawn_local(task: impl Future<Output = ()> + 'static) {
    match driver() {
        Driver::Ring => drop(glommio::spawn_local(task).detach()),
        Driver::Tokio => drop(tokio::task::spawn_local(net::reporting(task))),
    }
}

/// Waits at least this long.
pub async fn sleep(duration: Duration) {
    match driver() {
        Driver::Ring => glommio::timer::sleep(duration).await,
        Driver::Tokio => tokio::time::sleep(duration).await,
    }
}

/// Lets other tasks of this thread, and its I/O, have a turn.
pub async fn yield_now() {
    match driver() {
        Driver::Ring => glommio::executor().yield_task_queue_now().await,
        Driver::Tokio => tokio::task::yield_now().await,
    }
}
