//! Expressions made to hold a core: each ends by the budget, soon. `benches/expression_bombs.rs` says how soon in a build
//! that is optimised; here the bound is what a slow, busy machine takes without.

use super::{Env, Value};
use crate::expr::{Budget, Program, error};
use crate::limits;
use crate::time::{Clock as _, SystemClock};

/// Every name is this value.
struct Same(Value);

impl Env for Same {
    fn value(&self, _: usize) -> Value {
        self.0.clone()
    }
}

/// Far above what the budget takes without optimisation, far below what any of these would take without the budget.
const MICROS_MAX: u64 = 3_000_000;

/// Asked for each of 10,000 numbers, 10,000 times.
const AGAIN: [&str; 44] = [
    "x * 3 + 1 < 0",
    "double(x) * 1.5 < 0.0",
    "input.keyed.k4711 == -1",
    "'nothing' in input.keyed",
    "-1 in input.numbers",
    "has(input.nothing)",
    "{'a' + 'b': x} == {'a': 0}",
    "'a' + 'b' == 'c'",
    "input.text + 'b' == 'c'",
    "size(input.text) == 0",
    "input.text.contains('aaaaaaaaaaaab')",
    "input.text.lowerAscii() == ''",
    "input.text.split('a') == []",
    "input.text.split('') == []",
    "input.words.join() == ''",
    "input.text.replace('a', 'bb') == ''",
    "input.text.replace('', 'b') == ''",
    "input.text.substring(1000) == ''",
    "input.text.lastIndexOf('b') == 0",
    "int('1234567') == 0",
    "string(x) == ''",
    "string(1.2345678901234567e-300) == ''",
    "duration('1h2m3s') == duration('1s')",
    "timestamp('2026-11-21T08:00:00Z') == timestamp(0)",
    "string(timestamp(x)) == ''",
    "parse_json('[1,{\"a\":2}]') == []",
    "to_json(input.numbers) == ''",
    "to_json(1.5) == ''",
    "sum(input.numbers) == -1",
    "avg(input.numbers) == -1.0",
    "max(input.words) == ''",
    "distinct(input.numbers) == []",
    "flatten([input.numbers, input.numbers]) == []",
    "reverse(input.numbers) == []",
    "keys(input.keyed) == []",
    "range(1000) == []",
    "input.numbers == input.numbers.map(y, -1 - y)",
    "input.numbers + input.numbers == []",
    "input.numbers.map(y, {'a': y}) == []",
    "sort_by(input.words, y, y) == []",
    "group_by(input.words, y, y) == {}",
    "input.text.matches('((a|aa|a?)+)+b')",
    "'a'.matches('(x+x+)+y' + string(x))",
    "(1 / 0 == 1 || false) && false",
];

/// These end by the budget, or by the size of what they make.
fn shaped() -> Vec<String> {
    let doubled = |seed: &str, times: usize, again: &str| {
        (0..times).fold(seed.to_owned(), |source, _| again.replace('X', &source))
    };
    let six = |range: &str| {
        ["f", "e", "d", "c", "b", "a"]
            .iter()
            .fold(String::from("f"), |source, variable| format!("{range}.map({variable}, {source})"))
    };
    let shared = doubled("[1]", 36, "[X].map(x, [x, x])[0]");
    vec![
        six("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"),
        six("range(10)"),
        doubled("'0123456789abcdef'", 26, "[X].map(x, x + x)[0]"),
        doubled("[1]", 26, "[X].map(x, x + x)[0]"),
        doubled("'aaaa'", 30, "X.replace('a', 'aa')"),
        doubled("['aaaa']", 30, "[X].map(x, [x.join(), x.join()])[0]"),
        doubled("[1]", 20, "[X].map(x, [to_json(x), to_json(x)])[0]"),
        format!("to_json({shared})"),
        format!("[{shared}].map(l, l == [l[0] + [], l[1]])"),
        String::from("input.numbers.filter(x, range(x % 500).filter(y, y * y == x) != [])"),
        String::from("input.words.map(a, input.words.filter(b, (a + b).matches('^w[0-9]+w[0-9]*7$')))"),
        String::from("range(99).map(x, to_json(input))"),
        String::from("range(199999).map(x, {'a': x})"),
        String::from("input.numbers.map(x, input.numbers.map(y, string(y)))"),
    ]
}

fn input() -> Value {
    let list = |one: &dyn Fn(u64) -> String| {
        let items: Vec<String> = (0..10_000).map(one).collect();
        items.join(",")
    };
    let text = "a".repeat(1 << 12);
    let numbers = list(&|n| (n * 7_919 % 10_007).to_string());
    let words = list(&|n| format!("\"w{}\"", n * 7_919 % 10_007));
    let keyed = list(&|n| format!("\"k{n}\": {n}"));
    let json =
        format!(r#"{{"text": "{text}", "numbers": [{numbers}], "words": [{words}], "keyed": {{{keyed}}}}}"#);
    Value::from_json(json.as_bytes()).unwrap()
}

/// Nothing holds a core for long.
#[test]
fn every_bomb_ends_by_the_budget_and_soon() {
    let env = Same(input());
    let again = AGAIN.map(|body| format!("input.numbers.exists(z, input.numbers.exists(x, {body}))"));
    for (source, sized) in again
        .into_iter()
        .map(|source| (source, false))
        .chain(shaped().into_iter().map(|source| (source, true)))
    {
        let program = Program::compile(&source).unwrap_or_else(|error| panic!("{source:.80}: {error}"));
        let before = SystemClock.monotonic_us();
        let mut budget = Budget { steps: limits::EXPRESSION_STEPS_MAX };
        let ended = program.evaluate(&env, &mut budget).map_err(|error| error.code);
        let took = SystemClock.monotonic_us() - before;
        let by_size = sized && matches!(ended, Err(error::SIZE_MAX));
        assert!(
            matches!(ended, Err(error::STEPS_MAX)) || by_size,
            "{source:.80}: {:?}",
            ended.map(|value| value.weight())
        );
        assert!(took < MICROS_MAX, "{source:.80}: {took} us");
    }
}

/// One expression over 10,000 records.
#[test]
fn honest_work_over_ten_thousand_records_fits_the_budget() {
    let record = |n: u64| {
        format!(
            r#"{{"id": {n}, "n": {}, "name": "n{}", "kind": "k{}"}}"#,
            n * 37 % 101,
            n * 7_919 % 10_007,
            n % 7
        )
    };
    let records: Vec<String> = (0..10_000).map(record).collect();
    let env = Same(Value::from_json(format!("[{}]", records.join(",")).as_bytes()).unwrap());
    for source in [
        "sum(input.map(r, r.n))",
        "size(input.filter(r, r.n > 50 && r.name != 'x'))",
        "group_by(input, r, r.kind).map(k, k)",
        "sort_by(input, r, -r.n)",
        "sort_by(input, r, r.name)",
        "input.map(r, {'id': r.id, 'name': r.name, 'double': r.n * 2})",
        "distinct(input.map(r, r.kind))",
        "input.map(r, r.name + '-' + string(r.n)).join(',')",
        "size(input.filter(r, r.name.matches('^n[0-9]+7$')))",
        "{'count': size(input), 'sum': sum(input.map(r, r.n)), 'most': max(input.map(r, r.n)), \
         'groups': group_by(input, r, r.kind).map(k, k)}",
    ] {
        let mut budget = Budget { steps: limits::EXPRESSION_STEPS_MAX };
        let result = Program::compile(source).unwrap().evaluate(&env, &mut budget);
        assert!(result.is_ok(), "{source}: {:?}", result.map_err(|error| error.code));
    }
}
