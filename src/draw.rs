//! Graphs as pictures, for the API and the command line: scopes, the layers their nodes stand in, and SVG.
//!
//! Works from the canonical document, so that every spelling is drawn alike, and the same document always gives the same
//! bytes. What is drawn has been compiled, so its size is bounded by the limits of a document; time and memory are near
//! linear in nodes and edges. Nothing here knows where a document comes from.

pub(crate) mod layers;
mod place;
mod scope;
mod svg;

pub(crate) use scope::{Edge, Mark, Node, Scope};
pub(crate) use svg::svg;

/// What is drawn: a title and the outermost scope.
pub(crate) struct Drawing {
    pub(crate) title: String,
    pub(crate) scope: Scope,
}

/// What an edge waits for.
pub(crate) fn said(edge: &Edge) -> String {
    let on = if edge.on == "success" { "" } else { &edge.on };
    let gap = if on.is_empty() || edge.when.is_empty() { "" } else { ": " };
    format!("{on}{gap}{}", short(&edge.when, 28))
}

/// At most `most` characters, on one line.
pub(crate) fn short(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        count += word.chars().count() + usize::from(!line.is_empty());
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if count > most {
            let end = line.char_indices().nth(most.saturating_sub(1)).map_or(line.len(), |(end, _)| end);
            line.truncate(end);
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

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

    // N2: what is told apart has a colour of its own, and nothing else has.
    #[test]
    fn only_what_is_marked_is_coloured() {
        let document = crate::model::Value::from_json(
            br#"{"nodes": {"a": {"type": "function"}, "b": {"type": "<task>"}}, "edges": {"a/b": {"from": "a", "to": "b"}}}"#,
        );
        let mut scope = Scope::read(&document.unwrap());
        let draw = |scope| svg(&Drawing { title: "<t>".into(), scope });
        let of_node = |id: &str| if id == "b" { Mark::Added } else { Mark::None };
        scope.mark(of_node, |_, _, _| Mark::Removed);
        let text = draw(scope);
        assert!(text.contains("class=\"other added\"") && text.contains("class=\" removed\""), "{text}");
        assert!(
            text.contains("class=\"function\"") && !text.contains("<t>") && !text.contains("<task>"),
            "{text}"
        );
    }
}
