//! Failure that is handled: services that are left alone while they fail, tried out and used again; tool outages as the
//! playbook of seed 002 has them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::agents;
use crate::harness::{Client, Node, Options, in_background};

/// A service that answers every request with one status, and counts them. With status 0 it hangs up instead.
#[derive(Clone)]
pub struct Service {
    pub address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Service {
    pub fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let service = Self { address, status: Arc::new(AtomicU16::new(status)), asked: Arc::default() };
        let own = service.clone();
        in_background(move || {
            for stream in listener.incoming() {
                let (stream, own) = (stream.unwrap(), own.clone());
                in_background(move || own.connection(stream));
            }
        });
        service
    }

    /// From now on it answers with this.
    pub fn becomes(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn connection(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            self.asked.fetch_add(1, Ordering::Relaxed);
            let status = self.status.load(Ordering::Relaxed);
            if status == 0 {
                return;
            }
            let answer = "{\"open\":true}";
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            );
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Starts a run and waits for its end.
pub fn run(client: &mut Client, headers: &[(&str, &str)], workflow: &str) -> Value {
    let body = json!({"workflow": workflow});
    let started = client.post_with("/v1/runs", headers, &body).unwrap().expect(202).json();
    let path = format!("/v1/runs/{}", started["run_id"].as_str().unwrap());
    let headers = [headers, &[("prefer", "wait=60")]].concat();
    client.request("GET", &path, &headers, b"").unwrap().expect(200).json()
}

fn call(name: &str, service: &Service, more: &Value) -> Value {
    let mut node = json!({"type": "http", "with": {"url": format!("http://{}/crm", service.address)}});
    let members = more.as_object().unwrap().clone();
    node.as_object_mut().unwrap().extend(members);
    json!({"name": name, "nodes": {"crm": node}})
}

fn metrics(client: &mut Client) -> String {
    String::from_utf8(client.get("/metrics").expect(200).body).unwrap()
}

// F365, F366, F367, F368, F371, F377, F388
#[test]
fn a_service_that_fails_is_left_alone_then_tried_out_and_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(503);
    let options = Options::serve(directory.path()).driver().set("http.allow", &service.address.to_string());
    let options = options.set("http.breaker.failures", "3").set("http.breaker.open_for", "3s");
    let node = Node::start(&options);
    let mut client = node.client();
    let once = json!({"retry": {"max_attempts": 1}});
    let patient = json!({"retry": {"max_attempts": 3, "initial": "1ms", "jitter": false}});
    let cautious = json!({"retry": {"max_attempts": 1}, "fallback": {"value": {"cached": true}}});
    for (name, more) in [("once", &once), ("patient", &patient), ("cautious", &cautious)] {
        client.post("/v1/workflows", &call(name, &service, more)).expect(201);
    }
    let acme = [("aob-workspace", "acme")];
    client.post_with("/v1/workflows", &acme, &call("once", &service, &once)).unwrap().expect(201);

    assert_eq!(client.get("/v1/breakers").expect(200).json(), json!({"enabled": true, "breakers": []}));
    for _ in 0..3 {
        assert_eq!(run(&mut client, &[], "once")["error"]["code"], "http_status");
    }
    let refused = run(&mut client, &[], "once");
    assert_eq!(service.asked(), 3, "no connection is made while it is open");
    let failure = &refused["error"];
    assert_eq!(
        (&failure["code"], &failure["class"]),
        (&json!("circuit_breaker_open"), &json!("recoverable"))
    );
    let details = &failure["details"];
    assert_eq!(details["service"], service.address.to_string());
    assert!(details["last_failure_at"].is_string(), "{failure}");
    assert!((1..=3_000).contains(&details["retry_after_ms"].as_u64().unwrap()), "{failure}");
    assert_eq!(run(&mut client, &[], "cautious")["outputs"]["crm"], json!({"cached": true}));

    let shown = client.get("/v1/breakers").expect(200).json()["breakers"][0].clone();
    assert_eq!((&shown["state"], &shown["opened"]), (&json!("open"), &json!(1)), "{shown}");
    let told = metrics(&mut client);
    let line = format!("aob_breaker_state{{workspace=\"default\",service=\"{}\"}} 2", service.address);
    assert!(told.contains(&line), "{told}");
    node.says("circuit breaker of");
    // Nobody's calls shut out somebody else's.
    let theirs = client.request("GET", "/v1/breakers", &acme, b"").unwrap().expect(200).json();
    assert_eq!(theirs["breakers"], json!([]));
    assert_eq!(run(&mut client, &acme, "once")["error"]["code"], "http_status");
    assert_eq!(service.asked(), 4);

    // It works again. Whoever has attempts left waits as long as it is left alone, and tries it out.
    service.becomes(200);
    let done = run(&mut client, &[], "patient");
    assert_eq!(done["outputs"]["crm"]["body"], json!({"open": true}), "{done}");
    let timeline = format!("/v1/runs/{}/timeline?limit=100", done["run_id"].as_str().unwrap());
    let events = client.get(&timeline).expect(200).json();
    let again =
        events["events"].as_array().unwrap().iter().find(|event| event["type"] == "node.retry_scheduled");
    assert!(again.unwrap().to_string().contains("circuit_breaker_open"), "{events}");
    assert_eq!(run(&mut client, &[], "once")["status"], "completed");
    let shown = client.get("/v1/breakers").expect(200).json()["breakers"][0].clone();
    assert_eq!((&shown["state"], &shown["opened"]), (&json!("closed"), &json!(1)), "{shown}");
    let line = format!(
        "aob_breaker_transitions_total{{workspace=\"default\",service=\"{}\",to=\"half_open\"}} 1",
        service.address
    );
    let told = metrics(&mut client);
    assert!(told.contains(&line), "{told}");
}

// F364: an answer that the caller is to blame for is an answer.
#[test]
fn answers_of_a_service_that_is_there_open_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(404);
    let options = Options::serve(directory.path()).driver().set("http.allow", &service.address.to_string());
    let node = Node::start(&options.set("http.breaker.failures", "1"));
    let mut client = node.client();
    client.post("/v1/workflows", &call("once", &service, &json!({"retry": {"max_attempts": 1}}))).expect(201);
    for (asked, status) in (1..).zip([404, 429, 403]) {
        service.becomes(status);
        run(&mut client, &[], "once");
        assert_eq!(service.asked(), asked);
    }
    assert_eq!(client.get("/v1/breakers").expect(200).json()["breakers"], json!([]));
}

