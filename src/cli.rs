//! `aob`, the command line: noun and verb, data on stdout, talk on stderr, an exit code that says what happened.
//!
//! Arguments are parsed before anything else is started. What needs no node (`workflow validate`, `version`) runs
//! without one. A reader that closes the pipe ends the program quietly.

mod agent;
mod approvals;
mod artifacts;
mod audit;
mod batch;
mod breakers;
mod budget;
mod cas;
mod context;
mod dlq;
mod error;
mod explain;
mod generate;
mod graph;
mod hook;
mod logs;
pub mod output;
mod patch;
mod patterns;
mod policy;
mod replay;
mod run;
mod schedule;
mod webhook;
mod workflow;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::{Call, Ended, within};
use crate::limits::DURATION_SECONDS_MAX;
pub use error::Error;
use output::{Format, Output};

/// The client of an aob node.
#[derive(Debug, Parser)]
#[command(
    name = "aob",
    version,
    about = "Start, watch and steer workflow runs on an aob node",
    disable_version_flag = false
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Clone, Debug, Args)]
struct Global {
    #[command(flatten)]
    flags: context::Flags,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Say nothing but data and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Give up after so many seconds (exit code 8); what the node has begun goes on
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=DURATION_SECONDS_MAX))]
    timeout: Option<u64>,
}

/// Seconds that a command which watches its own time is given to come back.
const GRACE_SECONDS: u64 = 5;

#[derive(Debug, Subcommand)]
enum Noun {
    /// Runs of workflows
    #[command(subcommand)]
    Run(run::Verb),
    /// Decide a run again, run it again without effects, or do its work again
    Replay(replay::Replay),
    /// One action on every run that fits
    #[command(subcommand)]
    Batch(batch::Verb),
    /// What runs may spend
    #[command(subcommand)]
    Budget(budget::Verb),
    /// What finished runs spent on models, by workflow, agent, model or day
    Usage(budget::Usage),
    /// Changes of the graph of a run
    #[command(subcommand)]
    Patch(patch::Verb),
    /// What runs say while they run
    #[command(subcommand)]
    Logs(logs::Verb),
    /// Workflow documents
    #[command(subcommand)]
    Workflow(workflow::Verb),
    /// Workflows that are started by the clock
    #[command(subcommand)]
    Schedule(schedule::Verb),
    /// Workflows that are started by signed messages from outside
    #[command(subcommand)]
    Hook(hook::Verb),
    /// What waits for a human
    #[command(subcommand)]
    Approvals(approvals::Verb),
    /// Decide a review: let its run go on, or turn it down
    Approve(approvals::Approve),
    /// Who did what, and whether what is stored is what was written
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Who is told what happens to reviews
    #[command(subcommand)]
    Webhook(webhook::Verb),
    /// Work that was given up
    #[command(subcommand)]
    Dlq(dlq::Verb),
    /// Agents of registered workflows, and what they do
    #[command(subcommand)]
    Agent(agent::Verb),
    /// Services that are left alone because their calls fail
    Breakers(breakers::Breakers),
    /// Contents by their hash: large values, documents
    #[command(subcommand)]
    Cas(cas::Verb),
    /// Nodes to talk to, by name
    #[command(subcommand)]
    Context(context::Verb),
    /// What an error code means, and what to do
    Explain(explain::Explain),
    /// A script that completes commands in a shell
    Completions(generate::Completions),
    /// Manual pages
    Man(generate::Man),
    /// Which version this is
    Version,
}

impl Cli {
    /// Must a node be asked?
    pub fn needs_node(&self) -> bool {
        match &self.noun {
            Noun::Workflow(verb) => verb.needs_node(),
            Noun::Audit(verb) => verb.needs_node(),
            Noun::Replay(replay) => replay.needs_node(),
            Noun::Run(_)
            | Noun::Batch(_)
            | Noun::Budget(_)
            | Noun::Usage(_)
            | Noun::Patch(_)
            | Noun::Logs(_)
            | Noun::Agent(_)
            | Noun::Breakers(_)
            | Noun::Dlq(_)
            | Noun::Cas(_)
            | Noun::Schedule(_)
            | Noun::Hook(_)
            | Noun::Approvals(_)
            | Noun::Approve(_)
            | Noun::Webhook(_) => true,
            Noun::Context(_) | Noun::Version | Noun::Explain(_) | Noun::Completions(_) | Noun::Man(_) => {
                false
            }
        }
    }

