//! Two sides of a comparison, each of one report or several: how many times as much B has of each figure as A, and how sure that is.
//!
//! Intervals are of 95 %, by bootstrap: samples are drawn again, with replacement, and the ratio is taken each time. With three reports or
//! more on each side a sample is a report; otherwise it is five seconds of the one series, for seconds next to each other are alike, and a
//! latency is the mean of those of each second. What is not alike is not compared: the message names every fact that differs.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::random::Random;
use crate::series::mean;

/// How often samples are drawn again.
const DRAWS: usize = 4_000;
/// Reports on a side from which on each is a sample.
const REPORTS_MIN: usize = 3;
/// Seconds in a sample of a series.
const BLOCK_SECONDS: usize = 5;
/// Samples below which there is no interval.
const SAMPLES_MIN: usize = 3;

/// What must be the same on both sides: what it is called, and where it stands in a report.
const FACTS: [(&str, &str); 13] = [
    ("shape", "/shape"),
    ("durability", "/durability"),
    ("mode", "/mode"),
    ("load", "/load/kind"),
    ("arrivals", "/load/arrivals"),
    ("rate", "/load/rate_asked"),
    ("connections", "/load/connections"),
    ("threads", "/load/threads"),
    ("workers", "/load/workers"),
    ("kernel", "/host/kernel"),
    ("cpus", "/host/cpus"),
    ("processor", "/host/model"),
    ("cores", "/node/cores"),
];

/// Figures: what they are called, where they stand in a report, and in a second of its series.
const FIGURES: [(&str, &str, Option<&str>); 9] = [
    ("runs/s", "/runs_per_s", None),
    ("starts/s", "/load/starts_per_s", Some("starts")),
    ("start p50 us", "/start_us/p50", Some("p50")),
    ("start p99 us", "/start_us/p99", Some("p99")),
    ("start max us", "/start_us/max", Some("max")),
    ("run p50 us", "/run_us/p50", None),
    ("run p99 us", "/run_us/p99", None),
    ("effect hop p99 us", "/hop_us/effect/p99", None),
    ("node CPU us/run", "/cpu_us_per_run", None),
];

/// Flags of `aob-loadgen compare`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Compare {
    /// Reports of one side, with commas between.
    #[arg(value_delimiter = ',', required = true)]
    pub(crate) a: Vec<PathBuf>,
    /// Reports of the other side.
    #[arg(value_delimiter = ',', required = true, num_args = 1)]
    pub(crate) b: Vec<PathBuf>,
    /// A fact that may differ, for it is what is compared (`durability`, `cores`, ...).
    #[arg(long, value_name = "FACT")]
    pub(crate) across: Vec<String>,
    /// Write the comparison there instead of stdout.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// There is no comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}: {cause}", path = .0.display(), cause = .1)]
    Read(PathBuf, String),
    #[error("not alike: {0}; a fact that is what is compared is named with --across")]
    Unlike(String),
    #[error("--across {0}: expected one of {all}", all = FACTS.map(|(name, _)| name).join(", "))]
    NoFact(String),
}

/// One figure on both sides.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) figure: &'static str,
    /// Mean over the samples of a side.
    pub(crate) a: f64,
    pub(crate) b: f64,
    /// B by A.
    pub(crate) ratio: f64,
    /// 95 %; null where there are too few samples.
    pub(crate) interval: Option<(f64, f64)>,
}

/// The comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    /// What a sample was.
    pub(crate) sample: &'static str,
    pub(crate) reports: (usize, usize),
    /// Sides that were not in a steady state.
    pub(crate) unsteady: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
}

/// A report as it was written.
pub(crate) fn read(path: &PathBuf) -> Result<Value, Error> {
    let failed = |cause: String| Error::Read(path.clone(), cause);
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let report: Value = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    match report.get("shape").is_some() && report.get("load").is_some() {
        true => Ok(report),
        false => Err(failed("not a report of `aob-loadgen run`".to_owned())),
    }
}

/// Compares.
pub(crate) fn run(asked: &Compare) -> Result<Comparison, Error> {
    if let Some(name) = asked.across.iter().find(|name| !FACTS.iter().any(|(fact, _)| fact == name)) {
        return Err(Error::NoFact(name.clone()));
    }
    let side = |paths: &[PathBuf]| paths.iter().map(read).collect::<Result<Vec<_>, _>>();
    let (a, b) = (side(&asked.a)?, side(&asked.b)?);
    alike(&a, &b, &asked.across)?;
    Ok(compare(&a, &b))
}

