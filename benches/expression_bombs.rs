//! How long an evaluation may hold a core: expressions made to take as long as they can, each until the budget ends it.
//!
//! `cargo bench --bench expression_bombs` prints a line for each: what one evaluation took (the median of several, in
//! time of the processor, so that a busy machine changes less), how many steps it spent, and what a step took. It fails
//! when one takes [`MILLIS_MAX`] or more. A word as argument picks the lines that contain it.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a measurement, not a service")]

use std::time::Duration;

use aob::expr::{Budget, Env, Program};
use aob::limits::EXPRESSION_STEPS_MAX;
use aob::model::Value;
use rustix::time::{ClockId, clock_gettime};

/// The same allocator as the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// No evaluation holds a core for longer.
const MILLIS_MAX: f64 = 10.0;

/// The only name there is.
struct Input(Value);

impl Env for Input {
    fn value(&self, _: usize) -> Value {
        self.0.clone()
    }
}

/// Asked again and again; must give false.
const AGAIN: [(&str, &str); 62] = [
    ("nothing", "false"),
    ("arithmetic", "x * 3 + 1 < 0"),
    ("float arithmetic", "double(x) * 1.5 < 0.0"),
    ("wide arithmetic", "(x + 9223372036854775807u) % 7u == 9u"),
    ("path", "input.deep.a.b.c == 7"),
    ("big map path", "input.keyed.k4711 == 0"),
    ("list of constants", "[1, 2, 3, 4] == [1]"),
    ("map of constants", "{'a': x, 'b': 2} == {'a': 0}"),
    ("map with computed keys", "{'a' + 'b': x} == {'a': 0}"),
    ("small text", "'a' + 'b' == 'c'"),
    ("medium text", "(input.kilo + 'b').size() == 0"),
    ("large text", "(input.text + 'b') == 'c'"),
    ("size of text", "size(input.text) == 0"),
    ("contains", "input.text.contains('aaaaaaaaaaaaab')"),
    ("contains itself", "input.kilo.contains(input.kilo + 'b')"),
    ("contains, two characters", "input.text.contains('ba')"),
    ("startsWith", "input.text.startsWith('b')"),
    ("lowerAscii", "input.text.lowerAscii() == ''"),
    ("trim", "input.spaces.trim() == 'x'"),
    ("short trim", "' a '.trim() == ''"),
    ("split", "input.kilo.split('a') == []"),
    ("split to characters", "input.kilo.split('') == []"),
    ("join", "input.words.join() == ''"),
    ("join two", "['a', 'b'].join(',') == ''"),
    ("replace", "input.kilo.replace('a', 'bb') == ''"),
    ("replace nothing", "input.text.replace('aaaab', '') == ''"),
    ("replace every gap", "input.kilo.replace('', 'b') == ''"),
    ("substring", "input.kilo.substring(1000) == ''"),
    ("substring of unicode", "input.unicode.substring(1000) == ''"),
    ("indexOf", "input.text.indexOf('b') == 0"),
    ("lastIndexOf", "input.text.lastIndexOf('b') == 0"),
    ("charAt", "input.text.charAt(100000) == ''"),
    ("int of text", "int('1234567') == 0"),
    ("double of text", "double('1.2345678901234567e-300') == 0.0"),
    ("double of long text", "double(input.digits) == 0.0"),
    ("string of int", "string(x) == ''"),
    ("string of double", "string(1.2345678901234567e-300) == ''"),
    ("duration", "duration('1h2m3s') == duration('1s')"),
    ("timestamp", "timestamp('2026-11-21T08:00:00Z') == timestamp(0)"),
    ("parts of time", "timestamp(x).getFullYear() == 0"),
    ("text of time", "string(timestamp(x)) == ''"),
    ("parse_json", "parse_json('[1,{\"a\":2}]') == []"),
    ("parse_json of many", "parse_json(input.json) == []"),
    ("to_json", "to_json(input.small) == ''"),
    ("to_json of many", "to_json(input.records) == ''"),
    ("to_json of doubles", "to_json(input.doubles) == ''"),
    ("escapes in JSON", "to_json(input.controls) == ''"),
    ("bytes", "bytes(input.kilo) == b'a'"),
    ("sum", "sum(input.numbers) == -1"),
    ("avg", "avg(input.doubles) == -1.0"),
    ("min", "min(input.doubles) == -1.0"),
    ("max of texts", "max(input.words) == ''"),
    ("distinct", "distinct(input.numbers) == []"),
    ("distinct records", "distinct(input.records) == []"),
    ("flatten", "flatten([input.numbers, input.numbers]) == []"),
    ("reverse", "reverse(input.numbers) == []"),
    ("slice", "slice(input.numbers, 0, 1000) == []"),
    ("keys", "keys(input.keyed) == []"),
    ("values", "values(input.keyed) == []"),
    ("range", "range(1000) == []"),
    ("type", "type(x) == string"),
    ("absorbed error", "(1 / 0 == 1 || false) && false"),
];

