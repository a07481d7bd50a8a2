//! The examples of the seeds that have agents, workers and services in them, run to their end as they stand; and branches that an
//! agent chooses, which are those that the document declares.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::agents::{options, stub};
use crate::harness::{Client, Node, in_background};

fn register(client: &mut Client, text: &str) -> String {
    let yaml = [("content-type", "application/yaml")];
    let made = client.request("POST", "/v1/workflows", &yaml, text.as_bytes()).unwrap().expect(201);
    made.json()["name"].as_str().unwrap().to_owned()
}

fn example(name: &str) -> String {
    std::fs::read_to_string(crate::harness::root().join(format!("examples/seeds/{name}.yaml"))).unwrap()
}

fn start(client: &mut Client, workflow: &str, inputs: &Value) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": workflow, "inputs": inputs})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn ended(client: &mut Client, run_id: &str) -> Value {
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

/// Does the next job of a queue, with this result; gives its input.
fn work(client: &mut Client, queue: &str, output: &Value) -> Value {
    let body = json!({"worker": "w", "queues": [queue], "max": 1, "wait_ms": 30_000});
    let job = client.post("/v1/workers/poll", &body).expect(200).json()["jobs"][0].clone();
    let body = json!({"results": [{"lease": job["lease"], "output": output}]});
    client.post("/v1/workers/complete", &body).expect(200);
    job["input"].clone()
}

/// A service whose every answer is this.
fn service(answer: &Value) -> std::net::SocketAddr {
    let (listener, answer) = (TcpListener::bind("127.0.0.1:0").unwrap(), answer.to_string());
    let address = listener.local_addr().unwrap();
    in_background(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            if stream.read(&mut head).unwrap_or(0) > 0 {
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                    answer.len()
                );
            }
        }
    });
    address
}

// F288, F043: research -> analysis -> report.
#[test]
fn the_seeds_research_analysis_and_report_run_as_they_stand() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let name = register(&mut client, &example("research_analysis_report"));
    let run_id = start(&mut client, &name, &json!({"topic": "tides"}));
    let run = ended(&mut client, &run_id);
    assert_eq!(run["status"], "completed", "{run}");
    assert!(run["outputs"]["report"].as_str().unwrap().starts_with("Answer "), "{run}");
    let asked = stub.requests(10).to_string();
    for part in
        ["Research tides", "What follows from these findings? Answer ", "Write a report on tides: Answer "]
    {
        assert!(asked.contains(part), "{part:?} is not in {asked}");
    }
}

// F288, F265, F034: review -> fix -> test -> deploy.
#[test]
fn the_seeds_review_fix_test_and_deploy_runs_as_it_stands() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let name = register(&mut client, &example("review_fix_test_deploy"));
    let run_id = start(&mut client, &name, &json!({"change": "a list"}));
    work(&mut client, "tests", &json!({"passed": false}));
    work(&mut client, "tests", &json!({"passed": true}));
    let path = format!("/v1/runs/{run_id}");
    let ticket = loop {
        let run = client.get(&path).expect(200).json();
        if let Some(ticket) = run["approvals"][0]["ticket"].as_str() {
            break ticket.to_owned();
        }
        assert_eq!(run["status"], "running", "{run}");
    };
    let decision = json!({"approved": true, "reviewer": "owner", "reason": "so be it"});
    client.post(&format!("/v1/approvals/{ticket}/decision"), &decision).expect(200);
    let payload = work(&mut client, "deploy", &json!("live"));
    assert!(payload.to_string().contains("a list"), "{payload}");
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"], json!({"deployed": "live"}), "{run}");
    // The review once, the fix once for each test.
    assert_eq!(stub.stats()["calls"], 3);
}

// F288: collect -> process -> validate -> store.
#[test]
fn the_seeds_collect_process_validate_and_store_runs_as_it_stands() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let address = service(&json!({"rows": [{"id": 1}, {"no": "id"}, {"id": 2}]}));
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    // But for the address of the two sources.
    let text = example("collect_process_validate_store");
    let name = register(&mut client, &text.replace("https://example.com", &format!("http://{address}")));
    let run_id = start(&mut client, &name, &json!({"day": "2026-11-22"}));
    let stored = work(&mut client, "warehouse", &json!({"rows": 4}));
    let valid = stored.to_string().matches("\"id\":").count();
    assert_eq!(valid, 4, "what is invalid is left out: {stored}");
    assert!(!stored.to_string().contains("no"), "{stored}");
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"], json!({"stored": {"rows": 4}}), "{run}");
}

// F265, F029: what an agent says is judged by the edges of the document; a way that is not declared is no way.
#[test]
fn an_agent_chooses_among_the_branches_that_are_declared_and_no_others() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let node = Node::start(&options(directory.path(), &stub));
    let mut client = node.client();
    let schema = json!({"type": "object", "required": ["next"], "additionalProperties": false,
        "properties": {"next": {"enum": ["left", "right"]}}});
    let choose = json!({"type": "agent", "with": {"task": "${ inputs.how }", "output_schema": schema}});
    let side = |value: &str| json!({"type": "function", "with": {"expr": format!("'{value}'")}});
    let workflow = json!({
        "name": "ways",
        "nodes": {"choose": choose, "left": side("went left"), "right": side("went right")},
        "edges": [
            {"from": "choose", "to": "left", "when": "output.next == 'left'"},
            {"from": "choose", "to": "right", "when": "output.next == 'right'"},
        ]
    });
    client.post("/v1/workflows", &workflow).expect(201);
    // Somewhere else is put right by the schema; then the branch that it names runs, and that alone.
    let how = r#"[[json: {"next": "secret"}]] [[turn]] [[json: {"next": "right", "also": "left"}]] [[turn]] [[json: {"next": "right"}]]"#;
    let run_id = start(&mut client, "ways", &json!({"how": how}));
    let run = ended(&mut client, &run_id);
    assert_eq!(run["outputs"], json!({"right": "went right"}), "{run}");
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    let of = |kind: &str, node: &str| {
        let events = page["events"].as_array().unwrap().iter();
        events.filter(|event| event["type"] == kind && event["node"] == node).count()
    };
    assert_eq!(of("agent.corrected", "choose"), 2, "{page}");
    assert_eq!(
        (of("node.started", "left"), of("node.skipped", "left"), of("node.started", "right")),
        (0, 1, 1)
    );
    // Who insists gets nowhere.
    let says = r#"[[json: {"next": "secret"}]]"#;
    let how = [says; 4].join(" [[turn]] ");
    let run_id = start(&mut client, "ways", &json!({"how": how}));
    let run = ended(&mut client, &run_id);
    assert_eq!(
        (&run["failed_node"], &run["error"]["code"]),
        (&json!("choose"), &json!("output_schema")),
        "{run}"
    );
}
