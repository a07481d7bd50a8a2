//! Summaries of events that a model makes, beside the runs and later.

use aob::time::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::agents::{ended, options, start, stub};
use crate::harness::{Client, Node};

fn summaries(client: &mut Client, run_id: &str) -> Vec<String> {
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000&summaries=true&edges=true"));
    let page = page.expect(200).json();
    let events = page["events"].as_array().unwrap().clone();
    events.iter().map(|event| event["summary"].as_str().unwrap().to_owned()).collect()
}

fn calls(stub: &aob_stub_model::Stub) -> u64 {
    let stats = stub.stats();
    stats["calls"].as_u64().unwrap_or_else(|| panic!("{stats}"))
}

fn plain(name: &str) -> Value {
    json!({"name": name, "nodes": {"one": {"type": "function", "with": {"expr": "1"}},
        "two": {"type": "function", "needs": ["one"], "with": {"expr": "'sk-proj-abcdefghijklmnopqrstuvwx'"}}}})
}

// F340: the model's words take the place of the rule's when they are there, fifteen at most; nobody waits for them.
#[test]
fn a_model_tells_events_in_fifteen_words_for_the_next_who_reads() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let many =
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma";
    stub.script(&json!({"rules": [{"do": {"text": many}}]})).unwrap();
    let node = Node::start(&options(directory.path(), &stub).set("models.summaries", "small"));
    let mut client = node.client();
    let run_id = start(&mut client, &plain("plain"));
    assert_eq!(ended(&mut client, &run_id)["status"], "completed");
    assert_eq!(calls(&stub), 0, "nobody has read it");

    let first = summaries(&mut client, &run_id);
    assert!(first.iter().any(|told| told == "run completed"), "the rules' at first: {first:?}");
    let told = many.split(' ').take(15).collect::<Vec<_>>().join(" ");
    let began_us = SystemClock.monotonic_us();
    let last = loop {
        let read = summaries(&mut client, &run_id);
        if read.iter().all(|one| *one == told) {
            break read;
        }
        assert!(SystemClock.monotonic_us() - began_us < 60_000_000, "{read:?}");
    };
    assert_eq!(last.len(), first.len());
    let asked = stub.requests(1_000).to_string();
    assert!(!asked.contains("sk-proj-abcdefgh"), "a key left the node: {asked}");
    assert!(asked.contains("[redacted]"), "and it was what left it out: {asked}");
    summaries(&mut client, &run_id);
    assert_eq!(calls(&stub), first.len() as u64, "each is made once");
    let cost = client.get(&format!("/v1/runs/{run_id}/cost")).expect(200).json();
    assert!(!cost.to_string().contains("small"), "it is no cost of the run: {cost}");
}

// F340: what they may take in an hour is bounded, by itself; a node that stops waits for none of them.
#[test]
fn over_its_allowance_or_with_a_model_that_fails_the_rules_summaries_stay() {
    let (directory, stub) = (tempfile::tempdir().unwrap(), stub());
    let options = options(directory.path(), &stub).set("models.summaries", "small");
    let node = Node::start(&options.set("models.summaries_usd_per_hour", "0.000001"));
    let mut client = node.client();
    let run_id = start(&mut client, &plain("dear"));
    ended(&mut client, &run_id);
    let first = summaries(&mut client, &run_id);
    for _ in 0..20 {
        assert_eq!(summaries(&mut client, &run_id), first);
    }
    assert_eq!(calls(&stub), 0);
    assert!(node.terminate().0.success());
}
