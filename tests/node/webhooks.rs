//! Webhooks: told of every review, signed, tried again, given up, and told again after kill -9.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Client, Node, Options, in_background};

/// What a webhook was told.
#[derive(Debug)]
struct Told {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    /// As Standard Webhooks has it checked.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.", self.id(), self.headers["webhook-timestamp"]).as_bytes());
        mac.update(&self.body);
        let wanted = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.headers["webhook-signature"] == wanted
    }
}

/// Somebody who is told, and answers as `answer` says; without a status it never does.
struct Listener {
    url: String,
    told: mpsc::Receiver<Told>,
}

impl Listener {
    fn new(answer: impl Fn(usize) -> Option<u16> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (tell, told) = mpsc::channel();
        in_background(move || {
            let (mut held, mut count) = (Vec::new(), 0);
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(one) = read(&stream) else { continue };
                if tell.send(one).is_err() {
                    return;
                }
                match answer(count) {
                    Some(status) => drop(write!(
                        &stream,
                        "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    )),
                    None => held.push(stream),
                }
                count += 1;
            }
        });
        Self { url, told }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(std::time::Duration::from_secs(60)).expect("somebody is told")
    }
}

fn read(stream: &TcpStream) -> Option<Told> {
    let mut reader = BufReader::new(stream);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|_| line.starts_with("POST /hook"))?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Told { headers, body })
}

fn options(directory: &std::path::Path) -> Options {
    Options::serve(directory).set("http.allow", "127.0.0.1").set("reviews.webhook_pause_ms", "1")
}

fn register(client: &mut Client, reviewers: &Value) {
    let document = json!({"name": "ask", "nodes": {
        "review": {"type": "human_review", "with": {"reviewers": reviewers, "timeout": "1h"}}}});
    client.post("/v1/workflows", &document).expect(201);
}

/// A run of `ask`, and its ticket.
fn start(client: &mut Client) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": "ask"})).expect(202).json();
    let run = run["run_id"].as_str().unwrap().to_owned();
    loop {
        let seen = client.get(&format!("/v1/runs/{run}")).expect(200).json();
        if let Some(ticket) = seen["approvals"][0]["ticket"].as_str() {
            return ticket.to_owned();
        }
    }
}

fn approve(client: &mut Client, ticket: &str) {
    let body = json!({"decision": "approve", "reviewer": "ops", "reason": "fine"});
    client.post(&format!("/v1/approvals/{ticket}/decision"), &body).expect(200);
}

fn deliveries(client: &mut Client, webhook: &str, query: &str) -> Vec<Value> {
    let listed = client.get(&format!("/v1/webhooks/{webhook}/deliveries{query}")).expect(200).json();
    listed["deliveries"].as_array().unwrap().clone()
}

