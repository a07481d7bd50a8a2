//! `run --shape stream`: who watches runs, how fast events reach them, and what that costs the node.
//!
//! Watched runs are chains of short delays, driven one after the other for as long as the load; readers are spread over them and go on
//! with the next when one ends. A latency counts from the event's `at` (milliseconds of the same machine's clock) to the moment it was
//! read. With `--rate` the node decides other runs beside it. Numbers that came twice or not at all are counted; both must be 0.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use aob::client::{Client, Events, Step, Streamed, Transport};
use aob::time::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::control::Node;
use crate::host::{self, Host};
use crate::options::{Options, Rate};
use crate::pacer::now_us;
use crate::record::{Latencies, Percentiles};
use crate::run::{Error, join, spawn, window};
use crate::shape::Shape;
use crate::worker::Window;

const SUBSCRIBERS_MAX: usize = 20_000;
const WATCHED_MAX: usize = 10_000;
pub(crate) const WORKFLOW: &str = "loadgen_stream";
/// Between two nodes of a watched run, when nobody says otherwise, milliseconds.
pub(crate) const PACE_MS: u64 = 10;
/// Delays of one watched run.
const DELAYS: usize = 200;
/// A reader looks at the clock at least this often.
const QUIET: Duration = Duration::from_millis(200);

/// Flags of the shape `stream`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Asked {
    /// Shape stream: how events come.
    #[arg(long, value_enum, default_value = "sse")]
    pub(crate) transport: Over,
    /// Shape stream: readers, over all watched runs.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) subscribers: usize,
    /// Shape stream: runs that are watched at a time.
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub(crate) watched: usize,
    /// Shape stream: between two nodes of a watched run, each of which has several events.
    #[arg(long, value_name = "N", default_value_t = PACE_MS)]
    pub(crate) pace_ms: u64,
    /// Shape stream, over QUIC: each reader moves to another port after so many events; 0: never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) migrate_every: u64,
}

/// How events come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Over {
    /// Server-sent events over HTTP/1.1.
    Sse,
    /// WebSocket.
    Ws,
    /// WebTransport.
    Wt,
    /// QUIC, `aob/1`.
    Quic,
}

impl From<Over> for Transport {
    fn from(over: Over) -> Self {
        match over {
            Over::Sse => Self::Sse,
            Over::Ws => Self::WebSocket,
            Over::Wt => Self::WebTransport,
            Over::Quic => Self::Quic,
        }
    }
}

/// The report, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    shape: Shape,
    transport: Over,
    subscribers: usize,
    watched_runs: usize,
    migrate_every: u64,
    duration_s: f64,
    /// Events that reached a reader in the window.
    delivered: u64,
    delivered_per_s: f64,
    /// `at` of the event to read.
    delivery_us: Option<Percentiles>,
    /// Numbers that did not come, until the reader came back for them; what a node promises is 0.
    gaps: u64,
    /// Numbers that came again; what a node promises is 0.
    duplicates: u64,
    /// Times that a stream was taken up again.
    reconnects: u64,
    /// Times that a reader changed its port.
    migrations: u64,
    /// CPU time of the node's process in the window, by delivered event; what runs beside it costs is in it.
    cpu_us_per_delivered: Option<f64>,
    /// Of the generator.
    own_cpu_us_per_delivered: Option<f64>,
    /// Runs beside it that were acknowledged in the window, a second.
    beside_per_s: f64,
    errors: BTreeMap<String, u64>,
    host: Host,
}

/// What the readers saw.
#[derive(Debug, Default)]
struct Seen {
    delivered: u64,
    delivery: Latencies,
    gaps: u64,
    duplicates: u64,
    reconnects: u64,
    migrations: u64,
    errors: BTreeMap<String, u64>,
}

impl Report {
    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The same in a few lines for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!(
            "stream over {:?}, {} subscribers of {} runs, {} s\n  delivered       {:>10.0} /s\n",
            self.transport, self.subscribers, self.watched_runs, self.duration_s, self.delivered_per_s
        );
        if let Some(p) = self.delivery_us {
            text += &format!("  delivery        p50 {} us, p99 {} us, max {} us\n", p.p50, p.p99, p.max);
        }
        if let Some(cpu) = self.cpu_us_per_delivered {
            text += &format!("  node CPU        {cpu:>10.2} us an event\n");
        }
        text += &format!(
            "  gaps {}, duplicates {}, reconnects {}, migrations {}\n",
            self.gaps, self.duplicates, self.reconnects, self.migrations
        );
        for (kind, count) in &self.errors {
            text += &format!("  error {kind}: {count}\n");
        }
        text
    }
}

