//! `hung-tool`: does a tool that never answers, or a worker that took jobs and went silent, slow anybody else down?
//!
//! The same load is measured in turns without and with runs that hang, on one node within one process, so that what the
//! machine does meanwhile falls on both. The tool is a listener of the generator's own on the loopback address that accepts
//! and never answers; the node must allow it (`http.allow = ["127.0.0.1"]`). How many calls and leases really hung is
//! reported beside the latencies, since the node's own limits may hold fewer than were asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::control::Node;
use crate::options::{Options, Rate};
use crate::record::{Percentiles, Record};
use crate::run::{Error, at_rest, join, spawn, window};

const ROUNDS_MAX: usize = 100;
const CALLS_MAX: usize = 10_000;
const LEASES_MAX: usize = 10_000;
/// Jobs of one poll.
const POLL_JOBS_MAX: usize = 64;
const QUEUE: &str = "loadgen_hung";
const WORKFLOW: &str = "loadgen_hung";
/// Calls have arrived when none came for so long.
const SETTLED: Duration = Duration::from_millis(300);

/// Flags of `aob-loadgen hung-tool`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HungTool {
    #[command(flatten)]
    pub(crate) run: crate::options::Run,
    /// How often both are measured; medians are reported.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Runs whose HTTP call is never answered.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) hung_calls: usize,
    /// Jobs that a worker takes and forgets; each is of one of those runs.
    #[arg(long, default_value_t = 256)]
    pub(crate) silent_leases: usize,
}

/// What was seen, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct HungReport {
    /// Calls that hung at once, least of all rounds.
    hung_calls: usize,
    /// Leases that nobody answers for, least of all rounds.
    silent_leases: usize,
    /// In order: without, with, without, ...
    phases: Vec<Phase>,
    /// With to without, of the medians over the rounds.
    ratio: Ratios,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Phase {
    hung: bool,
    start_us: Option<Percentiles>,
    run_us: Option<Percentiles>,
    errors: std::collections::BTreeMap<String, u64>,
}

/// 1.0 is: nobody else notices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Ratios {
    start_p50: Option<f64>,
    start_p99: Option<f64>,
    run_p50: Option<f64>,
    run_p99: Option<f64>,
}

impl HungReport {
    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The same in a few lines for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{} hung calls, {} silent leases\n", self.hung_calls, self.silent_leases);
        for phase in &self.phases {
            let name = if phase.hung { "with" } else { "without" };
            for (what, figures) in [("start", phase.start_us), ("run", phase.run_us)] {
                if let Some(p) = figures {
                    text.push_str(&format!("  {name:<8} {what:<6} p50 {} us, p99 {} us\n", p.p50, p.p99));
                }
            }
        }
        let figure = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let ratio = &self.ratio;
        text.push_str(&format!(
            "  with / without, medians: start p50 {}, p99 {}; run p50 {}, p99 {}\n",
            figure(ratio.start_p50),
            figure(ratio.start_p99),
            figure(ratio.run_p50),
            figure(ratio.run_p99)
        ));
        text
    }
}

