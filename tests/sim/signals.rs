//! Clients that bring runs signals and updates. Those with a key are sent again until somebody knows what became of them: a run
//! takes each once.

use serde_json::{Value, json};

use super::check::Dumps;
use super::net::{Answer, Request, send};
use super::world::World;
use super::{clock, net};

/// Most tries of something with a key.
const TRIES_MAX: u32 = 40;

/// Something that was sent with a key.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    run_id: String,
    /// Stands in what it brings, and nowhere else.
    n: u64,
    /// Number of its event, when it was acknowledged.
    received: Option<u64>,
}

pub(super) async fn signal(world: &World, run_id: String) {
    if world.draw(2) == 0 {
        let path = format!("/v1/runs/{run_id}/signals/go");
        let answer = net::post(world, &path, json!({"payload": {"by": "a client"}})).await;
        return world.tell(format_args!("signal {run_id}: {answer:?}"));
    }
    keyed(world, run_id, "signals", "a client").await;
}

/// The run waits once: of all updates one is taken, and what was said of it holds.
pub(super) async fn update(world: &World, run_id: String) {
    if world.draw(2) == 0 {
        return keyed(world, run_id, "updates", "an update").await;
    }
    let path = format!("/v1/runs/{run_id}/updates/go");
    let headers = [("prefer", format!("wait={}", 1 + world.draw(5)))];
    let body = Some(json!({"payload": {"by": "an update"}}));
    let answer = send(world, Request { method: "POST", path: &path, headers: &headers, body }).await;
    world.tell(format_args!("update {run_id}: {answer:?}"));
    match &answer {
        Answer::Given { status: 200, body, .. } => {
            let received = taken(world, body);
            world.history.borrow_mut().updated.push((run_id, received));
        }
        Answer::Given { status: 404 | 409 | 500.., .. } | Answer::NotSent | Answer::Unknown => {}
        Answer::Given { .. } => panic!("an update was answered {answer:?}"),
    }
}

fn taken(world: &World, body: &Value) -> u64 {
    world.sometimes("an update was taken");
    assert_eq!((&body["state"], &body["output"]["by"]), (&json!("completed"), &json!("an update")));
    body["received_seq"].as_u64().unwrap()
}

/// Sends it until it is known what became of it, and now and then once more.
async fn keyed(world: &World, run_id: String, route: &str, by: &str) {
    let (n, is_update) = (world.draw(u64::from(u32::MAX)), route == "updates");
    let path = format!("/v1/runs/{run_id}/{route}/go");
    let body = json!({"payload": {"by": by, "n": n}});
    let mut headers = vec![("idempotency-key", format!("{route}-{n}"))];
    if is_update {
        headers.push(("prefer", format!("wait={}", 1 + world.draw(5))));
    }
    let (mut first, mut received, mut unknown): (Option<Value>, Option<u64>, bool) = (None, None, false);
    for attempt in 0..TRIES_MAX {
        let request = Request { method: "POST", path: &path, headers: &headers, body: Some(body.clone()) };
        let answer = send(world, request).await;
        world.tell(format_args!("{route} {run_id} {n} ({attempt}): {answer:?}"));
        match &answer {
            Answer::Given { status: 200 | 202, body, replayed, .. } => {
                if *replayed && unknown {
                    world.sometimes("what a client was unsure of was done, and its key said so");
                }
                assert!(*replayed || received.is_none() || world.may_forget(), "done again: {body}");
                let seq = if is_update { taken(world, body) } else { body["seq"].as_u64().unwrap() - 1 };
                let same = received.is_none_or(|known| known == seq);
                assert!(same || world.may_forget(), "another answer to the same key");
                received = Some(seq);
                if !is_update && !world.may_forget() {
                    let before = first.get_or_insert_with(|| body.clone());
                    assert_eq!(before, body, "another answer to the same key");
                }
                if world.draw(4) > 0 {
                    break;
                }
            }
            // Its run is over and forgotten, or nobody waits; what was acknowledged is not refused.
            Answer::Given { status: 404 | 409, body, .. } => {
                let forgotten = body["code"] == "run_not_found";
                assert!(received.is_none() || forgotten || world.may_forget(), "{run_id} {n}: {body}");
                break;
            }
            Answer::Given { status: 429, .. } => break,
            Answer::NotSent => {}
            Answer::Unknown | Answer::Given { status: 500.., .. } => unknown = true,
            Answer::Given { .. } => panic!("{route} was answered {answer:?}"),
        }
        if world.calm.get() && received.is_some() {
            break;
        }
        clock::sleep_ms(20 + world.draw(500)).await;
    }
    let mut history = world.history.borrow_mut();
    if let Some(received) = received.filter(|_| is_update) {
        history.updated.push((run_id.clone(), received));
    }
    history.keyed.push(Keyed { run_id, n, received });
}

/// What has a key stands in its run at most once, and where it was acknowledged to stand.
pub(super) fn once(keyed: &[Keyed], dumps: &Dumps, may_forget: bool) {
    for Keyed { run_id, n, received } in keyed {
        let Some(Some(dump)) = dumps.get(run_id) else { continue };
        let is_its = |event: &&Value| event["type"] == "signal.received" && event["payload"]["n"] == json!(n);
        let found: Vec<_> = dump.events.iter().filter(is_its).map(|event| event["seq"].as_u64()).collect();
        assert!(found.len() <= 1, "{run_id}: {n} has a key and was taken at {found:?}");
        if received.is_some() && !may_forget {
            assert_eq!(found, [*received], "{run_id}: {n} was acknowledged");
        }
        let remembered = |event: &&Value| event["type"] == "request.remembered";
        let remembered = dump.events.iter().filter(remembered).map(|event| event["received_seq"].as_u64());
        if let [seq] = found[..] {
            assert_eq!(remembered.filter(|of| *of == seq).count(), 1, "{run_id}: {n} is remembered once");
        }
    }
}
