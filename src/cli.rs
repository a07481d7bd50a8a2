//! `aob`, the command line: noun and verb, data on stdout, talk on stderr, an exit code that says what happened.
//!
//! Arguments are parsed before anything else is started. What needs no node (`workflow validate`, `version`) runs
//! without one. A reader that closes the pipe ends the program quietly.

mod explain;
mod generate;
mod graph;
pub mod output;
mod run;
mod workflow;

use clap::{Args, Parser, Subcommand};

use crate::client::{self, Client, DEFAULT_URL};
use crate::wire::problem::Problem;
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
    /// Where the node listens
    #[arg(long, global = true, env = "AOB_URL", default_value = DEFAULT_URL)]
    url: String,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Runs of workflows
    #[command(subcommand)]
    Run(run::Verb),
    /// Workflow documents
    #[command(subcommand)]
    Workflow(workflow::Verb),
    /// What an error code means, and what to do
    Explain(explain::Explain),
    /// A script that completes commands in a shell
    Completions(generate::Completions),
    /// Manual pages
    Man(generate::Man),
    /// Which version this is
    Version,
}

/// Why a command did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node said no, or could not be asked.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A file cannot be read.
    #[error("{path}: {why}")]
    File {
        /// As given.
        path: String,
        /// Why not.
        why: String,
    },
    /// A document or an input is wrong; each line names its place.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The run ended, but not well.
    #[error("run {run_id} {status}{why}")]
    RunFailed {
        /// Which.
        run_id: String,
        /// How it ended.
        status: &'static str,
        /// The failure, when there was one.
        why: String,
    },
    /// The run had not ended when the time was up.
    #[error("run {0} has not ended yet")]
    TimedOut(String),
    /// Output could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

impl Error {
    /// The exit code: 1 error, 2 usage, 3 not found, 4 auth, 5 conflict, 6 unavailable, 7 run failed, 8 timed out.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::RunFailed { .. } => 7,
            Self::TimedOut(_) => 8,
            Self::Client(client::Error::Url { .. }) => 2,
            Self::Client(client::Error::Unreachable { .. }) => 6,
            Self::Client(client::Error::Refused(problem)) => refused_code(problem),
            Self::Client(_) | Self::File { .. } | Self::Invalid(_) | Self::Write(_) => 1,
        }
    }

    /// The reader of our output went away, which is no error of ours.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

fn refused_code(problem: &Problem) -> u8 {
    match problem.status {
        404 => 3,
        401 | 403 => 4,
        409 => 5,
        408 | 429 | 503 | 504 => 6,
        _ => 1,
    }
}

impl Cli {
    /// Must a node be asked?
    pub fn needs_node(&self) -> bool {
        match &self.noun {
            Noun::Version | Noun::Explain(_) | Noun::Completions(_) | Noun::Man(_) => false,
            Noun::Workflow(verb) => verb.needs_node(),
            Noun::Run(_) => true,
        }
    }

    /// Does what was asked, without a node.
    ///
    /// # Errors
    /// What was asked cannot be done, or needs a node.
    pub fn run_offline(self) -> Result<(), Error> {
        let mut output = Output::new(self.global.output);
        match self.noun {
            Noun::Version => output.version(),
            Noun::Explain(explain) => explain.execute(&mut output),
            Noun::Workflow(verb) => verb.offline(&mut output),
            Noun::Completions(completions) => completions.execute(&mut output),
            Noun::Man(man) => man.execute(&mut output),
            Noun::Run(_) => Err(Error::Usage(String::from("this command needs a node"))),
        }
    }

    /// Does what was asked, on the current tokio runtime.
    ///
    /// # Errors
    /// What was asked cannot be done.
    pub async fn run(self) -> Result<(), Error> {
        let client = Client::new(&self.global.url)?;
        let mut output = Output::new(self.global.output);
        match self.noun {
            Noun::Run(verb) => verb.execute(client, &mut output).await,
            Noun::Workflow(verb) if verb.needs_node() => verb.execute(client, &mut output).await,
            _ => self.run_offline(),
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
        // F183, F193, F194, F196
        for line in [
            "run start workflow.json --inputs input.json",
            "run start workflow.yaml --inputs - --wait --idempotency-key k",
            "run start triage --follow",
            "run get run_018bcfe568007fffbfffffffffffffff -o json",
            "run list --status running --limit 5",
            "run cancel R --reason enough",
            "run pause R",
            "run resume R",
            "run terminate R --reason now",
            "run watch R",
            "run signal R approve --payload -",
            "workflow validate w.yaml",
            "workflow graph w.yaml",
            "workflow graph - --format svg --to w.svg",
            "workflow schema",
            "explain unknown_key",
            "explain --list -o json",
            "workflow register w.yaml --url http://127.0.0.1:1",
            "workflow list --output jsonl",
            "workflow get w",
            "version -o json",
        ] {
            let args: Vec<_> = line.split(' ').collect();
            assert!(parse(&args).is_ok(), "{line}");
        }
        for line in [
            "run",
            "run start",
            "run start w --output xml",
            "workflow get",
            "run start w --wait --follow",
            "explain",
        ] {
            let args: Vec<_> = line.split(' ').collect();
            assert_eq!(parse(&args).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn exit_codes_say_what_happened() {
        for (status, code) in [(404, 3), (401, 4), (409, 5), (503, 6), (429, 6), (422, 1)] {
            let error = Error::Client(client::Error::Refused(Problem::new(status, "x", "y")));
            assert_eq!(error.exit_code(), code, "{status}");
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