// F317, F313
#[test]
fn a_webhook_is_told_signed_and_its_link_opens_the_review() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    register(&mut client, &json!(["ops", "lead"]));
    let (all, of_ops) = (Listener::new(|_| Some(204)), Listener::new(|_| Some(200)));
    let made = client.post("/v1/webhooks", &json!({"url": all.url})).expect(201).json();
    let (id, secret) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let body = json!({"url": of_ops.url, "events": ["approval.requested"], "reviewer": "ops"});
    let other = client.post("/v1/webhooks", &body).expect(201).json();
    let shown = client.get(&format!("/v1/webhooks/{id}")).expect(200).json();
    assert_eq!((&shown["url"], shown.get("secret")), (&json!(all.url), None), "{shown}");
    let ticket = start(&mut client);
    let told = all.next();
    assert!(told.is_signed_with(secret) && !told.is_signed_with(other["secret"].as_str().unwrap()));
    assert_eq!(told.headers["content-type"], "application/cloudevents+json");
    let event = told.json();
    let run = format!("run_{}", &ticket[4..36]);
    for (member, wanted) in [
        ("specversion", json!("1.0")),
        ("type", json!("aob.approval.requested.v1")),
        ("source", json!(format!("/workspaces/default/runs/{run}"))),
        ("subject", json!(ticket)),
    ] {
        assert_eq!(event[member], wanted, "{member}");
    }
    let data = &event["data"];
    assert_eq!(
        [&data["node"], &data["run_id"], &data["reviewers"], &data["status"]],
        [&json!("review"), &json!(run), &json!(["ops", "lead"]), &json!("pending")]
    );
    assert!(data["title"].as_str().unwrap().contains("review") && data["due_at"].is_string(), "{data}");
    let lead = data["review_urls"]["lead"].as_str().unwrap();
    let link = of_ops.next().json()["data"]["review_url"].as_str().unwrap().to_owned();
    let path = |link: &str| link.strip_prefix(&format!("http://{}", node.address)).unwrap().to_owned();
    let page = String::from_utf8(client.get(&path(&link)).expect(200).body).unwrap();
    assert!(page.contains("You decide as <strong><bdi>ops"), "{page}");
    let page = String::from_utf8(client.get(&path(lead)).expect(200).body).unwrap();
    assert!(page.contains("You decide as <strong><bdi>lead"), "{page}");
    approve(&mut client, &ticket);
    let decided = all.next();
    assert_ne!(decided.id(), told.id());
    let decision = &decided.json()["data"]["decision"];
    assert_eq!(decision, &json!({"approved": true, "reviewer": "ops", "reason": "fine"}));
    // What arrived is not kept.
    while !deliveries(&mut client, id, "").is_empty() {}
    assert_eq!(client.get(&format!("/v1/webhooks/{id}")).expect(200).json()["delivered"], 2);

    // Of another workspace it does not exist; and once it is gone, nobody is told.
    let elsewhere =
        client.request("GET", &format!("/v1/webhooks/{id}"), &[("aob-workspace", "acme")], b"").unwrap();
    elsewhere.expect(404);
    client.request("DELETE", &format!("/v1/webhooks/{id}"), &[], b"").unwrap().expect(204);
    client.request("DELETE", &format!("/v1/webhooks/{id}"), &[], b"").unwrap().expect(404);
    let ticket = start(&mut client);
    assert_eq!(of_ops.next().json()["subject"], json!(ticket));
    assert!(all.told.try_recv().is_err());
    for (body, status) in [
        (json!({"url": "ftp://x"}), 422),
        (json!({"url": "nothing"}), 422),
        (json!({}), 400),
        (json!({"url": "http://x", "events": ["run.started"]}), 422),
        (json!({"url": format!("http://x/{}", "a".repeat(3000))}), 422),
    ] {
        client.post("/v1/webhooks", &body).expect(status);
    }
}

