//! The audit log and the chains over runs, with the real binaries: what is recorded, what survives, what tampering is named.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{AOBD, Client, Node, Options};

const AOB: &str = env!("CARGO_BIN_EXE_aob");

/// A node with tokens: of `acme` (write), of `other` (write), and of an admin in `acme`.
struct Guarded {
    directory: tempfile::TempDir,
    tokens: Vec<String>,
}

impl Guarded {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut guarded = Self { directory, tokens: Vec::new() };
        for (name, workspace, role) in
            [("ours", "acme", "write"), ("theirs", "other", "write"), ("root", "acme", "admin")]
        {
            let set = format!("auth.tokens_file={}", guarded.file().display());
            let made = Command::new(AOBD)
                .args([
                    "token",
                    "new",
                    "--name",
                    name,
                    "--workspace",
                    workspace,
                    "--role",
                    role,
                    "--set",
                    &set,
                ])
                .output()
                .unwrap();
            guarded.tokens.push(String::from_utf8(made.stdout).unwrap().trim().to_owned());
        }
        guarded
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("tokens.toml")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn start(&self) -> Node {
        Node::start(&Options::serve(&self.data()).set("auth.tokens_file", &self.file().display().to_string()))
    }

    fn ask(&self, client: &mut Client, who: Option<usize>, asked: (&str, &str, &Value)) -> Response {
        let (method, path, body) = asked;
        let bearer = who.map(|who| format!("Bearer {}", self.tokens[who]));
        let mut headers: Vec<(&str, &str)> = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.push(("x-request-id", "seen-by-the-caller"));
        let body = if method == "GET" { String::new() } else { body.to_string() };
        client.request(method, path, &headers, body.as_bytes()).unwrap()
    }

    fn records(&self, client: &mut Client, all: bool) -> Vec<Value> {
        let path = format!("/v1/audit?all={all}&limit=1000");
        let answer = self.ask(client, Some(2), ("GET", &path, &Value::Null)).expect(200).json();
        answer["records"].as_array().unwrap().clone()
    }
}

fn waiting() -> Value {
    json!({"name": "w", "version": "1", "nodes": {"a": {"type": "wait", "with": {"signal": "go"}}}})
}

fn offline(directory: &Path, more: &[&str]) -> (i32, Value, String) {
    let out = Command::new(AOB)
        .args(["audit", "verify", "--offline", "-o", "json", "--data-dir"])
        .arg(directory)
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    (out.status.code().unwrap(), serde_json::from_slice(&out.stdout).unwrap_or(Value::Null), said)
}

// F415, F416, I-23, RELIABILITY F14
#[test]
fn refusals_and_changes_are_recorded_with_who_and_where_and_without_tokens() {
    let guarded = Guarded::new();
    let node = guarded.start();
    let mut client = node.client();
    let mut ask = |who, method, path: &str, body: &Value| guarded.ask(&mut client, who, (method, path, body));
    ask(Some(0), "POST", "/v1/workflows", &waiting()).expect(201);
    let run =
        ask(Some(0), "POST", "/v1/runs", &json!({"workflow": "w"})).expect(202).json()["run_id"].clone();
    let run = format!("/v1/runs/{}", run.as_str().unwrap());
    // Nobody, a role that is too small, and somebody of another workspace.
    ask(None, "GET", "/v1/runs", &Value::Null).expect(401);
    ask(Some(0), "GET", "/v1/audit", &Value::Null).expect(403);
    ask(Some(0), "GET", "/v1/audit/verify", &Value::Null).expect(403);
    ask(Some(1), "GET", &run, &Value::Null).expect(404);
    ask(Some(1), "POST", &format!("{run}/cancel"), &json!({})).expect(404);
    ask(None, "GET", &format!("/v1/runs/{}", guarded.tokens[0]), &Value::Null).expect(401);
    ask(Some(0), "POST", &format!("{run}/signals/go"), &json!({"payload": 1})).expect(200);
    ask(Some(0), "GET", "/nowhere", &Value::Null).expect(404);

    // A refusal's record is written soon after its answer.
    let mut records = guarded.records(&mut client, true);
    while records.iter().filter(|record| record["outcome"] == "refused").count() < 6 {
        records = guarded.records(&mut client, true);
    }
    let shown: Vec<String> = records
        .iter()
        .filter(|record| record["outcome"] != "noted")
        .map(|record| {
            let of = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {} {}",
                of("outcome"),
                of("who"),
                of("workspace"),
                of("action"),
                record["status"]
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "accepted ours acme POST /v1/workflows 201",
            "refused - - GET /v1/runs 401",
            "refused ours acme GET /v1/audit 403",
            "refused ours acme GET /v1/audit/verify 403",
            "refused theirs other GET /v1/runs/{id} 404",
            "refused theirs other POST /v1/runs/{id}/cancel 404",
            "refused - - GET /v1/runs/{id} 401",
            "accepted ours acme POST /v1/runs/{id}/signals/{id} 200",
        ]
    );
    let refused = &records.iter().find(|record| record["status"] == 404).unwrap();
    assert_eq!((&refused["target"], &refused["code"]), (&json!(run), &json!("run_not_found")));
    assert_eq!(
        (&refused["request_id"], &refused["from"]),
        (&json!("seen-by-the-caller"), &json!("127.0.0.1"))
    );
    // An admin sees its own workspace, unless it asks for all.
    let own = guarded.records(&mut client, false);
    assert!(own.iter().all(|record| record["workspace"] == "acme") && own.len() == 4, "{own:?}");
    for entry in std::fs::read_dir(guarded.data().join("audit")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(
            !guarded.tokens.iter().any(|token| text.contains(token.trim_start_matches("aob_"))),
            "{text}"
        );
    }
    let verdict =
        guarded.ask(&mut client, Some(2), ("GET", "/v1/audit/verify", &Value::Null)).expect(200).json();
    assert_eq!(verdict["sound"], true, "{verdict}");
}

