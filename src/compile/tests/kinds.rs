//! Every kind and key of the language: what it becomes, and what is wrong with it.

use std::time::Duration;

use super::*;
use crate::ir::{
    Backoff, Executor, Fallback, Kind, OnExhausted, OnTimeout, ParentClose, Part, Retry, Slot, Template,
};
use crate::model::Priority;

/// The first node of a document with the one node `a`.
fn node(text: &str) -> crate::ir::Node {
    let compiled = good(&format!("nodes: {{a: {text}}}"));
    assert!(compiled.unavailable.is_empty(), "{:?}", compiled.unavailable);
    compiled.ir.root().nodes[0].clone()
}

/// (code, pointer) of the first finding.
fn wrong(text: &str) -> (&'static str, String) {
    let refused = yaml(text).err().unwrap_or_else(|| panic!("{text} was accepted"));
    (refused.errors[0].code, refused.errors[0].pointer.clone())
}

#[test]
fn every_kind_is_lowered() {
    // F268, F269
    let Kind::Parallel { branches, results: false } =
        node("{type: parallel, with: {branches: {r: {type: function}, l: {type: function}}}}").kind
    else {
        panic!()
    };
    assert_eq!(branches, [("l".into(), 1), ("r".into(), 2)]);
    let repeat = node(
        "{type: loop, with: {while: 'iteration < 3 && input > output', max_iterations: 5, on_exhausted: continue, body: {type: function, with: {expr: iteration}}}}",
    );
    let Kind::Loop { condition, body: 1, max_iterations: 5, on_exhausted: OnExhausted::Continue } =
        repeat.kind
    else {
        panic!("{repeat:?}")
    };
    assert_eq!(condition.slots, [Slot::NextIteration, Slot::Input, Slot::EdgeOutput]);
    let composite = node("{type: composite, with: {body: {type: function}}}").kind;
    assert!(matches!(composite, Kind::Composite { body: 1 }));
    let child = node("{type: composite, with: {workflow: other@prod, parent_close: abandon}}").kind;
    assert!(
        matches!(child, Kind::Child { workflow, parent_close: ParentClose::Abandon } if &*workflow == "other@prod")
    );
    let review = node(
        "{type: approval, timeout: 2h, with: {reviewers: [ops], timeout: 60m, escalate: [{after: 30m, to: [lead]}], on_timeout: approve, form: {type: object}, data: '${ inputs.x }'}}",
    );
    assert_eq!(review.timeout, Some(Duration::from_secs(3_600)), "the shorter of the two");
    let Kind::HumanReview(review) = review.kind else { panic!() };
    assert_eq!((review.escalate[0].0, review.on_timeout), (Duration::from_secs(1_800), OnTimeout::Approve));
}

#[test]
fn a_branch_may_have_the_name_of_a_reviews_end() {
    let on = |kind: &str| {
        let text =
            format!("nodes: {{a: {kind}, b: {{type: function}}}}\nedges: [{{from: a, to: b, on: approved}}]");
        good(&text).ir.root().edges[0].on.clone()
    };
    assert_eq!(on("{type: human_review}"), crate::ir::On::Approved);
    let branch = "{type: conditional, with: {branches: [{name: approved, when: 'true'}]}}";
    assert_eq!(on(branch), crate::ir::On::Branch("approved".into()));
}

#[test]
fn names_mean_the_nearest_body_that_has_them() {
    let compiled = good(
        "nodes: {each: {type: map, with: {over: '[1]', body: {nodes: {again: {type: loop, with: {while: 'item > 0 && iteration < 1', max_iterations: 2, body: {type: composite, with: {body: {type: function, with: {expr: 'item + index + iteration'}}}}}}}}}}}",
    );
    let scopes = &compiled.ir.scopes;
    let Kind::Loop { condition, .. } = &scopes[1].nodes[0].kind else { panic!() };
    assert_eq!(condition.slots, [Slot::Item { up: 0 }, Slot::NextIteration]);
    let Kind::Function { expr: Some(expr) } = &scopes[3].nodes[0].kind else { panic!() };
    assert_eq!(expr.slots, [Slot::Item { up: 2 }, Slot::Index { up: 2 }, Slot::Iteration { up: 1 }]);
    for (expr, body) in [
        ("item", "{type: loop, with: {while: 'true', max_iterations: 1, body: B}}"),
        ("iteration", "{type: map, with: {over: '[1]', body: B}}"),
        ("item", "{type: composite, with: {body: B}}"),
    ] {
        let body = body.replace('B', &format!("{{type: function, with: {{expr: {expr}}}}}"));
        assert_eq!(wrong(&format!("nodes: {{a: {body}}}")).0, "name_not_here");
    }
}