/// The ticket of what the run asks, once it does.
fn ticket(client: &mut Client, run_id: &str) -> String {
    loop {
        let run = client.get(&format!("/v1/runs/{run_id}")).expect(200).json();
        assert_ne!(run["status"], "failed", "{run}");
        if let Some(ticket) = run["approvals"][0]["ticket"].as_str() {
            return ticket.to_owned();
        }
        std::thread::yield_now();
    }
}

/// Starts a run that asks a human, who approves; the run when it is over.
fn by_hand(client: &mut Client, workflow: &str) -> Value {
    let started =
        client.post("/v1/runs", &json!({"workflow": workflow, "inputs": {"amount": 3}})).expect(202);
    let run_id = started.json()["run_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/approvals/{}/decision", ticket(client, &run_id));
    let decision = json!({"decision": "approve", "reviewer": "ops", "reason": "looked at it"});
    client.post(&path, &decision).expect(200);
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

fn document(file: &str, service: &Service) -> String {
    let text = std::fs::read_to_string(crate::harness::root().join(file)).unwrap();
    text.replace("https://tool.example", &format!("http://{}", service.address))
}

fn register(client: &mut Client, text: &str) {
    let headers = [("content-type", "application/yaml")];
    client.request("POST", "/v1/workflows", &headers, text.as_bytes()).unwrap().expect(201);
}

// F361, F371, F388: the playbook of a tool outage. It fails fast, is tried again where that is safe, and a human stands in.
#[test]
fn when_a_tool_is_out_it_is_tried_where_that_is_safe_and_then_a_human_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let tool = Service::start(503);
    let options = Options::serve(directory.path()).driver().set("http.allow", &tool.address.to_string());
    let node = Node::start(&options.set("http.breaker.failures", "3"));
    let mut client = node.client();
    let example = document("examples/work/fallback-human.yaml", &tool);
    register(&mut client, &example);
    let done = by_hand(&mut client, "fallback_human");
    assert_eq!(
        (&done["status"], &done["outputs"]["told"]),
        (&json!("completed"), &json!("by hand")),
        "{done}"
    );
    assert_eq!(tool.asked(), 2, "as often as it may be");
    // What may have had its effect and carries no key is not sent again.
    tool.becomes(0);
    let unkeyed = "with: {method: POST, headers: {idempotency-key: null}, body: {}, url";
    register(&mut client, &example.replace("with: {url", unkeyed).replace("fallback_human", "unkeyed"));
    assert_eq!(by_hand(&mut client, "unkeyed")["outputs"]["told"], "by hand");
    assert_eq!(tool.asked(), 3, "once");
    // It is left alone by now: humans are asked at once, and nobody waits for it.
    assert_eq!(client.get("/v1/breakers").expect(200).json()["breakers"][0]["state"], "open");
    register(
        &mut client,
        &example.replace("max_attempts: 2", "max_attempts: 1").replace("fallback_human", "fast"),
    );
    assert_eq!(by_hand(&mut client, "fast")["outputs"]["told"], "by hand");
    assert_eq!(tool.asked(), 3);
    assert_eq!(client.get("/v1/dlq").expect(200).json()["letters"], json!([]), "somebody took care of all");
}

/// The types of a run's events, and the events.
fn happened(client: &mut Client, run_id: &str) -> (Vec<String>, Vec<Value>) {
    let events = agents::timeline(client, run_id);
    let types = events.iter().map(|event| event["type"].as_str().unwrap().to_owned());
    (types.collect(), events)
}