    /// Does what was asked, without a node.
    ///
    /// # Errors
    /// What was asked cannot be done, or needs a node.
    pub fn run_offline(self) -> Result<(), Error> {
        output::hush(self.global.quiet);
        let mut output = Output::new(self.global.output);
        match self.noun {
            Noun::Version => output.version(),
            Noun::Explain(explain) => explain.execute(&mut output),
            Noun::Workflow(verb) => verb.offline(&mut output),
            Noun::Audit(verb) => verb.offline(&mut output),
            Noun::Replay(replay) => replay.offline(&mut output),
            Noun::Context(verb) => verb.execute(&self.global.flags, &mut output),
            Noun::Completions(completions) => completions.execute(&mut output),
            Noun::Man(man) => man.execute(&mut output),
            Noun::Run(_)
            | Noun::Batch(_)
            | Noun::Budget(_)
            | Noun::Usage(_)
            | Noun::Patch(_)
            | Noun::Logs(_)
            | Noun::Agent(_)
            | Noun::Breakers(_)
            | Noun::Dlq(_)
            | Noun::Cas(_)
            | Noun::Schedule(_)
            | Noun::Hook(_)
            | Noun::Approvals(_)
            | Noun::Approve(_)
            | Noun::Webhook(_) => Err(Error::Usage(String::from("this command needs a node"))),
        }
    }

    /// Does what was asked, on the current tokio runtime.
    ///
    /// # Errors
    /// What was asked cannot be done.
    pub async fn run(self) -> Result<(), Error> {
        output::hush(self.global.quiet);
        let timeout = self.global.timeout;
        // Who waits for a run ends in time by itself, and says more about it.
        let waits = matches!(&self.noun, Noun::Run(verb) if verb.waits());
        let limit =
            timeout.map(|seconds| Duration::from_secs(seconds + if waits { GRACE_SECONDS } else { 0 }));
        match within(limit, Box::pin(self.online())).await {
            Ended::Done(result) => result,
            Ended::TimedOut => Err(Error::NotDone(timeout.unwrap_or_default())),
            Ended::Interrupted => Err(Error::Interrupted),
        }
    }

    async fn online(self) -> Result<(), Error> {
        if !self.needs_node() {
            return self.run_offline();
        }
        let client = context::client(&self.global.flags)?;
        let mut output = Output::new(self.global.output);
        match self.noun {
            Noun::Run(verb) => verb.execute(client, &mut output, self.global.timeout).await,
            Noun::Replay(replay) => replay.execute(client, &mut output).await,
            Noun::Batch(verb) => verb.execute(client, &mut output).await,
            Noun::Budget(verb) => verb.execute(client, &mut output).await,
            Noun::Usage(usage) => usage.execute(client, &mut output).await,
            Noun::Patch(verb) => verb.execute(client, &mut output).await,
            Noun::Logs(verb) => verb.execute(client, &mut output).await,
            Noun::Dlq(verb) => verb.execute(client, &mut output).await,
            Noun::Agent(verb) => verb.execute(client, &mut output).await,
            Noun::Breakers(breakers) => breakers.execute(client, &mut output).await,
            Noun::Cas(verb) => verb.execute(client, &mut output).await,
            Noun::Schedule(verb) => verb.execute(client, &mut output).await,
            Noun::Hook(verb) => verb.execute(client, &mut output).await,
            Noun::Approvals(verb) => verb.execute(client, &mut output).await,
            Noun::Approve(approve) => approve.execute(client, &mut output).await,
            Noun::Webhook(verb) => verb.execute(client, &mut output).await,
            Noun::Workflow(verb) => verb.execute(client, &mut output).await,
            Noun::Audit(verb) => verb.execute(client, &mut output).await,
            // None of these needs a node.
            Noun::Context(_) | Noun::Version | Noun::Explain(_) | Noun::Completions(_) | Noun::Man(_) => {
                Ok(())
            }
        }
    }
}

/// The bytes of a file; `-` is standard input.
fn read(path: &str) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let bytes = if path == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    bytes.map_err(|error| Error::File { path: path.to_owned(), why: error.to_string() })
}

/// A JSON value from a file, checked here so that a mistake is shown with its place.
/// What is sent again with the same key is done once.
fn keyed(call: Call, key: Option<&str>) -> Call {
    match key {
        Some(key) => call.header("idempotency-key", key),
        None => call,
    }
}

