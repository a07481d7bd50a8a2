//! Pictures of runs at a fixed width, as a person sees them.

use serde_json::json;

use super::*;

const AT: &str = "1970-01-01T00:00:01.000Z";

fn tree(events: &[Value]) -> Tree {
    let graph = json!({
        "run_id": "run_1",
        "document": {"name": "flow"},
        "nodes": {"ask": {}, "each": {}, "fetch": {}, "last": {}},
    });
    let mut tree = Tree::new(&graph, false);
    tree.take(&json!({"type": "run.started", "at": AT, "workflow": "flow"}));
    events.iter().for_each(|row| tree.take(row));
    tree
}

fn drawn(tree: &Tree, columns: usize, rows: usize) -> String {
    let text = tree.drawn(&Frame { now_ms: 62_500, columns, rows });
    anstream::adapter::strip_str(&text).to_string()
}

fn started(node: &str, attempt: u64) -> Value {
    json!({"type": "node.started", "node": node, "at": AT, "attempt": attempt})
}

// F197
#[test]
fn nodes_are_drawn_with_state_attempts_and_time() {
    let mut tree = tree(&[
        started("fetch", 2),
        json!({"type": "node.completed", "node": "fetch", "at": "1970-01-01T00:00:02.250Z"}),
        started("ask", 1),
        json!({"type": "node.waiting", "node": "ask", "at": AT, "waiting_for": "signal", "signal": "go"}),
        started("each", 1),
        json!({"type": "node.waiting", "node": "each", "at": AT, "waiting_for": "items", "items": 3}),
        started("each[0].check", 1),
        json!({"type": "node.completed", "node": "each[0].check", "at": AT}),
        started("each[1].check", 1),
        json!({"type": "node.retry_scheduled", "node": "each[1].check", "at": AT, "error": {"code": "timeout"}}),
    ]);
    assert_eq!(
        drawn(&tree, 40, 20),
        "\
flow  running  1/4 nodes  1 min 1 s
run_1
◌ ask  signal go               1 min 1 s
● each  1 inside done          1 min 1 s
    ↻ check  timeout           1 min 1 s
✓ fetch  attempt 2                 1.2 s
· last"
    );
    tree.take(&json!({"type": "run.cancelled", "at": "1970-01-01T00:00:03.000Z"}));
    assert_eq!(
        drawn(&tree, 40, 20),
        "\
flow  cancelled  4/4 nodes  2.0 s
run_1
■ ask                              2.0 s
■ each  1 inside done              2.0 s
    ■ check                        2.0 s
✓ fetch  attempt 2                 1.2 s
– last"
    );
}

#[test]
fn what_does_not_fit_is_counted_and_failures_stay() {
    let mut events: Vec<Value> = Vec::new();
    for at in 0..WATCH_NODES_MAX + 10 {
        events
            .push(json!({"type": "node.failed", "node": format!("n{at}"), "at": AT, "error": {"code": "x"}}));
    }
    let tree = tree(&events);
    assert_eq!(tree.nodes.len(), WATCH_NODES_MAX);
    let text = drawn(&tree, 20, 5);
    assert_eq!(text.lines().filter(|line| line.starts_with('✗')).count(), 5, "{text}");
    assert!(text.ends_with(&format!("  and {} more", WATCH_NODES_MAX + 10 + 4 - 5)), "{text}");
}

#[test]
fn no_line_is_wider_than_asked() {
    let long = "n".repeat(100);
    let tree = tree(&[
        started(&long, 7),
        json!({"type": "node.failed", "node": long, "at": AT, "error": {"code": "a_code_that_is_rather_long"}}),
    ]);
    for columns in [24, 40, 80] {
        let text = drawn(&tree, columns, 20);
        assert!(text.lines().skip(1).all(|line| line.chars().count() <= columns), "{columns}\n{text}");
    }
}

#[test]
fn a_picture_that_begins_late_takes_the_states_of_now() {
    let graph = json!({"nodes": {"a": {"state": "completed", "attempts": 2}, "b": {"state": "waiting"}}});
    let text = drawn(&Tree::new(&graph, true), 40, 20);
    assert!(text.contains("✓ a  attempt 2") && text.contains("◌ b"), "{text}");
}
