//! Tokens and workspaces: who gets in, and that no route leads from one workspace into another.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{AOBD, Client, Node, Options, chain};

/// A node with a file of tokens.
pub(crate) struct Guarded {
    file: PathBuf,
    directory: tempfile::TempDir,
}

impl Guarded {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { file: directory.path().join("tokens.toml"), directory }
    }

    fn token(&self, arguments: &[&str]) -> String {
        let set = format!("auth.tokens_file={}", self.file.display());
        let made = Command::new(AOBD)
            .arg("token")
            .args(arguments)
            .args(["--set", &set])
            .output()
            .expect("aobd runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn new_token(&self, name: &str, workspace: &str, role: &str) -> String {
        self.token(&["new", "--name", name, "--workspace", workspace, "--role", role])
    }

    fn start(&self) -> Node {
        self.start_with(|options| options)
    }

    pub(crate) fn start_with(&self, set: impl FnOnce(Options) -> Options) -> Node {
        Node::start(&set(self.options(&self.directory.path().join("data"))))
    }

    fn options(&self, data_dir: &Path) -> Options {
        Options::serve(data_dir)
            .set("auth.tokens_file", &self.file.display().to_string())
            .set("runner.driver", "tokio")
    }
}

/// A client with headers of its own.
pub(crate) struct Caller {
    client: Client,
    headers: Vec<(String, String)>,
}

impl Caller {
    pub(crate) fn new(node: &Node, token: &str) -> Self {
        let headers = vec![(String::from("authorization"), format!("Bearer {token}"))];
        Self { client: node.client(), headers }
    }

    fn anybody(node: &Node) -> Self {
        Self { client: node.client(), headers: Vec::new() }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let mut headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if body.is_some() {
            headers.push(("content-type", "application/json"));
        }
        let body = body.map_or_else(String::new, Value::to_string);
        self.client.request(method, path, &headers, body.as_bytes()).expect("a reply")
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.ask("GET", path, None)
    }

    fn post(&mut self, path: &str, body: &Value) -> Response {
        self.ask("POST", path, Some(body))
    }
}

/// A workflow that waits for a signal.
fn waiting(name: &str) -> Value {
    json!({"name": name, "version": "1", "agents": {"writer": {}}, "nodes": {"w": {"type": "wait", "with": {"signal": "go"}}}})
}

