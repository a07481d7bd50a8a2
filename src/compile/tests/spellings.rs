//! Generated documents of all kinds, written in many ways: one meaning, one hash.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json as tree};

use super::*;

/// Decides everything, from one number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }

    fn maybe(&mut self) -> bool {
        self.roll(2) == 0
    }
}

fn body(dice: &mut Dice, depth: usize) -> Json {
    if dice.maybe() { node(dice, depth + 1, false) } else { scope(dice, depth + 1) }
}

fn scope(dice: &mut Dice, depth: usize) -> Json {
    let count = 1 + dice.roll(4);
    let mut nodes = Map::new();
    let mut edges = Map::new();
    for number in 0..count {
        let node = node(dice, depth, number + 1 < count);
        for to in number + 1..count {
            let kind = node["type"].as_str().unwrap();
            let on = match kind {
                _ if dice.maybe() => continue,
                "human_review" if dice.maybe() => ":approved",
                "conditional" => ":b",
                "wait" if dice.maybe() => ":timeout",
                _ => "",
            };
            let mut edge = tree!({"from": format!("n{number}"), "to": format!("n{to}")});
            if !on.is_empty() {
                edge["on"] = tree!(&on[1..]);
            }
            if dice.roll(4) == 0 {
                edge["when"] = tree!("output != 1");
            }
            edges.insert(format!("n{number}/n{to}{on}"), edge);
        }
        nodes.insert(format!("n{number}"), node);
    }
    let mut scope = tree!({"nodes": nodes});
    if !edges.is_empty() {
        scope["edges"] = Json::Object(edges);
    }
    if dice.roll(3) == 0 {
        scope["outputs"] = tree!({"last": format!("${{ nodes.n{}.output }}", count - 1)});
    }
    scope
}

fn node(dice: &mut Dice, depth: usize, branching: bool) -> Json {
    let kinds = if depth > 3 { 8 } else { 13 };
    let (kind, with) = match dice.roll(kinds) {
        0 => ("function", tree!({"expr": "input"})),
        1 => ("join", tree!({"wait": "any", "merge": "array"})),
        2 => ("delay", tree!({"for": "1s"})),
        3 => ("wait", tree!({"signal": "s${ run.id }", "timeout": 9})),
        4 => (
            "http",
            tree!({"method": "PUT", "url": "https://x/${ inputs.a }", "headers": {"k": "${secret:K}"}}),
        ),
        5 => ("agent", tree!({"task": "do ${ input }", "max_turns": 2, "tools": ["patch"]})),
        6 => ("task", tree!({"payload": {"x": ["${ input }", 1, null, 1.5, true]}})),
        7 if branching => ("conditional", tree!({"branches": [{"name": "b", "when": "inputs.x > 1"}]})),
        7 => ("human_review", tree!({"reviewers": ["ops"], "escalate": [{"after": "1m", "to": ["x"]}]})),
        8 => ("map", tree!({"over": "[1, 2]", "body": body(dice, depth), "on_item_error": "skip"})),
        9 => ("parallel", tree!({"branches": {"x": body(dice, depth), "y": body(dice, depth)}})),
        10 => ("loop", tree!({"while": "iteration < 2", "max_iterations": 3, "body": body(dice, depth)})),
        11 => ("composite", tree!({"body": body(dice, depth)})),
        _ => ("composite", tree!({"workflow": "w@1", "parent_close": "abandon"})),
    };
    let mut node = tree!({"type": kind, "with": with});
    for (key, value) in [
        ("retry", tree!({"max_attempts": 1 + dice.roll(5), "jitter": false, "backoff": "fixed"})),
        ("timeout", tree!("90s")),
        ("priority", tree!("high")),
        ("output_schema", tree!({"type": "object", "properties": {"a": {"type": "integer"}}})),
        ("fallback", tree!({"value": {"a": 1}})),
        ("on_error", tree!("continue")),
        ("input", tree!({"a": "${ inputs.a }", "b": [1.25]})),
        ("outputs", tree!([format!("o{}", dice.roll(1_000_000))])),
        ("x-own", tree!({"z": 1, "a": [1]})),
    ] {
        if dice.roll(5) == 0 {
            node[key] = value;
        }
    }
    node
}

