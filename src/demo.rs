//! `aobd demo` and `aobd dev`: the examples, through the node's own API, with a calm view of what happens.
//!
//! The demo is a client of the node it runs beside: it registers, starts and follows over HTTP as anyone would. The run
//! has an idempotency key, so a demo that was killed and is started again on the same directory ends the same run. Its report
//! leaves the node by an HTTP call, to a sink that the demo starts and opens to the node. Where tokens are needed it is given
//! one of the process's own, which ends with it. `--agents` is another demo, in `agents.rs`.

#[cfg(feature = "demo")]
pub mod agents;
mod report;
mod sink;
mod view;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Call, Client, Streamed};
use crate::config::{self, Sources};
use crate::runtime::{Error, Node};
use crate::telemetry::log::{self, Target};

const TRIAGE: &str = include_str!("../examples/seismic-triage.yaml");
const EVENTS: &str = include_str!("../examples/data/earthquakes.ndjson");
const EXAMPLES: [&str; 7] = [
    include_str!("../examples/hello.yaml"),
    include_str!("../examples/chain5.yaml"),
    include_str!("../examples/fan10.yaml"),
    include_str!("../examples/graph10.yaml"),
    include_str!("../examples/delay.yaml"),
    include_str!("../examples/wait-for-signal.yaml"),
    TRIAGE,
];

/// How long the demo may take before it is called stuck.
const END_WITHIN: Duration = Duration::from_secs(600);

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Ended(error.to_string())
}

