//! Work in the world: HTTP calls and workers, against a ledger that counts what it was asked to do; kill -9 of the node
//! and of workers.

#![expect(clippy::disallowed_types, reason = "a service and a worker have threads of their own")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// Run, what was asked for, and how often.
type Done = (String, String, usize);

/// A service that honours keys: what it did, by `Idempotency-Key`.
#[derive(Clone, Default)]
struct Ledger {
    calls: Arc<Mutex<BTreeMap<String, Done>>>,
    count: Arc<AtomicUsize>,
}

impl Ledger {
    fn note(&self, key: &str, run_id: &str, what: &str) {
        let mut calls = self.calls.lock().unwrap();
        calls.entry(key.to_owned()).or_insert_with(|| (run_id.to_owned(), what.to_owned(), 0)).2 += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ledger = self.clone();
        in_background(move || {
            for stream in listener.incoming() {
                let (stream, ledger) = (stream.unwrap(), ledger.clone());
                in_background(move || ledger.connection(stream));
            }
        });
        address
    }

    fn connection(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if line == "\r\n" {
                    break;
                }
                head.push(line.trim_end().to_owned());
            }
            let header = |name: &str| {
                head.iter()
                    .find_map(|line| Some(line.split_once(": ")?).filter(|(key, _)| *key == name))
                    .map(|(_, value)| value)
            };
            let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let what = head[0].split(' ').nth(1).unwrap();
            self.note(header("idempotency-key").unwrap(), header("aob-run-id").unwrap(), what);
            let answer = format!("{{\"did\":\"{what}\"}}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            );
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

/// Attempts of a node that its history tells of.
fn attempts(events: &[Value], node: &str) -> usize {
    let counts = |event: &&Value| {
        event["node"] == node && matches!(event["type"].as_str(), Some("node.waiting" | "node.lost"))
    };
    events.iter().filter(counts).count()
}

fn start(client: &mut Client, workflow: &str) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": workflow, "inputs": {"n": 1}})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

/// A worker that works until it is told to stop, whatever happens to the node. Every seventh job it takes and forgets, as
/// one that is killed does.
fn worker(addresses: Arc<Mutex<String>>, ledger: Ledger, stop: Arc<AtomicBool>) {
    let mut taken = 0;
    let mut client: Option<(String, Client)> = None;
    while !stop.load(Ordering::Relaxed) {
        let address = addresses.lock().unwrap().clone();
        let (_, node) = match client.take().filter(|(of, _)| *of == address) {
            Some(known) => client.insert(known),
            None => match TcpStream::connect(&address) {
                Ok(_) => client.insert((address.clone(), Client::new(&address))),
                Err(_) => {
                    std::thread::yield_now();
                    continue;
                }
            },
        };
        let poll = json!({"queues": ["work"], "max": 4, "wait_ms": 200, "worker": "w1"});
        let Ok(reply) = node.post_with("/v1/workers/poll", &[], &poll) else {
            client = None;
            continue;
        };
        if reply.status != 200 {
            continue;
        }
        let mut results = Vec::new();
        for job in reply.json()["jobs"].as_array().unwrap() {
            taken += 1;
            let text = |key: &str| job[key].as_str().unwrap().to_owned();
            ledger.note(&text("idempotency_key"), &text("run_id"), &text("node"));
            if taken % 7 != 0 {
                results.push(json!({"lease": job["lease"], "output": {"did": job["node"]}}));
            }
        }
        if !results.is_empty() {
            // Whether it was heard is not known when this fails; the lease runs out then.
            let _ = node.post_with("/v1/workers/complete", &[], &json!({"results": results}));
        }
    }
}

fn workflows(client: &mut Client, service: SocketAddr) {
    let retry = json!({"max_attempts": 50, "initial": "1ms", "max": "5ms"});
    let call = |path: &str| {
        json!({"type": "http", "retry": retry, "with": {
            "method": "POST", "url": format!("http://{service}/{path}"), "body": {"n": "${ inputs.n }"}}})
    };
    let calls = json!({"name": "calls", "nodes": {"a": call("a"), "b": call("b"), "c": call("c")},
        "edges": [{"from": "a", "to": "b"}, {"from": "b", "to": "c"}]});
    client.post("/v1/workflows", &calls).expect(201);
    let task =
        json!({"type": "task", "retry": retry, "with": {"queue": "work", "payload": {"n": "${ inputs.n }"}}});
    let tasks =
        json!({"name": "tasks", "nodes": {"t1": task, "t2": task}, "edges": [{"from": "t1", "to": "t2"}]});
    client.post("/v1/workflows", &tasks).expect(201);
}

// F026, I-6, I-7
#[test]
fn kill_9_of_node_and_workers_leaves_one_effect_per_key_and_attempts_as_recorded() {
    let rounds: usize = std::env::var("AOB_KILL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path())
        .driver()
        .set("http.allow", "127.0.0.1")
        .set("workers.lease_seconds", "1");
    let ledger = Ledger::default();
    let service = ledger.serve();
    let address = Arc::new(Mutex::new(String::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut runs = Vec::new();
    let mut workers = Vec::new();
    for round in 0..rounds {
        let node = Node::start(&options);
        node.address.clone_into(&mut address.lock().unwrap());
        let mut client = node.client();
        if round == 0 {
            workflows(&mut client, service);
            let (address, ledger, stop) = (address.clone(), ledger.clone(), stop.clone());
            workers.push(in_background(move || worker(address, ledger, stop)));
        }
        let before = ledger.count.load(Ordering::Relaxed);
        for n in 0..10 {
            runs.push(start(&mut client, if n % 2 == 0 { "calls" } else { "tasks" }));
        }
        // Another moment each round, by what the world has seen.
        while ledger.count.load(Ordering::Relaxed) < before + 1 + round % 17 {
            std::thread::yield_now();
        }
        node.kill();
    }
    let node = Node::start(&options);
    node.address.clone_into(&mut address.lock().unwrap());
    let mut client = node.client();
    let mut recorded: BTreeMap<(String, String), usize> = BTreeMap::new();
    for run_id in &runs {
        let run = ended(&mut client, run_id);
        assert_eq!(run["status"], "completed", "{run}");
        let events = timeline(&mut client, run_id);
        for node in ["a", "b", "c", "t1", "t2"] {
            recorded.insert((run_id.clone(), node.to_owned()), attempts(&events, node));
        }
    }
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let calls = ledger.calls.lock().unwrap();
    let mut steps = BTreeSet::new();
    for (key, (run_id, what, count)) in calls.iter() {
        let node = what.trim_start_matches('/');
        let recorded = recorded[&(run_id.clone(), node.to_owned())];
        assert!(*count <= recorded, "{run_id} {node}: {count} calls, {recorded} attempts recorded");
        assert!(steps.insert((run_id.clone(), node.to_owned())), "{run_id} {node} has a second key: {key}");
    }
    assert_eq!(steps.len(), runs.len() / 2 * 5, "every step had its effect");
    let total: usize = calls.values().map(|(_, _, count)| count).sum();
    eprintln!("{rounds} rounds, {} steps, {total} calls", steps.len());
}

#[test]
fn a_worker_is_given_what_it_needs_and_a_late_result_is_stale() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver().set("workers.lease_seconds", "1"));
    let mut client = node.client();
    let once = json!({"name": "once", "nodes": {"t": {"type": "task", "priority": "high", "at_most_once": true,
        "timeout": "1h", "with": {"queue": "q", "payload": {"x": "${ inputs.n + 1 }"}}}}});
    client.post("/v1/workflows", &once).expect(201);
    let run_id = start(&mut client, "once");
    let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    let why = graph["nodes"]["t"]["waiting_for"].as_str().unwrap();
    assert!(why.starts_with("a worker of queue q (priority high)"), "{why}");
    let queues = client.get("/v1/workers/queues").expect(200).json();
    assert_eq!(queues["queues"][0], json!({"queue": "q", "waiting": 1, "leased": 0, "max": null}));

    let metrics = String::from_utf8(client.get("/metrics").body).unwrap();
    let line = r#"aob_jobs{workspace="default",queue="q",state="waiting"} 1"#;
    assert!(metrics.contains(line), "{metrics}");

    let poll = json!({"queues": ["other", "q"], "max": 5, "wait_ms": 30_000, "worker": "alice"});
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    let job = &jobs["jobs"][0];
    assert_eq!((&job["run_id"], &job["node"], &job["attempt"]), (&json!(run_id), &json!("t"), &json!(1)));
    assert_eq!(
        (&job["input"], &job["priority"], &job["queue"]),
        (&json!({"x": 2}), &json!("high"), &json!("q"))
    );
    assert!(job["config_digest"].as_str().unwrap().starts_with("sha-256=:"), "{job}");
    let graph = client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
    assert_eq!(graph["nodes"]["t"]["state"], "running");
    assert!(graph["nodes"]["t"]["waiting_for"].as_str().unwrap().contains("alice"), "{graph}");
    let beat = client
        .post("/v1/workers/heartbeat", &json!({"leases": [job["lease"], "nonsense"]}))
        .expect(200)
        .json();
    assert_eq!(
        (&beat["leases"][0]["state"], &beat["leases"][1]["state"]),
        (&json!("held"), &json!("unknown"))
    );

    // Alice is silent. What she did nobody knows, and nobody else is asked.
    let path = format!("/v1/runs/{run_id}/events");
    let events = client.events(&path, &[], |event| event.event != "node.uncertain");
    let uncertain = events.last().unwrap();
    assert!(uncertain.data["error"]["message"].as_str().unwrap().contains("alice"), "{:?}", uncertain.data);
    let mut client = node.client();
    let beat = client.post("/v1/workers/heartbeat", &json!({"leases": [job["lease"]]})).expect(200).json();
    assert_eq!(beat["leases"][0]["state"], "unknown");
    // Then she says after all how it went, by the URL alone.
    let path = job["callback"].as_str().unwrap();
    let said = client.post(path, &json!({"output": 42})).expect(200).json();
    assert_eq!(said["results"][0]["status"], "accepted");
    assert_eq!(ended(&mut client, &run_id)["outputs"]["t"], 42);
    let said = client.post(path, &json!({"output": 43})).expect(200).json();
    assert_eq!(said["results"][0]["status"], "stale");
    client.post("/v1/callbacks/AAAA", &json!({"output": 1})).expect(404);
    assert_eq!(ended(&mut client, &run_id)["outputs"]["t"], 42);
}

// I-16: it went out under epoch 0.
#[test]
fn a_job_that_is_handed_out_again_after_a_restart_carries_the_new_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).driver();
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &json!({"name": "flow", "nodes": {"t": {"type": "task"}}})).expect(201);
    let before = start(&mut client, "flow");
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let fresh = client.post("/v1/runs", &json!({"workflow": "flow", "inputs": {"n": 1}})).expect(202).json();
    let poll = json!({"queues": ["t"], "max": 2, "wait_ms": 30_000});
    let mut jobs = Vec::new();
    while jobs.len() < 2 {
        let answer = client.post("/v1/workers/poll", &poll).expect(200).json();
        jobs.extend(answer["jobs"].as_array().unwrap().clone());
    }
    let again = jobs.iter().find(|job| job["run_id"] == *before).unwrap();
    let first = jobs.iter().find(|job| job["run_id"] == fresh["run_id"]).unwrap();
    assert_eq!((&again["attempt"], &again["epoch"]), (&json!(1), &first["epoch"]), "{jobs:?}");
    assert_eq!(again["epoch"], 2);
}

