//! Is io_uring to be had, and all of it that glommio needs?
//!
//! glommio is not asked: where a ring is refused it panics, and where the kernel is too old it ends the process. So the
//! three system calls are tried by hand first, each of which a seccomp filter may deny, and the operations are read from
//! the kernel. Nothing is left behind.

use rustix::io::Errno;
use rustix::io_uring::{
    IoringEnterFlags, IoringOp, IoringOpFlags, IoringRegisterOp, io_uring_enter, io_uring_params,
    io_uring_register, io_uring_setup,
};

/// Why there is no ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `memlock` has no room for the smallest ring (before Linux 5.12).
    #[error("io_uring_setup: no memory may be locked")]
    Memory,
    /// Said by the kernel, a seccomp filter or a sysctl.
    #[error("{call}: {errno}")]
    Call {
        /// The system call.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
    /// An operation is missing.
    #[error("the kernel is too old: io_uring has no {0:?}")]
    Old(IoringOp),
    /// glommio's own words.
    #[error("{0}")]
    Executor(String),
}

/// What glommio 0.9 ends the process without.
const NEEDED: [IoringOp; 23] = [
    IoringOp::Nop,
    IoringOp::Readv,
    IoringOp::Writev,
    IoringOp::Fsync,
    IoringOp::ReadFixed,
    IoringOp::WriteFixed,
    IoringOp::PollAdd,
    IoringOp::PollRemove,
    IoringOp::Sendmsg,
    IoringOp::Recvmsg,
    IoringOp::Timeout,
    IoringOp::TimeoutRemove,
    IoringOp::Accept,
    IoringOp::LinkTimeout,
    IoringOp::Connect,
    IoringOp::Fallocate,
    IoringOp::Openat,
    IoringOp::Close,
    IoringOp::Statx,
    IoringOp::Read,
    IoringOp::Write,
    IoringOp::Send,
    IoringOp::Recv,
];

/// Operations asked for at most: their numbers are one byte.
const OPS: usize = 256;

/// The kernel's `struct io_uring_probe`, with numbers where the crate has enums: a newer kernel knows more operations
/// than the crate does.
#[repr(C)]
struct Probe {
    last_op: u8,
    ops_len: u8,
    reserved: [u8; 14],
    ops: [ProbeOp; OPS],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ProbeOp {
    op: u8,
    reserved: u8,
    flags: u16,
    reserved_2: u32,
}

const _: () = assert!(size_of::<Probe>() == 16 + 8 * OPS, "as in linux/io_uring.h");

/// Makes a ring, asks it what it can do, and lets it go.
#[expect(unsafe_code, reason = "system calls of a ring that shares no memory with anyone")]
pub(super) fn system_calls() -> Result<(), Refused> {
    let refused = |call| move |errno| Refused::Call { call, errno };
    let mut params = io_uring_params::default();
    // SAFETY: no flag is set, so that no field names a descriptor.
    let ring = unsafe { io_uring_setup(8, &mut params) }.map_err(|errno| match errno {
        Errno::NOMEM => Refused::Memory,
        errno => Refused::Call { call: "io_uring_setup", errno },
    })?;
    // SAFETY: nothing is submitted and nothing waited for.
    unsafe { io_uring_enter(&ring, 0, 0, IoringEnterFlags::empty()) }.map_err(refused("io_uring_enter"))?;
    let none = ProbeOp { op: 0, reserved: 0, flags: 0, reserved_2: 0 };
    let mut probe = Probe { last_op: 0, ops_len: 0, reserved: [0; 14], ops: [none; OPS] };
    let out = (&raw mut probe).cast_const().cast();
    // SAFETY: the kernel writes a header and at most `OPS` operations there, which is what `Probe` has room for; any
    // bytes are a valid `Probe`, and it is borrowed by nobody else.
    unsafe { io_uring_register(&ring, IoringRegisterOp::RegisterProbe, out, OPS as u32) }
        .map_err(refused("io_uring_register"))?;
    let known = usize::from(probe.ops_len).min(OPS);
    match missing(probe.ops.get(..known).unwrap_or_default()) {
        Some(op) => Err(Refused::Old(op)),
        None => Ok(()),
    }
}

fn missing(ops: &[ProbeOp]) -> Option<IoringOp> {
    let has = |needed: IoringOp| {
        ops.iter().any(|op| op.op == needed as u8 && op.flags & IoringOpFlags::SUPPORTED.bits() != 0)
    };
    NEEDED.into_iter().find(|needed| !has(*needed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_an_operation_is_too_old() {
        let supported = IoringOpFlags::SUPPORTED.bits();
        let op = |op: IoringOp, flags| ProbeOp { op: op as u8, reserved: 0, flags, reserved_2: 0 };
        let mut ops = NEEDED.map(|needed| op(needed, supported));
        assert_eq!(missing(&ops), None);
        ops[14] = op(NEEDED[14], 0);
        assert_eq!(missing(&ops), Some(IoringOp::Connect));
        assert_eq!(missing(&[]), Some(IoringOp::Nop));
        assert!(Refused::Old(IoringOp::Connect).to_string().contains("Connect"));
    }
}
