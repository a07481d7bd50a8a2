//! `restart`: what does a node cost with many runs that wait, and how long does it take to come back?
//!
//! Starts a node of its own (`--aobd`) in `--data-dir`, begins runs that wait (each a few nodes, a timer and a signal, every
//! other one with an idempotency key), ends the node in order and starts it again: memory for each waiting run, and how
//! long the start took. Then it completes runs, kills the node and starts it once more: how long for each million events
//! since the images. Times are from the start of the process to its `ready` line, as somebody waiting for it sees them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::control::Node;
use crate::http;
use crate::pacer::now_us;
use crate::run::Error;
use crate::shape::Shape;

const WAITING_MAX: u64 = 10_000_000;
const FINISHED_MAX: u64 = 10_000_000;
const CONNECTIONS_MAX: usize = 1_024;
const WORKFLOW: &str = "loadgen_waiting";
/// How long a node may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(600);

/// Flags of `aob-loadgen restart`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Restart {
    /// The node's binary.
    #[arg(long, default_value = "aobd")]
    pub(crate) aobd: PathBuf,
    /// An empty directory for its data; it is left there.
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// Runs that wait.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) waiting: u64,
    /// Bytes of text in the inputs of each.
    #[arg(long, default_value_t = 64)]
    pub(crate) input_bytes: usize,
    /// Runs of five nodes completed before the node is killed.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) finished: u64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Settings of the node, as `key=value`; may be given more than once.
    #[arg(long)]
    pub(crate) set: Vec<String>,
    /// Write the report there instead of stdout.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// What was seen, as JSON.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    waiting: u64,
    input_bytes: usize,
    /// Resident bytes of a node without runs.
    empty_bytes: u64,
    /// Resident bytes for each waiting run: right after they were started, and after the restart.
    bytes_per_run_started: f64,
    bytes_per_run_restarted: f64,
    starts_per_s: f64,
    /// SIGTERM to the end of the process.
    end_ms: u64,
    after_end: Back,
    after_kill: Back,
    /// Of the start after the kill, beyond the one before it.
    s_per_million_events: Option<f64>,
}

/// One start.
#[derive(Debug, Default, Serialize)]
struct Back {
    ready_ms: u64,
    images: u64,
    events_folded: u64,
}

impl Report {
    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The same in a few lines for people.
    pub(crate) fn summary(&self) -> String {
        let back = |name: &str, back: &Back| {
            let Back { ready_ms, images, events_folded } = back;
            format!(
                "  {name}: ready in {ready_ms} ms, {images} runs from images, {events_folded} events folded\n"
            )
        };
        let mut text = format!(
            "{} waiting runs: {:.0} bytes each when started, {:.0} after a restart ({:.0} starts/s)\n",
            self.waiting, self.bytes_per_run_started, self.bytes_per_run_restarted, self.starts_per_s
        );
        text.push_str(&back(&format!("after SIGTERM ({} ms)", self.end_ms), &self.after_end));
        text.push_str(&back("after kill -9", &self.after_kill));
        if let Some(seconds) = self.s_per_million_events {
            text.push_str(&format!("  {seconds:.2} s per million events since the images\n"));
        }
        text
    }
}

