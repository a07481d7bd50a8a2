//! The course of a load: register, try once, load, read counters at both ends of the window, wait for rest,
//! reconcile, report.

use std::time::Duration;

use aob::time::{Clock as _, SystemClock};
use serde_json::Value;

use crate::agent::{self, Model};
use crate::control::{self, Node, Sample};
use crate::hdr;
use crate::host::{self, Host};
use crate::jobs::Workers;
use crate::options::{Mode, Options};
use crate::pacer::now_us;
use crate::reconcile::{self, Counts};
use crate::record::Record;
use crate::report::{About, Curves, Generator, Hops, Load, Report};
use crate::series::Steady;
use crate::worker::{Window, work};

/// Time between the decision to begin and the first moment of the schedule, so that connections can open.
const LEAD_US: u64 = 100_000;
/// Between two looks at a node that comes to rest.
const REST_POLL: Duration = Duration::from_millis(50);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error(transparent)]
    Reconcile(#[from] reconcile::Error),
    #[error("no report: {active} runs were not finished {seconds} s after the load")]
    NoRest { active: u64, seconds: f64 },
    #[error("a sending thread failed: {0}")]
    Thread(String),
    #[error("{0}")]
    Node(String),
    #[error("the workers failed: {0}")]
    Workers(std::io::Error),
    #[error(transparent)]
    Model(#[from] agent::Error),
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Compare(#[from] crate::compare::Error),
    #[error("the log cannot be written: {0}")]
    Log(String),
    #[error("the runtime does not start: {0}")]
    Runtime(std::io::Error),
}

/// What was read of the node at one end of the window.
struct End {
    sample: Sample,
    node: Value,
}

/// Puts the load on the node and gives the report.
pub(crate) fn run(options: &Options) -> Result<Report, Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(course(options))
}

async fn course(options: &Options) -> Result<Report, Error> {
    let node = Node { address: options.address, host: options.host.clone() };
    node.register(options.shape).await?;
    let workers = options.shape.has_tasks().then(|| Workers::start(options));
    let workers = workers.transpose().map_err(Error::Workers)?;
    let mut model = match options.shape.has_agent() {
        true => Some(Model::start(&options.agent).await?),
        false => None,
    };
    let trial = node.trial(options.shape).await;
    let trial = match &mut model {
        Some(model) => model.tried(trial).await?,
        None => trial?,
    };
    at_rest(&node, options, |_| true).await?;
    let before = node.sample(options.shape).await?;
    let own_cpu_us = host::own_cpu_us();

    let began = SystemClock.now();
    let window = window(options);
    let threads = spawn(options, window)?;
    if let Some(workers) = &workers {
        workers.measure(window.measure_us, window.end_us);
    }
    until(window.measure_us).await;
    let from = end(&node, options).await;
    until(window.end_us).await;
    let to = end(&node, options).await;
    let record = join(threads).await?;
    // A failed reading counts only after the threads are done, so that none is left behind.
    let (from, to) = (from?, to?);
    let own_cpu_us = host::own_cpu_us().zip(own_cpu_us).map(|(after, before)| after.saturating_sub(before));

    let after =
        at_rest(&node, options, |sample| sample.finished >= before.finished + record.acknowledged).await?;
    let counts = Counts {
        acknowledged: record.acknowledged,
        started: after.started.saturating_sub(before.started),
        finished: after.finished.saturating_sub(before.finished),
    };
    counts.reconcile()?;
    if let Some(path) = &options.hdr {
        hdr::write(path, began, &record.seconds).map_err(Error::Log)?;
    }
    let mut report = report(options, &record, (&from, &to), counts);
    if let Some(model) = &model {
        let answers = model.reconcile((&before, &after)).await?;
        report.answered(per_s((&from, &to), |sample| sample.decisions), answers);
    }
    if let Some(seen) = workers.map(Workers::stop).transpose().map_err(Error::Workers)? {
        report.worked(&seen);
    }
    report.began_at = began.to_string();
    report.durability = text(&to.node, "durability").or_else(|| text(&trial, "durability"));
    report.generator.cpu_us_per_request = own_cpu_us.map(|us| us as f64 / record.sent.max(1) as f64);
    Ok(report)
}

/// The window of a load that begins now.
pub(crate) fn window(options: &Options) -> Window {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let start_us = now_us() + LEAD_US;
    let measure_us = start_us + micros(options.warmup);
    Window { start_us, measure_us, end_us: measure_us + micros(options.duration) }
}

pub(crate) type Threads = Vec<std::thread::JoinHandle<std::io::Result<Record>>>;

/// Starts the sending threads.
pub(crate) fn spawn(options: &Options, window: Window) -> Result<Threads, Error> {
    let thread = |part| {
        let options = options.clone();
        let builder = std::thread::Builder::new().name(format!("load-{part}"));
        builder.spawn(move || work(&options, window, part)).map_err(|error| Error::Thread(error.to_string()))
    };
    (0..options.threads).map(thread).collect()
}

/// What the sending threads saw, when they are done.
pub(crate) async fn join(threads: Threads) -> Result<Record, Error> {
    let mut record = Record::default();
    for thread in threads {
        // The threads end by themselves: every wait of theirs has a deadline. The runtime must go on meanwhile.
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let seen = thread.join().map_err(|_| Error::Thread("panic".into()))?;
        record.merge(&seen.map_err(|error| Error::Thread(error.to_string()))?);
    }
    Ok(record)
}

async fn end(node: &Node, options: &Options) -> Result<End, Error> {
    let sample = node.sample(options.shape).await?;
    Ok(End { sample, node: node.describe().await })
}

async fn until(at_us: u64) {
    tokio::time::sleep(Duration::from_micros(at_us.saturating_sub(now_us()))).await;
}

/// Waits until no run is active and `enough` holds; after the time allowed, only until none is active.
pub(crate) async fn at_rest(
    node: &Node,
    options: &Options,
    enough: impl Fn(&Sample) -> bool,
) -> Result<Sample, Error> {
    let started_us = now_us();
    loop {
        let sample = node.sample(options.shape).await?;
        let active = sample.active.unwrap_or_else(|| sample.started.saturating_sub(sample.finished));
        if active == 0 && enough(&sample) {
            return Ok(sample);
        }
        if now_us().saturating_sub(started_us)
            >= u64::try_from(options.quiesce.as_micros()).unwrap_or(u64::MAX)
        {
            return match active {
                0 => Ok(sample),
                _ => Err(Error::NoRest { active, seconds: options.quiesce.as_secs_f64() }),
            };
        }
        tokio::time::sleep(REST_POLL).await;
    }
}

/// How much a counter grew in a second of the window.
fn per_s((from, to): (&End, &End), counter: impl Fn(&Sample) -> u64) -> f64 {
    let seconds = to.sample.at_us.saturating_sub(from.sample.at_us).max(1) as f64 / 1e6;
    counter(&to.sample).saturating_sub(counter(&from.sample)) as f64 / seconds
}

fn report(options: &Options, record: &Record, (from, to): (&End, &End), reconciled: Counts) -> Report {
    let completed = to.sample.completed.saturating_sub(from.sample.completed);
    let nodes = to.sample.nodes_completed.zip(from.sample.nodes_completed);
    // Beside the version, or in a section of its own.
    let cpu_us = |end: &End| {
        ["/process/cpu_us", "/cpu_us"].iter().find_map(|at| end.node.pointer(at).and_then(Value::as_u64))
    };
    let cpu_us = cpu_us(to).zip(cpu_us(from)).map(|(to, from)| to.saturating_sub(from));
    let series = record.seconds.rows(options.warmup.as_secs_f64());
    Report {
        began_at: String::new(),
        shape: options.shape,
        durability: None,
        mode: options.mode.map_or("full", Mode::as_str).to_owned(),
        runs_per_s: per_s((from, to), |sample| sample.completed),
        node_executions_per_s: nodes
            .map(|_| per_s((from, to), |sample| sample.nodes_completed.unwrap_or_default())),
        start_us: record.start.summary(),
        run_us: record.run.summary(),
        decisions_per_s: None,
        overhead_us: None,
        model: None,
        hop_us: Hops::read(&to.node),
        jobs: None,
        cpu_us_per_run: cpu_us.filter(|_| completed > 0).map(|us| us as f64 / completed as f64),
        errors: record.errors.clone(),
        host: Host::read(),
        node: About::read(&to.node),
        steady: Steady::of(&series),
        series,
        curves: Curves { start: record.start.curve(), run: record.run.curve() },
        load: Load::new(options, record.acknowledged_in_window),
        reconciled,
        generator: Generator {
            version: env!("CARGO_PKG_VERSION"),
            cpu_us_per_request: None,
            lag_us: record.lag.summary(),
            requests: record.sent,
        },
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fake::{Behaviour, Fake};
    use crate::options::{Arrivals, Rate};
    use crate::shape::Shape;

    pub(crate) fn options(fake: &Fake, rate: Rate) -> Options {
        Options {
            address: fake.address,
            host: fake.address.to_string(),
            shape: Shape::Chain5,
            mode: None,
            rate,
            arrivals: Arrivals::Constant,
            duration: Duration::from_millis(600),
            warmup: Duration::from_millis(100),
            quiesce: Duration::from_millis(300),
            connections: 8,
            threads: 2,
            workers: 1,
            agent: agent::Asked { listen: ([127, 0, 0, 1], 0).into(), other: None, latency_ms: 0 },
            seed: 1,
            hdr: None,
        }
    }

    // F239
    #[test]
    fn an_open_loop_sends_what_was_asked_and_reports_what_the_node_counted() {
        let fake = Fake::start(Behaviour::default());
        let report = run(&options(&fake, Rate::PerSecond(1_000.0))).unwrap();
        // 100 ms of warm-up and 600 ms of window at 1,000 a second, and a sample. On a machine that is busy with
        // other things the last moments may pass unserved; they are counted all the same.
        let runs = report.reconciled.acknowledged;
        let unserved: u64 = report.errors.values().sum();
        assert_eq!(report.errors.keys().filter(|kind| *kind != "not_sent").count(), 0, "{:?}", report.errors);
        assert_eq!((runs + unserved, unserved < 200), (701, true), "{}", report.to_json());
        assert_eq!((report.reconciled.started, report.reconciled.finished), (runs, runs));
        assert_eq!((report.load.kind, report.durability.as_deref()), ("open", Some("fsync")));
        assert!(report.runs_per_s > 300.0 && report.runs_per_s < 3_000.0, "{}", report.runs_per_s);
        assert_eq!(report.start_us.unwrap().count, 600, "every moment of the window has its latency");
        assert_eq!(report.hop_us.pure, Some(crate::report::Hop { p50: 2.0, p99: 9.0 }));
        assert!(report.hop_us.effect.is_none() && report.cpu_us_per_run.is_some());
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json.pointer("/shape"), Some(&Value::from("chain5")));
        assert!(
            json.pointer("/hop_us/effect").unwrap().is_null() && report.summary().contains("runs completed")
        );
    }

    #[test]
    fn a_closed_loop_says_that_it_is_one() {
        let fake = Fake::start(Behaviour::default());
        let report = run(&options(&fake, Rate::Max)).unwrap();
        assert_eq!((report.load.kind, report.load.rate_asked), ("closed", None));
        assert!(report.reconciled.acknowledged > 100 && report.errors.is_empty(), "{}", report.to_json());
        assert!(report.summary().contains("not corrected"));
    }

    #[test]
    fn a_node_that_counts_otherwise_gets_no_report() {
        let fake = Fake::start(Behaviour { forgets_every: Some(50), ..Behaviour::default() });
        let error = run(&options(&fake, Rate::PerSecond(1_000.0))).unwrap_err();
        assert!(matches!(error, Error::Reconcile(reconcile::Error::Apart { .. })), "{error}");
    }

    // F234
    #[test]
    fn a_stall_of_the_node_shows_in_the_percentiles() {
        let fake = Fake::start(Behaviour { stalls_at: Some(300), ..Behaviour::default() });
        let report = run(&options(&fake, Rate::PerSecond(1_000.0))).unwrap();
        // 200 ms out of 600: a third of the arrivals waited, the first of them longest.
        let start = report.start_us.unwrap();
        assert!(start.p90 > 50_000 && start.max > 150_000, "{start:?}");
        assert_eq!(start.count, 600, "no arrival is left out");
    }

    #[test]
    fn refusals_are_counted_by_kind_and_no_node_is_an_error() {
        let fake = Fake::start(Behaviour { refuses_every: Some(10), ..Behaviour::default() });
        let report = run(&options(&fake, Rate::PerSecond(500.0))).unwrap();
        let refused = report.errors.get("http_503").copied().unwrap_or(0);
        assert!((20..=50).contains(&refused), "{:?}", report.errors);
        let gone = options(&fake, Rate::Max);
        drop(fake);
        assert!(matches!(run(&gone), Err(Error::Control(_))));
    }
}
