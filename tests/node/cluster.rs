//! Nodes on one store: one owns it, the others pass requests on to it and take its place when it ends, dies or stands still.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options, chain, in_background, store};

/// A node with this directory, on the server of that one.
fn options(directory: &Path, server: &Path) -> Options {
    Options::serve(directory).set("store.url", &store::of(server)).set("store.lease_seconds", "1")
}

/// Two nodes: the owner, and one that stands by.
fn two(directories: &[tempfile::TempDir; 2]) -> (Node, Node) {
    let [first, second] = directories.each_ref().map(tempfile::TempDir::path);
    let owner = Node::start(&options(first, first));
    let other = Node::stand_by(&options(second, first));
    other_knows(&other);
    (owner, other)
}

/// Waits until requests are passed on.
fn other_knows(node: &Node) {
    while node.client().get("/readyz").status != 200 {
        std::thread::yield_now();
    }
}

fn directories() -> [tempfile::TempDir; 2] {
    [(); 2].map(|()| tempfile::tempdir().unwrap())
}

fn registered(client: &mut Client) {
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    let held = json!({"name": "held", "nodes": {"stay": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &held).expect(201);
}

/// Starts a run and waits for its end; its id.
fn run(client: &mut Client, n: usize) -> String {
    let body = json!({"workflow": "chain5", "inputs": {"n": n}});
    let run = client.post_with("/v1/runs", &[("prefer", "wait=30")], &body).unwrap().expect(200).json();
    assert_eq!((&run["status"], &run["durability"]), (&json!("completed"), &json!("redis-aof")), "{run}");
    run["run_id"].as_str().unwrap().to_owned()
}

/// Starts a run that waits; its id.
fn held(client: &mut Client) -> String {
    let run = client.post("/v1/runs", &json!({"workflow": "held"})).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn go(client: &mut Client, run_id: &str) {
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({})).expect(200);
    while client.get(&format!("/v1/runs/{run_id}")).expect(200).json()["status"] != "completed" {
        std::thread::yield_now();
    }
}

/// Asks until all of them are listed, and no others: rows come after answers.
fn all_listed(client: &mut Client, runs: &[String]) {
    let wanted: BTreeSet<&str> = runs.iter().map(String::as_str).collect();
    loop {
        let listed = client.run_ids();
        let ids: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
        assert!(ids.is_subset(&wanted), "{ids:?}");
        if ids == wanted {
            return;
        }
        std::thread::yield_now();
    }
}

/// What a node says of those on its store.
fn cluster(node: &Node) -> Value {
    node.client().get("/v1/node").expect(200).json()["cluster"].clone()
}

// F212, F255
#[test]
fn any_node_takes_any_request_and_the_owner_s_place_when_it_ends() {
    if !store::is_there() {
        return;
    }
    let directories = directories();
    let (owner, mut other) = two(&directories);
    let mut client = other.client();
    registered(&mut client);
    let mut runs: Vec<String> = (0..20).map(|n| run(&mut client, n)).collect();
    let waits = held(&mut client);
    runs.push(waits.clone());
    // What one was told the other knows, for they are one.
    all_listed(&mut owner.client(), &runs);
    assert_eq!(client.get(&format!("/v1/runs/{waits}")).expect(200).json()["status"], "running");
    client.get("/v1/runs/run_00000000000070008000000000000000").expect(404);
    let events = other.client().events(&format!("/v1/runs/{}/events", runs[0]), &[], |_| true);
    assert_eq!(events.last().unwrap().event, "run.completed");
    let path = format!("/v1/runs/{}/events", runs[0]);
    let mut socket = super::sockets::opened(&other.address, &path);
    assert!(super::sockets::rows(&mut socket, &runs[0]).0.len() > 5);
    // A body that is not kept goes through as well.
    let large = "x".repeat(300 << 10);
    let body = json!({"workflow": "chain5", "inputs": {"n": 1, "large": large}});
    let refused = client.post("/v1/runs", &body);
    assert!(matches!(refused.status, 202 | 400 | 422), "{}", refused.status);
    if refused.status == 202 {
        runs.push(refused.json()["run_id"].as_str().unwrap().to_owned());
    }

    let (own, others) = (cluster(&owner), cluster(&other));
    assert_eq!((&own["owns"], &others["owns"]), (&json!(true), &json!(false)));
    assert_eq!(others["nodes"].as_array().unwrap().len(), 2);
    assert!(others["forwarded"].as_u64().unwrap() > 20 && own["forwarded"] == 0, "{others}");
    let info = other.client().get("/v1/node").json();
    assert_eq!((&info["phase"], &info["pid"]), (&json!("standing_by"), &json!(other.pid())));

    // While one goes requests wait for the other.
    let (sender, answered) = std::sync::mpsc::channel();
    let mut asks = other.client();
    let asked = waits.clone();
    let asking = in_background(move || {
        let mut count = 0_usize;
        while sender.send(()).is_ok() {
            asks.get(&format!("/v1/runs/{asked}")).expect(200);
            count += 1;
        }
        count
    });
    answered.recv().unwrap();
    assert!(owner.terminate().0.success());
    other.until("ready ");
    for _ in 0..100 {
        answered.recv().unwrap();
    }
    drop(answered);
    assert!(asking.join().unwrap() > 100);
    // A connection that was open goes on.
    go(&mut client, &waits);
    runs.push(run(&mut client, 21));
    all_listed(&mut other.client(), &runs);
    assert_eq!(cluster(&other)["owns"], true);
    assert!(other.terminate().0.success());
}

// F213, F083, RELIABILITY A1
#[test]
#[expect(clippy::disallowed_methods, reason = "how long clients wait is what it is about")]
fn an_owner_that_is_killed_is_followed_within_the_time_of_its_lease() {
    if !store::is_there() {
        return;
    }
    let directories = directories();
    let (owner, mut other) = two(&directories);
    let mut client = other.client();
    registered(&mut client);
    let mut runs: Vec<String> = (0..20).map(|n| run(&mut client, n)).collect();
    let waits = held(&mut client);
    runs.push(waits.clone());
    let began = std::time::Instant::now();
    owner.kill();
    // It waits for the one that follows.
    let held = client.get(&format!("/v1/runs/{waits}")).expect(200).json();
    let took = began.elapsed();
    assert_eq!(held["status"], "running");
    assert!(took.as_millis() >= 750, "the lease of the dead one was good for longer: {took:?}");
    assert!(took.as_secs() < 8, "{took:?}");
    other.until("ready ");
    go(&mut other.client(), &waits);
    runs.push(run(&mut other.client(), 21));
    all_listed(&mut other.client(), &runs);

    // The one that comes back with its directory stands by in its turn.
    let [first, _] = directories.each_ref().map(tempfile::TempDir::path);
    let again = Node::stand_by(&options(first, first));
    other_knows(&again);
    runs.push(run(&mut again.client(), 22));
    assert!(again.terminate().0.success(), "told to end while it stands by");
    // Whoever has the directory of the one that died need not wait.
    let second = directories[1].path();
    other.kill();
    let other = Node::start(&options(second, first));
    all_listed(&mut other.client(), &runs);
}

// F083, RELIABILITY A4, 2.7, C10
#[test]
fn an_owner_that_stood_still_says_nothing_that_is_not_so_any_more() {
    if !store::is_there() {
        return;
    }
    let directories = directories();
    let (mut owner, mut other) = two(&directories);
    let mut old = owner.client();
    registered(&mut old);
    let mut runs: Vec<String> = (0..20).map(|n| run(&mut old, n)).collect();
    let waits = held(&mut old);
    runs.push(waits.clone());
    all_listed(&mut old, &runs);
    // Asked before it stands still, and read when it goes on.
    let mut late = owner.client().patience(std::time::Duration::from_secs(30));
    late.get("/livez").expect(200);
    owner.signal(Signal::STOP);
    other.until("ready ");
    let mut new = other.client();
    go(&mut new, &waits);
    let asked = in_background({
        let waits = waits.clone();
        move || {
            let read = late.request("GET", &format!("/v1/runs/{waits}"), &[], b"");
            let begun = late.request(
                "POST",
                "/v1/runs",
                &[("content-type", "application/json")],
                json!({"workflow": "held"}).to_string().as_bytes(),
            );
            (read, begun)
        }
    });
    owner.signal(Signal::CONT);
    let (read, begun) = asked.join().unwrap();
    // An error, or no answer, or by the new owner: never that the run waits.
    if let Ok(read) = read {
        assert!(read.status == 503 || read.json()["status"] == "completed", "{}", read.status);
    }
    if let Ok(begun) = begun
        && begun.status == 202
    {
        runs.push(begun.json()["run_id"].as_str().unwrap().to_owned());
    }

    // It knows, and stands by from then on, as the process that it was.
    owner.until("standby ");
    other_knows(&owner);
    runs.push(run(&mut owner.client(), 21));
    all_listed(&mut other.client(), &runs);
    assert_eq!(cluster(&other)["nodes"].as_array().unwrap().len(), 2);
}

// F434, F083, RELIABILITY C1
#[test]
fn a_store_that_was_away_for_too_long_is_owned_again_without_a_hand() {
    if !store::is_there() {
        return;
    }
    let directories = directories();
    let [first, second] = directories.each_ref().map(tempfile::TempDir::path);
    let patient = |directory| options(directory, first).set("store.outage_seconds", "1");
    let owner = Node::start(&patient(first));
    let other = Node::stand_by(&patient(second));
    other_knows(&other);
    let mut client = other.client();
    registered(&mut client);
    let mut runs: Vec<String> = (0..20).map(|n| run(&mut client, n)).collect();
    all_listed(&mut client, &runs);
    store::kill(first);
    let answer = owner.client().post("/v1/runs", &json!({"workflow": "chain5", "inputs": {"n": 1}}));
    assert!(answer.status >= 500, "{}", answer.status);
    let ended = |answer: Response| String::from_utf8_lossy(&answer.body).contains("journal");
    while !ended(owner.client().get("/readyz")) {
        std::thread::yield_now();
    }
    // Whoever asks waits, or is told that there is nobody.
    store::of(first);
    let start = json!({"workflow": "chain5", "inputs": {"n": 2}});
    let began = loop {
        let answer = client.post_with("/v1/runs", &[("prefer", "wait=30")], &start).unwrap();
        if answer.status == 200 {
            break answer.json();
        }
        assert!(matches!(answer.status, 503 | 504), "{}", answer.status);
    };
    runs.push(began["run_id"].as_str().unwrap().to_owned());
    let listed = client.run_ids();
    for run in &runs {
        while client.get(&format!("/v1/runs/{run}")).expect(200).json()["status"] != "completed" {}
    }
    assert!(listed.len() >= 20, "{listed:?}");
}

/// `aobd drain` for this node.
fn drain(options: &Options) -> (bool, String) {
    let mut command = std::process::Command::new(&options.binary);
    command.arg("drain").arg("--data-dir").arg(&options.data_dir).args(&options.arguments);
    let out = command.output().unwrap();
    let said = [out.stdout, out.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (out.status.success(), said)
}

// F213, F255
#[test]
fn a_node_that_is_drained_hands_over_and_no_request_to_the_others_fails() {
    if !store::is_there() {
        return;
    }
    let directories = directories();
    let [first, second] = directories.each_ref().map(tempfile::TempDir::path);
    let first = options(first, first);
    let mut owner = Node::start(&first);
    let (done, said) = drain(&first);
    assert!(!done && said.contains("only node"), "{said}");
    let mut other = Node::stand_by(&options(second, &first.data_dir));
    other_knows(&other);
    let mut client = other.client();
    registered(&mut client);
    let (sender, answered) = std::sync::mpsc::channel();
    let asking = in_background(move || {
        let mut runs = Vec::new();
        while sender.send(()).is_ok() {
            runs.push(run(&mut client, runs.len()));
        }
        runs
    });
    answered.recv().unwrap();
    let (done, said) = drain(&first);
    assert!(done && said.contains(&other.address), "{said}");
    other.until("ready ");
    // It is there still, as the process that it was, and passes on.
    owner.until("standby ");
    other_knows(&owner);
    for _ in 0..20 {
        answered.recv().unwrap();
    }
    drop(answered);
    let runs = asking.join().unwrap();
    assert!(runs.len() >= 20);
    all_listed(&mut owner.client(), &runs);
    let (done, said) = drain(&first);
    assert!(done && said.contains(&other.address), "it owns nothing: {said}");
}
