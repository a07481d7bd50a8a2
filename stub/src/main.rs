//! `aob-stub-model`: the stub as a program. One line on stdout when it serves, `ready http=ADDR pid=N`; it keeps nothing, so it may
//! be killed. Exit codes: 1 it cannot serve, 2 usage.

use std::io::Write as _;
use std::process::ExitCode;

use aob_stub_model::Options;

const USAGE: &str = "\
usage: aob-stub-model [--listen ADDR] [--script FILE] [--latency-ms N] [--openai-key K] [--anthropic-key K]
  --listen ADDR        where to serve (127.0.0.1:0, a free port); whoever reaches it may change its script
  --script FILE        rules to begin with, JSON (docs/operating/stub-model.md)
  --latency-ms N       hold back every answer of a model
  --openai-key K       chat and embeddings need `Authorization: Bearer K`
  --anthropic-key K    messages need `x-api-key: K` and `anthropic-version`
";

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprint!("aob-stub-model: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let served = aob_stub_model::serve(options, |address| {
        println!("ready http={address} pid={}", std::process::id());
        let _ = std::io::stdout().flush();
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aob-stub-model: {error}");
            ExitCode::FAILURE
        }
    }
}

/// None when help is wanted.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        // Both `--name value` and `--name=value`.
        let (name, given) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let known = ["--listen", "--script", "--latency-ms", "--openai-key", "--anthropic-key"];
        if !known.contains(&name.as_str()) {
            return Err(format!("there is no option {name}"));
        }
        let value = given.or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--listen" => options.listen = value.parse().map_err(|_| format!("{value} is no ADDR:PORT"))?,
            "--latency-ms" => options.latency_ms = latency(&value)?,
            "--openai-key" => options.openai_key = Some(value),
            "--anthropic-key" => options.anthropic_key = Some(value),
            _ => {
                let text = std::fs::read_to_string(&value).map_err(|error| format!("{value}: {error}"))?;
                options.script =
                    Some(serde_json::from_str(&text).map_err(|error| format!("{value}: {error}"))?);
            }
        }
    }
    Ok(Some(options))
}

fn latency(value: &str) -> Result<u64, String> {
    let number = value.parse().ok().filter(|number| *number <= 600_000);
    number.ok_or_else(|| format!("{value} is no number of milliseconds up to 600000"))
}