fn alike(a: &[Value], b: &[Value], across: &[String]) -> Result<(), Error> {
    let mut unlike = Vec::new();
    for (name, at) in FACTS.iter().filter(|(name, _)| !across.iter().any(|one| one == name)) {
        let mut seen: Vec<String> = Vec::new();
        for report in a.iter().chain(b) {
            let fact = report.pointer(at).unwrap_or(&Value::Null).to_string();
            if !seen.contains(&fact) {
                seen.push(fact);
            }
        }
        if seen.len() > 1 {
            unlike.push(format!("{name} is {}", seen.join(" and ")));
        }
    }
    if unlike.is_empty() { Ok(()) } else { Err(Error::Unlike(unlike.join("; "))) }
}

fn compare(a: &[Value], b: &[Value]) -> Comparison {
    let by_report = a.len().min(b.len()) >= REPORTS_MIN;
    let unsteady = |reports: &[Value]| {
        reports.iter().any(|report| report.pointer("/steady/is_steady") == Some(&Value::Bool(false)))
    };
    let sides =
        [("a", a), ("b", b)].into_iter().filter(|(_, reports)| unsteady(reports)).map(|(name, _)| name);
    let rows = FIGURES.iter().filter_map(|figure| row(figure, by_report, a, b)).collect();
    let sample = if by_report { "a report" } else { "five seconds" };
    Comparison { sample, reports: (a.len(), b.len()), unsteady: sides.collect(), rows }
}

