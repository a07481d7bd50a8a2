//! tokio: pinned current_thread cores of the control and fanout planes, and of a runner plane without io_uring.
//!
//! A task of [`spawn_local`](super::spawn_local) that panics ends its thread, as it does on a ring: others wait for what
//! it would have done, and a thread that waits for ever looks healthy from outside.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::{Poll, Waker};

use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

/// Threads that this core may keep for blocking work (reads of history, the registry).
const BLOCKING_THREADS_MAX: usize = 4;

/// What a task leaves behind that panicked, and how the thread's main future hears of it.
#[derive(Default)]
struct Failure {
    panic: Option<Box<dyn Any + Send>>,
    main: Option<Waker>,
}

thread_local! {
    static FAILURE: RefCell<Failure> = RefCell::default();
}

/// Runs `main` on a current_thread runtime on this thread until it ends.
///
/// # Errors
/// The runtime could not be made.
///
/// # Panics
/// When a task of this thread does.
pub fn block_on<F: Future<Output = ()>>(main: F) -> std::io::Result<()> {
    let runtime = Abandoned(Some(runtime()?));
    FAILURE.take();
    if let Abandoned(Some(runtime)) = &runtime {
        LocalSet::new().block_on(runtime, or_panic(main));
    }
    Ok(())
}

/// A runtime that is left without waiting for the blocking work it has under way, also by a panic: a disk that stands still
/// must not keep a dead thread.
struct Abandoned(Option<Runtime>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// `main`, or the panic of a task beside it.
async fn or_panic(main: impl Future<Output = ()>) {
    let mut main = pin!(main);
    poll_fn(|context| {
        let panic = FAILURE.with_borrow_mut(|failure| {
            failure.main = Some(context.waker().clone());
            failure.panic.take()
        });
        match panic {
            Some(panic) => resume_unwind(panic),
            None => main.as_mut().poll(context),
        }
    })
    .await;
}

/// `task`; its panic is handed to the thread's main future.
pub(super) async fn reporting(task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    poll_fn(|context| {
        // Nobody looks at the task again after its panic.
        catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))).unwrap_or_else(|panic| {
            let main = FAILURE.with_borrow_mut(|failure| {
                failure.panic.get_or_insert(panic);
                failure.main.take()
            });
            if let Some(main) = main {
                main.wake();
            }
            Poll::Ready(())
        })
    })
    .await;
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

/// Orders to end, SIGTERM and SIGINT, as they come. From the first one of these on, they do not end the process.
#[derive(Debug)]
pub struct Terminations {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Terminations {
    /// Listens from now on; on a tokio runtime.
    ///
    /// # Errors
    /// The handlers could not be installed.
    pub fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGUSR1s as they come. From the first one of these on, a SIGUSR1 does not end the process.
#[derive(Debug)]
pub struct Handovers(tokio::signal::unix::Signal);

impl Handovers {
    /// Listens from now on; on a tokio runtime.
    ///
    /// # Errors
    /// The handler could not be installed.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// SIGHUPs as they come. From the first one of these on, a SIGHUP does not end the process.
#[derive(Debug)]
pub struct Hangups(tokio::signal::unix::Signal);

impl Hangups {
    /// Listens from now on; on a tokio runtime.
    ///
    /// # Errors
    /// The handler could not be installed.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}
