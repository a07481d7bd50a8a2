//! Cases of the functions: an expression and what it gives, or the code of its error.

use super::code;
use super::table::check_plain;
use crate::expr::error;

#[test]
fn list_functions() {
    check_plain(&[
        ("size([1, 2]) + [1].size() + size('héé') + size({'a': 1}) + size(b'abc')", "10"),
        ("sum(1, 2, 3)", "6"),
        ("[1, 2.5].sum()", "3.5"),
        ("sum([])", "0"),
        ("sum(5)", "5"),
        ("sum([duration('1s'), duration('1m')])", "\"61s\""),
        ("avg(1, 2)", "1.5"),
        ("avg([duration('1s'), duration('2s')])", "\"1.5s\""),
        ("min([3, 1.5, 2])", "1.5"),
        ("max('a', 'b')", "\"b\""),
        ("max([duration('100s'), duration('90s')])", "\"100s\""),
        (
            "max(['2026-01-01T00:00:00Z', '2026-01-01T00:00:00.5Z'].map(x, timestamp(x)))",
            "\"2026-01-01T00:00:00.5Z\"",
        ),
        ("[duration('90s'), 1][0] == duration('1m30s')", "true"),
        ("[duration('90s')] + [1]", "[\"90s\", 1]"),
        ("duration('60s') in [duration('1m')]", "true"),
        ("[duration('60s')] == [duration('1m')]", "true"),
        ("[duration('2s'), duration('1s')].map(d, d)", "[\"2s\", \"1s\"]"),
        ("distinct([duration('60s'), duration('1m'), 1])", "[\"60s\", 1]"),
        (
            "distinct([3, 1, 3.0, 'a', null, 'a', [1], [1.0], {'a': 1}, {'a': 1}, null, true])",
            r#"[3, 1, "a", null, [1], {"a": 1}, true]"#,
        ),
        ("[2, 1, 2].distinct()", "[2, 1]"),
        ("flatten([[1, [2]], 3, []])", "[1, [2], 3]"),
        ("reverse([1, 2]) + [reverse('aé')]", "[2, 1, \"éa\"]"),
        ("slice([1, 2, 3], 1, 1)", "[]"),
        ("[1, 2, 3].indexOf(3.0) + [1].indexOf('a')", "1"),
        ("keys({'b': 1, 'a': 2}) + values({'b': 3, 'a': 4})", "[\"a\", \"b\", 4, 3]"),
        ("range(0)", "[]"),
        ("range(3)", "[0, 1, 2]"),
        ("math.least(2, 1) + math.greatest([1, 4])", "5"),
    ]);
    for (source, wanted) in [
        ("sum(['a'])", error::TYPE),
        ("sum([1, duration('1s')])", error::TYPE),
        ("sum([[1]])", error::TYPE),
        ("avg([])", error::INVALID),
        ("max([])", error::INVALID),
        ("max([null])", error::TYPE),
        ("min([1, 'a'])", error::TYPE),
        ("min()", error::ARGUMENTS),
        ("range(-1)", error::INVALID),
        ("range('a')", error::TYPE),
        ("size(1)", error::TYPE),
        ("size()", error::ARGUMENTS),
        ("size([1], [2])", error::ARGUMENTS),
        ("slice([1], 0, 2)", error::INDEX),
        ("slice([1], 1, 0)", error::INDEX),
        ("slice([1], -1, 0)", error::INDEX),
        ("flatten(1)", error::TYPE),
        ("keys([])", error::TYPE),
        ("[1].contains(1)", error::TYPE),
    ] {
        assert_eq!(code(source), wanted, "{source}");
    }
}

