//! Log lines from outside: what is in them, what is not, and how a level changes while the node runs.

use serde_json::{Value, json};

use crate::harness::{Node, Options, in_background};

/// Every line of standard error, which must all be JSON with these members.
fn lines(stderr: &str) -> Vec<Value> {
    let parsed = stderr.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for member in ["ts", "level", "target", "msg"] {
            assert!(value[member].is_string(), "{member}: {line}");
        }
        value
    });
    parsed.collect()
}

// F329, F342, F349
#[test]
fn requests_at_the_same_time_are_logged_each_with_its_own_context() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("log.level", "debug").set("runner.driver", "tokio");
    let node = Node::start(&options);
    let document = json!({"name": "flow", "nodes": {"w": {"type": "wait", "with": {"signal": "go"}}}});
    node.client().post("/v1/workflows", &document).expect(201);
    let askers: Vec<_> = (0..8)
        .map(|asker| {
            let mut client = node.client();
            in_background(move || {
                let mut runs = Vec::new();
                for number in 0..20 {
                    let id = format!("asker-{asker}-{number}");
                    let headers = [("x-request-id", id.as_str())];
                    let started =
                        client.post_with("/v1/runs", &headers, &json!({"workflow": "flow"})).unwrap();
                    let run = started.expect(202).json()["run_id"].as_str().unwrap().to_owned();
                    client.request("GET", &format!("/v1/workflows/{id}"), &headers, b"").unwrap().expect(404);
                    runs.push((id, run));
                }
                runs
            })
        })
        .collect();
    let runs: Vec<(String, String)> = askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect();
    let nothing_else_on_stdout = node.terminate();
    let lines = lines(&nothing_else_on_stdout.1);
    let of = |id: &str| lines.iter().filter(|line| line["request_id"] == id).collect::<Vec<_>>();
    for (id, run) in &runs {
        let own = of(id);
        assert_eq!(own.len(), 2, "{id}: {own:?}");
        let started = own.iter().find(|line| line["msg"] == "POST /v1/runs").unwrap();
        assert_eq!((&started["run_id"], &started["status"]), (&json!(run), &json!(202)), "{started}");
        assert_eq!(started["target"], "access");
        let missing = own.iter().find(|line| line["status"] == 404).unwrap();
        assert_eq!(missing["msg"], format!("GET /v1/workflows/{id}"));
        assert!(missing.get("run_id").is_none() && missing["duration_us"].is_u64(), "{missing}");
    }
    assert!(lines.iter().all(|line| line.get("left_out").is_none()));
}

