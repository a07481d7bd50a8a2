//! Rules that force a human gate, with the real binary: nothing is called before somebody has approved, whatever becomes of
//! the node in between.

#![expect(clippy::disallowed_types, reason = "the service that is called has threads of its own")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// A service that notes what it was asked to do.
#[derive(Clone, Default)]
struct Bank(Arc<Mutex<Vec<String>>>);

impl Bank {
    fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let bank = self.clone();
        in_background(move || {
            for stream in listener.incoming() {
                bank.answer(stream.unwrap());
            }
        });
        address
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                break;
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = text.trim().parse().unwrap();
            }
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let (status, body) = match &*path {
            "/unsure" => ("200 OK", r#"{"confidence": 0.4}"#),
            "/sure" => ("200 OK", r#"{"confidence": 0.9}"#),
            "/out" => ("404 Not Found", "{}"),
            _ => ("200 OK", "{}"),
        };
        self.0.lock().unwrap().push(path);
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

const RULES: &str = r#"[{tag = "money", reviewers = ["cfo"], reason_required = true},
    {tag = "deletion", reviewers = ["owner"]}, {tag = "legal", reviewers = ["lawyer"]},
    {confidence_below = 0.7, reviewers = ["expert"]}]"#;

fn options(directory: &std::path::Path, service: SocketAddr) -> Options {
    let rules = RULES.replace('\n', " ");
    Options::serve(directory).set("http.allow", &service.to_string()).set("policy.gates", &rules)
}

fn call(service: SocketAddr, path: &str, tags: &Value) -> Value {
    json!({"type": "http", "tags": tags, "with": {"method": "POST", "url": format!("http://{service}{path}"), "body": "${ input }"}})
}

fn start(client: &mut Client, document: &Value) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": document, "inputs": {"n": 7}})).expect(202);
    run.json()["run_id"].as_str().unwrap().to_owned()
}

/// The run, once somebody is asked.
fn asked(client: &mut Client, run: &str) -> Value {
    for _ in 0..100_000 {
        let view = client.get(&format!("/v1/runs/{run}")).expect(200).json();
        if view["approvals"][0]["ticket"].is_string() {
            return view;
        }
        assert!(!["completed", "failed"].contains(&view["status"].as_str().unwrap()), "{view}");
    }
    panic!("nobody is asked");
}

fn ended(client: &mut Client, run: &str) -> Value {
    let answer = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=60")], b"").unwrap();
    answer.expect(200).json()
}

fn decide(client: &mut Client, view: &Value, reviewer: &str, decision: &str) {
    let ticket = view["approvals"][0]["ticket"].as_str().unwrap();
    let path = format!("/v1/approvals/{ticket}/decision");
    let nobody = client.post(&path, &json!({"decision": decision, "reviewer": "intern", "reason": "x"}));
    assert_eq!(nobody.expect(403).json()["code"], "not_a_reviewer");
    client
        .post(&path, &json!({"decision": decision, "reviewer": reviewer, "reason": "I looked"}))
        .expect(200);
}

