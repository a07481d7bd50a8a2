//! glommio: executors of the runner plane. One thread, one core, one ring.
//!
//! What glommio 0.9 does not survive is kept from it (docs/adr/0003): too little `memlock`, too few descriptors and a
//! system without io_uring are found before the first executor starts; a wake that gets lost is made good by a [`Nudge`]
//! from the watchdog; an executor that sleeps through its start is replaced ([`begin`]).

mod begin;
mod probe;

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use self::begin::{Claim, Main};
use super::{DRIVER, Driver};

pub use self::probe::Refused;

/// How long an executor has to begin before another is started in its place. To begin too late does no harm.
const BEGIN_WITHIN: Duration = Duration::from_millis(500);

/// Bytes of registered buffers: glommio pins three times as many.
const IO_MEMORY_BYTES: usize = 8 << 20;
/// With little `memlock` registration is skipped by glommio below this.
const IO_MEMORY_SMALL_BYTES: usize = 128 << 10;
const RING_DEPTH: usize = 256;
/// Nudges that may be lost one after the other.
const READS: usize = 8;

/// What an executor is told.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Name of the thread.
    pub name: String,
    /// The core it is pinned to.
    pub core: usize,
    /// After how long a busy task makes room for completions.
    pub preempt: Duration,
    /// How long it looks for work before it parks.
    pub spin: Duration,
    /// `memlock` is too small for the usual buffers.
    pub small_memory: bool,
}

/// The executor did not start.
#[derive(Debug, thiserror::Error)]
#[error("the ring of {name} on core {core} did not start: {cause}")]
pub struct RingError {
    name: String,
    core: usize,
    cause: String,
}

/// Wakes an executor from another thread, whatever state its tasks are in.
///
/// A waker is not enough: once a task is scheduled, waking it again does nothing, and an executor that has parked with a
/// scheduled task sleeps on. A datagram completes a read on the ring itself, and that always ends the sleep.
#[derive(Debug)]
pub struct Nudge {
    socket: std::net::UdpSocket,
    executor: OnceLock<SocketAddr>,
}

impl Nudge {
    fn new() -> std::io::Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, executor: OnceLock::new() })
    }

    /// Wakes the executor. Nothing happens before it has started.
    pub fn give(&self) {
        if let Some(executor) = self.executor.get() {
            // A full socket buffer means that a nudge is on its way already.
            let _ = self.socket.send_to(&[0], executor);
        }
    }

    /// On the executor: reads that wait for nudges, each for as long as it lives. When this returns all are on the ring.
    ///
    /// More than one, because the executor can go back to sleep before the task that a nudge has woken has run, and then that
    /// read is used up. When it does run, all do, and are on the ring again.
    async fn reads(&self) -> Vec<Pin<Box<dyn Future<Output = ()>>>> {
        let Ok(socket) = glommio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { return Vec::new() };
        let Ok(address) = socket.local_addr() else { return Vec::new() };
        let socket = Rc::new(socket);
        let read = |socket: Rc<glommio::net::UdpSocket>| async move {
            let mut byte = [0];
            while socket.recv_from(&mut byte).await.is_ok() {}
        };
        let mut reads: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::with_capacity(READS);
        for _ in 0..READS {
            reads.push(Box::pin(read(socket.clone())));
        }
        poll_fn(|context| {
            reads.retain_mut(|read| read.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        let _ = self.executor.set(address);
        reads
    }
}

/// A running executor.
pub struct RingThread {
    thread: ExecutorJoinHandle<()>,
    nudge: Arc<Nudge>,
    pinned: bool,
}

impl RingThread {
    /// What wakes it when nothing else does.
    pub fn nudge(&self) -> Arc<Nudge> {
        self.nudge.clone()
    }

    /// Does it run on its core alone? Not when the system does not list that core as online.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It ended badly.
    pub fn join(self) -> Result<(), String> {
        self.thread.join().map_err(|error| error.to_string())
    }
}

/// Starts an executor on its core and runs `main` on it until that ends. When this returns `main` has begun.
///
/// # Errors
/// The thread, its pinning or its ring was refused.
pub fn run<F, G>(config: &RingConfig, main: G) -> Result<RingThread, RingError>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    // glommio looks the core up in /sys and panics when it cannot; so it is looked up here first.
    let online = glommio::CpuSet::online().map_err(|error| refused(config, &error))?;
    let own = online.filter(|core| core.cpu == config.core);
    let core = if own.is_empty() { None } else { Some((config.core, own)) };
    Main::new(main).begin(
        BEGIN_WITHIN,
        |claim| start(config, core.clone(), claim),
        |ended| match ended.map(RingThread::join) {
            Some(Err(cause)) => refused(config, &cause),
            Some(Ok(())) => refused(config, &"it ended at once"),
            None => refused(config, &"it does not run what it is given"),
        },
    )
}

/// Starts one executor, which runs what it can claim.
fn start<F, G>(
    config: &RingConfig,
    core: Option<(usize, glommio::CpuSet)>,
    claim: Claim<G>,
) -> Result<RingThread, RingError>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let memory = if config.small_memory { IO_MEMORY_SMALL_BYTES } else { IO_MEMORY_BYTES };
    let nudge = Arc::new(Nudge::new().map_err(|error| refused(config, &error))?);
    let (taken, pinned) = (nudge.clone(), core.is_some());
    let (placement, pool) = match core {
        Some((core, own)) => (Placement::Fixed(core), PoolPlacement::Fenced(1, own)),
        None => (Placement::Unbound, PoolPlacement::Unbound(1)),
    };
    LocalExecutorBuilder::new(placement)
        .name(&config.name)
        .ring_depth(RING_DEPTH)
        .io_memory(memory)
        .preempt_timer(config.preempt)
        .spin_before_park(config.spin)
        .blocking_thread_pool_placement(pool)
        .spawn(move || async move {
            DRIVER.set(Driver::Ring);
            // First of all: an executor that parks before it can be nudged may sleep for good. Until `main` is claimed another one
            // takes its place.
            let reads = taken.reads().await;
            let Some(main) = claim.take() else { return };
            for read in reads {
                glommio::spawn_local(read).detach();
            }
            main().await;
        })
        .map(|thread| RingThread { thread, nudge, pinned })
        .map_err(|error| refused(config, &error))
}

