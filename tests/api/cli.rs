//! The real `aob` against a node: what it prints, and with which code it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value as Json, json};

use super::double::with_node;
use super::post;

const SLOW: &str = r#"{"name":"slow","version":"1","nodes":{"a":{"type":"function"}}}"#;

fn command(url: &str, directory: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aob"));
    command.args(line.split(' ')).current_dir(directory).env("AOB_URL", url).env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    command
}

async fn aob(address: SocketAddr, directory: &Path, line: &str) -> Output {
    let mut command = command(&format!("http://{address}"), directory, line);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let nameless = r#"{"inputs":{"type":"object","required":["topic"]},"nodes":{"a":{"type":"function"}}}"#;
    for (name, text) in [
        ("flow.json", nameless),
        ("slow.json", SLOW),
        ("input.json", r#"{"topic": "rain"}"#),
        ("empty.json", "{}"),
        ("broken.json", "{\"nodes\": "),
        ("payload.json", r#"[1, 2]"#),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn a_file_is_started_with_its_inputs_and_waited_for() {
    // F183
    let dir = directory();
    with_node(async |address| {
        let plain = aob(address, dir.path(), "run start flow.json --inputs input.json").await;
        assert_eq!(code(&plain), 0, "{}", err(&plain));
        assert!(out(&plain).starts_with("run_") && out(&plain).lines().count() == 1, "{}", out(&plain));
        let waited = aob(address, dir.path(), "run start flow.json --inputs input.json --wait -o json").await;
        let run: Json = serde_json::from_slice(&waited.stdout).unwrap();
        assert_eq!(
            (&run["workflow"], &run["status"], &run["outputs"]),
            (&json!("flow"), &json!("completed"), &json!(42))
        );
        let followed = aob(address, dir.path(), "run start flow --inputs input.json --follow -o jsonl").await;
        let types: Vec<Json> = out(&followed)
            .lines()
            .map(|line| serde_json::from_str::<Json>(line).unwrap()["type"].clone())
            .collect();
        assert_eq!(types, ["run.started", "node.started", "node.completed", "run.completed"]);
        assert_eq!(code(&followed), 0);
        let listed = aob(address, dir.path(), "run list").await;
        assert_eq!(out(&listed).lines().count(), 4, "{}", out(&listed));
    });
}

#[test]
fn exit_codes_say_how_it_ended() {
    let dir = directory();
    with_node(async |address| {
        let first = aob(address, dir.path(), "run start slow.json -o json").await;
        let run: Json = serde_json::from_slice(&first.stdout).unwrap();
        let id = run["run_id"].as_str().unwrap();
        for (line, expected) in [
            ("run start flow.json --inputs empty.json", 1),
            ("run start flow.json --inputs broken.json", 1),
            ("run start none", 3),
            ("run get run_018bcfe568007fffbfffffffffffffff", 3),
            ("run get nonsense", 1),
            ("run start", 2),
            ("workflow get flow@9", 3),
            ("run start slow --wait --timeout 1", 8),
            (&format!("run signal {id} note --payload payload.json"), 0),
            (&format!("run cancel {id} --reason enough"), 0),
            (&format!("run cancel {id}"), 5),
            (&format!("run watch {id}"), 0),
            (&format!("run get {id} -o json"), 0),
            ("version -o json", 0),
        ] {
            let output = aob(address, dir.path(), line).await;
            assert_eq!(code(&output), expected, "{line}: {}{}", out(&output), err(&output));
            assert_eq!(err(&output).is_empty(), expected == 0, "{line}: {}", err(&output));
        }
    });
    let nobody = command("http://127.0.0.1:1", dir.path(), "run list").output().unwrap();
    assert_eq!(code(&nobody), 6, "{}", err(&nobody));
}

#[test]
fn a_run_that_fails_or_is_cancelled_ends_the_command_with_seven() {
    let dir = directory();
    with_node(async |address| {
        let first = post(address, "/v1/workflows", &[], SLOW).await;
        assert_eq!(first.status, 201);
        let follower = {
            let dir = dir.path().to_owned();
            tokio::task::spawn_local(async move { aob(address, &dir, "run start slow --wait").await })
        };
        let id = loop {
            let runs = super::get(address, "/v1/runs?status=running").await.json();
            if let Some(id) = runs["runs"][0]["run_id"].as_str() {
                break id.to_owned();
            }
            tokio::task::yield_now().await;
        };
        post(address, &format!("/v1/runs/{id}/cancel"), &[], "{}").await;
        let output = follower.await.unwrap();
        assert_eq!(code(&output), 7, "{}", err(&output));
        assert!(err(&output).contains("was cancelled"), "{}", err(&output));
    });
}

#[test]
fn validate_needs_no_node_and_names_the_place() {
    // F193
    let dir = directory();
    let good = command("http://127.0.0.1:1", dir.path(), "workflow validate flow.json").output().unwrap();
    assert_eq!((code(&good), out(&good).as_str()), (0, "flow.json: valid\n"), "{}", err(&good));
    let bad =
        command("http://127.0.0.1:1", dir.path(), "workflow validate broken.json -o json").output().unwrap();
    assert_eq!(code(&bad), 1);
    assert!(err(&bad).contains(":1:"), "{}", err(&bad));
    let verdict: Json = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!((&verdict["valid"], verdict["errors"].as_array().unwrap().len()), (&json!(false), 1));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let dir = directory();
    let mut child = command("http://127.0.0.1:1", dir.path(), "version")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output).as_str()), (0, ""));
}