// F416
#[test]
fn every_route_but_probes_takes_a_token_with_its_role() {
    let guarded = Guarded::new();
    let [reader, writer, admin] =
        ["read", "write", "admin"].map(|role| guarded.new_token(role, "default", role));
    let node = guarded.start();
    let mut nobody = Caller::anybody(&node);
    for path in ["/livez", "/readyz", "/healthz", "/version"] {
        nobody.get(path).expect(200);
    }
    for (method, path) in [
        ("GET", "/v1/runs"),
        ("POST", "/v1/batch"),
        ("GET", "/v1/node"),
        ("GET", "/metrics"),
        ("POST", "/v1/runs"),
        ("GET", "/nowhere"),
        ("GET", "/v1/schema/workflow.json"),
    ] {
        let refused = nobody.ask(method, path, None).expect(401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"), "{path}");
        assert_eq!(refused.json()["code"], "unauthenticated", "{path}");
        Caller::new(&node, "aob_1234").ask(method, path, None).expect(401);
    }
    let document = chain("flow", 1);
    let (mut reader, mut writer, mut admin) =
        (Caller::new(&node, &reader), Caller::new(&node, &writer), Caller::new(&node, &admin));
    let refused = reader.post("/v1/workflows", &document).expect(403).json();
    assert_eq!(refused["code"], "forbidden");
    assert!(refused["detail"].as_str().unwrap().contains("write"), "{refused}");
    let batch = json!({"action": "cancel", "filter": {"workflow": "none"}});
    assert_eq!(reader.post("/v1/batch", &batch).expect(403).json()["code"], "forbidden");
    reader.get("/v1/batch").expect(200);
    reader.get("/v1/runs").expect(200);
    writer.post("/v1/workflows", &document).expect(201);
    writer.get("/v1/workflows/flow").expect(200);
    assert!(writer.get("/metrics").expect(403).json()["detail"].as_str().unwrap().contains("admin"));
    admin.get("/metrics").expect(200);
    let mut elsewhere = writer.with("aob-workspace", "acme");
    elsewhere.get("/v1/runs").expect(403);
}

// F410
#[test]
fn tokens_come_and_go_with_sighup() {
    let guarded = Guarded::new();
    let first = guarded.new_token("first", "default", "read");
    let node = guarded.start();
    let second = guarded.new_token("second", "acme", "admin");
    Caller::new(&node, &second).get("/v1/runs").expect(401);
    node.hang_up();
    node.says("reloaded");
    Caller::new(&node, &second).get("/v1/runs").expect(200);
    assert!(guarded.token(&["list"]).contains("second"));
    guarded.token(&["revoke", "--name", "first"]);
    Caller::new(&node, &first).get("/v1/runs").expect(200);
    node.hang_up();
    node.says("reloaded");
    Caller::new(&node, &first).get("/v1/runs").expect(401);
    std::fs::write(&guarded.file, "[[token]]\nname = 1").unwrap();
    node.hang_up();
    assert!(node.says("tokens_file").contains("tokens.toml"));
    Caller::new(&node, &second).get("/v1/runs").expect(200);
}

// F404, F416: what a workspace may spend is nobody else's business; the node's budgets are its operator's.
#[test]
fn of_budgets_that_runs_share_a_workspace_sees_its_own() {
    let guarded = Guarded::new();
    let ours = guarded.new_token("ours", "default", "read");
    let theirs = guarded.new_token("theirs", "acme", "write");
    let admin = guarded.new_token("admin", "acme", "admin");
    let all = [
        "node",
        "workspace:acme",
        "workspace:default",
        "workflow:acme/report",
        "workflow:flow",
        "agent:writer",
    ];
    let budgets = all.map(|scope| format!("{{scope = \"{scope}\", usd = \"5.00\"}}")).join(", ");
    let node = guarded.start_with(|options| options.set("budgets", &format!("[{budgets}]")));
    let seen = |token: &str| {
        let list = Caller::new(&node, token).get("/v1/budgets").expect(200).json();
        let rows = list["budgets"].as_array().unwrap().iter();
        rows.map(|row| row["scope"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&theirs), ["workspace:acme", "workflow:acme/report"]);
    assert_eq!(seen(&ours), ["workspace:default", "workflow:flow"]);
    assert_eq!(seen(&admin), all);
    let row = Caller::new(&node, &ours).get("/v1/budgets").json()["budgets"][0].clone();
    assert_eq!(
        (&row["per"], &row["left_usd"], &row["warned"]),
        (&json!("day"), &json!("5.00"), &json!(false))
    );
    Caller::new(&node, &admin).post("/v1/budgets", &json!({})).expect(405);
}

#[test]
fn without_tokens_the_node_says_so_and_lets_everybody_choose_a_workspace() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("runner.driver", "tokio"));
    assert!(node.says("auth.tokens_file").contains("everything"));
    let mut acme = Caller::anybody(&node).with("aob-workspace", "acme");
    acme.post("/v1/workflows", &waiting("flow")).expect(201);
    Caller::anybody(&node).get("/v1/workflows/flow").expect(404);
    Caller::anybody(&node).with("aob-workspace", "A/b").get("/v1/runs").expect(422);
}

