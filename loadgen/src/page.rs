//! Reports as one page that needs nothing else: no script, no font, no picture from elsewhere. It reads on paper, too.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::compare::{Error, read};
use crate::plot::{Axis, Line, Scale, escaped, svg};

/// Flags of `aob-loadgen report`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Asked {
    /// Reports of `aob-loadgen run`.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// What the page is called.
    #[arg(long, default_value = "aob under load")]
    title: String,
    /// Write the page there instead of stdout.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

const STYLE: &str = "body{font:15px/1.5 Georgia,serif;color:#1a1a1a;max-width:47em;margin:2em auto;padding:0 1em}\
h1,h2{font-weight:normal;line-height:1.2}table{border-collapse:collapse;margin:1em 0;font-size:13px}\
td,th{padding:.2em .9em .2em 0;text-align:right;border-bottom:1px solid #ddd;font-weight:normal}\
td:first-child,th:first-child{text-align:left}th{color:#666}\
svg{width:100%;height:auto;margin:1em 0;break-inside:avoid}svg text{font:11px sans-serif;fill:#333}\
svg .title{font-size:13px}svg .x{text-anchor:middle}svg .y{text-anchor:end}svg .grid{stroke:#e4e4e4}\
svg polyline{fill:none;stroke-width:1.6}@media print{body{margin:0;max-width:none;font-size:11pt}}";

/// What is told of each report: what it is called, and where it stands.
const FIGURES: [(&str, &str); 15] = [
    ("durability", "/durability"),
    ("mode", "/mode"),
    ("load", "/load/kind"),
    ("starts asked for, /s", "/load/rate_asked"),
    ("connections", "/load/connections"),
    ("measured, s", "/load/duration_s"),
    ("runs completed, /s", "/runs_per_s"),
    ("nodes executed, /s", "/node_executions_per_s"),
    ("start p50, us", "/start_us/p50"),
    ("start p99, us", "/start_us/p99"),
    ("start p99.9, us", "/start_us/p999"),
    ("run p50, us", "/run_us/p50"),
    ("run p99, us", "/run_us/p99"),
    ("effect hop p99, us", "/hop_us/effect/p99"),
    ("node CPU, us a run", "/cpu_us_per_run"),
];

/// The page, and a word about it.
pub(crate) fn run(asked: &Asked) -> Result<(String, String), Error> {
    let read = |path: &PathBuf| {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        Ok((name.unwrap_or_default(), read(path)?))
    };
    let reports: Vec<(String, Value)> = asked.reports.iter().map(read).collect::<Result<_, Error>>()?;
    let page = page(&asked.title, &reports);
    Ok((format!("{} reports, {} bytes\n", reports.len(), page.len()), page))
}

fn page(title: &str, reports: &[(String, Value)]) -> String {
    let title = escaped(title);
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    text.push_str(&table(reports));
    text.push_str(&percentiles(reports));
    if reports.len() > 1 {
        text.push_str(&against(reports));
    }
    for (name, report) in reports {
        let _ = writeln!(text, "<h2>{}</h2>\n<p>{}</p>", escaped(name), escaped(&facts(report)));
        text.push_str(&over_time(report));
    }
    text.push_str("</html>\n");
    text
}

fn table(reports: &[(String, Value)]) -> String {
    let mut text = String::from("<table><tr><th></th>");
    for (name, _) in reports {
        let _ = write!(text, "<th>{}</th>", escaped(name));
    }
    text.push_str("</tr>\n");
    for (figure, at) in FIGURES {
        let cells: Vec<String> = reports.iter().map(|(_, report)| said(report.pointer(at))).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
            let _ = writeln!(text, "<tr><td>{figure}</td>{cells}</tr>");
        }
    }
    text.push_str("</table>\n");
    text
}

fn said(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => match value.as_f64() {
            Some(number) if number.fract() != 0.0 => format!("{number:.1}"),
            _ => value.to_string(),
        },
    }
}

