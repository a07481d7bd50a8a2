//! What holds for every document: checked by code that knows nothing of how gates are put in.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map as JsonMap, Value as Json, json};

use super::*;

const RULES: &str = r#"[{"tag": "money", "reviewers": ["cfo"]}, {"tag": "legal", "reviewers": ["lawyer"], "timeout": "1h"},
    {"confidence_below": 0.7, "reviewers": ["expert"]}]"#;

/// Takes one number after the other; zero when they are used up.
struct Draw<'a>(std::slice::Iter<'a, u8>);

impl Draw<'_> {
    fn below(&mut self, count: u8) -> u8 {
        self.0.next().copied().unwrap_or(0) % count
    }

    fn of(&mut self, words: [&'static str; 3]) -> &'static str {
        words[usize::from(self.below(3))]
    }

    fn tags(&mut self) -> Vec<&'static str> {
        match self.below(6) {
            0 => vec!["money"],
            1 => vec!["legal", "money"],
            2 => vec!["harmless"],
            _ => vec![],
        }
    }
}

fn node(draw: &mut Draw<'_>, depth: u8, tagged: bool) -> Json {
    let body = |draw: &mut Draw<'_>| match draw.below(2) {
        0 if depth > 0 => scope(draw, depth - 1, tagged),
        _ => plain(draw, tagged),
    };
    let mut node = match if depth == 0 { draw.below(4) } else { draw.below(10) } {
        0 => return plain(draw, tagged),
        1 => json!({"type": "human_review", "with": {"reviewers": [draw.of(["cfo", "lawyer", "intern"])]}}),
        2 => return json!({"type": "join"}),
        3 => json!({"type": "function", "with": {"expr": "{'confidence': 0.1}"}}),
        4 => json!({"type": "map", "with": {"over": "[1, 2]", "body": body(draw)}}),
        5 => {
            json!({"type": "loop", "with": {"while": "iteration < 2", "max_iterations": 2, "body": body(draw)}})
        }
        6 => json!({"type": "parallel", "with": {"branches": {"l": body(draw), "r": body(draw)}}}),
        7 => json!({"type": "composite", "with": {"body": body(draw)}}),
        8 => json!({"type": "task", "fallback": body(draw)}),
        _ => {
            json!({"type": "http", "with": {"url": "https://x/${ input.id }"}, "input": {"id": "${ inputs.id }"}})
        }
    };
    if tagged && node["type"] != "human_review" {
        node["tags"] = json!(draw.tags());
    }
    node
}

fn plain(draw: &mut Draw<'_>, tagged: bool) -> Json {
    let mut node = json!({"type": draw.of(["task", "function", "wait"])});
    if node["type"] == "wait" {
        node["with"] = json!({"signal": "go"});
    }
    if tagged {
        node["tags"] = json!(draw.tags());
    }
    node
}

fn scope(draw: &mut Draw<'_>, depth: u8, tagged: bool) -> Json {
    let count = 1 + draw.below(5);
    let mut nodes = JsonMap::new();
    let mut edges = Vec::new();
    for at in 0..count {
        let id = ["a", "b", "gate_a", "input_a", "e"][usize::from(at)];
        nodes.insert(id.into(), node(draw, depth, tagged));
        for (from, _) in
            nodes.iter().filter(|(from, _)| *from != id).map(|(id, _)| (id.clone(), ())).collect::<Vec<_>>()
        {
            let review = nodes[&from]["type"] == "human_review";
            let on = match draw.below(6) {
                0 | 1 if review => "approved",
                2 if review => "rejected",
                0 => "success",
                1 => "error",
                _ => continue,
            };
            edges.push(json!({"from": from, "to": id, "on": on}));
        }
    }
    json!({"nodes": nodes, "edges": edges})
}

/// Nodes of a scope that are reached from its start without the approval of somebody called `who`.
fn unapproved(scope: &Json, who: &str) -> BTreeSet<String> {
    let empty = JsonMap::new();
    let edges = scope["edges"].as_object().unwrap_or(&empty);
    let nodes = scope["nodes"].as_object().unwrap();
    let targets: BTreeSet<&str> = edges.values().map(|edge| edge["to"].as_str().unwrap()).collect();
    let mut reached: BTreeSet<String> =
        nodes.keys().filter(|id| !targets.contains(id.as_str())).cloned().collect();
    loop {
        let before = reached.len();
        for edge in
            edges.values().filter(|edge| reached.contains(edge["from"].as_str().unwrap())).collect::<Vec<_>>()
        {
            let from = &nodes[edge["from"].as_str().unwrap()];
            let passes = edge["on"].is_null() || edge["on"] == "approved";
            if from["type"] == "human_review" && from["with"]["reviewers"] == json!([who]) && passes {
                continue;
            }
            reached.insert(edge["to"].as_str().unwrap().to_owned());
        }
        if reached.len() == before {
            return reached;
        }
    }
}