#[test]
fn a_failure_is_told_in_the_workers_words_and_a_cancel_reaches_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver());
    let mut client = node.client();
    let flow = json!({"name": "flow", "nodes": {"t": {"type": "task", "retry": {"initial": "1ms"}}}});
    client.post("/v1/workflows", &flow).expect(201);
    let poll = json!({"queues": ["t"], "wait_ms": 30_000});
    let run_id = start(&mut client, "flow");
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    let error = json!({"code": "busy", "message": "come again", "retryable": true});
    let failed = json!({"failures": [{"lease": jobs["jobs"][0]["lease"], "error": error}]});
    client.post("/v1/workers/fail", &failed).expect(200);
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    assert_eq!(jobs["jobs"][0]["attempt"], 2);
    let error = json!({"code": "bad_input", "message": "it is not a picture", "retryable": false, "details": {"at": 3}});
    let failed = json!({"lease": jobs["jobs"][0]["lease"], "error": error});
    client.post("/v1/workers/fail", &failed).expect(200);
    let run = ended(&mut client, &run_id);
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("bad_input")));
    assert_eq!(run["error"]["details"]["at"], 3);

    let run_id = start(&mut client, "flow");
    let jobs = client.post("/v1/workers/poll", &poll).expect(200).json();
    let lease = &jobs["jobs"][0]["lease"];
    client.post(&format!("/v1/runs/{run_id}/cancel"), &json!({})).expect(202);
    let state = |client: &mut Client| {
        let beat = client.post("/v1/workers/heartbeat", &json!({"leases": [lease]})).expect(200).json();
        beat["leases"][0]["state"].as_str().unwrap().to_owned()
    };
    while state(&mut client) == "held" {
        std::thread::yield_now();
    }
    assert_eq!(state(&mut client), "cancelled");
    client.post("/v1/workers/complete", &json!({"lease": lease, "output": null})).expect(200);
    assert_eq!(ended(&mut client, &run_id)["status"], "cancelled");
}