// F415, N19
#[test]
fn a_change_that_was_answered_is_recorded_after_kill_and_tampering_is_named_offline() {
    let guarded = Guarded::new();
    let node = guarded.start();
    let mut client = node.client();
    guarded.ask(&mut client, Some(0), ("POST", "/v1/workflows", &waiting())).expect(201);
    let mut runs = Vec::new();
    for _ in 0..5 {
        let body = json!({"workflow": "w"});
        let run = guarded.ask(&mut client, Some(0), ("POST", "/v1/runs", &body)).expect(202).json();
        runs.push(run["run_id"].as_str().unwrap().to_owned());
    }
    for run in &runs {
        let path = format!("/v1/runs/{run}/terminate");
        guarded.ask(&mut client, Some(0), ("POST", &path, &json!({}))).expect(200);
    }
    let path = format!("/v1/runs/{}/audit", runs[0]);
    let audit = guarded.ask(&mut client, Some(0), ("GET", &path, &Value::Null)).expect(200).json();
    assert_eq!((&audit["sound"], &audit["finding"]), (&json!(true), &Value::Null), "{audit}");
    assert_eq!(audit["events"].as_u64().unwrap() as usize, audit["chain"].as_array().unwrap().len());
    let head = audit["head"].as_str().unwrap().to_owned();
    assert_eq!(audit["chain"].as_array().unwrap().last().unwrap()["hash"], head.as_str());
    node.kill();

    let node = guarded.start();
    let mut client = node.client();
    let records = guarded.records(&mut client, false);
    for run in &runs {
        let target = format!("/v1/runs/{run}/terminate");
        assert!(records.iter().any(|record| record["target"] == target.as_str()), "{target} is not recorded");
    }
    node.kill();

    let data = guarded.data();
    let (code, report, said) = offline(&data, &[]);
    assert_eq!((code, report["findings"].as_array().map(Vec::len)), (0, Some(0)), "{report} {said}");
    assert!(report["journal_bursts"].as_u64().unwrap() >= 10, "{report}");
    let (code, one, said) = offline(&data, &[&runs[0], "--head", &head]);
    assert_eq!((code, &one["head"]), (0, &json!(head)), "{said}");
    let (code, _, said) = offline(&data, &[&runs[0], "--head", &"0".repeat(64)]);
    assert!(code == 1 && said.contains("the chain ends in"), "{code} {said}");

    // One byte of one record.
    let log = data.join("audit/0000000000000001.log");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replacen("/terminate", "/terminatE", 1)).unwrap();
    let seq = text.lines().position(|line| line.contains("/terminate")).unwrap() + 1;
    let (code, _, said) = offline(&data, &[]);
    assert!(code == 1 && said.contains(&format!("record {seq} is not the one")), "{said}");
    std::fs::write(&log, &text).unwrap();

    // One byte of one event, in the journal.
    let segment = data.join("shards/000/0000000000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    // Behind the head of its first frame.
    bytes[120] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (code, _, said) = offline(&data, &[]);
    assert!(code == 1 && said.contains("journal_corrupt"), "{said}");
}
