//! A program that ends with the node: this binary, started with [`TETHER`], asks the kernel to be killed when its parent goes, and
//! becomes the program it is given. So no tool server outlives a node that was killed, and no `unsafe` is needed between fork
//! and exec. What the program itself starts is not told; it finds its standard input closed.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The first argument of such a process. Then come the parent's id, the program and its arguments.
pub const TETHER: &str = "__tether";

/// Becomes the program. Returns only when it cannot.
pub fn tether(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let parent = arguments.next().and_then(|text| text.to_str()?.parse::<i32>().ok());
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    let set = set_parent_process_death_signal(Some(Signal::KILL));
    // A parent that went before the kernel was asked is noticed here.
    if set.is_err() || parent != getppid().map(|pid| pid.as_raw_nonzero().get()) {
        return ExitCode::FAILURE;
    }
    let error = Command::new(&program).args(arguments).exec();
    anstream::eprintln!("{}: {error}", program.display());
    ExitCode::from(127)
}