/// Where and when it was, in a sentence.
fn facts(report: &Value) -> String {
    let of = |at: &str| said(report.pointer(at));
    let mut text = format!(
        "{}: {}, {} loop, {} s after {} s of warm-up, begun {}. {} cores ({}), Linux {}",
        of("/shape"),
        of("/durability"),
        of("/load/kind"),
        of("/load/duration_s"),
        of("/load/warmup_s"),
        of("/began_at"),
        of("/host/cpus"),
        of("/host/model"),
        of("/host/kernel"),
    );
    let governor = of("/host/governor");
    if !governor.is_empty() {
        let _ = write!(text, ", governor {governor}");
    }
    let cores = report.pointer("/node/cores").map(Value::to_string).unwrap_or_default();
    let _ = write!(text, ". Node {} on cores {}.", of("/node/version"), cores.replace('"', ""));
    if report.pointer("/load/kind").and_then(Value::as_str) == Some("closed") {
        text.push_str(" A closed loop: latencies are not corrected for coordinated omission.");
    }
    if report.pointer("/steady/is_steady") == Some(&Value::Bool(false)) {
        text.push_str(" It was not in a steady state.");
    }
    text
}

fn percentiles(reports: &[(String, Value)]) -> String {
    let line = |name: &str, report: &Value, of: &str| {
        let points = report
            .pointer(&format!("/curves/{of}"))
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let number = |point: &Value, at: usize| point.get(at).and_then(Value::as_f64);
        let points = points.iter().filter_map(|point| Some((number(point, 0)?, number(point, 1)?))).collect();
        Line { name: format!("{name} {of}"), points, dots: false }
    };
    let both = |(name, report): &(String, Value)| ["start", "run"].map(|of| line(name, report, of));
    let lines: Vec<Line> = reports.iter().flat_map(both).collect();
    let (x, y) =
        (Axis { title: "part of all", scale: Scale::Nines }, Axis { title: "us", scale: Scale::Log });
    svg("Latency by percentile", (&x, &y), &lines)
}

fn against(reports: &[(String, Value)]) -> String {
    let number = |report: &Value, at: &str| report.pointer(at).and_then(Value::as_f64);
    let line = |(name, report): &(String, Value)| {
        let point = number(report, "/runs_per_s").zip(number(report, "/start_us/p99"));
        Line { name: name.clone(), points: point.into_iter().collect(), dots: true }
    };
    let lines: Vec<Line> = reports.iter().map(line).collect();
    let (x, y) =
        (Axis { title: "runs/s", scale: Scale::Linear }, Axis { title: "start p99, us", scale: Scale::Log });
    svg("Throughput against latency", (&x, &y), &lines)
}

fn over_time(report: &Value) -> String {
    let rows = report.get("series").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let line = |key: &str| {
        let point = |row: &Value| Some((row.get("at_s")?.as_f64()?, row.get(key)?.as_f64()?));
        Line { name: key.to_owned(), points: rows.iter().filter_map(point).collect(), dots: false }
    };
    let time = Axis { title: "s; before 0 is warm-up", scale: Scale::Linear };
    let latency = Axis { title: "us", scale: Scale::Log };
    let starts = Axis { title: "starts/s", scale: Scale::Linear };
    let lines = ["p50", "p99", "max"].map(line);
    svg("Starts over time", (&time, &starts), &[line("starts")])
        + &svg("Latency of starts over time", (&time, &latency), &lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // F239
    #[test]
    fn a_page_has_every_figure_and_plot_and_asks_nobody_for_anything() {
        let second = |at: u64| json!({"at_s": at as f64 - 2.0, "starts": 1_000 + at, "p50": 300, "p99": 900, "max": 9_500});
        let report = json!({"shape": "chain5", "durability": "fsync", "mode": "full", "runs_per_s": 1_234.5, "start_us": {"p99": 900},
            "load": {"kind": "closed", "duration_s": 8.0}, "host": {"model": "A <fast> \"one\""}, "steady": {"is_steady": false},
            "curves": {"start": [[0.0, 100], [0.5, 300], [0.99, 900], [1.0, 1000]], "run": []},
            "series": (0..10).map(second).collect::<Vec<_>>()});
        let reports = [("one".to_owned(), report.clone()), ("<two>".to_owned(), report)];
        let page = page("Before & after", &reports);
        for part in [
            "Before &amp; after",
            "&lt;two&gt;",
            "A &lt;fast&gt;",
            "1234.5",
            "fsync",
            "not corrected",
            "not in a steady state",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for plot in [
            "Latency by percentile",
            "Throughput against latency",
            "Starts over time",
            "Latency of starts over time",
        ] {
            assert!(page.contains(&format!("aria-label=\"{plot}\"")), "{plot}");
        }
        assert!(
            ["http://", "https://", "<script", "src=", "<two>"].iter().all(|part| !page.contains(part)),
            "{page}"
        );
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
