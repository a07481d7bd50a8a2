//! A core that stands still, and a recovery that takes long.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Client, Node, chain, in_background};
use crate::systemd::{Manager, PATIENCE, plain};

/// Waits until between two feeds of the watchdog so much time has passed.
fn until_starved_for(manager: &Manager, least: Duration) {
    let (begun, mut last) = (Instant::now(), None);
    loop {
        let (at, text) = manager.next();
        assert!(at - begun < PATIENCE, "it is fed whatever stands still");
        let is_fed = text.starts_with("WATCHDOG=1");
        if is_fed && last.replace(at).is_some_and(|last| at - last >= least) {
            return;
        }
    }
}

/// Starts runs, until one of them is not answered.
fn start_runs(node: &Node) {
    let address = node.address.clone();
    in_background(move || {
        let mut client = Client::new(&address);
        client.post("/v1/workflows", &chain("chain", 3)).expect(201);
        while client.post_with("/v1/runs", &[], &json!({"workflow": "chain", "inputs": {"n": 1}})).is_ok() {}
    });
}

// F432
#[test]
fn the_watchdog_is_not_fed_while_a_shard_stands_still() {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::new(directory.path());
    let options = manager.watches(plain(directory.path())).env("WATCHDOG_USEC", "900000");
    let node = Node::start(&options.env("AOB_FAILPOINTS", "shard::turn=sleep(4500)@300"));
    manager.until("READY=1");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    start_runs(&node);
    until_starved_for(&manager, Duration::from_secs(2));
    // It is fed again, more than once.
    manager.until("WATCHDOG=1");
}

// F432
#[test]
fn the_watchdog_is_not_fed_while_a_control_core_stands_still() {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::new(directory.path());
    let options = manager.watches(plain(directory.path())).env("WATCHDOG_USEC", "900000");
    let options = options.set("http.allow", "127.0.0.1").env("AOB_FAILPOINTS", "errand::call=sleep(4500)");
    let node = Node::start(&options);
    manager.until("READY=1");
    manager.until("WATCHDOG=1");
    let call = json!({"type": "http", "with": {"url": "http://127.0.0.1:9/"}});
    let mut client = node.client();
    client.post("/v1/workflows", &json!({"name": "call", "nodes": {"call": call}})).expect(201);
    client.post("/v1/runs", &json!({"workflow": "call", "inputs": {}})).expect(202);
    until_starved_for(&manager, Duration::from_secs(2));
    manager.until("WATCHDOG=1");
}

// F432
#[test]
fn a_long_recovery_asks_for_more_time_for_as_long_as_it_moves() {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::new(directory.path());
    let options = plain(directory.path()).set("cores.runner", "1");
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &chain("chain", 3)).expect(201);
    for _ in 0..10 {
        client.post("/v1/runs", &json!({"workflow": "chain", "inputs": {"n": 1}})).expect(202);
    }
    node.kill();
    let slow = options.env("AOB_FAILPOINTS", "recovery::burst=sleep(1500)@3");
    let _node = Node::start(&manager.watches(slow));
    let (before, _) = manager.until("READY=1");
    let asks = before.iter().filter(|text| text.starts_with("EXTEND_TIMEOUT_USEC=120000000\n"));
    let asks: Vec<_> = asks.collect();
    assert!(asks.len() >= 2 && asks.last().unwrap().contains("STATUS=recovers"), "{before:?}");
}