/// Puts the load on the node and gives the report.
pub(crate) fn run(options: &Options, asked: &Asked) -> Result<Report, Error> {
    for (flag, value, max) in
        [("subscribers", asked.subscribers, SUBSCRIBERS_MAX), ("watched", asked.watched, WATCHED_MAX)]
    {
        if !(1..=max).contains(&value) {
            return Err(Error::Usage(format!("--{flag} {value}: expected 1 to {max}")));
        }
    }
    if !(1..=60_000).contains(&asked.pace_ms) {
        return Err(Error::Usage(format!("--pace-ms {}: expected 1 to 60000", asked.pace_ms)));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, course(options, asked))
}

async fn course(options: &Options, asked: &Asked) -> Result<Report, Error> {
    let node = Node { address: options.address, host: options.host.clone() };
    let beside = Options { shape: Shape::Chain5, ..options.clone() };
    node.register(beside.shape).await?;
    node.ok("POST", "/v1/workflows", "", document(asked.pace_ms).to_string().as_bytes()).await?;
    let window = window(options);
    // `max` would leave the node no time for anything else.
    let threads = match options.rate {
        Rate::Max => Vec::new(),
        Rate::PerSecond(_) => spawn(&beside, window)?,
    };
    let seen = Rc::new(RefCell::new(Seen::default()));
    let mut tasks = Vec::new();
    let mut runs = Vec::new();
    let pace = Duration::from_millis(asked.pace_ms) / u32::try_from(asked.watched).unwrap_or(u32::MAX);
    for _ in 0..asked.watched {
        let (sender, receiver) = watch::channel(String::new());
        tasks.push(tokio::task::spawn_local(drive(node.clone(), window, sender, seen.clone())));
        // Else all of them would go on in the same moment.
        tokio::time::sleep(pace).await;
        runs.push(receiver);
    }
    let begun_us = now_us().min(window.measure_us);
    for (at, run) in runs.iter().cycle().take(asked.subscribers).enumerate() {
        let reader = Reader {
            url: format!("http://{}", options.host),
            asked: asked.clone(),
            window,
            seen: seen.clone(),
        };
        tasks.push(tokio::task::spawn_local(reader.read(run.clone())));
        // All at once would be a test of something else: they come over a good half of the warm-up.
        let share = (at as u64 + 1) * 6 / 10;
        until(begun_us + (window.measure_us - begun_us) * share / asked.subscribers as u64).await;
    }
    until(window.measure_us).await;
    let (from, own) = (cpu_us(&node).await, host::own_cpu_us());
    until(window.end_us).await;
    let (to, own_after) = (cpu_us(&node).await, host::own_cpu_us());
    let record = join(threads).await?;
    for task in tasks {
        task.await.map_err(|error| Error::Thread(error.to_string()))?;
    }
    let seen = seen.borrow();
    let each =
        |span: Option<u64>| span.filter(|_| seen.delivered > 0).map(|us| us as f64 / seen.delivered as f64);
    let grown = |to: Option<u64>, from: Option<u64>| Some(to?.saturating_sub(from?));
    let duration_s = options.duration.as_secs_f64();
    let mut errors = seen.errors.clone();
    errors.extend(record.errors.iter().map(|(kind, count)| (format!("beside_{kind}"), *count)));
    Ok(Report {
        shape: Shape::Stream,
        transport: asked.transport,
        subscribers: asked.subscribers,
        watched_runs: asked.watched,
        migrate_every: asked.migrate_every,
        duration_s,
        delivered: seen.delivered,
        delivered_per_s: seen.delivered as f64 / duration_s,
        delivery_us: seen.delivery.summary(),
        gaps: seen.gaps,
        duplicates: seen.duplicates,
        reconnects: seen.reconnects,
        migrations: seen.migrations,
        cpu_us_per_delivered: each(grown(to, from)),
        own_cpu_us_per_delivered: each(grown(own_after, own)),
        beside_per_s: record.acknowledged_in_window as f64 / duration_s,
        errors,
        host: Host::read(),
    })
}

async fn until(at_us: u64) {
    tokio::time::sleep(Duration::from_micros(at_us.saturating_sub(now_us()))).await;
}

async fn cpu_us(node: &Node) -> Option<u64> {
    node.describe().await.get("cpu_us").and_then(Value::as_u64)
}

/// A chain of delays.
pub(crate) fn document(pace_ms: u64) -> Value {
    let id = |at: usize| format!("d{at}");
    let nodes: serde_json::Map<String, Value> = (0..DELAYS)
        .map(|at| (id(at), json!({"type": "delay", "with": {"for": format!("{pace_ms}ms")}})))
        .collect();
    let edges: Vec<Value> = (1..DELAYS).map(|at| json!({"from": id(at - 1), "to": id(at)})).collect();
    // Another pace is another document.
    json!({"aob": "1", "name": WORKFLOW, "version": format!("1.{pace_ms}"), "nodes": nodes, "edges": edges})
}