// F388: the same playbook for a tool of an agent. The model is told at once what is the matter, calls what is safe to call again
// as often as it likes, is refused when the tool is left alone, and hands over to a human.
#[test]
fn when_a_tool_of_an_agent_is_out_the_model_is_told_and_a_human_is_asked() {
    let (directory, stub, tool) = (tempfile::tempdir().unwrap(), agents::stub(), Service::start(503));
    let node = Node::start(&agents::options(directory.path(), &stub));
    let mut client = node.client();
    let crm = json!({"name": "crm", "description": "Looks up a customer.", "http": {"url": format!("http://{}/crm", tool.address)}});
    let task = format!("{}[[say: human]]", "[[tool:crm]] [[turn]] ".repeat(7));
    let document = json!({
        "name": "outage",
        "agents": {"clerk": {"model": "big", "tools": [crm]}},
        "nodes": {
            "look": {"type": "agent", "with": {"role": "clerk", "task": task}},
            "review": {"type": "human_review", "with": {"reviewers": ["ops"], "reason": "required"}}
        },
        "edges": [{"from": "look", "to": "review", "when": "output == 'human'"}]
    });
    client.post("/v1/workflows", &document).expect(201);
    let done = by_hand(&mut client, "outage");
    assert_eq!(done["status"], "completed", "{done}");
    let (_, events) = happened(&mut client, done["run_id"].as_str().unwrap());
    let results: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "tool.returned")
        .map(|event| &event["results"][0])
        .collect();
    assert_eq!(results.len(), 7);
    assert!(results.iter().all(|result| result["error"]["code"] == "tool_unavailable"), "{results:?}");
    assert!(tool.asked() < 7, "left alone after {} calls", tool.asked());
    assert!(results[6]["took_ms"].as_u64().unwrap() < 1_000, "it fails fast: {}", results[6]);
}

// F389, F390, F391: the playbook of a slow model. Another one is asked, it is told less, and the ceiling holds.
#[test]
fn when_a_model_is_slow_another_is_told_less_and_the_ceiling_holds() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), agents::stub());
    let goes_on = json!({"text": "so it goes ".repeat(300), "tools": [{"name": "nothing", "arguments": {}}]});
    let mut slow = goes_on.clone();
    slow["delay_ms"] = json!(400);
    stub.script(&json!({"rules": [{"when": {"model": "big-1"}, "do": slow}, {"do": goes_on}]})).unwrap();
    let options = agents::options(directory.path(), &stub).set("models.spike.latency", "250ms");
    let options = options.set("models.spike.calls_min", "2").set("models.spike.rest", "10m");
    let node = Node::start(&options);
    let mut client = node.client();
    let memory = json!({"max_tokens": 1_600, "keep_turns": 1});
    let document = json!({
        "name": "slow",
        "limits": {"budget": {"tokens": 60_000}},
        "agents": {"r": {"model": "big", "fallback": ["small"], "memory": memory}},
        "nodes": {"ask": {"type": "agent", "with": {"role": "r", "task": "Go on.", "max_turns": 1_000}}},
    });
    let run_id = agents::start(&mut client, &document);
    let run = agents::ended(&mut client, &run_id);
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("budget_exceeded")),
        "{run}"
    );
    let (types, events) = happened(&mut client, &run_id);
    let first = |wanted: &str| {
        types.iter().position(|kind| kind == wanted).unwrap_or_else(|| panic!("no {wanted}: {types:?}"))
    };
    let (degraded, trimmed, ceiling) =
        (first("model.degraded"), first("context.trimmed"), first("budget.exceeded"));
    assert!(degraded < ceiling && trimmed < ceiling, "{types:?}");
    assert_eq!(events[degraded]["reason"], "latency");
    let taken: u64 = events
        .iter()
        .filter(|event| event["type"] == "model.answered")
        .map(|event| event["tokens"]["input"].as_u64().unwrap() + event["tokens"]["output"].as_u64().unwrap())
        .sum();
    assert!(taken <= 60_000, "{taken} tokens");
    let answers = types.iter().filter(|kind| *kind == "model.answered").count();
    assert_eq!(stub.stats()["calls"], answers, "nobody was asked above it");
}

#[test]
fn a_breaker_is_of_the_process_and_a_restart_closes_it() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(503);
    let options = Options::serve(directory.path()).driver().set("http.allow", &service.address.to_string());
    let options = options.set("http.breaker.failures", "1");
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &call("once", &service, &json!({"retry": {"max_attempts": 1}}))).expect(201);
    run(&mut client, &[], "once");
    assert_eq!(run(&mut client, &[], "once")["error"]["code"], "circuit_breaker_open");
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    service.becomes(200);
    assert_eq!(run(&mut client, &[], "once")["status"], "completed");
    assert_eq!(client.get("/v1/breakers").expect(200).json()["breakers"], json!([]));
}
