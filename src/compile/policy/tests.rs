//! Where gates go, and where not.

mod patched;
mod property;

use super::*;
use crate::compile::{Format, Options, compile};

pub(super) fn value(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap_or_else(|failure| panic!("{text}: {failure}"))
}

pub(super) fn yaml(text: &str) -> Compiled {
    compile(text.as_bytes(), Format::Yaml, &Options::default())
        .unwrap_or_else(|refused| panic!("{text}\n{refused}"))
}

pub(super) fn rules(text: &str) -> Rules {
    Rules::read(&value(text)).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

pub(super) const MONEY: &str =
    r#"[{"tag": "money", "reviewers": ["cfo"], "escalate": [{"after": "1h", "to": ["ceo"]}]}]"#;

/// The document with its gates; putting them in again changes nothing, and it compiles to what it is.
fn made(text: &str, written: &str) -> Value {
    let made =
        materialise(&yaml(text), "w", &rules(written)).unwrap_or_else(|refused| panic!("{text}\n{refused}"));
    let made = made.expect("the rule is about it");
    assert!(holds(&made.document), "{}", made.canonical);
    assert_eq!(recorded(&made.document).as_ref(), Some(&rules(written)));
    let again = compile_canonical(made.canonical.as_bytes()).unwrap();
    assert_eq!((again.hash, &again.document), (made.hash, &made.document));
    made.document
}

fn at<'d>(document: &'d Value, path: &str) -> &'d Value {
    path.split('/')
        .fold(document, |value, key| value.get(key).unwrap_or_else(|| panic!("{path} in {document}")))
}

fn text<'d>(document: &'d Value, path: &str) -> &'d str {
    at(document, path).as_str().unwrap_or_else(|| panic!("{path}"))
}

// F324
#[test]
fn a_tagged_node_stands_behind_a_gate_in_a_body_of_its_own() {
    let made = made(
        r#"
nodes:
  start: {type: function, with: {expr: "1"}}
  other: {type: function}
  pay: {type: http, tags: [eu, money], with: {method: POST, url: "https://bank/${ inputs.to }", body: {n: "${ input }"}},
        outputs: [status], on_error: continue, retry: {max_attempts: 5}, priority: high}
  after: {type: function, with: {expr: nodes.pay.output.status}}
edges: [{from: start, to: pay}, {from: other, to: pay, when: "true"}, {from: pay, to: after}]
"#,
        MONEY,
    );
    let expected = value(
        r#"{"type": "composite", "outputs": ["status"], "on_error": "continue", "priority": "high", "with": {"body": {
            "outputs": "${ nodes[\"pay\"].output }",
            "nodes": {
                "input_pay": {"type": "function"},
                "gate_pay": {"type": "human_review", "input": "${ nodes[\"input_pay\"].output }", "with": {
                    "reviewers": ["cfo"], "escalate": [{"after": "1h", "to": ["ceo"]}], "policy": "tag money",
                    "data": {"policy": "tag money", "node": "pay", "type": "http", "method": "POST",
                        "url": "https://bank/${ inputs.to }", "body": {"n": "${ input }"}, "input": "${ input }"}}},
                "pay": {"type": "http", "tags": ["eu", "money"], "input": "${ nodes[\"input_pay\"].output }",
                    "retry": {"max_attempts": 5}, "priority": "high",
                    "with": {"method": "POST", "url": "https://bank/${ inputs.to }", "body": {"n": "${ input }"}}}
            },
            "edges": {
                "input_pay/gate_pay": {"from": "input_pay", "to": "gate_pay"},
                "gate_pay/pay:approved": {"from": "gate_pay", "to": "pay", "on": "approved"}
            }}}}"#,
    );
    assert_eq!(at(&made, "nodes/pay"), &expected);
    assert_eq!(gates(&made), [("/nodes/pay/with/body/nodes/gate_pay".to_owned(), "tag money".to_owned())]);
}

#[test]
fn bodies_fallbacks_and_single_nodes_are_gated_too() {
    let made = made(
        r#"
nodes:
  each: {type: map, with: {over: inputs.list, body: {type: task, tags: [money]}}}
  round: {type: loop, with: {while: "iteration < 2", max_iterations: 3, body: {nodes: {pay: {type: task, tags: [money]}}}}}
  fan: {type: parallel, with: {branches: {left: {type: task, tags: [money], with: {queue: q}}, right: {type: task}}}}
  safe: {type: task, fallback: {type: task, tags: [money]}}
"#,
        MONEY,
    );
    let found: Vec<String> = gates(&made).into_iter().map(|(at, _)| at).collect();
    assert_eq!(
        found,
        [
            "/nodes/each/with/body/with/body/nodes/gate_body",
            "/nodes/fan/with/branches/left/with/body/nodes/gate_body",
            "/nodes/round/with/body/nodes/pay/with/body/nodes/gate_pay",
            "/nodes/safe/fallback/with/body/nodes/gate_body",
        ]
    );
    assert_eq!(
        text(&made, "nodes/each/with/body/with/body/nodes/body/with/queue"),
        "body",
        "as without the gate"
    );
    assert_eq!(text(&made, "nodes/fan/with/branches/left/with/body/nodes/body/with/queue"), "q");
}

