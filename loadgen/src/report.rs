//! What is reported. Figures that the node does not give are null, never guessed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::agent::{Answers, overhead};
use crate::host::Host;
use crate::jobs::Seen;
use crate::options::{Arrivals, Options, Rate};
use crate::reconcile::Counts;
use crate::record::Percentiles;
use crate::series::{Second, Steady};
use crate::shape::Shape;

/// The report, as JSON.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// When the load began, as RFC 3339.
    pub(crate) began_at: String,
    pub(crate) shape: Shape,
    pub(crate) durability: Option<String>,
    pub(crate) mode: String,
    /// Completed runs a second in the measured window, by the node's counters.
    pub(crate) runs_per_s: f64,
    pub(crate) node_executions_per_s: Option<f64>,
    /// Scheduled moment to acknowledged (durable) start.
    pub(crate) start_us: Option<Percentiles>,
    /// Scheduled moment to finished run, of the sample that waited.
    pub(crate) run_us: Option<Percentiles>,
    /// Of a shape with an agent: answers of the model a second in the window, by the node's counter.
    pub(crate) decisions_per_s: Option<f64>,
    /// Of a shape with an agent: `run_us` less what the model held its answer back.
    pub(crate) overhead_us: Option<Percentiles>,
    /// Of a shape with an agent: the model's own account.
    pub(crate) model: Option<Answers>,
    pub(crate) hop_us: Hops,
    /// Of shapes with tasks: jobs completed a second in all (warm-up and rest included), and those not taken.
    pub(crate) jobs: Option<Jobs>,
    /// CPU time of the node's process in the window, by completed run.
    pub(crate) cpu_us_per_run: Option<f64>,
    /// By kind, warm-up included.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) host: Host,
    pub(crate) node: About,
    pub(crate) load: Load,
    /// Whether the window was in a steady state; null when it was too short to say.
    pub(crate) steady: Option<Steady>,
    /// By second, warm-up included.
    pub(crate) series: Vec<Second>,
    /// Quantile and microseconds of `start_us` and `run_us`.
    pub(crate) curves: Curves,
    pub(crate) reconciled: Counts,
    pub(crate) generator: Generator,
}

/// The node that was put under load, in its own words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct About {
    pub(crate) version: Option<String>,
    /// Cores by plane.
    pub(crate) cores: BTreeMap<String, Vec<u64>>,
    /// What the runner plane runs on.
    pub(crate) driver: Option<String>,
}

impl About {
    /// From `/v1/node`.
    pub(crate) fn read(node: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let planes = node.get("planes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let cores = |plane: &Value| {
            let threads =
                plane.get("threads").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            threads.iter().filter_map(|thread| thread.get("core").and_then(Value::as_u64)).collect()
        };
        let named = |plane: &Value| Some((text(plane, "name")?, cores(plane)));
        let runner = planes.iter().find(|plane| text(plane, "name").as_deref() == Some("runner"));
        Self {
            version: text(node, "version"),
            cores: planes
                .iter()
                .filter_map(named)
                .filter(|(_, cores): &(_, Vec<u64>)| !cores.is_empty())
                .collect(),
            driver: runner.and_then(|plane| text(plane, "runtime")),
        }
    }
}

/// For a picture of percentiles.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Curves {
    pub(crate) start: Vec<(f64, u64)>,
    pub(crate) run: Vec<(f64, u64)>,
}

/// Completion accepted by the owner to successor released: `pure` as the node measured it, `effect` as the generator's
/// workers did, from sending a completion to reading the run's next job.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Hops {
    pub(crate) pure: Option<Hop>,
    pub(crate) effect: Option<Hop>,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Hop {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// What the generator's workers did.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Jobs {
    pub(crate) completed: u64,
    pub(crate) refused: u64,
    pub(crate) workers: usize,
}

impl Report {
    /// Adds what the workers saw.
    pub(crate) fn worked(&mut self, seen: &Seen) {
        self.jobs = Some(Jobs { completed: seen.jobs, refused: seen.refused, workers: self.load.workers });
        let hop = seen.hops.summary();
        self.hop_us.effect = hop.map(|hop| Hop { p50: hop.p50 as f64, p99: hop.p99 as f64 });
    }
}

impl Report {
    /// Adds what the model says.
    pub(crate) fn answered(&mut self, per_s: f64, answers: Answers) {
        self.decisions_per_s = Some(per_s);
        self.overhead_us = overhead(self.run_us, answers.latency_ms);
        self.model = Some(answers);
    }
}

