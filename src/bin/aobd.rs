//! The node: parse, load the configuration, start, say where it listens, wait, drain, say how it ended.

use std::process::ExitCode;

use aob::config::{self, Sources};
use aob::runtime::{self, Node};
use clap::{Args, Parser, Subcommand};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A durable orchestration node for agentic workflows.
#[derive(Debug, Parser)]
#[command(name = "aobd", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM.
    Serve(Settings),
    /// Serve on a free or given port with the examples registered, for trying things out.
    Dev(Settings),
    /// Triage a week of real earthquakes through the node, live, and show the report.
    Demo(DemoArguments),
    /// Print the effective configuration, and where each value comes from.
    CheckConfig(Settings),
}

#[derive(Debug, Args)]
struct DemoArguments {
    #[command(flatten)]
    settings: Settings,
    /// Go on serving when the report is done.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Args)]
struct Settings {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Directory for everything the node keeps.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the HTTP API; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Any key of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Settings {
    fn sources(self) -> Sources {
        let mut set = self.set;
        set.extend(self.listen.map(|listen| (String::from("listen"), listen)));
        set.extend(self.data_dir.map(|directory| (String::from("data_dir"), directory)));
        Sources { file: self.config, environment: std::env::vars().collect(), set }
    }
}

fn main() -> ExitCode {
    let (sources, after) = match Arguments::parse().command {
        Command::Serve(settings) => (settings.sources(), After::Serve),
        Command::Dev(settings) => (settings.sources(), After::Dev),
        Command::Demo(demo) => (demo.settings.sources(), After::Demo { keep: demo.keep }),
        Command::CheckConfig(settings) => return check_config(&settings.sources()),
    };
    match run(sources, after) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("aobd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// What the process does once the node is up.
#[derive(Clone, Copy)]
enum After {
    Serve,
    Dev,
    Demo { keep: bool },
}

fn run(mut sources: Sources, after: After) -> Result<ExitCode, runtime::Error> {
    if matches!(after, After::Demo { .. }) {
        aob::demo::prepare(&mut sources)?;
    }
    let (config, effective) =
        config::load(&sources).map_err(|error| runtime::Error::Config(error.to_string()))?;
    let reload = config::Reload::new(sources, effective);
    let node =
        Node::start(config)?.rereading(Box::new(move || reload.read().map_err(|error| error.to_string())));
    let code = match after {
        After::Serve => {
            anstream::println!("{}", node.ready_line());
            ExitCode::SUCCESS
        }
        After::Dev => {
            aob::demo::register_examples(&node)?;
            anstream::println!("{}", node.ready_line());
            ExitCode::SUCCESS
        }
        After::Demo { keep } => {
            anstream::println!("{}", node.ready_line());
            demo(&node, keep)
        }
    };
    node.join()?;
    Ok(code)
}

/// The demo ends the node when it is done, unless that is to be kept.
fn demo(node: &Node, keep: bool) -> ExitCode {
    let done = aob::demo::run(node, keep);
    if done.is_err() || !keep {
        node.drain();
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("aobd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check_config(sources: &Sources) -> ExitCode {
    match config::load(sources) {
        Ok((_, effective)) => {
            anstream::print!("{effective}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            anstream::eprintln!("aobd: {error}");
            ExitCode::from(2)
        }
    }
}
