//! The node: parse, load the configuration, start, say where it listens, wait, drain, say how it ended. Beside that, what is
//! done about a node's files without one: checking the configuration, tokens.

use std::process::ExitCode;

use aob::auth::{self, Caller};
use aob::config::{self, Sources};
use aob::exec::tools as tools_of_agents;
use aob::runtime::{self, End, Node, tools};
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
    /// Triage a week of real earthquakes through the node, live, and show the report. With `--agents`, have three agents research,
    /// analyse and report instead.
    Demo(DemoArguments),
    /// Print the effective configuration, and where each value comes from.
    CheckConfig(Settings),
    /// Look over the data directory of a stopped node: every frame, file and row. Exit 0: all is well, 1: it is not, 2: it cannot
    /// be looked at.
    Fsck {
        #[command(flatten)]
        settings: Settings,
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy the data directory of a stopped node.
    Backup {
        #[command(flatten)]
        settings: Settings,
        /// Directory for the copy: empty, or not there.
        #[arg(long, value_name = "DIR")]
        to: std::path::PathBuf,
    },
    /// Make a data directory, empty or not there, from a copy.
    Restore {
        #[command(flatten)]
        settings: Settings,
        /// Directory of the copy.
        #[arg(long, value_name = "DIR")]
        from: std::path::PathBuf,
    },
    /// Have the node of this data directory hand its store (`store.url`) over to another one, and wait until that has it. The node goes
    /// on and passes requests on.
    #[cfg(feature = "redis")]
    Drain(Settings),
    /// Compare this host with what a node wants of it, change it, and take that back.
    #[command(subcommand)]
    Tune(Tune),
    /// Make, list and revoke API tokens in the file that `auth.tokens_file` names.
    #[command(subcommand)]
    Token(Token),
}

#[derive(Debug, Subcommand)]
enum Tune {
    /// Say what is not as wanted, and why that matters. Exit 0: everything is, 1: something is not, 2: it cannot be looked at.
    Check(Host),
    /// Say what would be changed, as `check` does. With `--yes` write down what stands there, and change it.
    Apply {
        #[command(flatten)]
        host: Host,
        /// Change it.
        #[arg(long)]
        yes: bool,
    },
    /// Bring back what stood there before `apply`, byte for byte. What somebody else changed since stays.
    Rollback(Host),
}

#[derive(Debug, Args)]
struct Host {
    #[command(flatten)]
    settings: Settings,
    /// Where the host's `/proc`, `/sys`, `/etc` and `/var` are.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: std::path::PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Make a token, keep its hash in the file, and print it: this is the only time it is shown.
    New(NewToken),
    /// Print what the file holds, a token a line.
    List(Settings),
    /// Take a token out of the file.
    Revoke {
        #[command(flatten)]
        settings: Settings,
        /// Which.
        #[arg(long)]
        name: String,
    },
}

#[derive(Debug, Args)]
struct NewToken {
    #[command(flatten)]
    settings: Settings,
    /// What it is called, here and in logs.
    #[arg(long)]
    name: String,
    /// The workspace it belongs to.
    #[arg(long, default_value = "default")]
    workspace: aob::model::Workspace,
    /// What it may do; `write` includes `read`, `admin` includes both.
    #[arg(long = "role", value_name = "read|write|admin", required = true)]
    roles: Vec<auth::Role>,
    /// The reviewer it answers as.
    #[arg(long)]
    reviewer: Option<String>,
}

