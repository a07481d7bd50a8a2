//! Drawings compared with the ones beside this file, and what they must hold for any document.
//!
//! `AOB_TIDY_BLESS=1 cargo test --lib graph` writes them anew; look at them before you commit.

use super::*;
use crate::draw::{Edge, Mark, Node};

/// Every kind of edge, a skip over layers, nested bodies, a title that must be escaped.
const EVERYTHING: &str = r#"
name: everything
version: "1"
nodes:
  load: {type: function, with: {expr: '{"rows": [1, 2], "ok": "<yes>"}'}}
  pick:
    type: conditional
    needs: [load]
    with: {branches: [{name: many, when: size(input.rows) > 1, to: each}], default: few}
  each:
    type: map
    with:
      over: nodes.load.output.rows
      body:
        nodes:
          rest: {type: delay, with: {for: 20ms}}
          score: {type: function, with: {expr: item * 2}, needs: [rest]}
          inner:
            type: map
            needs: [score]
            with: {over: "[1]", body: {type: function, with: {expr: item + 1}}}
  few: {type: wait, with: {signal: more, timeout: 1h}}
  sorry: {type: function}
  done: {type: join, with: {wait: any}, needs: [each, few]}
edges:
  - {from: few, to: sorry, on: timeout}
  - {from: each, to: sorry, on: error}
  - {from: load, to: done, when: "output.ok == \"<no>\" && size(nodes.load.output.rows) > 1000"}
"#;

fn drawn(source: &str, draw: impl Fn(&Drawing) -> String) -> String {
    let text = draw(&drawing(source.as_bytes(), "test.yaml", None).unwrap());
    anstream::adapter::strip_str(&text).to_string()
}

fn golden(name: &str, found: &str) {
    let place = format!("{}/src/cli/graph/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    let wanted = std::fs::read_to_string(&place).unwrap_or_default();
    if wanted != found {
        assert!(std::env::var("AOB_TIDY_BLESS").is_ok(), "{name} is another:\n{found}");
        std::fs::write(place, found).unwrap();
    }
}

#[test]
fn a_graph_is_drawn_as_it_was_drawn_before() {
    golden("everything.txt", &drawn(EVERYTHING, listing::draw));
    golden("everything.svg", &drawn(EVERYTHING, draw::svg));
    golden("everything.mmd", &drawn(EVERYTHING, dialects::mermaid));
    golden("everything.dot", &drawn(EVERYTHING, dialects::dot));
    golden("everything.json", &drawn(EVERYTHING, |drawing| format!("{:#}\n", dialects::json(drawing))));
}

#[test]
fn a_listing_fits_80_columns_and_names_every_node_and_edge() {
    let text = drawn(EVERYTHING, listing::draw);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in
        ["load  function", "on error", "on timeout", "on many", "when output.ok", "← ", "everything@1"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn what_comes_from_the_document_is_escaped() {
    let svg = drawn(EVERYTHING, draw::svg);
    assert!(!svg.contains("<yes>") && !svg.contains("<no>") && svg.contains("&lt;yes&gt;"), "{svg}");
    let hostile = "nodes: {a: {type: wait, with: {signal: \"</text><script>&\\u0007\"}}}";
    let svg = drawn(hostile, draw::svg);
    assert!(!svg.contains("<script>") && !svg.contains('\u{7}'), "{svg}");
}

#[test]
fn every_spelling_is_drawn_alike() {
    let arrays = "nodes: [{id: a, type: function}, {id: b, type: function}]\nedges: [{from: a, to: b}]";
    let maps = "nodes: {a: {type: function}, b: {type: function, needs: [a]}}";
    let steps = "steps: [{id: a, type: function}, {id: b, type: function}]";
    for draw in [listing::draw, draw::svg, dialects::mermaid, dialects::dot] {
        assert_eq!(drawn(arrays, draw), drawn(maps, draw));
        assert_eq!(drawn(steps, draw), drawn(maps, draw));
    }
}

#[test]
fn a_wrong_document_is_not_drawn() {
    let Err(error) = drawing(b"nodes: {a: {type: nothing}}", "w.yaml", None) else { panic!("drawn") };
    assert!(error.to_string().starts_with("w.yaml:1:13: error[unknown_kind]"), "{error}");
}

#[test]
fn the_largest_graphs_are_drawn_in_near_linear_time() {
    // As many nodes and edges as a document may have: a chain with shortcuts, a star, layers that know each other
    // well. A quadratic step would keep this test for minutes.
    let node = |id: usize| Node {
        id: format!("n{id}"),
        kind: "function".into(),
        note: String::new(),
        bodies: Vec::new(),
        mark: Mark::None,
    };
    let chain = (1..10_000).map(|at| (at - 1, at)).chain((200..10_000).map(|at| (at - 200, at)));
    let star = (1..10_000).map(|at| (0, at));
    let layered =
        (0..9_900).flat_map(|at| (0..5).map(move |to| (at, (at / 100 + 1) * 100 + (at * 7 + to * 13) % 100)));
    let all: [Vec<(usize, usize)>; 3] = [chain.collect(), star.collect(), layered.collect()];
    for pairs in all {
        let on = String::from("success");
        let edge = |(from, to): &(usize, usize)| Edge {
            from: *from,
            to: *to,
            on: on.clone(),
            when: String::new(),
            mark: Mark::None,
        };
        let scope = Scope { nodes: (0..10_000).map(node).collect(), edges: pairs.iter().map(edge).collect() };
        let drawing = Drawing { title: "large".into(), scope };
        for draw in [listing::draw, draw::svg] {
            assert!(draw(&drawing).contains("n9999"), "{} edges", pairs.len());
        }
    }
}