#[test]
fn retries_are_read_in_the_words_of_every_source() {
    // F270, F281, F354, F359, F360, F363, D11
    let policy = |text: &str| node(&format!("{{type: http, retry: {text}}}")).retry.unwrap();
    let seconds = Duration::from_secs;
    let plain = Retry {
        max_attempts: 3,
        backoff: Backoff::Exponential,
        initial: seconds(1),
        max: seconds(60),
        multiplier: 2.0,
        jitter: true,
    };
    assert_eq!(policy("{}"), plain);
    assert_eq!(node("{type: http}").retry.unwrap(), plain, "calls are tried again without being told to");
    assert_eq!(policy("{max_retries: 3}"), Retry { max_attempts: 4, ..plain.clone() });
    assert_eq!(policy("{max_retries: 0}"), Retry { max_attempts: 1, ..plain.clone() });
    assert_eq!(
        policy("{max_attempts: 3, backoff_base: 2.0, max_backoff: 60}"),
        Retry { jitter: false, ..plain.clone() }
    );
    assert_eq!(
        policy("{max_retries: 3, base_delay: 1, max_delay: 60, exponential_base: 2}"),
        plain,
        "these retries are calls"
    );
    assert_eq!(policy("{unlimited: true}").max_attempts, u32::MAX);
    let linear = policy("{backoff: linear, initial: 500ms, max: 2m, jitter: false}");
    assert_eq!(
        (linear.backoff, linear.initial, linear.max),
        (Backoff::Linear, Duration::from_millis(500), seconds(120))
    );
    for (text, code) in [
        ("{max_attempts: 0}", "out_of_range"),
        ("{max_attempts: 100000}", "out_of_range"),
        ("{max_attempts: 2, unlimited: true}", "retry_conflict"),
        ("{max_attempts: 2, max_retries: 2}", "retry_conflict"),
        ("{multiplier: 0.5}", "out_of_range"),
        ("{unlimited: yes please}", "wrong_type"),
        ("{max_retrys: 2}", "unknown_key"),
    ] {
        assert_eq!(wrong(&format!("nodes: {{a: {{type: http, retry: {text}}}}}")).0, code, "{text}");
    }
}

#[test]
fn defaults_are_for_calls_that_do_not_say_it_themselves() {
    let compiled = good(
        "defaults: {timeout: 5s, retry: {max_attempts: 7, initial: 2s}}\nnodes: {a: {type: task}, b: {type: task, timeout: 9s, retry: {initial: 3s}}, c: {type: map, with: {over: '[1]', body: {type: function}}}}",
    );
    let nodes = &compiled.ir.root().nodes;
    assert_eq!(nodes[0].timeout, Some(Duration::from_secs(5)));
    assert_eq!(nodes[1].timeout, Some(Duration::from_secs(9)));
    let retries: Vec<_> =
        nodes.iter().map(|node| node.retry.as_ref().map(|r| (r.max_attempts, r.initial.as_secs()))).collect();
    assert_eq!(retries, [Some((7, 2)), Some((7, 3)), None]);
    assert_eq!(nodes[2].timeout, None, "a node with bodies would be given up whole");
}

