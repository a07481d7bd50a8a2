//! `changes`: agents patch runs and humans decide reviews, beside a load of runs that nobody touches.
//!
//! First the load's own maximum is found (closed loop), unless `--rate` names one. Then the load alone and the load with
//! changes are measured by turns, at `--share` of that maximum, on one node within one process, so that what the machine
//! does meanwhile falls on both.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::control::Node;
use crate::options::{Options, Rate};
use crate::record::{Percentiles, Record};
use crate::run::{Error, at_rest, join, spawn, window};
use crate::session::{self, Plan, Seen};

const ROUNDS_MAX: usize = 100;
const RATE_MAX: f64 = 100_000.0;
const PATCHES_PER_RUN_MAX: u32 = 1_000;
const CONNECTIONS_MAX: usize = 1_024;

/// Flags of `aob-loadgen changes`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Changes {
    #[command(flatten)]
    pub(crate) run: crate::options::Run,
    /// Of the load's maximum, when `--rate` is `max`.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) share: f64,
    /// Patches a second.
    #[arg(long, default_value_t = 2_000.0)]
    pub(crate) patches: f64,
    /// Patches that one run takes.
    #[arg(long, default_value_t = 10)]
    pub(crate) patches_per_run: u32,
    /// Reviews decided a second.
    #[arg(long, default_value_t = 500.0)]
    pub(crate) approvals: f64,
    /// Connections of those who patch, and as many of those who decide.
    #[arg(long, default_value_t = 32)]
    pub(crate) desks: usize,
    /// How often both are measured.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
}

/// What was seen, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ChangesReport {
    durability: Option<String>,
    /// Starts a second of the load that nobody touches.
    rate: f64,
    share: Option<f64>,
    patches_asked_per_s: f64,
    patches_per_run: u32,
    approvals_asked_per_s: f64,
    /// In order: alone, with changes, alone, ...
    phases: Vec<Phase>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
struct Phase {
    changes: bool,
    /// Starts acknowledged a second.
    starts_per_s: f64,
    start_us: Option<Percentiles>,
    run_us: Option<Percentiles>,
    errors: BTreeMap<String, u64>,
    patches_per_s: Option<f64>,
    patch_us: Option<Percentiles>,
    decisions_per_s: Option<f64>,
    decision_us: Option<Percentiles>,
    /// From the decision to the end of its run, both requests included.
    resumed_us: Option<Percentiles>,
    /// How late sessions began.
    late_us: Option<Percentiles>,
    change_errors: BTreeMap<String, u64>,
}

impl ChangesReport {
    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The same in a few lines for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("beside {:.0} starts/s\n", self.rate);
        for phase in &self.phases {
            let name = if phase.changes { "with changes" } else { "alone" };
            let _ = writeln!(text, "  {name}: {:.0} starts/s", phase.starts_per_s);
            for (what, per_s, figures) in [
                ("start", None, phase.start_us),
                ("run", None, phase.run_us),
                ("patch", phase.patches_per_s, phase.patch_us),
                ("decision", phase.decisions_per_s, phase.decision_us),
                ("resumed", None, phase.resumed_us),
                ("late", None, phase.late_us),
            ] {
                if let Some(p) = figures {
                    let per_s = per_s.map(|per_s| format!("{per_s:.0}/s, ")).unwrap_or_default();
                    let _ = writeln!(text, "    {what:<9} {per_s}p50 {} us, p99 {} us", p.p50, p.p99);
                }
            }
            for (kind, count) in phase.errors.iter().chain(&phase.change_errors) {
                let _ = writeln!(text, "    {count} x {kind}");
            }
        }
        text
    }
}

