//! The page of a review in a real browser, headless, with scripts switched off and on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test takes apart what it built, and fails loudly"
)]

mod devtools;
#[path = "../harness/mod.rs"]
mod harness;
mod page;

use devtools::Browser;
use harness::{AOBD, Client, Node, Options};
use serde_json::{Value, json};

/// Everything that a page could trip over.
const HOSTILE: &str = "</pre></main><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\u{202e}txt.exe";

fn register(client: &mut Client, with: &Value) {
    let document = json!({"name": "ask", "outputs": {"answer": "${ nodes.review.output }"},
        "nodes": {"review": {"type": "human_review", "with": with}}});
    client.post("/v1/workflows", &document).expect(201);
}

fn form() -> Value {
    json!({"type": "object", "required": ["name", "score", "sure"], "properties": {
        "name": {"type": "string", "description": "<b>who</b> are you?"},
        "score": {"type": "integer", "maximum": 5},
        "share": {"type": "number"},
        "sure": {"type": "boolean"},
        "colour": {"enum": ["red", "green", "<blue>"]},
        "more": {"type": "object"},
    }})
}

/// A run of `ask`, and its ticket.
fn start(client: &mut Client, inputs: &Value) -> (String, String) {
    let run = client.post("/v1/runs", &json!({"workflow": "ask", "inputs": inputs})).expect(202).json();
    let run = run["run_id"].as_str().unwrap().to_owned();
    loop {
        let seen = client.get(&format!("/v1/runs/{run}")).expect(200).json();
        if let Some(ticket) = seen["approvals"][0]["ticket"].as_str() {
            return (run, ticket.to_owned());
        }
    }
}

fn answer(client: &mut Client, run: &str) -> Value {
    let ended = client.request("GET", &format!("/v1/runs/{run}"), &[("prefer", "wait=60")], b"").unwrap();
    ended.expect(200).json()["outputs"]["answer"].clone()
}

// F320, F426, F325
#[test]
fn a_human_decides_in_a_browser_without_scripts() {
    let Some(binary) = devtools::binary() else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let data =
        json!({"reviewers": ["ops"], "data": "${ inputs.text }", "form": form(), "reason": "required"});
    register(&mut client, &data);
    let (run, ticket) = start(&mut client, &json!({"text": HOSTILE}));
    let page = format!("http://{}/reviews/{ticket}", node.address);
    let mut browser = Browser::start(&binary, false);
    browser.open(&page);
    assert_eq!((browser.status(), browser.complaints()), (200, Vec::new()), "its own style is let through");
    assert_eq!(
        [browser.count("script"), browser.count("img"), browser.count("b")],
        [0; 3],
        "nothing of it is markup"
    );
    let html = browser.html();
    assert!(html.contains("&lt;script&gt;") && html.contains("\\u{202e}") && !html.contains('\u{202e}'));

    browser.fill("[name=reviewer]", "ops");
    browser.fill("[name='field.name']", "Ada & <Co>");
    browser.fill("[name='field.score']", "9");
    browser.choose("[name='field.sure']", "y");
    browser.choose("[name='field.colour']", "<");
    browser.fill("[name='field.more']", "{\"x\": [1]}");
    browser.fill("[name=reason]", "good");
    browser.press("button[value=approve]");
    assert_eq!(browser.status(), 422, "{}", browser.html());
    assert!(browser.html().contains("/form/score"));

    browser.open(&page);
    browser.fill("[name=reviewer]", "ops");
    browser.fill("[name='field.name']", "Ada & <Co>");
    browser.fill("[name='field.score']", "4");
    browser.fill("[name='field.share']", "0.5");
    browser.choose("[name='field.sure']", "y");
    browser.choose("[name='field.colour']", "<");
    browser.fill("[name='field.more']", "{\"x\": [1]}");
    browser.fill("[name=reason]", "good");
    browser.press("button[value=approve]");
    assert_eq!(browser.status(), 200, "{}", browser.html());
    assert!(browser.html().contains("<h1>Approved</h1>"), "{}", browser.html());
    let wanted = json!({"approved": true, "reviewer": "ops", "feedback": "good", "form": {
        "name": "Ada & <Co>", "score": 4, "share": 0.5, "sure": true, "colour": "<blue>", "more": {"x": [1]}}});
    assert_eq!(answer(&mut client, &run), wanted);
    browser.open(&page);
    assert!(browser.html().contains("Approved by ops") && browser.count("form") == 0);
    browser.open(&format!("http://{}/reviews/tkt_nothing", node.address));
    assert_eq!(browser.status(), 404);
    assert!(browser.html().contains("There is no such review"));
}

