//! Large values: kept by reference, stored once, there after kill -9, never served damaged, gone when nothing refers to them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options, in_background};

const MIB: usize = 1 << 20;

/// Text of some bytes that is like no other.
fn text(what: &str, bytes: usize) -> String {
    let mut text = format!("{what} ").repeat(bytes / (what.len() + 1) + 1);
    text.truncate(bytes);
    text
}

/// What a text is called in the content store: by its JSON.
fn name(text: &str) -> String {
    let digest = Sha256::digest(json!(text).to_string());
    digest.iter().fold(String::from("sha256:"), |name, byte| format!("{name}{byte:02x}"))
}

fn reference(text: &str) -> Value {
    json!({"$cas": name(text), "bytes": text.len() + 2})
}

fn file(directory: &Path, name: &str) -> PathBuf {
    let digits = name.trim_start_matches("sha256:");
    directory.join("cas").join(&digits[..2]).join(&digits[2..])
}

/// Passes its input on to a worker, and waits for a signal; its outputs are all of it.
fn workflow() -> Value {
    json!({"name": "papers", "nodes": {
        "copy": {"type": "function", "with": {"expr": "inputs.doc"}},
        "work": {"type": "task", "with": {"queue": "work", "payload": {"doc": "${ nodes.copy.output }"}}},
        "go": {"type": "wait", "with": {"signal": "go"}}},
        "edges": [{"from": "copy", "to": "work"}, {"from": "work", "to": "go"}],
        "outputs": {"doc": "${ nodes.copy.output }", "made": "${ nodes.work.output }", "said": "${ nodes.go.output }"}})
}

/// Writes its input down many times, and ends.
fn filling() -> Value {
    let nodes =
        (0..24).map(|n| (format!("a{n}"), json!({"type": "function", "with": {"expr": "inputs.doc"}})));
    json!({"name": "filling", "nodes": nodes.collect::<serde_json::Map<_, _>>()})
}

fn start(client: &mut Client, workflow: &str, doc: &str) -> String {
    let body = json!({"workflow": workflow, "inputs": {"doc": doc}});
    client.post("/v1/runs", &body).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

fn content(client: &mut Client, headers: &[(&str, &str)], name: &str) -> Response {
    client.request("GET", &format!("/v1/cas/{name}"), headers, b"").unwrap()
}

/// The head of an answer that has no body, in lower case.
fn head(node: &Node, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(&node.address).unwrap();
    write!(stream, "HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.to_ascii_lowercase()
}

fn timeline(client: &mut Client, run_id: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

/// Takes the one job there is.
fn job(client: &mut Client) -> Value {
    let poll = json!({"queues": ["work"], "max": 1, "wait_ms": 20_000, "worker": "w"});
    client.post("/v1/workers/poll", &poll).expect(200).json()["jobs"][0].clone()
}

fn complete(client: &mut Client, job: &Value, output: &str) {
    let body = json!({"lease": job["lease"], "output": output});
    let answer = client.post("/v1/workers/complete", &body).expect(200).json();
    assert_eq!(answer["results"][0]["status"], "accepted", "{answer}");
}

fn files(directory: &Path) -> usize {
    let folders = std::fs::read_dir(directory.join("cas")).unwrap();
    folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
}

/// Asks until it is so.
fn until(mut is_so: impl FnMut() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test may take so long and no longer")]
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "it does not come to be so");
    }
}

// F027, F059, F088, RELIABILITY F3, I-3
#[test]
fn large_values_go_by_reference_and_outlive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).driver();
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &workflow()).expect(201);
    let (doc, made, said) = (text("doc", MIB), text("made", MIB), text("said", MIB));
    let run_id = start(&mut client, "papers", &doc);
    let follower = {
        let (watcher, path) = (node.client(), format!("/v1/runs/{run_id}/events"));
        in_background(move || watcher.events(&path, &[], |event| event.event != "node.leased"))
    };
    let taken = job(&mut client);
    assert_eq!(taken["input"]["doc"], doc, "a worker has the value itself");
    follower.join().unwrap();
    node.kill();

    // The attempt stands; its result arrives at another life of the node.
    let node = Node::start(&options);
    let mut client = node.client();
    complete(&mut client, &taken, &made);
    let waits = client.get(&format!("/v1/runs/{run_id}")).expect(200).json();
    assert_eq!(waits["inputs"], json!({"doc": reference(&doc)}));
    let before = timeline(&mut client, &run_id);
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(timeline(&mut client, &run_id), before);
    let signalled = client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({"payload": said}));
    assert!(matches!(signalled.status, 200 | 202));
    let run = ended(&mut client, &run_id);
    assert_eq!(run["status"], "completed");
    let outputs = json!({"doc": reference(&doc), "made": reference(&made), "said": reference(&said)});
    assert_eq!(run["outputs"], outputs);
    for whole in [&doc, &made, &said] {
        assert_eq!(content(&mut client, &[], &name(whole)).expect(200).json(), **whole);
    }
    // Every node's output is there by its reference, live and read back alike.
    let events = timeline(&mut client, &run_id);
    let outputs: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "node.completed")
        .map(|event| &event["output"])
        .collect();
    assert_eq!(outputs, [&reference(&doc), &reference(&made), &reference(&said)]);
    let streamed = client.events(&format!("/v1/runs/{run_id}/events"), &[], |_| true);
    assert_eq!(streamed.into_iter().map(|event| event.data).collect::<Vec<_>>(), events);
    assert_eq!(files(directory.path()), 3);
    // The journal is small: three MiB went through, some of it several times.
    let metrics = String::from_utf8(client.get("/metrics").body).unwrap();
    assert!(metrics.contains("\naob_contents_shared_total "), "{metrics}");
    // The request that is too large to be read is refused.
    let answer =
        client.post_with("/v1/runs", &[], &json!({"workflow": "papers", "inputs": text("x", 5 * MIB)}));
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 413));
}