/// Another way to write the same document.
fn respelled(value: &Json, dice: &mut Dice) -> Json {
    let Json::Object(map) = value else {
        return match value {
            Json::Array(items) => items.iter().map(|item| respelled(item, dice)).collect(),
            other => other.clone(),
        };
    };
    let arrays = dice.maybe();
    let mut out = Map::new();
    for (key, value) in map {
        let value = match (&**key, value) {
            ("nodes", Json::Object(nodes)) if arrays => {
                let list = nodes.iter().map(|(id, node)| {
                    let mut node = respelled(node, dice);
                    node["id"] = tree!(id);
                    node
                });
                list.collect()
            }
            ("edges", Json::Object(edges)) if arrays => edges.values().cloned().collect(),
            ("retry", retry) if dice.maybe() => {
                let mut retry = retry.clone();
                let calls = retry["max_attempts"].as_u64().unwrap();
                let other = retry.as_object_mut().unwrap();
                other.remove("max_attempts");
                other.insert("max_retries".into(), tree!(calls - 1));
                other.insert("backoff".into(), tree!("constant"));
                retry
            }
            ("fallback", fallback) if dice.maybe() => fallback["value"].clone(),
            ("type", Json::String(kind)) if dice.maybe() => match &**kind {
                "http" => tree!("http_request"),
                "agent" => tree!("agent_task"),
                "human_review" => tree!("approval"),
                other => tree!(other),
            },
            // Defaults stay as they are written.
            ("defaults", value) => value.clone(),
            (_, value) => respelled(value, dice),
        };
        out.insert(key.clone(), value);
    }
    Json::Object(out)
}

/// As JSON, or as YAML in blocks; keys in any order.
fn written(value: &Json, dice: &mut Dice, blocks: Option<usize>, out: &mut String) {
    match (value, blocks) {
        (Json::Object(map), _) if !map.is_empty() => {
            let mut entries: Vec<_> = map.iter().collect();
            for at in (1..entries.len()).rev() {
                entries.swap(at, dice.roll(at + 1));
            }
            out.push_str(if blocks.is_some() { "" } else { "{" });
            for (index, (key, value)) in entries.into_iter().enumerate() {
                match blocks {
                    Some(indent) => out.push_str(&format!("\n{}{key:?}: ", " ".repeat(indent))),
                    None => out.push_str(&format!("{}{key:?}:", if index > 0 { "," } else { "" })),
                }
                // Lists are written in one line.
                written(value, dice, blocks.map(|indent| indent + 2), out);
            }
            out.push_str(if blocks.is_some() { "" } else { "}" });
        }
        (Json::Array(items), _) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                written(item, dice, None, out);
            }
            out.push(']');
        }
        (other, _) => out.push_str(&other.to_string()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_document_means_the_same_however_it_is_written(seed in any::<u64>()) {
        // F110, F262, F272
        let mut dice = Dice(seed);
        let mut document = scope(&mut dice, 0);
        document["name"] = tree!("generated");
        document["version"] = tree!("1.0");
        document["defaults"] = tree!({"timeout": "60s", "retry": {"max_attempts": 2}});
        let mut first = None;
        for way in 0..4 {
            let mut spelled = if way == 0 { document.clone() } else { respelled(&document, &mut dice) };
            if way == 3 {
                spelled["version"] = tree!(1.0);
            }
            let mut text = String::new();
            written(&spelled, &mut dice, (way % 2 == 1).then_some(0), &mut text);
            let format = if way % 2 == 1 { Format::Yaml } else { Format::Json };
            let compiled = compile(text.as_bytes(), format, &Options::default());
            let compiled = match compiled {
                Ok(compiled) => compiled,
                Err(refused) => return Err(TestCaseError::fail(format!("{refused}\n{text}"))),
            };
            let again = compile_canonical(compiled.canonical.as_bytes()).unwrap();
            prop_assert_eq!(again.hash, compiled.hash);
            let ir = format!("{:?}", compiled.ir);
            prop_assert_eq!(format!("{:?}", again.ir), &*ir);
            let (canonical, hash, lowered) =
                first.get_or_insert_with(|| (compiled.canonical.clone(), compiled.hash, ir.clone()));
            prop_assert_eq!(&compiled.canonical, &*canonical);
            prop_assert_eq!(compiled.hash, *hash);
            prop_assert_eq!(&ir, &*lowered);
        }
    }
}
