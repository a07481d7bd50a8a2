//! What clients start: one workflow for each way in which a run can depend on somebody.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Dice, World, client, service, worker};
use crate::harness::in_background;

/// A workflow that clients start.
#[derive(Clone, Copy, Debug)]
pub struct Workflow {
    /// Its name.
    pub name: &'static str,
}

const NAMES: [&str; 11] =
    ["chain", "calls", "plain", "once", "tasks", "waits", "parent", "fan", "gated", "grown", "reviewed"];
/// What patches make of it, they make of this one; it waits for a signal until then.
pub const GROWN: &str = "grown";
/// What asks somebody.
pub const REVIEWED: &str = "reviewed";
/// Who is asked.
pub const REVIEWER: &str = "ops";
/// Nodes that patches may bring it to.
const GROWN_NODES_MAX: u32 = 6;
/// What is started beside the world, and left out of dumps: so is everything whose name begins with it.
pub const FILLER: &str = "filler";
/// The same, one run at a time.
pub const FILLER_GATED: &str = "filler-gated";

impl Workflow {
    /// What it is given.
    pub fn inputs(self, token: &str) -> Value {
        json!({"token": token, "n": 1, "items": [1, 2, 3]})
    }
}

/// One of them.
pub fn some(dice: &mut Dice) -> Workflow {
    let at = usize::try_from(dice.below(NAMES.len() as u64)).unwrap_or(0);
    Workflow { name: NAMES[at] }
}

/// Does it wait for a signal?
pub fn waits(workflow: &str) -> bool {
    workflow == "waits" || workflow == GROWN
}

/// The documents, for a service at this address.
pub fn documents(service: SocketAddr) -> Vec<Value> {
    let retry = json!({"max_attempts": 200, "initial": "1ms", "max": "20ms"});
    let call = |path: &str| {
        json!({"type": "http", "timeout": "20s", "retry": retry, "with": {"method": "POST",
            "url": format!("http://{service}/{path}"), "headers": {"aob-node": path}, "body": {"n": "${ inputs.n }"}}})
    };
    let mut once = call("once");
    once["at_most_once"] = json!(true);
    once.as_object_mut().expect("a node").remove("retry");
    let task = json!({"type": "task", "retry": retry, "timeout": "60s",
        "with": {"queue": "work", "payload": {"n": "${ inputs.n }"}}});
    let add = |expr: &str| json!({"type": "function", "with": {"expr": expr}});
    let fan = json!({"over": "inputs.items", "body": {"nodes": {"x": add("item + 1"), "y": add("input * 2")},
        "edges": [{"from": "x", "to": "y"}]}});
    let edge = |from: &str, to: &str| json!({"from": from, "to": to});
    let document =
        |name: &str, nodes: Value, edges: Vec<Value>| json!({"name": name, "nodes": nodes, "edges": edges});
    let child = json!({"type": "composite", "input": {"n": 1}, "with": {"workflow": "chain", "parent_close": "cancel"}});
    vec![
        document(
            "chain",
            json!({"a": add("1"), "b": add("input + 1"), "c": add("input + 1")}),
            vec![edge("a", "b"), edge("b", "c")],
        ),
        document("calls", json!({"a": call("a"), "b": call("b")}), vec![edge("a", "b")]),
        document("plain", json!({"p": call("p")}), vec![]),
        document("once", json!({"once": once}), vec![]),
        document("tasks", json!({"t1": task, "t2": task}), vec![edge("t1", "t2")]),
        document(
            "waits",
            json!({"pause": {"type": "delay", "with": {"for": "30ms"}},
                "answer": {"type": "wait", "with": {"signal": "go"}}, "done": add("inputs.n")}),
            vec![edge("pause", "answer"), edge("answer", "done")],
        ),
        document("parent", json!({"child": child, "after": add("inputs.n")}), vec![edge("child", "after")]),
        json!({"name": GROWN, "limits": {"nodes": GROWN_NODES_MAX},
            "nodes": {"hold": {"type": "wait", "with": {"signal": "go"}}, "a": add("inputs.n"), "b": call("b")},
            "edges": [edge("hold", "a"), edge("hold", "b")]}),
        json!({"name": REVIEWED,
            "nodes": {"ask": {"type": "human_review", "with": {"reviewers": [REVIEWER], "data": "${ inputs.n }"}},
                "after": call("after"), "else": add("inputs.n")},
            "edges": [{"from": "ask", "to": "after", "on": "approved"}, {"from": "ask", "to": "else", "on": "rejected"}]}),
        json!({"name": "gated", "limits": {"concurrency": {"key": "gate", "max": 2}},
            "nodes": {"pause": {"type": "delay", "with": {"for": "5ms"}}}}),
        document(FILLER, json!({"f": add("inputs.n")}), vec![]),
        json!({"name": FILLER_GATED, "limits": {"concurrency": {"key": FILLER_GATED, "max": 1}},
            "nodes": {"pause": {"type": "delay", "with": {"for": "5ms"}}}}),
        document("filler-waits", json!({"f": {"type": "wait", "with": {"signal": "never"}}}), vec![]),
        document("fan", json!({"each": {"type": "map", "with": fan}}), vec![]),
    ]
}

/// Registers everything.
pub fn register(world: &World, address: &str) {
    let service = *super::locked(&world.service);
    for guest in world.guests() {
        let mut client = client::client(address, &guest);
        for document in documents(service.expect("a service was started")) {
            let answer = client.post("/v1/workflows", &document);
            let status = answer.status;
            assert!(matches!(status, 200 | 201), "{document}: {}", String::from_utf8_lossy(&answer.body));
        }
    }
}

/// Everybody who is not the node.
pub struct Everybody(Vec<std::thread::JoinHandle<()>>);

/// How many there are of each.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Clients that start, signal, steer and read.
    pub clients: u64,
    /// Workers.
    pub workers: u64,
    /// Clients that follow streams.
    pub watchers: u64,
    /// Clients that patch runs, and do nothing else.
    pub authors: u64,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { clients: 4, workers: 2, watchers: 2, authors: 0 }
    }
}

impl Everybody {
    /// Begins: the service at once, the others as soon as there is a node.
    pub fn begin(world: &Arc<World>, crowd: Crowd) -> Self {
        service::serve(world);
        let mut threads = Vec::new();
        for number in 0..crowd.clients {
            let operator = client::Operator::new(world, number);
            threads.push(in_background(move || operator.run()));
        }
        for number in 0..crowd.workers {
            let world = world.clone();
            threads.push(in_background(move || worker::work(&world, 100 + number)));
        }
        for number in 0..crowd.watchers {
            let world = world.clone();
            threads.push(in_background(move || client::watch(&world, 200 + number)));
        }
        for number in 0..crowd.authors {
            let operator = client::Operator::author(world, 300 + number);
            threads.push(in_background(move || operator.patch_only()));
        }
        Self(threads)
    }

    /// Waits until all have stopped. Somebody may wait for the node: it must serve, or be gone.
    pub fn end(self, world: &World) {
        world.stop();
        for thread in self.0 {
            thread.join().expect("a client does not panic");
        }
    }
}