#[test]
fn an_authors_own_review_counts_when_it_is_as_strict() {
    let gated = |review: &str, edge: &str| {
        let text = format!(
            "nodes: {{ask: {{type: human_review, {review}}}, pay: {{type: task, tags: [money]}}}}\nedges: [{{from: ask, to: pay{edge}}}]"
        );
        !gates(&made(&text, MONEY)).is_empty()
    };
    for review in [
        "with: {reviewers: [cfo]}",
        "with: {reviewers: [cfo], timeout: 5m, on_timeout: reject, reason: required}",
        "with: {reviewers: [ceo, cfo], escalate: [{after: 1s, to: [cfo]}]}",
    ] {
        assert!(!gated(review, "") && !gated(review, ", on: approved"), "{review}");
        assert!(gated(review, ", on: rejected") && gated(review, ", on: error"), "{review}");
    }
    for weaker in [
        "with: {}",
        "with: {reviewers: []}",
        "with: {reviewers: [cfo, intern]}",
        "with: {reviewers: \"${ inputs.who }\"}",
        "with: {reviewers: [cfo], escalate: [{after: 1s, to: [intern]}]}",
        "with: {reviewers: [cfo], timeout: 1s, on_timeout: approve}",
        "with: {reviewers: [cfo]}, on_error: continue",
        "with: {reviewers: [cfo]}, fallback: 1",
    ] {
        assert!(gated(weaker, ""), "{weaker}");
    }
    let also = r"
nodes: {ask: {type: human_review, with: {reviewers: [cfo]}}, other: {type: function}, pay: {type: task, tags: [money]}}
edges: [{from: ask, to: pay}, {from: other, to: pay}]";
    assert_eq!(gates(&made(also, MONEY)).len(), 1, "another way leads around it");
}

#[test]
fn every_rule_of_a_node_has_a_gate_and_ids_are_free() {
    let two = r#"[{"tag": "money", "reviewers": ["cfo"]}, {"tag": "legal", "reviewers": ["lawyer"], "reason_required": true},
        {"confidence_below": 0.5, "reviewers": ["expert"]}]"#;
    let document = made(
        r#"
nodes:
  gate_pay: {type: function, with: {expr: "7"}}
  pay: {type: task, tags: [legal, money], with: {payload: "${ nodes.gate_pay.output }"}}
edges: [{from: gate_pay, to: pay}]
"#,
        two,
    );
    let found: Vec<(String, String)> = gates(&document)
        .into_iter()
        .map(|(at, why)| (at.rsplit('/').next().unwrap().to_owned(), why))
        .collect();
    let expected =
        [("gate_pay_2", "tag money"), ("gate_pay_3", "tag legal"), ("review_pay", "confidence below 0.5")];
    assert_eq!(found, expected.map(|(id, why)| (id.to_owned(), why.to_owned())));
    assert_eq!(text(&document, "nodes/pay/with/body/nodes/gate_pay_3/with/reason"), "required");
    let long = format!("nodes: {{{}: {{type: task, tags: [money]}}}}", "n".repeat(limits().0));
    assert_eq!(gates(&made(&long, MONEY)).len(), 1);
}

fn limits() -> (usize, usize) {
    (crate::limits::NODE_ID_BYTES_MAX, crate::limits::TAGS_PER_NODE_MAX)
}

