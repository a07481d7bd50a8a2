//! Where two events differ, by the name of the field.

use serde_json::Value as Json;

use crate::model::EventBody;

/// Bytes of a value that a report shows at most.
const SHOWN_BYTES_MAX: usize = 1_000;

/// The bytes that are compared: what a journal would hold, with all values in full.
pub fn canonical(event: &EventBody) -> Vec<u8> {
    crate::model::kept::plainly(|| postcard::to_stdvec(event)).unwrap_or_default()
}

/// All that an event has, by field.
fn json(event: &EventBody) -> Json {
    let all = crate::model::kept::plainly(|| serde_json::to_value(event)).unwrap_or_default();
    match all {
        // {"NodeCompleted": {...}}: the type is told apart.
        Json::Object(variant) => variant.into_iter().next().map_or(Json::Null, |(_, fields)| fields),
        other => other,
    }
}

/// The first field in which two events of one type differ, and what each has there.
pub fn of(expected: &EventBody, got: &EventBody) -> (String, Json, Json) {
    if expected.type_name() != got.type_name() {
        return ("type".into(), expected.type_name().into(), got.type_name().into());
    }
    let mut path = Vec::new();
    let (expected, got) = (json(expected), json(got));
    let (expected, got) = descend(&expected, &got, &mut path);
    (path.join("."), shown(expected), shown(got))
}

/// Goes down to the smallest part that differs.
fn descend<'a>(a: &'a Json, b: &'a Json, path: &mut Vec<String>) -> (&'a Json, &'a Json) {
    const MISSING: &Json = &Json::Null;
    let (mut a, mut b) = (a, b);
    loop {
        let next = match (a, b) {
            (Json::Object(of_a), Json::Object(of_b)) => {
                let mut keys = of_a.keys().chain(of_b.keys().filter(|key| !of_a.contains_key(*key)));
                let key = keys.find(|key| of_a.get(*key) != of_b.get(*key));
                key.map(|key| {
                    (key.clone(), of_a.get(key).unwrap_or(MISSING), of_b.get(key).unwrap_or(MISSING))
                })
            }
            (Json::Array(of_a), Json::Array(of_b)) => {
                let at = (0..of_a.len().max(of_b.len())).find(|at| of_a.get(*at) != of_b.get(*at));
                at.map(|at| {
                    let item = |list: &'a Vec<Json>| list.get(at).unwrap_or(MISSING);
                    (at.to_string(), item(of_a), item(of_b))
                })
            }
            _ => None,
        };
        let Some((key, inner_a, inner_b)) = next else { return (a, b) };
        path.push(key);
        (a, b) = (inner_a, inner_b);
    }
}

/// A large value is cut.
fn shown(value: &Json) -> Json {
    let text = value.to_string();
    if text.len() <= SHOWN_BYTES_MAX {
        return value.clone();
    }
    let cut: String = text.chars().take(SHOWN_BYTES_MAX).collect();
    Json::String(format!("{cut}..."))
}
