//! Forks: clients let new runs go on from events of others, unfinished and finished. What they begin with is the other's, to
//! the state's hash; they end as any run does.

use serde_json::{Value, json};

use super::check::{Dumps, History, Started, is_terminal};
use super::net::{Answer, Request, get, send};
use super::world::World;
use super::{clock, held, workflows};

/// Most tries with a key.
const TRIES_MAX: u32 = 30;

/// Numbers of runs that are given other inputs than their source, from here on.
const OTHERS: u64 = 900_000_000;

/// An acknowledged fork.
#[derive(Clone, Debug)]
pub(super) struct Forked {
    pub(super) source: String,
    /// Its event after which the other goes on.
    at: u64,
    pub(super) run_id: String,
}

/// A client forks a run somewhere.
pub(super) async fn fork(world: &World, source: &Started) {
    let Some(source_id) = source.run_id.clone() else { return };
    let answer = get(world, &format!("/v1/runs/{source_id}")).await;
    let Some(seen) = answer.ok() else { return };
    let at = 1 + world.draw(seen["seq"].as_u64().unwrap());
    let (mut n, mut body) = (number_at(&world.history.borrow(), source, at), json!({"at": at}));
    if at == 1 && world.draw(2) == 0 {
        n = OTHERS + world.draw(1_000_000);
        body["inputs"] = workflows::inputs(source.workflow, n);
    }
    let key = (world.draw(2) == 0).then(|| format!("fork-{}", world.draw(u64::MAX)));
    let headers: Vec<_> = key.iter().map(|key| ("idempotency-key", key.clone())).collect();
    let path = format!("/v1/runs/{source_id}/fork");
    let mut run_id = None;
    for _ in 0..TRIES_MAX {
        let request = Request { method: "POST", path: &path, headers: &headers, body: Some(body.clone()) };
        let answer = send(world, request).await;
        world.tell(format_args!("fork {source_id} at {at}: {answer:?}"));
        match &answer {
            Answer::Given { status: 200..300, body, replayed, .. } => {
                let told = body["run_id"].as_str().unwrap().to_owned();
                let same = run_id.as_ref().is_none_or(|known| *known == told);
                assert!(same || world.may_forget(), "one key, two forks: {source_id}");
                if *replayed {
                    world.sometimes("a fork was asked for again");
                }
                run_id = Some(told);
                if key.is_none() || world.draw(4) > 0 {
                    break;
                }
            }
            // The source may have been forgotten, its end be decided by now.
            Answer::Given { status: 404 | 409 | 422, .. } => break,
            Answer::NotSent | Answer::Unknown | Answer::Given { status: 503 | 504, .. } => {}
            Answer::Given { .. } => panic!("a fork was answered {answer:?}"),
        }
        if key.is_none() {
            break;
        }
        clock::sleep_ms(20 + world.draw(500)).await;
    }
    let Some(run_id) = run_id else { return };
    world.sometimes("a run was forked");
    if is_terminal(seen["status"].as_str().unwrap()) {
        world.sometimes("a run that was over was forked");
    }
    let mut history = world.history.borrow_mut();
    history.forked.push(Forked { source: source_id, at, run_id: run_id.clone() });
    history.starts.push(Started { workflow: source.workflow, n, run_id: Some(run_id) });
}

/// The number that a run went by at one of its events: a fork that was given another one had its source's before.
fn number_at(history: &History, start: &Started, at: u64) -> u64 {
    let forked = history.forked.iter().find(|forked| Some(&forked.run_id) == start.run_id.as_ref());
    let source = forked
        .filter(|forked| at <= forked.at)
        .and_then(|forked| history.starts.iter().find(|start| start.run_id.as_ref() == Some(&forked.source)));
    source.map_or(start.n, |source| number_at(history, source, at))
}

/// A fork begins with what its source did, word for word, and says so.
pub(super) fn acknowledged(history: &History, dumps: &Dumps) {
    for forked in &history.forked {
        let Some(Some(dump)) = dumps.get(&forked.run_id) else { continue };
        let at = usize::try_from(forked.at).unwrap();
        let said = json!({"run_id": forked.source, "seq": forked.at});
        let event = &dump.events[at];
        assert_eq!((&event["type"], &event["forked_from"]), (&json!("run.forked"), &said), "{forked:?}");
        assert_eq!(dump.run["forked_from"], said, "{forked:?}");
        if let Some(Some(source)) = dumps.get(&forked.source) {
            let words = |events: &[Value]| events.iter().map(without_ticket).collect::<Vec<_>>();
            assert_eq!(words(&source.events[..at]), words(&dump.events[..at]), "{forked:?}");
        }
    }
}

/// Reviews are asked again under the new run's tickets.
fn without_ticket(event: &Value) -> Value {
    let mut event = event.clone();
    event.as_object_mut().unwrap().remove("ticket");
    event
}

/// Where it was forked, its state is its source's.
pub(super) async fn states(world: &World, dumps: &Dumps) {
    let forked = world.history.borrow().forked.clone();
    for forked in forked.into_iter().filter(|_| !world.may_forget()) {
        let both = [&forked.source, &forked.run_id];
        if both.iter().any(|run_id| !matches!(dumps.get(*run_id), Some(Some(_)))) {
            continue;
        }
        let at = usize::try_from(forked.at).unwrap();
        let (source, fork) = (held::state(world, both[0], at).await, held::state(world, both[1], at).await);
        if let (Some(source), Some(fork)) = (source, fork) {
            world.sometimes("a fork began in the state of its source");
            assert_eq!(source["hash"], fork["hash"], "{forked:?}: {source} {fork}");
        }
    }
}
