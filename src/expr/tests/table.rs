//! Cases of the language: an expression and what it gives, or the code of its error.

use super::{code, eval, run_on};
use crate::expr::{Program, error};
use crate::model::Value;

/// Expressions over `input`, a document each, with their results as JSON.
fn check(cases: &[(&str, &str, &str)]) {
    for (input, source, wanted) in cases {
        let wanted = Value::from_json(wanted.as_bytes()).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        assert_eq!(run_on(source, input), Ok(wanted), "{source} on {input}");
    }
}

/// Expressions without data, with their results as JSON.
pub(super) fn check_plain(cases: &[(&str, &str)]) {
    for (source, wanted) in cases {
        let wanted = Value::from_json(wanted.as_bytes()).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        assert_eq!(eval(source), Ok(wanted), "{source}");
    }
}

#[test]
fn literals() {
    check_plain(&[
        ("null", "null"),
        ("true", "true"),
        ("-1", "-1"),
        ("0x1F", "31"),
        ("-0x10", "-16"),
        ("5u", "5"),
        ("18446744073709551615u", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775807", "9223372036854775807"),
        ("1.5e3", "1500.0"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("'a\\'b'", r#""a'b""#),
        ("'''a'b'''", r#""a'b""#),
        ("\"\"\"a\"b\nc\"\"\"", r#""a\"b\nc""#),
        ("r'a\\n'", r#""a\\n""#),
        ("'\\x41\\u00e9\\U0001F600\\101'", "\"Aé😀A\""),
        ("'日本'", "\"日本\""),
        ("[]", "[]"),
        ("[1, 'a', [null]]", "[1, \"a\", [null]]"),
        ("[1, 2,]", "[1, 2]"),
        ("{}", "{}"),
        ("{'b': 1, 'a': {'c': [2]},}", r#"{"a": {"c": [2]}, "b": 1}"#),
        ("{'a' + 'b': 1 + 1}", r#"{"ab": 2}"#),
        ("1 // a comment\n + 2", "3"),
        ("!true", "false"),
        ("!!true", "true"),
        ("- - 3", "3"),
    ]);
}

#[test]
fn arithmetic() {
    check_plain(&[
        ("1 + 2 * 3 - 4", "3"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("7 % -3", "1"),
        ("1 + 1.5", "2.5"),
        ("1.5 - 1", "0.5"),
        ("2 * 1.5", "3.0"),
        ("1 / 2.0", "0.5"),
        ("18446744073709551615u - 18446744073709551615u", "0"),
        ("18446744073709551615u - 18446744073709551614u", "1"),
        ("9223372036854775808u / 2", "4611686018427387904"),
        ("-(9223372036854775808u)", "-9223372036854775808"),
        ("18446744073709551615u % 10", "5"),
        ("18446744073709551615u * 1.0 > 1.8e19", "true"),
        ("'a' + 'b' + 'c'", "\"abc\""),
        ("[1] + [] + [2]", "[1, 2]"),
        ("size(b'ab' + b'c')", "3"),
    ]);
    for source in [
        "9223372036854775807 + 1",
        "-9223372036854775808 - 1",
        "9223372036854775807 * 2",
        "-9223372036854775808 / -1",
        "-9223372036854775808 % -1",
        "18446744073709551615u + 1",
        "18446744073709551615u * 2",
        "1e308 * 10",
        "-(18446744073709551615u)",
        "abs(-9223372036854775808)",
        "int(1e19)",
        "int(18446744073709551615u)",
        "uint(-1)",
        "sum([9223372036854775807, 1])",
    ] {
        assert_eq!(code(source), error::OVERFLOW, "{source}");
    }
    for source in ["1 / 0", "1 % 0", "1.0 / 0", "1 / 0.0", "18446744073709551615u / 0"] {
        assert_eq!(code(source), error::DIVISION_BY_ZERO, "{source}");
    }
    for source in ["1 + 'a'", "'a' - 'b'", "true + true", "null + 1", "[1] * 2", "1.5 % 1", "-'a'", "{} + {}"]
    {
        assert_eq!(code(source), error::TYPE, "{source}");
    }
}

#[test]
fn comparisons_are_exact_across_the_number_types() {
    check_plain(&[
        ("81 == 81.0", "true"),
        ("1u == 1", "true"),
        ("18446744073709551615u > 9223372036854775807", "true"),
        ("18446744073709551615u == 18446744073709551615.0", "false"),
        ("9007199254740993 == 9007199254740992.0", "false"),
        ("9007199254740993 > 9007199254740992.0", "true"),
        ("9223372036854775807 < 9223372036854775808.0", "true"),
        ("-1 < 0.5", "true"),
        ("0 > -0.5", "true"),
        ("0.0 == -0.0", "true"),
        ("1e300 > 18446744073709551615u", "true"),
        ("-1e300 < -9223372036854775808", "true"),
        ("'a' < 'b' && 'a' < 'aa' && 'B' < 'a'", "true"),
        ("false < true", "true"),
        ("b'a' < b'b'", "true"),
        ("[1, 2.0] == [1.0, 2]", "true"),
        ("{'a': 1} == {'a': 1.0}", "true"),
        ("{'a': 1} == {'b': 1}", "false"),
        ("[1] == [1, 2]", "false"),
        ("1 == 'a'", "false"),
        ("null == false", "false"),
        ("null == null", "true"),
        ("[] == {}", "false"),
        ("1 != 'a'", "true"),
        ("type(1) == int && type(1.0) == double && type('') == string && type(null) == null_type", "true"),
        ("type([]) == list && type({}) == map && type(b'') == bytes && type(true) == bool", "true"),
        ("type(type(1)) == type", "true"),
        ("type(timestamp(0)) == google.protobuf.Timestamp", "true"),
        ("type(duration('1s')) == google.protobuf.Duration", "true"),
        ("type(18446744073709551615u) == uint", "true"),
        ("type(1)", "\"int\""),
    ]);
    for source in
        ["1 < 'a'", "null < null", "[1] < [2]", "{} < {}", "true < 1", "timestamp(0) < 1", "int < bool"]
    {
        assert_eq!(code(source), error::TYPE, "{source}");
    }
}

#[test]
fn logic_absorbs_errors() {
    check_plain(&[
        ("false && 1 / 0 == 1", "false"),
        ("1 / 0 == 1 && false", "false"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("'x' && false", "false"),
        ("true ? 1 : 1 / 0", "1"),
        ("false ? 1 / 0 : 2", "2"),
        ("[1, 0].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].all(x, 1 / x == 2)", "false"),
        ("[].all(x, false)", "true"),
        ("[].exists(x, true)", "false"),
    ]);
    for (source, code_wanted) in [
        ("true && 1 / 0 == 1", error::DIVISION_BY_ZERO),
        ("1 / 0 == 1 || false", error::DIVISION_BY_ZERO),
        ("1 / 0 == 1 && [1][1] == 1", error::DIVISION_BY_ZERO),
        ("true && 1", error::TYPE),
        ("1 || false", error::TYPE),
        ("!1", error::TYPE),
        ("1 ? 2 : 3", error::TYPE),
        ("null ? 2 : 3", error::TYPE),
        ("[0].all(x, 1 / x == 1)", error::DIVISION_BY_ZERO),
        ("[1].exists(x, x)", error::TYPE),
        ("[0, 1].exists_one(x, 1 / x == 1)", error::DIVISION_BY_ZERO),
        ("[0, 1].filter(x, 1 / x == 1)", error::DIVISION_BY_ZERO),
        ("[1].filter(x, 'true')", error::TYPE),
    ] {
        assert_eq!(code(source), code_wanted, "{source}");
    }
}

#[test]
fn members_and_elements() {
    check(&[
        (r#"{"a": {"b": [10, {"c": 1}]}}"#, "input.a.b[1].c", "1"),
        (r#"{"a-b": 1}"#, "input['a-b']", "1"),
        (r#"{"a-b": 1}"#, "input.`a-b`", "1"),
        (r#"{"a": 1}"#, "has(input.a) && !has(input.b)", "true"),
        (r#"{"a": null}"#, "has(input.a)", "true"),
        (r#"{"a": null}"#, "has(input.a.b)", "false"),
        (r#"{"a": 1}"#, "has(input['a'])", "true"),
        (r#"{"a": 1}"#, "'a' in input && !('b' in input)", "true"),
        (r#"{"a": 1}"#, "1 in input", "false"),
        ("[1, 2, 3]", "2.0 in input && !('2' in input)", "true"),
        ("[1, 2, 3]", "input[2] + input[0.0]", "4"),
        ("[[1, 2], [3]]", "input[0][1]", "2"),
        ("[1, 2, 3]", "[input, input][1][2]", "3"),
        (r#"{"k": "a", "a": 5}"#, "input[input.k]", "5"),
        (r#"{"inputs": 1}"#, "input.inputs", "1"),
        ("{}", "{'a': [1, 2]}.a[1]", "2"),
        ("3", "[1, 2].map(input, input * 10) + [input, .input]", "[10, 20, 3, 3]"),
        ("3", "[1].map(input, .input)", "[3]"),
    ]);
    for (input, source, wanted) in [
        (r#"{"a": 1}"#, "input.b", error::NO_KEY),
        (r#"{"a": 1}"#, "input['b']", error::NO_KEY),
        (r#"{"a": 1}"#, "has(input.b.c)", error::NO_KEY),
        (r#"{"a": 1}"#, "input.a.b", error::TYPE),
        (r#"{"a": 1}"#, "has(input.a.b)", error::TYPE),
        ("null", "input.a", error::TYPE),
        ("[1]", "input[1]", error::INDEX),
        ("[1]", "input[-1]", error::INDEX),
        ("[1]", "input[0.5]", error::INDEX),
        ("[1]", "input['0']", error::TYPE),
        (r#"{"1": 1}"#, "input[1]", error::TYPE),
        ("5", "input[0]", error::TYPE),
        ("5", "1 in input", error::TYPE),
    ] {
        let error = run_on(source, input).unwrap_err();
        assert_eq!(error.code, wanted, "{source} on {input}: {error}");
    }
    let error = run_on("input.budget", r#"{"a": 1}"#).unwrap_err();
    assert!(error.message.contains("\"budget\""), "{error}");
}

#[test]
fn macros_over_lists_and_maps() {
    check_plain(&[
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("map([1, 2], x, x * 2)", "[2, 4]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        ("[[1, 2], [3]].map(x, x.map(y, y + size(x)))", "[[3, 4], [4]]"),
        ("[1, 2].map(x, [10, 20].map(x, x))", "[[10, 20], [10, 20]]"),
        ("[1, 2].map(x, [10].map(y, x + y)).map(x, x[0])", "[11, 12]"),
        ("{'b': 1, 'a': 2}.map(k, k)", "[\"a\", \"b\"]"),
        ("{'b': 1, 'a': 2}.filter(k, k == 'a')", "[\"a\"]"),
        ("{'b': 1, 'a': 2}.all(k, size(k) == 1)", "true"),
        ("[1, 2, 2].exists_one(x, x == 1) && ![1, 2, 2].existsOne(x, x == 2)", "true"),
        ("[3, 1, 2].sort_by(x, x)", "[1, 2, 3]"),
        ("sort_by([3, 1.5, 2], x, -x)", "[3, 2, 1.5]"),
        ("sort_by(['b', 'a'], x, x)", "[\"a\", \"b\"]"),
        (
            "sort_by([[2, 'x'], [1, 'y'], [2, 'a'], [1, 'b']], x, x[0]).map(x, x[1])",
            r#"["y", "b", "x", "a"]"#,
        ),
        ("sort_by([], x, x)", "[]"),
        ("sort_by([null], x, x)", "[null]"),
        ("sort_by([true, false], x, x)", "[false, true]"),
        (
            "sort_by(['2026-01-01T00:00:00.5Z', '2026-01-01T00:00:00Z'], x, timestamp(x))",
            r#"["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"]"#,
        ),
        ("group_by([1, 2, 3], x, x > 1)", r#"{"false": [1], "true": [2, 3]}"#),
        ("[null, 1.5, 'a'].group_by(x, x)", r#"{"1.5": [1.5], "a": ["a"], "null": [null]}"#),
        ("group_by([1], x, [x])", r#"{"[1]": [1]}"#),
        ("group_by(['60s', '1m'], x, duration(x))", r#"{"60s": ["60s", "1m"]}"#),
        ("group_by([], x, x)", "{}"),
    ]);
    for (source, wanted) in [
        ("1.map(x, x)", error::TYPE),
        ("(1).map(x, x)", error::TYPE),
        ("'abc'.map(x, x)", error::TYPE),
        ("sort_by({}, x, x)", error::TYPE),
        ("sort_by([1, 'a'], x, x)", error::TYPE),
        ("sort_by([null, null], x, x)", error::TYPE),
        ("[1].map(x)", error::ARGUMENTS),
        ("[1].map(x, x, x, x)", error::ARGUMENTS),
        ("[1].filter(x, x, x)", error::ARGUMENTS),
        ("[1].map(x.y, 1)", error::ARGUMENTS),
        ("[1].map('x', 1)", error::ARGUMENTS),
        ("[1].map(.x, 1)", error::ARGUMENTS),
        ("sort_by([1], x)", error::ARGUMENTS),
        ("has(1)", error::ARGUMENTS),
        ("has(input)", error::ARGUMENTS),
        ("has(input.a, input.b)", error::ARGUMENTS),
        ("[1].map(x, y)", error::UNKNOWN_NAME),
        ("[1].map(x, x) + x", error::UNKNOWN_NAME),
    ] {
        assert_eq!(code(source), wanted, "{source}");
    }
}

#[test]
fn what_is_no_expression_is_refused_when_it_is_compiled() {
    for (source, wanted) in [
        ("", error::SYNTAX),
        ("   ", error::SYNTAX),
        ("// only a comment", error::SYNTAX),
        ("1 +", error::SYNTAX),
        ("1 2", error::SYNTAX),
        ("(1", error::SYNTAX),
        ("1)", error::SYNTAX),
        ("(1]", error::SYNTAX),
        ("[1", error::SYNTAX),
        ("'a", error::SYNTAX),
        ("'a\nb'", error::SYNTAX),
        ("'\\q'", error::SYNTAX),
        ("'''a", error::SYNTAX),
        ("`a", error::SYNTAX),
        ("``", error::SYNTAX),
        ("`((`", error::SYNTAX),
        ("a = 1", error::SYNTAX),
        ("a & b", error::SYNTAX),
        ("#", error::SYNTAX),
        ("é", error::SYNTAX),
        ("1 ? 2", error::SYNTAX),
        ("a.?b", error::SYNTAX),
        ("[?1]", error::SYNTAX),
        ("Type{a: 1}", error::SYNTAX),
        ("if", error::SYNTAX),
        ("99999999999999999999", error::SYNTAX),
        ("1e999", error::SYNTAX),
        ("'\\ud800'", error::SYNTAX),
        ("foo", error::UNKNOWN_NAME),
        ("foo.bar", error::UNKNOWN_NAME),
        ("foo(1)", error::UNKNOWN_FUNCTION),
        ("google.protobuf.Nope", error::UNKNOWN_NAME),
        ("nodes", error::REFERENCE),
        ("nodes.a", error::REFERENCE),
        ("nodes['a']", error::REFERENCE),
        ("nodes.a.input", error::REFERENCE),
        ("nodes[item].output", error::REFERENCE),
        ("has(nodes.a)", error::REFERENCE),
        ("has(nodes.a.status)", error::REFERENCE),
        ("outputs", error::REFERENCE),
        ("size(outputs)", error::REFERENCE),
        ("outputs[item]", error::REFERENCE),
        ("{'a': 1, 'a': 2}", error::DUPLICATE_KEY),
        ("'x'.matches('(')", error::PATTERN),
    ] {
        assert_eq!(Program::compile(source).map(|_| ()).map_err(|error| error.code), Err(wanted), "{source}");
    }
    assert_eq!(code("{'a' + '': 1, 'a': 2}"), error::DUPLICATE_KEY);
    assert_eq!(code("{1: 2}"), error::TYPE);
    assert_eq!(code("{null: 2}"), error::TYPE);
}
