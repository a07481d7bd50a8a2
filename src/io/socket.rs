//! Listeners and pinning: what the operating system is asked for by hand.

use std::net::{SocketAddr, TcpListener};
use std::sync::OnceLock;

use rustix::thread::CpuSet;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait in the kernel for `accept`.
const BACKLOG: i32 = 4_096;

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("{0} is taken by another process; choose another address with --listen")]
    Taken(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, std::io::Error),
}

/// One listener for each thread, all on one port (`SO_REUSEPORT`): the kernel spreads connections over them.
///
/// The first is bound without `SO_REUSEPORT` for a moment, because with it a second process of the same user would
/// share the port without anyone noticing.
///
/// # Errors
/// The address is taken or not ours.
pub fn listen(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::Taken(address),
        _ => ListenError::Other(address, error),
    };
    let probe = socket(address, false).map_err(failed)?;
    probe.bind(&address.into()).map_err(failed)?;
    let bound = probe.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(address);
    drop(probe);
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        let socket = socket(bound, true).map_err(failed)?;
        socket.bind(&bound.into()).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

fn socket(address: SocketAddr, share_port: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    // Accepted sockets inherit it: a reply is one write, so waiting for more is only delay.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The cores this process was allowed when it started.
pub fn allowed_cores() -> &'static [usize] {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
        let cores: Vec<_> = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect();
        if cores.is_empty() { vec![0] } else { cores }
    })
}

/// Pins this thread. core_affinity ignores the cpuset, so the plan has looked at it before. False when it is refused.
pub fn pin_current_thread(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// Lets this thread run on every core the process was given.
///
/// # Errors
/// The operating system's.
pub fn unpin_current_thread() -> std::io::Result<()> {
    let mut set = CpuSet::new();
    for core in allowed_cores() {
        set.set(*core);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // F223
    #[test]
    fn listeners_share_a_port_among_themselves_but_with_nobody_else() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert!(matches!(listen(address, 1), Err(ListenError::Taken(taken)) if taken == address));
    }
}