// F369
#[test]
fn a_fallback_on_an_earlier_answer_is_a_body_that_asks_for_what_the_node_asks() {
    let text = "{name: w, nodes: {each: {type: map, with: {over: 'inputs.of', body: {type: http, with: {url: 'http://h/${ item }/${ input }'},\
        fallback: {cache: {max_age: 90s}}}}}}}";
    let compiled = good(text).ir;
    let call = &compiled.scopes[1].nodes[0];
    assert!(matches!(call.fallback, Some(Fallback::Body(2))));
    let Kind::Call { executor: Executor::Cached, request: Template::Map(request) } =
        &compiled.scopes[2].nodes[0].kind
    else {
        panic!("{:?}", compiled.scopes[2]);
    };
    let slots = |template: &Template| match template {
        Template::Map(entries) => match &entries.iter().find(|(key, _)| &**key == "url").unwrap().1 {
            Template::Text(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Expr(expr) => Some(format!("{:?}", expr.slots)),
                    Part::Text(_) => None,
                })
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let Kind::Call { request: own, .. } = &call.kind else { panic!("{call:?}") };
    assert_eq!(slots(own), ["[Item { up: 0 }]", "[Input]"]);
    let within = |name: &str| &request.iter().find(|(key, _)| &**key == name).unwrap().1;
    assert_eq!(slots(within("request")), ["[Item { up: 1 }]", "[Input]"]);
    assert!(matches!(within("max_age_ms"), Template::Value(Value::Int(90_000))));
    assert!(matches!(within("node"), Template::Value(Value::String(_))));
}

#[test]
fn a_fallback_is_a_value_or_a_body() {
    let fallback = |text: &str| node(&format!("{{type: http, fallback: {text}}}")).fallback.unwrap();
    assert!(matches!(fallback("5"), Fallback::Value(Template::Value(Value::Int(5)))));
    assert!(matches!(fallback("{rates: []}"), Fallback::Value(Template::Value(Value::Map(_)))));
    assert!(matches!(fallback("{value: {type: function}}"), Fallback::Value(Template::Value(Value::Map(_)))));
    assert!(matches!(fallback("'${ inputs.x }'"), Fallback::Value(Template::Expr(_))));
    assert!(matches!(fallback("{type: function}"), Fallback::Body(1)));
    assert!(matches!(fallback("{value: {cache: {max_age: 1m}}}"), Fallback::Value(_)));
    assert!(matches!(fallback("{nodes: {b: {type: function}}}"), Fallback::Body(1)));
}

#[test]
fn keys_without_effect_are_said_and_those_with_one_are_kept() {
    let once = node(
        "{type: http, at_most_once: true, retry: {max_attempts: 5}, priority: high, output_schema: {type: object}}",
    );
    assert!(once.at_most_once && once.retry.is_none() && once.output_schema.is_some());
    assert_eq!(once.priority, Priority::High);
    for (text, key) in [
        ("{type: function, at_most_once: true}", "at_most_once"),
        ("{type: function, retry: {max_attempts: 2}}", "retry"),
        ("{type: delay, timeout: 1s, with: {for: 1s}}", "timeout"),
    ] {
        let compiled = good(&format!("nodes: {{a: {text}}}"));
        let [warning] = &compiled.warnings[..] else { panic!("{:?}", compiled.warnings) };
        assert_eq!((warning.code, &*warning.pointer), ("key_ignored", &*format!("/nodes/a/{key}")));
    }
}

#[test]
fn secrets_are_named_only_where_somebody_sends_them() {
    let http = node("{type: http, with: {url: u, headers: {k: 'Bearer ${secret:K}'}, body: '${secret:B}'}}");
    let Kind::Call { request: Template::Map(entries), .. } = http.kind else { panic!() };
    let (_, headers) = entries.iter().find(|(key, _)| &**key == "headers").unwrap();
    let Template::Map(headers) = headers else { panic!("{headers:?}") };
    let text: Vec<_> = match &headers[0].1 {
        Template::Value(Value::String(text)) => vec![text.clone()],
        Template::Text(parts) => parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Expr(_) => panic!("a secret is no expression"),
            })
            .collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text.concat(), "Bearer ${secret:K}", "its name stays");
    for text in [
        "{type: http, with: {url: '${secret:K}'}}",
        "{type: task, with: {payload: '${secret:K}'}}",
        "{type: agent, with: {task: '${secret:K}'}}",
        "{type: function, input: '${secret:K}'}",
        "{type: human_review, with: {data: '${secret:K}'}}",
    ] {
        assert_eq!(wrong(&format!("nodes: {{a: {text}}}")).0, "secret_not_allowed", "{text}");
    }
}