/// Measures and reports.
pub(crate) fn run(asked: &HungTool) -> Result<HungReport, Error> {
    let options = asked.run.resolve().map_err(|error| Error::Usage(error.to_string()))?;
    for (flag, value, max) in [
        ("rounds", asked.rounds, ROUNDS_MAX),
        ("hung-calls", asked.hung_calls, CALLS_MAX),
        ("silent-leases", asked.silent_leases, LEASES_MAX.min(asked.hung_calls)),
    ] {
        if value > max {
            return Err(Error::Usage(format!("--{flag} {value}: at most {max}")));
        }
    }
    if options.rate == Rate::Max {
        return Err(Error::Usage(
            "--rate max: latencies under load are compared at one rate; give a number".into(),
        ));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(course(asked, &options))
}

async fn course(asked: &HungTool, options: &Options) -> Result<HungReport, Error> {
    let node = Node { address: options.address, host: options.host.clone() };
    let tool = Tool::start().map_err(Error::Runtime)?;
    node.register(options.shape).await?;
    node.trial(options.shape).await?;
    node.ok("POST", "/v1/workflows", "", document(tool.address).to_string().as_bytes()).await?;
    let mut report = HungReport {
        hung_calls: usize::MAX,
        silent_leases: usize::MAX,
        phases: Vec::new(),
        ratio: Ratios { start_p50: None, start_p99: None, run_p50: None, run_p99: None },
    };
    for _ in 0..asked.rounds.max(1) {
        report.phases.push(measure(options, false).await?);
        let runs = hang(&node, asked.hung_calls).await?;
        let leases = silence(&node, asked.silent_leases).await?;
        tool.settle().await;
        report.hung_calls = report.hung_calls.min(tool.open());
        report.silent_leases = report.silent_leases.min(leases);
        report.phases.push(measure(options, true).await?);
        for run in &runs {
            node.ok("POST", &format!("/v1/runs/{run}/terminate"), "", b"").await?;
        }
        at_rest(&node, options, |_| true).await?;
    }
    report.ratio = ratios(&report.phases);
    Ok(report)
}

async fn measure(options: &Options, hung: bool) -> Result<Phase, Error> {
    let record: Record = join(spawn(options, window(options))?).await?;
    Ok(Phase { hung, start_us: record.start.summary(), run_us: record.run.summary(), errors: record.errors })
}

/// Starts runs that hang and gives their ids.
async fn hang(node: &Node, calls: usize) -> Result<Vec<String>, Error> {
    let body = json!({"workflow": WORKFLOW}).to_string();
    let mut runs = Vec::with_capacity(calls);
    for _ in 0..calls {
        let reply = node.ok("POST", "/v1/runs", "", body.as_bytes()).await?;
        let reply: Value = serde_json::from_slice(&reply).unwrap_or_default();
        runs.extend(reply.get("run_id").and_then(Value::as_str).map(str::to_owned));
    }
    Ok(runs)
}

/// Takes jobs and forgets them; gives how many there were.
async fn silence(node: &Node, leases: usize) -> Result<usize, Error> {
    let mut taken = 0;
    while taken < leases {
        let max = POLL_JOBS_MAX.min(leases - taken);
        let body = json!({"queues": [QUEUE], "max": max, "wait_ms": 500, "worker": "silent"}).to_string();
        let reply = node.ok("POST", "/v1/workers/poll", "", body.as_bytes()).await?;
        let reply: Value = serde_json::from_slice(&reply).unwrap_or_default();
        let jobs = reply.get("jobs").and_then(Value::as_array).map_or(0, Vec::len);
        if jobs == 0 {
            break;
        }
        taken += jobs;
    }
    Ok(taken)
}

fn document(tool: SocketAddr) -> Value {
    json!({
        "aob": "1",
        "name": WORKFLOW,
        "version": "1",
        "nodes": {
            "call": {"type": "http", "timeout": "10m", "with": {"url": format!("http://{tool}/")}},
            "job": {"type": "task", "timeout": "10m", "with": {"queue": QUEUE}},
        },
    })
}

fn ratios(phases: &[Phase]) -> Ratios {
    type Read = fn(&Phase) -> Option<u64>;
    let median = |hung: bool, read: Read| {
        let mut figures: Vec<u64> =
            phases.iter().filter(|phase| phase.hung == hung).filter_map(read).collect();
        figures.sort_unstable();
        figures.get(figures.len() / 2).copied()
    };
    let ratio = |read: Read| {
        let (with, without) = (median(true, read)?, median(false, read)?);
        Some(with as f64 / without.max(1) as f64)
    };
    Ratios {
        start_p50: ratio(|phase| Some(phase.start_us?.p50)),
        start_p99: ratio(|phase| Some(phase.start_us?.p99)),
        run_p50: ratio(|phase| Some(phase.run_us?.p50)),
        run_p99: ratio(|phase| Some(phase.run_us?.p99)),
    }
}

/// Accepts on a thread of its own and never answers; everything is closed when it is dropped.
struct Tool {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Tool {
    fn start() -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (open, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (open.clone(), stop.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("hung-tool".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                while !stopped.load(Ordering::Relaxed) {
                    if let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(hold(stream, counted.clone()));
                    }
                }
            });
        })?;
        Ok(Self { address, open, stop, thread: Some(thread) })
    }

    /// Calls that wait now.
    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Until no more calls arrive.
    async fn settle(&self) {
        let mut before = usize::MAX;
        while before != self.open() {
            before = self.open();
            tokio::time::sleep(SETTLED).await;
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It looks at `stop` after every connection.
        drop(std::net::TcpStream::connect(self.address));
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Reads what comes until the other side gives up.
async fn hold(mut stream: tokio::net::TcpStream, open: Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::Relaxed);
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    open.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Behaviour, Fake};

    #[derive(clap::Parser)]
    struct Wrapper {
        #[command(flatten)]
        hung: HungTool,
    }

    fn asked(fake: &Fake, more: &[&str]) -> HungTool {
        use clap::Parser as _;
        let url = format!("http://{}", fake.address);
        let common = ["x", "--url", &url, "--duration", "200ms", "--warmup", "0s", "--rounds", "3"];
        Wrapper::parse_from(common.iter().chain(more)).hung
    }

    // F003
    #[test]
    fn a_node_that_minds_hung_runs_is_told_from_one_that_does_not() {
        let load = ["--rate", "200", "--hung-calls", "5", "--silent-leases", "2", "--connections", "4"];
        let fake = Fake::start(Behaviour::default());
        let report = run(&asked(&fake, &load)).unwrap();
        assert_eq!(
            (report.phases.len(), report.hung_calls, report.silent_leases),
            (6, 0, 0),
            "a fake hangs nowhere"
        );
        assert!(report.ratio.start_p50.unwrap() < 8.0, "{}", report.summary());
        drop(fake);
        let fake = Fake::start(Behaviour { minds_hung: true, ..Behaviour::default() });
        let report = run(&asked(&fake, &load)).unwrap();
        assert!(report.ratio.start_p50.unwrap() > 8.0, "{}", report.summary());
        assert!(report.to_json().contains("\"start_p99\""));
    }

    #[test]
    fn the_tool_takes_calls_and_answers_none() {
        let tool = Tool::start().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let calls = [tokio::net::TcpStream::connect(tool.address).await.unwrap(), {
                tokio::net::TcpStream::connect(tool.address).await.unwrap()
            }];
            while tool.open() < 2 {
                tokio::task::yield_now().await;
            }
            drop(calls);
            while tool.open() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let fake = Fake::start(Behaviour::default());
        for (more, flag) in [
            (["--rate", "max"], "--rate"),
            (["--hung-calls", "10001"], "--hung-calls"),
            (["--silent-leases", "1001"], "--silent-leases"),
        ] {
            let mut more = more.to_vec();
            if flag != "--rate" {
                more.extend(["--rate", "100"]);
            }
            let error = run(&asked(&fake, &more)).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
    }
}