/// Every route that names a run or a workflow.
fn routes(run: &str, name: &str) -> Vec<(&'static str, String, Option<Value>)> {
    let patch = format!("patch_{}{:016x}", run.trim_start_matches("run_"), 7);
    let webhook = format!("wh_{}", "0".repeat(32));
    let mut routes = vec![
        ("GET", format!("/v1/workflows/{name}"), None),
        ("GET", format!("/v1/workflows/{name}/versions/1"), None),
        ("GET", format!("/v1/workflows/{name}/tags"), None),
        ("GET", format!("/v1/agents/{name}/writer"), None),
        ("GET", format!("/v1/agents/acme%2F{name}/writer"), None),
        ("PUT", format!("/v1/workflows/{name}/tags/live"), Some(json!({"version": "1"}))),
        ("DELETE", format!("/v1/workflows/{name}/tags/live"), None),
        ("POST", String::from("/v1/runs"), Some(json!({"workflow": name}))),
        ("POST", String::from("/v1/runs"), Some(json!({"workflow": format!("{name}@1")}))),
        ("POST", String::from("/v1/runs"), Some(json!({"workflow": format!("acme/{name}")}))),
        ("GET", format!("/v1/workflows/acme%2F{name}"), None),
        ("POST", String::from("/runs"), Some(json!({"tag": format!("{name}@live")}))),
        ("POST", String::from("/workflows/execute"), Some(json!({"workflow_name": name}))),
        ("GET", format!("/workflows/{run}"), None),
        ("POST", format!("/workflows/{run}/pause"), None),
        ("POST", format!("/workflows/{run}/resume"), None),
        ("GET", format!("/v1/runs/{run}"), None),
        ("POST", format!("/v1/runs/{run}/signals/go"), Some(json!({"payload": 1}))),
        ("POST", format!("/v1/runs/{run}/updates/go"), Some(json!({"payload": 1}))),
        ("GET", format!("/v1/runs/{run}/graph"), None),
        ("GET", format!("/v1/runs/{run}/artifacts"), None),
        ("GET", format!("/v1/runs/{run}/patches"), None),
        ("POST", format!("/v1/runs/{run}/patches"), Some(json!({"operations": []}))),
        ("POST", format!("/v1/runs/{run}/patch"), Some(json!({"operations": []}))),
        ("POST", format!("/runs/{run}/patch"), Some(json!({"operations": []}))),
        ("GET", String::from("/v1/schedules/tick"), None),
        ("PATCH", String::from("/v1/schedules/tick"), Some(json!({"paused": true}))),
        ("DELETE", String::from("/v1/schedules/tick"), None),
        ("POST", String::from("/v1/schedules/tick/pause"), None),
        ("POST", String::from("/v1/schedules/tick/resume"), None),
        ("POST", String::from("/v1/schedules/tick/trigger"), None),
        (
            "POST",
            String::from("/v1/schedules"),
            Some(json!({"name": "x", "workflow": name, "cron": "0 0 1 1 *"})),
        ),
        ("POST", String::from("/v1/hooks"), Some(json!({"name": "x", "workflow": name}))),
        ("GET", format!("/v1/runs/{run}/patches/{patch}"), None),
        ("POST", format!("/v1/runs/{run}/patches/{patch}/revoke"), None),
        ("POST", format!("/v1/runs/{run}/patches/{patch}/approve"), None),
        ("POST", format!("/v1/runs/{run}/patches/{patch}/reject"), None),
        ("GET", format!("/v1/runs/{run}/patches/{patch}/diff"), None),
        ("GET", format!("/v1/runs/{run}/graph/diff"), None),
        ("GET", format!("/v1/workflows/{name}/patches"), None),
        ("POST", format!("/v1/workflows/{name}/patches"), Some(json!({"operations": []}))),
        ("GET", format!("/v1/workflows/{name}/patches/wpatch_0000000000000000_{name}"), None),
        ("POST", format!("/v1/workflows/{name}/patches/wpatch_0000000000000000_{name}/approve"), None),
        ("POST", format!("/v1/workflows/{name}/patches/wpatch_0000000000000000_{name}/reject"), None),
        ("POST", format!("/v1/workflows/{name}/patches/wpatch_0000000000000000_{name}/revoke"), None),
        ("GET", format!("/v1/workflows/{name}/tags/live/history"), None),
        ("GET", format!("/v1/workflows/{name}/patch-sets"), None),
        ("PUT", format!("/v1/workflows/{name}/patch-sets/A"), Some(json!({"patches": []}))),
        ("DELETE", format!("/v1/workflows/{name}/patch-sets/A"), None),
        ("GET", format!("/v1/workflows/{name}/experiments"), None),
        ("GET", format!("/v1/runs/{run}/blame"), None),
        ("DELETE", format!("/v1/runs/{run}"), None),
        ("GET", format!("/v1/runs/{run}/timeline"), None),
        ("GET", format!("/v1/runs/{run}/audit"), None),
        ("GET", format!("/v1/runs/{run}/cost"), None),
        ("POST", format!("/v1/runs/{run}/budget"), Some(json!({"usd": "1", "reason": "r"}))),
        ("GET", format!("/v1/runs/{run}/events"), None),
        ("GET", format!("/v1/events?run={run}:0"), None),
        ("GET", format!("/v1/runs/{run}/bundle"), None),
        ("GET", format!("/v1/runs/{run}/state"), None),
        ("POST", format!("/v1/runs/{run}/fork"), Some(json!({"at": 1}))),
        ("POST", format!("/v1/runs/{run}/replay"), Some(json!({}))),
        ("GET", format!("/v1/approvals/tkt_{}_2", &run[4..]), None),
        ("GET", format!("/v1/approvals/review_{run}_w"), None),
        ("POST", format!("/v1/approvals/tkt_{}_2/decision", &run[4..]), Some(json!({"decision": "approve"}))),
        ("GET", format!("/v1/dlq/dead_{}_7", &run[4..]), None),
        ("DELETE", format!("/v1/dlq/dead_{}_7", &run[4..]), None),
        ("POST", format!("/v1/dlq/dead_{}_7/redrive", &run[4..]), None),
        ("GET", format!("/v1/webhooks/{webhook}"), None),
        ("DELETE", format!("/v1/webhooks/{webhook}"), None),
        ("GET", format!("/v1/webhooks/{webhook}/deliveries"), None),
        ("POST", format!("/v1/webhooks/{webhook}/redrive"), None),
    ];
    for verb in ["pause", "resume", "cancel", "terminate"] {
        routes.push(("POST", format!("/v1/runs/{run}/{verb}"), None));
    }
    routes
}

