//! The services that `http` nodes call, and the workers that do tasks. They live on when the node does not, and they write
//! down everything that reaches them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, oneshot};

use super::net::{Answer, post};
use super::world::World;
use super::{clock, workflows};
use crate::exec::{Call, Jobs, idempotency_key};
use crate::model::{Failure, Value};

type Asked = (Call, oneshot::Sender<Result<Value, Failure>>);

/// A call or a job that arrived.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) run_id: String,
    /// Event that handed it out; workers are not told.
    pub(super) seq: Option<u64>,
    pub(super) workflow: String,
    pub(super) attempt: u64,
}

/// An answer of a worker that the node took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    /// Of which attempt.
    pub(super) attempt: u64,
    /// The newest one that somebody had when it was given.
    pub(super) newest: u64,
}

/// What happened outside.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By key, in the order they came.
    pub(super) arrived: BTreeMap<String, Vec<Arrived>>,
    /// By key.
    pub(super) taken: BTreeMap<String, Taken>,
    service: Option<mpsc::UnboundedSender<Asked>>,
    /// Runs of `slots` with a call that was not answered.
    in_slots: BTreeSet<String>,
}

/// Takes the calls of one life of the node to the services.
pub(super) async fn forward(world: Rc<World>, mut calls: Jobs) {
    while let Some(call) = calls.next().await {
        let ledger = world.ledger.borrow();
        if let Some(service) = &ledger.service {
            let _ = service.send(call);
        }
    }
}

/// Starts the services.
pub(super) fn start_services(world: &Rc<World>) {
    let (service, mut asked) = mpsc::unbounded_channel();
    world.ledger.borrow_mut().service = Some(service);
    let world = world.clone();
    tokio::task::spawn_local(async move {
        while let Some(asked) = asked.recv().await {
            tokio::task::spawn_local(serve(world.clone(), asked));
        }
    });
}

async fn serve(world: Rc<World>, (call, mut reply): Asked) {
    let options = &world.options;
    let key = idempotency_key(call.run_id, &call.place);
    world.tell(format_args!("call {key} of {} {} attempt {}", call.run_id, call.seq, call.attempt));
    if call.lost {
        world.sometimes("a call was made again after a crash");
    }
    world.ledger.borrow_mut().arrived.entry(key).or_default().push(Arrived {
        run_id: call.run_id.to_string(),
        seq: Some(call.seq),
        workflow: call.workflow.to_string(),
        attempt: u64::from(call.attempt),
    });
    let run_id = call.run_id.to_string();
    if &*call.workflow == "slots" {
        takes_slot(&world, &run_id);
    }
    clock::sleep_ms(world.draw(options.work_ms)).await;
    if world.chance(options.hangs) {
        return reply.closed().await;
    }
    if world.chance(options.fails) {
        return drop(reply.send(Err(Failure::transient("http_status", "503"))));
    }
    if world.chance(options.loses_answer) {
        world.sometimes("a service lost its answer");
        return drop(reply.send(Err(Failure::transient("connection_lost", "the answer was lost"))));
    }
    let url = call.request.get("url").and_then(Value::as_str).unwrap_or_default();
    let (path, n) = url.trim_start_matches("http://tool.example").split_once("?n=").unwrap();
    let answer = workflows::answer(path, n.parse().unwrap());
    world.ledger.borrow_mut().in_slots.remove(&run_id);
    let map =
        [("status", Value::Int(200)), ("headers", Value::map::<&str>([])), ("body", Value::Int(answer))];
    let _ = reply.send(Ok(Value::map(map)));
}

/// No more runs may be at work than have a slot; one that somebody ended may leave a call behind.
fn takes_slot(world: &World, run_id: &str) {
    let history = world.history.borrow();
    let mut ledger = world.ledger.borrow_mut();
    ledger.in_slots.retain(|run_id| !history.steered.contains(run_id));
    ledger.in_slots.insert(run_id.to_owned());
    assert!(ledger.in_slots.len() <= workflows::SLOTS, "too many at once: {:?}", ledger.in_slots);
    if ledger.in_slots.len() == workflows::SLOTS {
        world.sometimes("all slots were taken");
    }
}