#[test]
fn text_functions() {
    check_plain(&[
        ("'abc'.contains('') && contains('abc', 'bc')", "true"),
        ("'abc'.matches('b') && !'abc'.matches('^b') && matches('a', 'a' + '?')", "true"),
        ("'a1b2'.matches(r'^(\\w\\d)+$')", "true"),
        ("'ab'.matches('^.{0,255}$') && !'a'.matches('^[a-z]{2,100}$')", "true"),
        (
            "'0192f3a1-0000-7000-8000-00000000000a'.matches('^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$')",
            "true",
        ),
        ("'a,b'.split('') ", r#"["a", ",", "b"]"#),
        ("'abc'.split('', 2)", r#"["a", "bc"]"#),
        ("'a,b,c'.split(',', 0)", "[]"),
        ("'a,b,c'.split(',', 1)", "[\"a,b,c\"]"),
        ("'a,b,c'.split(',', -1)", r#"["a", "b", "c"]"#),
        ("''.split(',')", "[\"\"]"),
        ("['a', 'b'].join() + [].join(',')", "\"ab\""),
        ("'ab'.replace('', '-')", "\"-a-b-\""),
        ("'aaa'.replace('a', 'bb', 2)", "\"bbbba\""),
        ("'aaa'.replace('a', 'b', 0)", "\"aaa\""),
        ("'日本語'.substring(1, 2) + '日本語'.charAt(2) + '日本語'.charAt(3)", "\"本語\""),
        ("'日本語'.indexOf('語') + '日本日'.lastIndexOf('日')", "4"),
        ("'abcabc'.indexOf('a', 1)", "3"),
        ("'abc'.indexOf('x')", "-1"),
        ("''.indexOf('')", "0"),
        ("' \\t é\\n'.trim()", "\"é\""),
        ("lowerAscii('ÀB') + upperAscii('àb')", "\"ÀbàB\""),
    ]);
    for (source, wanted) in [
        ("'a'.contains(1)", error::TYPE),
        ("(1).startsWith('a')", error::TYPE),
        ("'a'.matches('(')", error::PATTERN),
        ("'a'.matches('(' + '')", error::PATTERN),
        ("(1).matches('a')", error::TYPE),
        ("'abc'.substring(4)", error::INDEX),
        ("'abc'.substring(2, 1)", error::INDEX),
        ("'abc'.substring(-1)", error::INDEX),
        ("'abc'.charAt(4)", error::INDEX),
        ("'abc'.indexOf('a', 9)", error::INDEX),
        ("[1].join(',')", error::TYPE),
        ("'a'.split(1)", error::TYPE),
        ("'a'.nosuch()", error::UNKNOWN_FUNCTION),
        ("math.nosuch(1)", error::UNKNOWN_FUNCTION),
        ("math.size([1])", error::UNKNOWN_FUNCTION),
    ] {
        assert_eq!(code(source), wanted, "{source}");
    }
}

#[test]
fn conversions_and_numbers() {
    check_plain(&[
        ("int('-5') + int(-3.9) + int(2u) + int(timestamp(7))", "1"),
        ("uint('18446744073709551615')", "18446744073709551615"),
        ("uint(3.9)", "3"),
        ("double('1e3') + double(1)", "1001.0"),
        (
            "string(-5) + string(1.0) + string(1.25) + string(true) + string('x') + string(b'y')",
            "\"-511.25truexy\"",
        ),
        ("string(duration('-1.5s')) + string(timestamp(0))", "\"-1.5s1970-01-01T00:00:00Z\""),
        ("bool('t') && !bool('false') && bool(true)", "true"),
        ("dyn(1) + 1", "2"),
        ("parse_json('{\"a\": [1, 2.5, 18446744073709551615]}').a[2]", "18446744073709551615"),
        ("to_json('a\"b')", r#""\"a\\\"b\"""#),
        ("to_json(duration('1s'))", r#""\"1s\"""#),
        ("parse_json(to_json({'a': [1.0, null]})) == {'a': [1, null]}", "true"),
        ("abs(-2.5) + abs(2) + abs(18446744073709551615u) * 0", "4.5"),
        ("[floor(-1.5), ceil(-1.5), round(1.5), round(-1.5), trunc(-1.7)]", "[-2.0, -1.0, 2.0, -2.0, -1.0]"),
        ("[floor(1), math.round(2), sign(-7), sign(0), math.sign(0.0)]", "[1, 2, -1, 0, 0.0]"),
    ]);
    for (source, wanted) in [
        ("int('1.5')", error::INVALID),
        ("int('')", error::INVALID),
        ("int(true)", error::TYPE),
        ("int(null)", error::TYPE),
        ("int('99999999999999999999')", error::OVERFLOW),
        ("double('x')", error::INVALID),
        ("double('inf')", error::OVERFLOW),
        ("double('NaN')", error::OVERFLOW),
        ("double('1e999')", error::OVERFLOW),
        ("bool('yes')", error::INVALID),
        ("string(null)", error::TYPE),
        ("string([1])", error::TYPE),
        ("string(b'\\xff')", error::INVALID),
        ("parse_json('{')", error::INVALID),
        ("parse_json('{\"a\": 1, \"a\": 2}')", error::INVALID),
        ("parse_json(1)", error::TYPE),
        ("to_json(b'a')", error::TYPE),
        ("b'a'", error::TYPE),
        ("[b'a']", error::TYPE),
        ("{'a': b'a'}", error::TYPE),
        ("abs('a')", error::TYPE),
        ("floor('a')", error::TYPE),
    ] {
        assert_eq!(code(source), wanted, "{source}");
    }
}

#[test]
fn time() {
    check_plain(&[
        ("duration('1h2m3.5s')", "\"3723.5s\""),
        ("duration('-2m')", "\"-120s\""),
        ("duration('1.5h') == duration('90m')", "true"),
        ("duration('250ms') + duration('500us') + duration('7ns')", "\"0.250500007s\""),
        ("duration('PT1M30S')", "\"90s\""),
        ("duration('0')", "\"0s\""),
        ("-duration('1s')", "\"-1s\""),
        ("duration('1s') < duration('1m')", "true"),
        ("duration(duration('1s')) - duration('2s')", "\"-1s\""),
        ("timestamp('2026-11-21T10:00:00+02:00')", "\"2026-11-21T08:00:00Z\""),
        ("timestamp(1517966773) == timestamp('2018-02-07T01:26:13Z')", "true"),
        ("timestamp('2024-02-29T00:00:00Z') - duration('24h')", "\"2024-02-28T00:00:00Z\""),
        ("duration('1s') + timestamp(0)", "\"1970-01-01T00:00:01Z\""),
        ("timestamp('2026-12-31T23:59:59.999Z').getDayOfYear()", "364"),
        ("timestamp('2026-11-22T00:00:00Z').getDayOfWeek()", "0"),
        (
            "[duration('3h5m').getMinutes(), duration('-90s').getSeconds(), duration('1.5s').getMilliseconds()]",
            "[185, -90, 1500]",
        ),
        ("{'due': timestamp(0) + duration('1h')}", r#"{"due": "1970-01-01T01:00:00Z"}"#),
    ]);
    for (source, wanted) in [
        ("duration('1x')", error::INVALID),
        ("duration('')", error::INVALID),
        ("duration('-')", error::INVALID),
        ("duration('1')", error::INVALID),
        ("duration('.s')", error::INVALID),
        ("duration('1..5s')", error::INVALID),
        ("duration('99999999999999999999999999999999999999h')", error::INVALID),
        ("duration(5)", error::TYPE),
        ("timestamp('2026-13-01T00:00:00Z')", error::INVALID),
        ("timestamp('2026-11-21')", error::INVALID),
        ("timestamp(9223372036854775807)", error::OVERFLOW),
        ("timestamp('9999-12-30T22:00:00Z') + duration('1s')", error::OVERFLOW),
        ("timestamp(0) + 1", error::TYPE),
        ("timestamp(0) + timestamp(0)", error::TYPE),
        ("'2026'.getFullYear()", error::TYPE),
        ("duration('1s').getFullYear()", error::TYPE),
    ] {
        assert_eq!(code(source), wanted, "{source}");
    }
}
