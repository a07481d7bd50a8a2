//! The members of a JSON body, read in one pass without an intermediate tree.
//!
//! Unknown members are refused before their value is read. Whatever is wrong is named by pointer, line and column, and
//! by the limit's name when it was a limit.

use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};

use super::request::unknown;
use crate::model::Value;
use crate::wire::problem::{Problem, Wrong};

type Refused = Box<Problem>;

/// The members of a JSON object, in the order of `known`, read in one pass; any other member is refused.
pub(super) fn members<const N: usize>(
    body: &[u8],
    known: [&'static str; N],
) -> Result<[Option<Value>; N], Refused> {
    let mut at = Reading { known, member: None, unknown: None };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let result = Members(&mut at).deserialize(&mut deserializer);
    result.and_then(|found| deserializer.end().map(|()| found)).map_err(|error| at.problem(&error))
}

/// Where the reader was when something was wrong.
struct Reading<const N: usize> {
    known: [&'static str; N],
    member: Option<&'static str>,
    unknown: Option<String>,
}

impl<const N: usize> Reading<N> {
    fn problem(&self, error: &serde_json::Error) -> Refused {
        let text = error.to_string();
        let detail = text.rsplit_once(" at line ").map_or(text.as_str(), |(detail, _)| detail).to_owned();
        let pointer = match (&self.unknown, self.member) {
            (Some(name), _) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            (None, Some(member)) => format!("/{member}"),
            (None, None) => String::new(),
        };
        let wrong = Wrong {
            pointer: Some(pointer),
            line: Some(error.line()),
            column: Some(error.column()),
            detail: detail.clone(),
        };
        let limit = detail.rsplit_once("(limit ").map(|(_, name)| name.trim_end_matches(')').to_owned());
        let problem = match limit {
            Some(limit) => Problem::new(422, "limit_exceeded", detail).limit(limit),
            None if self.unknown.is_some() => Problem::new(400, "unknown_member", detail),
            None if error.is_data() => Problem::new(400, "invalid_body", detail),
            None => Problem::new(400, "malformed_json", detail),
        };
        problem.at(&wrong)
    }
}

struct Members<'a, const N: usize>(&'a mut Reading<N>);

impl<'de, const N: usize> DeserializeSeed<'de> for Members<'_, N> {
    type Value = [Option<Value>; N];

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<Value>; N];

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut found = [const { None }; N];
        while let Some(key) = access.next_key_seed(Key(&self.0.known))? {
            let slot = key.as_ref().ok().and_then(|at| Some((*self.0.known.get(*at)?, found.get_mut(*at)?)));
            let Some((member, slot)) = slot else {
                let key = key.err().unwrap_or_default();
                let text = unknown("member", &key, &self.0.known);
                self.0.unknown = Some(key);
                // Reading on would spend time on what is refused anyway.
                return Err(A::Error::custom(text));
            };
            self.0.member = Some(member);
            if slot.is_some() {
                return Err(A::Error::custom(format_args!("the member {member:?} stands twice")));
            }
            *slot = Some(access.next_value::<Value>()?);
            self.0.member = None;
        }
        Ok(found)
    }
}

/// A key as its index among the known ones, without a copy; a stranger comes as text.
struct Key<'a>(&'a [&'static str]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        // What is shown back to the caller is cut.
        Ok(self.0.iter().position(|known| *known == key).ok_or_else(|| key.chars().take(64).collect()))
    }
}

/// A member that must be text.
pub(super) fn text(member: &str, value: Option<Value>) -> Result<Option<std::sync::Arc<str>>, Refused> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(member, "a string", &other)),
    }
}

/// A member that must be text where it stands: null is no way to leave it out.
pub(super) fn only_text(member: &str, value: Option<Value>) -> Result<Option<std::sync::Arc<str>>, Refused> {
    match value {
        Some(Value::Null) => Err(wrong_type(member, "a string", &Value::Null)),
        value => text(member, value),
    }
}

/// 400 for a member of another type.
pub(super) fn wrong_type(member: &str, expected: &str, found: &Value) -> Refused {
    let detail = format!("{member:?} must be {expected}, not {}", found.type_name());
    let wrong = Wrong { pointer: Some(format!("/{member}")), detail: detail.clone(), ..Wrong::default() };
    Problem::new(400, "invalid_body", detail).at(&wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_in_one_pass_and_strangers_refused() {
        let [a, b] = members(br#" {"b": [1], "a": "x"} "#, ["a", "b"]).unwrap();
        assert_eq!((a.unwrap().as_str().unwrap(), b.unwrap().to_json().as_str()), ("x", "[1]"));
        let problem = members(br#"{"worklfow": 1}"#, ["workflow", "inputs"]).unwrap_err();
        assert_eq!(problem.code, "unknown_member");
        assert!(problem.detail.contains("did you mean \"workflow\"?"), "{}", problem.detail);
        assert_eq!(problem.errors[0]["pointer"], "/worklfow");
    }

    #[test]
    fn what_is_wrong_in_a_body_is_named_with_its_place() {
        for (body, code, pointer) in [
            (&b"{\"a\": NaN}"[..], "malformed_json", "/a"),
            (b"{\"a\": {\"x\":1,\"x\":2}}", "invalid_body", "/a"),
            (b"{\"a\": 1, \"a\": 2}", "invalid_body", "/a"),
            (b"{\"a\": \"\xff\"}", "malformed_json", "/a"),
            (b"[1]", "invalid_body", ""),
            (b"{\"a\": 1} x", "malformed_json", ""),
            (b"", "malformed_json", ""),
        ] {
            let problem = members(body, ["a"]).unwrap_err();
            assert_eq!(
                (&*problem.code, &problem.errors[0]["pointer"]),
                (code, &pointer.into()),
                "{problem:?}"
            );
            assert!(problem.errors[0]["line"].is_u64());
        }
    }
}
