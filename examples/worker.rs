//! A worker in Rust: takes jobs of `task` nodes from a node, works on them, and says how each ended (docs/workers.md).
//!
//! `cargo run --example worker -- --queue thumbnails` beside `aobd dev` works for examples/kinds/task.yaml. SIGTERM or
//! Ctrl-C: the job at hand is finished and told, then it ends. A poll is never cut off: the job it brings would be lost.

#![allow(clippy::indexing_slicing, reason = "a JSON value is null where nothing is")]

use std::time::Duration;

use aob::client::{Call, Client, Error};
use clap::Parser;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// Also the longest that an idle worker takes to stop.
const POLL_MILLIS: u64 = 2_000;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = aob::client::DEFAULT_URL)]
    url: String,
    #[arg(long, env = "AOB_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Certificates (PEM) to trust beside the system's, for https.
    #[arg(long, env = "AOB_CA_FILE")]
    ca_file: Option<std::path::PathBuf>,
    #[arg(long = "queue", required = true, value_parser = ["thumbnails", "naps"])]
    queues: Vec<String>,
}

/// How a job ended: its output, or code and message of why not.
type Ended = Result<Value, (&'static str, String)>;

async fn handle(job: &Value, lost: watch::Receiver<bool>) -> Ended {
    match job["queue"].as_str() {
        Some("thumbnails") => thumbnails(job),
        Some("naps") => naps(job, lost).await,
        other => Err(("no_handler", format!("nobody here works on {other:?}"))),
    }
}

/// What this would write is named by the job's key: a second attempt writes the same file again, not another one.
fn thumbnails(job: &Value) -> Ended {
    match (job["idempotency_key"].as_str(), job["input"]["width"].as_u64()) {
        (Some(key), Some(width @ 1..)) => Ok(json!({"path": format!("thumbnails/{key}-{width}.png")})),
        _ => Err(("bad_input", "a thumbnail has a width above 0".into())),
    }
}

/// Work that takes longer than a lease: `lost` says that the run was cancelled or another worker has the job.
async fn naps(job: &Value, mut lost: watch::Receiver<bool>) -> Ended {
    let millis = job["input"]["ms"].as_u64().unwrap_or_default();
    tokio::select! {
        () = sleep(Duration::from_millis(millis)) => Ok(json!({"slept_ms": millis})),
        Ok(_) = lost.wait_for(|lost| *lost) => Err(("given_up", "the job is no longer wanted".into())),
    }
}

async fn ask(client: &mut Client, verb: &str, body: Value) -> Result<Value, Error> {
    client.json(Call::post(format!("/v1/workers/{verb}"), "application/json", body.to_string())).await
}

/// Never ends by itself.
async fn beat(mut client: Client, job: &Value, lost: watch::Sender<bool>) {
    let seconds = job["lease_seconds"].as_f64().unwrap_or(30.0);
    loop {
        sleep(Duration::from_secs_f64(seconds / 3.0)).await;
        let said = ask(&mut client, "heartbeat", json!({"leases": [job["lease"]]})).await;
        // One that did not arrive is followed by another.
        if said.is_ok_and(|said| said["leases"][0]["state"] != "held") {
            lost.send_replace(true);
        }
    }
}

/// A node that is just restarting still wants to know; telling it twice does nothing twice.
async fn tell(client: &mut Client, lease: &Value, ended: Ended) {
    let (verb, body) = match ended {
        Ok(output) => ("complete", json!({"lease": lease, "output": output})),
        Err((code, message)) => {
            ("fail", json!({"lease": lease, "error": {"code": code, "message": message}}))
        }
    };
    for pause in [200, 1_000, 3_000, 9_000, 0] {
        match ask(client, verb, body.clone()).await.map(|said| said["results"][0].clone()) {
            Ok(said) if said["retryable"] != true => return println!("worker: {verb}: {}", said["status"]),
            other => println!("worker: {verb} was not heard: {other:?}"),
        }
        sleep(Duration::from_millis(pause)).await;
    }
}

async fn work(client: &mut Client, job: &Value) {
    let (lost, seen) = watch::channel(false);
    let beats = beat(client.another(), job, lost);
    let told = async { tell(client, &job["lease"], handle(job, seen).await).await };
    tokio::select! { () = told => {}, () = beats => {} }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Options { url, token, ca_file, queues } = Options::parse();
    let client = Client::trusting(&url, ca_file.as_deref())?;
    let mut client = token.iter().try_fold(client, |client, token| client.with_token(token))?;
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stopping = tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    });
    println!("worker: asks {url} for {}", queues.join(", "));
    while !stopping.is_finished() {
        let poll = json!({"queues": queues, "max": 1, "wait_ms": POLL_MILLIS, "worker": "rust"});
        match ask(&mut client, "poll", poll).await {
            Ok(said) if said["jobs"][0].is_object() => work(&mut client, &said["jobs"][0]).await,
            Ok(_) => {}
            Err(Error::Refused(problem)) if !problem.retryable => return Err(Error::Refused(problem).into()),
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
    Ok(())
}