/// Nodes with a tag that run without whoever the tag asks.
fn ungated(value: &Json, found: &mut Vec<String>) {
    match value {
        Json::Object(map) if map.contains_key("nodes") => {
            for (tag, who) in [("money", "cfo"), ("legal", "lawyer")] {
                let free = unapproved(value, who);
                let nodes = value["nodes"].as_object().unwrap();
                found.extend(nodes.iter().filter_map(|(id, node)| {
                    let is = node["tags"].as_array().is_some_and(|tags| tags.contains(&json!(tag)));
                    (is && free.contains(id)).then(|| format!("{id}: {tag}"))
                }));
            }
            value["nodes"].as_object().unwrap().values().for_each(|node| ungated(node, found));
        }
        Json::Object(map) => {
            // A body that is one node has nothing before it.
            for key in ["with", "body", "fallback"] {
                if let Some(inner) = map.get(key) {
                    if (key == "body" || key == "fallback")
                        && inner["nodes"].is_null()
                        && !inner["tags"].is_null()
                    {
                        let tags = inner["tags"].as_array().unwrap();
                        let bad = tags.iter().filter(|tag| **tag == "money" || **tag == "legal");
                        found.extend(bad.map(|tag| format!("alone: {tag}")));
                    }
                    ungated(inner, found);
                }
            }
            map.get("branches")
                .and_then(Json::as_object)
                .into_iter()
                .flatten()
                .for_each(|(_, body)| ungated(&json!({"body": body}), found));
        }
        _ => {}
    }
}

fn tags_of(value: &Json, count: &mut usize) {
    match value {
        Json::Object(map) => {
            *count += map.get("tags").and_then(Json::as_array).map_or(0, Vec::len);
            map.values().for_each(|value| tags_of(value, count));
        }
        Json::Array(items) => items.iter().for_each(|value| tags_of(value, count)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // F324
    #[test]
    fn every_tagged_node_is_behind_whom_it_takes(numbers in prop::collection::vec(any::<u8>(), 0..160)) {
        let source = scope(&mut Draw(numbers.iter()), 2, true);
        let compiled = compile(source.to_string().as_bytes(), Format::Json, &Options::default())
            .unwrap_or_else(|refused| panic!("{source:#}\n{refused}"));
        let rules = rules(RULES);
        let made = materialise(&compiled, "w", &rules).unwrap_or_else(|refused| panic!("{source:#}\n{refused}")).unwrap();
        prop_assert_eq!(&made.canonical, &materialise(&compiled, "w", &rules).unwrap().unwrap().canonical);
        prop_assert_eq!(gated(&made.document, &rules), made.document.clone(), "it is made once");
        prop_assert!(made.unavailable.is_empty());
        let json: Json = serde_json::from_str(&made.canonical).unwrap();
        let mut found = Vec::new();
        ungated(&json, &mut found);
        prop_assert!(found.is_empty(), "{found:?}\n{json:#}");
        // Nothing is lost, and nothing else is changed: edges of the scope are what they were.
        let (mut before, mut after) = (0, 0);
        tags_of(&source, &mut before);
        tags_of(&json["nodes"], &mut after);
        prop_assert_eq!(before, after);
        prop_assert_eq!(made.document.get("edges"), compiled.document.get("edges"));
    }

    #[test]
    fn a_document_without_tags_is_left_as_it_is(numbers in prop::collection::vec(any::<u8>(), 0..160)) {
        let source = scope(&mut Draw(numbers.iter()), 2, false);
        let compiled = compile(source.to_string().as_bytes(), Format::Json, &Options::default()).unwrap();
        let tags = Rules { rules: rules(RULES).rules.into_iter().take(2).collect() };
        let same = gated(&compiled.document, &tags);
        prop_assert_eq!(same.to_json(), compiled.document.to_json());
    }
}
