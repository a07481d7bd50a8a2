//! Reviews that are over, found by how they ended; and what a run that does not go on says of itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};
use crate::history;

fn ask(with: &Value) -> Value {
    json!({"name": "ask", "retention": "1h", "nodes": {"review": {"type": "human_review", "with": with}}})
}

/// A run of `ask`, and its review's ticket.
fn start(client: &mut Client) -> (String, String) {
    let run = client.post("/v1/runs", &json!({"workflow": "ask"})).expect(202).json();
    let run = run["run_id"].as_str().unwrap().to_owned();
    loop {
        let seen = client.get(&format!("/v1/runs/{run}")).expect(200).json();
        if let Some(ticket) = seen["approvals"][0]["ticket"].as_str() {
            return (run, ticket.to_owned());
        }
    }
}

fn decide(client: &mut Client, ticket: &str, body: &Value) -> crate::harness::http::Response {
    client.post(&format!("/v1/approvals/{ticket}/decision"), body)
}

fn ended(client: &mut Client, run: &str) {
    client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=60")], b"").unwrap().expect(200);
}

/// All tickets of a listing, page by page.
fn listed(client: &mut Client, query: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/approvals?limit=2&{query}{cursor}")).expect(200).json();
        found.extend(page["approvals"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// The same, once there are so many: they are written down soon after what they follow from.
fn listed_soon(client: &mut Client, query: &str, count: usize) -> Vec<Value> {
    for _ in 0..100_000 {
        let found = listed(client, query);
        if found.len() == count {
            return found;
        }
        assert!(found.len() < count, "{found:?}");
    }
    panic!("there are never {count} of {query}");
}

// F013, F037, F319, F322, RELIABILITY 2.6
#[test]
fn reviews_that_are_over_are_listed_by_their_end_after_restarts_and_not_after_erasure() {
    let directory = tempfile::tempdir().unwrap();
    let options = history::options(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &ask(&json!({"reviewers": ["ops", "lead"], "timeout": "1h"}))).expect(201);
    let mut yes = Vec::new();
    for _ in 0..5 {
        let (run, ticket) = start(&mut client);
        let body = json!({"decision": "approve", "reviewer": "ops", "reason": "fine"});
        decide(&mut client, &ticket, &body).expect(200);
        ended(&mut client, &run);
        yes.push((run, ticket));
    }
    let (_, no) = start(&mut client);
    decide(&mut client, &no, &json!({"decision": "reject", "reviewer": "lead"})).expect(200);
    let soon = json!({"reviewers": ["ops"], "timeout": "1ms", "on_timeout": "reject"});
    client.post("/v1/workflows", &ask(&soon)).expect(201);
    client.post("/v1/runs", &json!({"workflow": "ask"})).expect(202);
    let approved = listed_soon(&mut client, "state=approved", 5);
    // Newest first; two that ended in one millisecond come in either order.
    assert!(approved.is_sorted_by(|newer, older| newer["ended_at"].as_str() >= older["ended_at"].as_str()));
    let tickets = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let found = tickets(approved.iter().map(|row| row["ticket"].as_str().unwrap()).collect());
    assert_eq!(found, tickets(yes.iter().map(|(_, ticket)| ticket.as_str()).collect()));
    let row = &approved[0];
    assert_eq!(
        [&row["status"], &row["decided_by"], &row["reason"], &row["node"], &row["workflow"]],
        [&json!("approved"), &json!("ops"), &json!("fine"), &json!("review"), &json!("ask")]
    );
    assert!(row["ended_at"].as_str() >= row["created_at"].as_str(), "{row}");
    assert_eq!(listed_soon(&mut client, "state=rejected", 1)[0]["ticket"], json!(no));
    assert_eq!(listed_soon(&mut client, "state=expired", 1)[0]["status"], "expired");
    for (query, count) in [
        ("state=pending", 0),
        ("state=approved&reviewer=lead", 5),
        ("state=approved&reviewer=eve", 0),
        ("state=approved&workflow=other", 0),
    ] {
        assert_eq!(listed(&mut client, query).len(), count, "{query}");
    }
    let (code, table) = aob(&node, &["approvals", "list", "--state", "approved"]);
    assert!(code == Some(0) && table.contains(&yes[0].1) && table.contains("fine"), "{table}");

    // Written down again from the journal, once; then from where history lies.
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(listed(&mut client, "state=approved"), approved);
    history::register(&mut client, "filler", None);
    history::fill(&mut client, directory.path(), "filler");
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(listed(&mut client, "state=approved"), approved);
    let past = client.get(&format!("/v1/approvals/{}", yes[2].1)).expect(200).json();
    assert_eq!(
        [&past["status"], &past["decision"]["reviewer"], &past["decision"]["reason"]],
        [&json!("approved"), &json!("ops"), &json!("fine")]
    );
    assert_eq!(past["decision"]["decided_at"], approved[2]["ended_at"]);

    client.request("DELETE", &format!("/v1/runs/{}", yes[2].0), &[], b"").unwrap().expect(204);
    let left = listed(&mut client, "state=approved");
    assert!(left.len() == 4 && left.iter().all(|row| row["ticket"] != json!(yes[2].1)), "{left:?}");
    node.kill();
    let node = Node::start(&options);
    assert_eq!(listed(&mut node.client(), "state=approved"), left, "it does not come back");
}

fn aob(node: &Node, arguments: &[&str]) -> (Option<i32>, String) {
    let address = format!("http://{}", node.address);
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
        .args(["--url", &address])
        .args(arguments)
        .output()
        .unwrap();
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

// F323
#[test]
fn a_run_that_does_not_go_on_says_why_what_is_needed_and_since_when() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let document = json!({"name": "ask", "nodes": {
        "review": {"type": "human_review", "with": {"reviewers": ["ops"], "timeout": "1h"}},
        "hear": {"type": "wait", "with": {"signal": "go"}},
    }});
    client.post("/v1/workflows", &document).expect(201);
    let (run, ticket) = start(&mut client);
    client.post(&format!("/v1/runs/{run}/pause"), &json!({})).expect(202);
    let pauses = loop {
        let seen = client.get(&format!("/v1/runs/{run}")).expect(200).json();
        let pauses = seen["pauses"].as_array().cloned().unwrap_or_default();
        if pauses.len() == 3 {
            break pauses;
        }
    };
    let reasons: Vec<_> = pauses.iter().map(|pause| pause["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["review", "paused", "signal"]);
    let started = client.get(&format!("/v1/runs/{run}/timeline")).expect(200).json();
    let rows = started["events"].as_array().unwrap();
    for (pause, (kind, node)) in pauses.iter().zip([
        ("node.waiting", json!("review")),
        ("run.paused", Value::Null),
        ("node.waiting", json!("hear")),
    ]) {
        let cause = rows.iter().find(|row| row["type"] == kind && row["node"] == node).unwrap();
        assert_eq!((&pause["since"], &pause["node"]), (&cause["at"], &node), "{pause}");
        for told in ["why", "needed"] {
            assert!(!pause[told].as_str().unwrap().is_empty(), "{pause}");
        }
        assert!(pause.get("due_at").is_some(), "{pause}");
    }
    assert_eq!(pauses[0]["ticket"], json!(ticket));
    assert!(pauses[0]["needed"].as_str().unwrap().contains("ops"));
    assert!(pauses[2]["needed"].as_str().unwrap().contains("go"));
    let (_, shown) = aob(&node, &["run", "get", &run]);
    assert!(shown.contains(&ticket) && shown.contains("somebody paused the run"), "{shown}");
}

// F325
#[test]
fn a_decision_without_a_reason_is_refused_where_one_is_required() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &ask(&json!({"reviewers": ["ops"], "reason": "required"}))).expect(201);
    let (_, ticket) = start(&mut client);
    let shown = client.get(&format!("/v1/approvals/{ticket}")).expect(200).json();
    assert_eq!(shown["reason_required"], true);
    for reason in [json!(null), json!(""), json!(" ")] {
        let body = json!({"decision": "reject", "reviewer": "ops", "reason": reason});
        let refused = decide(&mut client, &ticket, &body).expect(422).json();
        assert_eq!(
            (&refused["code"], &refused["errors"][0]["pointer"]),
            (&json!("reason_required"), &json!("/reason"))
        );
    }
    decide(&mut client, &ticket, &json!({"decision": "reject", "reviewer": "ops", "reason": "no"}))
        .expect(200);
}