fn refused(config: &RingConfig, error: &dyn std::fmt::Display) -> RingError {
    RingError { name: config.name.clone(), core: config.core, cause: error.to_string() }
}

/// Finds out whether the kernel lets this process have rings that can do what an executor needs.
///
/// # Errors
/// Why not.
pub fn ask_kernel() -> Result<(), Refused> {
    probe::system_calls()
}

/// Finds out whether executors can be had, without a panic when they cannot.
///
/// # Errors
/// Why not.
pub fn probe() -> Result<(), Refused> {
    ask_kernel()?;
    let words = |error: &dyn std::fmt::Display| Refused::Executor(error.to_string());
    glommio::CpuSet::online()
        .map_err(|error| words(&format_args!("/sys does not list the cores: {error}")))?;
    let made = LocalExecutorBuilder::new(Placement::Unbound)
        .name("aob-probe")
        .ring_depth(8)
        .io_memory(IO_MEMORY_SMALL_BYTES)
        .spawn(|| async {})
        .map_err(|error| words(&error))?;
    made.join().map_err(|error| words(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_is_not_online_leaves_the_executor_unpinned_and_working() {
        if probe().is_err() {
            return;
        }
        let config = RingConfig {
            name: String::from("aob-test"),
            core: 100_000,
            preempt: Duration::from_micros(500),
            spin: Duration::ZERO,
            small_memory: true,
        };
        let (ran, runs) = std::sync::mpsc::channel();
        let ring = run(&config, move || async move { ran.send(super::super::driver()).unwrap() }).unwrap();
        assert!(!ring.is_pinned());
        assert_eq!(runs.recv(), Ok(Driver::Ring));
        ring.join().unwrap();
    }

    // RELIABILITY D4
    #[test]
    fn very_short_sleeps_end_on_either_driver() {
        async fn sleeps() {
            for nanos in [0, 1, 999, 1_000, 50_000] {
                for _ in 0..50 {
                    crate::io::sleep(Duration::from_nanos(nanos)).await;
                }
            }
        }
        crate::io::net::block_on(sleeps()).unwrap();
        if probe().is_err() {
            return;
        }
        let config = RingConfig {
            name: String::from("aob-test"),
            core: crate::io::socket::allowed_cores()[0],
            preempt: Duration::from_micros(500),
            spin: Duration::ZERO,
            small_memory: true,
        };
        let (slept, end) = std::sync::mpsc::channel();
        let main = move || async move {
            sleeps().await;
            slept.send(()).unwrap();
        };
        let ring = run(&config, main).unwrap();
        // As the watchdog does it.
        let ended = (0..2_000).any(|_| {
            ring.nudge().give();
            end.recv_timeout(Duration::from_millis(10)).is_ok()
        });
        assert!(ended, "a sleep that does not end");
        ring.join().unwrap();
    }

    // ADR 3: found by starting nodes on a busy machine; one in some hundreds never said that it was ready.
    #[test]
    fn an_executor_can_be_nudged_before_it_does_anything_else() {
        if probe().is_err() {
            return;
        }
        let nudge = Nudge::new().unwrap();
        let made = LocalExecutorBuilder::new(Placement::Unbound)
            .ring_depth(64)
            .io_memory(IO_MEMORY_SMALL_BYTES)
            .make()
            .unwrap();
        made.run(async {
            let reads = nudge.reads().await;
            assert_eq!((reads.len(), nudge.executor.get().is_some()), (READS, true));
        });
    }
}
