//! Broken documents: what is said about them, and where.

use super::*;

struct Case {
    text: &'static str,
    code: &'static str,
    pointer: &'static str,
    line: u32,
    says: &'static str,
}

const fn case(
    text: &'static str,
    code: &'static str,
    (pointer, line): (&'static str, u32),
    says: &'static str,
) -> Case {
    Case { text, code, pointer, line, says }
}

const CASES: &[Case] = &[
    case("nodes:\n  a: {type: functon}\n", "unknown_kind", ("/nodes/a/type", 2), "functon"),
    case(
        "nodes:\n  a: {type: function, wiht: {}}\n",
        "unknown_key",
        ("/nodes/a/wiht", 2),
        "did you mean \"with\"?",
    ),
    case("nods: {}\nnodes: {a: {type: function}}\n", "unknown_key", ("/nods", 1), "did you mean \"nodes\"?"),
    case(
        "nodes: {a: {type: function, with: {exp: '1'}}}",
        "unknown_key",
        ("/nodes/a/with/exp", 1),
        "\"expr\"",
    ),
    case("nodes: {}\n", "empty_nodes", ("/nodes", 1), "at least one"),
    case("name: x\n", "missing_key", ("", 1), "nodes"),
    case("name: a b\nnodes: {a: {type: function}}", "invalid_name", ("/name", 1), "name_bytes_max"),
    case("nodes:\n  a.b: {type: function}\n", "node_id", ("/nodes/a.b", 2), "node_id_bytes_max"),
    case("nodes: {a: {with: {}}}", "missing_key", ("/nodes/a", 1), "type"),
    case(
        "nodes: {fetch: {type: function}}\nedges:\n  - {from: fetch, to: fetsh}\n",
        "dangling_edge",
        ("/edges/0/to", 3),
        "did you mean \"fetch\"?",
    ),
    case(
        "nodes: {a: {type: function}, b: {type: function}}\nedges:\n- {from: a, to: b}\n- {from: a, to: b}\n",
        "duplicate_edge",
        ("/edges/1", 4),
        "a/b",
    ),
    case("nodes: {a: {type: function}}\nedges: [{from: a, to: a}]", "self_edge", ("/edges/0", 2), "itself"),
    case(
        "nodes: {a: {type: function}, b: {type: function}}\nedges:\n- {from: a, to: b}\n- {from: b, to: a}\n",
        "cycle",
        ("/edges/0", 3),
        "cycle: a -> b -> a",
    ),
    case(
        "nodes: {a: {type: function, on_error: {goto: b}}, b: {type: function}}\nedges: [{from: b, to: a}]",
        "cycle",
        ("/nodes/a/on_error/goto", 1),
        "cycle: a -> b -> a",
    ),
    case(
        "nodes: {a: {type: function}, b: {type: join, with: {wait: {at_least: 2}}}}\nedges: [{from: a, to: b}]",
        "join_unsatisfiable",
        ("/nodes/b/with/wait", 1),
        "2 live edges",
    ),
    case(
        "nodes: {a: {type: function}, b: {type: function}}\nedges: [{from: a, to: b, on: yes}]",
        "unknown_branch",
        ("/edges/0/on", 2),
        "success, error, timeout",
    ),
    case(
        "nodes:\n  a: {type: conditional, with: {branches: [{name: big, when: 'true'}]}}\n  b: {type: function}\nedges: [{from: a, to: b, on: bit}]",
        "unknown_branch",
        ("/edges/0/on", 4),
        "did you mean \"big\"?",
    ),
    case(
        "nodes: {a: {type: conditional, with: {branches: [{name: x, when: 'true'}, {name: x, when: 'true'}]}}}",
        "duplicate_branch",
        ("/nodes/a/with/branches/1", 1),
        "second branch",
    ),
    case(
        "nodes: {a: {type: conditional, with: {branches: [], default: nowhere}}}",
        "unknown_branch",
        ("/nodes/a/with/default", 1),
        "neither a branch nor a node",
    ),
    case(
        "nodes: {a: {type: function, with: {expr: '1 +'}}}",
        "expression_syntax",
        ("/nodes/a/with/expr", 1),
        "",
    ),
    case(
        "nodes:\n  a: {type: function}\n  b: {type: function, with: {expr: nodes.a.output}}\n",
        "not_an_ancestor",
        ("/nodes/b/with/expr", 3),
        "does not come before",
    ),
    case(
        "nodes: {a: {type: function, with: {expr: nodes.zz.output}}}",
        "unknown_node",
        ("/nodes/a/with/expr", 1),
        "zz",
    ),
    case(
        "nodes: {a: {type: function, with: {expr: item}}}",
        "name_not_here",
        ("/nodes/a/with/expr", 1),
        "item",
    ),
    case(
        "nodes: {a: {type: function, with: {expr: output}}}",
        "name_not_here",
        ("/nodes/a/with/expr", 1),
        "output",
    ),
    case(
        "nodes: {a: {type: function, input: 'x ${ 1'}}",
        "expression_template",
        ("/nodes/a/input", 1),
        "closed",
    ),
    case(
        "nodes: {a: {type: function, input: {k: '${secret:KEY}'}}}",
        "secret_not_allowed",
        ("/nodes/a/input/k", 1),
        "KEY",
    ),
    case(
        "nodes: {a: {type: delay, with: {for: soon}}}",
        "duration",
        ("/nodes/a/with/for", 1),
        "duration_seconds_max",
    ),
    case("nodes: {a: {type: delay, with: {until: later}}}", "timestamp", ("/nodes/a/with/until", 1), "later"),
    case("nodes: {a: {type: delay}}", "missing_key", ("/nodes/a/with", 1), "`for` or `until`"),
    case("nodes: {a: {type: wait}}", "missing_key", ("/nodes/a/with", 1), "with.signal"),
    case(
        "nodes: {a: {type: map, with: {over: '[1]', body: {type: function}, max_concurrency: 0}}}",
        "out_of_range",
        ("/nodes/a/with/max_concurrency", 1),
        "1 to 10000",
    ),
    case("nodes: {a: {type: map, with: {over: '[1]'}}}", "missing_key", ("/nodes/a/with", 1), "with.body"),
    case(
        "nodes: {a: {type: loop, with: {while: 'true', body: {type: function}, max_iterations: 0}}}",
        "out_of_range",
        ("/nodes/a/with/max_iterations", 1),
        "10000",
    ),
    case(
        "nodes: {a: {type: function}}\nlimits: {deadline: 9000d}",
        "duration",
        ("/limits/deadline", 2),
        "9000d",
    ),
    case("nodes: {a: {type: function}}\ninputs: {type: 7}", "inputs_schema", ("/inputs", 2), "JSON Schema"),
    case("nodes: {a: {type: function}}\noutputs: [1]", "wrong_type", ("/outputs", 2), "a map"),
    case("nodes: [{type: function}]", "missing_key", ("/nodes/0", 1), "`id`"),
    case(
        "nodes:\n- {id: a, type: function}\n- {id: a, type: function}",
        "duplicate_node",
        ("/nodes/1/id", 3),
        "a",
    ),
    case(
        "nodes: {a: {type: function}, b: {type: function}}\nedges: {b/a: {from: a, to: b}}",
        "edge_key",
        ("/edges/b~1a", 2),
        "a/b",
    ),
    case("nodes: {a: {type: function}}\naob: '2'", "language_version", ("/aob", 2), "\"1\""),
    case(
        "steps:\n- {id: a, type: function, nxt_steps: []}",
        "unknown_key",
        ("/steps/0/nxt_steps", 2),
        "next_steps",
    ),
    case("nodes: {a: 1, a: 2}", "duplicate_key", ("", 1), "twice"),
    case("a: &a [1]\n<<: *a\n", "merge_key", ("", 2), "<<"),
    case("a: !!binary x\n", "tag", ("", 1), "binary"),
    case("1: x\n", "key", ("", 1), "quotes"),
    case("? [a]\n: x\n", "key", ("", 1), "string"),
    case("a: .nan\n", "finite", ("", 1), "finite"),
    case("a: 1e999\n", "finite", ("", 1), "finite"),
    case("a: 1\n---\nb: 1\n", "several_documents", ("", 2), "only one"),
    case("", "empty_document", ("", 1), "empty"),
    case("a: [1\n", "syntax", ("", 1), "unclosed"),
    case(
        "nodes: {a: {type: function, input: 9007199254740993}}",
        "number_precision",
        ("/nodes/a/input", 1),
        "exactly",
    ),
];

#[test]
fn every_finding_says_what_and_where() {
    // F114, F115
    for Case { text, code, pointer, line, says } in CASES {
        let refused = yaml(text).expect_err(text);
        let shown = refused.to_string();
        let found = refused.errors.iter().find(|found| found.code == *code);
        let found = found.unwrap_or_else(|| panic!("{text}\n{shown}"));
        assert_eq!(found.pointer, *pointer, "{text}\n{shown}");
        assert_eq!(found.line, *line, "{text}\n{shown}");
        assert!(found.column > 0, "{text}");
        let words = format!("{} {}", found.message, found.help.as_deref().unwrap_or_default());
        assert!(words.contains(says), "{text}\n{words}");
        assert!(found.message.len() < 400);
    }
}

#[test]
fn json_findings_have_places_too() {
    let text = "{\n  \"nodes\": {\n    \"a~/b\": {\"type\": \"function\"},\n    \"é\": {\"type\":\n \"nope\"}\n  }\n}";
    let refused = json(text).unwrap_err();
    let places: Vec<_> =
        refused.errors.iter().map(|found| (found.code, &*found.pointer, found.line, found.column)).collect();
    let expected = [
        ("node_id", "/nodes/a~0~1b", 3, 13),
        ("node_id", "/nodes/é", 4, 10),
        ("unknown_kind", "/nodes/é/type", 5, 2),
    ];
    assert_eq!(places, expected);
    let syntax = json("{\n \"a\": }").unwrap_err();
    assert_eq!((syntax.errors[0].code, syntax.errors[0].line, syntax.errors[0].column), ("syntax", 2, 7));
}

#[test]
fn all_findings_come_at_once_and_the_rest_is_counted() {
    let mut text = String::from("nodes:\n");
    for index in 0..150 {
        text.push_str(&format!("  n{index}: {{type: nope}}\n"));
    }
    let refused = yaml(&text).unwrap_err();
    assert_eq!((refused.errors.len(), refused.truncated), (crate::limits::DIAGNOSTICS_MAX, 50));
    assert!(refused.to_string().ends_with("and 50 more findings (limit diagnostics_max)"));
    let file = Options { file: Some("w.yaml".into()), ..Options::default() };
    let refused = compile(b"nodes: {a: {type: nope}}", Format::Yaml, &file).unwrap_err();
    assert!(refused.to_string().starts_with("w.yaml:1:13: error[unknown_kind]: "), "{refused}");
}

#[test]
fn documents_over_a_limit_are_refused_by_name() {
    // F117: neither the stack nor memory runs out.
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let inner = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        text
    };
    let blocks: String = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let nodes: String =
        (0..=crate::limits::NODES_MAX).map(|n| format!(" n{n}: {{type: function}}\n")).collect();
    let mut scopes = String::from("{type: function}");
    for _ in 0..=crate::limits::SCOPE_DEPTH_MAX {
        scopes = format!("{{type: map, with: {{over: '[1]', body: {scopes}}}}}");
    }
    let branches = "{name: b, when: 'true'},".repeat(crate::limits::BRANCHES_MAX + 1);
    for (text, code) in [
        (bomb, "value_count_max"),
        ("[".repeat(10_000), "value_depth_max"),
        ("{\"a\":".repeat(10_000), "value_depth_max"),
        (blocks, "value_depth_max"),
        (format!("[{}0]", "0,".repeat(crate::limits::VALUE_COUNT_MAX)), "value_count_max"),
        (format!("? {}\n: 0\n", "k".repeat(crate::limits::KEY_BYTES_MAX + 1)), "key_bytes_max"),
        (format!("{{? \"{}\" : 0}}", "k".repeat(crate::limits::KEY_BYTES_MAX + 1)), "key_bytes_max"),
        (" ".repeat(crate::limits::DOCUMENT_BYTES_MAX + 1), "document_bytes_max"),
        (format!("nodes:\n{nodes}"), "nodes_max"),
        (format!("nodes: {{a: {scopes}}}"), "scope_depth_max"),
        (format!("nodes: {{a: {{type: conditional, with: {{branches: [{branches}]}}}}}}"), "branches_max"),
    ] {
        for format in [Format::Yaml, Format::Json] {
            let refused = compile(text.as_bytes(), format, &Options::default()).unwrap_err();
            let found = &refused.errors[0];
            if format == Format::Yaml || found.code != "syntax" {
                assert_eq!(found.code, code, "{refused}");
                assert!(found.message.contains(code), "{refused}");
            }
        }
    }
    let refused = compile(b"nodes: \xff", Format::Yaml, &Options::default()).unwrap_err();
    assert_eq!(refused.errors[0].message, "not UTF-8 at byte 7");
}