fn row(
    (figure, at, in_second): &(&'static str, &'static str, Option<&'static str>),
    by_report: bool,
    a: &[Value],
    b: &[Value],
) -> Option<Row> {
    let whole = |reports: &[Value]| -> Vec<f64> {
        reports.iter().filter_map(|report| report.pointer(at).and_then(Value::as_f64)).collect()
    };
    let wholes = (whole(a), whole(b));
    if wholes.0.is_empty() || wholes.1.is_empty() {
        return None;
    }
    let blocks = in_second.filter(|_| !by_report).map(|key| (blocks(a, key), blocks(b, key)));
    let blocks = blocks.filter(|(a, b)| a.len().min(b.len()) >= SAMPLES_MIN);
    let sampled = by_report || blocks.is_some();
    let (a, b) = blocks.unwrap_or(wholes);
    let interval = sampled.then(|| interval(&a, &b)).flatten();
    let (a, b) = (mean(&a), mean(&b));
    Some(Row { figure, a, b, ratio: b / a, interval })
}

/// The means of five seconds each, of the measured windows; what is left over at the end is left out.
fn blocks(reports: &[Value], key: &str) -> Vec<f64> {
    let mut blocks = Vec::new();
    for report in reports {
        let rows = report.get("series").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let window =
            rows.iter().filter(|row| row.get("at_s").and_then(Value::as_f64).is_some_and(|at| at >= 0.0));
        let values: Vec<f64> = window.filter_map(|row| row.get(key).and_then(Value::as_f64)).collect();
        blocks.extend(values.chunks_exact(BLOCK_SECONDS).map(mean));
    }
    blocks
}

/// Of the ratio of means, 95 %.
fn interval(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    if a.len().min(b.len()) < SAMPLES_MIN {
        return None;
    }
    let mut random = Random::new(1);
    let mut again = |samples: &[f64]| {
        let drawn = (0..samples.len()).filter_map(|_| samples.get(random.below(samples.len())));
        drawn.sum::<f64>() / samples.len() as f64
    };
    let mut ratios: Vec<f64> = (0..DRAWS).map(|_| again(b) / again(a)).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| ratios.get((part * DRAWS as f64) as usize).copied();
    Some((at(0.025)?, at(0.975)?))
}

impl Comparison {
    /// One JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// A table for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{:<18} {:>12} {:>12} {:>8}   95 %\n", "", "A", "B", "B / A");
        for Row { figure, a, b, ratio, interval } in &self.rows {
            let _ = write!(text, "{figure:<18} {a:>12.1} {b:>12.1} {ratio:>8.3}   ");
            let _ = match interval {
                Some((low, high)) if (*low..=*high).contains(&1.0) => {
                    writeln!(text, "{low:.3} .. {high:.3}  no difference shown")
                }
                Some((low, high)) => writeln!(text, "{low:.3} .. {high:.3}"),
                None => writeln!(text, "too few samples"),
            };
        }
        let (a, b) = self.reports;
        let _ = writeln!(text, "{a} and {b} reports; a sample is {}", self.sample);
        for side in &self.unsteady {
            let _ = writeln!(text, "{} was not in a steady state", side.to_uppercase());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(starts: u64, spread: u64) -> Value {
        let second = |at: u64| json!({"at_s": at as f64 - 2.0, "starts": starts + at * 7_919 % spread, "p50": 300, "p99": 900, "max": 950});
        json!({"shape": "chain5", "durability": "fsync", "mode": "full", "runs_per_s": starts, "host": {"cpus": 2},
            "start_us": {"p50": 300, "p99": 900, "max": 950}, "cpu_us_per_run": 20.0,
            "load": {"kind": "closed", "connections": 64, "starts_per_s": starts}, "series": (0..62).map(second).collect::<Vec<_>>()})
    }

    fn of<'a>(comparison: &'a Comparison, figure: &str) -> &'a Row {
        comparison.rows.iter().find(|row| row.figure == figure).unwrap()
    }

    // F239
    #[test]
    fn a_tenth_more_is_told_from_noise_and_noise_is_not_told_from_nothing() {
        let comparison = compare(&[report(10_000, 500)], &[report(11_000, 500)]);
        let row = of(&comparison, "starts/s");
        let (low, high) = row.interval.unwrap();
        assert!((row.ratio - 1.1).abs() < 0.01 && low > 1.05 && high < 1.15 && low < high, "{row:?}");
        let same = compare(&[report(10_000, 500)], &[report(10_010, 499)]);
        let (low, high) = of(&same, "starts/s").interval.unwrap();
        assert!(low < 1.0 && high > 1.0, "{low} {high}");
        assert!(same.summary().contains("no difference shown"), "{}", same.summary());
        // Of figures that have no series one report says nothing about how sure they are.
        assert_eq!(of(&comparison, "runs/s").interval, None);
        let three = |starts| [report(starts, 9), report(starts + 50, 9), report(starts - 50, 9)];
        let paired = compare(&three(10_000), &three(20_000));
        assert!(paired.sample == "a report" && of(&paired, "runs/s").interval.unwrap().0 > 1.9);
    }

    #[test]
    fn unlike_things_are_not_compared_and_every_difference_is_named() {
        let (a, mut b) = (report(1_000, 9), report(1_000, 9));
        b["durability"] = json!("redis-aof");
        b["host"]["cpus"] = json!(8);
        let said = alike(std::slice::from_ref(&a), std::slice::from_ref(&b), &[]).unwrap_err().to_string();
        assert!(
            said.contains("durability is \"fsync\" and \"redis-aof\"") && said.contains("cpus is 2 and 8"),
            "{said}"
        );
        let across = ["durability", "cpus"].map(str::to_owned);
        assert!(alike(&[a], &[b], &across).is_ok());
    }

    #[test]
    fn files_that_are_no_reports_are_refused_by_name() {
        let directory = std::env::temp_dir().join(format!("aob-compare-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let [there, wrong] = ["there.json", "wrong.json"].map(|name| directory.join(name));
        std::fs::write(&there, report(1_000, 9).to_string()).unwrap();
        std::fs::write(&wrong, "{}").unwrap();
        let asked = |a: &PathBuf, b: &PathBuf, across: &[&str]| Compare {
            a: vec![a.clone()],
            b: vec![b.clone()],
            across: across.iter().map(ToString::to_string).collect(),
            out: None,
        };
        assert!(run(&asked(&there, &there, &[])).is_ok());
        assert!(run(&asked(&there, &wrong, &[])).unwrap_err().to_string().contains("wrong.json"));
        assert!(matches!(run(&asked(&there, &directory.join("none"), &[])), Err(Error::Read(..))));
        assert!(matches!(run(&asked(&there, &there, &["weather"])), Err(Error::NoFact(_))));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
