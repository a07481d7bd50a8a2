//! Business keys of runs, and lists that ask for them: one unfinished run under a key, whatever comes at once or falls down.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options, in_background};

/// `hold` waits for `go`.
fn workflow(name: &str) -> Value {
    json!({"name": name, "nodes": {"hold": {"type": "wait", "with": {"signal": "go"}}}})
}

fn start(client: &mut Client, key: &str, how: Option<&str>, headers: &[(&str, &str)]) -> Response {
    let mut body = json!({"workflow": "pay", "run_key": key});
    if let Some(how) = how {
        body["on_conflict"] = how.into();
    }
    client.post_with("/v1/runs", headers, &body).unwrap()
}

fn id(reply: &Response) -> String {
    reply.json()["run_id"].as_str().unwrap().to_owned()
}

fn finish(client: &mut Client, run_id: &str) {
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({}));
    let path = format!("/v1/runs/{run_id}");
    let run = client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json();
    assert_eq!(run["status"], "completed");
}

fn listed(client: &mut Client, query: &str) -> Vec<String> {
    let page = client.get(&format!("/v1/runs?{query}")).expect(200).json();
    let rows = page["runs"].as_array().unwrap();
    rows.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_key_has_one_unfinished_run_and_is_free_when_that_ends() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &workflow("pay"));
    client.post("/v1/workflows", &workflow("ship"));
    let first = id(&start(&mut client, "order-1", None, &[]).expect(202));
    let refused = start(&mut client, "order-1", None, &[]).expect(409).json();
    assert_eq!((&refused["code"], &refused["run_id"]), (&json!("run_key_in_use"), &json!(first)));
    assert!(refused["detail"].as_str().unwrap().contains(&first), "{refused}");
    let same = start(&mut client, "order-1", Some("return"), &[]).expect(200);
    assert_eq!((id(&same), same.header("aob-existing-run")), (first.clone(), Some("true")));
    // Another workflow's key is another key.
    client.post("/v1/runs", &json!({"workflow": "ship", "run_key": "order-1"})).expect(202);
    finish(&mut client, &first);
    let second = start(&mut client, "order-1", Some("return"), &[]).expect(202);
    assert!(second.header("aob-existing-run").is_none());
    assert_eq!(second.json()["run_key"], "order-1");

    // The one that is there ends in the same step in which the other one begins.
    let third = id(&start(&mut client, "order-1", Some("replace"), &[]).expect(202));
    let replaced = client.get(&format!("/v1/runs/{}", id(&second))).expect(200).json();
    assert_eq!((&replaced["status"], &replaced["run_key"]), (&json!("cancelled"), &json!("order-1")));
    let timeline = client.get(&format!("/v1/runs/{}/timeline", id(&second))).expect(200).json();
    let asked =
        timeline["events"].as_array().unwrap().iter().find(|event| event["type"] == "run.cancel_requested");
    let reason = asked.unwrap()["reason"].as_str().unwrap();
    assert!(reason.contains(&third) && reason.contains("replaced"), "{reason}");
    let timeline = client.get(&format!("/v1/runs/{third}/timeline")).expect(200).json();
    assert_eq!(timeline["events"][1]["type"], "run.keyed");
    assert_eq!(timeline["events"][1]["replaces"], json!(id(&second)));

    // Those of one millisecond are in the order of their ids.
    let mut all = [third.clone(), id(&second), first];
    all.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(listed(&mut client, "run_key=order-1&workflow=pay"), all);
    assert_eq!(listed(&mut client, "run_key=order-1&workflow=pay&status=running"), [third]);
    assert!(listed(&mut client, "run_key=order").is_empty());
}

#[test]
fn both_keys_hold_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &workflow("pay"));
    let key = [("idempotency-key", "k1")];
    let first = id(&start(&mut client, "order-1", None, &key).expect(202));
    let again = start(&mut client, "order-1", None, &key).expect(202);
    assert_eq!((id(&again), again.header("idempotent-replayed")), (first.clone(), Some("true")));
    // The same key for something else is refused, whether or not the run_key is free.
    let other = start(&mut client, "order-1", Some("replace"), &key).expect(422).json();
    assert_eq!(other["code"], "idempotency_key_reused");
    let another = [("idempotency-key", "k2")];
    start(&mut client, "order-1", None, &another).expect(409);
    finish(&mut client, &first);
    let again = start(&mut client, "order-1", None, &key).expect(202);
    assert_eq!(id(&again), first, "the key remembers what it started");
    assert_ne!(id(&start(&mut client, "order-1", None, &another).expect(202)), first);
}

