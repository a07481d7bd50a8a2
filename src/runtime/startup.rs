//! What is checked before anything starts. Each check that fails is one clear line and an exit code.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::DriverChoice;
use crate::io::Driver;
use crate::io::ring::{self, Refused};

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
/// Where rings are refused the node runs without. Where they are allowed but may not lock enough memory it does not
/// start unless told to run without: that is a slip in the set-up, and nobody reads a warning (RELIABILITY A9).
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
    match (ring_problem(memlock), choice) {
        (None, _) => {
            let small_memory = memlock < MEMLOCK_BYTES_USUAL;
            Ok((Allowed { driver: Driver::Ring, small_memory }, None))
        }
        (Some(StartupError::NoRing { cause }), DriverChoice::Auto) => {
            Ok((plain, Some(without_ring(&format!("refused by this system: {cause}")))))
        }
        (Some(problem), _) => Err(problem),
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

/// Why there are no rings. The kernel is asked first: where it has none, `memlock` does not matter.
fn ring_problem(memlock: u64) -> Option<StartupError> {
    let small = memlock < MEMLOCK_BYTES_MIN;
    let refused = match ring::ask_kernel() {
        Ok(()) | Err(Refused::Memory) if small => return Some(StartupError::Memlock { bytes: memlock }),
        Ok(()) => ring::probe().err()?,
        Err(refused) => refused,
    };
    Some(StartupError::NoRing { cause: format!("{refused}{}", sysctl()) })
}

/// The administrator's own refusal, for people who look for it.
fn sysctl() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        Ok(text) if text.trim() != "0" => format!(", kernel.io_uring_disabled = {}", text.trim()),
        _ => String::new(),
    }
}