#[test]
fn braces_in_a_task_name_inputs_and_earlier_outputs() {
    // F273
    let task = |inputs: &str, text: &str| {
        yaml(&format!("{inputs}\nnodes: {{a: {{type: agent, with: {{task: '{text}'}}}}}}"))
    };
    let schema = "inputs: {properties: {topic: {}}}";
    assert!(task("", "Research {topic} {{as is}} {not a name} ${ inputs.x }").is_ok());
    assert!(task(schema, "Research {topic}").is_ok());
    let refused = task(schema, "Research {topik}").unwrap_err();
    assert_eq!((refused.errors[0].code, &*refused.errors[0].pointer), ("unknown_name", "/nodes/a/with/task"));
}

// F430
#[test]
fn an_agent_that_embeds_takes_one_model_and_nothing_that_is_about_words() {
    let compiled = good(
        "agents: {r: {model: small, fallback: [large], system: Say., tools: [patch], max_turns: 3}}\n\
         inputs: {type: object}\n\
         nodes: {a: {type: agent, outputs: [vectors], with: {role: r, embed: '${ inputs.texts }', dimensions: 8}}}",
    );
    let Kind::Call { request: Template::Map(entries), .. } = &compiled.ir.root().nodes[0].kind else {
        panic!()
    };
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| &**key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["capture", "dimensions", "embed", "models", "outputs", "role"]);
    let of = |key: &str| entries.iter().find(|(known, _)| &**known == key).map(|(_, value)| value);
    let is = |key: &str, value: Value| matches!(of(key), Some(Template::Value(own)) if *own == value);
    assert!(is("models", Value::list(vec!["small".into()])), "other vectors cannot be compared: {entries:?}");
    assert!(is("capture", "hash".into()), "{entries:?}");
    assert!(!matches!(of("embed"), Some(Template::Value(_))), "{entries:?}");
    assert_eq!(compiled.models().collect::<Vec<_>>(), [("a", Some("small"), true)]);
    for (with, code, at) in [
        ("embed: x, task: y", "unknown_key", "/task"),
        ("embed: x, tools: [patch]", "unknown_key", "/tools"),
        ("task: y, dimensions: 8", "unknown_key", "/dimensions"),
        ("embed: x, dimensions: 0", "out_of_range", "/dimensions"),
        ("embed: []", "unknown_value", "/embed"),
        ("embed: ['']", "unknown_value", "/embed"),
        ("embed: {a: b}", "unknown_value", "/embed"),
    ] {
        let found = wrong(&format!("nodes: {{a: {{type: agent, with: {{{with}}}}}}}"));
        assert_eq!(found, (code, format!("/nodes/a/with{at}")), "{with}");
    }
    let two = wrong("nodes: {a: {type: agent, outputs: [v, w], with: {embed: x}}}");
    assert_eq!(two, ("unknown_value", "/nodes/a/with/embed".into()));
}

