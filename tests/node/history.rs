//! Finished runs in history files: moved, read, forgotten, erased, damaged, copied; with the real binaries.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{AOBD, Client, Node, Options, store};

const SEGMENT_BYTES: &str = "33554432";

pub(crate) fn options(directory: &Path) -> Options {
    Options::serve(directory)
        .set("journal.segment_bytes", SEGMENT_BYTES)
        .set("cores.runner", "1")
        // What is large stands in the journal, so that it is soon full.
        .set("limits.inline_value_bytes_max", "4194304")
}

pub(crate) fn register(client: &mut Client, name: &str, retention: Option<&str>) {
    let mut document = json!({"name": name, "outputs": {"n": "${ nodes.a.output }"},
        "nodes": {"a": {"type": "function", "with": {"expr": "inputs.n + 1"}}}});
    if let Some(retention) = retention {
        document["retention"] = retention.into();
    }
    client.post("/v1/workflows", &document).expect(201);
}

/// Starts a run that ends at once; its id.
fn run(client: &mut Client, workflow: &str, n: usize, bytes: usize) -> String {
    let body = json!({"workflow": workflow, "inputs": {"n": n, "filler": "x".repeat(bytes)}});
    let run = client.post_with("/v1/runs", &[("prefer", "wait=30")], &body).unwrap().json();
    assert_eq!(run["status"], "completed", "{run}");
    run["run_id"].as_str().unwrap().to_owned()
}

/// Starts large runs until the segments of all that were started before are in history and given back.
pub(crate) fn fill(client: &mut Client, directory: &Path, workflow: &str) {
    if store::is_redis() {
        // There is none of what was never given back.
        let position =
            |name| store::ask(directory, &["HGET", "aob:{0}:state", name]).parse::<u64>().unwrap_or(1);
        let wanted = position("last");
        let moved = (0..4_000).any(|n| {
            run(client, workflow, n, 400_000);
            position("first") > wanted
        });
        return assert!(moved, "position {wanted} was never moved");
    }
    // The next segment is prepared a while after the one before it is begun.
    let wanted = loop {
        if let Some(last) = segments(directory).pop() {
            break last;
        }
        std::thread::yield_now();
    };
    for n in 0..4_000 {
        run(client, workflow, n, 400_000);
        if segments(directory).iter().all(|name| *name > wanted) {
            return;
        }
    }
    panic!("{wanted} was never moved: {:?}", segments(directory));
}

/// Names of the journal's segments but the one that is prepared.
fn segments(directory: &Path) -> Vec<String> {
    let mut names =
        names(&directory.join("shards/000"), |name| !name.starts_with("free") && name.ends_with(".seg"));
    names.pop();
    names
}

fn names(directory: &Path, fits: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| fits(name)).collect();
    names.sort();
    names
}

fn history_files(directory: &Path) -> Vec<String> {
    names(&directory.join("history/000"), |name| name.ends_with(".hist"))
}

/// Asks until the answer has this status.
fn until(client: &mut Client, path: &str, status: u16) {
    while client.get(path).status != status {
        std::thread::yield_now();
    }
}

fn aobd(arguments: &[&str], directory: &Path) -> Output {
    Command::new(AOBD).args(arguments).arg("--data-dir").arg(directory).output().expect("aobd runs")
}

fn fsck(directory: &Path) -> (i32, Value) {
    let out = aobd(&["fsck", "--json"], directory);
    let report = serde_json::from_slice(&out.stdout);
    (
        out.status.code().unwrap(),
        report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr))),
    )
}

fn timeline(client: &mut Client, run_id: &str) -> Value {
    client.get(&format!("/v1/runs/{run_id}/timeline")).expect(200).json()
}