#[derive(Debug, Args)]
struct DemoArguments {
    #[command(flatten)]
    settings: Settings,
    /// Go on serving when the report is done.
    #[arg(long)]
    keep: bool,
    /// Agents, their model a stub in the same process: a workflow is patched while it runs, and somebody approves.
    #[cfg(feature = "demo")]
    #[arg(long)]
    agents: bool,
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
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == tools_of_agents::TETHER) {
        return tools_of_agents::tether(arguments);
    }
    aob::failpoint::arm();
    let (sources, after) = match Arguments::parse().command {
        Command::Serve(settings) => (settings.sources(), After::Serve),
        Command::Dev(settings) => (settings.sources(), After::Dev),
        #[cfg(feature = "demo")]
        Command::Demo(demo) if demo.agents => (demo.settings.sources(), After::Agents { keep: demo.keep }),
        Command::Demo(demo) => (demo.settings.sources(), After::Demo { keep: demo.keep }),
        Command::CheckConfig(settings) => return check_config(&settings.sources()),
        #[cfg(feature = "redis")]
        Command::Drain(settings) => return said(drain(&settings.sources())),
        Command::Token(command) => return said(token(command)),
        Command::Tune(command) => return said(tune(command)),
        Command::Fsck { settings, json } => return fsck(settings, json),
        Command::Backup { settings, to } => {
            return said(copied(settings, |data_dir| tools::backup::backup(data_dir, &to)));
        }
        Command::Restore { settings, from } => {
            return said(copied(settings, |data_dir| tools::backup::restore(&from, data_dir)));
        }
    };
    said(run(sources, after))
}

fn said(done: Result<ExitCode, runtime::Error>) -> ExitCode {
    done.unwrap_or_else(|error| {
        anstream::eprintln!("aobd: {error}");
        ExitCode::from(error.exit_code())
    })
}

/// What the process does once the node is up.
#[derive(Clone, Copy)]
enum After {
    Serve,
    Dev,
    Demo {
        keep: bool,
    },
    #[cfg(feature = "demo")]
    Agents {
        keep: bool,
    },
}

fn run(mut sources: Sources, after: After) -> Result<ExitCode, runtime::Error> {
    if matches!(after, After::Demo { .. }) {
        aob::demo::prepare(&mut sources)?;
    }
    // It answers for as long as the node may ask.
    #[cfg(feature = "demo")]
    let _model = match after {
        After::Agents { .. } => Some(aob::demo::agents::prepare(&mut sources)?),
        _ => None,
    };
    let (mut config, effective) =
        config::load(&sources).map_err(|error| runtime::Error::Config(error.to_string()))?;
    if std::env::var_os(STANDS_BACK).is_some() {
        config.store.stand_back();
    }
    // Through this program, whatever becomes of its file.
    config.tools.launcher = Some("/proc/self/exe".into());
    let reload = config::Reload::new(sources, effective);
    let data = config.data_dir.display().to_string();
    let started = Node::start_or_stand_by(config, &mut |address| {
        anstream::println!("standby http={address} data={data} pid={}", std::process::id());
    });
    let Some(node) = started? else { return Ok(ExitCode::SUCCESS) };
    let node = node.rereading(Box::new(move || reload.read().map_err(|error| error.to_string())));
    let ready = node.ready_line();
    let code = match after {
        After::Serve => ExitCode::SUCCESS,
        After::Dev => {
            aob::demo::register_examples(&node)?;
            ExitCode::SUCCESS
        }
        After::Demo { keep } => {
            anstream::println!("{ready}");
            let code = demo(&node, keep, aob::demo::run);
            node.join(|| {})?;
            return Ok(code);
        }
        #[cfg(feature = "demo")]
        After::Agents { keep } => {
            anstream::println!("{ready}");
            let code = demo(&node, keep, aob::demo::agents::run);
            node.join(|| {})?;
            return Ok(code);
        }
    };
    match node.join(|| anstream::println!("{ready}"))? {
        End::AsAsked => Ok(code),
        End::SteppedDown => Err(again(false)),
        End::HandedOver => Err(again(true)),
    }
}

/// Set for a process that has just handed its store over.
const STANDS_BACK: &str = "AOB_STANDS_BACK";

/// This process begins again, as it was begun: nothing of what it was is left. Returns only what kept it from it.
fn again(stands_back: bool) -> runtime::Error {
    use std::os::unix::process::CommandExt as _;
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env_remove(STANDS_BACK);
    if stands_back {
        command.env(STANDS_BACK, "1");
    }
    runtime::systemd::hand_on_listeners();
    let error = command.exec();
    runtime::Error::Ended(format!("another node owns the store, and this one cannot begin again: {error}"))
}