#[test]
fn what_is_wrong_with_a_kind_is_found_where_it_stands() {
    for (text, code, pointer) in [
        ("{type: parallel}", "missing_key", "/nodes/a/with"),
        ("{type: parallel, with: {branches: {}}}", "parallel_branches_max", "/nodes/a/with/branches"),
        (
            "{type: parallel, with: {branches: {'a b': {type: function}}}}",
            "branch_name",
            "/nodes/a/with/branches/a b",
        ),
        (
            "{type: parallel, with: {branches: {l: {type: function}}, results: [x]}}",
            "unknown_branch",
            "/nodes/a/with/results",
        ),
        (
            "{type: parallel, with: {branches: {l: {type: functio}}}}",
            "unknown_kind",
            "/nodes/a/with/branches/l/type",
        ),
        ("{type: loop, with: {while: 'true', body: {type: function}}}", "missing_key", "/nodes/a/with"),
        (
            "{type: loop, with: {while: 'true', max_iterations: 0, body: {type: function}}}",
            "out_of_range",
            "/nodes/a/with/max_iterations",
        ),
        (
            "{type: loop, with: {while: 'nope(', max_iterations: 1, body: {type: function}}}",
            "expression_syntax",
            "/nodes/a/with/while",
        ),
        ("{type: composite}", "missing_key", "/nodes/a/with"),
        ("{type: composite, with: {workflow: 'a b'}}", "invalid_name", "/nodes/a/with/workflow"),
        ("{type: composite, with: {body: {type: function}, workflow: b}}", "missing_key", "/nodes/a/with"),
        (
            "{type: composite, with: {body: {nodes: {x: {type: function, needs: [y]}, y: {type: function, needs: [x]}}}}}",
            "cycle",
            "/nodes/a/with/body/nodes/y/needs/0",
        ),
        ("{type: human_review, with: {on_timeout: shrug}}", "unknown_value", "/nodes/a/with/on_timeout"),
        (
            "{type: human_review, with: {timeout: 5m, escalate: [{after: 6m, to: [x]}]}}",
            "escalation_order",
            "/nodes/a/with/escalate/0/after",
        ),
        ("{type: human_review, with: {form: {type: 5}}}", "form_schema", "/nodes/a/with/form"),
        ("{type: wait, with: {signal: s, accepts: {type: 5}}}", "accepts_schema", "/nodes/a/with/accepts"),
        (
            "{type: wait, with: {signal: s, accepts: {$ref: 'https://x/y'}}}",
            "schema_ref",
            "/nodes/a/with/accepts",
        ),
        ("{type: wait, with: {signal: s, reply: 5}}", "wrong_type", "/nodes/a/with/reply"),
        ("{type: wait, with: {signal: s, reply: b}}", "unknown_node", "/nodes/a/with/reply"),
        ("{type: wait, with: {signal: s, reply: a}}", "reply_not_behind", "/nodes/a/with/reply"),
        (
            "{type: map, with: {over: '[]', body: {type: wait, with: {signal: s, reply: a}}}}",
            "unknown_node",
            "/nodes/a/with/body/with/reply",
        ),
        ("{type: http, output_schema: {type: 5}}", "output_schema", "/nodes/a/output_schema"),
        (
            "{type: http, fallback: {type: http, with: {bodi: 1}}}",
            "unknown_key",
            "/nodes/a/fallback/with/bodi",
        ),
        ("{type: http, fallback: {cache: {}}}", "missing_key", "/nodes/a/fallback/cache"),
        ("{type: http, fallback: {cache: 5}}", "wrong_type", "/nodes/a/fallback/cache"),
        (
            "{type: http, fallback: {cache: {max_age: 2m, ttl: 1m}}}",
            "unknown_key",
            "/nodes/a/fallback/cache/ttl",
        ),
        (
            "{type: task, fallback: {cache: {max_age: 25h}}}",
            "out_of_range",
            "/nodes/a/fallback/cache/max_age",
        ),
        ("{type: function, fallback: {cache: {max_age: 1h}}}", "fallback_not_here", "/nodes/a/fallback"),
        ("{type: http, with: {method: 5}}", "wrong_type", "/nodes/a/with/method"),
        ("{type: function, on_error: {goto: b}}", "dangling_edge", "/nodes/a/on_error/goto"),
    ] {
        assert_eq!(wrong(&format!("nodes: {{a: {text}}}")), (code, pointer.into()), "{text}");
    }
}

#[test]
fn a_parallel_step_gathers_the_steps_that_it_names() {
    // F277, F278, D13
    let compiled = good(
        "steps:\n- {id: both, type: parallel, next_steps: [right, left]}\n- {id: left, type: function, next_steps: [end]}\n- {id: right, type: function, next_steps: [end]}\n- {id: end, type: function}\n",
    );
    let root = compiled.ir.root();
    assert_eq!(root.nodes.len(), 2);
    let Kind::Parallel { branches, results: true } = &root.nodes[0].kind else { panic!() };
    assert_eq!(branches.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["right", "left"]);
    assert!(compiled.document.get("edges").unwrap().get("both/end").is_some());
    for (steps, code) in [
        ("- {id: p, type: parallel}", "parallel_branches_max"),
        ("- {id: p, type: parallel, next_steps: [nope]}", "dangling_edge"),
        (
            "- {id: p, type: parallel, next_steps: [c]}\n- {id: c, type: conditional, condition: 'true', next_steps: [d]}\n- {id: d, type: function}",
            "parallel_branch",
        ),
        (
            "- {id: p, type: parallel, next_steps: [a, b]}\n- {id: a, type: function, next_steps: [c]}\n- {id: b, type: function}\n- {id: c, type: function}",
            "parallel_branch",
        ),
        (
            "- {id: c, type: conditional, condition: 'lambda ctx: ctx', next_steps: [d]}\n- {id: d, type: function}",
            "expression_syntax",
        ),
        (
            "- {id: c, type: conditional, condition: 'true', next_steps: [d, success]}\n- {id: d, type: function}",
            "dangling_edge",
        ),
    ] {
        assert_eq!(wrong(&format!("steps:\n{steps}\n")).0, code, "{steps}");
    }
}

