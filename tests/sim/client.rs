//! Clients: they start runs, with and without keys, look at them, steer them, send signals and updates, and write down what they were told.

use std::rc::Rc;

use serde_json::json;

use super::check::{Started, Viewed};
use super::net::{Answer, Request, get, post, send};
use super::world::World;
use super::{clock, forks, held, patches, signals, workflows};

/// Most tries of a start with a key.
const TRIES_MAX: u32 = 400;

/// Goes on until nothing goes wrong any more.
pub(super) async fn run(world: Rc<World>, number: u64) {
    let mut index = 0;
    while !world.calm.get() {
        clock::sleep_ms(world.draw(world.options.think_ms)).await;
        match world.draw(25) {
            0..10 => {
                index += 1;
                start(&world, 1_000_000 * (number + 1) + index).await;
            }
            10..15 => view(&world).await,
            15..17 => steer(&world).await,
            17 => list(&world).await,
            20..22 => patch(&world).await,
            22 => fork(&world).await,
            23..25 => decide(&world).await,
            _ => signal(&world).await,
        }
    }
}

async fn start(world: &World, n: u64) {
    let workflow = workflows::NAMES[world.draw(workflows::NAMES.len() as u64) as usize];
    let key = (world.draw(10) < world.options.keyed_in_ten).then(|| format!("key-{n}"));
    let mut body = json!({"workflow": workflow, "inputs": workflows::inputs(workflow, n)});
    if world.draw(3) == 0 {
        body["mode"] = json!("fast");
    }
    if matches!(workflow, "naps" | "calls") && world.draw(3) == 0 {
        // Few keys, so that clients meet.
        body["run_key"] = json!(format!("order-{}", world.draw(2)));
        body["on_conflict"] = json!(["reject", "return", "replace"][world.draw(3) as usize]);
    }
    let mut headers: Vec<(&str, String)> = key.iter().map(|key| ("idempotency-key", key.clone())).collect();
    if world.draw(4) == 0 {
        headers.push(("prefer", format!("wait={}", 1 + world.draw(5))));
    }
    let (mut run_id, mut unknown, mut first) = (None, false, None);
    for attempt in 0..TRIES_MAX {
        let request =
            Request { method: "POST", path: "/v1/runs", headers: &headers, body: Some(body.clone()) };
        let answer = send(world, request).await;
        world.tell(format_args!("start {n} {workflow} ({attempt}): {answer:?}"));
        match &answer {
            Answer::Given { existing: true, .. } => {
                world.sometimes("a business key was in use");
                assert!(run_id.is_none(), "an own run became another's: {n}");
                break;
            }
            Answer::Given { status: 409, body, .. } if body["code"] == "run_key_in_use" => {
                world.sometimes("a business key was in use");
                assert!(run_id.is_none() || world.may_forget(), "an own run became another's: {n}");
                break;
            }
            Answer::Given { status: 200..300, body, replayed, .. } => {
                if *replayed {
                    world.sometimes("a start was answered again by its key");
                }
                let told = body["run_id"].as_str().unwrap().to_owned();
                let same = run_id.as_ref().is_none_or(|known| *known == told);
                assert!(same || world.may_forget(), "one key, two runs: {n}");
                run_id = Some(told);
                // Without waiting for its end, every answer to the key is the first one again.
                if body.get("inputs").is_none() && !world.may_forget() {
                    assert_eq!(
                        first.get_or_insert_with(|| body.clone()),
                        body,
                        "another answer to the same key"
                    );
                }
                // Sometimes the client asks again though it knows.
                if key.is_none() || world.draw(5) > 0 {
                    break;
                }
            }
            Answer::NotSent => {}
            Answer::Given { status: 503, body, .. } if body["outcome"] == "not_applied" => {}
            Answer::Unknown | Answer::Given { status: 503 | 504, .. } => {
                world.sometimes("an outcome was unknown to a client");
                unknown = true;
            }
            Answer::Given { .. } => panic!("a start was answered {answer:?}"),
        }
        if key.is_none() && (unknown || world.calm.get()) {
            break;
        }
        clock::sleep_ms(20 + world.draw(500)).await;
    }
    assert!(
        key.is_none() || run_id.is_some() || body.get("run_key").is_some(),
        "{n}: no answer in {TRIES_MAX} tries"
    );
    world.history.borrow_mut().starts.push(Started { workflow, n, run_id });
}

/// One of the runs that were started.
fn any(world: &World) -> Option<(String, &'static str)> {
    any_start(world, |_| true).and_then(|start| Some((start.run_id?, start.workflow)))
}

fn any_start(world: &World, fits: impl Fn(&Started) -> bool) -> Option<Started> {
    let history = world.history.borrow();
    let fits = |start: &&Started| start.run_id.is_some() && fits(start);
    let known: Vec<_> = history.starts.iter().filter(fits).collect();
    let recent = known.len().saturating_sub(12);
    known.get(recent + world.draw((known.len() - recent) as u64) as usize).map(|start| (*start).clone())
}

async fn view(world: &World) {
    let Some((run_id, _)) = any(world) else { return };
    let invoked_us = clock::passed_us();
    let answer = get(world, &format!("/v1/runs/{run_id}")).await;
    if let Some(body) = answer.ok() {
        let (seq, status) = (body["seq"].as_u64().unwrap(), body["status"].as_str().unwrap().to_owned());
        world.tell(format_args!("view {run_id}: {status} {seq}"));
        let completed_us = clock::passed_us();
        world.history.borrow_mut().views.push(Viewed { run_id, seq, status, invoked_us, completed_us });
    }
}

async fn steer(world: &World) {
    let Some((run_id, _)) = any(world) else { return };
    let verb = ["pause", "pause", "resume", "resume", "cancel", "terminate"][world.draw(6) as usize];
    // It may be done before anybody hears of it.
    world.history.borrow_mut().steered.insert(run_id.clone());
    let answer =
        post(world, &format!("/v1/runs/{run_id}/{verb}"), json!({"reason": "a client wants it"})).await;
    world.tell(format_args!("{verb} {run_id}: {answer:?}"));
    if answer.ok().is_some() && matches!(verb, "cancel" | "terminate") {
        world.history.borrow_mut().cancelled.insert(run_id);
    }
}

async fn signal(world: &World) {
    let Some((run_id, workflow)) = any(world) else { return };
    if workflow == "waits" && world.draw(2) == 0 {
        signals::update(world, run_id).await;
    } else if workflow == "waits" {
        signals::signal(world, run_id).await;
    }
}

async fn patch(world: &World) {
    if let Some(start) = any_start(world, |start| patches::PATCHED.contains(&start.workflow)) {
        patches::patch(world, (start.run_id.unwrap(), start.workflow)).await;
    }
}

async fn decide(world: &World) {
    if let Some(run_id) = held::waiting(world) {
        held::decide(world, &run_id).await;
    }
}

async fn fork(world: &World) {
    // Those that wait for a decision are few.
    let waiting = if world.draw(4) == 0 { held::waiting(world) } else { None };
    let fits = |start: &Started| waiting.is_none() || start.run_id == waiting;
    if let Some(source) = any_start(world, fits) {
        forks::fork(world, &source).await;
    }
}

async fn list(world: &World) {
    let answer = get(world, "/v1/runs?limit=20").await;
    let rows = answer.ok().and_then(|body| body["runs"].as_array().map(Vec::len));
    world.tell(format_args!("list: {rows:?}"));
}