// F320, RELIABILITY 2.6 (a decision names the digest of what was shown)
#[test]
fn a_stale_page_and_one_that_came_too_late_are_told_so() {
    let Some(binary) = devtools::binary() else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client, &json!({"reviewers": ["ops", "lead"], "data": "${ inputs.n }"}));
    // With scripts: whatever is in the data, none runs.
    let mut browser = Browser::start(&binary, true);
    let (_, ticket) = start(&mut client, &json!({"n": HOSTILE}));
    let page = format!("http://{}/reviews/{ticket}", node.address);
    browser.open(&page);
    assert!(browser.html().contains("<title>A decision is needed: review</title>"));
    // The page that is open is of another review by the time it is sent.
    let node_id = browser.call("DOM.getDocument", json!({"depth": 0}))["root"]["nodeId"].clone();
    let digest = browser.call("DOM.querySelector", json!({"nodeId": node_id, "selector": "[name=digest]"}));
    let stale = format!("sha256:{}", "0".repeat(64));
    let changed = json!({"nodeId": digest["nodeId"], "name": "value", "value": stale});
    browser.call("DOM.setAttributeValue", changed);
    browser.fill("[name=reviewer]", "ops");
    browser.press("button[value=approve]");
    assert_eq!(browser.status(), 409);
    assert!(browser.html().contains("changed since you looked"), "{}", browser.html());
    browser.press("a");
    browser.fill("[name=reviewer]", "ops");
    let decision = json!({"decision": "reject", "reviewer": "lead", "reason": HOSTILE});
    client.post(&format!("/v1/approvals/{ticket}/decision"), &decision).expect(200);
    browser.press("button[value=approve]");
    assert_eq!(browser.status(), 409);
    let html = browser.html();
    assert!(html.contains("decided already") && html.contains("lead"), "{html}");
    browser.press("a");
    assert!(browser.html().contains("Rejected by lead") && browser.count("script") == 0);
    // Rejecting needs nothing to be filled in.
    register(&mut client, &json!({"reviewers": ["ops"], "form": form()}));
    let (run, ticket) = start(&mut client, &json!({}));
    browser.open(&format!("http://{}/reviews/{ticket}", node.address));
    browser.fill("[name=reviewer]", "ops");
    browser.press("button[value=reject]");
    assert!(browser.html().contains("<h1>Rejected</h1>"), "{}", browser.html());
    assert_eq!(answer(&mut client, &run)["approved"], false);
}

// F317, F326, F416
#[test]
fn a_signed_link_is_enough_and_nothing_else_is() {
    let Some(binary) = devtools::binary() else { return };
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens.toml");
    let made = std::process::Command::new(AOBD)
        .args(["token", "new", "--name", "root", "--workspace", "default", "--role", "admin"])
        .args(["--set", &format!("auth.tokens_file={}", tokens.display())])
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let hook = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = Options::serve(&directory.path().join("data"))
        .set("auth.tokens_file", tokens.to_str().unwrap())
        .set("http.allow", "127.0.0.1");
    let node = Node::start(&options);
    let bearer = format!("Bearer {token}");
    let mut client = node.client();
    let mut post = |path: &str, body: &Value| {
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        client.request("POST", path, &headers, body.to_string().as_bytes()).unwrap()
    };
    let document = json!({"name": "ask", "nodes": {"review": {"type": "human_review",
        "with": {"reviewers": ["ops", "lead"], "data": 1, "timeout": "1h"}}}});
    post("/v1/workflows", &document).expect(201);
    let url = format!("http://{}/", hook.local_addr().unwrap());
    post("/v1/webhooks", &json!({"url": url})).expect(201);
    post("/v1/runs", &json!({"workflow": "ask"})).expect(202);
    let event = told(&hook);
    let data = &event["data"];
    let ticket = data["ticket"].as_str().unwrap().to_owned();
    let links = &data["review_urls"];
    let mut stranger = node.client();
    let path = format!("/reviews/{ticket}");
    stranger.get(&path).expect(401);
    stranger.get(&format!("{path}?key=nothing")).expect(401);
    stranger.get(&format!("/v1/approvals/{ticket}")).expect(401);
    let ops = links["ops"].as_str().unwrap().to_owned();
    let own = ops.strip_prefix(&format!("http://{}", node.address)).unwrap().to_owned();
    let key = own.split_once("?key=").unwrap().1;
    stranger.get(&format!("/v1/approvals/{ticket}?key={key}")).expect(401);
    let shown = stranger.get(&own).expect(200);
    for (name, wanted) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(shown.header(name), Some(wanted), "{name}");
    }
    assert!(shown.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    // A form from another site, as another reviewer, without a key, or of the wrong kind.
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let body = b"decision=approve&digest=sha256:x";
    let from = ("origin", "https://evil.example");
    assert_eq!(stranger.request("POST", &own, &[kind, from], body).unwrap().status, 403);
    let site = ("sec-fetch-site", "cross-site");
    assert_eq!(stranger.request("POST", &own, &[kind, site], body).unwrap().status, 403);
    assert_eq!(stranger.request("POST", &path, &[kind], body).unwrap().status, 401);
    assert_eq!(stranger.request("POST", &own, &[("content-type", "text/plain")], body).unwrap().status, 415);
    let digest = format!("sha256:{}", "0".repeat(64));
    let forged = format!("decision=approve&digest={digest}&reviewer=lead");
    assert_eq!(stranger.request("POST", &own, &[kind], forged.as_bytes()).unwrap().status, 403);

    let mut browser = Browser::start(&binary, false);
    browser.open(&ops);
    assert!(browser.html().contains("You decide as") && browser.count("[name=reviewer]") == 0);
    browser.fill("[name=reason]", "by link");
    browser.press("button[value=approve]");
    assert!(browser.html().contains("<h1>Approved</h1>"), "{}", browser.html());
    browser.open(links["lead"].as_str().unwrap());
    assert!(browser.html().contains("Approved by ops"), "{}", browser.html());
}

/// The first thing that a webhook is told.
fn told(hook: &std::net::TcpListener) -> Value {
    use std::io::{BufRead, BufReader, Read, Write};
    let (mut stream, _) = hook.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 204 x\r\nconnection: close\r\n\r\n").unwrap();
    serde_json::from_slice(&body).unwrap()
}
