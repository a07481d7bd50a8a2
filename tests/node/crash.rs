//! kill -9 under load: what was acknowledged is there and completes, and no key starts two runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::harness::{Client, Node, Options, chain, in_background};

/// Sends starts, each under its own key, until the connection breaks. Returns key -> run id for every acknowledgement,
/// and the key whose outcome is unknown.
fn load(
    address: String,
    prefix: String,
    acknowledged: Arc<AtomicUsize>,
) -> (BTreeMap<String, String>, String) {
    let mut client = Client::new(&address);
    let mut acks = BTreeMap::new();
    for n in 0.. {
        let key = format!("{prefix}-{n}");
        let body = json!({"workflow": "chain5", "inputs": {"n": n}});
        match client.post_with("/v1/runs", &[("idempotency-key", &key)], &body) {
            Ok(reply) => {
                let reply = reply.expect(202).json();
                acks.insert(key, reply["run_id"].as_str().expect("an id").to_owned());
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => return (acks, key),
        }
    }
    unreachable!("the node is killed")
}

// F004, F010, F114
#[test]
fn every_acknowledged_run_survives_kill_9_and_completes_and_no_key_starts_two() {
    let rounds: u64 = std::env::var("AOB_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    let mut runs_before = 0;
    for round in 0..rounds {
        let node = Node::start(&options);
        if round == 0 {
            node.client().post("/v1/workflows", &chain("chain5", 5)).expect(201);
        }
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let loaders: Vec<_> = (0..4)
            .map(|i| {
                let (address, count) = (node.address.clone(), acknowledged.clone());
                in_background(move || load(address, format!("r{round}-c{i}"), count))
            })
            .collect();
        // A different moment each round: after so many acknowledgements, mid-flight for the other connections.
        let enough = 50 + (round as usize * 37) % 400;
        while acknowledged.load(Ordering::Relaxed) < enough {
            std::thread::yield_now();
        }
        node.kill();
        let mut unknown = Vec::new();
        for loader in loaders {
            let (acks, last) = loader.join().unwrap();
            all.extend(acks);
            unknown.push(last);
        }

        let node = Node::start(&options);
        let mut client = node.client();
        for (key, run_id) in all.iter().filter(|(key, _)| key.starts_with(&format!("r{round}-"))) {
            let n: i64 = key.rsplit('-').next().unwrap().parse().unwrap();
            let run = client
                .request("GET", &format!("/v1/runs/{run_id}"), &[("prefer", "wait=30")], b"")
                .unwrap()
                .expect(200)
                .json();
            assert_eq!(run["status"], "completed", "{key}: {run}");
            assert_eq!(run["outputs"]["n"], n + 5, "{key}");
            let again = client
                .post_with(
                    "/v1/runs",
                    &[("idempotency-key", key)],
                    &json!({"workflow": "chain5", "inputs": {"n": n}}),
                )
                .unwrap()
                .expect(202);
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{key}");
            assert_eq!(again.json()["run_id"], **run_id, "{key}");
        }
        // A key whose outcome was unknown starts one run at most, however often it is sent.
        for key in unknown {
            let n: i64 = key.rsplit('-').next().unwrap().parse().unwrap();
            let mut ids = Vec::new();
            for _ in 0..2 {
                let body = json!({"workflow": "chain5", "inputs": {"n": n}});
                let reply =
                    client.post_with("/v1/runs", &[("idempotency-key", &key)], &body).unwrap().expect(202);
                ids.push(reply.json()["run_id"].as_str().unwrap().to_owned());
            }
            assert_eq!(ids[0], ids[1], "{key}");
            all.insert(key, ids.remove(0));
        }
        let runs = client.run_ids().len();
        assert!(runs >= runs_before, "runs are never lost");
        assert_eq!(runs, all.len(), "as many runs as keys, round {round}");
        runs_before = runs;
        node.kill();
    }
    println!("{rounds} rounds, {} acknowledged runs", all.len());
}
