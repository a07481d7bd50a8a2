//! Patches that wait for a human: agents make them, somebody decides, and what was decided stands once and for ever. Until
//! then nothing has changed (I-10, I-11).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::json;

use super::check::{Dumps, History, must};
use super::net::{Answer, get, post_as};
use super::patches::{Patched, lately};
use super::world::World;
use crate::auth::holding::Whose;
use crate::auth::tokens::Tokens;
use crate::auth::{Door, Holding, Role};

/// Who asks when nobody else does.
pub(super) const HUMAN: &str = "human";
/// Agents; the second may decide about patches of others.
const AGENTS: [&str; 2] = ["agent-a", "agent-b"];

/// An acknowledged patch that waits.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) run_id: String,
    pub(super) patch_id: String,
}

/// An acknowledged decision.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    run_id: String,
    patch_id: String,
    approved: bool,
}

/// Who may come in, and whose patches wait.
pub(super) fn door(world: &World) -> Door {
    let tokens = [(HUMAN, Role::Admin), (AGENTS[0], Role::Write), (AGENTS[1], Role::Admin)];
    let safe = world.options.safe_functions.then(|| "function".into());
    let holding = Holding {
        whose: Whose::Agents,
        agents: vec!["agent-*".into()],
        safe_kinds: safe.into_iter().collect(),
        decider: Role::Admin,
    };
    Door { tokens: Some(Tokens::of(&tokens)), holding: holding.into(), ..Door::default() }
}

/// Somebody.
pub(super) fn somebody(world: &World) -> &'static str {
    [HUMAN, HUMAN, AGENTS[0], AGENTS[1]][world.draw(4) as usize]
}

/// A run with a patch that waits, or did lately; a fork may have it too.
pub(super) fn waiting(world: &World) -> Option<String> {
    lately(world, |history| {
        let held: BTreeSet<&String> = history.held.iter().map(|held| &held.run_id).collect();
        let forks = history.forked.iter().filter(|forked| held.contains(&forked.source));
        let forks = forks.map(|forked| &forked.run_id);
        if world.draw(4) == 0 {
            forks.collect()
        } else {
            history.held.iter().map(|held| &held.run_id).collect()
        }
    })
}

/// Somebody decides about a patch of a run that waits; or about one that does not, now and then.
pub(super) async fn decide(world: &World, run_id: &str) {
    let answer = get(world, &format!("/v1/runs/{run_id}/patches")).await;
    let Some(list) = answer.ok() else { return };
    let rows = list["patches"].as_array().unwrap();
    let waiting = rows.iter().filter(|patch| patch["state"] == "held" || world.draw(4) == 0);
    let waiting: Vec<&str> = waiting.filter_map(|patch| patch["patch_id"].as_str()).collect();
    if waiting.is_empty() {
        return;
    }
    let patch_id = waiting[world.draw(waiting.len() as u64) as usize].to_owned();
    let (who, approved) = (somebody(world), world.draw(3) > 0);
    let verb = if approved { "approve" } else { "reject" };
    let path = format!("/v1/runs/{run_id}/patches/{patch_id}/{verb}");
    // Sometimes whoever decides asks again.
    for _ in 0..=u64::from(world.draw(3) == 0) {
        let answer = post_as(world, who, &path, json!({"reason": "so it is decided"})).await;
        world.tell(format_args!("{who}: {verb} {patch_id}: {answer:?}"));
        heard(world, (run_id, &patch_id, approved), &answer);
    }
}

fn heard(world: &World, (run_id, patch_id, approved): (&str, &str, bool), answer: &Answer) {
    let Answer::Given { status, body, .. } = answer else { return };
    let mut history = world.history.borrow_mut();
    let decided = Decided { run_id: run_id.into(), patch_id: patch_id.into(), approved };
    match status {
        202 => {
            assert!(approved && body["state"] == "applied", "{answer:?}");
            world.sometimes("a held patch was approved");
            let version = body["graph_version"].as_u64().unwrap();
            let patch_id = Some(patch_id.into());
            let patched = Patched { run_id: run_id.into(), patch_id, revoked: Vec::new(), version };
            history.patched.push(patched);
            history.decided.push(decided);
        }
        200 => {
            assert_eq!(body["decided"]["approved"], json!(approved), "{answer:?}");
            world.sometimes("a held patch was rejected");
            history.decided.push(decided);
        }
        409 if body["code"] == "patch_decided" => world.sometimes("a held patch was decided before"),
        403 | 404 | 409 | 422 | 503 | 504 => {}
        _ => panic!("a decision was answered {answer:?}"),
    }
}

