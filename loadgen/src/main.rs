//! Load generator for aob: starts runs over HTTP/1.1 on a schedule and reports what the node did.
//!
//! Arrivals do not wait for replies (open loop), and a latency counts from the *scheduled* moment, so a node that
//! stalls cannot hide it (no coordinated omission). `--rate max` is the exception: a closed loop, which the report
//! says. Before anything is reported, the starts that were acknowledged are compared with the node's own counters;
//! when they differ by more than 1 % there is no report and the exit code is 1.
//!
//! JSON goes to stdout or `--out`, words go to stderr. Exit codes: 0 ok, 1 no report, 2 usage.

#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::too_many_lines, reason = "tests fail loudly by design")
)]

mod agent;
mod arrival;
mod changes;
mod compare;
mod control;
#[cfg(test)]
mod fake;
mod hdr;
mod host;
mod http;
mod hung;
mod jobs;
mod metrics;
mod options;
mod pacer;
mod page;
mod plot;
mod random;
mod reconcile;
mod record;
mod report;
mod restart;
mod run;
mod series;
mod session;
mod shape;
mod stream;
mod worker;

use std::process::ExitCode;

use clap::Parser;

/// Load generator for aob.
#[derive(Debug, Parser)]
#[command(name = "aob-loadgen", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// As the node does: what it costs to hold what came should not be most of what a generator does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put load on a node and report.
    Run(options::Run),
    /// Compare two sides, each of one report or several: ratios, and how sure they are. Exit code 1: they are not alike.
    Compare(compare::Compare),
    /// Make a page of reports: figures, latency by percentile, over time, and against throughput. One file, for a browser or paper.
    Report(page::Asked),
    /// Compare the latencies of a load without and with tools and workers that hang.
    HungTool(hung::HungTool),
    /// Agents patch runs and humans decide reviews, beside a load of runs that nobody touches.
    Changes(changes::Changes),
    /// Start a node with many waiting runs, and again: memory of each, time to come back.
    Restart(restart::Restart),
}

fn main() -> ExitCode {
    let (out, report) = match Arguments::parse().command {
        Command::Run(asked) => (asked.out.clone(), load(&asked)),
        Command::Compare(asked) => (asked.out.clone(), compare(&asked)),
        Command::Report(asked) => (asked.out.clone(), page::run(&asked).map_err(Into::into)),
        Command::HungTool(asked) => (asked.run.out.clone(), hang(&asked)),
        Command::Changes(asked) => (asked.run.out.clone(), change(&asked)),
        Command::Restart(asked) => (asked.out.clone(), restart(&asked)),
    };
    let (summary, json) = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("aob-loadgen: {error}");
            return if matches!(error, run::Error::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE };
        }
    };
    eprint!("{summary}");
    match out {
        None => println!("{json}"),
        Some(path) => {
            if let Err(error) = std::fs::write(&path, json + "\n") {
                eprintln!("aob-loadgen: cannot write {}: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// In words and as JSON.
type Said = (String, String);

fn load(asked: &options::Run) -> Result<Said, run::Error> {
    let options = asked.resolve().map_err(|error| run::Error::Usage(error.to_string()))?;
    if options.shape == shape::Shape::Stream {
        return stream::run(&options, &asked.stream).map(|report| (report.summary(), report.to_json()));
    }
    run::run(&options).map(|report| (report.summary(), report.to_json()))
}

fn compare(asked: &compare::Compare) -> Result<Said, run::Error> {
    let comparison = compare::run(asked)?;
    Ok((comparison.summary(), comparison.to_json()))
}

fn restart(asked: &restart::Restart) -> Result<Said, run::Error> {
    restart::run(asked).map(|report| (report.summary(), report.to_json()))
}

fn change(asked: &changes::Changes) -> Result<Said, run::Error> {
    changes::run(asked).map(|report| (report.summary(), report.to_json()))
}

fn hang(asked: &hung::HungTool) -> Result<Said, run::Error> {
    hung::run(asked).map(|report| (report.summary(), report.to_json()))
}
