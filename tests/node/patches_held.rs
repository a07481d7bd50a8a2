//! Patches that wait for a human: held by policy, approved and rejected once, over a crash too.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{AOBD, Client, Node, Options};
use crate::patches::{add, email, walk};

/// Somebody with a token.
struct Caller {
    token: String,
    client: Client,
}

impl Caller {
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Response {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.client.request(method, path, &headers, body.as_bytes()).unwrap()
    }

    fn post(&mut self, path: &str, body: &Value) -> Response {
        self.ask("POST", path, body)
    }

    fn get(&mut self, path: &str) -> Value {
        self.ask("GET", path, &Value::Null).expect(200).json()
    }
}

/// Tokens of two humans and an agent.
struct Tokens {
    file: std::path::PathBuf,
    tokens: Vec<String>,
}

impl Tokens {
    fn new(directory: &Path) -> Self {
        let file = directory.join("tokens.toml");
        let set = format!("auth.tokens_file={}", file.display());
        let tokens = [("ann", "admin"), ("agent-7", "write"), ("bob", "write")].map(|(name, role)| {
            let made = Command::new(AOBD)
                .args(["token", "new", "--name", name, "--workspace", "default", "--role", role])
                .args(["--set", &set])
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            String::from_utf8(made.stdout).unwrap().trim().to_owned()
        });
        Self { file, tokens: tokens.into() }
    }

    fn options(&self, directory: &Path) -> Options {
        Options::serve(directory)
            .set("auth.tokens_file", &self.file.display().to_string())
            .set("policy.patches.hold", "agents")
            .set("policy.patches.safe_kinds", "function,delay")
    }

    /// Ann who may decide, the agent, and Bob who may not.
    fn callers(&self, node: &Node) -> [Caller; 3] {
        [0, 1, 2].map(|at| Caller { token: self.tokens[at].clone(), client: node.client() })
    }
}

fn start(caller: &mut Caller) -> String {
    caller.post("/v1/workflows", &walk());
    let started = caller.post("/v1/runs", &json!({"workflow": "walk"})).expect(202).json();
    started["run_id"].as_str().unwrap().to_owned()
}

fn types(caller: &mut Caller, run: &str) -> Vec<String> {
    let page = caller.get(&format!("/v1/runs/{run}/timeline?limit=1000"));
    let events = page["events"].as_array().unwrap().iter();
    events
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .filter(|kind| kind.starts_with("patch"))
        .collect()
}

// F192, F327, N2: an agent's patch waits, and changes nothing until somebody else wants it.
#[test]
fn an_agents_patch_waits_for_a_human() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(directory.path());
    let node = Node::start(&tokens.options(&directory.path().join("data")));
    let [mut ann, mut agent, mut bob] = tokens.callers(&node);
    let run = start(&mut ann);
    let patches = format!("/v1/runs/{run}/patches");
    // A safe class is merged by itself, and so is a human's.
    assert_eq!(agent.post(&patches, &add("more", "process")).expect(202).json()["state"], "applied");
    assert_eq!(bob.post(&patches, &add("bobs", "process")).expect(202).json()["graph_version"], 3);
    let held = agent.post(&patches, &email()).expect(202);
    let place = held.header("location").unwrap().to_owned();
    let held = held.json();
    assert_eq!((&held["state"], &held["graph_version"]), (&json!("held"), &json!(3)), "{held}");
    let graph = ann.get(&format!("/v1/runs/{run}/graph"));
    assert_eq!((&graph["version"], &graph["hash"]), (&json!(3), &held["hash"]));
    assert!(graph["document"]["nodes"]["email"].is_null(), "nothing has changed");
    let shown = ann.get(&place);
    assert_eq!((&shown["state"], &shown["held"]["reason"]), (&json!("held"), &json!("agent-7 is an agent")));
    let diff = ann.get(&format!("{place}/diff"));
    assert_eq!(diff["nodes"], json!([{"id": "email", "type": "task", "what": "added"}]));
    // Neither its author nor whoever has not the right.
    for caller in [&mut agent, &mut bob] {
        let refused = caller.post(&format!("{place}/approve"), &Value::Null).expect(403).json();
        assert_eq!(refused["code"], "forbidden");
    }
    let refused = bob.post(&format!("{place}/reject"), &json!({"reason": "no"})).expect(403).json();
    assert_eq!(refused["code"], "forbidden");
    // What came since is apart from it: it is put on the graph as it is now.
    ann.post(&patches, &add("later", "process")).expect(202);
    let made = ann.post(&format!("{place}/approve"), &json!({"reason": "as agreed"})).expect(202).json();
    assert_eq!((&made["state"], &made["graph_version"]), (&json!("applied"), &json!(5)));
    let shown = ann.get(&place);
    assert_eq!(
        (&shown["state"], &shown["version"], &shown["author"]),
        (&json!("applied"), &json!(5), &json!("agent-7"))
    );
    assert_eq!((&shown["decided"]["by"], &shown["decided"]["reason"]), (&json!("ann"), &json!("as agreed")));
    // One decision for ever.
    assert_eq!(ann.post(&format!("{place}/approve"), &Value::Null).expect(200).json()["state"], "applied");
    let refused = ann.post(&format!("{place}/reject"), &Value::Null).expect(409).json();
    assert_eq!(refused["code"], "patch_decided");
    let first = ann.get(&patches)["patches"][0]["patch_id"].as_str().unwrap().to_owned();
    let never = ann.post(&format!("{patches}/{first}/approve"), &Value::Null).expect(409).json();
    assert_eq!(never["code"], "patch_decided", "it never waited");
    assert_eq!(ann.get(&patches)["patches"].as_array().unwrap().len(), 4, "one row for each");
    let told = types(&mut ann, &run);
    assert_eq!(
        told[4..],
        ["patch.held", "patch.created", "patch.applied", "patch.decided", "patch.created", "patch.applied"]
    );
    // No run goes on from between the approval and what it made: there the patch would be decided and not be there.
    let page = ann.get(&format!("/v1/runs/{run}/timeline?limit=1000"));
    let decided = page["events"].as_array().unwrap().iter().find(|event| event["type"] == "patch.decided");
    let seq = decided.unwrap()["seq"].as_u64().unwrap();
    for (at, status) in [(seq - 1, 202), (seq, 409), (seq + 1, 409), (seq + 2, 202)] {
        ann.post(&format!("/v1/runs/{run}/fork"), &json!({"at": at})).expect(status);
    }
    // Whoever is held takes nothing back.
    agent.post(&format!("{place}/revoke"), &json!({})).expect(403);
}

