//! Reviews that humans decide: a run pauses at its gate, survives kill -9, and goes on as was decided.

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options};

/// A gate, and one node behind each way out of it.
fn gate(with: &Value) -> Value {
    json!({
        "name": "gate",
        "nodes": {
            "draft": {"type": "function", "with": {"expr": "{'amount': inputs.amount}"}},
            "review": {"type": "human_review", "with": with},
            "done": {"type": "function", "with": {"expr": "nodes.review.output"}},
            "undone": {"type": "function", "with": {"expr": "nodes.review.output"}},
            "late": {"type": "function", "with": {"expr": "nodes.review.output"}},
        },
        "edges": [
            {"from": "draft", "to": "review"},
            {"from": "review", "to": "done", "on": "approved"},
            {"from": "review", "to": "undone", "on": "rejected"},
            {"from": "review", "to": "late", "on": "timeout"},
        ],
    })
}

fn start(client: &mut Client) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": "gate", "inputs": {"amount": 7}})).expect(202);
    run.json()["run_id"].as_str().unwrap().to_owned()
}

/// The run's review, once it waits.
fn ticket(client: &mut Client, run: &str) -> String {
    for _ in 0..100_000 {
        let run = client.get(&format!("/v1/runs/{run}")).expect(200).json();
        if let Some(ticket) = run["approvals"][0]["ticket"].as_str() {
            return ticket.to_owned();
        }
    }
    panic!("nobody is asked");
}

fn decide(client: &mut Client, ticket: &str, body: &Value) -> Response {
    client.post(&format!("/v1/approvals/{ticket}/decision"), body)
}

fn ended(client: &mut Client, run: &str) -> Value {
    let answer = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=60")], b"").unwrap();
    answer.expect(200).json()
}

fn states(client: &mut Client, run: &str) -> [String; 3] {
    let graph = client.get(&format!("/v1/runs/{run}/graph")).expect(200).json();
    ["done", "undone", "late"].map(|node| graph["nodes"][node]["state"].as_str().unwrap().to_owned())
}

fn code(answer: &Response) -> String {
    answer.json()["code"].as_str().unwrap_or_default().to_owned()
}

