//! Rules of the real APIs about names of tools and strict schemas: what breaks them works with every stand-in that does not look,
//! and fails on the first day of use.

use serde_json::Value;

use crate::ask::Tool;
use crate::limits;

/// Whether both APIs take this as the name of a tool.
pub(crate) fn is_tool_name(name: &str, chars_max: usize) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=chars_max).contains(&name.len()) && name.bytes().all(fits)
}

/// A name that two tools have.
pub(crate) fn repeated(tools: &[Tool]) -> Option<&str> {
    let mut names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}

/// What a strict schema lacks, and where: every object says that it has no other properties, and requires those that it has.
pub(crate) fn lack(schema: &Value) -> Option<String> {
    lack_at(schema, &mut Vec::new())
}

fn lack_at<'s>(schema: &'s Value, place: &mut Vec<&'s str>) -> Option<String> {
    if place.len() > limits::SCHEMA_DEPTH_MAX {
        return Some(format!("In context=({}), too deep.", place.join(", ")));
    }
    let members = schema.as_object()?;
    let properties = members.get("properties").and_then(Value::as_object);
    let is_object = properties.is_some() || members.get("type").is_some_and(|kind| kind == "object");
    if is_object && members.get("additionalProperties") != Some(&Value::Bool(false)) {
        let place = place.join(", ");
        return Some(format!(
            "In context=({place}), 'additionalProperties' is required to be supplied and to be false."
        ));
    }
    let required = members.get("required").and_then(Value::as_array);
    for (name, property) in properties.into_iter().flatten() {
        if !required.is_some_and(|required| required.iter().any(|one| one == name)) {
            let place = place.join(", ");
            return Some(format!(
                "In context=({place}), 'required' is required to be supplied and to be an array including every key in \
                 properties. Missing '{name}'."
            ));
        }
        place.extend(["properties", name]);
        let lacking = lack_at(property, place);
        if lacking.is_some() {
            return lacking;
        }
        place.truncate(place.len() - 2);
    }
    for name in ["items", "anyOf", "$defs"] {
        let inner: Vec<&Value> = match members.get(name) {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(Value::Object(defined)) if name == "$defs" => defined.values().collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        };
        place.push(name);
        if let Some(lacking) = inner.into_iter().find_map(|inner| lack_at(inner, place)) {
            return Some(lacking);
        }
        place.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_tools_are_plain() {
        assert!(is_tool_name("read_file-2", 64));
        for name in ["", "mcp:search", "a.b", "a b", "ä", &"a".repeat(65)] {
            assert!(!is_tool_name(name, 64), "{name}");
        }
    }

    #[test]
    fn what_a_strict_schema_lacks_is_found_where_it_is() {
        let strict = |inner: Value| json!({"type": "object", "properties": {"a": inner}, "required": ["a"], "additionalProperties": false});
        assert_eq!(lack(&strict(json!({"type": "array", "items": strict(json!({"type": "string"}))}))), None);
        let open = lack(&strict(json!({"type": "array", "items": {"type": "object"}}))).unwrap();
        assert!(open.starts_with("In context=(properties, a, items), 'additionalProperties'"), "{open}");
        let optional = json!({"properties": {"a": {}}, "additionalProperties": false});
        assert!(lack(&strict(json!({"anyOf": [optional]}))).unwrap().contains("Missing 'a'"));
    }
}