// RELIABILITY F3
#[test]
fn a_live_stream_and_a_replayed_one_show_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver());
    let mut client = node.client();
    client.post("/v1/workflows", &workflow()).expect(201);
    let run_id = start(&mut client, "papers", &text("doc", 100_000));
    let (watcher, path) = (node.client(), format!("/v1/runs/{run_id}/events"));
    let (begun, begins) = std::sync::mpsc::channel();
    let live = in_background(move || {
        watcher.events(&path, &[], |event| {
            let _ = begun.send(event.event.clone());
            true
        })
    });
    // It follows what happens from here on.
    begins.recv().unwrap();
    let taken = job(&mut client);
    complete(&mut client, &taken, &text("made", 100_000));
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({"payload": text("said", 100_000)}));
    let live: Vec<Value> = live.join().unwrap().into_iter().map(|event| event.data).collect();
    ended(&mut client, &run_id);
    assert_eq!(live, timeline(&mut client, &run_id));
    assert_eq!(live.last().unwrap()["outputs"]["said"], reference(&text("said", 100_000)));
}

// F060
#[test]
fn two_runs_refer_to_one_object_and_it_goes_after_both() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path())
        .driver()
        .set("retention", "0s")
        .set("journal.segment_bytes", "33554432")
        .set("cas.grace", "1s");
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &workflow()).expect(201);
    client.post("/v1/workflows", &filling()).expect(201);
    let doc = text("shared", MIB);
    let runs = [0, 1].map(|_| start(&mut client, "papers", &doc));
    assert_eq!(files(directory.path()), 1);
    let path = format!("/v1/cas/{}", name(&doc));
    let said = head(&node, &path);
    assert!(said.contains("\r\naob-references: 2\r\n"), "{said}");
    // A run that is refused at its start leaves its inputs for the time of grace only.
    let orphan = text("orphan", MIB);
    let missing = json!({"workflow": "papers", "run_key": "k", "inputs": {"doc": doc}});
    client.post("/v1/runs", &missing).expect(202);
    let taken = json!({"workflow": "papers", "run_key": "k", "inputs": {"doc": orphan}});
    client.post("/v1/runs", &taken).expect(409);
    let orphan = file(directory.path(), &name(&orphan));
    assert!(orphan.exists());
    until(|| {
        client.get("/livez");
        !orphan.exists()
    });
    assert!(file(directory.path(), &name(&doc)).exists(), "runs refer to it");
    for run_id in &runs {
        client.post(&format!("/v1/runs/{run_id}/terminate"), &json!({})).expect(200);
    }
    let listed = client.get("/v1/runs?status=running").expect(200).json();
    let last = listed["runs"][0]["run_id"].as_str().unwrap();
    client.post(&format!("/v1/runs/{last}/terminate"), &json!({})).expect(200);
    // Others fill the segments until those of the first are given back, and the object with them.
    let filler = text("filler", 60_000);
    until(|| {
        let run_id = start(&mut client, "filling", &filler);
        ended_or_gone(&mut client, &run_id);
        !file(directory.path(), &name(&doc)).exists()
    });
    content(&mut client, &[], &name(&doc)).expect(404);
    let metrics = String::from_utf8(client.get("/metrics").body).unwrap();
    let collected = metrics.lines().find(|line| line.starts_with("aob_contents_collected_total ")).unwrap();
    assert!(!collected.ends_with(" 0"), "{collected}");
}