fn read_json(path: &str) -> Result<crate::model::Value, Error> {
    crate::model::Value::from_json(&read(path)?).map_err(|error| {
        let text = error.to_string();
        let said = text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said);
        Error::Invalid(format!("{path}:{}:{}: {said}", error.line(), error.column()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["aob"], args].concat())
    }

    #[test]
    fn the_documented_forms_parse() {
        // F013, F183, F184, F185, F193, F194, F196, F319, F325
        for line in [
            "run start workflow.json --inputs input.json",
            "run start workflow.yaml --inputs - --wait --idempotency-key k",
            "run start pay --run-key order-1 --on-conflict replace",
            "run start triage --follow",
            "run get run_018bcfe568007fffbfffffffffffffff -o json",
            "run list --status running --limit 5",
            "run cancel R --reason enough",
            "run pause R",
            "run resume R",
            "run terminate R --reason now",
            "run watch R",
            "run signal R approve --payload -",
            "run update R approve --payload @p.json --wait 5",
            "run update R approve --payload {}",
            "run wait R --timeout 3",
            "run fork R --at 7 --inputs - --idempotency-key k",
            "run state R --at 7",
            "replay R --from parse --mode freeze",
            "replay R --bundle f.aob",
            "replay --bundle f.aob -o json",
            "replay --bundle f.aob --at 7",
            "replay R --mode shadow --input k=1 --input who=you --workflow w.yaml",
            "replay R --mode live --from parse",
            "run explain R -o json",
            "run cost R -o json",
            "budget list",
            "budget show R",
            "usage --from 2026-01-01 --to 2026-01-31 --by agent,day -o json",
            "usage",
            "budget raise R --usd 5 --reason more --resume",
            "budget raise R --tokens 500 --reason more",
            "logs stream R",
            "logs stream R --summaries",
            "cas get sha256:0",
            "run audit R -o json",
            "audit list --after 3 --limit 5 --all",
            "audit verify",
            "audit verify R --head 00",
            "audit verify --all",
            "audit verify --offline --data-dir d",
            "audit verify R --offline --data-dir d",
            "cas stat sha256:0 -o json",
            "workflow get --hash sha256:0",
            "logs stream R --node enrich",
            "approve T approve",
            "batch cancel --workflow w --status running,paused --reason no --dry-run",
            "batch terminate --started-before 2026-01-01T00:00:00Z --yes --wait",
            "batch pause --all --limit 5 --rate-per-second 7 -y",
            "batch resume --run-key k --version 2",
            "batch retry --status failed --idempotency-key k",
            "batch delete --started-after 2026-01-01T00:00:00Z",
            "batch list --limit 5 -o json",
            "batch show batch_0",
            "batch stop batch_0",
            "schedule create nightly report@live --cron 0_2_*_*_* --timezone Europe/Berlin --overlap skip",
            "schedule list -o json",
            "hook add pay take-payment --mapping input.data --secret -",
            "hook list",
            "hook rotate hook_0 --overlap 1h",
            "hook remove hook_0",
            "schedule get nightly",
            "schedule update nightly --cron 0_3_*_*_* --workflow report@2 --jitter 0s --inputs -",
            "schedule pause nightly",
            "schedule resume nightly",
            "schedule trigger nightly",
            "schedule delete nightly",
            "approve T reject --reason no --as ops --form {} --digest sha256:0",
            "approvals list --reviewer ops",
            "approvals list --state rejected",
            "webhook add https://x/y --event approval.decided --reviewer ops",
            "webhook list",
            "webhook remove wh_1",
            "webhook deliveries wh_1 --dead --limit 3",
            "webhook redrive wh_1",
            "breakers -o json",
            "agent list --workflow w --limit 5 -o json",
            "agent show w researcher",
            "dlq list --workflow w --code http_status --redriven --limit 5",
            "dlq show dead_1 -o json",
            "dlq redrive dead_1 dead_2",
            "dlq purge --workflow w",
            "dlq purge dead_1",
            "approvals show T -o json",
            "context list",
            "context use home",
            "context show -o json",
            "run list --context home --workspace w --quiet",
            "workflow untag w prod",
            "workflow validate w.yaml",
            "workflow graph w.yaml",
            "workflow graph - --format svg --to w.svg",
            "workflow schema",
            "workflow new --pattern saga",
            "workflow new --pattern fallback --name f --set retries=3 --set task=x --to f.yaml --force",
            "workflow patterns",
            "workflow patterns approval -o json",
            "explain unknown_key",
            "explain --list -o json",
            "workflow register w.yaml --url http://127.0.0.1:1",
            "workflow list --output jsonl",
            "workflow get w",
            "version -o json",
            "run get R -o yaml",
        ] {
            let args: Vec<_> = line.split(' ').collect();
            assert!(parse(&args).is_ok(), "{line}");
        }
        for line in [
            "run",
            "run start",
            "run start w --output xml",
            "workflow get",
            "workflow new",
            "workflow new --pattern none",
            "workflow new --pattern saga --force",
            "workflow patterns none",
            "run start w --wait --follow",
            "audit verify --offline",
            "audit verify R --all",
            "audit verify --offline --data-dir d --key 12",
            "approve T",
            "approve T maybe",
            "approvals list --state gone",
            "batch",
            "budget raise R --reason more",
            "budget raise R --usd 5",
            "batch cancel --dry-run --yes",
            "replay R --mode slow",
            "run fork R",
            "schedule create nightly report",
            "explain",
            "dlq purge",
            "dlq redrive",
            "dlq purge dead_1 --all",
        ] {
            let args: Vec<_> = line.split(' ').collect();
            assert_eq!(parse(&args).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn wrong_json_is_shown_with_file_line_and_column() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.json");
        std::fs::write(&path, "{\n  \"a\": NaN\n}").unwrap();
        let path = path.to_str().unwrap();
        let Err(error) = read_json(path) else { panic!("accepted") };
        assert!(error.to_string().starts_with(&format!("{path}:2:8: ")), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
