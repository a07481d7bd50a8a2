//! Starts the real binaries on port 0 and talks to them over plain sockets, independent of the client in the library.
//!
//! Nothing here sleeps: it waits for a line, a reply or the end of a process. A node that is dropped is killed.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod http;
pub mod store;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use serde_json::Value;

pub use http::Client;

/// The node's binary.
pub const AOBD: &str = env!("CARGO_BIN_EXE_aobd");

/// A node that is not ready by then hangs.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(120);

/// Command-line options of one node.
#[derive(Clone, Debug)]
pub struct Options {
    /// `serve`, `dev` or `demo`.
    pub command: &'static str,
    /// `--data-dir`.
    pub data_dir: PathBuf,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
    /// The binary.
    pub binary: PathBuf,
}

impl Options {
    /// `aobd serve` in this directory.
    pub fn serve(data_dir: &Path) -> Self {
        Self {
            command: "serve",
            data_dir: data_dir.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            // Another build of the same, for trying things out by hand.
            binary: std::env::var_os("AOB_TEST_AOBD").map_or_else(|| PathBuf::from(AOBD), PathBuf::from),
        }
    }

    /// Of another build.
    pub fn binary(self, binary: &Path) -> Self {
        Self { binary: binary.to_owned(), ..self }
    }

    /// With a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With `--set key=value`.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.arguments.extend([String::from("--set"), format!("{key}={value}")]);
        self
    }

    /// With what this test run asks for, so that the same tests run on all of it: a driver (`AOB_TEST_DRIVER`), a store
    /// (`AOB_TEST_STORE`).
    pub fn wanted(self) -> Self {
        self.driver().store()
    }

    pub fn driver(self) -> Self {
        match std::env::var("AOB_TEST_DRIVER") {
            Ok(driver) => self.set("runner.driver", &driver),
            Err(_) => self,
        }
    }

    fn store(mut self) -> Self {
        if !store::is_redis() || self.arguments.iter().any(|argument| argument.starts_with("store.url=")) {
            return self;
        }
        // The level of the embedded store that is nearest.
        for argument in &mut self.arguments {
            if argument == "durability=os" {
                *argument = String::from("durability=redis-aof");
            }
        }
        let url = store::of(&self.data_dir);
        self.set("store.url", &url)
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg(self.command).args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(&self.data_dir);
        command.args(&self.arguments);
        command
    }
}

/// A running node.
pub struct Node {
    child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
    stdout: Option<mpsc::Receiver<String>>,
    warned: mpsc::Receiver<String>,
    stderr: std::thread::JoinHandle<String>,
}

impl Node {
    /// Starts a node and waits for its `ready` line.
    pub fn start(options: &Options) -> Self {
        Self::try_start(options).unwrap_or_else(|(status, stderr)| panic!("no node: {status}\n{stderr}"))
    }

    /// Starts a node; `Err` is how it ended instead of getting ready, and what it said.
    pub fn try_start(options: &Options) -> Result<Self, (ExitStatus, String)> {
        Self::from_command(options.clone().wanted().command())
    }

    /// Starts a node that stands by while another one owns the store.
    pub fn stand_by(options: &Options) -> Self {
        Self::from_command_until(options.clone().wanted().command(), &["standby "])
            .unwrap_or_else(|(status, stderr)| panic!("no node: {status}\n{stderr}"))
    }

    /// Starts a node that stands by, or owns the store.
    pub fn start_or_stand_by(options: &Options) -> Self {
        Self::from_command_until(options.clone().wanted().command(), &["standby ", "ready "])
            .unwrap_or_else(|(status, stderr)| panic!("no node: {status}\n{stderr}"))
    }

    /// Waits for a line of standard output that begins like this; from then on it is where that says.
    pub fn until(&mut self, begins: &str) {
        loop {
            let Some(line) = self.line() else {
                let said: Vec<_> = self.warned.iter().collect();
                panic!("it ended before {begins:?}: {said:#?}");
            };
            if let Some(address) = address_of(&line, begins) {
                self.address = address;
                return;
            }
        }
    }