/// The demo ends the node when it is done, unless that is to be kept.
fn demo(node: &Node, keep: bool, run: fn(&Node, bool) -> Result<(), runtime::Error>) -> ExitCode {
    let done = run(node, keep);
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

fn token(command: Token) -> Result<ExitCode, runtime::Error> {
    let file = |settings: Settings| {
        let loaded = config::load(&settings.sources());
        let (config, _) = loaded.map_err(|error| runtime::Error::Config(error.to_string()))?;
        let missing = "auth.tokens_file names no file; give it with --config, or --set auth.tokens_file=FILE";
        config.auth.tokens_file.ok_or_else(|| runtime::Error::Config(missing.to_owned()))
    };
    match command {
        Token::New(NewToken { settings, name, workspace, roles, reviewer }) => {
            let path = file(settings)?;
            let token = auth::file::create(&path, &auth::file::Order { name, workspace, roles, reviewer })?;
            anstream::println!("{token}");
            anstream::eprintln!("aobd: a running node takes it on SIGHUP; it is not shown again");
        }
        Token::List(settings) => {
            for row in auth::file::list(&file(settings)?)? {
                let Caller { token, workspace, role, reviewer } = row.caller;
                let (name, reviewer) = (token.unwrap_or_default(), reviewer.unwrap_or("-".into()));
                anstream::println!("{name:<24} {:<16} {:<6} {reviewer}", workspace.name(), role.as_str());
            }
        }
        Token::Revoke { settings, name } => {
            auth::file::revoke(&file(settings)?, &name)?;
            anstream::eprintln!("aobd: {name:?} is gone from the file; a running node forgets it on SIGHUP");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tune(command: Tune) -> Result<ExitCode, runtime::Error> {
    let (host, writes): (Host, Option<fn(&tools::tune::Host) -> _>) = match command {
        Tune::Check(host) | Tune::Apply { host, yes: false } => (host, None),
        Tune::Apply { host, yes: true } => (host, Some(tools::tune::Host::apply)),
        Tune::Rollback(host) => (host, Some(tools::tune::Host::rollback)),
    };
    let loaded = config::load(&host.settings.sources());
    let (config, _) = loaded.map_err(|error| runtime::Error::Config(error.to_string()))?;
    let done = tools::tune::Host::new(&host.root, &config.cores)
        .and_then(|there| writes.map_or_else(|| there.check(), |write| write(&there)));
    match done {
        Ok(report) => {
            if host.json {
                anstream::println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                anstream::print!("{report}");
            }
            Ok(ExitCode::from(report.exit_code()))
        }
        Err(error) => {
            anstream::eprintln!("aobd: {error}");
            Ok(ExitCode::from(2))
        }
    }
}

/// Where the configuration says that everything is kept.
fn data_dir(settings: Settings) -> Result<std::path::PathBuf, runtime::Error> {
    let loaded = config::load(&settings.sources());
    loaded.map(|(config, _)| config.data_dir).map_err(|error| runtime::Error::Config(error.to_string()))
}

fn fsck(settings: Settings, json: bool) -> ExitCode {
    let looked = data_dir(settings).and_then(|root| Ok(tools::fsck::fsck(&root)?));
    match looked {
        Ok(report) if json => {
            anstream::println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            ExitCode::from(report.exit_code())
        }
        Ok(report) => {
            anstream::print!("{report}");
            ExitCode::from(report.exit_code())
        }
        Err(error) => {
            anstream::eprintln!("aobd: {error}");
            ExitCode::from(2)
        }
    }
}

fn copied<E: Into<runtime::Error>>(
    settings: Settings,
    copy: impl FnOnce(&std::path::Path) -> Result<tools::backup::Copied, E>,
) -> Result<ExitCode, runtime::Error> {
    let copied = copy(&data_dir(settings)?).map_err(Into::into)?;
    anstream::println!("{} files, {} bytes", copied.files, copied.bytes);
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "redis")]
fn drain(sources: &Sources) -> Result<ExitCode, runtime::Error> {
    let (config, _) = config::load(sources).map_err(|error| runtime::Error::Config(error.to_string()))?;
    let owner = tools::drain::drain(&config)?;
    anstream::println!("the store is owned by {owner}");
    Ok(ExitCode::SUCCESS)
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
