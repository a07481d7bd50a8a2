//! How often a workflow may be started: by its tier.

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options};

fn register(client: &mut Client, workspace: &str, name: &str, tier: Option<&str>) {
    let mut document =
        json!({"name": name, "version": "1", "nodes": {"a": {"type": "function", "with": {"expr": "1"}}}});
    if let Some(tier) = tier {
        document["metadata"] = json!({"rate_tier": tier});
    }
    client.post_with("/v1/workflows", &[("aob-workspace", workspace)], &document).unwrap().expect(201);
}

fn start(client: &mut Client, workspace: &str, name: &str, key: &str) -> Response {
    let headers = [("aob-workspace", workspace), ("idempotency-key", key)];
    client.post_with("/v1/runs", &headers, &json!({"workflow": name})).unwrap()
}

// F007
#[test]
fn a_workflow_above_its_tier_is_refused_and_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path())
        // One in a thousand seconds would be needed for one more to grow while the test runs: a burst decides.
        .set("rate.tiers", "slow = 1/3, fast = 1000/1000")
        .set("rate.workflows", "acme/* = slow, acme/named = fast")
        .set("rate.documents", "true");
    let node = Node::start(&options);
    let mut client = node.client();
    for (name, tier) in [("flow", None), ("other", None), ("named", None), ("quick", Some("fast"))] {
        register(&mut client, "acme", name, tier);
    }
    register(&mut client, "default", "flow", None);
    let first = start(&mut client, "acme", "flow", "0").expect(202);
    assert_eq!(first.header("ratelimit-policy"), Some("\"slow\";q=3;w=3"));
    assert_eq!(first.header("ratelimit"), Some("\"slow\";r=2;t=1"));
    let run = first.json()["run_id"].clone();
    let mut refused = None;
    for n in 1..200 {
        let answer = start(&mut client, "acme", "flow", &n.to_string());
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        answer.expect(202);
    }
    let refused = refused.expect("a burst of three is soon over");
    let problem: Value = refused.json();
    assert_eq!((&problem["code"], &problem["limit"]), (&json!("rate_limited"), &json!("rate_tiers")));
    assert_eq!((&problem["retryable"], &problem["outcome"]), (&json!(true), &json!("not_applied")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(["flow", "acme", "slow", "rate.tiers"].iter().all(|name| detail.contains(name)), "{detail}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Another workflow, another workspace, another tier: by name, and by the document's word.
    start(&mut client, "acme", "other", "a").expect(202);
    for n in 0..20 {
        let own = start(&mut client, "default", "flow", &format!("d{n}")).expect(202);
        assert_eq!(own.header("ratelimit"), None, "nobody gave it a tier");
        start(&mut client, "acme", "named", &format!("n{n}")).expect(202);
        let quick = start(&mut client, "acme", "quick", &format!("q{n}")).expect(202);
        assert_eq!(quick.header("ratelimit-policy"), Some("\"fast\";q=1000;w=1"));
    }
    // The old interface counts in the same place, and a finished run answers its key whatever the count says.
    let body = json!({"workflow_name": "flow"});
    let answers: Vec<u16> = (0..4)
        .map(|_| client.post_with("/workflows/execute", &[("aob-workspace", "acme")], &body).unwrap().status)
        .collect();
    assert!(answers.contains(&429), "{answers:?}");
    loop {
        let again = start(&mut client, "acme", "flow", "0");
        if again.status == 202 && again.header("ratelimit").is_none() {
            assert_eq!(again.json()["run_id"], run);
            break;
        }
    }
}
