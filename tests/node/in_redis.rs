//! Nodes whose state is in Redis: what they promise while the server dies, and while one follows another. With a server of the test's own,
//! whatever store the rest of the run asks for.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{AOBD, Client, Node, Options, chain, in_background, store};

/// A node with this directory, on the server of that one.
fn options(directory: &Path, server: &Path) -> Options {
    Options::serve(directory).set("store.url", &store::of(server))
}

/// Starts a run and waits for its end; its id.
fn run(client: &mut Client, n: usize) -> String {
    let body = json!({"workflow": "chain5", "inputs": {"n": n}});
    let run = client.post_with("/v1/runs", &[("prefer", "wait=30")], &body).unwrap();
    let run = run.expect(200).json();
    assert_eq!((&run["status"], &run["durability"]), (&json!("completed"), &json!("redis-aof")), "{run}");
    run["run_id"].as_str().unwrap().to_owned()
}

/// Asks until it is listed: rows come after answers.
fn all_listed(client: &mut Client, runs: &[String]) {
    let runs: BTreeSet<&String> = runs.iter().collect();
    while !client.run_ids().iter().collect::<BTreeSet<_>>().is_superset(&runs) {
        std::thread::yield_now();
    }
}

/// Why a node does not start.
fn refused(options: &Options) -> String {
    let (status, said) = Node::try_start(options).err().expect("it must not start");
    assert_eq!(status.code(), Some(74), "{said}");
    said
}

// F065, RELIABILITY C1, C2
#[test]
fn kills_of_the_server_under_load_lose_nothing_that_was_acknowledged() {
    if !store::is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path(), directory.path()));
    node.client().post("/v1/workflows", &chain("chain5", 5)).expect(201);
    let mut client = node.client();
    let (sender, progress) = std::sync::mpsc::channel();
    // The server comes back long before the node gives up: everything is answered, some of it late.
    let work = in_background(move || {
        (0..400)
            .map(|n| {
                sender.send(n).unwrap();
                run(&mut client, n)
            })
            .collect::<Vec<_>>()
    });
    while let Ok(n) = progress.recv() {
        if n % 90 == 89 {
            store::kill(directory.path());
            store::of(directory.path());
        }
    }
    let runs = work.join().unwrap();
    let mut client = node.client();
    client.get("/readyz").expect(200);
    all_listed(&mut client, &runs);
    node.kill();
    let node = Node::start(&options(directory.path(), directory.path()));
    assert_eq!(BTreeSet::from_iter(node.client().run_ids()), BTreeSet::from_iter(runs));
}

// RELIABILITY C1
#[test]
fn a_server_that_stays_away_ends_the_journal_and_a_restart_goes_on() {
    if !store::is_there() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path(), directory.path()).set("store.outage_seconds", "1");
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    let kept = run(&mut client, 1);
    all_listed(&mut client, std::slice::from_ref(&kept));
    store::kill(directory.path());
    let answer = client.post("/v1/runs", &json!({"workflow": "chain5", "inputs": {"n": 2}}));
    assert!(answer.status >= 500, "{}", answer.status);
    while client.get("/readyz").status != 503 {
        std::thread::yield_now();
    }
    let why = String::from_utf8(client.get("/readyz").body).unwrap();
    assert!(why.contains("restart the node"), "{why}");
    node.kill();
    assert!(refused(&options).contains("redis.sock"));

    store::of(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    assert!(client.run_ids().contains(&kept));
    run(&mut client, 3);
}

// F065, RELIABILITY 2.2, 2.7, C12
#[test]
fn a_store_that_keeps_less_or_has_less_or_is_another_one_is_refused_by_name() {
    if !store::is_there() {
        return;
    }
    let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, options) = (own.path(), options(own.path(), own.path()));
    store::ask(dir, &["CONFIG", "SET", "appendfsync", "everysec"]);
    let said = refused(&options);
    assert!(said.contains("redis-aof") && said.contains("appendfsync"), "{said}");
    store::ask(dir, &["CONFIG", "SET", "appendfsync", "always"]);

    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &chain("chain5", 5)).expect(201);
    run(&mut client, 1);
    assert!(node.terminate().0.success());

    // The directory, without its store.
    let said = refused(&Options::serve(dir).set("store.url", "embedded"));
    assert!(said.contains("is in Redis"), "{said}");
    for tool in [&["fsck"][..], &["backup", "--to", "/nowhere"]] {
        let out = Command::new(AOBD).args(tool).arg("--data-dir").arg(dir).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains("is in Redis"), "{said}");
    }
    let said = refused(&super::in_redis::options(dir, other.path()));
    assert!(said.contains("has lost what it acknowledged"), "{said}");

    // A directory with state of its own, with a store.
    let embedded = Options::serve(other.path()).set("store.url", "embedded");
    assert!(Node::start(&embedded).terminate().0.success());
    let said = refused(&super::in_redis::options(other.path(), dir));
    assert!(said.contains("does not belong to the store"), "{said}");

    // Everything is gone: nobody takes that for a new store, until somebody who knows says so.
    store::ask(dir, &["FLUSHALL"]);
    let said = refused(&options);
    assert!(said.contains("has lost what it acknowledged"), "{said}");
    std::fs::remove_file(dir.join("store.known")).unwrap();
    let node = Node::start(&options);
    assert_eq!(node.client().get("/v1/runs").expect(200).json()["runs"], Value::Array(Vec::new()));
}
