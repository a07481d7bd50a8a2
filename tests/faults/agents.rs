//! The node dies at each place inside the turns of agents (RELIABILITY A2, 2.10), proven by its own last word. Then nothing that
//! was recorded is asked for or done again, a patch is made once, and every run ends as it would have.

#![expect(clippy::disallowed_types, reason = "the threads of a test, not a core of the node")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aob::failpoint::FAILPOINTS;
use aob_stub_model::Stub;
use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};
use crate::kills::{full, memory_directory};
use crate::recorder::Dice;

/// How long a place may take to be passed.
const HIT_WITHIN: Duration = Duration::from_secs(60);
const RUNS: usize = 3;
/// Answers of a run, and calls of its tool among them.
const ANSWERS: usize = 4;
const FINDS: usize = 2;

/// Calls of a tool that arrived, by key.
type Finds = Arc<Mutex<BTreeMap<String, usize>>>;

fn tool() -> (SocketAddr, Finds) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, finds) = (listener.local_addr().unwrap(), Finds::default());
    let kept = finds.clone();
    in_background(move || {
        while let Ok((stream, _)) = listener.accept() {
            let kept = kept.clone();
            in_background(move || found(stream, &kept));
        }
    });
    (address, finds)
}

fn found(stream: TcpStream, finds: &Finds) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let header = |name: &str| {
            let line =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
            line.map(|value| value.trim().to_owned())
        };
        let length = header("content-length:").map_or(0, |length| length.parse().unwrap());
        reader.read_exact(&mut vec![0; length]).ok()?;
        *finds.lock().unwrap().entry(header("idempotency-key:").unwrap()).or_default() += 1;
        let said = "HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]";
        reader.get_mut().write_all(said.as_bytes()).ok()?;
    }
}

