//! What documents mean: spellings, sugar, canonical form, IR.

use super::*;
use crate::ir::{Kind, On, Policy, Slot, Template};

const FETCH: &str = r#"{
     "nodes": [
       {"id": "fetch", "type": "http"},
       {"id": "process", "type": "function"}
     ],
     "edges": [{"from": "fetch", "to": "process"}]
   }"#;

const RESEARCH: &str = r#"name: research_and_report
version: 1.0
metadata:
  description: Research a topic and generate a comprehensive report
  author: Antigravity Team

steps:
  - id: research
    type: agent_task
    agent_role: researcher
    task: "Research {topic} and gather key insights"
    outputs:
      - research_findings
    next_steps:
      - analysis
  
  - id: analysis
    type: agent_task
    agent_role: analyst
    task: "Analyze the research findings: {research_findings}"
    outputs:
      - analysis_results
    next_steps:
      - report_generation
  
  - id: report_generation
    type: agent_task
    agent_role: writer
    task: "Create a report based on: {analysis_results}"
    outputs:
      - final_report
    retry_policy:
      max_retries: 3
      backoff: exponential
"#;

fn edges(compiled: &Compiled) -> Vec<String> {
    match compiled.document.get("edges") {
        Some(Value::Map(map)) => map.iter().map(|(key, _)| key.to_string()).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn arrays_of_nodes_and_edges_are_read_verbatim() {
    // F111
    let compiled = good(FETCH);
    assert_eq!(edges(&compiled), ["fetch/process"]);
    let [url] = &compiled.unstartable[..] else { panic!("{:?}", compiled.unstartable) };
    assert_eq!((url.code, url.pointer.as_str()), ("missing_key", "/nodes/0/with"));
    assert!(compiled.unavailable.is_empty(), "it may be registered");
    assert_eq!(compiled.ir.root().nodes.len(), 2);
    assert_eq!(json(FETCH).unwrap().hash, compiled.hash);
}

#[test]
fn steps_are_read_verbatim() {
    // F112
    let compiled = good(RESEARCH);
    assert_eq!(edges(&compiled), ["analysis/report_generation", "research/analysis"]);
    assert_eq!(compiled.document.get("version"), Some(&Value::from("1.0")));
    assert!(compiled.warnings.iter().any(|found| found.code == "version_number" && found.line == 2));
    let node = compiled.document.get("nodes").unwrap().get("report_generation").unwrap();
    assert_eq!(node.get("type"), Some(&Value::from("agent")));
    assert_eq!(node.get("with").unwrap().get("role"), Some(&Value::from("writer")));
    assert_eq!(node.get("retry").unwrap().get("max_attempts"), Some(&Value::Int(4)));
    assert_eq!(node.get("outputs").unwrap(), &Value::list(vec!["final_report".into()]));
    assert!(compiled.unstartable.is_empty());
    let undefined = compiled.warnings.iter().filter(|found| found.code == "role_undefined");
    assert_eq!(undefined.count(), 3, "the default agent takes what nobody defined");
    let write = &compiled.ir.root().nodes[2];
    let Kind::Call { executor: crate::ir::Executor::Agent, request: Template::Map(request) } = &write.kind
    else {
        panic!("{write:?}")
    };
    // F273: `{analysis_results}` is what the node before declares.
    let task = request.iter().find(|(key, _)| &**key == "task").unwrap();
    let Template::Text(parts) = &task.1 else { panic!("{task:?}") };
    let crate::ir::Part::Expr(expr) = &parts[1] else { panic!("{parts:?}") };
    assert!(
        matches!(&expr.slots[..], [Slot::Output { up: 0, node: 1, member }] if &**member == "analysis_results")
    );
}

#[test]
fn steps_without_next_steps_follow_the_list_and_conditions_branch() {
    let listed = good("steps: [{id: z, type: function}, {id: a, type: function}]");
    assert_eq!(edges(&listed), ["z/a"]);
    let branching = good(
        "steps: [{id: c, type: conditional, condition: inputs.n > 1, next_steps: [a, b]}, {id: a, type: function}, {id: b, type: function}]",
    );
    assert_eq!(edges(&branching), ["c/a:yes", "c/b:no"]);
}

#[test]
fn the_same_workflow_in_yaml_and_json_has_one_hash() {
    // F113
    let in_yaml = good(
        "name: w\nversion: 1.10\nnodes:\n  b: {type: function, with: {expr: input}, input: {x: 2.0, y: !!str 3, z: 0x10}}\n  a: {type: function}\nedges: [{from: a, to: b, on: success}]\n",
    );
    let in_json = json(
        r#"{"edges": {"a/b": {}}, "version": 1.10, "nodes": {"a": {"type": "function"}, "b": {"needs": ["a"], "input": {"z": 16, "y": "3", "x": 2}, "type": "function", "with": {"expr": "input"}}}, "name": "w"}"#,
    )
    .unwrap();
    assert_eq!(in_yaml.canonical, in_json.canonical);
    assert_eq!(in_yaml.hash, in_json.hash);
    assert_eq!(&*in_json.ir.version, "1.10");
    assert_eq!(in_yaml.hash, <[u8; 32]>::from(Sha256::digest(in_yaml.canonical.as_bytes())));
    let other = good("name: w\nversion: '1.10'\nnodes: {a: {type: function}, b: {type: function}}");
    assert_ne!(other.hash, in_yaml.hash);
    assert_eq!(Format::detect(b" {\"a\": 1}"), Format::Json);
    assert_eq!(Format::detect(b"a: 1"), Format::Yaml);
    assert_eq!(Format::detect(b"{a: 1}"), Format::Yaml);
}

#[test]
fn a_default_and_an_explicit_edge_are_one_branch() {
    let compiled = good(
        "nodes: {kind: {type: conditional, with: {branches: [{name: large, when: 'inputs.n > 10', to: large}], default: small}}, large: {type: function}, small: {type: function}, last: {type: join, with: {wait: any, merge: array}}}\nedges: [{from: kind, to: small, on: small}, {from: large, to: last}, {from: small, to: last}]",
    );
    assert_eq!(edges(&compiled), ["kind/large:large", "kind/small:small", "large/last", "small/last"]);
    let root = compiled.ir.root();
    let Kind::Conditional { branches, default } = &root.nodes[0].kind else { panic!() };
    assert_eq!((branches.len(), default.as_deref()), (1, Some("small")));
    assert_eq!(root.edges[1].on, On::Branch("small".into()));
    assert_eq!(root.nodes[3].policy, Policy::Any);
    let nodes = "a: {type: function}, b: {type: function}";
    for (settings, edge, expected) in [
        ("branches: [{when: 'true', to: a}], default: b", "", vec!["c/a:a", "c/b:b"]),
        ("branches: [{name: x, when: 'true', to: a}], default: x", "", vec!["c/a:x"]),
        ("branches: [{name: x, when: 'true'}]", "{from: c, to: b, on: default}", vec!["c/b:default"]),
        ("branches: [], default: b", "{from: c, to: a, on: default}", vec!["c/a:b", "c/b:b"]),
        ("branches: [], default: y", "{from: c, to: a, on: y}", vec!["c/a:y"]),
    ] {
        let compiled = good(&format!(
            "nodes: {{c: {{type: conditional, with: {{{settings}}}}}, {nodes}}}\nedges: [{edge}]"
        ));
        assert_eq!(edges(&compiled), expected, "{settings}");
    }
}

#[test]
fn names_find_their_places() {
    let compiled = good(
        "nodes:
  a: {type: function, outputs: [rows]}
  m:
    type: map
    input: {n: '${ size(outputs.rows) }', s: 'rows $${x} of ${ inputs.who }'}
    with:
      over: outputs.rows
      body:
        nodes:
          x: {type: function, with: {expr: item + index}}
          y: {type: map, with: {over: 'nodes.a.output.rows', body: {type: function, with: {expr: nodes.x.output + item}}}}
        edges: [{from: x, to: y, when: output > 0}]
        outputs: {r: '${ nodes.y.output }'}
edges: [{from: a, to: m, when: run.id != ''}]
outputs: {all: '${ nodes.m.output }'}",
    );
    let ir = &compiled.ir;
    assert_eq!(ir.scopes.len(), 3);
    let Kind::Map { over, body: 1, .. } = &ir.root().nodes[1].kind else { panic!() };
    assert_eq!(over.slots, [Slot::Output { up: 0, node: 0, member: "rows".into() }]);
    let Kind::Map { over, body: 2, .. } = &ir.scopes[1].nodes[1].kind else { panic!() };
    assert_eq!(over.slots, [Slot::Node { up: 1, node: 0 }]);
    let Kind::Function { expr: Some(inner) } = &ir.scopes[2].nodes[0].kind else { panic!() };
    assert!(
        inner.slots.contains(&Slot::Node { up: 1, node: 0 }) && inner.slots.contains(&Slot::Item { up: 0 })
    );
    assert!(ir.scopes[2].anonymous);
    assert_eq!(ir.scopes[1].edges[0].when.as_ref().unwrap().slots, [Slot::EdgeOutput]);
    assert!(matches!(&ir.scopes[1].output, Some(Template::Map(_))));
    let Some(Template::Map(input)) = &ir.root().nodes[1].input else { panic!() };
    assert!(matches!(&input[0].1, Template::Expr(_)), "one expression keeps its type");
    let Template::Text(parts) = &input[1].1 else { panic!() };
    assert!(matches!(&parts[0], crate::ir::Part::Text(text) if &**text == "rows "));
    assert_eq!(&*ir.outputs[0].0, "all");
}

#[test]
fn what_cannot_be_honoured_is_said() {
    for (node, code, pointer) in [
        ("{type: function, cache: {policy: read_only}}", "key_not_available", "/nodes/a/cache"),
        ("{type: function, with: {wasm: x}}", "key_not_available", "/nodes/a/with/wasm"),
    ] {
        let compiled = good(&format!("nodes: {{a: {node}}}"));
        let found = &compiled.unavailable[0];
        assert_eq!((found.code, &*found.pointer, found.line), (code, pointer, 1));
    }
    let harmless =
        good("nodes: {a: {type: function, retry: {max_attempts: 2}, x-own: {}, cache: {policy: off}}}");
    assert!(harmless.unavailable.is_empty());
    assert_eq!(harmless.warnings[0].code, "key_ignored");
}

#[test]
fn keys_of_the_users_own_stay_in_the_document() {
    let compiled = good(
        "x-a: 1\nnodes: {a: {type: conditional, x-b: 1, with: {x-c: 1, branches: [{name: y, when: 'true', x-d: 1}]}}, b: {type: map, with: {over: '[1]', body: {x-e: 1, nodes: {c: {type: function}}}}}}\nedges: [{from: a, to: b, on: y, x-f: 1, metadata: {g: 1}}]",
    );
    for key in ["x-a", "x-b", "x-c", "x-d", "x-e", "x-f", "metadata"] {
        assert!(compiled.canonical.contains(&format!("\"{key}\":")), "{key} in {}", compiled.canonical);
    }
}

#[test]
fn inputs_are_checked_by_their_schema() {
    let compiled = good(
        "inputs: {type: object, required: [n], properties: {n: {type: integer}}}\nnodes: {a: {type: function}}",
    );
    assert!(compiled.inputs.check(&Value::map([("n", Value::Int(1))])).is_ok());
    let found = compiled.inputs.check(&Value::map([("n", Value::from("one"))])).unwrap_err();
    assert_eq!((found[0].code, &*found[0].pointer), ("inputs_invalid", "/n"));
    assert!(compiled.inputs.check(&Value::Null).is_err());
    assert!(good("nodes: {a: {type: function}}").inputs.check(&Value::Null).is_ok());
    let remote =
        yaml("inputs: {$ref: 'http://127.0.0.1:1/x.json'}\nnodes: {a: {type: function}}").unwrap_err();
    assert_eq!(remote.errors[0].code, "schema_ref");
}

#[test]
fn names_of_the_caller_fill_in_and_must_not_contradict() {
    let options = Options {
        name: Some("w".into()),
        version: Some("3".into()),
        require_name: true,
        ..Options::default()
    };
    let compiled = compile(b"nodes: {a: {type: function}}", Format::Yaml, &options).unwrap();
    assert_eq!((&*compiled.ir.name, &*compiled.ir.version), ("w", "3"));
    assert!(compiled.canonical.contains("\"name\":\"w\""));
    let refused = compile(b"name: v\nnodes: {a: {type: function}}", Format::Yaml, &options).unwrap_err();
    assert_eq!(refused.errors[0].code, "name_mismatch");
    let strict = Options { require_name: true, ..Options::default() };
    assert_eq!(
        compile(b"nodes: {a: {type: function}}", Format::Yaml, &strict).unwrap_err().errors[0].code,
        "missing_key"
    );
}

#[test]
fn a_schema_that_refers_to_itself_does_not_bring_the_node_down() {
    for schema in [
        "{$ref: '#'}",
        "{allOf: [{$ref: '#'}]}",
        "{$ref: '#/$defs/a', $defs: {a: {$ref: '#/$defs/b'}, b: {anyOf: [{$ref: '#/$defs/a'}]}}}",
        "{not: {$ref: '#'}}",
        "{if: {$ref: '#'}}",
        "{$dynamicRef: '#x', $dynamicAnchor: x}",
        "{properties: {a: {$ref: '#'}}}",
    ] {
        println!("{schema}");
        if let Ok(compiled) = yaml(&format!("inputs: {schema}\nnodes: {{a: {{type: function}}}}")) {
            let _ = compiled.inputs.check(&Value::map([("a", Value::Int(1))]));
        }
    }
}

#[test]
fn every_example_compiles() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(examples).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let compiled = good(&std::fs::read_to_string(&path).unwrap());
            assert!(compiled.unavailable.is_empty() && compiled.warnings.is_empty(), "{}", path.display());
        }
    }
}

#[test]
fn workflows_of_agents_are_valid_and_name_roles_that_are_there() {
    fn roles<'v>(value: &'v serde_json::Value, found: &mut Vec<&'v str>) {
        match value {
            serde_json::Value::Object(members) => {
                found.extend(members.get("role").and_then(serde_json::Value::as_str));
                members.values().for_each(|value| roles(value, found));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| roles(value, found)),
            _ => {}
        }
    }
    let mut seen = 0;
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents");
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let compiled = good(&std::fs::read_to_string(&path).unwrap());
        // Nothing but that a node may have nobody who does such work, and no use for roles.
        for said in compiled.warnings.iter().chain(&compiled.unavailable) {
            assert!(
                ["key_ignored", "executor_not_available"].contains(&said.code),
                "{}: {said:?}",
                path.display()
            );
        }
        let document: serde_json::Value = serde_json::from_str(&compiled.canonical).unwrap();
        let mut named = Vec::new();
        roles(&document["nodes"], &mut named);
        assert!(named.len() >= 2, "{}: {named:?}", path.display());
        for role in named {
            assert!(document["agents"][role]["system"].is_string(), "{}: {role}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 6, "{seen}");
}