#[test]
fn a_node_that_ends_lets_go_of_those_who_wait_for_work() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver());
    let mut client = node.client();
    let (sent, polling) = std::sync::mpsc::channel();
    let address = node.address.clone();
    let waiting = in_background(move || {
        let mut client = Client::new(&address);
        sent.send(()).unwrap();
        client.post_with("/v1/workers/poll", &[], &json!({"queues": ["q"], "wait_ms": 60_000}))
    });
    polling.recv().unwrap();
    let queues = |client: &mut Client| client.get("/v1/workers/queues").expect(200).json()["queues"].clone();
    while queues(&mut client) == json!([]) {
        std::thread::yield_now();
    }
    let (status, log) = node.terminate();
    assert!(status.success(), "{log}");
    let answer = waiting.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.json()), (200, json!({"jobs": []})));
}

// F409, F411
#[test]
fn a_secret_is_sent_and_stands_nowhere_else() {
    let canary = "canary-5d1f8a77c2";
    let directory = tempfile::tempdir().unwrap();
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("KEY"), canary).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = listener.local_addr().unwrap();
    // It quotes what it was sent, in several spellings.
    let echo = in_background(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut seen = String::new();
        while !seen.ends_with("\r\n\r\n") {
            reader.read_line(&mut seen).unwrap();
        }
        let hex: String = canary.bytes().map(|byte| format!("{byte:02x}")).collect();
        let body = json!({"said": seen, "hex": hex, "base64": "Y2FuYXJ5LTVkMWY4YTc3YzI="}).to_string();
        let head =
            format!("x-echo: {canary}\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
        write!(reader.get_mut(), "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").unwrap();
        seen
    });
    let path = secrets.path().display().to_string();
    let options = Options::serve(directory.path())
        .driver()
        .set("http.allow", "127.0.0.1")
        .set("secrets.directory", &path);
    let node = Node::start(&options);
    let mut client = node.client();
    let flow = |key: &str| {
        json!({"name": "flow", "nodes": {"a": {"type": "http", "with": {
            "url": format!("http://{service}/"), "headers": {"authorization": format!("Bearer {key}")}}}}})
    };
    let refused = client.post("/v1/workflows", &flow(canary)).expect(422).json();
    assert_eq!(refused["errors"][0]["code"], "literal_secret");
    client.post("/v1/workflows", &flow("${secret:KEY}")).expect(201);
    let run_id = start(&mut client, "flow");
    let run = ended(&mut client, &run_id);
    assert_eq!(run["status"], "completed", "{run}");
    assert!(echo.join().unwrap().contains(&format!("authorization: Bearer {canary}\r\n")), "it was sent");
    let said = run["outputs"]["a"]["body"].to_string();
    assert!(said.contains("[redacted]"), "{said}");
    let mut shown = run.to_string();
    for path in ["timeline?limit=100", "graph"] {
        shown += &client.get(&format!("/v1/runs/{run_id}/{path}")).expect(200).json().to_string();
    }
    for path in ["/metrics", "/v1/node"] {
        shown += &String::from_utf8_lossy(&client.get(path).body);
    }
    let (_, log) = node.terminate();
    shown += &log;
    let mut files = vec![directory.path().to_owned()];
    let mut bytes = shown.into_bytes();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    for spelling in [canary, "63616e6172792d35643166", "Y2FuYXJ5LTVkMWY4YTc3YzI"] {
        let found = bytes.windows(spelling.len()).any(|window| window == spelling.as_bytes());
        assert!(!found, "{spelling} stands in an answer, a log or a file");
    }
}