/// One run after the other until the end of the window; an empty id says that it is over.
async fn drive(node: Node, window: Window, current: watch::Sender<String>, seen: Rc<RefCell<Seen>>) {
    let body = json!({"workflow": WORKFLOW}).to_string();
    while now_us() < window.end_us {
        let started = node.ok("POST", "/v1/runs", "", body.as_bytes()).await;
        let started: Option<Value> = started.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let Some(run) = started.as_ref().and_then(|run| run.get("run_id")?.as_str()) else {
            *seen.borrow_mut().errors.entry("run_not_started".into()).or_default() += 1;
            tokio::time::sleep(QUIET).await;
            continue;
        };
        current.send_replace(run.to_owned());
        loop {
            let left = Duration::from_micros(window.end_us.saturating_sub(now_us()));
            let wait = format!("prefer: wait={}\r\n", left.as_secs().clamp(1, 10));
            let path = format!("/v1/runs/{run}");
            let asked = tokio::time::timeout(left, node.ok("GET", &path, &wait, b"")).await;
            let Ok(Ok(reply)) = asked else { break };
            let reply: Value = serde_json::from_slice(&reply).unwrap_or_default();
            if reply.get("ended_at").is_some_and(|ended| !ended.is_null()) {
                break;
            }
        }
        if now_us() >= window.end_us {
            let _ = node.ok("POST", &format!("/v1/runs/{run}/terminate"), "", b"").await;
        }
    }
}

struct Reader {
    url: String,
    asked: Asked,
    window: Window,
    seen: Rc<RefCell<Seen>>,
}

impl Reader {
    /// Reads one run after the other.
    async fn read(self, mut runs: watch::Receiver<String>) {
        let mut before = String::new();
        let mut events = None;
        while now_us() < self.window.end_us {
            let run = runs.borrow_and_update().clone();
            if run == before {
                let left = Duration::from_micros(self.window.end_us.saturating_sub(now_us()));
                if tokio::time::timeout(left, runs.changed()).await.is_ok_and(|changed| changed.is_err()) {
                    return;
                }
                continue;
            }
            if let Err(error) = Box::pin(self.follow(&mut events, &run)).await {
                *self.seen.borrow_mut().errors.entry(error.code().to_owned()).or_default() += 1;
            }
            before = run;
        }
        if let Some(events) = events {
            let mut seen = self.seen.borrow_mut();
            seen.gaps += events.missed();
            seen.duplicates += events.repeated();
        }
    }

    async fn follow(&self, events: &mut Option<Events>, run: &str) -> Result<(), aob::client::Error> {
        let events = match events {
            Some(events) => {
                events.turn_to(run, 0);
                events
            }
            None => events.insert(Client::new(&self.url)?.events_over(self.asked.transport.into(), run, 0)),
        };
        let mut since = 0;
        while now_us() < self.window.end_us {
            match events.step_within(QUIET).await? {
                Step::Streamed(Streamed::Event(event)) => {
                    self.took(&event.data);
                    since += 1;
                    if self.asked.migrate_every > 0 && since % self.asked.migrate_every == 0 {
                        let moved = events.rebind().unwrap_or(false);
                        self.seen.borrow_mut().migrations += u64::from(moved);
                    }
                }
                Step::Streamed(Streamed::Reconnecting { .. }) => self.seen.borrow_mut().reconnects += 1,
                Step::Streamed(Streamed::Aside(_)) | Step::Quiet => {}
                Step::Ended => break,
            }
        }
        Ok(())
    }

    fn took(&self, data: &str) {
        let read = SystemClock.now();
        if !(self.window.measure_us..self.window.end_us).contains(&now_us()) {
            return;
        }
        let mut seen = self.seen.borrow_mut();
        seen.delivered += 1;
        // Of what came late because the reader did, the moment of durability says nothing.
        if let Some(at) = at(data) {
            seen.delivery.record(at.as_micros(), read.as_micros());
        }
    }
}

/// When the event was.
fn at(data: &str) -> Option<Timestamp> {
    let (_, rest) = data.split_once("\"at\":\"")?;
    rest.split_once('"')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_an_event_is_found_in_its_row() {
        let row =
            r#"{"seq":3,"type":"node.completed","node":"d1","at":"2026-11-21T08:00:00.123Z","output":42}"#;
        assert_eq!(at(row).unwrap().to_string(), "2026-11-21T08:00:00.123Z");
        assert_eq!(at("{}"), None);
    }

    // F235
    #[test]
    fn a_watched_run_is_a_chain_of_delays() {
        let document = document(7);
        assert_eq!(document["nodes"].as_object().unwrap().len(), DELAYS);
        assert_eq!(document["edges"].as_array().unwrap().len(), DELAYS - 1);
        assert_eq!(document["nodes"]["d3"]["with"]["for"], "7ms");
    }
}
