//! Generated expressions, evaluated by us and by the `cel` crate's own interpreter: both give the same value, or both
//! fail. Covered: arithmetic of ints, uints and doubles; comparisons within and across them; text; lists, lists of lists
//! and maps, made and taken apart; conditionals, `&&`, `||`, `!`, `in`, `has`; all macros, over lists and over maps, in each
//! other; conversions.
//!
//! Where we differ on purpose (docs/expressions.md, "Where this is not standard CEL") the generator does not go. It never
//! mixes ints, uints and doubles in arithmetic, subtracts no uints (ours become ints below zero) and adds no large ones
//! (those that fit are ints, whose sum overflows earlier), never divides by a double that may be zero, and makes no list
//! from a map's keys (the crate's maps have no order). The crate also rounds an int to compare it with a double, where we
//! compare exactly, and refuses `int(-9223372036854775808.0)`, which we take; the generator makes neither. Durations,
//! points in time and regular expressions are not compared here: the crate is built without them.

use std::sync::Arc;

use cel::objects::{Key, Map as CelMap};
use cel::{Context, Value as CelValue};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::run;
use crate::model::{Map, Value};

const DATA: &str = r#"{
    "input": {"n": 3, "big": 9223372036854775807, "d": 2.5, "s": "text", "yes": true, "none": null,
              "list": [1, 2, 3, 2], "names": ["a", "text", ""], "empty": [], "map": {"a": 1, "text": 2}},
    "item": -7,
    "index": 0
}"#;

fn to_cel(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Int(number) => CelValue::Int(*number),
        Value::UInt(number) => CelValue::UInt(*number),
        Value::Float(number) => CelValue::Float(*number),
        Value::String(text) => CelValue::String(Arc::new(text.to_string())),
        Value::List(items) => CelValue::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Map(map) => {
            let entries = map.iter().map(|(key, value)| (Key::from(key.to_string()), to_cel(value)));
            CelValue::Map(CelMap { map: Arc::new(entries.collect()) })
        }
    }
}

fn from_cel(value: &CelValue) -> Option<Value> {
    Some(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(value) => Value::Bool(*value),
        CelValue::Int(number) => Value::Int(*number),
        CelValue::UInt(number) => Value::unsigned(*number),
        CelValue::Float(number) => Value::float(*number)?,
        CelValue::String(text) => Value::string(text.as_str()),
        CelValue::List(items) => Value::list(items.iter().map(from_cel).collect::<Option<_>>()?),
        CelValue::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| match key {
                Key::String(key) => Some((Arc::from(key.as_str()), from_cel(value)?)),
                _ => None,
            });
            Value::Map(Arc::new(entries.collect::<Option<Map>>()?))
        }
        _ => return None,
    })
}

/// `None` when it fails.
fn run_cel(source: &str, data: &Value) -> Option<Value> {
    let program = cel::Program::compile(source).ok()?;
    let mut context = Context::default();
    for name in ["input", "item", "index"] {
        context.add_variable_from_value(name, to_cel(data.get(name)?));
    }
    from_cel(&program.execute(&context).ok()?)
}

/// Expressions of each type, for building others.
#[derive(Clone, Debug)]
struct Typed {
    int: BoxedStrategy<String>,
    double: BoxedStrategy<String>,
    bool: BoxedStrategy<String>,
    text: BoxedStrategy<String>,
    list: BoxedStrategy<String>,
    uint: BoxedStrategy<String>,
    /// Lists of lists of ints.
    lists: BoxedStrategy<String>,
    /// Maps of ints.
    map: BoxedStrategy<String>,
}

fn one_of(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    proptest::sample::select(texts).prop_map(String::from).boxed()
}

fn leaves() -> Typed {
    Typed {
        int: one_of(&[
            "0",
            "1",
            "-1",
            "2",
            "7",
            "input.n",
            "input.big",
            "item",
            "index",
            "x",
            "-9223372036854775808",
        ]),
        double: one_of(&["0.5", "-2.0", "1e3", "input.d"]),
        bool: one_of(&["true", "false", "input.yes", "has(input.n)", "has(input.nope)", "input.nope"]),
        text: one_of(&["''", "'a'", "'é\\n'", "input.s", "'tex' + 't'", "input.nope"]),
        list: one_of(&["[]", "[1, 2]", "input.list", "input.empty", "[item, input.n]", "input.s"]),
        uint: one_of(&["0u", "1u", "7u", "18446744073709551615u", "uint(input.n)", "uint(item)"]),
        lists: one_of(&["[]", "[[1, 2], [3]]", "[input.list]", "[[], [x]]"]),
        map: one_of(&["{}", "{'a': 1}", "input.map", "{'text': x, 'b': 2}"]),
    }
}

