//! Patches of running graphs: clients make them and take them back, and what they made is folded here once more, by other
//! means than the node's (I-9, I-10).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::check::History;
use super::held::{self, Held};
use super::net::{Answer, get, post_as};
use super::world::World;

/// An acknowledged change of a graph.
#[derive(Clone, Debug)]
pub(super) struct Patched {
    pub(super) run_id: String,
    /// `None`: patches were taken back.
    pub(super) patch_id: Option<String>,
    /// These.
    pub(super) revoked: Vec<Value>,
    pub(super) version: u64,
}

/// Workflows whose runs take long enough to be patched; all have a node `a`, and name their outputs.
pub(super) const PATCHED: [&str; 6] = ["calls", "tasks", "naps", "waits", "papers", "agent"];

/// A client changes the graph of a run, or takes a change back.
pub(super) async fn patch(world: &World, (run_id, workflow): (String, &'static str)) {
    if world.draw(4) == 0 {
        // Rather of one that has patches.
        let patched =
            lately(world, |history| history.patched.iter().map(|patched| &patched.run_id).collect());
        return revoke(world, &patched.unwrap_or(run_id)).await;
    }
    // Few ids, so that patches meet.
    let id = format!("x{}", world.draw(5));
    let node = json!({"type": "function", "with": {"expr": world.draw(1_000).to_string()}});
    let from = if workflow == "papers" { "copy" } else { "a" };
    let kind = world.draw(5);
    let body = match kind {
        0 => json!({"operations": [{"op": "add", "path": format!("/nodes/{id}"), "value": node}]}),
        1 => json!({"base_version": 1 + world.draw(4), "operations": [
            {"op": "replace", "path": format!("/nodes/{id}/with/expr"), "value": world.draw(9).to_string()}]}),
        2 => json!({"base_version": 1 + world.draw(4), "operations": [
            {"op": "remove", "path": format!("/nodes/{id}")},
            {"op": "remove", "path": format!("/edges/{from}~1{id}")}]}),
        _ => json!({"operations": [
            {"op": "add", "path": format!("/nodes/{id}"), "value": node},
            {"op": "add", "path": "/edges/-", "value": {"from": from, "to": id}}]}),
    };
    let who = held::somebody(world);
    let answer = post_as(world, who, &format!("/v1/runs/{run_id}/patches"), body).await;
    world.tell(format_args!("{who}: patch {run_id}: {answer:?}"));
    heard(world, run_id.clone(), &answer);
    let stands = answer.ok().filter(|body| kind > 2 && body["state"] == "applied");
    if let Some(patch_id) = stands.and_then(|body| body["patch_id"].as_str())
        && world.draw(3) == 0
    {
        build_upon(world, &run_id, (patch_id, &id)).await;
    }
}

/// A client puts a node behind the one that a patch has added, and may take that patch back afterwards, with all that builds on it.
async fn build_upon(world: &World, run_id: &str, (patch_id, node): (&str, &str)) {
    let next = format!("{node}_next");
    let body = json!({"operations": [
        {"op": "add", "path": format!("/nodes/{next}"), "value": {"type": "function", "with": {"expr": "1"}}},
        {"op": "add", "path": "/edges/-", "value": {"from": node, "to": next}}]});
    let who = held::somebody(world);
    let answer = post_as(world, who, &format!("/v1/runs/{run_id}/patches"), body).await;
    world.tell(format_args!("{who}: patch {run_id} behind {node}: {answer:?}"));
    heard(world, run_id.to_owned(), &answer);
    if world.draw(2) == 0 {
        take_back(world, (run_id, patch_id), true).await;
    }
}

/// One of the last of these runs.
pub(super) fn lately(world: &World, of: impl Fn(&History) -> Vec<&String>) -> Option<String> {
    let history = world.history.borrow();
    let runs = of(&history);
    let back = 1 + world.draw(6) as usize;
    runs.get(runs.len().checked_sub(back)?).map(|run_id| (*run_id).clone())
}

async fn revoke(world: &World, run_id: &str) {
    let answer = get(world, &format!("/v1/runs/{run_id}/patches")).await;
    let Some(list) = answer.ok() else { return };
    let applied: Vec<&str> = list["patches"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|patch| patch["state"] == "applied")
        .filter_map(|patch| patch["patch_id"].as_str())
        .collect();
    if applied.is_empty() {
        return;
    }
    let patch_id = applied[world.draw(applied.len() as u64) as usize];
    take_back(world, (run_id, patch_id), world.draw(2) == 0).await;
}

async fn take_back(world: &World, (run_id, patch_id): (&str, &str), cascade: bool) {
    let body = json!({"cascade": cascade, "reason": "a client thought better of it"});
    let who = held::somebody(world);
    let answer = post_as(world, who, &format!("/v1/runs/{run_id}/patches/{patch_id}/revoke"), body).await;
    world.tell(format_args!("{who}: revoke {patch_id}: {answer:?}"));
    heard(world, run_id.to_owned(), &answer);
}

fn heard(world: &World, run_id: String, answer: &Answer) {
    let Answer::Given { status, body, .. } = answer else { return };
    match status {
        202 if body["state"] == "held" => {
            world.sometimes("a patch was held");
            let patch_id = body["patch_id"].as_str().unwrap().to_owned();
            world.history.borrow_mut().held.push(Held { run_id, patch_id });
        }
        202 => {
            let patch_id = body["patch_id"].as_str().map(str::to_owned);
            let revoked = body["revoked"].as_array().cloned().unwrap_or_default();
            if revoked.len() > 1 {
                world.sometimes("a patch was taken back with one that builds on it");
            }
            world.sometimes(if patch_id.is_some() {
                "a graph was patched"
            } else {
                "a patch was taken back"
            });
            let version = body["graph_version"].as_u64().unwrap();
            world.history.borrow_mut().patched.push(Patched { run_id, patch_id, revoked, version });
        }
        409 if body["code"] == "patch_conflict" => world.sometimes("two patches met"),
        200 | 403 | 404 | 409 | 422 | 503 | 504 => {}
        _ => panic!("a patch was answered {answer:?}"),
    }
}

/// Folds the patches of a run that has ended: each gives the document whose hash stands in the log, and nothing happens to a
/// node that the graph does not have.
/// `documents` has those that runs in fast mode keep in place of operations.
pub(super) fn folded(base: &Value, events: &[Value], documents: &BTreeMap<String, Value>) {
    let mut document = base.clone();
    let (mut version, mut before) = (1, &Value::Null);
    for event in events {
        // What only a patch that waits would add is not there.
        let node = event["node"].as_str().unwrap_or_default();
        let node = node.split(['[', '.']).next().filter(|node| !node.is_empty());
        assert!(node.is_none_or(|node| document["nodes"].get(node).is_some()), "{event}: {document}");
        if event["type"] == "patch.applied" {
            let kind = &before["type"];
            assert!(kind == "patch.created" || kind == "patch.revoked", "{event} after {before}");
            version += 1;
            assert_eq!(event["version"], json!(version), "{event}");
            // `add` of the first edge of all: what is to hold it need not be there.
            if document.get("edges").is_none() {
                document["edges"] = json!({});
            }
            if before["operations"].is_null() {
                // What its hash is, is checked below.
                document = documents[event["hash"].as_str().unwrap()].clone();
            } else {
                let operations: json_patch::Patch =
                    serde_json::from_value(before["operations"].clone()).unwrap();
                json_patch::patch(&mut document, &operations).unwrap();
            }
            if document["edges"].as_object().is_some_and(serde_json::Map::is_empty) {
                document.as_object_mut().unwrap().remove("edges");
            }
            let text = serde_json_canonicalizer::to_string(&document).unwrap();
            let digest = Sha256::digest(text.as_bytes());
            let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(event["hash"], json!(format!("sha256:{hash}")), "{document:#}");
        }
        before = event;
    }
}

/// Hashes of the documents that stand in the log without operations.
pub(super) fn unkept(events: &[Value]) -> Vec<String> {
    let pairs = events.iter().zip(events.iter().skip(1));
    let made = pairs.filter(|(asked, made)| made["type"] == "patch.applied" && asked["operations"].is_null());
    made.map(|(_, made)| made["hash"].as_str().unwrap().to_owned()).collect()
}

/// What was acknowledged stands in the log, with the version that was told.
pub(super) fn acknowledged(patched: &Patched, events: &[Value]) {
    let at = events
        .iter()
        .position(|event| event["type"] == "patch.applied" && event["version"] == json!(patched.version));
    let before = at.and_then(|at| events.get(at.checked_sub(1)?));
    let before = before.unwrap_or_else(|| panic!("{patched:?} was acknowledged and is not there"));
    match &patched.patch_id {
        Some(patch_id) => assert_eq!(before["patch_id"], json!(patch_id)),
        None => {
            let is = (&before["type"], &before["patch_ids"]);
            assert_eq!(is, (&json!("patch.revoked"), &json!(patched.revoked)), "{patched:?}");
        }
    }
}