fn ended_or_gone(client: &mut Client, run_id: &str) {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=20")], b"").unwrap();
}

// F057
#[test]
fn what_is_damaged_is_never_served_and_holds_up_only_its_own_run() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).driver();
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &workflow()).expect(201);
    let (bad, good) = (text("bad", 200_000), text("good", 200_000));
    let broken = start(&mut client, "papers", &bad);
    let sound = start(&mut client, "papers", &good);
    let path = file(directory.path(), &name(&bad));
    let whole = std::fs::read(&path).unwrap();
    let mut tampered = whole.clone();
    tampered[100] ^= 1;
    std::fs::write(&path, &tampered).unwrap();
    for headers in [&[][..], &[("range", "bytes=0-9")]] {
        let answer = content(&mut client, headers, &name(&bad)).expect(500);
        let problem = answer.json();
        assert_eq!(problem["code"], "blob_corrupt");
        assert!(problem["detail"].as_str().unwrap().contains(&name(&bad)), "{problem}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("bad bad"));
    }
    node.kill();

    // The node starts; only the run that cannot be read is refused, and says why.
    let node = Node::start(&options);
    let mut client = node.client();
    let refused = client.get(&format!("/v1/runs/{broken}")).expect(500).json();
    assert_eq!(refused["code"], "run_unreadable");
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains(&name(&bad)) && detail.contains(&broken), "{detail}");
    assert!(detail.contains(&path.display().to_string()), "{detail}");
    assert!(node.says("set aside").contains(&broken));
    assert_eq!(client.get(&format!("/v1/runs/{sound}")).expect(200).json()["status"], "running");
    node.kill();

    std::fs::remove_file(&path).unwrap();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(client.get(&format!("/v1/runs/{broken}")).expect(500).json()["code"], "run_unreadable");
    assert_eq!(content(&mut client, &[], &name(&bad)).expect(500).json()["code"], "blob_missing");
    // Put there again, by a client that brings the same content, it is whole.
    start(&mut client, "papers", &bad);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(client.get(&format!("/v1/runs/{broken}")).expect(200).json()["status"], "running");
    let inputs = client.get(&format!("/v1/runs/{broken}")).json()["inputs"].clone();
    assert_eq!(inputs, json!({"doc": reference(&bad)}));
}