// F013, F037, F039, F313, F314, F316, F318, F322, F323, F325, F326, RELIABILITY I-11
#[test]
fn a_gate_survives_kill_9_and_is_decided_once_by_those_who_were_asked() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let with = json!({"reviewers": ["ops", "lead"], "data": "${ input }", "timeout": "60m"});
    client.post("/v1/workflows", &gate(&with)).expect(201);
    let (yes, no) = (start(&mut client), start(&mut client));
    let tickets = [ticket(&mut client, &yes), ticket(&mut client, &no)];
    let before = client.get(&format!("/v1/approvals/{}", tickets[0])).expect(200).json();
    node.kill();

    let node = Node::start(&options);
    let mut client = node.client();
    let [first, second] = tickets;
    let shown = client.get(&format!("/v1/approvals/{first}")).expect(200).json();
    assert_eq!(shown, before, "nothing of it is lost");
    for (member, wanted) in [
        ("review_id", json!(format!("review_{yes}_review"))),
        ("execution_id", json!(yes)),
        ("step_id", json!("review")),
        ("run_id", json!(yes)),
        ("node", json!("review")),
        ("workflow", json!("gate")),
        ("data", json!({"amount": 7})),
        ("reviewers", json!(["ops", "lead"])),
        ("status", json!("pending")),
    ] {
        assert_eq!(shown[member], wanted, "{member}");
    }
    assert!(shown["timeout_at"].as_str() > shown["created_at"].as_str(), "{shown}");
    // The run says what it waits for.
    let waits = client.get(&format!("/v1/runs/{yes}")).expect(200).json()["approvals"][0].clone();
    assert_eq!((&waits["ticket"], &waits["node"]), (&json!(first), &json!("review")));
    assert_eq!((&waits["reviewers"], &waits["timeout_at"]), (&shown["reviewers"], &shown["timeout_at"]));

    // Those who were not asked do not decide, nor does a decision about something else.
    let approve =
        json!({"decision": "approve", "reviewer": "ops", "reason": "fine", "digest": shown["digest"]});
    let mallory = json!({"decision": "approve", "reviewer": "mallory"});
    assert_eq!(code(&decide(&mut client, &first, &mallory).expect(403)), "not_a_reviewer");
    let other = json!({"approved": true, "reviewer": "ops", "digest": format!("sha256:{}", "0".repeat(64))});
    assert_eq!(code(&decide(&mut client, &first, &other).expect(409)), "stale_digest");
    assert_eq!(states(&mut client, &yes), ["pending", "pending", "pending"]);
    let settled = decide(&mut client, &first, &approve).expect(200).json();
    assert_eq!((&settled["status"], &settled["node"]), (&json!("approved"), &json!("review")));
    let run = ended(&mut client, &yes);
    assert_eq!(run["status"], "completed", "{run}");
    let output = json!({"approved": true, "reviewer": "ops", "feedback": "fine", "form": null});
    assert_eq!(run["outputs"]["done"], output, "{run}");
    assert_eq!(states(&mut client, &yes), ["completed", "skipped", "skipped"]);
    // The same again is the same; another one names the first.
    let again = decide(&mut client, &first, &approve).expect(200);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.json()["decision"]["reason"], "fine");
    let turned = json!({"decision": "reject", "reviewer": "lead"});
    let refused = decide(&mut client, &first, &turned).expect(409).json();
    assert_eq!(refused["code"], "already_decided");
    assert!(refused["detail"].as_str().unwrap().contains("ops"), "{refused}");
    let past = client.get(&format!("/v1/approvals/{first}")).expect(200).json();
    assert_eq!((&past["status"], &past["decision"]["reviewer"]), (&json!("approved"), &json!("ops")));
    assert_eq!((&past["digest"], &past["data"]), (&shown["digest"], &shown["data"]));

    // The other by its run and node; rejected, while the run is paused.
    client.post(&format!("/v1/runs/{no}/pause"), &json!({})).expect(202);
    decide(&mut client, &format!("review_{no}_review"), &turned).expect(200);
    assert_eq!(states(&mut client, &no)[1], "ready", "a paused run starts nothing");
    let resumed = client.post(&format!("/v1/runs/{no}/resume"), &json!({}));
    assert!(matches!(resumed.status, 200 | 202), "it may have ended by then");
    let run = ended(&mut client, &no);
    assert_eq!(run["outputs"]["undone"]["approved"], false, "{run}");
    assert_eq!(states(&mut client, &no), ["skipped", "completed", "skipped"]);
    assert_eq!(code(&decide(&mut client, &second, &approve).expect(409)), "already_decided");
    let rows = client.get(&format!("/v1/runs/{no}/timeline")).expect(200).json();
    let decided = rows["events"].as_array().unwrap().iter().find(|row| row["type"] == "approval.decided");
    assert_eq!(decided.unwrap()["reviewer"], "lead");
}

// F038, F315
#[test]
fn a_review_that_nobody_decides_asks_others_and_then_expires() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let with = json!({"reviewers": ["ops"], "timeout": "2s", "on_timeout": "reject",
        "escalate": [{"after": "500ms", "to": ["boss"]}]});
    client.post("/v1/workflows", &gate(&with)).expect(201);
    let run = start(&mut client);
    let ticket = ticket(&mut client, &run);
    let boss = json!({"decision": "approve", "reviewer": "boss"});
    decide(&mut client, &ticket, &boss).expect(403);
    let end = ended(&mut client, &run);
    assert_eq!(end["outputs"]["undone"]["approved"], false, "{end}");
    assert_eq!(states(&mut client, &run), ["skipped", "completed", "completed"]);
    assert_eq!(code(&decide(&mut client, &ticket, &boss).expect(409)), "approval_expired");
    let past = client.get(&format!("/v1/approvals/{ticket}")).expect(200).json();
    assert_eq!((&past["status"], &past["reviewers"]), (&json!("expired"), &json!(["ops", "boss"])));

    let run = start(&mut client);
    let ticket = self::ticket(&mut client, &run);
    client.post(&format!("/v1/runs/{run}/terminate"), &json!({})).expect(200);
    assert_eq!(code(&decide(&mut client, &ticket, &boss).expect(403)), "not_a_reviewer");
    let ops = json!({"decision": "approve", "reviewer": "ops"});
    assert_eq!(code(&decide(&mut client, &ticket, &ops).expect(409)), "approval_cancelled");
    let other = format!("{}_2", ticket.rsplit_once('_').unwrap().0);
    for (path, wrong) in [("tkt_1", 400), (&*other, 404), ("review_x", 400)] {
        assert_eq!(client.get(&format!("/v1/approvals/{path}")).status, wrong, "{path}");
    }
}

