//! What is checked before anything starts. Each check that fails is one clear line and an exit code.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::DriverChoice;
use crate::io::Driver;

/// Descriptors a node wants at least: sockets, segments, the index.
const DESCRIPTORS_MIN: u64 = 512;
/// Locked memory glommio wants for one executor.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Below this registered buffers are kept small.
const MEMLOCK_BYTES_USUAL: u64 = 64 << 20;

/// Why the node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// `ulimit -n`
    #[error(
        "only {hard} file descriptors are allowed, {DESCRIPTORS_MIN} are needed; raise `ulimit -n` (LimitNOFILE=)"
    )]
    Descriptors {
        /// The hard limit.
        hard: u64,
    },
    /// `ulimit -l`
    #[error(
        "memlock is {bytes} bytes, a ring needs {MEMLOCK_BYTES_MIN} (512 KiB); raise `ulimit -l` (LimitMEMLOCK=), or set runner.driver = \"tokio\""
    )]
    Memlock {
        /// The hard limit.
        bytes: u64,
    },
    /// io_uring is asked for and refused.
    #[error("io_uring is refused by this system ({cause}); set runner.driver = \"auto\" or \"tokio\"")]
    NoRing {
        /// The system's words.
        cause: String,
    },
}

/// What the machine allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// What the runner plane runs on.
    pub driver: Driver,
    /// Registered buffers are kept small.
    pub small_memory: bool,
}

/// Checks the machine. A warning, when there is one, is one line.
///
/// # Errors
/// Something is too small, or refused.
pub fn check(choice: DriverChoice) -> Result<(Allowed, Option<String>), StartupError> {
    raise(Resource::Nofile);
    raise(Resource::Memlock);
    let descriptors = soft(Resource::Nofile);
    if descriptors < DESCRIPTORS_MIN {
        return Err(StartupError::Descriptors { hard: descriptors });
    }
    let plain = Allowed { driver: Driver::Tokio, small_memory: false };
    if choice == DriverChoice::Tokio {
        return Ok((plain, Some(without_ring("runner.driver = \"tokio\""))));
    }
    let memlock = soft(Resource::Memlock);
    let ring = Allowed { driver: Driver::Ring, small_memory: memlock < MEMLOCK_BYTES_USUAL };
    let problem = if memlock < MEMLOCK_BYTES_MIN {
        Some(StartupError::Memlock { bytes: memlock })
    } else {
        probe_ring().err().map(|cause| StartupError::NoRing { cause })
    };
    match (problem, choice) {
        (None, _) => Ok((ring, None)),
        (Some(problem), DriverChoice::Ring) => Err(problem),
        (Some(problem), _) => Ok((plain, Some(without_ring(&reason(&problem))))),
    }
}

fn reason(problem: &StartupError) -> String {
    match problem {
        StartupError::Memlock { bytes } => {
            format!("memlock is {bytes} bytes, a ring needs {MEMLOCK_BYTES_MIN}")
        }
        StartupError::NoRing { cause } => format!("refused by this system: {cause}"),
        StartupError::Descriptors { .. } => problem.to_string(),
    }
}

fn without_ring(reason: &str) -> String {
    format!("the journal runs on plain files, without io_uring ({reason}); it works the same, slower")
}

/// The soft limit goes up to the hard one.
fn raise(resource: Resource) {
    let limit = getrlimit(resource);
    if limit.current != limit.maximum {
        let _ = setrlimit(resource, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn soft(resource: Resource) -> u64 {
    getrlimit(resource).current.unwrap_or(u64::MAX)
}

/// Tries to have a small executor: the kernel, a seccomp filter or a sysctl may refuse rings.
fn probe_ring() -> Result<(), String> {
    if let Ok(text) = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
        && text.trim() == "2"
    {
        return Err(String::from("kernel.io_uring_disabled = 2"));
    }
    crate::io::ring::probe()
}