// F350
#[test]
fn what_the_node_could_not_serve_is_a_warning_with_code_and_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path())
        .set("runner.driver", "tokio")
        .set("cores.runner", "1")
        .set("limits.runs_live_per_shard_max", "1");
    let node = Node::start(&options);
    let mut client = node.client();
    let document = json!({"name": "flow", "nodes": {"w": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &document).expect(201);
    let start = json!({"workflow": "flow"});
    client.post("/v1/runs", &start).expect(202);
    client.post_with("/v1/runs", &[("x-request-id", "too-much")], &start).unwrap().expect(503);
    let line: Value = serde_json::from_str(&node.says("too-much")).unwrap();
    assert_eq!((&line["level"], &line["target"]), (&json!("warn"), &json!("api")));
    assert_eq!(line["error"]["type"], "too_many_runs");
    assert!(line["error"]["message"].as_str().unwrap().contains("runs_live_per_shard_max"), "{line}");
    assert_eq!(line["request_id"], "too-much");
    let (status, stderr) = node.terminate();
    assert!(status.success());
    assert!(lines(&stderr).iter().all(|line| line["level"] != "debug"), "nothing asked for debug");
}

// F342, F329
#[test]
fn work_for_a_node_of_a_run_is_logged_with_run_node_and_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path())
        .set("log.level", "debug")
        .set("runner.driver", "tokio")
        .set("workers.lease_seconds", "1");
    let node = Node::start(&options);
    let mut client = node.client();
    // Nothing may be reached: each attempt at a call fails at once, and its address stands in no line.
    let flow = json!({"name": "flow", "nodes": {
        "call": {"type": "http", "with": {"url": "http://127.0.0.1:9/?key=s3cr3t"}, "fallback": {"value": 1}},
        "job": {"type": "task", "retry": {"max_attempts": 3, "initial": "1ms"}}}});
    client.post("/v1/workflows", &flow).expect(201);
    let started = client.post("/v1/runs", &json!({"workflow": "flow", "inputs": {}})).expect(202).json();
    let run = &started["run_id"];
    let poll = json!({"queues": ["job"], "wait_ms": 30_000, "worker": "w\"1"});
    // The first attempt is forgotten by its worker, the second fails, the third is done.
    client.post("/v1/workers/poll", &poll).expect(200);
    let second = client.post("/v1/workers/poll", &poll).expect(200).json();
    let error = json!({"code": "busy", "message": "s3cr3t", "retryable": true});
    let failed = json!({"lease": second["jobs"][0]["lease"], "error": error});
    client.post("/v1/workers/fail", &failed).expect(200);
    let third = client.post("/v1/workers/poll", &poll).expect(200).json();
    let done = json!({"lease": third["jobs"][0]["lease"], "output": "s3cr3t"});
    client.post("/v1/workers/complete", &done).expect(200);
    let (_, stderr) = node.terminate();
    assert!(!stderr.contains("s3cr3t"), "{stderr}");
    let lines = lines(&stderr);
    let said = |node: &str| {
        let own = lines.iter().filter(|line| line["target"] == "work" && line["node"] == node);
        own.map(|line| {
            assert_eq!(&line["run_id"], run, "{line}");
            let text = |member: &Value| member.as_str().unwrap_or("-").to_owned();
            let attempt = line["attempt"].as_u64().unwrap();
            (text(&line["level"]), text(&line["msg"]), attempt, text(&line["error"]["type"]))
        })
        .collect::<Vec<_>>()
    };
    let row = |level: &str, msg: &str, attempt, code: &str| (level.into(), msg.into(), attempt, code.into());
    assert_eq!(said("call"), [row("info", "http call failed", 1, "address_refused")]);
    let leased = "job leased to \"w\\\"1\"";
    assert_eq!(
        said("job"),
        [
            row("debug", leased, 1, "-"),
            row("warn", "job lost", 1, "lease_expired"),
            row("debug", leased, 2, "-"),
            row("info", "job failed", 2, "busy"),
            row("debug", leased, 3, "-"),
            row("debug", "job done", 3, "-"),
        ]
    );
}

// F432
#[test]
fn sighup_changes_the_level_and_names_what_needs_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("aob.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("[log]\nlevel = \"info\"\n");
    let mut options = Options::serve(&directory.path().join("data")).set("runner.driver", "tokio");
    options.arguments.extend([String::from("--config"), file.display().to_string()]);
    let node = Node::start(&options);
    let mut client = node.client();
    client.get("/v1/runs").expect(200);
    write("retention = \"1h\"\n[log]\nlevel = \"debug\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n");
    node.hang_up();
    let named = node.says("restart");
    for key in ["retention", "tls.certificate", "tls.key"] {
        assert!(named.contains(key) && !named.contains("log.level"), "{named}");
    }
    node.says("reloaded");
    client.request("GET", "/v1/runs", &[("x-request-id", "seen")], b"").unwrap().expect(200);
    node.says("seen");
    write("[log]\nlevel = \"loud\"\n");
    node.hang_up();
    assert!(node.says("nothing is reloaded").contains("log.level"));
    client.request("GET", "/v1/runs", &[("x-request-id", "still")], b"").unwrap().expect(200);
    node.says("still");
    let (_, stderr) = node.terminate();
    assert_eq!(lines(&stderr).iter().filter(|line| line["target"] == "access").count(), 2);
}
