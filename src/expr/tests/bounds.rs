//! Where expressions stop: length, depth, steps, sizes, stack.

use std::fmt::Write as _;

use super::{code, eval, run_on};
use crate::expr::{Budget, Env, Error, Program, error};
use crate::limits;
use crate::model::Value;

/// Every root is the same value.
struct Same(Value);

impl Env for Same {
    fn value(&self, _: usize) -> Value {
        self.0.clone()
    }
}

fn compile_code(source: &str) -> Result<(), &'static str> {
    Program::compile(source).map(|_| ()).map_err(|error| error.code)
}

/// On a thread with a quarter of the stack that threads have by default.
fn with_small_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, work).unwrap();
        thread.join().unwrap()
    })
}

#[test]
fn the_length_is_bounded_at_its_edge() {
    let longest = format!("\"{}\"", "a".repeat(limits::EXPRESSION_BYTES_MAX - 2));
    assert_eq!(compile_code(&longest), Ok(()));
    assert_eq!(compile_code(&format!("{longest} ")), Err(error::BYTES_MAX));
}

#[test]
fn the_depth_of_brackets_and_conditionals_is_bounded_at_its_edge() {
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    let lists = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let chain = |depth: usize| format!("{}1", "true ? 1 : ".repeat(depth));
    for (name, make) in
        [("brackets", &nested as &dyn Fn(usize) -> String), ("lists", &lists), ("conditionals", &chain)]
    {
        assert_eq!(compile_code(&make(limits::EXPRESSION_DEPTH_MAX)), Ok(()), "{name}");
        for depth in [limits::EXPRESSION_DEPTH_MAX + 1, 200, 1_400] {
            assert_eq!(compile_code(&make(depth)), Err(error::DEPTH_MAX), "{name} {depth}");
        }
    }
    // A row of conditionals between commas nests nothing.
    let flat = format!("[{}]", "true ? 1 : 2,".repeat(200));
    assert_eq!(compile_code(&flat), Ok(()));
}

#[test]
fn rows_of_operators_are_bounded_and_fit_the_stack() {
    let edge = limits::EXPRESSION_CHAIN_MAX;
    let row = |operator: &str, count: usize| format!("1{}", format!("{operator}1").repeat(count));
    let select = |count: usize| format!("input{}", ".a".repeat(count));
    let calls = |count: usize| format!("'a'{}", ".trim()".repeat(count));
    for source in
        [row("+", edge), row("==", edge), row("&&", 3_000), select(edge - 1), "!".repeat(9_000) + "true"]
    {
        assert_eq!(with_small_stack(|| compile_code(&source)), Ok(()), "{}", &source[..20]);
        let _ = with_small_stack(|| run_on(&source, "{}"));
    }
    for source in
        [row("+", edge + 1), row(" in ", edge + 1), row("-", 8_000), select(edge + 1), calls(edge + 1)]
    {
        assert_eq!(with_small_stack(|| compile_code(&source)), Err(error::DEPTH_MAX), "{}", &source[..20]);
    }
    assert_eq!(with_small_stack(|| eval(&row("+", edge))), Ok(Value::Int(1 + edge as i64)));
}

#[test]
fn the_deepest_tree_fits_the_stack() {
    // Brackets to the limit, and on each level as many operators as the row may still have.
    let levels = limits::EXPRESSION_DEPTH_MAX - 2;
    let mut source = String::from("1");
    for level in 0..levels {
        let open = if level % 2 == 0 { "[" } else { "(" };
        let close = if level % 2 == 0 { "][0]" } else { ")" };
        source = format!("1 + {open}{source}{close} + 1");
    }
    let result = with_small_stack(|| eval(&source));
    assert_eq!(result, Ok(Value::Int(1 + 2 * levels as i64)));
    let calls = format!("{}[1]{}", "[".repeat(40), "].map(x, x)".repeat(40));
    assert!(with_small_stack(|| eval(&calls)).is_ok());
}

#[test]
fn texts_made_to_exhaust_the_parser_end_soon() {
    let started = crate::time::SystemClock;
    let before = crate::time::Clock::monotonic_us(&started);
    for part in [
        "(", "[", "{", "a.", "a.b{", "-", "!", "1?", "a(", "'", "\"\"\"", "{1:", "a[", ",", "//", "&&",
        "1 in ",
    ] {
        let source = part.repeat(limits::EXPRESSION_BYTES_MAX / part.len());
        assert!(with_small_stack(|| compile_code(&source)).is_err(), "{part}");
    }
    for source in [
        format!("[{}]", "1,".repeat(8_000)),
        format!(
            "{{{}}}",
            (0..1_500).fold(String::new(), |mut map, key| {
                let _ = write!(map, "'{key}':1,");
                map
            })
        ),
        format!("max({}1)", "1,".repeat(8_000)),
        "1&&".repeat(5_000) + "1",
    ] {
        assert_eq!(with_small_stack(|| compile_code(&source)), Ok(()), "{}", &source[..10]);
    }
    let took = crate::time::Clock::monotonic_us(&started) - before;
    assert!(took < 20_000_000, "{took} us");
}

#[test]
fn six_nested_maps_end_by_the_budget() {
    let ten = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]";
    for range in [ten, "range(10)"] {
        let mut source = String::from("f");
        for variable in ["f", "e", "d", "c", "b", "a"] {
            source = format!("{range}.map({variable}, {source})");
        }
        let clock = crate::time::SystemClock;
        let before = crate::time::Clock::monotonic_us(&clock);
        assert_eq!(code(&source), error::STEPS_MAX);
        let took = crate::time::Clock::monotonic_us(&clock) - before;
        assert!(took < 5_000_000, "{took} us, in a build that is not optimised");
    }
}

