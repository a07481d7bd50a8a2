//! What holds for all patches: applying one is a function, reading one twice is reading it once, and patches that touch
//! different things can be applied in either order.

use proptest::prelude::*;

use super::*;

const BASE: &str = r#"
metadata: {a: 1, b: {c: [1, 2]}}
nodes:
  n0: {type: task}
  n1: {type: function, with: {expr: "1"}}
  n2: {type: task, metadata: {list: [1, 2, 3]}}
  n3: {type: task}
edges: [{from: n0, to: n1}, {from: n1, to: n2, when: "true"}, {from: n0, to: n3, on: error}]
"#;

/// Paths that are there and others.
fn path() -> impl Strategy<Value = String> {
    let known = [
        "/nodes/n0",
        "/nodes/n1/with/expr",
        "/nodes/n1/with",
        "/nodes/n2/metadata/list/0",
        "/nodes/n2/metadata/list/-",
        "/nodes/n3",
        "/nodes/n4",
        "/nodes/n5",
        "/nodes/n5/with",
        "/edges/n0~1n1",
        "/edges/n1~1n2/when",
        "/edges/n0~1n3:error",
        "/edges/n4~1n5",
        "/metadata/a",
        "/metadata/b/c/1",
        "/metadata/d",
        "/metadata",
        "/edges",
        "/nodes",
    ];
    prop::sample::select(known.to_vec()).prop_map(str::to_owned)
}

fn small() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(value("1")),
        Just(value("2.0")),
        Just(value(r#"{"type": "task"}"#)),
        Just(value(r#"{"type": "task", "needs": ["n0"]}"#)),
        Just(value(r#"{"x": [null, "y"]}"#)),
        Just(value(r#""true""#)),
    ]
}

fn operation() -> impl Strategy<Value = Value> {
    let six = prop::sample::select(Verb::ALL.to_vec());
    let plain = (six, path(), path(), small()).prop_map(|(verb, path, from, value)| {
        Value::map([
            ("op", Value::from(verb.name())),
            ("path", Value::string(path)),
            ("from", Value::string(from)),
            ("value", value),
        ])
    });
    let node = (0_u8..9).prop_map(|n| {
        value(&format!(r#"{{"op": "add", "path": "/nodes/-", "value": {{"id": "n{n}", "type": "task"}}}}"#))
    });
    let edge = (0_u8..9, 0_u8..9).prop_map(|(a, b)| {
        value(&format!(r#"{{"op": "add", "path": "/edges/-", "value": {{"from": "n{a}", "to": "n{b}"}}}}"#))
    });
    prop_oneof![4 => plain, 1 => node, 1 => edge]
}

/// Operations that are valid by themselves.
fn patches() -> impl Strategy<Value = Patch> {
    prop::collection::vec(operation(), 0..4)
        .prop_filter_map("is one", |operations| read(&Value::list(operations)).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn applying_is_a_function_and_all_or_nothing(patch in patches()) {
        let base = document(BASE);
        let kept = base.clone();
        let (once, again) = (patch.apply(&base), patch.apply(&base));
        prop_assert_eq!(&once, &again);
        prop_assert_eq!(&base, &kept);
        if let Err(refused) = &once {
            prop_assert_eq!(refused.findings.len(), 1);
            let finding = &refused.findings[0];
            prop_assert!(finding.operation.is_some() && finding.pointer.starts_with('/'), "{}", refused);
        }
        // What is stored means the same, but for what an add at `-` refuses.
        let stored = read(&patch.operations).unwrap();
        prop_assert_eq!(&stored.operations, &patch.operations);
        prop_assert_eq!(stored.touched(), patch.touched());
        if let Ok(next) = &once {
            prop_assert_eq!(&stored.apply(&base).unwrap(), next);
        }
        let _ = candidate(&base, &patch);
    }

    #[test]
    fn patches_that_touch_different_things_commute(a in patches(), b in patches()) {
        let base = document(BASE);
        if !a.touched().overlaps(&b.touched())
            && let (Ok(first), Ok(second)) = (a.apply(&base), b.apply(&base))
        {
            let both = b.apply(&first);
            prop_assert!(both.is_ok(), "{}\n{}\n{:?}", a.operations, b.operations, both);
            prop_assert_eq!(both, a.apply(&second));
        }
    }

    #[test]
    fn what_a_patch_changes_it_says_it_touches(patch in patches()) {
        let base = document(BASE);
        if let Ok(next) = patch.apply(&base) {
            let touched = patch.touched();
            let whole = |root: &str| patch.parsed.iter().any(|operation| operation.path.text == root
                || operation.from.as_ref().is_some_and(|from| from.text == root));
            let member = |document: &Value, root: &str, name: &str| document.get(root).and_then(|all| all.get(name)).cloned();
            for n in 0..9 {
                let id = format!("n{n}");
                if member(&base, "nodes", &id) != member(&next, "nodes", &id) {
                    prop_assert!(touched.nodes.contains(&*id) || whole("/nodes"), "{} {}", id, patch.operations);
                }
                for m in 0..9 {
                    let key = format!("n{n}/n{m}");
                    if member(&base, "edges", &key) != member(&next, "edges", &key) {
                        prop_assert!(touched.edges.contains(&*key) || whole("/edges"), "{} {}", key, patch.operations);
                    }
                }
            }
            prop_assert!(base.get("metadata") == next.get("metadata") || touched.metadata);
        }
    }

    #[test]
    fn no_operations_bring_it_down(text in "[\\[\\]{}\":,a-z/~0-9-]{0,80}", at in 0_usize..200, with in "[\\[\\]{}\":,/~]{1,2}") {
        let base = document(SEED);
        let cut = EMAIL.floor_char_boundary(at.min(EMAIL.len()));
        for text in [text.clone(), format!("{}{with}{}", &EMAIL[..cut], &EMAIL[cut..])] {
            if let Ok(operations) = Value::from_json(text.as_bytes())
                && let Ok(patch) = read(&operations)
            {
                let _ = candidate(&base, &patch);
            }
        }
    }
}
