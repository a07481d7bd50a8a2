//! The client: parse, do, print, exit code.

use std::process::ExitCode;

use aob::cli::{Cli, Error, output};
use clap::Parser as _;

fn main() -> ExitCode {
    // Before any runtime: `--help` and a wrong argument cost nothing.
    let cli = Cli::parse();
    let result = if cli.needs_node() { with_runtime(cli) } else { cli.run_offline() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn with_runtime(cli: Cli) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(cli.run());
    // Whoever was asked and did not answer is not waited for.
    runtime.shutdown_background();
    done
}