#[test]
fn the_other_steps_of_the_seed_are_read() {
    // F268, F270, F279
    let compiled = good(
        "steps:\n- {id: again, type: loop, condition: 'iteration < 2', max_iterations: 3, with: {body: {type: function}}}\n- {id: check, type: human_review, task: Review and approve draft, outputs: [approved]}\n",
    );
    let root = compiled.ir.root();
    assert!(matches!(root.nodes[0].kind, Kind::Loop { max_iterations: 3, .. }));
    let Kind::HumanReview(review) = &root.nodes[1].kind else { panic!() };
    let shown = Value::map([("task", Value::from("Review and approve draft"))]);
    assert!(matches!(&review.data, Some(Template::Value(data)) if *data == shown));
}

// F381
#[test]
fn concurrency_and_rate_are_read_and_their_keys_name_inputs_and_the_run_only() {
    let limits =
        "{concurrency: {key: 'c-${ inputs.customer }', max: 3}, rate: {key: all, max: 100, per: 1m}}";
    let compiled = good(&format!("limits: {limits}\nnodes: {{a: {{type: function}}}}"));
    assert!(compiled.unavailable.is_empty() && compiled.warnings.is_empty());
    let admission = compiled.ir.admission.as_ref().unwrap();
    let concurrency = admission.concurrency.as_ref().unwrap();
    assert!(matches!(&concurrency.key, Template::Text(parts) if parts.len() == 2) && concurrency.max == 3);
    let (rate, per) = admission.rate.as_ref().unwrap();
    assert!(matches!(&rate.key, Template::Value(key) if *key == Value::from("all")));
    assert_eq!((rate.max, *per), (100, Duration::from_secs(60)));
    let looks_like_one =
        good("limits: {concurrency: {key: inputs.customer, max: 1}}\nnodes: {a: {type: function}}");
    assert_eq!(looks_like_one.warnings[0].code, "admission_key");

    let long = "k".repeat(crate::limits::ADMISSION_KEY_BYTES_MAX + 1);
    for (limits, code, at) in [
        ("{concurrency: 3}", "wrong_type", "/limits/concurrency"),
        ("{concurrency: {max: 3}}", "missing_key", "/limits/concurrency"),
        ("{concurrency: {key: a}}", "missing_key", "/limits/concurrency"),
        ("{concurrency: {key: 5, max: 3}}", "wrong_type", "/limits/concurrency/key"),
        ("{concurrency: {key: '', max: 3}}", "admission_key", "/limits/concurrency/key"),
        (
            &format!("{{rate: {{key: {long}, max: 3, per: 1s}}}}"),
            "admission_key_bytes_max",
            "/limits/rate/key",
        ),
        ("{concurrency: {key: a, max: 0}}", "out_of_range", "/limits/concurrency/max"),
        ("{concurrency: {key: a, max: 1000001}}", "out_of_range", "/limits/concurrency/max"),
        ("{concurrency: {key: a, max: 3, per: 1s}}", "unknown_key", "/limits/concurrency/per"),
        ("{rate: {key: a, max: 3}}", "missing_key", "/limits/rate"),
        ("{rate: {key: a, max: 3, per: 0s}}", "out_of_range", "/limits/rate/per"),
        ("{rate: {key: a, max: 3, per: 25h}}", "out_of_range", "/limits/rate/per"),
        ("{rate: {key: a, max: 3, per: soon}}", "duration", "/limits/rate/per"),
        ("{concurrency: {key: '${ nodes.a.output }', max: 3}}", "not_an_ancestor", "/limits/concurrency/key"),
        ("{concurrency: {key: '${ input }', max: 3}}", "name_not_here", "/limits/concurrency/key"),
        ("{concurrency: {key: '${ inputs. }', max: 3}}", "expression_syntax", "/limits/concurrency/key"),
        ("{concurrency: {key: '${secret:KEY}', max: 3}}", "secret_not_allowed", "/limits/concurrency/key"),
    ] {
        let found = wrong(&format!("limits: {limits}\nnodes: {{a: {{type: function}}}}"));
        assert_eq!(found, (code, at.to_owned()), "{limits}");
    }
}

