//! Nobody is led around a human who has to be asked.

use super::*;

/// start -> review -> deploy -> report; start -> build -> report; review -> back when it is rejected.
const BASE: &str = r#"
nodes:
  start: {type: function}
  build: {type: task}
  review:
    type: human_review
    timeout: 2h
    with: {reviewers: [ops, lead], timeout: 1h, on_timeout: reject, data: "${ nodes.start.output }"}
  deploy: {type: task}
  report: {type: task}
  back: {type: task}
edges:
  - {from: start, to: build}
  - {from: build, to: report}
  - {from: start, to: review}
  - {from: review, to: deploy, on: approved}
  - {from: review, to: back, on: rejected}
  - {from: deploy, to: report}
"#;

fn judge(base: &Value, operations: &str) -> Result<Candidate, Refusal> {
    candidate(base, &patch(&format!("[{operations}]")))
}

fn replace(path: &str, value: &str) -> String {
    format!(r#"{{"op": "replace", "path": "{path}", "value": {value}}}"#)
}

fn add(path: &str, value: &str) -> String {
    format!(r#"{{"op": "add", "path": "{path}", "value": {value}}}"#)
}

fn edge(from: &str, to: &str, on: &str) -> String {
    add("/edges/-", &format!(r#"{{"from": "{from}", "to": "{to}", "on": "{on}"}}"#))
}

fn remove(path: &str) -> String {
    format!(r#"{{"op": "remove", "path": "{path}"}}"#)
}

/// Refused for nothing but gates; where.
fn refused_at(base: &Value, operations: &str) -> Vec<(Option<usize>, String)> {
    let refused = judge(base, operations).expect_err(operations);
    assert_eq!(refused.layer, Layer::Security, "{operations}: {refused}");
    let found = refused.findings.iter();
    found
        .map(|finding| {
            assert_eq!(finding.code, "gate_removed", "{operations}");
            (finding.operation, finding.pointer.clone())
        })
        .collect()
}

#[test]
fn a_gate_stays_and_gets_no_looser() {
    // F106
    let base = document(BASE);
    let review = "/nodes/review";
    let all = [
        remove(review),
        remove("/edges/start~1review"),
        remove("/edges/review~1deploy:approved"),
        remove("/edges/review~1back:rejected"),
    ]
    .join(",");
    let found = refused_at(&base, &all);
    assert!(found.contains(&(Some(0), review.into())), "{found:?}");
    // Whoever decides has to say why, and goes on having to.
    let told = document(&BASE.replace("reviewers: [ops, lead]", "reason: required, reviewers: [ops, lead]"));
    for operations in [
        remove("/nodes/review/with/reason"),
        replace("/nodes/review/with/reason", r#""optional""#),
        replace(
            "/nodes/review/with",
            r#"{"reviewers": ["ops", "lead"], "on_timeout": "reject", "timeout": "1h"}"#,
        ),
        replace(
            "/nodes/review",
            r#"{"type": "human_review", "timeout": "2h", "with": {"reviewers": ["ops", "lead"]}}"#,
        ),
    ] {
        assert_eq!(refused_at(&told, &operations), [(Some(0), review.to_owned())], "{operations}");
    }
    assert!(judge(&base, &add("/nodes/review/with/reason", r#""required""#)).is_ok());
    for operations in [
        replace("/nodes/review/with/reviewers", r#"["ops"]"#),
        replace("/nodes/review/with/reviewers", r#"["ops", "me"]"#),
        replace("/nodes/review/with/reviewers", r#"["ops", "lead", "me"]"#),
        add("/nodes/review/with/escalate", r#"[{"after": "1s", "to": ["me"]}]"#),
        replace("/nodes/review/with/reviewers", r#""${ nodes.start.output }""#),
        replace("/nodes/review/with/reviewers", "[]"),
        remove("/nodes/review/with/reviewers"),
        replace("/nodes/review/with/on_timeout", r#""approve""#),
        add("/nodes/review/on_error", r#""continue""#),
        add("/nodes/review/fallback", r#"{"approved": true}"#),
        add("/nodes/review/fallback", r#"{"type": "function", "with": {"expr": "{'approved': true}"}}"#),
    ] {
        assert_eq!(refused_at(&base, &operations), [(Some(0), review.to_owned())], "{operations}");
    }
    for operations in [
        replace("/nodes/review/with/reviewers", r#"["lead", "ops"]"#),
        replace("/nodes/review/with/on_timeout", r#""fail""#),
        replace("/nodes/review/with/timeout", r#""1m""#),
        remove("/nodes/review/timeout"),
        add("/nodes/review/description", r#""asks""#),
        add("/nodes/review/with/form", r#"{"type": "object"}"#),
        add("/nodes/second", r#"{"type": "human_review", "needs": ["build"]}"#),
    ] {
        assert!(judge(&base, &operations).is_ok(), "{operations}");
    }
}

#[test]
fn what_is_asked_for_and_after_which_time_whom_else_stays() {
    let asks = "with: {form: {type: object, required: [reason]}, escalate: [{after: 5m, to: [boss]}],";
    let base = document(&BASE.replace("with: {reviewers", &format!("{asks} reviewers")));
    for operations in [
        remove("/nodes/review/with/form"),
        replace("/nodes/review/with/form", "{}"),
        remove("/nodes/review/with/escalate"),
        replace("/nodes/review/with/escalate", r#"[{"after": "5m", "to": ["me"]}]"#),
        replace("/nodes/review/with/escalate", r#"[{"after": "5m", "to": ["boss", "me"]}]"#),
    ] {
        assert_eq!(refused_at(&base, &operations), [(Some(0), "/nodes/review".to_owned())], "{operations}");
    }
    // Anybody may decide: then some may be named.
    let anybody = document(&BASE.replace("reviewers: [ops, lead], ", ""));
    assert!(judge(&anybody, &add("/nodes/review/with/reviewers", r#"["ops"]"#)).is_ok());
}

#[test]
fn a_gate_cannot_become_something_else() {
    let base = document(
        &BASE
            .replace("on: approved", "on: success")
            .replace("  - {from: review, to: back, on: rejected}\n", ""),
    );
    assert_eq!(
        refused_at(&base, &replace("/nodes/review", r#"{"type": "function"}"#)),
        [(Some(0), "/nodes/review".to_owned())]
    );
    let renamed = [
        r#"{"op": "move", "from": "/nodes/review", "path": "/nodes/other"}"#.to_owned(),
        remove("/edges/start~1review"),
        remove("/edges/review~1deploy"),
        edge("start", "other", "success"),
        edge("other", "deploy", "success"),
    ];
    let found = refused_at(&base, &renamed.join(","));
    assert!(found.contains(&(Some(0), "/nodes/review".to_owned())), "{found:?}");
}

#[test]
fn a_gate_that_lets_through_for_want_of_an_answer_waits_as_long_as_it_did() {
    let base = document(&BASE.replace("on_timeout: reject", "on_timeout: approve"));
    for operations in [
        replace("/nodes/review/with/timeout", r#""59m""#),
        replace("/nodes/review/timeout", r#""1s""#),
        replace("/nodes/review/timeout", "1"),
    ] {
        assert_eq!(refused_at(&base, &operations), [(Some(0), "/nodes/review".to_owned())], "{operations}");
    }
    for operations in [
        replace("/nodes/review/with/timeout", r#""90m""#),
        replace("/nodes/review/timeout", r#""1h""#),
        remove("/nodes/review/with/timeout"),
        replace("/nodes/review/with/on_timeout", r#""reject""#),
    ] {
        assert!(judge(&base, &operations).is_ok(), "{operations}");
    }
    let endless = document(
        &BASE
            .replace("timeout: 2h", "x-a: 1")
            .replace("timeout: 1h, on_timeout: reject", "on_timeout: approve"),
    );
    assert_eq!(refused_at(&endless, &add("/nodes/review/timeout", r#""1d""#)).len(), 1);
}

#[test]
fn the_answers_of_a_gate_lead_where_they_led() {
    let base = document(BASE);
    let gone = [remove("/edges/review~1back:rejected"), remove("/nodes/back")].join(",");
    assert_eq!(refused_at(&base, &gone), [(Some(0), "/edges/review~1back:rejected".to_owned())]);
    let never = add("/edges/review~1back:rejected/when", r#""false""#);
    assert_eq!(refused_at(&base, &never), [(Some(0), "/edges/review~1back:rejected".to_owned())]);
    let noted = add("/edges/review~1back:rejected/metadata", r#"{"a": 1}"#);
    assert!(judge(&base, &noted).is_ok());
    let more = [add("/nodes/more", r#"{"type": "task"}"#), edge("review", "more", "rejected")].join(",");
    assert!(judge(&base, &more).is_ok());
}

#[test]
fn nothing_leads_around_a_gate() {
    // F106
    let base = document(BASE);
    let new = add("/nodes/new", r#"{"type": "function"}"#);
    let by_new = |from: &str, on: &str| {
        [new.clone(), edge(from, "new", on), edge("new", "deploy", "success")].join(",")
    };
    for (operations, by, at) in [
        (edge("start", "deploy", "success"), 0, "/edges/start~1deploy"),
        (edge("build", "deploy", "error"), 0, "/edges/build~1deploy:error"),
        (edge("back", "deploy", "success"), 0, "/edges/back~1deploy"),
        (edge("review", "deploy", "rejected"), 0, "/edges/review~1deploy:rejected"),
        (edge("review", "deploy", "timeout"), 0, "/edges/review~1deploy:timeout"),
        (edge("review", "deploy", "error"), 0, "/edges/review~1deploy:error"),
        (by_new("start", "success"), 2, "/edges/new~1deploy"),
        (by_new("review", "rejected"), 2, "/edges/new~1deploy"),
        ([new.clone(), edge("new", "deploy", "success")].join(","), 1, "/edges/new~1deploy"),
        (add("/nodes/deploy/needs", r#"["start"]"#), 0, "/edges/start~1deploy"),
        (add("/nodes/build/on_error", r#"{"goto": "deploy"}"#), 0, "/edges/build~1deploy:error"),
    ] {
        let found = refused_at(&base, &operations);
        assert_eq!(found.len(), 1, "{operations}");
        assert_eq!(found[0].1, at, "{operations}");
        if at.contains("new") || by == 0 && operations.contains("/edges/-") {
            assert_eq!(found[0].0, Some(by), "{operations}");
        }
    }
    for operations in [
        // Who may be reached without the gate already may be so in other ways.
        edge("start", "report", "success"),
        edge("back", "report", "success"),
        // Behind the gate everything is open.
        by_new("review", "approved"),
        by_new("review", "success"),
        edge("review", "deploy", "success"),
        [new.clone(), edge("deploy", "new", "success"), edge("new", "report", "success")].join(","),
        // What is new may stand anywhere.
        [new.clone(), edge("start", "new", "success")].join(","),
    ] {
        assert!(judge(&base, &operations).is_ok(), "{operations}");
    }
}

/// first -> a -> second -> b, or third -> b; a -> c
const SERIES: &str = r#"
nodes:
  first: {type: human_review}
  a: {type: task}
  second: {type: human_review}
  third: {type: human_review}
  b: {type: task}
  c: {type: task}
edges:
  - {from: first, to: a}
  - {from: a, to: second}
  - {from: a, to: third}
  - {from: a, to: c}
  - {from: second, to: b, on: approved}
  - {from: third, to: b, on: approved}
"#;

#[test]
fn gates_behind_gates_and_beside_gates_are_all_asked() {
    let base = document(SERIES);
    for operations in [
        edge("first", "b", "approved"),
        edge("a", "b", "success"),
        edge("c", "b", "success"),
        edge("second", "b", "rejected"),
        // `b` needs one of two, `second` needs the first.
        [add("/nodes/new", r#"{"type": "task"}"#), edge("new", "second", "success")].join(","),
    ] {
        assert_eq!(refused_at(&base, &operations).len(), 1, "{operations}");
    }
    for operations in [
        // Whoever comes from `b` has been asked more than `c` needs.
        edge("b", "c", "success"),
        edge("second", "c", "approved"),
        edge("second", "c", "rejected"),
        edge("first", "c", "success"),
    ] {
        assert!(judge(&base, &operations).is_ok(), "{operations}");
    }
}

#[test]
fn what_stood_behind_a_gate_does_not_run_at_once() {
    let base = document(
        "nodes: {ask: {type: human_review}, go: {type: task}, end: {type: task}}\nedges: [{from: ask, to: go}, {from: go, to: end}]\n",
    );
    assert_eq!(refused_at(&base, &remove("/edges/ask~1go")), [(Some(0), "/edges/ask~1go".to_owned())]);
    let both = [remove("/edges/go~1end"), edge("ask", "end", "success")].join(",");
    assert!(judge(&base, &both).is_ok());
}

#[test]
fn gates_in_bodies_are_gates() {
    let body = "{nodes: {ask: {type: human_review}, go: {type: task}}, edges: [{from: ask, to: go}]}";
    let base = document(&format!(
        "nodes:\n  each: {{type: map, with: {{over: '[1]', body: {body}}}}}\n  \
         both: {{type: parallel, with: {{branches: {{one: {{type: human_review}}, two: {{type: task}}}}}}}}\n  \
         try: {{type: task, fallback: {body}}}\n"
    ));
    for (operations, at) in [
        (remove("/nodes/each"), "/nodes/each/with/body/nodes/ask"),
        (replace("/nodes/each", r#"{"type": "function"}"#), "/nodes/each/with/body/nodes/ask"),
        (replace("/nodes/each/with/body", r#"{"type": "task"}"#), "/nodes/each/with/body/nodes/ask"),
        (add("/nodes/each/with/body/nodes/ask/on_error", r#""continue""#), "/nodes/each/with/body/nodes/ask"),
        (
            add("/nodes/each/with/body/edges/ask~1go:error", r#"{"from": "ask", "to": "go", "on": "error"}"#),
            "/nodes/each/with/body/edges/ask~1go:error",
        ),
        (remove("/nodes/both/with/branches/one"), "/nodes/both/with/branches/one"),
        (replace("/nodes/both/with/branches/one", r#"{"type": "task"}"#), "/nodes/both/with/branches/one"),
        (remove("/nodes/try/fallback"), "/nodes/try/fallback/nodes/ask"),
    ] {
        assert_eq!(refused_at(&base, &operations), [(Some(0), at.to_owned())], "{operations}");
    }
    let looped = r#"[{"op": "add", "path": "/nodes/each/type", "value": "loop"},
        {"op": "add", "path": "/nodes/each/with", "value": {"while": "false", "max_iterations": 1, "body":
            {"nodes": {"ask": {"type": "human_review"}, "go": {"type": "task"}}, "edges": [{"from": "ask", "to": "go"}]}}}]"#;
    assert!(candidate(&base, &patch(looped)).is_ok(), "the gate is where it was");
}

// F324: what rules go by stays, whether there are rules or not: they are put on when a run begins.
#[test]
fn tags_stay_where_they_are() {
    let base = document("nodes: {pay: {type: task, tags: [money, legal]}}");
    let at = |operations: &str| refused_at(&base, operations);
    assert_eq!(at(&remove("/nodes/pay/tags")), [(Some(0), String::from("/nodes/pay"))]);
    assert_eq!(at(&replace("/nodes/pay/tags", r#"["legal"]"#)), [(Some(0), String::from("/nodes/pay"))]);
    judge(&base, &replace("/nodes/pay/tags", r#"["money", "legal", "deletion"]"#)).unwrap();
}