/// Each patch that waits is decided at most once, by somebody else than its author when it is approved; made in the same
/// step then, and never otherwise.
pub(super) fn once(run_id: &str, events: &[Value]) {
    let mut patches: BTreeMap<&str, (&Value, bool)> = BTreeMap::new();
    let mut approved = None;
    for event in events {
        let id = event["patch_id"].as_str().unwrap_or_default();
        if let Some(held) = approved.take() {
            let held: &Value = held;
            let same = ["patch_id", "author", "justification"].iter().all(|key| event[key] == held[key]);
            assert!(same && event["type"] == "patch.created", "{run_id}: {held} was approved, then {event}");
            let operations = &event["operations"];
            assert!(operations.is_null() || *operations == held["operations"], "{run_id}: {event}, {held}");
            continue;
        }
        match event["type"].as_str().unwrap() {
            "patch.held" => {
                let before = patches.insert(id, (event, false));
                assert!(before.is_none(), "{run_id}: {id} waits twice");
            }
            "patch.decided" => {
                let patch = patches.get_mut(id);
                let (held, decided) = patch.unwrap_or_else(|| panic!("{run_id}: {id} never waited"));
                assert!(!std::mem::replace(decided, true), "{run_id}: {id} was decided twice");
                if event["approved"] == json!(true) {
                    assert_ne!(event["by"], held["author"], "{run_id}: {id} was approved by its author");
                    approved = Some(*held);
                }
            }
            "patch.created" => assert!(!patches.contains_key(id), "{run_id}: {id} was made and not approved"),
            _ => {}
        }
    }
    assert!(approved.is_none(), "{run_id}: {approved:?} was approved and is not made");
}

/// What was acknowledged stands in the log.
pub(super) fn acknowledged(history: &History, dumps: &Dumps) {
    let has = |run_id: &str, wanted: &dyn Fn(&Value) -> bool| match dumps.get(run_id) {
        Some(Some(dump)) => dump.events.iter().any(wanted),
        _ => true,
    };
    for held in &history.held {
        let is = |event: &Value| event["type"] == "patch.held" && event["patch_id"] == json!(held.patch_id);
        assert!(has(&held.run_id, &is), "{held:?} was acknowledged and is not there");
    }
    for decided in &history.decided {
        let is = |event: &Value| {
            event["type"] == "patch.decided"
                && event["patch_id"] == json!(decided.patch_id)
                && event["approved"] == json!(decided.approved)
        };
        assert!(has(&decided.run_id, &is), "{decided:?} was acknowledged and is not there");
    }
}

/// A run with a patch that waits is what it was without it.
pub(super) async fn states(world: &World, dumps: &Dumps) {
    for (run_id, dump) in dumps {
        let Some(dump) = dump else { continue };
        let Some(at) = dump.events.iter().position(|event| event["type"] == "patch.held") else { continue };
        let (before, after) = (state(world, run_id, at).await, state(world, run_id, at + 1).await);
        if let (Some(before), Some(after)) = (before, after) {
            for member in ["status", "version", "nodes"] {
                assert_eq!(
                    before[member], after[member],
                    "{run_id}: a patch that waits changed its {member}"
                );
            }
        }
    }
}

/// A run after one of its events; `None` when it is forgotten.
pub(super) async fn state(world: &World, run_id: &str, seq: usize) -> Option<Value> {
    let (status, state) = must(world, &format!("/v1/runs/{run_id}/state?seq={seq}")).await;
    assert!(matches!(status, 200 | 404), "{run_id} at {seq}: {status} {state}");
    (status == 200).then_some(state)
}
