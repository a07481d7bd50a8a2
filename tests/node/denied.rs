//! Systems that deny what the node would like to have: it works without, or ends with one clear line. Never a hang.

use std::process::{Command, ExitStatus};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::harness::{AOBD, Node, Options, in_background};
use crate::start_up::{assert_clear, under};

const IO_URING_SETUP: i64 = 425;
const IO_URING_ENTER: i64 = 426;
const IO_URING_REGISTER: i64 = 427;

/// Runs a command that may not make some system calls, nor may its children.
fn denied(calls: &[i64], errno: u32, command: Command) -> Result<Node, (ExitStatus, String)> {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let (allow, deny) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let filter = SeccompFilter::new(rules, allow, deny, std::env::consts::ARCH.try_into().unwrap()).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    // The filter stays with the thread, and goes to the processes it starts.
    let thread = in_background(move || {
        seccompiler::apply_filter(&filter).expect("anyone may give up rights");
        Node::from_command(command)
    });
    thread.join().expect("the thread only starts a node")
}

/// A node that sees something else in a directory of `/sys`; `None` where a test may not have mounts of its own.
fn with_other(directory: &str, prepare: &str, options: &Options) -> Option<Command> {
    let script = format!("mount -t tmpfs none {directory} && {prepare}");
    let unshare = |command: &mut Command| {
        let status = command.args(["--mount", "sh", "-c", &script]).status();
        status.is_ok_and(|status| status.success())
    };
    if !unshare(&mut Command::new("unshare")) {
        eprintln!("skipped: no mounts of one's own here");
        return None;
    }
    // Each becomes the next, so that the node is the process that is started and killed.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg(format!("{script} && exec \"$0\" \"$@\""));
    command.args([AOBD, options.command, "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(&options.data_dir).args(&options.arguments);
    Some(command)
}

/// The node runs without rings, and has said so in one line.
fn assert_runs_without_rings(what: &str, node: Node) {
    let report = node.client().get("/v1/node").expect(200).json();
    let mut planes = report["planes"].as_array().expect("planes").iter();
    assert_eq!(planes.find(|plane| plane["name"] == "runner").unwrap()["runtime"], "tokio", "{what}");
    let (status, stderr) = node.terminate();
    assert!(status.success() && !stderr.contains("panicked"), "{what}: {stderr}");
    let warnings: Vec<_> = stderr.lines().filter(|line| line.contains("\"level\":\"warn\"")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("io_uring"), "{what}: one clear line: {stderr}");
}

// F229
#[test]
fn where_io_uring_is_denied_the_node_says_so_and_runs_without() {
    // As container runtimes do it, as an old kernel answers, and as a sandbox may do it by halves.
    for (calls, errno) in [
        (&[IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER][..], 1),
        (&[IO_URING_SETUP], 38),
        (&[IO_URING_ENTER], 1),
        (&[IO_URING_REGISTER], 13),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::serve(directory.path()).set("runner.driver", "auto");
        let node = denied(calls, errno, under("true", &options)).expect("it runs without");
        assert_runs_without_rings(&format!("{calls:?}"), node);
    }
}

// F229
#[test]
fn a_ring_that_is_asked_for_and_denied_is_no_start() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("runner.driver", "ring");
    let failed = denied(&[IO_URING_SETUP], 1, under("true", &options)).err().expect("it was asked for");
    assert_clear("ring", &failed, &["io_uring", "runner.driver"]);
}

// F229
#[test]
fn where_the_cores_are_hidden_the_node_says_so_and_runs_without() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("runner.driver", "auto");
    let Some(command) = with_other("/sys/devices/system/cpu", "true", &options) else { return };
    assert_runs_without_rings("/sys", Node::from_command(command).expect("it runs without"));
}

// RELIABILITY A5
#[test]
fn a_runner_thread_that_panics_takes_the_process_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("runner.driver", "auto");
    // glommio reads what a block device can do when a file is opened, and panics at what it does not understand.
    let devices = "for device in /sys/block/*/dev; do touch \"/sys/dev/block/$(cat $device)\"; done";
    let Some(command) = with_other("/sys/dev/block", devices, &options) else { return };
    match Node::from_command(command) {
        // No rings here, or no block device behind the files.
        Ok(node) => drop(node),
        Err((status, stderr)) => {
            assert!(status.code().is_some_and(|code| code == 70), "{status}: {stderr}");
            let last = stderr.lines().last().unwrap_or_default();
            assert!(last.starts_with("aobd: thread aob-runner-0: it panicked"), "{stderr}");
        }
    }
}
