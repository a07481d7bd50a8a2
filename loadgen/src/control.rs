//! The few calls beside the load: register the workflow, try it once, read the node's counters.
//!
//! Each call has a connection of its own and a deadline.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::agent::MODEL;
use crate::http;
use crate::metrics::sum;
use crate::pacer::now_us;
use crate::shape::Shape;

const CALL_SECONDS_MAX: u64 = 20;
/// Seconds the trial run may take.
const TRIAL_SECONDS_MAX: u64 = 10;

/// A node, from outside.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
}

/// The node's counters at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// When the answer was there.
    pub(crate) at_us: u64,
    pub(crate) started: u64,
    /// Ended in whatever way.
    pub(crate) finished: u64,
    pub(crate) completed: u64,
    pub(crate) active: Option<u64>,
    pub(crate) nodes_completed: Option<u64>,
    /// Calls of the generator's model that succeeded.
    pub(crate) decisions: u64,
}

/// A call went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{method} {path} at {address}: {cause}")]
    Http { method: String, path: String, address: SocketAddr, cause: http::Error },
    #[error("{method} {path} at {address}: no reply within {CALL_SECONDS_MAX} s")]
    Timeout { method: String, path: String, address: SocketAddr },
    #[error("{method} {path} answered {status}: {body}")]
    Status { method: String, path: String, status: u16, body: String },
    #[error("the trial run of {workflow} did not complete: {body}")]
    Trial { workflow: &'static str, body: String },
    #[error("/metrics has no {0}")]
    NoCounter(&'static str),
}

impl Node {
    /// One call; the reply's status and body.
    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<(u16, Vec<u8>), Error> {
        let headers = format!("connection: close\r\n{headers}");
        let request = http::request(method, path, &self.host, &headers, body);
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(&request).await?;
            let mut buffer = Vec::new();
            let head = http::read_reply(&mut stream, &mut buffer).await?;
            Ok((head.status, buffer.split_off(head.len)))
        };
        let (method, path, address) = (method.to_owned(), path.to_owned(), self.address);
        match tokio::time::timeout(Duration::from_secs(CALL_SECONDS_MAX), exchange).await {
            Err(_) => Err(Error::Timeout { method, path, address }),
            Ok(Err(cause)) => Err(Error::Http { method, path, address, cause }),
            Ok(Ok(reply)) => Ok(reply),
        }
    }

    /// A call that must succeed; the reply's body.
    pub(crate) async fn ok(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let (status, body) = self.call(method, path, headers, body).await?;
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body).chars().take(400).collect();
        Err(Error::Status { method: method.into(), path: path.into(), status, body })
    }

    /// Registers the shape's document; registering the same one again is fine.
    pub(crate) async fn register(&self, shape: Shape) -> Result<(), Error> {
        let document = shape.document().to_string();
        self.ok("POST", "/v1/workflows", "", document.as_bytes()).await.map(drop)
    }

    /// Runs the shape once and sees it complete; gives the reply.
    pub(crate) async fn trial(&self, shape: Shape) -> Result<Value, Error> {
        let body = serde_json::json!({"workflow": shape.workflow(), "inputs": {"n": 1}}).to_string();
        let prefer = format!("prefer: wait={TRIAL_SECONDS_MAX}\r\n");
        let reply = self.ok("POST", "/v1/runs", &prefer, body.as_bytes()).await?;
        let value: Value = serde_json::from_slice(&reply).unwrap_or_default();
        if value.get("status").and_then(Value::as_str) == Some("completed") {
            return Ok(value);
        }
        let body = String::from_utf8_lossy(&reply).chars().take(400).collect();
        Err(Error::Trial { workflow: shape.workflow(), body })
    }

    /// `/v1/node`, or null when it cannot be had.
    pub(crate) async fn describe(&self) -> Value {
        let reply = self.ok("GET", "/v1/node", "", b"").await;
        reply.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
    }

    /// The counters now.
    pub(crate) async fn sample(&self, shape: Shape) -> Result<Sample, Error> {
        let body = self.ok("GET", "/metrics", "", b"").await?;
        read_sample(&String::from_utf8_lossy(&body), shape)
    }
}

fn read_sample(text: &str, shape: Shape) -> Result<Sample, Error> {
    let workflow = ("workflow", shape.workflow());
    let counter = |name, wanted: &[(&str, &str)]| sum(text, name, wanted).map(|value| value as u64);
    Ok(Sample {
        at_us: now_us(),
        started: counter("aob_runs_started_total", &[workflow])
            .ok_or(Error::NoCounter("aob_runs_started_total"))?,
        // A workflow that has not finished a run yet has no series.
        finished: counter("aob_runs_finished_total", &[workflow]).unwrap_or(0),
        completed: counter("aob_runs_finished_total", &[workflow, ("status", "completed")]).unwrap_or(0),
        active: counter("aob_runs_active", &[]),
        nodes_completed: counter("aob_nodes_completed_total", &[]),
        decisions: counter("aob_llm_calls_total", &[("model", MODEL), ("outcome", "succeeded")]).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_needs_the_counter_of_starts_and_no_other() {
        assert!(matches!(read_sample("aob_runs_active 1\n", Shape::Single), Err(Error::NoCounter(_))));
        let text = "aob_runs_started_total 5\naob_runs_finished_total{workflow=\"loadgen_single\",status=\"failed\"} 2\n";
        let sample = read_sample(text, Shape::Single).unwrap();
        assert_eq!((sample.started, sample.finished, sample.completed, sample.active), (5, 2, 0, None));
    }
}
