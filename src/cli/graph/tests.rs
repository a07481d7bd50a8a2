//! Drawings compared with the ones beside this file, and what they must hold for any document.
//!
//! `AOB_TIDY_BLESS=1 cargo test --lib graph` writes them anew; look at them before you commit.

use super::*;

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
    let text = draw(&drawing(source.as_bytes(), "test.yaml").unwrap());
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
    golden("everything.svg", &drawn(EVERYTHING, svg::draw));
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
    let svg = drawn(EVERYTHING, svg::draw);
    assert!(!svg.contains("<yes>") && !svg.contains("<no>") && svg.contains("&lt;yes&gt;"), "{svg}");
    let hostile = "nodes: {a: {type: wait, with: {signal: \"</text><script>&\\u0007\"}}}";
    let svg = drawn(hostile, svg::draw);
    assert!(!svg.contains("<script>") && !svg.contains('\u{7}'), "{svg}");
}

#[test]
fn every_spelling_is_drawn_alike() {
    let arrays = "nodes: [{id: a, type: function}, {id: b, type: function}]\nedges: [{from: a, to: b}]";
    let maps = "nodes: {a: {type: function}, b: {type: function, needs: [a]}}";
    let steps = "steps: [{id: a, type: function}, {id: b, type: function}]";
    for draw in [listing::draw, svg::draw, dialects::mermaid, dialects::dot] {
        assert_eq!(drawn(arrays, draw), drawn(maps, draw));
        assert_eq!(drawn(steps, draw), drawn(maps, draw));
    }
}

#[test]
fn a_wrong_document_is_not_drawn() {
    let Err(error) = drawing(b"nodes: {a: {type: nothing}}", "w.yaml") else { panic!("drawn") };
    assert!(error.to_string().starts_with("w.yaml:1:13: error[unknown_kind]"), "{error}");
}

#[test]
fn the_largest_graphs_are_drawn_in_near_linear_time() {
    // As many nodes and edges as a document may have: a chain with shortcuts, a star, layers that know each other
    // well. A quadratic step would keep this test for minutes.
    let node = |id: usize| scope::Node {
        id: format!("n{id}"),
        kind: "function".into(),
        note: String::new(),
        bodies: Vec::new(),
    };
    let chain = (1..10_000).map(|at| (at - 1, at)).chain((200..10_000).map(|at| (at - 200, at)));
    let star = (1..10_000).map(|at| (0, at));
    let layered =
        (0..9_900).flat_map(|at| (0..5).map(move |to| (at, (at / 100 + 1) * 100 + (at * 7 + to * 13) % 100)));
    let all: [Vec<(usize, usize)>; 3] = [chain.collect(), star.collect(), layered.collect()];
    for pairs in all {
        let on = String::from("success");
        let edge = |(from, to): &(usize, usize)| scope::Edge {
            from: *from,
            to: *to,
            on: on.clone(),
            when: String::new(),
        };
        let scope = Scope { nodes: (0..10_000).map(node).collect(), edges: pairs.iter().map(edge).collect() };
        let drawing = Drawing { title: "large".into(), scope };
        for draw in [listing::draw, svg::draw] {
            assert!(draw(&drawing).contains("n9999"), "{} edges", pairs.len());
        }
    }
}

#[test]
fn layers_are_longest_paths() {
    let found = layers::layers(5, &[(0, 1), (1, 2), (0, 2), (3, 2)]);
    assert_eq!(found.of, [0, 1, 2, 0, 0]);
    assert_eq!(found.rows, [vec![0, 3, 4], vec![1], vec![2]]);
    // A ring is no reason to stop.
    assert_eq!(layers::layers(3, &[(0, 1), (1, 2), (2, 1)]).of, [0, 1, 1]);
}

#[test]
fn boxes_do_not_overlap_and_edges_go_down() {
    let sizes = vec![(100.0, 40.0); 12];
    let edges: Vec<(usize, usize)> = (0..11).map(|at| (at / 3, at + 1)).collect();
    let placed = place::place(&sizes, &edges);
    for (at, a) in placed.corners.iter().enumerate() {
        assert!(a.0 >= 0.0 && a.0 + 100.0 <= placed.width + 0.5 && a.1 + 40.0 <= placed.height + 0.5);
        for b in placed.corners.iter().skip(at + 1) {
            assert!(a.1 != b.1 || (a.0 - b.0).abs() >= 100.0, "{a:?} {b:?}");
        }
    }
    assert!(edges.iter().all(|(from, to)| placed.corners[*from].1 < placed.corners[*to].1));
}