/// Measures and reports.
pub(crate) fn run(asked: &Changes) -> Result<ChangesReport, Error> {
    let options = asked.run.resolve().map_err(|error| Error::Usage(error.to_string()))?;
    for (flag, value, least, most) in [
        ("rounds", asked.rounds as f64, 1.0, ROUNDS_MAX as f64),
        ("share", asked.share, 0.01, 1.0),
        ("patches", asked.patches, 0.0, RATE_MAX),
        ("patches-per-run", f64::from(asked.patches_per_run), 1.0, f64::from(PATCHES_PER_RUN_MAX)),
        ("approvals", asked.approvals, 0.0, RATE_MAX),
        ("desks", asked.desks as f64, 1.0, CONNECTIONS_MAX as f64),
    ] {
        if !(least..=most).contains(&value) {
            return Err(Error::Usage(format!("--{flag} {value}: from {least} to {most}")));
        }
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    runtime.block_on(course(asked, options))
}

async fn course(asked: &Changes, mut options: Options) -> Result<ChangesReport, Error> {
    let node = Node { address: options.address, host: options.host.clone() };
    node.register(options.shape).await?;
    for document in session::documents() {
        node.ok("POST", "/v1/workflows", "", document.to_string().as_bytes()).await?;
    }
    node.trial(options.shape).await?;
    let share = (options.rate == Rate::Max).then_some(asked.share);
    let rate = match options.rate {
        Rate::PerSecond(rate) => rate,
        Rate::Max => {
            let most = join(spawn(&options, window(&options))?).await?;
            most.acknowledged_in_window as f64 / options.duration.as_secs_f64() * asked.share
        }
    };
    options.rate = Rate::PerSecond(rate.max(1.0));
    let plan = Plan {
        address: options.address,
        host: options.host.clone(),
        patches: asked.patches,
        patches_per_run: asked.patches_per_run,
        approvals: asked.approvals,
        connections: asked.desks,
    };
    let durability = node.describe().await.get("durability").and_then(Value::as_str).map(str::to_owned);
    let mut report = ChangesReport {
        durability,
        rate,
        share,
        patches_asked_per_s: asked.patches,
        patches_per_run: asked.patches_per_run,
        approvals_asked_per_s: asked.approvals,
        phases: Vec::new(),
    };
    for _ in 0..asked.rounds {
        for changes in [false, true] {
            at_rest(&node, &options, |_| true).await?;
            report.phases.push(measure(&options, changes.then_some(&plan)).await?);
        }
    }
    at_rest(&node, &options, |_| true).await?;
    Ok(report)
}

async fn measure(options: &Options, plan: Option<&Plan>) -> Result<Phase, Error> {
    let window = window(options);
    let threads = spawn(options, window)?;
    let held = plan.cloned().map(|plan| {
        let builder = std::thread::Builder::new().name("sessions".into());
        builder.spawn(move || session::hold(&plan, window)).map_err(|error| Error::Thread(error.to_string()))
    });
    let held = held.transpose()?;
    let record = join(threads).await?;
    let seen = match held {
        None => None,
        Some(held) => {
            while !held.is_finished() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let seen = held.join().map_err(|_| Error::Thread("panic".into()))?;
            Some(seen.map_err(|error| Error::Thread(error.to_string()))?)
        }
    };
    Ok(phase(options, &record, seen))
}

fn phase(options: &Options, record: &Record, seen: Option<Seen>) -> Phase {
    let seconds = options.duration.as_secs_f64();
    let changes = seen.is_some();
    let seen = seen.unwrap_or_default();
    let per_s = |count: u64| changes.then_some(count as f64 / seconds);
    Phase {
        changes,
        starts_per_s: record.acknowledged_in_window as f64 / seconds,
        start_us: record.start.summary(),
        run_us: record.run.summary(),
        errors: record.errors.clone(),
        patches_per_s: per_s(seen.patches),
        patch_us: seen.patch.summary(),
        decisions_per_s: per_s(seen.decisions),
        decision_us: seen.decision.summary(),
        resumed_us: seen.resumed.summary(),
        late_us: seen.late.summary(),
        change_errors: seen.errors,
    }
}
