//! Patches of a document with gates: what they add is gated, and no gate is lost.

use super::*;
use crate::compile::patch::{self, Aim, Candidate, Layer, Refusal, candidate_for, remake, with_gates};

const BASE: &str = r#"
nodes:
  start: {type: function, with: {expr: "1"}}
  pay: {type: http, tags: [money], with: {method: POST, url: "https://bank/"}}
  sure: {type: task}
edges: [{from: start, to: pay}, {from: pay, to: sure}]
"#;

const RULES: &str =
    r#"[{"tag": "money", "reviewers": ["cfo"]}, {"confidence_below": 0.5, "reviewers": ["expert"]}]"#;

/// The candidate as it is proposed, made again from its operations alone.
fn patched(document: &Value, operations: &str) -> Result<Candidate, Refusal> {
    put(document, &value(operations), Aim::Make)
}

/// What is left when this document comes back in the place of the other.
fn taken_back(document: &Value, before: &Value) -> Result<Candidate, Refusal> {
    put(document, &patch::difference(document, before), Aim::TakeBack)
}

fn put(document: &Value, operations: &Value, aim: Aim) -> Result<Candidate, Refusal> {
    let own = patch::read(operations).unwrap();
    let whole = with_gates(document, &own, aim)?.unwrap_or(own);
    let candidate = candidate_for(document, &whole, aim)?;
    let logged = patch::read(&whole.operations).unwrap();
    assert_eq!(remake(document, &logged).unwrap().hash, candidate.compiled.hash, "the log needs no rules");
    assert!(holds(&candidate.compiled.document));
    Ok(candidate)
}

fn refused(document: &Value, operations: &str) -> (Layer, &'static str, String) {
    let refusal =
        patched(document, operations).map(|made| panic!("{operations}\n{}", made.compiled.canonical));
    let refusal = refusal.unwrap_err();
    (refusal.layer, refusal.findings[0].code, refusal.findings[0].message.clone())
}