impl Hops {
    /// From `/v1/node`.
    pub(crate) fn read(node: &Value) -> Self {
        let figure =
            |kind: &str, name: &str| node.pointer(&format!("/hop/{kind}/{name}")).and_then(Value::as_f64);
        let hop = |kind| Some(Hop { p50: figure(kind, "p50_us")?, p99: figure(kind, "p99_us")? });
        Self { pure: hop("pure"), effect: hop("effect") }
    }
}

/// What was sent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    /// `open`: arrivals do not wait for replies. `closed`: they do, and latencies hide what a stall would have
    /// delayed.
    pub(crate) kind: &'static str,
    pub(crate) arrivals: Option<Arrivals>,
    pub(crate) rate_asked: Option<f64>,
    /// Acknowledged starts a second in the window.
    pub(crate) starts_per_s: f64,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    /// Those of a shape with tasks.
    pub(crate) workers: usize,
    pub(crate) warmup_s: f64,
    pub(crate) duration_s: f64,
}

impl Load {
    /// As asked for; `acknowledged` starts in the window.
    pub(crate) fn new(options: &Options, acknowledged: u64) -> Self {
        let (kind, arrivals, rate_asked) = match options.rate {
            Rate::Max => ("closed", None, None),
            Rate::PerSecond(rate) => ("open", Some(options.arrivals), Some(rate)),
        };
        let duration_s = options.duration.as_secs_f64();
        Self {
            kind,
            arrivals,
            rate_asked,
            starts_per_s: acknowledged as f64 / duration_s,
            connections: options.connections,
            threads: options.threads,
            workers: if options.shape.has_tasks() { options.workers } else { 0 },
            warmup_s: options.warmup.as_secs_f64(),
            duration_s,
        }
    }
}

/// What the generator cost, since it may share the node's cores.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Generator {
    pub(crate) version: &'static str,
    pub(crate) cpu_us_per_request: Option<f64>,
    /// Scheduled moment to sending; it is part of `start_us`. Grows when all connections are busy.
    pub(crate) lag_us: Option<Percentiles>,
    pub(crate) requests: u64,
}

impl Report {
    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The same in a few lines for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        let load = &self.load;
        let _ = writeln!(
            text,
            "{:?}, {} loop{}, {} connections, {} s",
            self.shape,
            load.kind,
            load.rate_asked.map(|rate| format!(" at {rate} starts/s")).unwrap_or_default(),
            load.connections,
            load.duration_s
        );
        let _ = writeln!(text, "  runs completed  {:>10.0} /s", self.runs_per_s);
        if let Some(nodes) = self.node_executions_per_s {
            let _ = writeln!(text, "  nodes executed  {nodes:>10.0} /s");
        }
        if let Some(decisions) = self.decisions_per_s {
            let _ = writeln!(text, "  decisions       {decisions:>10.0} /s");
        }
        for (name, figures) in [
            ("start", self.start_us),
            ("  sent late", self.generator.lag_us),
            ("run", self.run_us),
            ("  overhead", self.overhead_us),
        ] {
            if let Some(p) = figures {
                let _ = writeln!(text, "  {name:<14}  p50 {} us, p99 {} us, max {} us", p.p50, p.p99, p.max);
            }
        }
        if let Some(hop) = self.hop_us.effect {
            let _ = writeln!(text, "  effect hop      p50 {} us, p99 {} us", hop.p50, hop.p99);
        }
        for (name, figure) in
            [("node CPU", self.cpu_us_per_run), ("generator CPU", self.generator.cpu_us_per_request)]
        {
            if let Some(figure) = figure {
                let unit = if name == "node CPU" { "us a run" } else { "us a request" };
                let _ = writeln!(text, "  {name:<14}  {figure:>10.1} {unit}");
            }
        }
        if let Some(Steady { drift, is_steady: false, .. }) = self.steady {
            let _ = writeln!(text, "  not steady: {:+.1} % from the first half to the second", drift * 100.0);
        }
        if load.kind == "closed" {
            let _ = writeln!(text, "  closed loop: latencies are not corrected for coordinated omission");
        }
        for (kind, count) in &self.errors {
            let _ = writeln!(text, "  error {kind}: {count}");
        }
        text
    }
}