/// One tag: nobody is called before the approval, not after kill -9 either; a rejection fails the run, or leads along the
/// node's error edge.
fn one(tag: &str, reviewer: &str) {
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::default();
    let service = bank.serve();
    let node = Node::start(&options(directory.path(), service));
    let mut client = node.client();
    let plain = json!({"name": "plain", "nodes": {
        "first": {"type": "function", "with": {"expr": "{'amount': inputs.n}"}},
        "act": call(service, "/act", &json!([tag])),
        "then": {"type": "function", "with": {"expr": "nodes.act.output.status"}}},
        "edges": [{"from": "first", "to": "act"}, {"from": "act", "to": "then"}], "outputs": {"then": "${ nodes.then.output }"}});
    let mut caught = plain.clone();
    caught["name"] = json!("caught");
    caught["nodes"]["sorry"] = json!({"type": "function", "with": {"expr": "'not done'"}});
    caught["edges"].as_array_mut().unwrap().push(json!({"from": "act", "to": "sorry", "on": "error"}));
    caught["outputs"] = json!({"sorry": "${ nodes.sorry.output }"});
    let (yes, no, other) =
        (start(&mut client, &plain), start(&mut client, &plain), start(&mut client, &caught));
    let view = asked(&mut client, &yes);
    let approval = &view["approvals"][0];
    assert_eq!(
        (&approval["policy"], &approval["node"]),
        (&json!(format!("tag {tag}")), &json!("act.gate_act"))
    );
    assert_eq!(approval["reviewers"], json!([reviewer]));
    let registered = client.get("/v1/workflows/plain").expect(200).json();
    assert_eq!(view["policy"]["base"], registered["hash"], "{view}");
    assert!(view["policy"]["gates"].as_array().unwrap().len() == 4 && view["hash"] != registered["hash"]);
    let effective = client.get("/v1/workflows/plain?effective=true").expect(200).json();
    assert_eq!(effective["hash"], view["hash"]);
    assert_eq!(effective["document"]["nodes"]["act"]["type"], "composite");
    let shown =
        client.get(&format!("/v1/approvals/{}", approval["ticket"].as_str().unwrap())).expect(200).json();
    let data = json!({"policy": format!("tag {tag}"), "node": "act", "type": "http", "method": "POST",
        "url": format!("http://{service}/act"), "body": {"amount": 7}, "input": {"amount": 7}});
    assert_eq!((&shown["data"], &shown["policy"]), (&data, &approval["policy"]));
    asked(&mut client, &no);
    asked(&mut client, &other);
    node.kill();
    assert_eq!(bank.calls(), Vec::<String>::new(), "nobody has approved");

    // Rules that have changed concern new runs only.
    let node = Node::start(&Options::serve(directory.path()).set("http.allow", &service.to_string()));
    let mut client = node.client();
    let view = asked(&mut client, &no);
    decide(&mut client, &view, reviewer, "reject");
    let failed = ended(&mut client, &no);
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("gate_rejected")),
        "{failed}"
    );
    assert!(
        failed["error"]["message"].as_str().unwrap().contains(&format!("{reviewer} rejected it: I looked"))
    );
    let view = asked(&mut client, &other);
    decide(&mut client, &view, reviewer, "reject");
    assert_eq!(ended(&mut client, &other)["outputs"], json!({"sorry": "not done"}));
    assert_eq!(bank.calls(), Vec::<String>::new());
    let view = asked(&mut client, &yes);
    assert!(view["policy"]["base"].is_string(), "after the restart too");
    decide(&mut client, &view, reviewer, "approve");
    assert_eq!(ended(&mut client, &yes)["outputs"], json!({"then": 200}));
    assert_eq!(bank.calls(), ["/act"]);
    let free = start(&mut client, &plain);
    let free = ended(&mut client, &free);
    assert_eq!((&free["status"], free["policy"].is_null()), (&json!("completed"), true));
    assert_eq!(bank.calls().len(), 2);
}

// F324, F326, RELIABILITY I-11
#[test]
fn money_moves_when_somebody_has_approved() {
    one("money", "cfo");
}

// F324
#[test]
fn nothing_is_deleted_before_its_owner_agrees() {
    one("deletion", "owner");
}

// F324
#[test]
fn what_is_legal_business_waits_for_a_lawyer() {
    one("legal", "lawyer");
}

