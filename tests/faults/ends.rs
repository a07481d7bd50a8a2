//! Orderly ends under load, and ends that the system forces: no memory, no descriptors (RELIABILITY A7, A8, A9).

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use aob_checker::record::FaultKind;
use serde_json::json;

use crate::harness::{Client, Node};
use crate::kills::{judge, memory_directory, options, rounds, serve};
use crate::recorder::load::{self, Crowd, Everybody};
use crate::recorder::{Dice, World};

// RELIABILITY A7
#[test]
fn sigterm_under_load_ends_well_and_loses_nothing() {
    let rounds = rounds(6, 60);
    let directory = memory_directory();
    let options = options(directory.path()).set("shutdown.drain_seconds", "2");
    let world = World::new(41, "fsync");
    let everybody = Everybody::begin(&world, Crowd::default());
    let mut dice = Dice::new(41, 999);
    for round in 0..rounds {
        let node = serve(&world, &options, round > 0);
        world.wait_for_progress(20 + dice.below(300), Duration::from_secs(2));
        world.fault(FaultKind::Stop);
        let (status, log) = node.terminate();
        world.gone();
        assert!(status.success(), "round {round}: {status}\n{log}");
    }
    let node = serve(&world, &options, true);
    let report = judge(&world, everybody, node, &options);
    println!("{rounds} orderly ends: {report}");
}

// RELIABILITY A7
#[test]
fn a_second_sigterm_ends_the_process_at_once_and_loses_nothing() {
    let directory = memory_directory();
    // A service that never answers keeps the node from ending by itself.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = options(directory.path()).set("shutdown.drain_seconds", "60");
    let node = Node::start(&options);
    let mut client = node.client();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let slow = json!({"name": "slow", "nodes": {"a": {"type": "http", "with": {"url": url}}}});
    client.post("/v1/workflows", &slow).expect(201);
    let run = client.post("/v1/runs", &json!({"workflow": "slow"})).expect(202).json();
    let (mut call, _) = silent.accept().unwrap();
    call.read_exact(&mut [0; 4]).unwrap();
    node.ask_to_end();
    node.says("draining");
    let asked = Instant::now();
    let (status, log) = node.terminate();
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}: {log}", asked.elapsed());
    let node = Node::start(&options);
    let path = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
    assert_eq!(node.client().get(&path).expect(200).json()["status"], "running");
    drop(silent);
}

/// A control group of our own with a bound on memory; gone with the value.
struct Memory(PathBuf);

impl Memory {
    fn new() -> Result<Self, String> {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory/aob-test-{}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let group = Self(folder);
        std::fs::read(group.0.join("memory.limit_in_bytes"))
            .map_err(|error| format!("cgroup v1: {error}"))?;
        Ok(group)
    }

    fn limit(&self, bytes: u64) {
        std::fs::write(self.0.join("memory.limit_in_bytes"), bytes.to_string()).expect("the group is ours");
    }

    /// A command that runs in the group.
    fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        let tasks = self.0.join("tasks");
        inside.arg("-c").arg(format!("echo $$ > {} && exec \"$0\" \"$@\"", tasks.display()));
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

// RELIABILITY A8
#[test]
fn nothing_is_lost_when_the_system_ends_the_node_for_want_of_memory() {
    let group = match Memory::new() {
        Ok(group) => group,
        Err(why) => return println!("SKIPPED: no memory control group can be made: {why}"),
    };
    // Files in memory would count as the node's.
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let world = World::new(51, "fsync");
    let everybody = Everybody::begin(&world, Crowd { clients: 2, workers: 1, watchers: 1, authors: 0 });
    let mut node = Node::from_command(group.command(&options.clone().wanted().command())).expect("it starts");
    load::register(&world, &node.address);
    world.serves(&node.address);
    world.wait_for_progress(100, Duration::from_secs(5));
    group.limit(node.resident_kib() * 1_024 + (40 << 20));
    world.fault(FaultKind::Kill);
    let status = fill_memory(&mut node);
    world.gone();
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(status.signal(), Some(9), "{status}");
    let node = serve(&world, &options, true);
    world.wait_for_progress(50, Duration::from_secs(2));
    let report = judge(&world, everybody, node, &options);
    println!("ended for want of memory: {report}");
}

/// Starts runs that stay and are large, until the node is gone.
fn fill_memory(node: &mut Node) -> std::process::ExitStatus {
    let mut client = node.client();
    let body = json!({"workflow": "filler-waits", "inputs": {"n": 1, "large": "x".repeat(200_000)}});
    for _ in 0..3_000 {
        if client.post_with("/v1/runs", &[], &body).is_err() {
            return node.ends_within(Duration::from_secs(10)).expect("a node that does not answer has ended");
        }
    }
    panic!("600 MB of runs fit into 40 MB");
}

/// As many connections as there are descriptors, and then some.
fn occupy(address: &str) -> Vec<TcpStream> {
    (0..600).filter_map(|_| TcpStream::connect(address).ok()).collect()
}

// RELIABILITY A9
#[test]
fn nothing_is_lost_when_there_are_no_descriptors_left() {
    let directory = memory_directory();
    let options = options(directory.path());
    let world = World::new(61, "fsync");
    let everybody = Everybody::begin(&world, Crowd::default());
    let plain = options.clone().wanted().command();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("ulimit -n 512; exec \"$0\" \"$@\"")
        .arg(plain.get_program())
        .args(plain.get_args());
    let node = Node::from_command(command).expect("512 are enough to start");
    load::register(&world, &node.address);
    world.serves(&node.address);
    world.wait_for_progress(200, Duration::from_secs(5));
    let mut client = node.client();
    let (before, began) = (cpu_us(&mut client), Instant::now());
    for _ in 0..3 {
        let occupied = occupy(&node.address);
        assert!(occupied.len() >= 500, "{}", occupied.len());
        world.wait_for_progress(300, Duration::from_millis(1_500));
    }
    println!("{} us of processor time in {:?}", cpu_us(&mut client) - before, began.elapsed());
    assert_eq!(client.get("/readyz").status, 200);
    let report = judge(&world, everybody, node, &options);
    println!("without descriptors: {report}");
}

/// Processor time of the node, from itself.
fn cpu_us(client: &mut Client) -> u64 {
    client.get("/v1/node").expect(200).json()["cpu_us"].as_u64().unwrap()
}
