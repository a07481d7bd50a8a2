//! Threads: named, pinned, listed; one that ends badly ends the process.
//!
//! A node with a dead core behind a healthy `/readyz` is worse than none: recovery is cheap, so a thread that panics or
//! fails takes the process down, with its name, within the second.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::io::ring::{RingConfig, RingThread};
use crate::io::{Driver, socket};
use crate::queue::{FullPolicy, Receiver, Sender, bounded};
use crate::telemetry::Cell;
use crate::telemetry::log::{self, Target};

/// Which part of the node a thread belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    /// Sockets, parsing, validation.
    Control,
    /// Shards.
    Runner,
    /// Streams.
    Fanout,
    /// What is on no token's path: the index, the watchdog.
    Side,
}

impl Plane {
    /// As in `/v1/node`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Runner => "runner",
            Self::Fanout => "fanout",
            Self::Side => "side",
        }
    }
}

/// A thread as others see it.
#[derive(Clone, Debug)]
pub struct ThreadInfo {
    /// As the operating system shows it (15 bytes).
    pub name: String,
    /// What it belongs to.
    pub plane: Plane,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// What it runs.
    pub driver: Driver,
    /// Moves every [`PULSE`] while it is not blocked, where it serves connections; shards have their own.
    pub pulse: Option<Arc<Cell>>,
}

/// How a thread ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub name: String,
    /// `Err` says what went wrong.
    pub result: Result<(), String>,
}

impl Ended {
    /// What is said when the node ends with it.
    pub fn problem(self) -> String {
        let problem = self.result.err().unwrap_or_else(|| String::from("it ended by itself"));
        format!("thread {}: {problem}; the node ends with it", self.name)
    }
}

/// All threads of the node.
pub struct Threads {
    infos: Arc<ArcSwap<Vec<ThreadInfo>>>,
    ended: Sender<Ended>,
    ends: Receiver<Ended>,
    running: Vec<String>,
}

/// Between two beats of a thread's pulse.
const PULSE: Duration = Duration::from_secs(1);

/// Threads of one node at most.
const THREADS_MAX: usize = 1_024;

impl Default for Threads {
    fn default() -> Self {
        let (ended, ends) = bounded("thread ends", THREADS_MAX, FullPolicy::Reserved);
        Self { infos: Arc::default(), ended, ends, running: Vec::new() }
    }
}

/// The thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("thread {name} does not start: {cause}")]
pub struct SpawnError {
    name: String,
    cause: String,
}

/// Reports the end of a thread, also when it panics.
struct EndGuard {
    name: String,
    ended: Sender<Ended>,
    result: Result<(), String>,
}

impl EndGuard {
    fn end(mut self, result: Result<(), String>) {
        self.result = result;
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        let _ = self.ended.send(Ended { name: std::mem::take(&mut self.name), result });
    }
}

thread_local! {
    /// The guard of a thread with a ring. It belongs to the thread and not to what runs on it: an executor that unwinds
    /// because of one task may leak another that waits, with all that it holds.
    static RING_GUARD: RefCell<Option<EndGuard>> = const { RefCell::new(None) };
}

impl Threads {
    /// What `/v1/node` lists.
    pub fn infos(&self) -> Arc<ArcSwap<Vec<ThreadInfo>>> {
        self.infos.clone()
    }

    /// Starts a thread that runs `main` on a tokio runtime of its own, pinned to `core` or free. It is where it belongs when
    /// this returns.
    ///
    /// # Errors
    /// The operating system refuses the thread, or its core.
    pub fn spawn<F, G>(
        &mut self,
        plane: Plane,
        name: &str,
        core: Option<usize>,
        main: G,
    ) -> Result<(), SpawnError>
    where
        G: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let pulse = matches!(plane, Plane::Control | Plane::Fanout).then(Arc::<Cell>::default);
        let info =
            ThreadInfo { name: name.to_owned(), plane, core, driver: Driver::Tokio, pulse: pulse.clone() };
        let guard = self.guard(name);
        let (placed, place) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            let pinned = pin(core);
            let _ = placed.send(pinned.clone());
            let main = async {
                if let Some(pulse) = pulse {
                    crate::io::spawn_local(beat(pulse));
                }
                main().await;
            };
            guard
                .end(pinned.and_then(|()| crate::io::net::block_on(main).map_err(|error| error.to_string())));
        };
        let refused = |cause| SpawnError { name: name.to_owned(), cause };
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        spawned.map_err(|error| refused(error.to_string()))?;
        place.recv().unwrap_or_else(|_| Err(String::from("it ended at once"))).map_err(refused)?;
        self.started(info);
        Ok(())
    }

    /// Starts a thread that runs `main` on a ring of its own.
    ///
    /// # Errors
    /// The ring is refused.
    pub fn spawn_ring<F, G>(
        &mut self,
        config: &RingConfig,
        main: G,
    ) -> Result<RingThread, crate::io::ring::RingError>
    where
        G: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let guard = self.guard(&config.name);
        let thread = crate::io::ring::run(config, move || async move {
            RING_GUARD.set(Some(guard));
            main().await;
            if let Some(guard) = RING_GUARD.take() {
                guard.end(Ok(()));
            }
        })?;
        if !thread.is_pinned() {
            let RingConfig { name, core, .. } = config;
            log::warn(
                Target::Node,
                format_args!("{name} runs unpinned: /sys does not list core {core} as online"),
            );
        }
        let core = thread.is_pinned().then_some(config.core);
        self.started(ThreadInfo {
            name: config.name.clone(),
            plane: Plane::Runner,
            core,
            driver: Driver::Ring,
            pulse: None,
        });
        Ok(thread)
    }

    fn guard(&self, name: &str) -> EndGuard {
        let result = Err(String::from("it panicked"));
        EndGuard { name: name.to_owned(), ended: self.ended.clone(), result }
    }

    fn started(&mut self, info: ThreadInfo) {
        self.running.push(info.name.clone());
        let mut infos = self.infos.load().as_ref().clone();
        infos.push(info);
        self.infos.store(Arc::new(infos));
    }

    /// The next thread that ends.
    pub async fn next_end(&mut self) -> Ended {
        let ended = self.ends.recv().await;
        self.running.retain(|name| *name != ended.name);
        ended
    }

    /// Waits until all whose names begin with `prefix` have ended.
    ///
    /// # Errors
    /// Names of those that had not after `limit`, or what went wrong in one.
    pub async fn join(&mut self, prefix: &str, limit: Duration) -> Result<(), String> {
        let all = async {
            while self.running.iter().any(|name| name.starts_with(prefix)) {
                let ended = self.next_end().await;
                ended.result.map_err(|problem| format!("thread {}: {problem}", ended.name))?;
            }
            Ok(())
        };
        match crate::io::net::within(limit, all).await {
            Some(result) => result,
            None => Err(format!("still running after {} s: {}", limit.as_secs(), self.running.join(", "))),
        }
    }
}

