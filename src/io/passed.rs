//! Listeners that were there before the process: made by whoever started it and passed on (`LISTEN_FDS`, systemd/aobd.socket).
//!
//! What is served are copies. The descriptors themselves stay as they are until the process ends, so that one that begins again in
//! the same process (`exec`) can take them over from itself. Whoever passed them keeps them too: between two nodes connections wait in
//! the kernel, and nobody is refused.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use socket2::{SockRef, Type};

use super::socket::{self, ListenError};

/// One listener for each thread, from those that were passed; where there are none, of its own ([`socket::listen`]). Threads share a
/// listener when there are more of them; more listeners than threads are refused, for the kernel would give connections to all of them.
///
/// # Errors
/// What was passed is not what the node is to listen on; or as for [`socket::listen`].
pub fn or_own(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, ListenError> {
    let unusable = |name: &str, error: std::io::Error| ListenError::Unusable(name.into(), error);
    let numbers = sd_notify::listen_fds_with_names().map_err(|error| unusable("LISTEN_FDS", error))?;
    let mut passed = Vec::with_capacity(numbers.len());
    for (number, name) in numbers {
        let listener = copy(number).and_then(listener).map_err(|error| unusable(&name, error))?;
        let bound = listener.local_addr().map_err(|error| unusable(&name, error))?;
        if bound.ip() != address.ip() || (address.port() != 0 && bound.port() != address.port()) {
            return Err(ListenError::Elsewhere { name, bound, wanted: address });
        }
        passed.push(listener);
    }
    if passed.is_empty() {
        return socket::listen(address, count);
    }
    if passed.len() > count {
        return Err(ListenError::TooMany { passed: passed.len(), cores: count });
    }
    let shared = passed.iter().cycle().take(count).map(TcpListener::try_clone);
    let shared: std::io::Result<Vec<_>> = shared.collect();
    shared.map_err(|error| unusable("a copy", error))
}

/// As the node makes its own.
fn listener(descriptor: OwnedFd) -> std::io::Result<TcpListener> {
    let passed = SockRef::from(&descriptor);
    if passed.r#type()? != Type::STREAM || !passed.is_listener()? {
        return Err(std::io::Error::other("it is no TCP socket that listens"));
    }
    passed.set_tcp_nodelay(true)?;
    passed.set_nonblocking(true)?;
    Ok(descriptor.into())
}

/// Has the program that takes the place of this one find what was passed to this one.
pub fn hand_on() {
    for number in sd_notify::listen_fds().into_iter().flatten() {
        let _ = rustix::io::fcntl_setfd(borrow(number), rustix::io::FdFlags::empty());
    }
}

fn copy(number: RawFd) -> std::io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(borrow(number), 3)?)
}

#[expect(unsafe_code, reason = "a number in the environment is all that says that a descriptor is there")]
fn borrow(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: `sd_notify` has found it open and meant for this process, and nothing here ever closes it.
    unsafe { BorrowedFd::borrow_raw(number) }
}