// F004, F016, F086, RELIABILITY B12
#[test]
fn finished_runs_are_moved_and_read_where_they_are_and_damage_is_named() {
    let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = directory.path();
    let node = Node::start(&options(root));
    let mut client = node.client();
    register(&mut client, "w", None);
    let first = run(&mut client, "w", 1, 10);
    let before = timeline(&mut client, &first);
    fill(&mut client, root, "w");
    assert_eq!(history_files(root)[0], "0000000000000001-7d.hist");
    assert_eq!(timeline(&mut client, &first), before);
    let mut storage = client.get("/v1/node").expect(200).json()["storage"].clone();
    while storage["history_bytes"].as_object().unwrap().is_empty() {
        storage = client.get("/v1/node").expect(200).json()["storage"].clone();
    }
    assert!(storage["journal_bytes"].as_u64().unwrap() >= 1 << 25, "{storage}");
    exported(&node, &first, &before);
    let listed = client.get("/v1/runs?workflow=w&status=completed&limit=5").expect(200).json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 5);
    // A move that was cut short leaves a file of another name.
    let left = root.join("history/000/0000000000000009-7d.tmp");
    std::fs::write(&left, b"half").unwrap();
    let orphan = root.join("history/000/0000000000000009-7d.hist");
    std::fs::write(&orphan, b"whole, and the index does not know it").unwrap();
    node.kill();

    let node = Node::start(&options(root));
    let mut client = node.client();
    assert_eq!(timeline(&mut client, &first), before);
    while left.exists() || orphan.exists() {
        std::thread::yield_now();
    }
    let refused = aobd(&["backup", "--to", other.path().to_str().unwrap()], root);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in use by process"), "a node has it");
    assert_eq!(aobd(&["fsck"], root).status.code(), Some(2));
    let last = run(&mut client, "w", 7, 10);
    assert!(node.terminate().0.success());
    let (code, report) = fsck(root);
    // A move may have been cut short by the end; that is a note, no problem.
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report}");
    assert!(report["runs"].as_u64().unwrap() > 50 && report["history_files"].as_u64() >= Some(1), "{report}");

    let copy = other.path().join("copy");
    let done = aobd(&["backup", "--to", copy.to_str().unwrap()], root);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    flip(&root.join("history/000/0000000000000001-7d.hist"), 60);
    let node = Node::start(&options(root));
    let mut client = node.client();
    let broken = client.get(&format!("/v1/runs/{first}/timeline"));
    let broken = broken.expect(500).json();
    assert_eq!(broken["code"], "history_corrupt", "{broken}");
    timeline(&mut client, &last);
    assert!(node.terminate().0.success());
    let (code, report) = fsck(root);
    assert_eq!((code, &report["problems"][0]["code"]), (1, &json!("history_corrupt")), "{report}");
    assert!(report["problems"][0]["file"].as_str().unwrap().ends_with("0000000000000001-7d.hist"));
    assert_eq!(report["problems"][0]["offset"], 40, "the block that was changed");

    restored(&copy, &other.path().join("again"), (&first, &before));
}

/// `aob run export` gives every event, in order.
fn exported(node: &Node, run_id: &str, timeline: &Value) {
    let out = Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(["--url", &format!("http://{}", node.address), "run", "export", run_id])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&Value> = lines.iter().filter_map(|line| line.get("event")).collect();
    assert_eq!(json!(events), timeline["events"]);
    assert_eq!(lines[0]["run"]["run_id"], run_id);
    assert_eq!(lines[1]["document"]["name"], "w");
    assert_eq!(lines.last().unwrap(), &json!({"end": {"events": events.len()}}));
}