#[test]
fn of_starts_at_the_same_time_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    node.client().post("/v1/workflows", &workflow("pay"));
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = node.client();
            in_background(move || {
                let ids = (0..20).map(|n| {
                    let reply = start(&mut client, &format!("order-{n}"), Some("return"), &[]);
                    (reply.status, id(&reply))
                });
                ids.collect::<Vec<_>>()
            })
        })
        .collect();
    let answers: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    for n in 0..20 {
        let ids: BTreeSet<_> = answers.iter().map(|answers| &answers[n].1).collect();
        let started = answers.iter().filter(|answers| answers[n].0 == 202).count();
        assert_eq!((ids.len(), started), (1, 1), "order-{n}");
    }
}

#[test]
fn keys_survive_kill_9_while_runs_are_replaced() {
    let rounds = 6;
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let mut acknowledged = String::new();
    for round in 0..rounds {
        let node = Node::start(&options);
        let mut client = node.client();
        if round == 0 {
            client.post("/v1/workflows", &workflow("pay"));
        } else {
            let live = listed(&mut client, "run_key=order-1&status=running");
            assert_eq!(live.len(), 1, "round {round}: {live:?}");
            let run = client.get(&format!("/v1/runs/{acknowledged}")).expect(200).json();
            let expected = if live[0] == acknowledged { "running" } else { "cancelled" };
            assert_eq!(run["status"], expected, "round {round}: what was acknowledged is there");
            let held = start(&mut client, "order-1", Some("return"), &[]).expect(200);
            assert_eq!(id(&held), live[0]);
        }
        let (told, heard) = std::sync::mpsc::channel();
        let mut replacing = node.client();
        let replacer = in_background(move || {
            loop {
                let body = json!({"workflow": "pay", "run_key": "order-1", "on_conflict": "replace"});
                let Ok(reply) = replacing.post_with("/v1/runs", &[], &body) else { return };
                if told.send(id(&reply.expect(202))).is_err() {
                    return;
                }
            }
        });
        for _ in 0..=(round * 7) {
            acknowledged = heard.recv().unwrap();
        }
        node.kill();
        replacer.join().unwrap();
        acknowledged = heard.try_iter().last().unwrap_or(acknowledged);
    }
}

#[test]
fn a_list_is_narrowed_by_time_version_and_several_statuses() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &workflow("pay"));
    let ids: Vec<_> =
        (0..6).map(|n| id(&start(&mut client, &format!("o{n}"), None, &[]).expect(202))).collect();
    finish(&mut client, &ids[1]);
    client.post(&format!("/v1/runs/{}/cancel", ids[2]), &json!({}));
    // Those of one millisecond are in the order of their ids.
    let mut newest = ids.clone();
    newest.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(listed(&mut client, "version=1"), newest);
    assert!(listed(&mut client, "version=2").is_empty());
    let mut ended = listed(&mut client, "status=completed,cancelled");
    ended.sort_unstable();
    let mut expected = [ids[1].clone(), ids[2].clone()];
    expected.sort_unstable();
    assert_eq!(ended, expected);
    let started = |client: &mut Client, id: &str| {
        client.get(&format!("/v1/runs/{id}")).expect(200).json()["started_at"].as_str().unwrap().to_owned()
    };
    let (second, fifth) = (started(&mut client, &ids[1]), started(&mut client, &ids[4]));
    // Times are shown in milliseconds, so neighbours may share one: what is asked for is at least there, nothing older.
    let after = listed(&mut client, &format!("started_after={second}"));
    assert!(ids[1..].iter().all(|id| after.contains(id)), "{after:?}");
    let before = listed(&mut client, &format!("started_before={fifth}"));
    let first = started(&mut client, &ids[0]);
    assert!(!before.contains(&ids[4]) && !before.contains(&ids[5]), "{before:?}");
    assert!(first == fifth || before.contains(&ids[0]), "{before:?}");
    assert!(listed(&mut client, "started_before=2001-01-01T00:00:00Z").is_empty());
    assert!(listed(&mut client, "started_after=2101-01-01T00:00:00Z").is_empty());
    // Pages of one, with every condition, lead through all.
    let mut path = format!("/v1/runs?limit=1&started_after={second}&status=running,completed&version=1");
    let mut seen = Vec::new();
    loop {
        let page = client.get(&path).expect(200);
        seen.extend(
            page.json()["runs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|run| run["run_id"].as_str().unwrap().to_owned()),
        );
        let Some(link) = page.header("link") else { break };
        path = link.split(['<', '>']).nth(1).unwrap().to_owned();
    }
    assert_eq!(seen.iter().filter(|id| ids[1..].contains(*id)).count(), 4);
    for (query, word) in [
        ("started_after=yesterday", "RFC 3339"),
        ("started_before=2026-02-30T00:00:00Z", "RFC 3339"),
        ("status=running,alive", "alive"),
        ("status=", "none of"),
        ("started_at=2026-02-20T00:00:00Z", "started_a"),
    ] {
        let refused = client.get(&format!("/v1/runs?{query}")).expect(400).json();
        assert!(refused["detail"].as_str().unwrap().contains(word), "{refused}");
    }
}