#[test]
fn an_update_is_answered_by_a_node_behind_its_wait() {
    let compiled = good(
        "nodes:\n  zero: {type: function}\n  ask: {type: wait, with: {signal: s, accepts: {type: integer}, reply: tell}, needs: [zero]}\n  more: {type: function, needs: [ask]}\n  tell: {type: function, needs: [more]}\n",
    );
    let root = compiled.ir.root();
    let at = |id: &str| root.nodes.iter().position(|node| &*node.id == id).unwrap();
    let Kind::Wait { accepts: Some(accepts), reply: Some(reply), .. } = &root.nodes[at("ask")].kind else {
        panic!()
    };
    assert_eq!(*reply as usize, at("tell"));
    assert!(accepts.check(&Value::Int(1), 1).is_ok() && accepts.check(&Value::Null, 1).is_err());
    let with = compiled.document.get("nodes").unwrap().get("ask").unwrap().get("with").unwrap();
    assert_eq!(with.get("reply").unwrap().as_str(), Some("tell"));
    // A node that comes before, or beside, does not.
    for reply in ["zero", "beside"] {
        let text = format!(
            "nodes: {{zero: {{type: function}}, ask: {{type: wait, with: {{signal: s, reply: {reply}}}, needs: [zero]}}, beside: {{type: function}}}}"
        );
        assert_eq!(wrong(&text), ("reply_not_behind", "/nodes/ask/with/reply".into()), "{reply}");
    }
    // In a patched graph it is the same node under its old number.
    let before = good("nodes:\n  tell: {type: function}\n  ask: {type: function}\n");
    let aligned = compiled.ir.aligned(&before.ir);
    let node = |id: &str| aligned.root().nodes.iter().position(|node| &*node.id == id).unwrap();
    let Kind::Wait { reply: Some(reply), .. } = &aligned.root().nodes[node("ask")].kind else { panic!() };
    assert_eq!(*reply as usize, node("tell"));
}

// F382, F390
#[test]
fn what_an_agent_is_told_and_how_many_there_are_is_checked_where_it_stands() {
    let document = |role: &str, with: &str| {
        format!("agents: {{r: {{{role}}}}}\nnodes: {{a: {{type: agent, with: {{role: r, task: x{with}}}}}}}")
    };
    let compiled = good(&document(
        "memory: {max_tokens: 9000, keep_turns: 3}, max_concurrency: 2",
        ", memory: {max_tokens: 10}",
    ));
    let Kind::Call { request: Template::Map(settings), .. } = &compiled.ir.root().nodes[0].kind else {
        panic!()
    };
    let of = |name: &str| {
        let found: Vec<_> =
            settings.iter().filter(|(key, _)| &**key == name).map(|(_, value)| value).collect();
        let [Template::Value(value)] = found[..] else { panic!("{name}: {found:?}") };
        value.to_json()
    };
    assert_eq!((of("memory"), of("max_concurrency")), (r#"{"max_tokens":10}"#.into(), "2".into()));
    for (role, with, code, pointer) in [
        ("memory: {max_tokens: 0}", "", "out_of_range", "/agents/r/memory/max_tokens"),
        ("memory: {keep_turns: 0}", "", "out_of_range", "/agents/r/memory/keep_turns"),
        ("memory: {turns: 1}", "", "unknown_key", "/agents/r/memory/turns"),
        ("max_concurrency: 0", "", "out_of_range", "/agents/r/max_concurrency"),
        ("", ", memory: {keep_turns: many}", "out_of_range", "/nodes/a/with/memory/keep_turns"),
        ("", ", max_concurrency: 2", "unknown_key", "/nodes/a/with/max_concurrency"),
    ] {
        assert_eq!(wrong(&document(role, with)), (code, pointer.to_owned()), "{role}{with}");
    }
}