/// Starts the workers.
pub(super) fn start_workers(world: &Rc<World>) {
    for number in 0..world.options.workers {
        tokio::task::spawn_local(worker(world.clone(), number));
    }
}

async fn worker(world: Rc<World>, number: u64) {
    loop {
        let max = 1 + world.draw(4);
        let body = json!({"queues": ["work"], "max": max, "wait_ms": 1_000, "worker": format!("w{number}")});
        let answer = post(&world, "/v1/workers/poll", body).await;
        let Some(polled) = answer.ok() else {
            clock::sleep_ms(50 + world.draw(200)).await;
            continue;
        };
        for job in polled["jobs"].as_array().into_iter().flatten() {
            tokio::task::spawn_local(work(world.clone(), job.clone()));
        }
    }
}

/// The newest attempt of a node that any worker has.
fn newest(world: &World, key: &str) -> u64 {
    let ledger = world.ledger.borrow();
    ledger.arrived.get(key).into_iter().flatten().map(|arrived| arrived.attempt).max().unwrap_or(0)
}

async fn work(world: Rc<World>, job: Json) {
    let options = &world.options;
    let key = job["idempotency_key"].as_str().unwrap().to_owned();
    let attempt = job["attempt"].as_u64().unwrap();
    world.tell(format_args!("job {key} of {} attempt {}", job["run_id"], job["attempt"]));
    world.ledger.borrow_mut().arrived.entry(key.clone()).or_default().push(Arrived {
        run_id: job["run_id"].as_str().unwrap().to_owned(),
        seq: None,
        workflow: job["workflow"].as_str().unwrap().to_owned(),
        attempt,
    });
    clock::sleep_ms(world.draw(options.work_ms)).await;
    if world.chance(options.hangs) {
        return;
    }
    let late = world.chance(options.late);
    if late {
        clock::sleep_ms(options.lease_seconds * 1_000 + world.draw(10_000)).await;
    }
    let lease = &job["lease"];
    let (path, body) = if world.chance(options.fails) {
        let error = json!({"code": "busy", "message": "not now", "class": "transient"});
        ("/v1/workers/fail", json!({"failures": [{"lease": lease, "error": error}]}))
    } else {
        let made = json!(workflows::work(job["input"]["n"].as_i64().unwrap()));
        // What is kept by reference comes to a worker itself.
        let output = match job["input"]["paper"].as_str() {
            Some(paper) => json!({"n": made, "paper": workflows::reply(paper)}),
            None => made,
        };
        ("/v1/workers/complete", json!({"results": [{"lease": lease, "output": output}]}))
    };
    let doubled = world.chance(options.doubles);
    let mut accepted = false;
    for _ in 0..20 {
        let newest = newest(&world, &key);
        let answer = post(&world, path, body.clone()).await;
        let status = answer.ok().map(|body| body["results"][0]["status"].clone());
        accepted = status.as_ref().is_some_and(|status| status == "accepted");
        if accepted && path.ends_with("complete") {
            world.ledger.borrow_mut().taken.insert(key.clone(), Taken { attempt, newest });
        }
        if late && status.is_some_and(|status| status == "stale") {
            world.sometimes("a worker completed too late");
        }
        if answer.ok().is_some_and(|body| body["results"][0]["status"] != "refused") {
            break;
        }
        assert!(!matches!(answer, Answer::Given { status: 400..500, .. }), "{body}: {answer:?}");
        clock::sleep_ms(20 + world.draw(300)).await;
    }
    if doubled {
        world.sometimes("a worker completed twice");
        let answer = post(&world, path, body).await;
        if let Some(body) = answer.ok() {
            // The node may have been away all the time before.
            assert!(!accepted || body["results"][0]["status"] != "accepted", "a job was completed twice");
        }
    }
}