// F192: what is rejected never runs, and says who did not want it; what meets it is told.
#[test]
fn a_patch_is_rejected_once_and_conflicts_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(directory.path());
    let node = Node::start(&tokens.options(&directory.path().join("data")));
    let [mut ann, mut agent, _] = tokens.callers(&node);
    let run = start(&mut ann);
    let patches = format!("/v1/runs/{run}/patches");
    // Bad ones are refused at once, not held.
    let cycle = json!({"operations": [{"op": "add", "path": "/edges/-", "value": {"from": "process", "to": "process"}}]});
    assert_eq!(agent.post(&patches, &cycle).expect(422).json()["outcome"], "not_applied");
    let place = |answer: Response| answer.header("location").unwrap().to_owned();
    let first = place(agent.post(&patches, &email()).expect(202));
    let second = place(agent.post(&patches, &email()).expect(202));
    let third = place(agent.post(&patches, &email()).expect(202));
    ann.post(&format!("{first}/approve"), &Value::Null).expect(202);
    // The other adds the same node: it fits no more, and still waits.
    let refused = ann.post(&format!("{second}/approve"), &Value::Null).expect(409).json();
    assert_eq!(refused["code"], "patch_conflict", "{refused}");
    assert_eq!(ann.get(&second)["state"], "held");
    let gone = ann.post(&format!("{second}/reject"), &json!({"reason": "twice"})).expect(200).json();
    assert_eq!((&gone["state"], &gone["decided"]["reason"]), (&json!("rejected"), &json!("twice")));
    ann.post(&format!("{second}/reject"), &json!({"reason": "again"})).expect(200);
    assert_eq!(
        ann.post(&format!("{second}/approve"), &Value::Null).expect(409).json()["code"],
        "patch_decided"
    );
    assert_eq!(ann.get(&format!("{second}/diff"))["nodes"][0]["id"], "email", "what it would have done");
    // Its author may withdraw it.
    assert_eq!(
        agent.post(&format!("{third}/reject"), &Value::Null).expect(200).json()["decided"]["by"],
        "agent-7"
    );
    // A run that is over takes no decision.
    let left = place(
        agent
            .post(
                &patches,
                &json!({"operations": [
        {"op": "add", "path": "/nodes/left", "value": {"type": "task", "with": {"queue": "q"}}}]}),
            )
            .expect(202),
    );
    ann.post(&format!("/v1/runs/{run}/terminate"), &Value::Null).expect(200);
    for verb in ["approve", "reject"] {
        assert_eq!(
            ann.post(&format!("{left}/{verb}"), &Value::Null).expect(409).json()["code"],
            "run_finished"
        );
    }
}