/// One level more.
fn grow(inner: &Typed) -> Typed {
    let Typed { int, double, bool, text, list, uint, lists, map } = inner.clone();
    let pick = |options: Vec<BoxedStrategy<String>>| proptest::strategy::Union::new(options).boxed();
    let two = |a: &BoxedStrategy<String>, ops: &'static [&'static str], b: &BoxedStrategy<String>| {
        (a.clone(), one_of(ops), b.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")).boxed()
    };
    let choose = |of: &BoxedStrategy<String>| {
        (bool.clone(), of.clone(), of.clone())
            .prop_map(|(test, a, b)| format!("({test} ? {a} : {b})"))
            .boxed()
    };
    let small = one_of(&["0u", "1u", "7u", "(2u + 3u)", "uint(input.n)"]);
    let compare: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
    let over = |body: &BoxedStrategy<String>, name: &'static str| {
        (list.clone(), body.clone()).prop_map(move |(list, body)| format!("{list}.{name}(x, {body})")).boxed()
    };
    // `y` is a list, `k` a key; a body that does without them is as good.
    let over_lists = |body: &BoxedStrategy<String>, name: &'static str| {
        let uses = one_of(&["size(y) > 1", "1 in y", "y == []", "y.exists(z, z > x)", "true"]);
        (lists.clone(), body.clone(), uses)
            .prop_map(move |(lists, body, uses)| format!("{lists}.{name}(y, {uses} && {body})"))
            .boxed()
    };
    let over_map = |name: &'static str| {
        let uses = one_of(&["k == 'a'", "size(k) > 1", "k in input.map", "input.map[k] > x", "k < 'b'"]);
        (map.clone(), bool.clone(), uses)
            .prop_map(move |(map, body, uses)| format!("{map}.{name}(k, {uses} && {body})"))
            .boxed()
    };
    Typed {
        int: pick(vec![
            int.clone(),
            two(&int, &["+", "-", "*", "/", "%"], &int),
            int.clone().prop_map(|a| format!("(-({a}))")).boxed(),
            list.clone().prop_map(|a| format!("size({a})")).boxed(),
            text.clone().prop_map(|a| format!("{a}.size()")).boxed(),
            (list.clone(), int.clone()).prop_map(|(list, at)| format!("{list}[{at}]")).boxed(),
            text.clone().prop_map(|key| format!("input.map[{key}]")).boxed(),
            (map.clone(), text.clone()).prop_map(|(map, key)| format!("{map}[{key}]")).boxed(),
            map.clone().prop_map(|map| format!("{map}.a")).boxed(),
            map.clone().prop_map(|map| format!("size({map})")).boxed(),
            one_of(&[
                "int(0.5)",
                "int(-2.9)",
                "int(1e3)",
                "int(input.d)",
                "int(1e300)",
                "int('7')",
                "int(input.s)",
            ]),
            uint.clone().prop_map(|a| format!("int({a})")).boxed(),
            (lists.clone(), int.clone()).prop_map(|(lists, at)| format!("size({lists}[{at}])")).boxed(),
            choose(&int),
        ]),
        uint: pick(vec![
            uint.clone(),
            two(&small, &["+", "*", "/", "%"], &small),
            int.clone().prop_map(|a| format!("uint({a})")).boxed(),
            choose(&uint),
        ]),
        lists: pick(vec![
            lists.clone(),
            two(&lists, &["+"], &lists),
            (list.clone(), list.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")).boxed(),
            over(&list, "map"),
            over_lists(&bool, "filter"),
            choose(&lists),
        ]),
        map: pick(vec![
            map.clone(),
            (int.clone(), int.clone()).prop_map(|(a, b)| format!("{{'a': {a}, 'text': {b}}}")).boxed(),
            (text.clone(), int.clone()).prop_map(|(key, a)| format!("{{{key}: {a}}}")).boxed(),
            choose(&map),
        ]),
        double: pick(vec![
            double.clone(),
            two(&double, &["+", "-", "*"], &double),
            double.clone().prop_map(|a| format!("({a} / 4.0)")).boxed(),
            int.clone().prop_map(|a| format!("double({a})")).boxed(),
            choose(&double),
        ]),
        bool: pick(vec![
            bool.clone(),
            two(&int, compare, &int),
            two(&int, compare, &double),
            two(&double, compare, &double),
            two(&text, compare, &text),
            two(&list, &["==", "!="], &list),
            two(&int, &["==", "!="], &text),
            two(&bool, &["&&", "||", "==", "!="], &bool),
            two(&uint, compare, &uint),
            two(&uint, compare, &int),
            two(&map, &["==", "!="], &map),
            two(&lists, &["==", "!="], &lists),
            two(&list, &["in"], &lists),
            two(&text, &["in"], &map),
            map.clone().prop_map(|map| format!("has({map}.a)")).boxed(),
            over_lists(&bool, "all"),
            over_lists(&bool, "exists"),
            over_lists(&bool, "exists_one"),
            over_map("all"),
            over_map("exists"),
            over_map("exists_one"),
            two(&int, &["in"], &list),
            two(&text, &["in"], &Just(String::from("input.map")).boxed()),
            bool.clone().prop_map(|a| format!("!({a})")).boxed(),
            over(&bool, "all"),
            over(&bool, "exists"),
            over(&bool, "exists_one"),
            (text.clone(), one_of(&["contains", "startsWith", "endsWith"]), text.clone())
                .prop_map(|(a, name, b)| format!("{a}.{name}({b})"))
                .boxed(),
            choose(&bool),
        ]),
        text: pick(vec![
            text.clone(),
            two(&text, &["+"], &text),
            int.clone().prop_map(|a| format!("string({a})")).boxed(),
            choose(&text),
        ]),
        list: pick(vec![
            list.clone(),
            two(&list, &["+"], &list),
            (int.clone(), int.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")).boxed(),
            over(&int, "map"),
            over(&bool, "filter"),
            (list.clone(), bool.clone(), int.clone())
                .prop_map(|(list, test, body)| format!("{list}.map(x, {test}, {body})"))
                .boxed(),
            choose(&list),
        ]),
    }
}

#[test]
fn generated_expressions_give_what_the_cel_crate_gives() {
    let data = Value::from_json(DATA.as_bytes()).unwrap();
    let typed = grow(&grow(&grow(&leaves())));
    let Typed { int, double, bool, text, list, uint, lists, map } = typed;
    let any = prop_oneof![int, double, bool, text, list, uint, lists, map];
    // `x` is bound around everything, so that every generated use of it means something.
    let bound = any.prop_map(|source| format!("[5].map(x, {source})"));
    let config = Config {
        cases: if std::env::var_os("AOB_FULL").is_some() { 30_000 } else { 3_000 },
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let counts = std::cell::Cell::new((0, 0));
    runner
        .run(&bound, |source| {
            let ours = run(&source, &data);
            let theirs = run_cel(&source, &data);
            let (values, failures) = counts.get();
            counts.set(if ours.is_ok() { (values + 1, failures) } else { (values, failures + 1) });
            prop_assert_eq!(ours.as_ref().ok(), theirs.as_ref(), "{} gave {:?}", source, ours);
            Ok(())
        })
        .unwrap();
    let (values, failures) = counts.get();
    assert!(values > 200 && failures > 200, "{values} values and {failures} failures: nothing was compared");
}

#[test]
fn chosen_expressions_give_what_the_cel_crate_gives() {
    let data = Value::from_json(DATA.as_bytes()).unwrap();
    for source in [
        "0x1F + -0x10",
        "'''a'b''' + r'\\n' + \"\\u00e9\\x41\\101\"",
        "[1, 2, 3].map(x, x > 1, x * 2)",
        "[[1, 2], [3]].map(x, x.map(y, y + size(x)))",
        "{'a': {'b': [1]}}.a.b[0]",
        "{'b': 1, 'a': [2]} == {'a': [2], 'b': 1}",
        "input.map.all(k, size(k) > 0)",
        "18446744073709551615u > 1",
        "1 == 1u && 1.0 == 1u",
        "-7 / 2 == -3 && -7 % 2 == -1",
        "int('42') + int(3.9) + int(-3.9)",
        "double('1.5') + double(2)",
        "string(1.0) + string(2.5) + string(true)",
        "type(1) == int && type('') == string && type(null) == null_type",
        "[0, 1].exists(x, 1 / x == 1)",
        "[0, 1].all(x, 1 / x == 2)",
        "1 / 0 == 1 || true",
        "true ? false ? 1 : 2 : 3",
        "1 + 2 * 3 - 4 / 2 % 3",
        "!!true && - - 3 == 3",
        "size('日本語')",
        "'日本語' > '日本'",
        "has(input.nope.deeper)",
        "input.nope",
        "[1][1]",
        "{'a': 1}['b']",
        "1 < 'a'",
        "[1] < [2]",
        "9223372036854775807 + 1",
        "int('x')",
        "9223372036854775808",
    ] {
        assert_eq!(run(source, &data).ok(), run_cel(source, &data), "{source}");
    }
}
