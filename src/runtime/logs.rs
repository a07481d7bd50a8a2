//! The thread that writes log lines: whoever has something to say must not wait for standard error.
//!
//! Lines come by a queue of [`limits::LOG_QUEUE_LINES_MAX`]; when it is full they are left out and counted
//! (`telemetry::log`). It ends when told to and everything is written.

use std::future::poll_fn;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use super::thread::{Plane, SpawnError, Threads};
use crate::io::net::within;
use crate::limits;
use crate::queue::{FullPolicy, Receiver, Sender, bounded};
use crate::telemetry::log;

/// How long lines that were left out stay unsaid when their target says nothing more.
const QUIET: Duration = Duration::from_secs(1);

/// Ends the thread.
pub(super) struct Logs {
    stop: Arc<AtomicBool>,
    queue: Sender<String>,
}

/// Starts it; from then on lines go there.
pub(super) fn start(threads: &mut Threads) -> Result<Logs, SpawnError> {
    let (queue, lines) = bounded("log", limits::LOG_QUEUE_LINES_MAX, FullPolicy::RefuseCaller);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    threads.spawn(Plane::Side, "aob-log", None, move || write(lines, stopped))?;
    log::attach(Some(queue.clone()));
    Ok(Logs { stop, queue })
}

impl Logs {
    /// Tells it to write what is there and end. What is said later is written at once.
    pub(super) fn stop(&self) {
        log::attach(None);
        self.stop.store(true, Ordering::Release);
        self.queue.wake();
    }
}

async fn write(mut lines: Receiver<String>, stop: Arc<AtomicBool>) {
    let mut bytes = Vec::new();
    loop {
        let more = poll_fn(|context| match lines.poll_ready(context) {
            Poll::Pending if stop.load(Ordering::Acquire) => Poll::Ready(()),
            other => other,
        });
        if within(QUIET, more).await.is_none() {
            log::tell_left_out();
        }
        let stopping = stop.load(Ordering::Acquire);
        while let Some(line) = lines.try_recv() {
            bytes.extend_from_slice(line.as_bytes());
        }
        // Nobody can be told that standard error is closed.
        let _ = std::io::stderr().write_all(&bytes);
        bytes.clear();
        if stopping {
            log::tell_left_out();
            return;
        }
    }
}