fn options(directory: &Path, stub: &Stub) -> Options {
    let url = stub.url();
    let model = r#"{provider = "p", model = "m", context_tokens = 100000, max_output_tokens = 1000, price = {input_per_million = "1", output_per_million = "2"}}"#;
    Options::serve(directory)
        .set("http.allow", "127.0.0.1")
        .set("cores.runner", "2")
        .set("models.providers.p", &format!(r#"{{kind = "openai", base_url = "{url}"}}"#))
        .set("models.names.m", model)
        .set("models.default", "m")
}

fn workflow(tool: SocketAddr) -> Value {
    // With blanks between its braces: two of them are one in a text.
    let patch = r#"[[patch: [{"op": "add", "path": "/nodes/extra", "value": {"type": "function", "with": {"expr": "'patched'"} } }]]]"#;
    let task = format!("[[tool:find]] [[turn]] {patch} [[turn]] [[tool:find]] [[turn]] [[say: done]]");
    let find = json!({"name": "find", "description": "It finds.", "http": {"url": format!("http://{tool}/")}, "idempotent": true});
    json!({
        "name": "talk",
        "version": "1",
        "limits": {"budget": {"usd": "1"}},
        "agents": {"talker": {"tools": ["patch", find]}},
        "nodes": {"ask": {"type": "agent", "with": {"role": "talker", "task": task}}},
    })
}

/// Starts runs under keys; nobody may be there any more.
fn start(client: &mut Client) -> Vec<Option<String>> {
    let start = |number: usize| {
        let key = format!("talk-{number}");
        let headers = [("idempotency-key", key.as_str())];
        let answer = client.post_with("/v1/runs", &headers, &json!({"workflow": "talk"})).ok()?;
        Some(answer.expect(202).json()["run_id"].as_str().unwrap().to_owned())
    };
    (0..RUNS).map(start).collect()
}

/// Dies at this pass of the place, is started again, and everything is looked over.
fn tried(name: &str, pass: u64) {
    let (directory, stub) = (memory_directory(), Stub::start_blocking(Default::default()).unwrap());
    let (address, finds) = tool();
    let options = options(directory.path(), &stub);
    let armed = options.clone().env("AOB_FAILPOINTS", &format!("{name}=kill@{pass}"));
    let mut node = Node::start(&armed);
    let mut client = node.client();
    client.post("/v1/workflows", &workflow(address)).expect(201);
    let before = start(&mut client);
    let status =
        node.ends_within(HIT_WITHIN).unwrap_or_else(|| panic!("{name} (pass {pass}) was not passed"));
    let (_, log) = node.finish();
    assert!(log.contains(&format!("failpoint {name}: kill")), "{name}: {log}");
    assert_eq!(status.signal(), Some(9), "{name}: {status}");
    let node = Node::start(&options);
    let mut client = node.client();
    let runs = start(&mut client);
    let mut answers = 0;
    for (run_id, before) in runs.iter().zip(&before) {
        let run_id = run_id.as_ref().unwrap();
        assert!(before.as_ref().is_none_or(|before| before == run_id), "{name}: one key, two runs");
        answers += looked_over(&mut client, name, run_id);
    }
    let stats = stub.stats();
    let keys = &stats["keys"]["idempotency-key"];
    assert_eq!(keys["distinct"], answers, "{name}: one key a turn: {keys}");
    let repeated = stats["calls"].as_u64().unwrap() - answers as u64;
    assert!(repeated <= RUNS as u64, "{name}: only what was under way is asked again: {stats}");
    let finds = finds.lock().unwrap();
    assert_eq!(finds.len(), RUNS * FINDS, "{name}: one key a call: {finds:?}");
    let again = finds.values().sum::<usize>() - finds.len();
    assert!(again <= RUNS && finds.values().all(|calls| *calls <= 2), "{name}: {finds:?}");
}

/// Gives how many answers stand in the record of a run.
fn looked_over(client: &mut Client, name: &str, run_id: &str) -> usize {
    let path = format!("/v1/runs/{run_id}");
    let run = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
    assert_eq!(run["outputs"], json!({"ask": "done", "extra": "patched"}), "{name}: {run}");
    let page = client.get(&format!("{path}/timeline?limit=1000")).expect(200).json();
    let events = page["events"].as_array().unwrap();
    let count = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert_eq!(count("patch.created"), 1, "{name}: {page}");
    assert_eq!(count("tool.returned"), ANSWERS - 1, "{name}: {page}");
    assert_eq!(count("model.answered"), ANSWERS, "{name}: {page}");
    assert!(count("node.lost") <= 1, "{name}: {page}");
    if let Some(broken) = broken(&run, events) {
        panic!("{name}: {broken}: {page}");
    }
    // What was reserved and never answered is spent: nobody knows whether the provider bills it.
    let bill = client.get(&format!("{path}/cost")).expect(200).json();
    let lost = count("model.called") - count("model.answered");
    assert_eq!(bill["unknown_usd"] == "0.00", lost == 0, "{name}: {lost} lost: {bill}");
    assert_eq!(bill["reserved_usd"], "0.00", "{name}: {bill}");
    count("model.answered")
}

/// What the checker of histories says of a run's turns and money.
fn broken(run: &Value, events: &[Value]) -> Option<String> {
    let mut lines = vec![
        json!({"kind": "head", "version": 1, "seed": 1, "durability": "fsync", "clock_slack_ms": 0}),
        json!({"kind": "document", "hash": events[0]["hash"], "document": {"limits": {"budget": {"usd": "1"}}}}),
        json!({"kind": "dump", "at_us": 1, "dump": 1, "still": true}),
        json!({"kind": "run", "dump": 1, "run": run["run_id"], "body": run, "listed": true}),
    ];
    lines.extend(
        events.iter().map(|event| json!({"kind": "row", "dump": 1, "run": run["run_id"], "event": event})),
    );
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let report = aob_checker::check(&text).unwrap();
    let of_agents = ["overspent", "paid_twice", "unreserved_answer", "two_outcomes", "gap"];
    report.names().into_iter().find(|name| of_agents.contains(name)).map(|_| report.shown(&text, 9))
}

// RELIABILITY A2, 2.10; F392
#[test]
fn nothing_is_paid_or_done_twice_wherever_the_process_dies_in_a_turn() {
    let places: Vec<&str> =
        FAILPOINTS.iter().map(|(name, _)| *name).filter(|name| name.starts_with("agent::")).collect();
    assert!(places.len() >= 6, "{places:?}");
    let mut dice = Dice::new(41, 997);
    for round in 0..if full() { 20 } else { 1 } {
        for name in &places {
            let most = if *name == "agent::patched" { RUNS } else { 2 * RUNS };
            tried(name, 1 + dice.below(most as u64));
            println!("round {round}: {name} hit");
        }
    }
    crate::ledger::add("process faults", &[("failpoints_hit", places.len() as u64)]);
}
