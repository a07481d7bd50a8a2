//! Programs that the node starts end with it, however it ends.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use aob::exec::tools::TETHER;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

// F429: no orphans, also after kill -9.
#[test]
fn a_program_ends_with_the_process_that_started_it() {
    let node = env!("CARGO_BIN_EXE_aobd");
    // The shell stands for the node: it starts the program as a node does, and is killed.
    let script = format!("'{node}' {TETHER} $$ sh -c 'echo $$; exec sleep 1000' & read never");
    let mut parent = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let program: i32 = lines.next().unwrap().unwrap().parse().unwrap();
    let program = pidfd_open(Pid::from_raw(program).unwrap(), PidfdFlags::empty()).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    let most = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&program, PollFlags::IN)], Some(&most)).unwrap(), 1, "it lives on");
}

#[test]
fn nothing_is_started_for_a_parent_that_is_gone() {
    let tether =
        |rest: &[&str]| Command::new(env!("CARGO_BIN_EXE_aobd")).arg(TETHER).args(rest).output().unwrap();
    let own = std::process::id().to_string();
    assert_eq!(tether(&[&own, "echo", "up"]).stdout, b"up\n");
    for refused in [&["1", "echo", "up"][..], &[&own], &[], &["x", "echo", "up"]] {
        let output = tether(refused);
        assert!(!output.status.success() && output.stdout.is_empty(), "{refused:?}");
    }
    assert_eq!(tether(&[&own, "/no/such/program"]).status.code(), Some(127));
}