// F317, RELIABILITY 2.5
#[test]
fn what_does_not_arrive_is_tried_again_under_one_id_given_up_and_redriven() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()).set("reviews.webhook_attempts_max", "3"));
    let mut client = node.client();
    register(&mut client, &json!(["ops"]));
    let listener = Listener::new(|count| Some(if count < 4 { 500 } else { 200 }));
    let made = client.post("/v1/webhooks", &json!({"url": listener.url})).expect(201).json();
    let id = made["id"].as_str().unwrap();
    let ticket = start(&mut client);
    let first = listener.next();
    for _ in 0..2 {
        let again = listener.next();
        assert_eq!((again.id(), again.json()["subject"].as_str()), (first.id(), Some(&*ticket)));
        assert!(again.is_signed_with(made["secret"].as_str().unwrap()));
    }
    let dead = loop {
        if let Some(dead) = deliveries(&mut client, id, "?status=dead").pop() {
            break dead;
        }
    };
    assert_eq!(
        (&dead["id"], &dead["attempts"], &dead["status"]),
        (&json!(first.id()), &json!(3), &json!("dead"))
    );
    assert!(dead["error"].as_str().unwrap().contains("500"), "{dead}");
    let aob = |arguments: &[&str]| {
        let url = format!("http://{}", node.address);
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
            .args(["--url", &url, "webhook"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    assert!(aob(&["deliveries", id, "--dead"]).contains(first.id()));
    assert!(aob(&["redrive", id]).contains('1'));
    assert_eq!([listener.next().id(), listener.next().id()], [first.id(), first.id()], "500, then 200");
    while !deliveries(&mut client, id, "").is_empty() {}
    assert!(aob(&["list"]).contains(id));
    let added = aob(&["add", &listener.url, "--event", "approval.decided", "-o", "json"]);
    let added: Value = serde_json::from_str(&added).unwrap();
    assert_eq!(added["events"], json!(["approval.decided"]));
    assert!(aob(&["remove", added["id"].as_str().unwrap()]).contains("removed"));
}

// F317: what is found due while it is under way, and arrives before that is looked at, is not sent again.
#[test]
fn what_arrives_at_once_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    register(&mut client, &json!(["ops"]));
    let listeners: Vec<_> = (0..4).map(|_| Listener::new(|_| Some(204))).collect();
    for listener in &listeners {
        client.post("/v1/webhooks", &json!({"url": listener.url})).expect(201);
    }
    let tickets: Vec<_> = (0..150).map(|_| start(&mut client)).collect();
    for listener in &listeners {
        let mut left: BTreeSet<_> = tickets.iter().cloned().collect();
        while !left.is_empty() {
            let told = listener.next();
            let subject = told.json()["subject"].as_str().unwrap().to_owned();
            assert!(left.remove(&subject), "{} of {subject} came twice", told.id());
        }
    }
}

// RELIABILITY B11: calls of the node's own go through the same door.
#[test]
fn a_webhook_reaches_no_closed_address() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("reviews.webhook_attempts_max", "1"));
    let mut client = node.client();
    register(&mut client, &json!(["ops"]));
    let listener = Listener::new(|_| Some(200));
    let made = client.post("/v1/webhooks", &json!({"url": listener.url})).expect(201).json();
    start(&mut client);
    let dead = loop {
        if let Some(dead) = deliveries(&mut client, made["id"].as_str().unwrap(), "?status=dead").pop() {
            break dead;
        }
    };
    assert!(dead["error"].as_str().unwrap().contains("address_refused"), "{dead}");
    assert!(listener.told.try_recv().is_err());
}

// RELIABILITY 2.5, B11: nothing that was to be told is lost by kill -9, and what is told twice has one id.
#[test]
fn after_kill_9_everything_is_told_under_the_same_ids() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let mut node = Node::start(&options);
    let mut client = node.client();
    register(&mut client, &json!(["ops"]));
    // It hears every first delivery of a life of the node, and never answers.
    let listener = Listener::new(|count| (count % 3 != 0).then_some(200));
    let made = client.post("/v1/webhooks", &json!({"url": listener.url})).expect(201).json();
    let (mut tickets, mut heard) = (Vec::new(), BTreeMap::<(String, String), BTreeSet<String>>::new());
    let mut note = |told: Told| {
        assert!(told.is_signed_with(made["secret"].as_str().unwrap()), "the secret outlives the node");
        let event = told.json();
        let of = (event["subject"].as_str().unwrap().to_owned(), event["type"].as_str().unwrap().to_owned());
        heard.entry(of).or_default().insert(told.id().to_owned());
        heard.len()
    };
    for round in 0..6 {
        let ticket = start(&mut client);
        if round % 2 == 0 {
            approve(&mut client, &ticket);
        }
        tickets.push((ticket, round % 2 == 0));
        if round % 3 == 0 {
            note(listener.next());
        }
        node.kill();
        node = Node::start(&options);
        client = node.client();
    }
    let wanted = tickets.len() + tickets.iter().filter(|(_, decided)| *decided).count();
    while note(listener.next()) < wanted {}
    let ids: BTreeSet<&String> = heard.values().flatten().collect();
    assert_eq!(ids.len(), wanted, "one id each: {heard:?}");
    for (ticket, decided) in tickets {
        assert!(heard.contains_key(&(ticket.clone(), "aob.approval.requested.v1".into())), "{ticket}");
        assert_eq!(heard.contains_key(&(ticket, "aob.approval.decided.v1".into())), decided);
    }
}
