//! Simple clients: they start runs and remember what was acknowledged.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::harness::{Client, Node, Options, chain};

/// One shard, so that it is the one that is hit; the smallest segments there may be.
pub fn options(directory: &Path) -> Options {
    Options::serve(directory)
        .set("cores.runner", "1")
        // Disks of tests are smaller than what a node leaves free.
        .set("storage.free_bytes_min", "0")
        .set("journal.segment_bytes", &(32_u64 << 20).to_string())
        // What is large fills the journal, not the content store.
        .set("limits.inline_value_bytes_max", "4194304")
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// 202.
    Acknowledged,
    /// Another status, with the code of the problem.
    Refused(u16, String),
    /// The connection broke.
    Unknown,
}

/// Runs that were acknowledged.
#[derive(Debug, Default)]
pub struct Acks {
    /// Id to what it was given.
    pub runs: BTreeMap<String, i64>,
    next: i64,
    padding: String,
}

impl Acks {
    /// The workflow, for a node without one.
    pub fn register(node: &Node) {
        node.client().post("/v1/workflows", &chain("chain2", 2)).expect(201);
    }

    /// Starts carry so many bytes from now on.
    pub fn pad(&mut self, bytes: usize) {
        self.padding = "x".repeat(bytes);
    }

    /// Starts carry this from now on.
    pub fn pad_with(&mut self, padding: String) {
        self.padding = padding;
    }

    /// Starts one run.
    pub fn start(&mut self, client: &mut Client) -> Start {
        self.next += 1;
        let n = self.next;
        let body = json!({"workflow": "chain2", "inputs": {"n": n, "padding": self.padding}});
        let Ok(reply) = client.post_with("/v1/runs", &[], &body) else { return Start::Unknown };
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if reply.status != 202 {
            return Start::Refused(reply.status, body["code"].as_str().unwrap_or_default().to_owned());
        }
        self.runs.insert(body["run_id"].as_str().expect("an id").to_owned(), n);
        Start::Acknowledged
    }

    /// Starts until one is not acknowledged, or `most` are.
    pub fn start_some(&mut self, client: &mut Client, most: usize) -> Start {
        for _ in 0..most {
            let start = self.start(client);
            if start != Start::Acknowledged {
                return start;
            }
        }
        Start::Acknowledged
    }

    /// The runs that are missing or wrong at this node.
    pub fn missing(&self, node: &Node) -> Vec<String> {
        let mut client = node.client();
        let mut missing = Vec::new();
        for (run, n) in &self.runs {
            let wait = [("prefer", "wait=30")];
            let reply = client.request("GET", &format!("/v1/runs/{run}"), &wait, b"").expect("a reply");
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            if reply.status != 200 || body["status"] != "completed" || body["outputs"]["n"] != n + 2 {
                missing.push(format!("{run}: {} {body:.200}", reply.status));
            }
        }
        missing
    }

    /// Everything acknowledged is there, and right.
    pub fn all_there(&self, node: &Node) {
        let missing = self.missing(node);
        assert!(
            missing.is_empty(),
            "{} of {} are missing: {:?}",
            missing.len(),
            self.runs.len(),
            &missing[0]
        );
    }
}