/// A hook is another's for whoever is outside, whatever is done with it; a message needs no token, but a signature.
fn hidden_hooks(inside: &mut Caller, outside: &mut Caller, name: &str) {
    let hook = inside.post("/v1/hooks", &json!({"name": "h", "workflow": name})).expect(201).json();
    let path = hook["url"].as_str().unwrap();
    for (method, path) in [("GET", path), ("DELETE", path), ("POST", &format!("{path}/rotate"))] {
        outside.ask(method, path, None).expect(404);
    }
    assert_eq!(outside.get("/v1/hooks").expect(200).json()["hooks"], json!([]));
    let refused = outside.post(path, &json!({})).expect(401).json();
    assert_eq!(refused["code"], "signature_refused");
    inside.get(path).expect(200);
    inside.ask("DELETE", path, None).expect(204);
}

/// A batch is another's for whoever is outside, and looks at no run of his.
fn hidden_batch(inside: &mut Caller, outside: &mut Caller) {
    let filter = json!({"workflow": "none", "started_before": "2001-01-01T00:00:00Z"});
    let made = inside.post("/v1/batch", &json!({"action": "cancel", "filter": filter})).expect(202).json();
    let path = format!("/v1/batch/{}", made["id"].as_str().unwrap());
    for method in ["GET", "DELETE"] {
        outside.ask(method, &path, None).expect(404);
    }
    assert_eq!(outside.get("/v1/batch").expect(200).json()["batches"], json!([]));
    inside.get(&path).expect(200);
    while inside.ask("DELETE", &path, None).status != 204 {}
}

/// Routes with a name or an id that the source knows, so that the table above stays whole. The four verbs are one there,
/// as are PUT and DELETE, and GET and DELETE of a webhook; the listings of workflows and webhooks are more, and so is the start of an execution.
fn routes_of_the_source() -> usize {
    let source = std::fs::read_to_string(crate::harness::root().join("src/api/routes.rs")).unwrap();
    source.matches("allow(head, \"").count()
}

