//! Listeners and pinning: what the operating system is asked for by hand.

use std::net::{SocketAddr, TcpListener, UdpSocket};
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
    /// What was passed is no listener of ours.
    #[error(
        "{0}, passed by whoever started the node (aobd.socket), cannot be served: {1}; pass listeners for TCP only"
    )]
    Unusable(String, std::io::Error),
    /// What was passed listens where the configuration does not say.
    #[error(
        "{name}, passed by whoever started the node, listens on {bound}, and `listen` is {wanted}; make `listen` and ListenStream= (aobd.socket) the same"
    )]
    Elsewhere {
        /// Its name.
        name: String,
        /// Where it listens.
        bound: SocketAddr,
        /// Where the node is to listen.
        wanted: SocketAddr,
    },
    /// Connections to some of what was passed would never be taken.
    #[error(
        "{passed} listeners were passed by whoever started the node, and it has {cores} control cores; pass no more than that (ListenStream= in aobd.socket), or raise cores.control"
    )]
    TooMany {
        /// How many.
        passed: usize,
        /// How many there may be.
        cores: usize,
    },
}

/// One listener for each thread, all on one port (`SO_REUSEPORT`): the kernel spreads connections over them.
///
/// The first listens without `SO_REUSEPORT` and gets it afterwards, because with it a second process of the same user
/// would share the port without anyone noticing. The port is ours from then on: who comes later has no `SO_REUSEPORT`
/// yet and is refused, when it binds or when it listens. (Bound is not enough: with `SO_REUSEADDR` two may be.)
///
/// # Errors
/// The address is taken or not ours.
pub fn listen(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::Taken(address),
        _ => ListenError::Other(address, error),
    };
    let first = socket(address, false).map_err(failed)?;
    first.bind(&address.into()).map_err(failed)?;
    first.listen(BACKLOG).map_err(failed)?;
    first.set_reuse_port(true).map_err(failed)?;
    let bound = first.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(address);
    let mut listeners = Vec::with_capacity(count);
    listeners.push(first.into());
    for _ in 1..count {
        let socket = socket(bound, true).map_err(failed)?;
        socket.bind(&bound.into()).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

/// Bytes that the kernel keeps of datagrams, each way, before a core has read or the network has taken them. It may allow less.
const DATAGRAM_BUFFER_BYTES: usize = 2 << 20;

/// As [`listen`], one socket for datagrams for each thread.
///
/// # Errors
/// The address is taken or not ours.
pub fn listen_for_datagrams(address: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, ListenError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::Taken(address),
        _ => ListenError::Other(address, error),
    };
    let first = datagrams(address, false).map_err(failed)?;
    // Bound for itself alone, and shared afterwards: as for `listen`.
    first.set_reuse_port(true).map_err(failed)?;
    let bound = first.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(address);
    let mut sockets = Vec::with_capacity(count);
    sockets.push(first.into());
    for _ in 1..count {
        sockets.push(datagrams(bound, true).map_err(failed)?.into());
    }
    Ok(sockets)
}

fn datagrams(address: SocketAddr, share_port: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_reuse_port(share_port)?;
    if address.is_ipv6() {
        // `[::]` is both.
        socket.set_only_v6(false)?;
    }
    // Beyond the machine's own limit (net.core.rmem_max) who may (CAP_NET_ADMIN), else up to it: fewer then wait, more are lost.
    let buffered = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, DATAGRAM_BUFFER_BYTES);
    let _ = buffered.or_else(|_| socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES).map_err(|_| ()));
    let buffered = rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, DATAGRAM_BUFFER_BYTES);
    let _ = buffered.or_else(|_| socket.set_send_buffer_size(DATAGRAM_BUFFER_BYTES).map_err(|_| ()));
    socket.bind(&address.into())?;
    Ok(socket)
}

fn socket(address: SocketAddr, share_port: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    // Accepted sockets inherit it: a reply is one write, so waiting for more is only delay.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The cores this process was allowed when it started: those of its main thread, whichever thread asks first.
pub fn allowed_cores() -> &'static [usize] {
    static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();
    ALLOWED.get_or_init(|| {
        // A process has the number of its main thread.
        let cores = cores_of(Some(rustix::process::getpid()));
        if cores.is_empty() { vec![0] } else { cores }
    })
}

/// The cores a thread may run on; `None` is this one.
fn cores_of(thread: Option<rustix::thread::Pid>) -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(thread).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
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

    #[test]
    fn the_cores_allowed_are_the_process_s_whatever_thread_asks() {
        let last = *allowed_cores().last().unwrap();
        let (own, process) = std::thread::scope(|scope| {
            let pinned = scope.spawn(|| {
                assert!(pin_current_thread(last));
                (cores_of(None), cores_of(Some(rustix::process::getpid())))
            });
            pinned.join().unwrap()
        });
        assert_eq!(own, [last]);
        assert_eq!(process, allowed_cores());
    }

    // F223
    #[test]
    fn listeners_share_a_port_among_themselves_but_with_nobody_else() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert!(matches!(listen(address, 1), Err(ListenError::Taken(taken)) if taken == address));
    }

    // F223 F235
    #[test]
    fn datagrams_are_spread_over_sockets_that_share_a_port_with_nobody_else() {
        let sockets = listen_for_datagrams("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        let other = listen_for_datagrams(address, 1);
        assert!(matches!(other, Err(ListenError::Taken(taken)) if taken == address));
        let clients: Vec<_> = (0..300).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for client in &clients {
            client.send_to(b"x", address).unwrap();
        }
        let came = |socket: &UdpSocket| std::iter::from_fn(|| socket.recv_from(&mut [0; 8]).ok()).count();
        let counts: Vec<_> = sockets.iter().map(came).collect();
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        assert!(counts.iter().all(|count| (50..150).contains(count)), "{counts:?}");
    }

    // F223
    #[test]
    fn connections_are_spread_over_all_listeners() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let clients: Vec<_> = (0..300).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let accepted = |listener: &TcpListener| std::iter::from_fn(|| listener.accept().ok()).count();
        let counts: Vec<_> = listeners.iter().map(accepted).collect();
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        assert!(counts.iter().all(|count| (50..150).contains(count)), "{counts:?}");
    }

    // F223
    #[test]
    fn of_those_who_want_a_port_at_the_same_time_one_gets_it_at_most() {
        for _ in 0..100 {
            let port = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
            let address = port[0].local_addr().unwrap();
            drop(port);
            let start = std::sync::Barrier::new(4);
            let contend = || {
                start.wait();
                listen(address, 2)
            };
            let got = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(contend)).collect();
                // Held until all have tried.
                let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
                results.iter().filter(|result| result.is_ok()).count()
            });
            assert!(got <= 1, "{got} share a port");
        }
    }
}
