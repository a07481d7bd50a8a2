//! Generated documents: random graphs, random bytes, the largest graph.

use proptest::prelude::*;

use super::*;

fn document(nodes: usize, edges: &[(usize, usize)]) -> String {
    let mut text = String::from("{\"nodes\":{");
    for node in 0..nodes {
        text.push_str(&format!("{}\"n{node}\":{{\"type\":\"function\"}}", if node == 0 { "" } else { "," }));
    }
    text.push_str("},\"edges\":[");
    for (index, (from, to)) in edges.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{{\"from\":\"n{from}\",\"to\":\"n{to}\"}}"));
    }
    text.push_str("]}");
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_edge_of_a_random_graph_goes_forward(
        nodes in 2_usize..40,
        pairs in prop::collection::btree_set((0_usize..40, 0_usize..40), 0..120),
        close in any::<bool>(),
    ) {
        // Numbers are shuffled against ids by a fixed permutation, so that id order is not the order of edges.
        let name = |n: usize| (n * 17 + 5) % 41;
        let mut edges: Vec<(usize, usize)> = pairs
            .into_iter()
            .filter(|(a, b)| a < b && *b < nodes)
            .map(|(a, b)| (name(a), name(b)))
            .collect();
        let size = edges.len();
        let text = document(41, &edges);
        let compiled = json(&text).unwrap();
        let root = compiled.ir.root();
        prop_assert_eq!((root.nodes.len(), root.edges.len()), (41, size));
        for (index, edge) in root.edges.iter().enumerate() {
            prop_assert!(edge.from < edge.to);
            let index = u32::try_from(index).unwrap();
            prop_assert!(root.nodes[edge.from as usize].outgoing.contains(&index));
            prop_assert!(root.nodes[edge.to as usize].incoming.contains(&index));
        }
        let again = compile_canonical(compiled.canonical.as_bytes()).unwrap();
        prop_assert_eq!(again.hash, compiled.hash);
        prop_assert_eq!(format!("{:?}", again.ir), format!("{:?}", compiled.ir));
        if close && size > 0 {
            let (from, to) = edges[0];
            edges.push((to, from));
            let refused = json(&document(41, &edges)).unwrap_err();
            prop_assert!(refused.errors.iter().all(|found| found.code == "cycle"), "{}", refused);
        }
    }

    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = compile(&bytes, Format::Yaml, &Options::default());
        let _ = compile(&bytes, Format::Json, &Options::default());
    }

    #[test]
    fn no_mutation_of_a_document_brings_it_down(
        at in 0_usize..600,
        with in prop::sample::select(vec!["", "{", "}", "[", "]", "\"", ":", "- ", "&a ", "*a", "!!x ", "${", "\n", "null", "\u{85}", "é"]),
        cut in 0_usize..20,
    ) {
        const BASE: &str = include_str!("document.yaml");
        let start = BASE.floor_char_boundary(at.min(BASE.len()));
        let end = BASE.floor_char_boundary((start + cut).min(BASE.len())).max(start);
        let text = format!("{}{with}{}", &BASE[..start], &BASE[end..]);
        match yaml(&text) {
            Ok(compiled) => {
                let again = compile_canonical(compiled.canonical.as_bytes()).unwrap();
                prop_assert_eq!(again.hash, compiled.hash);
            }
            Err(refused) => {
                prop_assert!(refused.errors.iter().all(|found| found.line > 0), "{}\n{}", refused, text);
            }
        }
    }
}

#[test]
fn the_largest_graph_compiles() {
    let nodes = crate::limits::NODES_MAX;
    let mut edges: Vec<(usize, usize)> = (1..nodes).map(|node| (node - 1, node)).collect();
    edges.extend((0..nodes - 20).step_by(2).map(|node| (node, node + 20)));
    let compiled = json(&document(nodes, &edges)).unwrap();
    assert_eq!(compiled.ir.root().nodes.len(), nodes);
    let mut text = String::from("nodes:\n  n0: {type: function, with: {expr: inputs.n}}\n");
    // Half as many: the canonical text of more would not fit a document.
    let half = nodes / 2;
    for node in 1..half {
        let expr = format!("nodes.n{}.output+1", node - 1);
        text.push_str(&format!(
            "  n{node}: {{type: function, with: {{expr: {expr}}}, needs: [n{}]}}\n",
            node - 1
        ));
    }
    assert_eq!(yaml(&text).unwrap().ir.root().edges.len(), half - 1);
    // All of it is wrong, and that is found as fast.
    let wrong = text.replace("nodes.n", "nodes.m").replace("needs: [n", "needs: [m");
    assert!(yaml(&wrong).unwrap_err().truncated > half);
    edges.push((nodes - 1, 0));
    let refused = json(&document(nodes, &edges)).unwrap_err();
    assert_eq!(refused.errors.len(), 1);
    assert!(refused.errors[0].message.starts_with("cycle: n0 -> "), "{refused}");
}
