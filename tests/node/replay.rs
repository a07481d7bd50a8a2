//! Replay and fork, with the real binaries: bundles on machines without a node, states by their hash, runs made again
//! without effects, and runs that go on where others were.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aob::model::EventBody;
use aob::replay::Bundle;
use aob::store::record::{BurstHead, append};
use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, chain, in_background};

/// A service that counts its calls.
#[derive(Clone, Default)]
struct Service(Arc<AtomicUsize>);

impl Service {
    fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, service) = (listener.local_addr().unwrap(), self.clone());
        in_background(move || {
            for stream in listener.incoming() {
                let service = service.clone();
                in_background(move || service.connection(stream.unwrap()));
            }
        });
        address
    }

    fn connection(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut length, mut line) = (0, String::new());
            loop {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let body = format!("{{\"call\":{}}}", 1 + self.0.fetch_add(1, Ordering::Relaxed));
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length:";
            let answer = format!("{head} {}\r\n\r\n{body}", body.len());
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn calls(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn options(directory: &Path) -> Options {
    Options::serve(directory).driver().set("http.allow", "127.0.0.1").set("cores.runner", "2")
}

/// double -> fetch (a call) -> work (a job) -> parse, or -> small when the input is.
fn triage(service: SocketAddr, mode: &str) -> Value {
    json!({"name": "triage", "version": "1", "mode": mode, "nodes": {
        "double": {"type": "function", "with": {"expr": "inputs.n * 2"}},
        "fetch": {"type": "http", "with": {"method": "POST", "url": format!("http://{service}/fetch"),
            "body": {"n": "${ nodes.double.output }"}}},
        "work": {"type": "task", "with": {"queue": "work", "payload": {"n": "${ nodes.double.output }"}}},
        "parse": {"type": "function", "with": {"expr": "[nodes.double.output, nodes.work.output]"}}},
        "edges": [{"from": "double", "to": "fetch"}, {"from": "fetch", "to": "work"}, {"from": "work", "to": "parse"}],
        "outputs": {"parsed": "${ nodes.parse.output }"}})
}

fn start(client: &mut Client, workflow: &str, inputs: &Value) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": workflow, "inputs": inputs})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run: &str) -> Value {
    let waited = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=30")], b"");
    waited.unwrap().expect(200).json()
}

/// Takes one job and completes it.
fn work(client: &mut Client, output: &str) -> Value {
    let poll = json!({"worker": "w", "queues": ["work"], "max": 1, "wait_ms": 30_000});
    let job = client.post("/v1/workers/poll", &poll).expect(200).json()["jobs"][0].clone();
    let results = json!({"results": [{"lease": job["lease"], "output": output}]});
    client.post("/v1/workers/complete", &results).expect(200);
    job
}

/// Runs the client on a machine of its own: an empty directory, nothing in its environment, a node or none.
pub(crate) fn aob(node: Option<&Node>, arguments: &[&str]) -> (i32, String, String) {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aob"));
    command.env_clear().current_dir(empty.path()).env("HOME", empty.path());
    match node {
        Some(node) => command.env("AOB_URL", format!("http://{}", node.address)),
        // Whatever it would ask would not answer.
        None => command.env("AOB_URL", "http://127.0.0.1:1"),
    };
    let out = command.args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A finished run of `triage`.
fn triaged(client: &mut Client, service: SocketAddr, mode: &str) -> String {
    client.post("/v1/workflows", &triage(service, mode)).expect(201);
    let run = start(client, "triage", &json!({"n": 4}));
    work(client, "done");
    assert_eq!(ended(client, &run)["outputs"], json!({"parsed": [8, "done"]}));
    run
}

/// The same record with an event changed that the engine decides, and the number of that event.
fn broken(file: &Path) -> (Vec<u8>, u64) {
    let mut bundle = Bundle::from_bytes(&std::fs::read(file).unwrap()).unwrap();
    let (record, _) = bundle.record().unwrap();
    let (mut events, mut changed) = (Vec::new(), 0);
    for burst in &record.bursts {
        let mut burst = burst.clone();
        for (at, event) in burst.events.iter_mut().enumerate() {
            if let EventBody::RunCompleted { outputs } = event {
                *outputs = serde_json::from_value(json!({"parsed": "otherwise"})).unwrap();
                changed = burst.first_seq + at as u64;
            }
        }
        let head = BurstHead { run_id: record.run_id, first_seq: burst.first_seq, at: burst.at };
        append(&mut events, head, &burst.events).unwrap();
    }
    bundle.events = events;
    (bundle.to_bytes().unwrap(), changed)
}

// F188, F189, F092, N4, RELIABILITY I-9
#[test]
fn a_bundle_made_under_load_is_verified_on_a_machine_without_a_node() {
    for mode in ["full", "fast"] {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = Node::start(&options(directory.path()));
        let (mut client, service) = (node.client(), Service::default());
        client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
        let run = triaged(&mut client, service.serve(), mode);
        let (address, stop) = (node.address.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let load = in_background(move || {
            let mut client = Client::new(&address);
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                start(&mut client, "chain5", &json!({"n": 1}));
                count += 1;
            }
            count
        });
        let file = elsewhere.path().join("run.aob");
        let path = file.to_str().unwrap();
        // Verbatim, as it was asked for.
        let (code, said, wrong) = aob(Some(&node), &["replay", &run, "--from", "parse", "--mode", "freeze"]);
        assert_eq!(code, 0, "{said}{wrong}");
        assert!(said.contains("verified"), "{said}");
        let (code, _, wrong) = aob(Some(&node), &["replay", &run, "--bundle", path]);
        assert_eq!(code, 0, "{wrong}");
        stop.store(true, Ordering::Relaxed);
        assert!(load.join().unwrap() > 0);
        let state = client.get(&format!("/v1/runs/{run}/state")).expect(200).json();
        node.kill();
        let calls = service.calls();
        let (code, said, wrong) = aob(None, &["replay", "--bundle", path, "-o", "json"]);
        assert_eq!(code, 0, "{wrong}");
        let verified = parsed(&said);
        assert_eq!((&verified["from"], &verified["to"]), (&json!(1), &state["seq"]), "{verified}");
        assert_eq!((&verified["hash"], &verified["verified"]), (&state["hash"], &json!(true)));
        let (code, said, _) = aob(None, &["replay", "--bundle", path, "--from", "parse", "-o", "json"]);
        assert_eq!(code, 0);
        assert!(parsed(&said)["from"].as_u64().unwrap() > 1, "what came before is taken from the record");
        for (arguments, wanted) in [(["--from", "nowhere"], 3), (["--mode", "slow"], 2), (["--at", "999"], 3)]
        {
            let all = [&["replay", "--bundle", path][..], &arguments].concat();
            let (code, _, wrong) = aob(None, &all);
            assert_eq!(code, wanted, "{arguments:?}: {wrong}");
        }
        // Changed by hand, the checksum right again: the first event that differs is named.
        let (bytes, changed) = broken(&file);
        std::fs::write(&file, bytes).unwrap();
        let (code, said, wrong) = aob(None, &["replay", "--bundle", path, "-o", "json"]);
        assert_eq!(code, 1, "{said}");
        let divergence = parsed(&said)["divergence"].clone();
        assert_eq!((&divergence["seq"], &divergence["event"]), (&json!(changed), &json!("run.completed")));
        assert_eq!(
            (&divergence["field"], &divergence["expected"]),
            (&json!("outputs.parsed"), &json!("otherwise"))
        );
        assert_eq!(divergence["got"], json!([8, "done"]));
        assert!(
            wrong.contains(&format!("event {changed} (run.completed) diverges in outputs.parsed")),
            "{wrong}"
        );
        // And changed without: it is not believed at all.
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (code, _, wrong) = aob(None, &["replay", "--bundle", path]);
        assert_eq!(code, 1);
        assert!(wrong.contains("checksum"), "{wrong}");
        assert_eq!(service.calls(), calls, "nobody was called");
    }
}

// F084, F090
#[test]
fn a_state_has_the_same_hash_before_and_after_kill_9_and_from_its_bundle() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = options(directory.path());
    let node = Node::start(&settings);
    let (mut client, service) = (node.client(), Service::default());
    client.post("/v1/workflows", &triage(service.serve(), "full")).expect(201);
    let run = start(&mut client, "triage", &json!({"n": 4}));
    // The job is under way: fetch has completed.
    while client.get(&format!("/v1/runs/{run}/graph")).expect(200).json()["nodes"]["work"]["state"]
        != "waiting"
    {}
    let seq = client.get(&format!("/v1/runs/{run}")).expect(200).json()["seq"].as_u64().unwrap();
    let states = |client: &mut Client| -> Vec<Value> {
        (1..=seq)
            .map(|seq| client.get(&format!("/v1/runs/{run}/state?seq={seq}")).expect(200).json())
            .collect()
    };
    let before = states(&mut client);
    let hashes: std::collections::BTreeSet<_> =
        before.iter().map(|state| state["hash"].to_string()).collect();
    assert_eq!(hashes.len(), before.len(), "every event makes another state");
    let nodes: Vec<_> = before[1]["nodes"].as_array().unwrap().iter().map(|node| &node["path"]).collect();
    assert_eq!(nodes, ["double", "fetch", "work", "parse"]);
    client.get(&format!("/v1/runs/{run}/state?seq={}", seq + 1)).expect(404);
    client.get(&format!("/v1/runs/{run}/state?seq=0")).expect(404);
    client.get(&format!("/v1/runs/{run}/state?seq=x")).expect(400);
    node.kill();
    let node = Node::start(&settings);
    let mut client = node.client();
    assert_eq!(states(&mut client), before, "after kill -9");
    work(&mut client, "done");
    ended(&mut client, &run);
    assert_eq!(states(&mut client), before, "once it has ended");
    let (code, said, wrong) = aob(Some(&node), &["run", "state", &run, "--at", "3", "-o", "json"]);
    assert_eq!((code, parsed(&said)), (0, before[2].clone()), "{wrong}");
    let file = elsewhere.path().join("run.aob");
    let path = file.to_str().unwrap();
    assert_eq!(aob(Some(&node), &["replay", &run, "--bundle", path]).0, 0);
    drop(node);
    for (state, at) in before.iter().zip(1..) {
        let (code, said, _) =
            aob(None, &["replay", "--bundle", path, "--at", &format!("{at}"), "-o", "json"]);
        assert_eq!((code, &parsed(&said)), (0, state));
    }
}

// N5, F189
#[test]
fn a_shadow_calls_nobody_and_says_what_would_be_otherwise() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Node::start(&options(directory.path()));
    let (mut client, service) = (node.client(), Service::default());
    let address = service.serve();
    let run = triaged(&mut client, address, "full");
    let file = elsewhere.path().join("run.aob");
    let path = file.to_str().unwrap();
    assert_eq!(aob(Some(&node), &["replay", &run, "--bundle", path]).0, 0);
    let calls = service.calls();
    let shadow = |more: &[&str]| -> Value {
        let all = [&["replay", &run, "--mode", "shadow", "-o", "json"][..], more].concat();
        let (code, said, wrong) = aob(Some(&node), &all);
        assert_eq!(code, 0, "{wrong}");
        let offline = [&["replay", "--bundle", path, "--mode", "shadow", "-o", "json"][..], more].concat();
        assert_eq!(aob(None, &offline).1, said, "the same without the node");
        parsed(&said)
    };
    let same = shadow(&[]);
    assert_eq!((&same["same"], &same["answered"], &same["nodes"]), (&json!(true), &json!(2), &json!([])));
    let other = shadow(&["--input", "n=5"]);
    assert_eq!(
        other["outputs"],
        json!({"recorded": {"parsed": [8, "done"]}, "shadow": {"parsed": [10, "done"]}})
    );
    let nodes: Vec<_> = other["nodes"].as_array().unwrap().iter().map(|node| &node["node"]).collect();
    assert_eq!(nodes, ["double", "parse"], "exactly these");
    let asked: Vec<_> =
        other["requests_changed"].as_array().unwrap().iter().map(|call| &call["node"]).collect();
    assert_eq!(asked, ["fetch", "work"]);
    assert_eq!((&other["would_call"], &other["calls_made"]), (&json!([]), &json!(0)));
    // Another document: a second call that the record knows no answer of, and what follows it does not run.
    let mut document = triage(address, "full");
    document["nodes"]["again"] = json!({"type": "http", "with": {"url": format!("http://{address}/again")}});
    document["edges"] = json!([{"from": "double", "to": "fetch"}, {"from": "fetch", "to": "work"},
        {"from": "work", "to": "again"}, {"from": "again", "to": "parse"}]);
    let workflow = elsewhere.path().join("w.json");
    std::fs::write(&workflow, document.to_string()).unwrap();
    let stopped = shadow(&["--workflow", workflow.to_str().unwrap()]);
    assert_eq!(stopped["status"], json!({"recorded": "completed", "shadow": "stopped"}));
    assert_eq!(
        (&stopped["would_call"][0]["node"], &stopped["waits_at"]),
        (&json!("again"), &json!(["again"]))
    );
    assert_eq!(stopped["not_run"], json!(["parse"]));
    let table = aob(None, &["replay", "--bundle", path, "--mode", "shadow", "--input", "n=5"]).1;
    assert!(table.contains("2 calls answered from the record, 0 made"), "{table}");
    assert!(table.contains("completed 8  ->  completed 10"), "{table}");
    assert_eq!(service.calls(), calls, "no call was made");
    let poll = json!({"worker": "w", "queues": ["work"], "max": 1, "wait_ms": 0});
    assert_eq!(client.post("/v1/workers/poll", &poll).expect(200).json()["jobs"], json!([]), "nor a job");
}
