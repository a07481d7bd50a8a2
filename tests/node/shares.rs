//! Workers that serve several workspaces: everyone has a share, by weight, however many jobs the others have.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};

/// A client that works in this workspace.
struct In<'a>(&'a mut Client, &'a str);

impl In<'_> {
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("aob-workspace", self.1), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.0.request(method, path, &headers, body.as_bytes()).unwrap();
        assert!((200..300).contains(&reply.status), "{path}: {}", String::from_utf8_lossy(&reply.body));
        reply.json()
    }

    /// Starts so many runs, each with one job, and waits until all of them are in the queue.
    fn queue(&mut self, runs: usize) {
        let flow =
            json!({"name": "flow", "version": "1", "nodes": {"t": {"type": "task", "with": {"queue": "q"}}}});
        self.ask("POST", "/v1/workflows", &flow);
        for _ in 0..runs {
            self.ask("POST", "/v1/runs", &json!({"workflow": "flow", "inputs": {}}));
        }
        while self.ask("GET", "/v1/workers/queues", &Value::Null)["queues"][0]["waiting"] != runs {}
    }
}

// F261, F381
#[test]
fn a_workspace_with_many_jobs_delays_another_by_its_share_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("workers.weights", "heavy = 3");
    let node = Node::start(&options);
    let mut client = node.client();
    In(&mut client, "heavy").queue(60);
    In(&mut client, "light").queue(20);
    let polled = |client: &mut Client, workspaces: Value, max: usize| -> Vec<String> {
        let poll = json!({"queues": ["q"], "workspaces": workspaces, "max": max, "wait_ms": 30_000});
        let jobs = client.post("/v1/workers/poll", &poll).expect(200).json()["jobs"].clone();
        let leases: Vec<_> =
            jobs.as_array().unwrap().iter().map(|job| json!({"lease": job["lease"], "output": 1})).collect();
        // A worker of all workspaces answers for all of them.
        let done = client.post("/v1/workers/complete", &json!({"results": leases})).expect(200).json();
        assert!(done["results"].as_array().unwrap().iter().all(|row| row["status"] == "accepted"), "{done}");
        jobs.as_array().unwrap().iter().map(|job| job["workspace"].as_str().unwrap().to_owned()).collect()
    };
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..16 {
        for workspace in polled(&mut client, json!("*"), 1) {
            *shares.entry(workspace).or_default() += 1;
        }
    }
    assert_eq!(shares, BTreeMap::from([("heavy".into(), 12), ("light".into(), 4)]));
    // One job of somebody new comes before the many that came before it.
    In(&mut client, "newcomer").queue(1);
    let next = polled(&mut client, json!("*"), 3);
    assert!(next.contains(&String::from("newcomer")), "{next:?}");
    // A worker of two of them gets jobs of these alone.
    let next = polled(&mut client, json!(["light", "newcomer"]), 4);
    assert_eq!(next, ["light"; 4]);
}