/// More that is asked again and again.
const AGAIN_MORE: [(&str, &str); 27] = [
    ("equal records", "input.records == input.same"),
    ("equal texts", "input.text == input.same_text"),
    ("equal shared lists", "input.shared == input.shared_too"),
    ("unlike lists", "input.records == input.numbers"),
    ("in list", "-1 in input.numbers"),
    ("in texts", "'nothing' in input.words"),
    ("in map", "'nothing' in input.keyed"),
    ("concatenate", "input.numbers + input.numbers == []"),
    ("concatenate texts", "input.words + input.words == []"),
    ("map", "input.numbers.map(y, y) == []"),
    ("map to texts", "input.numbers.map(y, string(y)) == []"),
    ("map to maps", "input.numbers.map(y, {'a': y}) == []"),
    ("map to lists", "input.numbers.map(y, [y]) == []"),
    ("map to durations", "input.numbers.map(y, duration('1s')) == []"),
    ("filter", "input.records.filter(r, r.n > 5) == []"),
    ("keys of a map", "input.keyed.all(k, k == '') && false"),
    ("sort_by", "sort_by(input.numbers, y, -y) == []"),
    ("sort_by text", "sort_by(input.words, y, y) == []"),
    ("sort_by shuffled", "sort_by(input.doubles, y, y) == []"),
    ("group_by", "group_by(input.numbers, y, y % 7) == {}"),
    ("group_by each", "group_by(input.words, y, y) == {}"),
    ("group_by record", "group_by(input.records, r, r) == {}"),
    ("matches", "input.kilo.matches('^a+b$')"),
    ("matches, dear", "input.kilo.matches('(a?){60}b')"),
    ("matches, nested", "input.kilo.matches('((a|aa|a?)+)+b')"),
    ("matches, classes", "input.unicode.matches('(\\\\w+\\\\s*)+[^\\\\w]{20}b')"),
    ("matches, computed", "'a'.matches('(x+x+)+y' + string(x))"),
];

fn doubled(seed: &str, times: usize, again: &str) -> String {
    (0..times).fold(seed.to_owned(), |source, _| again.replace('X', &source))
}