// F327: kill -9 loses neither a patch that waits nor a decision.
#[test]
fn what_waits_waits_on_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(directory.path());
    let options = tokens.options(&directory.path().join("data"));
    let (run, place, other) = {
        let node = Node::start(&options);
        let [mut ann, mut agent, _] = tokens.callers(&node);
        let run = start(&mut ann);
        let patches = format!("/v1/runs/{run}/patches");
        let held = agent.post(&patches, &email()).expect(202);
        let place = held.header("location").unwrap().to_owned();
        let held = agent.post(&patches, &email()).expect(202);
        let other = held.header("location").unwrap().to_owned();
        ann.post(&format!("{other}/reject"), &Value::Null).expect(200);
        node.kill();
        (run, place, other)
    };
    let node = Node::start(&options);
    let [mut ann, ..] = tokens.callers(&node);
    assert_eq!(ann.get(&place)["state"], "held");
    assert_eq!(
        ann.post(&format!("{other}/approve"), &Value::Null).expect(409).json()["code"],
        "patch_decided"
    );
    let made = ann.post(&format!("{place}/approve"), &Value::Null).expect(202).json();
    assert_eq!(made["graph_version"], 2);
    node.kill();
    let node = Node::start(&options);
    let [mut ann, ..] = tokens.callers(&node);
    let graph = ann.get(&format!("/v1/runs/{run}/graph"));
    assert_eq!((&graph["version"], &graph["hash"]), (&json!(2), &made["hash"]));
    ann.post(&format!("{place}/approve"), &Value::Null).expect(200);
}

// F192: by the command line; and a configuration under which nobody could be told apart is refused.
#[test]
fn the_command_line_decides() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(directory.path());
    let node = Node::start(&tokens.options(&directory.path().join("data")));
    let [mut ann, mut agent, _] = tokens.callers(&node);
    let run = start(&mut ann);
    let held = agent.post(&format!("/v1/runs/{run}/patches"), &email()).expect(202).json();
    let patch = held["patch_id"].as_str().unwrap().to_owned();
    let aob = |arguments: &[&str]| {
        let made = Command::new(env!("CARGO_BIN_EXE_aob"))
            .args(["--url", &format!("http://{}", node.address), "--output", "table"])
            .args(arguments)
            .env("AOB_TOKEN", &tokens.tokens[0])
            .output()
            .unwrap();
        assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    let shown = aob(&["patch", "show", &patch]);
    assert!(shown.contains("agent-7 is an agent") && shown.contains("+ node email (task)"), "{shown}");
    assert_eq!(aob(&["patch", "approve", &patch, "--reason", "fine"]), format!("{patch}  version 2\n"));
    assert!(aob(&["patch", "list", &run]).contains("applied"));
    let refused =
        Command::new(AOBD).args(["check-config", "--set", "policy.patches.hold=all"]).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("auth.tokens_file is missing"), "{refused:?}");
}

// F324, F327: the gates of a policy are put on a patch that waited when it is made.
#[test]
fn a_patch_that_waited_is_gated_by_the_runs_policy() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = Tokens::new(directory.path());
    let gates = r#"[{tag = "money", reviewers = ["cfo"]}]"#;
    let node = Node::start(&tokens.options(&directory.path().join("data")).set("policy.gates", gates));
    let [mut ann, mut agent, _] = tokens.callers(&node);
    ann.post("/v1/workflows", &walk()).expect(201);
    let started = ann.post("/v1/runs", &json!({"workflow": "walk"})).expect(202).json();
    let run = format!("/v1/runs/{}", started["run_id"].as_str().unwrap());
    let pay = json!({"type": "task", "tags": ["money"], "needs": ["process"], "with": {"queue": "pay"}});
    let patch = json!({"operations": [{"op": "add", "path": "/nodes/pay", "value": pay}]});
    let held = agent.post(&format!("{run}/patches"), &patch).expect(202);
    let place = held.header("location").unwrap().to_owned();
    assert_eq!(held.json()["state"], "held");
    ann.post(&format!("{place}/approve"), &json!({})).expect(202);
    let document = ann.get(&format!("{run}/graph"))["document"].clone();
    let inside = &document["nodes"]["pay"]["with"]["body"]["nodes"];
    assert_eq!(inside["gate_pay"]["with"]["reviewers"], json!(["cfo"]), "{document}");
    assert!(inside["pay"]["tags"] == json!(["money"]), "{document}");
}