/// A fresh directory and a free port, unless the user named others.
fn fresh(sources: &mut Sources) -> Result<(), Error> {
    let named = |key: &str| sources.set.iter().any(|(name, _)| name == key) || sources.file.is_some();
    let (directory, port) = (!named("data_dir"), !named("listen"));
    if directory {
        let path = std::env::temp_dir().join(format!("aob-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(failed)?;
        sources.set.push((String::from("data_dir"), path.display().to_string()));
    }
    if port {
        sources.set.push((String::from("listen"), String::from("127.0.0.1:0")));
    }
    Ok(())
}

/// Lets the node call this address, beside those that the user named.
fn open(sources: &mut Sources, address: SocketAddr) {
    let given = sources.set.iter().rev().find(|(key, _)| key == "http.allow");
    let allow = given.map_or_else(|| address.to_string(), |(_, open)| format!("{open}, {address}"));
    sources.set.push((String::from("http.allow"), allow));
}

/// A fresh directory and a free port, unless the user named others; and the sink, which the node may call.
///
/// # Errors
/// The directory cannot be made, or the sink cannot listen.
pub fn prepare(sources: &mut Sources) -> Result<(), Error> {
    fresh(sources)?;
    let (config, _) = config::load(sources).map_err(|error| Error::Config(error.to_string()))?;
    let sink = sink::start(&config.data_dir)
        .map_err(|error| failed(format!("the demo's sink does not start: {error}")))?;
    open(sources, sink);
    Ok(())
}

/// Registers every example, for `aobd dev`.
///
/// # Errors
/// The node does not take one.
pub fn register_examples(node: &Node) -> Result<(), Error> {
    on_this_thread(async {
        let mut client = client(node, "dev")?;
        for example in EXAMPLES {
            register(&mut client, example).await?;
        }
        Ok(())
    })
}

/// Runs the triage of a week of earthquakes and shows it.
///
/// # Errors
/// The node refuses something, or the run fails.
pub fn run(node: &Node, keep: bool) -> Result<(), Error> {
    on_this_thread(async {
        let mut client = client(node, "demo")?;
        register(&mut client, TRIAGE).await?;
        let events: Vec<Value> =
            EVENTS.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(failed)?;
        let sink = received(node)?.address;
        let inputs = json!({"events": events, "store": format!("http://{sink}/reports")});
        let body = json!({"workflow": "seismic-triage", "inputs": inputs}).to_string();
        let start = Call::post("/v1/runs", "application/json", body).header("idempotency-key", "demo");
        let started: Value = client.json(start).await.map_err(failed)?;
        let run_id = text(&started, "/run_id").to_owned();
        anstream::println!("\nTriage of {} earthquake records, {run_id}\n", events.len());
        let run = crate::io::net::within(END_WITHIN, follow(client, &run_id)).await;
        let run = run.ok_or_else(|| failed("the demo's run did not end in ten minutes"))??;
        if text(&run, "/status") != "completed" {
            let cause = run.get("error").unwrap_or(&Value::Null);
            return Err(failed(format!("the run is {}: {cause}", text(&run, "/status"))));
        }
        report::print(run.pointer("/outputs/report").unwrap_or(&Value::Null));
        stored(&received(node)?);
        where_to_look(node, (&run_id, "--keep", "examples/seismic-triage.yaml"), keep);
        Ok(())
    })
}

fn received(node: &Node) -> Result<sink::Received, Error> {
    sink::received(node.data_dir())
        .map_err(|error| failed(format!("what the demo's sink received cannot be read: {error}")))
}

fn stored(received: &sink::Received) {
    for (key, bytes) in &received.kept {
        let calls = match received.calls {
            1 => String::from("one call"),
            calls => format!("{calls} calls with one key"),
        };
        let address = &received.address;
        anstream::println!("  stored: {bytes} bytes at http://{address} by {calls}, Idempotency-Key {key}\n");
    }
}

/// The text at `pointer`, or none.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Where the node is reached from its own process.
fn own_url(node: &Node) -> String {
    let scheme = if node.certificate().is_some() { "https" } else { "http" };
    let mut address = node.address();
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    format!("{scheme}://{address}")
}

/// A client of the node, as somebody who may write in the workspace `default`.
fn client(node: &Node, name: &str) -> Result<Client, Error> {
    let url = own_url(node);
    let client = match node.certificate() {
        Some(certificate) => Client::pinned(&url, certificate),
        None => Client::new(&url),
    };
    // What does not leave the machine is seen by nobody on the way.
    let client = client.map_err(failed)?.allow_plain_token(true);
    match node.own_token(name)? {
        Some(token) => {
            log::info(
                Target::Node,
                format_args!(
                    "aobd {name} uses a token of its own, in workspace default; it ends with this process"
                ),
            );
            client.with_token(&token).map_err(failed)
        }
        None => Ok(client),
    }
}

async fn register(client: &mut Client, document: &'static str) -> Result<(), Error> {
    client.call(Call::post("/v1/workflows", "application/yaml", document)).await.map_err(failed)?;
    Ok(())
}

/// Shows the run's events as they become durable, and gives back the run as it ended.
async fn follow(mut client: Client, run_id: &str) -> Result<Value, Error> {
    let mut events = client.another().events(run_id, 0);
    let mut view = view::View::new();
    while let Some(streamed) = events.next().await.map_err(failed)? {
        match streamed {
            Streamed::Event(event) => {
                if let Ok(row) = serde_json::from_str::<Value>(&event.data) {
                    view.event(&row);
                }
            }
            Streamed::Aside(_) | Streamed::Reconnecting { .. } => {}
        }
    }
    view.end();
    client.json(Call::get(format!("/v1/runs/{run_id}"))).await.map_err(failed)
}

/// Where the run can be looked at, and its workflow read.
fn where_to_look(node: &Node, (run_id, again, workflow): (&str, &str, &str), keep: bool) {
    let url = own_url(node);
    anstream::println!("Where to look next");
    if keep {
        if node.needs_token() {
            anstream::println!(
                "  each with -H \"authorization: Bearer TOKEN\", a token of workspace default"
            );
        }
        anstream::println!("  curl {url}/v1/runs/{run_id}            the run");
        anstream::println!("  curl {url}/v1/runs/{run_id}/timeline   every event, in order");
        anstream::println!("  curl {url}/v1/node                     planes, threads, queues");
        anstream::println!("  Ctrl-C ends the node; what it did stays in {}", node.data_dir().display());
    } else {
        let data = node.data_dir().display();
        anstream::println!(
            "  aobd serve --data-dir {data}   serves this run, its timeline and its graph again"
        );
        anstream::println!("  aobd demo {again}               the same, and the node stays up");
        anstream::println!("  {workflow}   the workflow");
    }
}

/// Runs something that talks to the node on a runtime of its own.
fn on_this_thread<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut result = None;
    crate::io::net::block_on(async {
        result = Some(work.await);
    })
    .map_err(failed)?;
    result.unwrap_or_else(|| Err(failed("interrupted")))
}