/// Measures and reports.
pub(crate) fn run(asked: &Restart) -> Result<Report, Error> {
    for (flag, value, max) in [
        ("waiting", asked.waiting, WAITING_MAX),
        ("finished", asked.finished, FINISHED_MAX),
        ("connections", asked.connections as u64, CONNECTIONS_MAX as u64),
    ] {
        if value > max {
            return Err(Error::Usage(format!("--{flag} {value}: at most {max}")));
        }
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(course(asked))
}

async fn course(asked: &Restart) -> Result<Report, Error> {
    let mut report = Report { waiting: asked.waiting, input_bytes: asked.input_bytes, ..Report::default() };
    let mut process = Process::start(asked)?;
    let node = process.node.clone();
    node.register(Shape::Chain5).await?;
    node.trial(Shape::Chain5).await?;
    node.ok("POST", "/v1/workflows", "", document().to_string().as_bytes()).await?;
    report.empty_bytes = process.resident();
    let per_run =
        |resident: u64, empty: u64| resident.saturating_sub(empty) as f64 / asked.waiting.max(1) as f64;
    let since_us = now_us();
    start(asked, &node, asked.waiting, waiting).await?;
    report.starts_per_s = asked.waiting as f64 * 1e6 / now_us().saturating_sub(since_us).max(1) as f64;
    report.bytes_per_run_started = per_run(process.resident(), report.empty_bytes);
    let since_us = now_us();
    process.end("-TERM")?;
    report.end_ms = now_us().saturating_sub(since_us) / 1_000;

    process = Process::start(asked)?;
    report.bytes_per_run_restarted = per_run(process.resident(), report.empty_bytes);
    report.after_end = process.back();
    let node = process.node.clone();
    start(asked, &node, asked.finished, finished).await?;
    process.end("-KILL")?;

    process = Process::start(asked)?;
    report.after_kill = process.back();
    process.end("-TERM")?;
    let beyond_ms = report.after_kill.ready_ms.saturating_sub(report.after_end.ready_ms);
    report.s_per_million_events = (report.after_kill.events_folded > 0)
        .then(|| beyond_ms as f64 * 1e3 / report.after_kill.events_folded as f64);
    Ok(report)
}

/// Headers and body of the `n`-th start.
type Request = fn(&Restart, u64) -> (String, Value);

fn waiting(asked: &Restart, n: u64) -> (String, Value) {
    let key = if n.is_multiple_of(2) { format!("idempotency-key: waiting-{n}\r\n") } else { String::new() };
    (key, json!({"workflow": WORKFLOW, "inputs": {"n": n, "text": "x".repeat(asked.input_bytes)}}))
}

fn finished(_: &Restart, n: u64) -> (String, Value) {
    (String::new(), json!({"workflow": Shape::Chain5.workflow(), "inputs": {"n": n}}))
}

fn document() -> Value {
    json!({
        "aob": "1",
        "name": WORKFLOW,
        "version": "1",
        "nodes": {
            "begin": {"type": "function", "with": {"expr": "inputs.n + 1"}},
            "hear": {"type": "wait", "with": {"signal": "go"}},
            "stay": {"type": "delay", "with": {"for": "2000h"}},
            "end": {"type": "join", "with": {"wait": "all"}},
        },
        "edges": [
            {"from": "begin", "to": "hear"},
            {"from": "begin", "to": "stay"},
            {"from": "hear", "to": "end"},
            {"from": "stay", "to": "end"},
        ],
    })
}

/// Starts `count` runs over all connections; each must be acknowledged.
async fn start(asked: &Restart, node: &Node, count: u64, request: Request) -> Result<(), Error> {
    let connections = asked.connections.max(1) as u64;
    let (asked, local, mut lanes) =
        (Rc::new(asked.clone()), tokio::task::LocalSet::new(), tokio::task::JoinSet::new());
    for lane in 0..connections {
        let numbers = (lane..count).step_by(connections as usize);
        lanes.spawn_local_on(send(asked.clone(), node.clone(), numbers, request), &local);
    }
    local
        .run_until(async {
            while let Some(done) = lanes.join_next().await {
                done.map_err(|error| Error::Thread(error.to_string()))??;
            }
            Ok(())
        })
        .await
}

/// Starts runs one after the other on a connection.
async fn send(
    asked: Rc<Restart>,
    node: Node,
    numbers: impl Iterator<Item = u64>,
    request: Request,
) -> Result<(), Error> {
    let mut stream = TcpStream::connect(node.address).await.map_err(Error::Runtime)?;
    let mut buffer = Vec::new();
    for n in numbers {
        let (headers, body) = request(&asked, n);
        let bytes = http::request("POST", "/v1/runs", &node.host, &headers, body.to_string().as_bytes());
        stream.write_all(&bytes).await.map_err(Error::Runtime)?;
        let head = http::read_reply(&mut stream, &mut buffer)
            .await
            .map_err(|error| Error::Node(format!("start {n}: {error}")))?;
        if head.status != 202 {
            let text = String::from_utf8_lossy(buffer.get(head.len..).unwrap_or_default()).into_owned();
            return Err(Error::Node(format!("start {n} was answered {}: {text}", head.status)));
        }
    }
    Ok(())
}

/// A node of the generator's own.
struct Process {
    child: Child,
    node: Node,
    ready_ms: u64,
    said: mpsc::Receiver<String>,
}

impl Process {
    fn start(asked: &Restart) -> Result<Self, Error> {
        let mut command = Command::new(&asked.aobd);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&asked.data_dir);
        command.args(asked.set.iter().flat_map(|set| ["--set", set.as_str()]));
        let since_us = now_us();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::Usage(format!("--aobd {}: {error}", asked.aobd.display())))?;
        let (lines, ready) = mpsc::channel();
        let (says, said) = mpsc::channel();
        read_lines(child.stdout.take(), lines);
        read_lines(child.stderr.take(), says);
        let address = loop {
            let line = ready.recv_timeout(READY_WITHIN).map_err(|_| {
                let _ = child.kill();
                Error::Node(format!(
                    "the node did not get ready: {}",
                    said.try_iter().collect::<Vec<_>>().join("; ")
                ))
            })?;
            let address = line.split_whitespace().find_map(|field| field.strip_prefix("http="));
            if let Some(address) = address.and_then(|address| address.parse().ok()) {
                break address;
            }
        };
        let ready_ms = now_us().saturating_sub(since_us) / 1_000;
        Ok(Self { child, node: Node { address, host: address.to_string() }, ready_ms, said })
    }

    /// How it came back, by its own words.
    fn back(&self) -> Back {
        let mut back = Back { ready_ms: self.ready_ms, ..Back::default() };
        for line in self.said.try_iter().filter(|line| line.contains(": back in ")) {
            back.images += number_before(&line, " runs from images");
            back.events_folded += number_before(&line, " events folded");
        }
        back
    }

    /// Resident bytes.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
    }

    /// Sends it a signal and waits for its end.
    fn end(mut self, signal: &str) -> Result<(), Error> {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        sent.map_err(|error| Error::Node(format!("kill: {error}")))?;
        self.child.wait().map_err(Error::Runtime).map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on the lines of a pipe until it is closed.
fn read_lines(pipe: Option<impl std::io::Read + Send + 'static>, lines: mpsc::Sender<String>) {
    let Some(pipe) = pipe else { return };
    let reader = move || {
        for line in BufReader::new(std::io::Read::take(pipe, 1 << 30)).lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    };
    // Without it there is no ready line, and the caller says so.
    let _ = std::thread::Builder::new().name("lines".into()).spawn(reader);
}

fn number_before(line: &str, words: &str) -> u64 {
    let head = line.find(words).and_then(|at| line.get(..at));
    head.and_then(|head| head.rsplit(' ').next()).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_says_of_its_start_is_read() {
        let line = "aobd: shard 0: back in 12 ms: 34 runs from images, 567 events folded, 8 bursts skipped";
        assert_eq!(number_before(line, " runs from images"), 34);
        assert_eq!(number_before(line, " events folded"), 567);
        assert_eq!(number_before("nothing of it", " events folded"), 0);
    }

    #[test]
    fn a_binary_that_is_no_node_is_reported() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Wrapper {
            #[command(flatten)]
            restart: Restart,
        }
        let asked = |more: &[&str]| {
            let common = ["x", "--data-dir", "/nowhere"];
            Wrapper::parse_from(common.iter().chain(more)).restart
        };
        let error = run(&asked(&["--aobd", "/bin/true"])).unwrap_err();
        assert!(error.to_string().contains("did not get ready"), "{error}");
        let error = run(&asked(&["--waiting", "10000001"])).unwrap_err();
        assert!(error.to_string().contains("--waiting"), "{error}");
    }
}