// F324
#[test]
fn a_low_confidence_is_looked_at_before_anything_follows() {
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::default();
    let service = bank.serve();
    let node = Node::start(&options(directory.path(), service));
    let mut client = node.client();
    let document = |name: &str| {
        json!({"name": name, "nodes": {
            "ask": call(service, &format!("/{name}"), &json!([])),
            "other": {"type": "function", "with": {"expr": "1"}},
            "act": call(service, "/act", &json!([])),
            "both": {"type": "function", "with": {"expr": "keys(input)"}}},
            "edges": [{"from": "ask", "to": "act"}, {"from": "ask", "to": "both"}, {"from": "other", "to": "both"}],
            "outputs": {"both": "${ nodes.both.output }", "confidence": "${ nodes.ask.output.body.confidence }"}})
    };
    let sure = start(&mut client, &document("sure"));
    assert_eq!(ended(&mut client, &sure)["outputs"], json!({"both": ["ask", "other"], "confidence": 0.9}));
    let (yes, no) = (start(&mut client, &document("unsure")), start(&mut client, &document("unsure")));
    let view = asked(&mut client, &yes);
    assert_eq!(view["approvals"][0]["policy"], "confidence below 0.7");
    asked(&mut client, &no);
    node.kill();
    assert_eq!(
        bank.calls(),
        ["/sure", "/act", "/unsure", "/unsure"],
        "nothing follows what nobody has looked at"
    );
    let node = Node::start(&options(directory.path(), service));
    let mut client = node.client();
    let view = asked(&mut client, &no);
    decide(&mut client, &view, "expert", "reject");
    assert_eq!(ended(&mut client, &no)["error"]["code"], "gate_rejected");
    let view = asked(&mut client, &yes);
    decide(&mut client, &view, "expert", "approve");
    assert_eq!(ended(&mut client, &yes)["outputs"], json!({"both": ["ask", "other"], "confidence": 0.4}));
    assert_eq!(bank.calls().last().map(String::as_str), Some("/act"));
    assert_eq!(bank.calls().len(), 5);
}

// F324, RELIABILITY 2.6: a patch is gated in the same version, and cannot go around a gate.
#[test]
fn a_patch_of_a_running_graph_is_gated_by_the_rules_of_its_run() {
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::default();
    let service = bank.serve();
    let node = Node::start(&options(directory.path(), service));
    let mut client = node.client();
    let document = json!({"name": "w", "nodes": {"hold": {"type": "wait", "with": {"signal": "go"}}}});
    let run = start(&mut client, &document);
    let operations = json!({"operations": [
        {"op": "add", "path": "/nodes/pay", "value": call(service, "/pay", &json!(["money"]))},
        {"op": "add", "path": "/edges/hold~1pay", "value": {"from": "hold", "to": "pay"}}]});
    let made = client.post(&format!("/v1/runs/{run}/patches"), &operations).expect(202).json();
    assert_eq!(made["graph_version"], 2);
    let around = json!({"base_version": 2, "operations": [
        {"op": "replace", "path": "/nodes/pay", "value": call(service, "/pay", &json!([]))}]});
    let refused = client.post(&format!("/v1/runs/{run}/patches"), &around).expect(403).json();
    assert_eq!(refused["code"], "patch_forbidden", "{refused}");
    assert!(refused["detail"].as_str().unwrap().starts_with("gate_removed"), "{refused}");
    // What a patch brought goes with it, its gate too.
    let patches = format!("/v1/runs/{run}/patches");
    let refund = json!({"operations": [
        {"op": "add", "path": "/nodes/refund", "value": call(service, "/refund", &json!(["money"]))},
        {"op": "add", "path": "/edges/hold~1refund", "value": {"from": "hold", "to": "refund"}}]});
    let refund = client.post(&patches, &refund).expect(202).json();
    let gone = format!("{patches}/{}/revoke", refund["patch_id"].as_str().unwrap());
    assert_eq!(client.post(&gone, &json!({"reason": "no refund"})).expect(202).json()["graph_version"], 4);
    // A gated node that changes is asked about once, as it is then.
    let elsewhere = json!({"base_version": 4, "operations": [{"op": "replace", "path": "/nodes/pay/with/body/nodes/pay/with/url",
        "value": format!("http://{service}/elsewhere")}]});
    client.post(&patches, &elsewhere).expect(202);
    client.post(&format!("/v1/runs/{run}/signals/go"), &json!({"payload": 1}));
    let view = asked(&mut client, &run);
    node.kill();
    assert_eq!(bank.calls(), Vec::<String>::new());
    let node = Node::start(&Options::serve(directory.path()).set("http.allow", &service.to_string()));
    let mut client = node.client();
    asked(&mut client, &run);
    let ticket = view["approvals"][0]["ticket"].as_str().unwrap();
    let silent = json!({"decision": "approve", "reviewer": "cfo"});
    let refused = client.post(&format!("/v1/approvals/{ticket}/decision"), &silent).expect(422).json();
    assert_eq!(refused["code"], "reason_required");
    let shown = client.get(&format!("/v1/approvals/{ticket}")).expect(200).json();
    assert_eq!(shown["data"]["url"], format!("http://{service}/elsewhere"), "{shown}");
    decide(&mut client, &view, "cfo", "approve");
    assert_eq!(ended(&mut client, &run)["status"], "completed");
    assert_eq!(bank.calls(), ["/elsewhere"]);
}