#[test]
fn the_budget_is_exact_and_kept_between_evaluations() {
    let program = Program::compile("input + 1").unwrap();
    let env = Same(Value::Int(1));
    assert_eq!(program.evaluate(&env, &mut Budget { steps: 3 }), Ok(Value::Int(2)));
    let error = program.evaluate(&env, &mut Budget { steps: 2 }).unwrap_err();
    assert_eq!(error.code, error::STEPS_MAX);
    assert!(error.message.contains("expression_steps_max"));
    let mut shared = Budget { steps: 10 };
    assert!(program.evaluate(&env, &mut shared).is_ok());
    assert_eq!(shared.steps, 7);
}

#[test]
fn a_spent_budget_is_never_absorbed() {
    for source in [
        "range(9).map(x, range(100000)) == [] || true",
        "false && true || size(range(199999)) + size(range(199999)) > 0 && range(199999).all(x, range(199999).all(y, true))",
        "[1].exists(x, range(199999).all(y, range(199999).all(z, true)))",
    ] {
        let program = Program::compile(source).unwrap();
        let error = program.evaluate(&Same(Value::Null), &mut Budget { steps: 1_000_000 }).unwrap_err();
        assert_eq!(error.code, error::STEPS_MAX, "{source}");
    }
}

fn doubled(seed: &str, times: usize, double: impl Fn(&str) -> String) -> String {
    (0..times).fold(seed.to_owned(), |source, _| double(&source))
}

#[test]
fn doubling_texts_and_lists_ends_by_size_or_budget() {
    let text = doubled("'0123456789abcdef'", 30, |source| format!("[{source}].map(x, x + x)[0]"));
    let list = doubled("[1]", 30, |source| format!("[{source}].map(x, x + x)[0]"));
    let shared = doubled("[1]", 40, |source| format!("[{source}].map(x, [x, x])[0]"));
    let replaced = doubled("'aaaa'", 30, |source| format!("{source}.replace('a', 'aa')"));
    let joined = doubled("['aaaa']", 30, |source| format!("[{source}].map(x, [x.join(), x.join()])[0]"));
    let json = doubled("[1]", 20, |source| format!("[{source}].map(x, [to_json(x), to_json(x)])[0]"));
    let keyed = format!("{{ {text}: 1 }}");
    for source in [&text, &list, &shared, &replaced, &joined, &json, &keyed] {
        let result = eval(source);
        assert!(
            result.as_ref().is_err_and(|error| [error::STEPS_MAX, error::SIZE_MAX].contains(&error.code)),
            "{:.60} gave {:?}",
            source,
            result.map(|value| value.weight())
        );
    }
    // A shared value is small in memory; looking at it is not free all the same.
    for look in
        ["to_json(X)", "X == X.map(y, y)", "distinct([X, X.map(y, y)])", "string(size(flatten(X)))", "X"]
    {
        let source = doubled("[1]", 36, |source| format!("[{source}].map(x, [x, x])[0]"));
        let source = look.replace('X', &source);
        let result = eval(&source);
        if !look.contains("flatten") {
            assert!(result.is_err_and(|error| error.is_final()), "{look}");
        }
    }
}

#[test]
fn what_leaves_can_be_read_back() {
    // Depth: the input is at its limit, one more level is too many.
    let deepest = format!("{}{}", "[".repeat(limits::VALUE_DEPTH_MAX), "]".repeat(limits::VALUE_DEPTH_MAX));
    assert!(run_on("input", &deepest).is_ok());
    assert!(run_on("[input]", &deepest).is_ok());
    let error = run_on("[[input]]", &deepest).unwrap_err();
    assert!(error.code == error::SIZE_MAX && error.message.contains("value_depth_max"), "{error}");
    // Keys.
    for (length, fits) in [(limits::KEY_BYTES_MAX, true), (limits::KEY_BYTES_MAX + 1, false)] {
        let input = Value::string("k".repeat(length)).to_json();
        for source in ["{input: 1}", "group_by([input], x, x)"] {
            let result: Result<Value, Error> = run_on(source, &input);
            assert_eq!(result.is_ok(), fits, "{source} {length}");
            if let Ok(value) = result {
                assert_eq!(Value::from_json(value.to_json().as_bytes()).unwrap(), value);
            }
        }
    }
}

#[test]
fn regular_expressions_are_bounded() {
    let long = "a".repeat(limits::EXPRESSION_PATTERN_BYTES_MAX + 1);
    let error = eval(&format!("'a'.matches('{long}')")).unwrap_err();
    assert!(
        error.code == error::PATTERN && error.message.contains("expression_pattern_bytes_max"),
        "{error}"
    );
    for pattern in ["(a{1000}){1000}", "((((a{99}){99}){99}){99})", "(?:a{500}){500}"] {
        assert_eq!(code(&format!("'a'.matches('{pattern}')")), error::PATTERN, "{pattern}");
    }
    let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
    assert_eq!(code(&format!("'a'.matches('{deep}')")), error::PATTERN);
    // What is dear to match is dear.
    let text = Value::string("a".repeat(1 << 17)).to_json();
    let error = run_on("input.matches('(a?){60}b')", &text).unwrap_err();
    assert_eq!(error.code, error::STEPS_MAX);
    assert_eq!(run_on("input.matches('^a+$')", &text), Ok(Value::Bool(true)));
    let error = run_on("range(100000).exists(x, 'a'.matches('b' + string(x)))", "0").unwrap_err();
    assert_eq!(error.code, error::STEPS_MAX);
}
