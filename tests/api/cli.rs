//! The real `aob` against a node: what it prints, and with which code it ends.

mod contexts;
mod explained;
mod fake;
mod generated;
mod seeds;
mod yaml;

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
    // Whoever runs the tests may have contexts and variables of their own.
    command.env("XDG_CONFIG_HOME", directory.join("config"));
    for name in ["AOB_CONTEXT", "AOB_WORKSPACE", "AOB_TOKEN", "AOB_TOKEN_FILE", "AOB_CA_FILE"] {
        command.env_remove(name);
    }
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
            (&format!("run wait {id} --timeout 1"), 8),
            (&format!("logs stream {id} --timeout 1 --after 99"), 8),
            ("run list --timeout 0", 2),
            ("run list --context nowhere", 3),
            ("run list --quiet --timeout 30", 0),
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

// F044
#[test]
fn a_run_is_paused_resumed_and_terminated_by_hand() {
    let dir = directory();
    with_node(async |address| {
        let first = aob(address, dir.path(), "run start slow.json -o json").await;
        let run: Json = serde_json::from_slice(&first.stdout).unwrap();
        let id = run["run_id"].as_str().unwrap();
        for (line, status) in [
            (format!("run pause {id} --reason lunch -o json"), "paused"),
            (format!("run resume {id} -o json"), "running"),
            (format!("run terminate {id} -o json"), "cancelled"),
        ] {
            let output = aob(address, dir.path(), &line).await;
            assert_eq!(code(&output), 0, "{line}: {}", err(&output));
            let answer: Json = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&answer["run_id"], &answer["status"]), (&json!(id), &json!(status)), "{line}");
        }
        for verb in ["pause", "resume", "terminate"] {
            let nobody = format!("run {verb} run_018bcfe568007fffbfffffffffffffff");
            assert_eq!(code(&aob(address, dir.path(), &nobody).await), 3, "{verb}");
        }
    });
}

// F267
#[test]
fn tags_are_set_moved_listed_and_taken_away() {
    let dir = directory();
    with_node(async |address| {
        assert_eq!(code(&aob(address, dir.path(), "workflow register flow.json").await), 0);
        for (line, expected) in [
            ("workflow tag flow prod 1", 0),
            ("workflow tag flow prod 9", 3),
            ("workflow tag flow old 1", 0),
            ("workflow untag flow old", 0),
            ("run start flow@old --inputs input.json", 3),
            ("workflow untag flow old", 0),
            ("workflow tag flow 2 1", 1),
            ("run start flow@prod --inputs input.json --wait", 0),
            ("run start flow@test --inputs input.json", 3),
        ] {
            let output = aob(address, dir.path(), line).await;
            assert_eq!(code(&output), expected, "{line}: {}{}", out(&output), err(&output));
        }
        let listed = aob(address, dir.path(), "workflow tags flow -o json").await;
        let tags: Json = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(tags["tags"], json!([{"name": "flow", "tag": "prod", "version": "1"}]));
    });
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

/// Runs without a node: the address is one where nothing listens.
fn alone(directory: &Path, line: &str) -> Output {
    command("http://127.0.0.1:1", directory, line).output().unwrap()
}

#[test]
fn a_code_is_explained_without_a_node() {
    let dir = directory();
    let page = alone(dir.path(), "explain UNKNOWN-KEY");
    assert_eq!(code(&page), 0, "{}", err(&page));
    assert!(
        out(&page).starts_with("unknown_key\n") && out(&page).contains("\nWhat to do\n"),
        "{}",
        out(&page)
    );
    // F375..F378: by the seeds' names too.
    assert!(out(&alone(dir.path(), "explain DB_ERROR")).contains("also written DB_ERROR"));
    let row: Json = serde_json::from_slice(&alone(dir.path(), "explain timeout -o json").stdout).unwrap();
    assert_eq!((&row["class"], &row["retryable"]), (&json!("transient"), &json!("yes")));
    let none = alone(dir.path(), "explain unknwon_key");
    assert_eq!((code(&none), out(&none).as_str()), (3, ""));
    assert!(err(&none).contains("did you mean unknown_key?"), "{}", err(&none));
    let list = out(&alone(dir.path(), "explain --list"));
    assert!(
        list.starts_with("agent\n  ") && list.contains("\nclient\n  ") && list.contains("\n  unknown_key"),
        "{list}"
    );
    assert!(list.lines().all(|line| line.chars().count() <= 88), "{list}");
    assert_eq!(code(&alone(dir.path(), "explain")), 2);
}

#[test]
fn a_graph_is_drawn_and_the_schema_printed_without_a_node() {
    let dir = directory();
    let text = alone(dir.path(), "workflow graph flow.json");
    assert_eq!(out(&text), "workflow  1 nodes, 0 edges\n\n1  a  function\n", "{}", err(&text));
    let graph: Json =
        serde_json::from_slice(&alone(dir.path(), "workflow graph flow.json -o json").stdout).unwrap();
    assert_eq!(graph["nodes"][0]["id"], "a");
    let drawn = alone(dir.path(), "workflow graph flow.json --format svg --to flow.svg");
    assert_eq!((code(&drawn), out(&drawn).as_str()), (0, ""));
    let svg = std::fs::read_to_string(dir.path().join("flow.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    for (format, start) in [("svg", "<svg "), ("mermaid", "flowchart TD\n"), ("dot", "digraph ")] {
        let drawn = alone(dir.path(), &format!("workflow graph flow.json --format {format}"));
        assert!(out(&drawn).starts_with(start), "{}", out(&drawn));
    }
    let broken = alone(dir.path(), "workflow graph broken.json");
    assert_eq!((code(&broken), out(&broken).as_str()), (1, ""));
    assert!(err(&broken).starts_with("broken.json:1:"), "{}", err(&broken));
    let schema: Json = serde_json::from_slice(&alone(dir.path(), "workflow schema").stdout).unwrap();
    assert_eq!(schema["title"], "aob workflow");
}