// F328
#[test]
fn a_tool_that_is_out_leads_to_a_human() {
    let directory = tempfile::tempdir().unwrap();
    let bank = Bank::default();
    let service = bank.serve();
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node =
        Node::start(&Options::serve(directory.path()).set("http.allow", &format!("{service}, {gone}")));
    let mut client = node.client();
    let text = std::fs::read_to_string(crate::harness::root().join("examples/work/tool-out.yaml")).unwrap();
    let text = text
        .replace("https://tool.example", &format!("http://{gone}"))
        .replace("https://bank.example", &format!("http://{service}"));
    let registered =
        client.request("POST", "/v1/workflows", &[("content-type", "application/yaml")], text.as_bytes());
    registered.unwrap().expect(201);
    let run =
        client.post("/v1/runs", &json!({"workflow": "tool_out", "inputs": {"amount": 3}})).expect(202).json();
    let run = run["run_id"].as_str().unwrap();
    let view = asked(&mut client, run);
    assert_eq!(view["approvals"][0]["node"], "by_hand");
    assert_eq!(bank.calls(), Vec::<String>::new());
    let ticket = view["approvals"][0]["ticket"].as_str().unwrap();
    let decision = json!({"decision": "approve", "reviewer": "ops", "reason": "known customer"});
    client.post(&format!("/v1/approvals/{ticket}/decision"), &decision).expect(200);
    let ended = ended(&mut client, run);
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(bank.calls(), ["/transfer"]);
}

// F324
#[test]
fn where_gates_will_be_is_shown_without_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let (document, config) = (directory.path().join("w.yaml"), directory.path().join("aob.toml"));
    std::fs::write(&document, "name: w\nnodes: {pay: {type: task, tags: [money]}, free: {type: task}}\n")
        .unwrap();
    let rules = "[[policy.gates]]\ntag = \"money\"\nreviewers = [\"cfo\"]\n";
    std::fs::write(&config, rules).unwrap();
    let aob = |line: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_aob"));
        command.env_remove("AOB_URL").arg("workflow").args(line).arg(&document).arg("--policy").arg(&config);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let gate = "gate /nodes/pay/with/body/nodes/gate_pay (tag money)";
    let (code, said, _) = aob(&["validate"]);
    assert!(code == Some(0) && said.contains(gate) && said.matches("gate /").count() == 1, "{said}");
    let (code, said, _) = aob(&["validate", "-o", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(
        said["gates"],
        json!([{"pointer": "/nodes/pay/with/body/nodes/gate_pay", "policy": "tag money"}])
    );
    assert!(aob(&["graph"]).1.contains("gate_pay"));
    std::fs::write(&config, rules.replace("reviewers", "reviewer")).unwrap();
    let (code, _, said) = aob(&["validate"]);
    assert!(code != Some(0) && said.contains("policy.gates") && said.contains("did you mean"), "{said}");
}