// F324, RELIABILITY I-11
#[test]
fn what_a_patch_adds_is_gated_in_the_same_version() {
    let base = made(BASE, MONEY);
    let made = patched(
        &base,
        r#"[{"op": "add", "path": "/nodes/-", "value": {"id": "refund", "type": "task", "tags": ["money"], "needs": ["sure"],
              "on_error": {"goto": "sorry"}}},
            {"op": "add", "path": "/nodes/-", "value": {"id": "sorry", "type": "function"}}]"#,
    )
    .unwrap();
    let document = &made.compiled.document;
    assert_eq!(gates(document).len(), 2);
    assert_eq!(text(document, "nodes/refund/type"), "composite");
    let edges = document.get("edges").unwrap();
    assert!(edges.get("sure/refund").is_some() && edges.get("refund/sorry:error").is_some(), "{edges}");
    // A run that had no tag has its rules all the same.
    let plain = self::made("nodes: {a: {type: task}}", MONEY);
    let tagged = patched(
        &plain,
        r#"[{"op": "test", "path": "/nodes/a/type", "value": "task"},
        {"op": "add", "path": "/nodes/a/tags", "value": ["money"]}]"#,
    )
    .unwrap();
    assert_eq!(gates(&tagged.compiled.document).len(), 1);
    // One that does not concern them is what it is.
    let own =
        patch::read(&value(r#"[{"op": "add", "path": "/nodes/b", "value": {"type": "task"}}]"#)).unwrap();
    assert!(with_gates(&plain, &own, Aim::Make).unwrap().is_none());
}

#[test]
fn no_patch_takes_a_gate_away_or_leads_around_it() {
    let base = made(BASE, MONEY);
    let inner = "/nodes/pay/with/body";
    for (operations, expected) in [
        (
            r#"[{"op": "replace", "path": "/nodes/pay", "value": {"type": "task"}}]"#.to_owned(),
            "cannot be taken out",
        ),
        (
            r#"[{"op": "remove", "path": "/nodes/pay"}, {"op": "remove", "path": "/edges/start~1pay"},
                {"op": "remove", "path": "/edges/pay~1sure"}]"#
                .to_owned(),
            "cannot be taken out",
        ),
        (format!(r#"[{{"op": "remove", "path": "{inner}/nodes/pay/tags"}}]"#), "cannot be taken away"),
        (
            format!(r#"[{{"op": "replace", "path": "{inner}/nodes/pay/tags", "value": ["x"]}}]"#),
            "cannot be taken away",
        ),
        (
            format!(
                r#"[{{"op": "replace", "path": "{inner}/nodes/gate_pay/with/reviewers", "value": ["cfo", "me"]}}]"#
            ),
            "cannot be changed",
        ),
        (
            format!(
                r#"[{{"op": "replace", "path": "{inner}/nodes/gate_pay/with/data", "value": "all is well"}}]"#
            ),
            "cannot be changed",
        ),
        (
            format!(r#"[{{"op": "remove", "path": "{inner}/nodes/gate_pay/with/policy"}}]"#),
            "cannot be changed",
        ),
        (
            format!(
                r#"[{{"op": "add", "path": "{inner}/edges/input_pay~1pay", "value": {{"from": "input_pay", "to": "pay"}}}}]"#
            ),
            "around",
        ),
        (
            format!(r#"[{{"op": "add", "path": "{inner}/nodes/gate_pay/on_error", "value": "continue"}}]"#),
            "let through",
        ),
    ] {
        let (layer, code, message) = refused(&base, &operations);
        assert_eq!((layer, code), (Layer::Security, "gate_removed"), "{operations}");
        assert!(message.contains(expected), "{operations}: {message}");
    }
    let gone = format!(r#"[{{"op": "remove", "path": "{inner}/edges/gate_pay~1pay:approved"}}]"#);
    assert_eq!(refused(&base, &gone).1, "not_an_ancestor", "its input is behind it too");
    let claim = r#"[{"op": "add", "path": "/nodes/x", "value": {"type": "human_review", "with": {"policy": "tag money"}}}]"#;
    assert_eq!(refused(&base, claim).1, "policy_reserved");
    assert_eq!(refused(&yaml(BASE).document, claim).1, "policy_reserved");
    let top = r#"[{"op": "replace", "path": "/policy/gates", "value": []}]"#;
    assert!(patch::read(&value(top)).is_err(), "rules are not a patch's to change");
}

#[test]
fn what_a_gate_shows_is_what_is_done() {
    let base = made(BASE, MONEY);
    let path = "/nodes/pay/with/body/nodes/pay";
    for change in [
        format!(r#"[{{"op": "replace", "path": "{path}/with/url", "value": "https://elsewhere/"}}]"#),
        format!(r#"[{{"op": "replace", "path": "{path}/input", "value": {{"n": 9}}}}]"#),
    ] {
        let made = patched(&base, &change).unwrap();
        let document = &made.compiled.document;
        assert_eq!(gates(document).len(), 1, "it is asked about once: {}", made.compiled.canonical);
        let (gate, node) = (at(document, "nodes/pay/with/body/nodes/gate_pay"), at(document, &path[1..]));
        assert_eq!(gate.get("input"), node.get("input"), "as it is now");
        assert_eq!(at(gate, "with/data").get("url"), at(node, "with").get("url"));
        assert_eq!(taken_back(document, &base).unwrap().compiled.document, base);
    }
    // What a gate cannot show where it stands is asked about again behind it.
    let named = format!(
        r#"[{{"op": "replace", "path": "{path}/with/url", "value": "https://bank/${{ nodes.gate_pay.output.reviewer }}"}}]"#
    );
    let made = patched(&base, &named).unwrap();
    assert_eq!(gates(&made.compiled.document).len(), 2, "{}", made.compiled.canonical);
}

// F324: another rule has its own gate, and nobody is asked twice.
#[test]
fn a_tag_that_a_gated_node_is_given_brings_one_gate() {
    const TWO: &str = r#"[{"tag": "money", "reviewers": ["cfo"]}, {"tag": "legal", "reviewers": ["lawyer"]},
        {"tag": "legal", "reviewers": ["judge"]}]"#;
    let base = made(BASE, TWO);
    let tags = "/nodes/pay/with/body/nodes/pay/tags";
    let operations = format!(
        r#"[{{"op": "replace", "path": "{tags}", "value": ["legal", "money"]}},
            {{"op": "replace", "path": "/nodes/pay/with/body/nodes/pay/with/url", "value": "https://elsewhere/"}}]"#
    );
    let made = patched(&base, &operations).unwrap();
    let document = &made.compiled.document;
    let whys: Vec<String> = gates(document).into_iter().map(|(_, why)| why).collect();
    assert_eq!(whys, ["tag money", "tag legal", "tag legal"], "{}", made.compiled.canonical);
    let edges = at(document, "nodes/pay/with/body/edges");
    let keys: Vec<&str> = match edges {
        Value::Map(map) => map.iter().map(|(key, _)| &**key).collect(),
        _ => Vec::new(),
    };
    let chain = [
        "gate_pay/pay:approved",
        "gate_pay_2/gate_pay:approved",
        "gate_pay_3/gate_pay_2:approved",
        "input_pay/gate_pay_3",
    ];
    assert_eq!(keys, chain);
    for gate in ["gate_pay", "gate_pay_2", "gate_pay_3"] {
        let url = text(document, &format!("nodes/pay/with/body/nodes/{gate}/with/data/url"));
        assert_eq!(url, "https://elsewhere/");
    }
}

// F096, F324: what a patch brought goes with it, its gates too; what it only found there stays.
#[test]
fn a_patch_that_brought_a_gated_node_can_be_taken_back() {
    let base = made(BASE, RULES);
    let operations = r#"[{"op": "add", "path": "/nodes/-", "value": {"id": "refund", "type": "task", "tags": ["money"], "needs": ["sure"]}},
        {"op": "add", "path": "/nodes/-", "value": {"id": "each", "type": "map", "needs": ["refund"],
            "with": {"over": "[1]", "body": {"type": "task", "tags": ["money"]}}}}]"#;
    let made = patched(&base, operations).unwrap();
    assert!(gates(&made.compiled.document).len() > gates(&base).len());
    let back = taken_back(&made.compiled.document, &base).unwrap();
    assert_eq!(back.compiled.document, base);
    // No patch says that it is taking back.
    let gone = patch::difference(&made.compiled.document, &base);
    let refused = put(&made.compiled.document, &gone, Aim::Make).map(|made| made.compiled.canonical);
    assert_eq!(refused.unwrap_err().findings[0].code, "gate_removed");
    // A gate whose node stays does not go, nor does what an author asks.
    let plain = self::made("nodes: {a: {type: task}, ask: {type: human_review}}", MONEY);
    for operations in [
        r#"[{"op": "add", "path": "/nodes/a/tags", "value": ["money"]}]"#,
        r#"[{"op": "add", "path": "/nodes/more", "value": {"type": "human_review"}}]"#,
        r#"[{"op": "add", "path": "/nodes/all", "value": {"type": "composite", "with": {"body": {
            "nodes": {"ask": {"type": "human_review"}, "pay": {"type": "task", "tags": ["money"], "needs": ["ask"]}}}}}}]"#,
    ] {
        let made = patched(&plain, operations).unwrap().compiled.document;
        let refused = taken_back(&made, &plain).map(|made| made.compiled.canonical).unwrap_err();
        assert_eq!(refused.findings[0].code, "gate_removed", "{operations}");
    }
}

#[test]
fn a_look_at_an_output_cannot_be_led_around() {
    let base = made(BASE, RULES);
    let inner = "/nodes/sure/with/body";
    let looked = format!(r#"{inner}/edges/sure~1review_sure"#);
    for (operations, count) in [
        (format!(r#"[{{"op": "replace", "path": "{looked}/when", "value": "false"}}]"#), 2),
        (
            format!(
                r#"[{{"op": "add", "path": "{inner}/nodes/x", "value": {{"type": "function"}}}},
                    {{"op": "add", "path": "{inner}/edges/review_sure~1x:error", "value": {{"from": "review_sure", "to": "x", "on": "error"}}}}]"#
            ),
            2,
        ),
        (
            format!(
                r#"[{{"op": "add", "path": "{inner}/nodes/x", "value": {{"type": "function"}}}},
                    {{"op": "add", "path": "{inner}/edges/sure~1x", "value": {{"from": "sure", "to": "x"}}}}]"#
            ),
            2,
        ),
    ] {
        let made = patched(&base, &operations).unwrap();
        let looks = gates(&made.compiled.document).into_iter().filter(|(at, _)| at.contains("/sure/"));
        assert_eq!(looks.count(), count, "{operations}");
    }
}
