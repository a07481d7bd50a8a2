//! The forms of the command line that were asked for, word for word.

use serde_json::{Value as Json, json};

use super::super::double::with_node;
use super::{alone, aob, code, directory, err, out};

fn kinds(text: &str) -> Vec<String> {
    let row = |line: &str| serde_json::from_str::<Json>(line).unwrap()["type"].as_str().unwrap().to_owned();
    text.lines().map(row).collect()
}

// F183
#[test]
fn a_workflow_file_starts_with_an_inputs_file() {
    let dir = directory();
    std::fs::rename(dir.path().join("flow.json"), dir.path().join("workflow.json")).unwrap();
    std::fs::write(dir.path().join("flow.yaml"), "nodes: {a: {type: function}}\n").unwrap();
    with_node(async |address| {
        for line in
            ["run start workflow.json --inputs input.json", "run start flow.yaml --inputs input.json --wait"]
        {
            let started = aob(address, dir.path(), line).await;
            assert_eq!(code(&started), 0, "{line}: {}", err(&started));
            assert!(out(&started).contains("run_"), "{line}: {}", out(&started));
        }
    });
}

// F184
#[test]
fn logs_of_a_run_stream_until_it_ends() {
    let dir = directory();
    with_node(async |address| {
        let started = aob(address, dir.path(), "run start slow.json").await;
        let id = out(&started).trim().to_owned();
        let stream = {
            let (dir, line) = (dir.path().to_owned(), format!("logs stream {id} -o jsonl"));
            tokio::task::spawn_local(async move { aob(address, &dir, &line).await })
        };
        assert_eq!(code(&aob(address, dir.path(), &format!("run signal {id} go")).await), 0);
        let streamed = stream.await.unwrap();
        assert_eq!(code(&streamed), 0, "{}", err(&streamed));
        assert_eq!(
            kinds(&out(&streamed)),
            ["run.started", "node.started", "signal.received", "node.completed", "run.completed"]
        );
        let lines = out(&aob(address, dir.path(), &format!("logs stream {id}")).await);
        assert!(lines.lines().count() == 5 && lines.contains("signal.received"), "{lines}");
    });
}

// F185
#[test]
fn logs_of_one_node_are_only_of_that_node() {
    let dir = directory();
    std::fs::write(dir.path().join("e.json"), r#"{"name":"e","nodes":{"enrich":{"type":"function"}}}"#)
        .unwrap();
    with_node(async |address| {
        let id = out(&aob(address, dir.path(), "run start e.json").await).trim().to_owned();
        for (node, wanted) in [("enrich", &["node.started", "node.completed"][..]), ("enri", &[])] {
            let line = format!("logs stream {id} --node {node} -o jsonl");
            let streamed = aob(address, dir.path(), &line).await;
            assert_eq!(
                (code(&streamed), kinds(&out(&streamed))),
                (0, wanted.iter().map(|w| w.to_string()).collect())
            );
        }
    });
}

// F193
#[test]
fn validate_ends_with_zero_or_one_and_names_file_line_and_column() {
    let dir = directory();
    std::fs::write(dir.path().join("bad.yaml"), "nodes:\n  a: {type: nonsense}\n").unwrap();
    assert_eq!(code(&alone(dir.path(), "workflow validate flow.json")), 0);
    let bad = alone(dir.path(), "workflow validate bad.yaml");
    assert_eq!((code(&bad), out(&bad).as_str()), (1, ""));
    assert!(err(&bad).contains("bad.yaml:2:"), "{}", err(&bad));
}

// F194
#[test]
fn workflows_are_listed_with_versions_and_tags() {
    let dir = directory();
    with_node(async |address| {
        for line in ["workflow register slow.json", "workflow register flow.json", "workflow tag slow prod 1"]
        {
            assert_eq!(code(&aob(address, dir.path(), line).await), 0, "{line}");
        }
        let listed = out(&aob(address, dir.path(), "workflow list").await);
        let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["NAME", "VERSION", "TAGS", "HASH"]);
        assert_eq!((&words[1][..1], words[1][2]), (&["flow"][..], "-"), "{listed}");
        assert_eq!(words[2][..3], ["slow", "1", "prod"], "{listed}");
        let listed = aob(address, dir.path(), "workflow list -o json").await;
        let listed: Json = serde_json::from_slice(&listed.stdout).unwrap();
        assert_eq!(listed["workflows"][1]["tags"], json!(["prod"]));
    });
}

// F196
#[test]
fn every_command_that_prints_data_prints_json() {
    let dir = directory();
    with_node(async |address| {
        let id =
            out(&aob(address, dir.path(), "run start flow.json --inputs input.json").await).trim().to_owned();
        for line in [
            "run start flow --inputs input.json",
            &format!("run get {id}"),
            &format!("run wait {id}"),
            &format!("run explain {id}"),
            "run list",
            "workflow list",
            "workflow get flow",
            "workflow tag flow prod 1",
            "workflow tags flow",
            "workflow untag flow prod",
            "workflow validate flow.json",
            "workflow graph flow.json",
            "workflow schema",
            "context list",
            "context show",
            "explain --list",
            "version",
        ] {
            let output = aob(address, dir.path(), &format!("{line} -o json")).await;
            assert_eq!(code(&output), 0, "{line}: {}", err(&output));
            assert!(serde_json::from_slice::<Json>(&output.stdout).is_ok(), "{line}: {}", out(&output));
        }
        let lines = out(&aob(address, dir.path(), &format!("run watch {id} -o json")).await);
        assert!(lines.lines().all(|line| serde_json::from_str::<Json>(line).is_ok()), "{lines}");
    });
}

// F197
#[test]
fn watched_through_a_pipe_a_run_is_lines_without_escapes() {
    let dir = directory();
    with_node(async |address| {
        let id =
            out(&aob(address, dir.path(), "run start flow.json --inputs input.json").await).trim().to_owned();
        let watched = aob(address, dir.path(), &format!("run watch {id}")).await;
        assert_eq!((code(&watched), err(&watched).as_str()), (0, ""));
        assert!(
            out(&watched).lines().count() == 4 && !out(&watched).contains(['\u{1b}', '\r']),
            "{}",
            out(&watched)
        );
    });
}
