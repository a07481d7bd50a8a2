//! Nothing from outside panics: any text given to `compile` and `split`, any tree evaluated over any value.

use proptest::prelude::*;

use super::{Env, Value};
use crate::expr::datum::Shape;
use crate::expr::{Budget, Program, compare, template};

/// What the scan lets through, the parser's lexer can read: it never skips over something that was not counted.
fn compile_or_refuse(source: &str) {
    if let Err(error) = Program::compile(source) {
        assert!(!error.message.contains("token recognition"), "{source:?}: {error}");
        assert!(!error.message.contains("cannot be parsed"), "{source:?}: {error}");
    }
    let _ = template::split(source);
}

/// Gives a different value for each name.
struct Assorted(Vec<Value>);

impl Env for Assorted {
    fn value(&self, index: usize) -> Value {
        self.0[index % self.0.len()].clone()
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-3_i64..10).prop_map(Value::Int),
        any::<u64>().prop_map(Value::unsigned),
        any::<f64>().prop_filter_map("finite", Value::float),
        ".{0,8}".prop_map(Value::string),
        proptest::sample::select(vec!["a", "1h30m", "2026-11-21T08:00:00Z", "[1]", "12", "true", "(a"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::list),
            proptest::collection::vec(("[abc]", inner), 0..4).prop_map(Value::map),
        ]
    })
}

fn any_expression() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "input",
        "item",
        "inputs.a",
        "nodes.x.output",
        "output",
        "null",
        "true",
        "0",
        "-1",
        "3",
        "2.5",
        "'a'",
        "'1h'",
        "b'ab'",
        "[]",
        "{}",
        "18446744073709551615u",
        "-9223372036854775808",
        "1e308",
        "int",
        "x",
        "timestamp(0)",
        "duration('1s')",
        "'2026-11-21T08:00:00Z'",
    ])
    .prop_map(String::from);
    leaf.prop_recursive(4, 32, 3, |inner| {
        let functions: Vec<&'static str> = super::super::function::names().collect();
        let operators = vec!["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "in", "&&", "||"];
        let macros = vec!["map", "filter", "all", "exists", "exists_one", "sort_by", "group_by"];
        prop_oneof![
            (inner.clone(), proptest::sample::select(operators), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (proptest::sample::select(functions), proptest::collection::vec(inner.clone(), 1..4))
                .prop_map(|(name, arguments)| format!("{name}({})", arguments.join(", "))),
            (inner.clone(), proptest::sample::select(macros), inner.clone())
                .prop_map(|(list, name, body)| format!("{name}([{list}, {list}], x, {body})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            inner.clone().prop_map(|a| format!("({a}).a")),
            inner.clone().prop_map(|a| format!("has(({a}).a)")),
            inner.clone().prop_map(|a| format!("(-({a}))")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{{'a': {a}, string({b}): {b}}}")),
        ]
    })
    .prop_map(|source| format!("[input].map(x, {source})"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_compiles_or_is_refused(source in "\\PC{0,60}") {
        compile_or_refuse(&source);
    }

    #[test]
    fn any_bytes_compile_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let source = String::from_utf8_lossy(&bytes);
        compile_or_refuse(&source);
    }

    #[test]
    fn any_row_of_tokens_compiles_or_is_refused(
        tokens in proptest::collection::vec(proptest::sample::select(vec![
            "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "!", "&&", "||", "==", "<", " in ", "1", "1u",
            "0x", "1.5", "'a'", "r\"b\"", "b'c'", "\"\"\"", "`a`", "x", "input", "nodes", "outputs", ".a", "map(",
            "has(", "size(", "sort_by(", "null", "true", "//", "\n", "if", "é", "\\", "$", "${", "secret:",
        ]), 0..24)
    ) {
        let source = tokens.concat();
        compile_or_refuse(&source);
    }

    #[test]
    fn any_quotes_are_read_as_the_lexer_reads_them(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "'", "\"", "'''", "\"\"\"", "\\", "r", "b", "R", "B", "u", "U", "x", "0", "12", "n", "\n", "\r", "e9", "`",
            " ", "(", "é", "/", ".", "1", "+",
        ]), 0..14)
    ) {
        compile_or_refuse(&parts.concat());
    }

    #[test]
    fn any_tree_evaluates_or_fails_and_leaves_what_can_be_read(
        source in any_expression(),
        values in proptest::collection::vec(any_value(), 1..4),
    ) {
        if let Ok(program) = Program::compile(&source) {
            let env = Assorted(values);
            let first = program.evaluate(&env, &mut Budget { steps: 200_000 });
            let again = program.evaluate(&env, &mut Budget { steps: 200_000 });
            prop_assert_eq!(&first, &again, "{}", source);
            match first {
                Ok(value) => {
                    let back = Value::from_json(value.to_json().as_bytes());
                    prop_assert_eq!(back.ok(), Some(value), "{}", source);
                }
                Err(error) => prop_assert!(error.code.starts_with("expression_") && !error.message.is_empty()),
            }
        }
    }

    #[test]
    fn any_budget_is_kept(source in any_expression(), steps in 0_u64..400) {
        if let Ok(program) = Program::compile(&source) {
            let env = Assorted(vec![Value::Int(1), Value::from("a")]);
            let mut budget = Budget { steps };
            let result = program.evaluate(&env, &mut budget);
            prop_assert!(budget.steps <= steps);
            let spent = result.is_err_and(|error| error.code == crate::expr::error::STEPS_MAX);
            // What stops for want of steps gives something with enough of them, and not the same error.
            if spent {
                let more = program.evaluate(&env, &mut Budget { steps: 10_000_000 });
                prop_assert!(more.as_ref().map_or_else(|error| error.code, |_| "") != crate::expr::error::STEPS_MAX);
            }
        }
    }
    #[test]
    fn sorting_is_stable_and_leaves_nothing_out(
        keys in proptest::collection::vec(prop_oneof!["[ab\\x00é]{0,3}", "longer than it [a-c]{1,2}"], 0..70)
    ) {
        let mut budget = Budget { steps: 100_000 };
        let items: Vec<(Value, usize)> = keys.iter().map(|key| Value::string(key.as_str())).zip(0..).collect();
        let sorted =
            compare::sort(items, &mut budget, |(key, _)| Shape::of(key), compare::any_order).unwrap();
        let mut wanted: Vec<(&String, usize)> = keys.iter().zip(0..).collect();
        wanted.sort_by_key(|(key, _)| *key);
        let sorted: Vec<usize> = sorted.into_iter().map(|(_, place)| place).collect();
        let wanted: Vec<usize> = wanted.into_iter().map(|(_, place)| place).collect();
        prop_assert_eq!(sorted, wanted);
    }

    #[test]
    fn order_and_equality_agree(a in any_value(), b in any_value(), c in any_value()) {
        let mut budget = Budget { steps: 1_000_000 };
        let (a, b, c) = (Shape::of(&a), Shape::of(&b), Shape::of(&c));
        let mut order = |a, b| compare::any_order(a, b, &mut budget).unwrap();
        let (ab, ba, bc, ac) = (order(a, b), order(b, a), order(b, c), order(a, c));
        prop_assert_eq!(ab, ba.reverse());
        if ab == bc {
            prop_assert_eq!(ac, ab);
        }
        prop_assert_eq!(compare::equal(a, b, &mut budget).unwrap(), ab.is_eq());
        prop_assert!(compare::equal(a, a, &mut budget).unwrap());
    }
}
