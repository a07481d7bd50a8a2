//! Follows a run over QUIC (docs/formats/stream.md) and prints its events; taken up again where a connection broke.
//!
//! `cargo run --example quic_client -- RUN`, beside `aobd dev`. It needs nothing of the node: with `--no-default-features` it links
//! neither its storage nor its runtime. `--migrate` moves to another port of this machine after each event: the stream goes on.

use std::process::ExitCode;

use aob::client::{Client, Error, Streamed, Transport};

const USAGE: &str =
    "usage: quic_client [--url URL] [--after SEQ] [--migrate] RUN   (AOB_URL, AOB_TOKEN, AOB_CA_FILE)";

struct Asked {
    url: String,
    run: String,
    after: u64,
    migrate: bool,
}

fn asked() -> Option<Asked> {
    let url = std::env::var("AOB_URL").unwrap_or_else(|_| aob::client::DEFAULT_URL.to_owned());
    let mut asked = Asked { url, run: String::new(), after: 0, migrate: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--url" => asked.url = arguments.next()?,
            "--after" => asked.after = arguments.next()?.parse().ok()?,
            "--migrate" => asked.migrate = true,
            run if !run.starts_with('-') && asked.run.is_empty() => asked.run = argument,
            _ => return None,
        }
    }
    (!asked.run.is_empty()).then_some(asked)
}

async fn follow(asked: Asked) -> Result<(), Error> {
    let authorities = std::env::var_os("AOB_CA_FILE").map(std::path::PathBuf::from);
    let mut client = Client::trusting(&asked.url, authorities.as_deref())?;
    if let Ok(token) = std::env::var("AOB_TOKEN") {
        client = client.with_token(&token)?;
    }
    let mut events = client.events_over(Transport::Quic, &asked.run, asked.after);
    while let Some(streamed) = Box::pin(events.next()).await? {
        match streamed {
            Streamed::Event(event) => println!("{}", event.data),
            Streamed::Aside(_) => {}
            Streamed::Reconnecting { why } => eprintln!("coming back: {why}"),
        }
        if asked.migrate
            && let Err(error) = events.rebind()
        {
            eprintln!("cannot move: {error}");
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(asked) = asked() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(follow(asked)).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quic_client: {error}");
            ExitCode::FAILURE
        }
    }
}