/// What was copied comes back, and only as it was.
fn restored(copy: &Path, again: &Path, (run_id, before): (&str, &Value)) {
    let from = ["restore", "--from", copy.to_str().unwrap()];
    let done = aobd(&from, again);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!aobd(&from, again).status.success(), "it is not empty any more");
    assert_eq!(fsck(again).0, 0);
    let node = Node::start(&options(again));
    assert_eq!(&timeline(&mut node.client(), run_id), before);
    node.kill();
    flip(&copy.join("history/000/0000000000000001-7d.hist"), 100);
    let refused = aobd(&from, &again.with_extension("2"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not the file that was backed up"));
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

// F086
#[test]
fn runs_are_forgotten_when_their_class_is_over_and_stay_so() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let options = options(root).set("retention", "1s");
    let node = Node::start(&options);
    let mut client = node.client();
    register(&mut client, "short", None);
    register(&mut client, "long", Some("50m"));
    let key = [("idempotency-key", "once"), ("prefer", "wait=30")];
    let body = json!({"workflow": "short", "inputs": {"n": 1}});
    let short = client.post_with("/v1/runs", &key, &body).unwrap().json();
    let short = short["run_id"].as_str().unwrap().to_owned();
    let long = run(&mut client, "long", 2, 10);
    let before = timeline(&mut client, &long);
    fill(&mut client, root, "short");
    until(&mut client, &format!("/v1/runs/{short}"), 404);
    assert_eq!(timeline(&mut client, &long), before);
    assert!(history_files(root).contains(&String::from("0000000000000001-1h.hist")));
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    client.get(&format!("/v1/runs/{short}")).expect(404);
    assert_eq!(timeline(&mut client, &long), before);
    let again = client.post_with("/v1/runs", &key, &body).unwrap();
    assert_eq!(again.header("idempotent-replayed"), Some("true"), "its key goes on to answer");
    assert_eq!(again.json()["run_id"], short.as_str());
    assert!(node.terminate().0.success());
    assert_eq!(fsck(root).0, 0);
}

#[test]
fn an_erased_run_is_gone_at_once_and_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let node = Node::start(&options(root));
    let mut client = node.client();
    register(&mut client, "w", None);
    let waits = json!({"name": "waits", "nodes": {"a": {"type": "delay", "with": {"for": "1h"}}}});
    client.post("/v1/workflows", &waits).expect(201);
    let (early, kept) = (run(&mut client, "w", 1, 10), run(&mut client, "w", 2, 10));
    let erase = |client: &mut Client, run_id: &str| {
        client.request("DELETE", &format!("/v1/runs/{run_id}"), &[], b"").unwrap()
    };
    // Before it is moved, and after.
    while erase(&mut client, &early).status == 409 {}
    client.get(&format!("/v1/runs/{early}")).expect(404);
    let late = run(&mut client, "w", 3, 10);
    fill(&mut client, root, "w");
    erase(&mut client, &late).expect(204);
    erase(&mut client, &late).expect(404);
    let live = client.post("/v1/runs", &json!({"workflow": "waits"})).expect(202).json();
    let refused = erase(&mut client, live["run_id"].as_str().unwrap()).expect(409);
    assert_eq!(refused.json()["code"], "run_unfinished");
    timeline(&mut client, &kept);
    node.kill();

    let node = Node::start(&options(root));
    let mut client = node.client();
    for run_id in [&early, &late] {
        client.get(&format!("/v1/runs/{run_id}")).expect(404);
    }
    timeline(&mut client, &kept);
    assert!(node.terminate().0.success());
    if store::is_redis() {
        return;
    }
    let (code, report) = fsck(root);
    assert_eq!((code, &report["problems"]), (0, &json!([])), "{report}");
}

// RELIABILITY A10
#[test]
fn a_directory_of_format_1_is_opened_served_and_upgraded() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data-v1");
    let packed = std::fs::read(golden.join("data.tar.zst")).unwrap();
    let tar = root.join("data.tar");
    std::fs::write(&tar, zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    let data = root.join("data");
    std::fs::create_dir(&data).unwrap();
    let done = Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&data).status().unwrap();
    assert!(done.success());
    let runs: Vec<String> =
        serde_json::from_slice(&std::fs::read(golden.join("runs.json")).unwrap()).unwrap();

    let node = Node::start(&options(&data));
    let format = std::fs::read_to_string(data.join("FORMAT")).unwrap();
    assert!(format.contains("format 3\n"), "{format}");
    let mut client = node.client();
    let timelines: Vec<Value> = runs.iter().map(|run_id| timeline(&mut client, run_id)).collect();
    for (n, of_run) in timelines.iter().enumerate() {
        let events = of_run["events"].as_array().unwrap();
        assert_eq!(events.first().unwrap()["type"], "run.started", "{n}");
        assert_eq!(events.last().unwrap()["type"], "run.completed", "{n}");
    }
    let listed = client.get("/v1/runs?workflow=w&status=completed&limit=100").expect(200).json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 86, "rows by workflow and status were made");
    // The segment that format 1 had marked and left is moved.
    while history_files(&data).is_empty() {
        std::thread::yield_now();
    }
    fill(&mut client, &data, "w");
    for (run_id, before) in runs.iter().zip(&timelines) {
        assert_eq!(&timeline(&mut client, run_id), before);
    }
    assert!(node.terminate().0.success());
    assert_eq!(fsck(&data).0, 0);
}