#[test]
fn a_rule_is_about_the_workflows_it_names() {
    let compiled = yaml("nodes: {pay: {type: task, tags: [money]}}");
    let made = |patterns: &str, name: &str| {
        let rules = format!(r#"[{{"tag": "money", "reviewers": ["cfo"], "workflows": {patterns}}}]"#);
        materialise(&compiled, name, &self::rules(&rules)).unwrap().is_some()
    };
    for (patterns, name, is) in [
        (r#"["pay*"]"#, "payments", true),
        (r#"["pay*"]"#, "acme/payments", true),
        (r#"["pay*"]"#, "repay", false),
        (r#"["*ay?"]"#, "repays", true),
        (r#"["acme/*"]"#, "acme/payments", true),
        (r#"["acme/*"]"#, "payments", false),
        (r#"["a", "b*c*d"]"#, "bxcyd", true),
    ] {
        assert_eq!(made(patterns, name), is, "{patterns} {name}");
    }
    let none = materialise(&compiled, "w", &Rules::default()).unwrap();
    assert!(none.is_none());
}

#[test]
fn what_is_no_rule_is_refused_in_one_line() {
    for (written, expected) in [
        ("{}", "a list of rules"),
        ("[3]", "rule 1: a table"),
        (r#"[{"tag": "money", "reviewers": ["a"]}, {"reviewers": ["a"]}]"#, "rule 2: a rule has either"),
        (r#"[{"tag": "money", "confidence_below": 1, "reviewers": ["a"]}]"#, "either"),
        (r#"[{"tag": "mo ney", "reviewers": ["a"]}]"#, "tag must be"),
        (r#"[{"confidence_below": "x", "reviewers": ["a"]}]"#, "confidence_below"),
        (r#"[{"confidence_below": -1, "reviewers": ["a"]}]"#, "confidence_below"),
        (r#"[{"tag": "money"}]"#, "`reviewers` is missing"),
        (r#"[{"tag": "money", "reviewers": []}]"#, "reviewers has 0 names"),
        (r#"[{"tag": "money", "reviewers": ["${ inputs.x }"]}]"#, "names are names"),
        (r#"[{"tag": "money", "reviewers": ["a"], "reviewer": 1}]"#, "did you mean"),
        (r#"[{"tag": "money", "reviewers": ["a"], "timeout": "soon"}]"#, "timeout must be a duration"),
        (r#"[{"tag": "money", "reviewers": ["a"], "on_timeout": "shrug"}]"#, "on_timeout must be"),
        (r#"[{"tag": "money", "reviewers": ["a"], "escalate": [{"after": "1h"}]}]"#, "`to`"),
        (r#"[{"tag": "money", "reviewers": ["a"], "reason_required": 1}]"#, "reason_required"),
        (r#"[{"tag": "money", "reviewers": ["a"], "workflows": "x"}]"#, "workflows must be a list"),
    ] {
        let problem = Rules::read(&value(written)).unwrap_err();
        assert!(problem.contains(expected) && !problem.contains('\n'), "{written}: {problem}");
    }
    let many = format!("[{}]", [r#"{"tag": "t", "reviewers": ["a"]}"#; 65].join(","));
    assert!(Rules::read(&value(&many)).unwrap_err().contains("policy_rules_max"));
}

#[test]
fn tags_are_checked_and_what_a_policy_writes_is_no_authors() {
    let many: Vec<String> = (0..=limits().1).map(|n| format!("t{n}")).collect();
    for (text, code, pointer) in [
        ("nodes: {a: {type: task, tags: money}}".to_owned(), "wrong_type", "/nodes/a/tags"),
        ("nodes: {a: {type: task, tags: [m y]}}".to_owned(), "invalid_tag", "/nodes/a/tags/0"),
        (
            format!("nodes: {{a: {{type: task, tags: [{}]}}}}", many.join(", ")),
            "tags_per_node_max",
            "/nodes/a/tags",
        ),
        ("nodes: {a: {type: join, tags: [money]}}".to_owned(), "tags_not_here", "/nodes/a/tags"),
        (
            "steps: [{id: a, type: conditional, condition: 'true', tags: [money]}, {id: b, type: task}]"
                .to_owned(),
            "tags_not_here",
            "/steps/0/tags",
        ),
        ("{nodes: {a: {type: task}}, policy: {gates: []}}".to_owned(), "policy_reserved", "/policy"),
        (
            "nodes: {a: {type: human_review, with: {policy: tag money}}}".to_owned(),
            "policy_reserved",
            "/nodes/a/with/policy",
        ),
    ] {
        let refused = compile(text.as_bytes(), Format::Yaml, &Options::default()).unwrap_err();
        let found: Vec<_> = refused.errors.iter().map(|found| (found.code, found.pointer.as_str())).collect();
        assert!(found.contains(&(code, pointer)), "{text}: {found:?}");
    }
    let steps = yaml("steps: [{id: a, type: task, tags: [money]}]");
    assert_eq!(
        steps.document.get("nodes").unwrap().get("a").unwrap().get("tags"),
        Some(&value(r#"["money"]"#))
    );
    // Tags of a workflow are its own affair.
    let labels = yaml("metadata: {tags: [money]}\nnodes: {a: {type: task}}");
    assert_eq!(gated(&labels.document, &rules(MONEY)), labels.document);
}