// F171, F416
#[test]
fn across_the_border_everything_is_not_found() {
    let guarded = Guarded::new();
    let ours = guarded.new_token("ours", "default", "write");
    let theirs = guarded.new_token("theirs", "acme", "write");
    let admin = guarded.new_token("admin", "other", "admin");
    let node = guarded.start();
    for (workspace, inside, outside) in [("acme", &theirs, &ours), ("default", &ours, &theirs)] {
        let (mut inside, mut outside) = (Caller::new(&node, inside), Caller::new(&node, outside));
        let name = format!("of-{workspace}");
        inside.post("/v1/workflows", &waiting(&name)).expect(201);
        inside
            .ask("PUT", &format!("/v1/workflows/{name}/tags/live"), Some(&json!({"version": "1"})))
            .expect(200);
        let run = inside.post("/v1/runs", &json!({"workflow": format!("{name}@live")})).expect(202).json();
        assert_eq!(run["workflow"], name.as_str());
        let run = run["run_id"].as_str().unwrap().to_owned();
        let schedule = json!({"name": "tick", "workflow": name, "cron": "0 0 1 1 *"});
        inside.post("/v1/schedules", &schedule).expect(201);
        hidden_hooks(&mut inside, &mut outside, &name);
        hidden_batch(&mut inside, &mut outside);
        // The document's, and that of a large payload.
        let document = inside.get(&format!("/v1/workflows/{name}")).expect(200).json()["hash"].clone();
        let kept =
            json!({"workflow": name, "inputs": {"of": format!("{workspace} {}", "x".repeat(100_000))}});
        let kept = inside.post("/v1/runs", &kept).expect(202).json()["run_id"].clone();
        let kept = inside.get(&format!("/v1/runs/{}", kept.as_str().unwrap())).expect(200).json();
        for hash in [&document, &kept["inputs"]["of"]["$cas"]] {
            let path = format!("/v1/cas/{}", hash.as_str().unwrap());
            inside.get(&path).expect(200);
            let hidden = outside.get(&path).expect(404).json();
            let nothing = format!("/v1/cas/sha256:{}", "0".repeat(64));
            let unknown = outside.get(&nothing).expect(404).json();
            assert_eq!(hidden["code"], unknown["code"], "the two look the same");
        }
        for (method, path, body) in routes(&run, &name) {
            let answer = outside.ask(method, &path, body.as_ref());
            assert_eq!(answer.status, 404, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
        }
        // Nobody has touched it; its own workspace sees all of it, and never its name inside the node.
        for path in ["", "/graph", "/timeline"] {
            let text = inside.get(&format!("/v1/runs/{run}{path}")).expect(200).body;
            assert!(!String::from_utf8_lossy(&text).contains("acme/"));
        }
        assert_eq!(inside.get(&format!("/v1/runs/{run}")).json()["status"], "running");
        let tags = inside.get(&format!("/v1/workflows/{name}/tags")).expect(200).json();
        assert_eq!(tags["tags"][0]["tag"], "live", "{tags}");
        inside.get("/v1/schedules/tick").expect(200);
        inside.get(&format!("/v1/agents/{name}/writer")).expect(200);
        let agents = outside.get("/v1/agents").expect(200).body;
        assert!(!String::from_utf8_lossy(&agents).contains(&name), "another's agents are not listed");
        inside.ask("DELETE", "/v1/schedules/tick", None).expect(204);
        let mut chosen = Caller::new(&node, &admin).with("aob-workspace", workspace);
        chosen.get(&format!("/v1/runs/{run}")).expect(200);
        Caller::new(&node, &admin).get(&format!("/v1/runs/{run}")).expect(404);
        inside.post(&format!("/v1/runs/{run}/terminate"), &json!({})).expect(200);
        outside.get(&format!("/v1/runs/{run}")).expect(404);
    }
    assert_eq!(routes_of_the_source(), 50, "a new route wants a line in `routes`");
}

// F171
#[test]
fn the_same_name_and_key_in_two_workspaces_do_not_meet_and_lists_are_disjoint() {
    let guarded = Guarded::new();
    let tokens = [("acme", "write"), ("default", "write")]
        .map(|(workspace, role)| guarded.new_token(workspace, workspace, role));
    let node = guarded.start();
    let mut seen: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for token in &tokens {
        let mut caller = Caller::new(&node, token).with("idempotency-key", "k");
        // One document for both: its hash is the same.
        caller.post("/v1/workflows", &waiting("flow")).expect(201);
        caller.post("/v1/workflows", &waiting(&format!("z{}", seen.len()))).expect(201);
        let first = caller.post("/v1/runs", &json!({"workflow": "flow"})).expect(202);
        assert_eq!(first.header("idempotent-replayed"), None);
        let again = caller.post("/v1/runs", &json!({"workflow": "flow"})).expect(202);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(first.json()["run_id"], again.json()["run_id"]);
        let mut caller = Caller::new(&node, token);
        for _ in 0..5 {
            caller.post("/v1/runs", &json!({"workflow": "flow"})).expect(202);
        }
        seen.push((Vec::new(), Vec::new()));
    }
    drop(node);
    // What is read back from the journal knows its workspace still.
    let node = guarded.start();
    for (token, (runs, workflows)) in tokens.iter().zip(&mut seen) {
        let mut caller = Caller::new(&node, token);
        for (noun, id, into) in [("runs", "run_id", &mut *runs), ("workflows", "name", &mut *workflows)] {
            let mut path = format!("/v1/{noun}?limit=2");
            loop {
                let page = caller.get(&path).expect(200).json();
                let rows = page[noun].as_array().unwrap();
                assert!(rows.len() <= 2);
                into.extend(rows.iter().map(|row| row[id].as_str().unwrap().to_owned()));
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                path = format!("/v1/{noun}?limit=2&cursor={cursor}");
            }
        }
        let named = caller.get("/v1/runs?workflow=flow").expect(200).json();
        assert_eq!(named["runs"].as_array().unwrap().len(), 6);
        let inside = caller.get("/v1/runs?workflow=acme%2Fflow").expect(200).json();
        assert_eq!(inside["runs"].as_array().unwrap().len(), 0);
    }
    let [(ours, our_names), (theirs, their_names)] = &seen[..] else { panic!("two workspaces") };
    assert_eq!((ours.len(), theirs.len()), (6, 6), "{ours:?} {theirs:?}");
    assert!(ours.iter().all(|run| !theirs.contains(run)));
    assert_eq!(
        (&our_names[..], &their_names[..]),
        (&["flow".into(), "z0".into()][..], &["flow".into(), "z1".into()][..])
    );
}

#[test]
fn a_child_is_looked_up_in_the_workspace_of_its_parent() {
    let guarded = Guarded::new();
    let [ours, theirs] = ["default", "acme"].map(|name| guarded.new_token(name, name, "write"));
    let node = guarded.start();
    let constant = |value: i64| json!({"name": "leaf", "nodes": {"a": {"type": "function", "with": {"expr": value.to_string()}}}, "outputs": {"n": "${ nodes.a.output }"}});
    let parent = json!({"name": "parent", "nodes": {"c": {"type": "composite", "with": {"workflow": "leaf"}}}, "outputs": {"n": "${ nodes.c.output.n }"}});
    for (token, value) in [(&ours, 1), (&theirs, 2)] {
        let mut caller = Caller::new(&node, token).with("prefer", "wait=20");
        caller.post("/v1/workflows", &constant(value)).expect(201);
        caller.post("/v1/workflows", &parent).expect(201);
        let run = caller.post("/v1/runs", &json!({"workflow": "parent"})).expect(200).json();
        assert_eq!(run["outputs"]["n"], value, "{run}");
    }
}

// F326: a token decides as whom it says, and only the role admin may name another.
#[test]
fn a_token_decides_reviews_as_its_reviewer() {
    let guarded = Guarded::new();
    let named = ["new", "--name", "t1", "--workspace", "default", "--role", "write", "--reviewer", "ops"];
    let ops = guarded.token(&named);
    let lead = guarded.new_token("lead", "default", "write");
    let admin = guarded.new_token("root", "default", "admin");
    let reader = guarded.new_token("reader", "default", "read");
    let node = guarded.start();
    let ask = json!({"name": "ask", "nodes": {"r": {"type": "human_review", "timeout": "1h",
        "with": {"reviewers": ["ops", "lead"]}}}});
    let mut first = Caller::new(&node, &ops);
    first.post("/v1/workflows", &ask).expect(201);
    let ticket = |caller: &mut Caller| {
        let run = caller.post("/v1/runs", &json!({"workflow": "ask"})).expect(202).json();
        format!("/v1/approvals/review_{}_r/decision", run["run_id"].as_str().unwrap())
    };
    let decided = |token: &str, path: &str, body: Value| {
        let answer = Caller::new(&node, token).post(path, &body);
        (answer.status, answer.json()["decision"]["reviewer"].as_str().unwrap_or_default().to_owned())
    };
    let path = ticket(&mut first);
    assert_eq!(decided(&reader, &path, json!({"approved": true})).0, 403, "it may only read");
    assert_eq!(decided(&lead, &path, json!({"approved": true, "reviewer": "ops"})).0, 403);
    assert_eq!(decided(&admin, &path, json!({"approved": true})).0, 403, "root was not asked");
    assert_eq!(decided(&admin, &path, json!({"approved": true, "reviewer": "eve"})).0, 403);
    assert_eq!(decided(&ops, &path, json!({"approved": true})), (200, "ops".into()));
    let path = ticket(&mut first);
    assert_eq!(decided(&lead, &path, json!({"approved": false})), (200, "lead".into()));
    let path = ticket(&mut first);
    assert_eq!(decided(&admin, &path, json!({"approved": true, "reviewer": "lead"})), (200, "lead".into()));
}
