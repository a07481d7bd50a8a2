//! The canonical text of a document (RFC 8785).
//!
//! Values are kept sorted and their integers are exact, so what serde_json writes of most documents is the canonical text
//! already. Where it may not be (numbers that ECMAScript writes in its own way, keys that UTF-16 sorts otherwise than UTF-8),
//! the library does it, which takes every object apart and is some twenty times slower.

use crate::model::Value;

/// Integers up to here are written with all their digits.
const EXACT: i64 = 9_007_199_254_740_991;
/// Keys of bytes below this one (the first of U+E000 and above) are in the same order in UTF-8 and in UTF-16.
const FIRST_BYTE: u8 = 0xee;

/// The RFC 8785 text; the error says why there is none.
pub(super) fn text(document: &Value) -> Result<String, String> {
    if is_plain(document) {
        return serde_json::to_string(document).map_err(|failure| failure.to_string());
    }
    serde_json_canonicalizer::to_string(document).map_err(|failure| failure.to_string())
}

fn is_plain(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Int(number) => (-EXACT..=EXACT).contains(number),
        Value::UInt(_) | Value::Float(_) => false,
        Value::List(items) => items.iter().all(is_plain),
        Value::Map(map) => {
            map.iter().all(|(key, item)| key.bytes().all(|byte| byte < FIRST_BYTE) && is_plain(item))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values of every kind, and texts of every kind of character.
    fn values() -> impl Strategy<Value = Value> {
        let text = || {
            prop_oneof![
                "[a-z]{0,4}",
                prop::collection::vec(any::<char>(), 0..6).prop_map(String::from_iter),
                "[\u{0}-\u{7f}]{0,6}",
                "[\u{7ff}-\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}]{0,3}",
            ]
        };
        let number = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            (-10_i64..10).prop_map(Value::Int),
            (-2_i64..3, any::<bool>()).prop_map(|(n, up)| Value::Int(if up {
                EXACT + n
            } else {
                -EXACT + n
            })),
            any::<u64>().prop_map(Value::unsigned),
            any::<f64>().prop_filter_map("finite", Value::float),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            text().prop_map(Value::string),
            number
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::list),
                prop::collection::vec((text(), inner), 0..5).prop_map(Value::map),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn it_is_what_the_library_writes(value in values()) {
            let library = serde_json_canonicalizer::to_string(&value).map_err(|failure| failure.to_string());
            prop_assert_eq!(text(&value), library);
        }
    }

    #[test]
    fn what_may_be_written_otherwise_is_left_to_the_library() {
        for (plain, json) in [
            (true, r#"{"a":[1,-9007199254740991,"\u0001\u007f\u2028é",null,true]}"#),
            (false, "[9007199254740992]"),
            (false, "[1.5]"),
            (false, "[18446744073709551615]"),
            (false, r#"{"\ue000":1}"#),
            (true, r#"{"\ud7ff":1}"#),
        ] {
            assert_eq!(is_plain(&Value::from_json(json.as_bytes()).unwrap()), plain, "{json}");
        }
    }
}
