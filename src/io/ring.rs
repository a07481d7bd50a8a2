//! glommio: executors of the runner plane. One thread, one core, one ring.
//!
//! What glommio 0.9 does not survive is kept from it (docs/adr/0003): too little `memlock` and too few descriptors are
//! found before the first executor starts; a wake that gets lost is made good by a [`Nudge`] from the watchdog.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::{DRIVER, Driver};

/// Bytes of registered buffers: glommio pins three times as many.
const IO_MEMORY_BYTES: usize = 8 << 20;
/// With little `memlock` registration is skipped by glommio below this.
const IO_MEMORY_SMALL_BYTES: usize = 128 << 10;
const RING_DEPTH: usize = 256;

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

    /// Takes nudges on the executor, for as long as it lives.
    async fn take(&self) {
        let Ok(socket) = glommio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) else { return };
        let Ok(address) = socket.local_addr() else { return };
        let _ = self.executor.set(address);
        let mut byte = [0];
        while socket.recv_from(&mut byte).await.is_ok() {}
    }
}

/// A running executor.
pub struct RingThread(ExecutorJoinHandle<()>, Arc<Nudge>);

impl RingThread {
    /// What wakes it when nothing else does.
    pub fn nudge(&self) -> Arc<Nudge> {
        self.1.clone()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It ended badly.
    pub fn join(self) -> Result<(), String> {
        self.0.join().map_err(|error| error.to_string())
    }
}

/// Starts an executor on its core and runs `main` on it until that ends.
///
/// # Errors
/// The thread, its pinning or its ring was refused.
pub fn run<F, G>(config: &RingConfig, main: G) -> Result<RingThread, RingError>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let memory = if config.small_memory { IO_MEMORY_SMALL_BYTES } else { IO_MEMORY_BYTES };
    let nudge = Arc::new(Nudge::new().map_err(|error| refused(config, &error))?);
    let taken = nudge.clone();
    LocalExecutorBuilder::new(Placement::Fixed(config.core))
        .name(&config.name)
        .ring_depth(RING_DEPTH)
        .io_memory(memory)
        .preempt_timer(config.preempt)
        .spin_before_park(config.spin)
        .blocking_thread_pool_placement(PoolPlacement::Fenced(
            1,
            glommio::CpuSet::online()
                .map(|cores| cores.filter(|core| core.cpu == config.core))
                .map_err(|error| refused(config, &error))?,
        ))
        .spawn(move || async move {
            DRIVER.set(Driver::Ring);
            glommio::spawn_local(async move { taken.take().await }).detach();
            main().await;
        })
        .map(|thread| RingThread(thread, nudge))
        .map_err(|error| refused(config, &error))
}

fn refused(config: &RingConfig, error: &dyn std::fmt::Display) -> RingError {
    RingError { name: config.name.clone(), core: config.core, cause: error.to_string() }
}

/// Makes a ring and lets it go.
///
/// # Errors
/// Why the system refuses it, in words.
pub fn probe() -> Result<(), String> {
    let made = LocalExecutorBuilder::new(Placement::Unbound)
        .name("aob-probe")
        .ring_depth(8)
        .io_memory(IO_MEMORY_SMALL_BYTES)
        .spawn(|| async {})
        .map_err(|error| error.to_string())?;
    made.join().map_err(|error| error.to_string())
}