// F319
#[test]
fn what_waits_is_listed_by_reviewer_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    let asks = |who: &str| {
        json!({"name": format!("of-{who}"), "nodes": {"ask": {"type": "human_review", "timeout": "1h",
        "with": {"reviewers": [who]}}}})
    };
    for who in ["ada", "bob"] {
        client.post("/v1/workflows", &asks(who)).expect(201);
        for _ in 0..3 {
            client.post("/v1/runs", &json!({"workflow": format!("of-{who}")})).expect(202);
        }
    }
    let all = |client: &mut Client, query: &str| -> Vec<String> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = client.get(&format!("/v1/approvals?limit=2{query}{cursor}")).expect(200).json();
            let rows = page["approvals"].as_array().unwrap();
            found.extend(rows.iter().map(|row| row["ticket"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    };
    let before = all(&mut client, "");
    assert_eq!(before.len(), 6, "{before:?}");
    let of_ada = all(&mut client, "&reviewer=ada");
    assert_eq!(of_ada.len(), 3);
    assert_eq!(all(&mut client, "&workflow=of-ada&state=pending"), of_ada);
    assert_eq!(all(&mut client, "&reviewer=eve"), [""; 0]);
    client.get("/v1/approvals?state=decided").expect(400);
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    assert_eq!(all(&mut client, ""), before);
    decide(&mut client, &of_ada[1], &json!({"approved": true, "reviewer": "ada"})).expect(200);
    assert_eq!(all(&mut client, "&reviewer=ada"), [of_ada[0].clone(), of_ada[2].clone()]);
}

// F313
#[test]
fn a_form_is_filled_in_as_its_schema_says() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let form = json!({"type": "object", "required": ["score"],
        "properties": {"score": {"type": "integer", "maximum": 5}}});
    client.post("/v1/workflows", &gate(&json!({"timeout": "1h", "form": form}))).expect(201);
    let run = start(&mut client);
    let ticket = ticket(&mut client, &run);
    let shown = client.get(&format!("/v1/approvals/{ticket}")).expect(200).json();
    assert_eq!((&shown["form"], &shown["reviewers"]), (&form, &json!([])));
    let filled = |form: Value| json!({"decision": "approve", "reviewer": "anyone", "form": form});
    let refused = decide(&mut client, &ticket, &filled(json!({"score": 9}))).expect(422).json();
    assert_eq!(
        (&refused["code"], &refused["errors"][0]["pointer"]),
        (&json!("invalid_form"), &json!("/form/score"))
    );
    decide(&mut client, &ticket, &json!({"decision": "approve", "reviewer": "anyone"})).expect(422);
    decide(&mut client, &ticket, &json!({"decision": "approve"})).expect(422);
    decide(&mut client, &ticket, &filled(json!({"score": 3}))).expect(200);
    assert_eq!(ended(&mut client, &run)["outputs"]["done"]["form"], json!({"score": 3}));
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

// F013, F325
#[test]
fn a_review_is_listed_shown_and_decided_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &gate(&json!({"reviewers": ["ops"], "timeout": "1h"}))).expect(201);
    let run = start(&mut client);
    let ticket = ticket(&mut client, &run);
    let (code, listed) = aob(&node, &["approvals", "list", "--reviewer", "ops"]);
    assert!(code == Some(0) && listed.contains(&ticket), "{listed}");
    let (code, shown) = aob(&node, &["approvals", "show", &ticket, "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["status"]), (Some(0), &json!("pending")));
    let digest = shown["digest"].as_str().unwrap();
    let approve = [
        "approve",
        &ticket,
        "approve",
        "--reason",
        "fine",
        "--as",
        "ops",
        "--digest",
        digest,
        "--form",
        "{\"n\":1}",
    ];
    assert_eq!(aob(&node, &["approve", &ticket, "reject", "--as", "eve"]).0, Some(4));
    let (code, settled) = aob(&node, &approve);
    assert!(code == Some(0) && settled.contains("approved"), "{settled}");
    assert_eq!(aob(&node, &["approve", &ticket, "reject", "--as", "ops"]).0, Some(5));
    assert_eq!(ended(&mut client, &run)["outputs"]["done"]["form"], json!({"n": 1}));
    let decided = aob(&node, &["approvals", "show", &ticket]).1;
    assert!(decided.contains("fine"), "{decided}");
}