/// Once, or of another shape.
fn bombs() -> Vec<(String, String)> {
    let mut nested = vec![];
    for (name, range) in [("constant", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"), ("range", "range(10)")] {
        let maps = ["f", "e", "d", "c", "b", "a"]
            .iter()
            .fold(String::from("f"), |source, variable| format!("{range}.map({variable}, {source})"));
        nested.push((format!("six nested maps, {name}"), maps));
    }
    let named = |name: &str, source: &str| (name.to_owned(), source.to_owned());
    let mut all = vec![
        ("text doubled".into(), doubled("'0123456789abcdef'", 18, "[X].map(x, x + x)[0]")),
        ("text doubled and measured".into(), doubled("'0123456789abcdef'", 26, "[X].map(x, x + x)[0]")),
        ("list doubled".into(), doubled("[1]", 26, "[X].map(x, x + x)[0]")),
        ("list of texts doubled".into(), doubled("['a' + 'b']", 26, "[X].map(x, x + x)[0]")),
        ("shared list doubled".into(), doubled("[1]", 36, "[X].map(x, [x, x])[0]")),
        ("shared list to_json".into(), format!("to_json({})", doubled("[1]", 36, "[X].map(x, [x, x])[0]"))),
        (
            "shared lists compared".into(),
            format!("[{}].map(l, l == [l[0] + [], l[1]])", doubled("[1]", 30, "[X].map(x, [x, x])[0]")),
        ),
        (
            "shared maps compared".into(),
            format!(
                "[{0}, {0}] == [{0}, {0}, 1]",
                doubled("{'a': 1}", 30, "[X].map(x, {'a': x, 'b': x})[0]")
            ),
        ),
        ("replace doubled".into(), doubled("'aaaa'", 30, "X.replace('a', 'aa')")),
        ("join doubled".into(), doubled("['aaaa']", 30, "[X].map(x, [x.join(), x.join()])[0]")),
        ("to_json doubled".into(), doubled("[1]", 20, "[X].map(x, [to_json(x), to_json(x)])[0]")),
        named("triangle", "input.numbers.filter(x, range(x % 500).filter(y, y * y == x) != [])"),
        named(
            "nested comprehension with regex",
            "input.words.map(a, input.words.filter(b, (a + b).matches('^w[0-9]+w[0-9]*7$')))",
        ),
        named("regex of long text", "input.text.matches('(a?){60}b')"),
        named("regex with counted groups", "input.text.matches('((a{30}){10}|b)c')"),
        named("regex with unicode classes", "input.unicode.matches('(\\\\w+\\\\s?)+[^\\\\w]{9}$')"),
        named("many patterns", "input.wide.exists(x, 'a'.matches('b' + string(x)))"),
        named("sort_by of a big list", "sort_by(input.wide, y, (y * 7919) % 199999)"),
        named("sort_by of texts", "sort_by(input.wide, y, string((y * 7919) % 199999))"),
        named("sort_by of long equal texts", "sort_by(range(1000), y, input.kilo + string(y))"),
        named("group_by of a big list", "group_by(input.wide, y, y)"),
        named("distinct of a big list", "distinct(input.wide.map(y, (y * 7919) % 1999))"),
        named("map to maps, kept", "input.wide.map(x, {'a': x, 'b': {'c': [x]}})"),
        named("map to lists, kept", "input.wide.map(x, [x, [x, [x]]])"),
        named("map to texts, kept", "input.wide.map(x, string(x) + '-' + string(x))"),
        named("map to long texts, kept", "input.wide.map(x, input.kilo + string(x))"),
        named("map to bytes, kept", "input.wide.map(x, b'a') == []"),
        named("parse_json of lists", "input.wide.map(x, parse_json(input.json))"),
        named("to_json of everything", "range(99).map(x, to_json(input))"),
        named("the big text again and again", "range(9999).map(x, input.text + string(x))"),
        named("everything is equal", "range(999).all(x, input == input.map(k, input[k]) || true)"),
    ];
    all.append(&mut nested);
    let outer = |body: &str| format!("input.numbers.exists(z, input.numbers.exists(x, {body}))");
    all.extend(AGAIN.iter().chain(&AGAIN_MORE).map(|(name, body)| (format!("again: {name}"), outer(body))));
    all
}

/// What must still be possible, on 10,000 records.
const HONEST: [(&str, &str); 10] = [
    ("sum of a member", "sum(input.many.map(r, r.n))"),
    ("count by a condition", "size(input.many.filter(r, r.n > 50 && r.name != 'x'))"),
    ("averages of groups", "group_by(input.many, r, r.kind).map(k, k)"),
    ("sorted by a member", "sort_by(input.many, r, -r.n)"),
    ("sorted by a text", "sort_by(input.many, r, r.name)"),
    ("reshaped", "input.many.map(r, {'id': r.id, 'name': r.name, 'double': r.n * 2})"),
    ("kinds", "distinct(input.many.map(r, r.kind))"),
    ("labels", "input.many.map(r, r.name + '-' + string(r.n)).join(',')"),
    ("matched", "size(input.many.filter(r, r.name.matches('^n[0-9]+7$')))"),
    (
        "summary",
        "{'count': size(input.many), 'sum': sum(input.many.map(r, r.n)), 'most': max(input.many.map(r, r.n)), 'groups': group_by(input.many, r, r.kind).map(k, k)}",
    ),
];

fn input() -> Value {
    let records = |count: usize| {
        let one = |n: usize| {
            format!(
                r#"{{"id": {n}, "n": {}, "name": "n{}", "kind": "k{}"}}"#,
                n * 37 % 101,
                n * 7919 % count,
                n % 7
            )
        };
        format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","))
    };
    let list = |count: usize, one: &dyn Fn(usize) -> String| {
        format!("[{}]", (0..count).map(one).collect::<Vec<_>>().join(","))
    };
    let shared = (0..12).fold(String::from("[1]"), |inner, _| format!("[{inner},{inner}]"));
    let keyed = (0..10_000).map(|n| format!(r#""k{n}": {n}"#)).collect::<Vec<_>>().join(",");
    let members = [
        ("text", format!("{:?}", "a".repeat(1 << 20))),
        ("same_text", format!("{:?}", "a".repeat(1 << 20))),
        ("kilo", format!("{:?}", "a".repeat(1 << 10))),
        ("spaces", format!("{:?}", format!("{0}x{0}", " ".repeat(1 << 15)))),
        ("unicode", format!("\"{}\"", "äß漢 😀".repeat(1 << 9))),
        ("controls", format!("\"{}\"", "\\u0001".repeat(1 << 12))),
        ("digits", format!("\"0.{}\"", "123456789".repeat(1_000))),
        ("json", format!("{:?}", list(1_000, &|_| "[]".into()))),
        ("deep", r#"{"a": {"b": {"c": 1}}}"#.into()),
        ("small", r#"{"a": [1, 2.5, "x"], "b": null}"#.into()),
        ("numbers", list(10_000, &|n| (n * 7919 % 10_007).to_string())),
        ("wide", list(150_000, &|n| (n * 7919 % 150_001).to_string())),
        ("doubles", list(10_000, &|n| format!("{}.37", n * 7919 % 10_007))),
        ("words", list(10_000, &|n| format!("\"w{}\"", n * 7919 % 10_007))),
        ("records", records(1_000)),
        ("same", records(1_000)),
        ("many", records(10_000)),
        ("shared", shared.clone()),
        ("shared_too", shared),
        ("keyed", format!("{{{keyed}}}")),
    ];
    // One by one: together they are over the limits of a value that comes from outside.
    Value::map(members.map(|(name, json)| (name, Value::from_json(json.as_bytes()).unwrap())))
}

struct Measured {
    took: Duration,
    steps: u64,
    ended: &'static str,
}

/// One evaluation, with the end of what it made.
fn measure(program: &Program, env: &Input) -> Measured {
    let mut budget = Budget { steps: EXPRESSION_STEPS_MAX };
    let before = clock_gettime(ClockId::ThreadCPUTime);
    let ended = program.evaluate(env, &mut budget).map_or_else(|error| error.code, |_| "done");
    let took = clock_gettime(ClockId::ThreadCPUTime) - before;
    let took = Duration::new(took.tv_sec.unsigned_abs(), u32::try_from(took.tv_nsec).unwrap_or(0));
    Measured { took, steps: EXPRESSION_STEPS_MAX - budget.steps, ended }
}

fn line(name: &str, source: &str, env: &Input) -> Measured {
    let program = Program::compile(source).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut all: Vec<Measured> = (0..7).map(|_| measure(&program, env)).collect();
    all.sort_by_key(|measured| measured.took);
    let median = all.swap_remove(3);
    let millis = median.took.as_secs_f64() * 1e3;
    let step = median.took.as_nanos() as f64 / median.steps.max(1) as f64;
    let mark = if millis >= MILLIS_MAX { "  TOO LONG" } else { "" };
    println!("{name:40} {millis:8.2} ms {:>9} steps {step:7.1} ns  {}{mark}", median.steps, median.ended);
    median
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let env = Input(input());
    let mut worst = Duration::ZERO;
    for (name, source) in bombs().into_iter().filter(|(name, _)| name.contains(&wanted)) {
        worst = worst.max(line(&name, &source, &env).took);
    }
    for (name, source) in HONEST.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        let measured = line(&format!("honest: {name}"), source, &env);
        assert_eq!(measured.ended, "done", "{name}");
        worst = worst.max(measured.took);
    }
    println!("worst: {:.2} ms", worst.as_secs_f64() * 1e3);
    assert!(worst.as_secs_f64() * 1e3 < MILLIS_MAX, "an evaluation holds a core for too long");
}
