//! tokio: pinned current_thread cores of the control and fanout planes, and of a runner plane without io_uring.

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// Threads that this core may keep for blocking work (reads of history, the registry).
const BLOCKING_THREADS_MAX: usize = 4;

/// Runs `main` on a current_thread runtime on this thread until it ends.
///
/// # Errors
/// The runtime could not be made.
pub fn block_on<F: Future<Output = ()>>(main: F) -> std::io::Result<()> {
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, main);
    runtime.shutdown_background();
    Ok(())
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("aob-side")
        .on_thread_start(|| {
            // Blocking work belongs to no plane: such a thread may run wherever the process may.
            let _ = crate::io::socket::unpin_current_thread();
        })
        .build()
}

/// Waits for `work`, but no longer than `limit`; `None` when that has passed.
pub async fn within<T>(limit: std::time::Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

/// Completes when the process is told to end: SIGTERM or SIGINT.
///
/// # Errors
/// The handlers could not be installed.
pub async fn termination() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