// F058
#[test]
fn contents_are_served_with_ranges_tags_and_digests_and_documents_by_their_hash() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).driver());
    let mut client = node.client();
    let registered = client.post("/v1/workflows", &workflow()).expect(201).json();
    let doc = text("doc", 100_000);
    start(&mut client, "papers", &doc);
    let (name, whole) = (name(&doc), json!(doc).to_string());
    let tag = format!("\"{name}\"");
    let answer = content(&mut client, &[("accept-encoding", "gzip, zstd")], &name).expect(200);
    assert_eq!(answer.body, whole.as_bytes());
    assert_eq!(answer.header("etag"), Some(&*tag));
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    assert_eq!(answer.header("content-encoding"), None);
    assert!(answer.header("cache-control").unwrap().contains("immutable"));
    let digest = answer.header("repr-digest").unwrap();
    assert!(digest.starts_with("sha-256=:") && digest.ends_with(':') && digest.len() == 54, "{digest}");
    for (range, part, shown) in [
        ("bytes=0-9", &whole[..10], "bytes 0-9/100002"),
        ("bytes=99990-", &whole[99_990..], "bytes 99990-100001/100002"),
        ("bytes=-2", &whole[100_000..], "bytes 100000-100001/100002"),
    ] {
        let answer = content(&mut client, &[("range", range)], &name).expect(206);
        assert_eq!(answer.body, part.as_bytes(), "{range}");
        assert_eq!(answer.header("content-range"), Some(shown));
        assert_eq!(answer.header("repr-digest"), Some(digest));
    }
    let beyond = content(&mut client, &[("range", "bytes=200000-")], &name).expect(416);
    assert_eq!(beyond.header("content-range"), Some("bytes */100002"));
    assert_eq!(beyond.json()["code"], "range_not_satisfiable");
    for ignored in ["bytes=0-1,5-6", "lines=0-1", "bytes=5-1"] {
        content(&mut client, &[("range", ignored)], &name).expect(200);
    }
    content(&mut client, &[("range", "bytes=0-9"), ("if-range", &tag)], &name).expect(206);
    content(&mut client, &[("range", "bytes=0-9"), ("if-range", "\"other\"")], &name).expect(200);
    let known = content(&mut client, &[("if-none-match", &tag)], &name).expect(304);
    assert_eq!((known.body.len(), known.header("etag")), (0, Some(&*tag)));
    let path = format!("/v1/cas/{name}");
    let said = head(&node, &path);
    assert!(said.starts_with("http/1.1 200 ") && said.ends_with("\r\n\r\n"), "{said}");
    assert!(said.contains("\r\ncontent-length: 100002\r\n") && said.contains("\r\naob-references: 1\r\n"));
    let posted = client.post(&path, &json!({})).expect(405);
    assert_eq!(posted.header("allow"), Some("GET, HEAD"));
    let unknown = format!("sha256:{}", "0".repeat(64));
    assert_eq!(content(&mut client, &[], &unknown).expect(404).json()["code"], "blob_not_found");
    for wrong in ["sha256:00", "md5:00", &name.to_uppercase()] {
        content(&mut client, &[], wrong).expect(400);
    }
    // A document, by the hash that everything names it by.
    let hash = registered["hash"].as_str().unwrap();
    let document = content(&mut client, &[], hash).expect(200);
    let digest = Sha256::digest(&document.body);
    assert_eq!(digest.iter().fold(String::from("sha256:"), |name, byte| format!("{name}{byte:02x}")), hash);
    assert_eq!(document.json()["nodes"]["copy"]["type"], "function");
    let aob = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aob"));
        command.args(arguments).env("AOB_URL", format!("http://{}", node.address));
        command.env("XDG_CONFIG_HOME", directory.path()).env_remove("AOB_CONTEXT").output().unwrap()
    };
    assert_eq!(aob(&["workflow", "get", "--hash", hash]).stdout, document.body);
    assert_eq!(aob(&["cas", "get", &name]).stdout, whole.as_bytes());
    let stat = aob(&["cas", "stat", &name, "-o", "json"]);
    let stat: Value = serde_json::from_slice(&stat.stdout).unwrap();
    assert_eq!(stat, json!({"hash": name, "bytes": 100_002, "references": 1}));
    assert_ne!(aob(&["cas", "get", &unknown]).status.code(), Some(0));
}