    /// Starts a node by any command that ends up being one.
    pub fn from_command(command: Command) -> Result<Self, (ExitStatus, String)> {
        Self::from_command_until(command, &["ready "])
    }

    /// The same, until it says one of these.
    pub fn from_command_until(mut command: Command, begins: &[&str]) -> Result<Self, (ExitStatus, String)> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let (lines, stdout) = mpsc::channel();
        let out = child.stdout.take().expect("piped");
        in_background(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let err = child.stderr.take().expect("piped");
        let (said, warned) = mpsc::channel();
        let stderr = in_background(move || {
            let mut text = String::new();
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                text.push_str(&line);
                text.push('\n');
                let _ = said.send(line);
            }
            text
        });
        // The channel closes when the process ends, so this never waits for ever on a dead one.
        let address = loop {
            match stdout.recv_timeout(READY_WITHIN) {
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    let said = stderr.join().expect("reader");
                    panic!("not ready after {} s, and still there: {said}", READY_WITHIN.as_secs());
                }
                Ok(line) => {
                    if let Some(address) = begins.iter().find_map(|begins| address_of(&line, begins)) {
                        break address;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = child.wait().expect("a child can be waited for");
                    return Err((status, stderr.join().expect("reader")));
                }
            }
        };
        Ok(Self { child, address, stdout: Some(stdout), warned, stderr })
    }

    /// A client of this node.
    pub fn client(&self) -> Client {
        Client::new(&self.address)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its standard output; `None` when it has ended.
    pub fn line(&self) -> Option<String> {
        self.stdout.as_ref().and_then(|lines| lines.recv().ok())
    }

    /// Waits for a line of standard error that holds `part`; those before it are passed over.
    pub fn says(&self, part: &str) -> String {
        self.warned
            .iter()
            .find(|line| line.contains(part))
            .unwrap_or_else(|| panic!("it never said {part:?}"))
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is ours");
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("the process is ours");
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.finish().1
    }

    /// SIGTERM, and waits for its end: (exit status, standard error).
    pub fn terminate(self) -> (ExitStatus, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process is ours");
        self.finish()
    }

    /// SIGTERM.
    pub fn ask_to_end(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process is ours");
    }

    /// Waits for its end, as long as it says something at least every `limit`. `None`: it goes on.
    pub fn ends_within(&mut self, limit: std::time::Duration) -> Option<ExitStatus> {
        loop {
            match self.stdout.as_ref()?.recv_timeout(limit) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => return None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.child.wait().ok(),
            }
        }
    }

    /// Waits for its end.
    pub fn finish(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("a child can be waited for");
        self.stdout.take();
        let stderr = std::mem::replace(&mut self.stderr, in_background(String::new));
        (status, stderr.join().expect("reader"))
    }

    /// Resident memory in KiB, from the operating system.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `http=ADDR` of the line that begins like this.
fn address_of(line: &str, begins: &str) -> Option<String> {
    let fields = line.strip_prefix(begins)?;
    fields.split_whitespace().find_map(|field| field.strip_prefix("http=")).map(str::to_owned)
}

/// A thread of the test itself.
pub fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::Builder::new().spawn(work).expect("a thread starts")
}

/// Where the repository lies.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A chain of `length` function nodes that add one to `n`.
pub fn chain(name: &str, length: usize) -> Value {
    let node = |i: usize| if i == 0 { "inputs.n + 1" } else { "input + 1" };
    let nodes: serde_json::Map<_, _> = (0..length)
        .map(|i| (format!("s{i}"), serde_json::json!({"type": "function", "with": {"expr": node(i)}})))
        .collect();
    let edges: Vec<_> = (1..length)
        .map(|i| serde_json::json!({"from": format!("s{}", i - 1), "to": format!("s{i}")}))
        .collect();
    let last = format!("${{ nodes.s{}.output }}", length - 1);
    serde_json::json!({"name": name, "nodes": nodes, "edges": edges, "outputs": {"n": last}})
}