/// Shows that a thread is not blocked.
async fn beat(pulse: Arc<Cell>) {
    loop {
        pulse.increment();
        crate::io::sleep(PULSE).await;
    }
}

fn pin(core: Option<usize>) -> Result<(), String> {
    match core {
        None => socket::unpin_current_thread().map_err(|error| error.to_string()),
        Some(id) if socket::pin_current_thread(id) => Ok(()),
        Some(id) => Err(format!("cannot be pinned to core {id}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(mut threads: Threads) -> Result<(), String> {
        let mut result = Ok(());
        crate::io::net::block_on(async { result = threads.join("", Duration::from_secs(20)).await }).unwrap();
        result
    }

    fn outcome(main: fn()) -> Result<(), String> {
        let mut threads = Threads::default();
        threads.spawn(Plane::Side, "test", None, move || async move { main() }).unwrap();
        joined(threads)
    }

    /// Waits for what a task would do that panics instead. Whoever is to wake it up is its own, as the journal is the
    /// shard's: nothing but its thread's end takes it down.
    async fn wait_for_a_task_that_panics() {
        crate::io::spawn_local(async {
            crate::io::yield_now().await;
            panic!("on purpose");
        });
        let waker = std::rc::Rc::new(RefCell::new(None));
        std::future::poll_fn(|context| {
            *waker.borrow_mut() = Some(context.waker().clone());
            std::task::Poll::Pending
        })
        .await
    }

    #[test]
    fn a_thread_that_panics_is_reported_by_name() {
        assert_eq!(outcome(|| {}), Ok(()));
        let error = outcome(|| panic!("on purpose")).unwrap_err();
        assert!(error.contains("test") && error.contains("panicked"), "{error}");
    }

    // RELIABILITY A5
    #[test]
    fn a_thread_that_panics_does_not_wait_for_what_it_had_given_away() {
        let (go_on, stands) = std::sync::mpsc::channel::<()>();
        let mut threads = Threads::default();
        let main = move || async move {
            let (began, begun) = tokio::sync::oneshot::channel();
            let stood = tokio::task::spawn_blocking(move || {
                let _ = began.send(());
                // As a read of a disk that stands still.
                stands.recv_timeout(Duration::from_secs(60)).is_err()
            });
            begun.await.unwrap();
            assert!(stood.is_finished(), "on purpose");
        };
        threads.spawn(Plane::Side, "test", None, main).unwrap();
        let error = joined(threads).unwrap_err();
        assert!(error.contains("panicked"), "{error}");
        drop(go_on);
    }

    // F001
    #[test]
    fn a_thread_is_on_its_core_when_it_is_said_to_run() {
        let core = socket::allowed_cores()[0];
        for number in 0..20 {
            let name = format!("aob-placed-{number}");
            let mut threads = Threads::default();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            threads.spawn(Plane::Side, &name, Some(core), || async move { drop(stopped.await) }).unwrap();
            let own = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
            let placed = own
                .filter_map(|task| std::fs::read_to_string(task.join("status")).ok())
                .filter(|status| status.starts_with(&format!("Name:\t{name}\n")));
            let on: Vec<_> = placed
                .filter_map(|status| {
                    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"))?;
                    Some(line.to_owned())
                })
                .collect();
            assert_eq!(on, [core.to_string()]);
            drop(stop);
            joined(threads).unwrap();
        }
    }

    // RELIABILITY A5
    #[test]
    fn a_task_that_panics_ends_its_thread_on_either_driver() {
        let mut threads = Threads::default();
        threads.spawn(Plane::Side, "test", None, wait_for_a_task_that_panics).unwrap();
        let error = joined(threads).unwrap_err();
        assert!(error.contains("test") && error.contains("panicked"), "{error}");
        if crate::io::ring::probe().is_err() {
            return;
        }
        let mut threads = Threads::default();
        let config = RingConfig {
            name: String::from("test-ring"),
            core: socket::allowed_cores()[0],
            preempt: Duration::from_micros(500),
            spin: Duration::ZERO,
            small_memory: true,
        };
        let ring = threads.spawn_ring(&config, wait_for_a_task_that_panics).unwrap();
        let error = joined(threads).unwrap_err();
        assert!(error.contains("test-ring") && error.contains("panicked"), "{error}");
        drop(ring);
    }
}
