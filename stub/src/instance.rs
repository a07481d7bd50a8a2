//! A minimal instance of a JSON Schema: `const`, `enum`, `default` and `examples` first, then the least that the type allows; only
//! what is required is there. `pattern`, `not`, `if` and `dependentRequired` are not looked at: a schema with these should have an
//! example. A schema that goes too deep, refers to what is not there, or asks for too much is refused.

use serde_json::{Map, Value, json};

use crate::limits;

/// What a string says that may say anything.
const WORD: &str = "stub";

static ANYTHING: Value = Value::Bool(true);

/// The least value that fits.
pub(crate) fn instance(schema: &Value) -> Result<Value, String> {
    let mut maker = Maker { root: schema, left: limits::INSTANCE_STEPS_MAX };
    maker.value(schema, 0, 0)
}

struct Maker<'s> {
    root: &'s Value,
    left: usize,
}

impl Maker<'_> {
    fn charge(&mut self, steps: usize) -> Result<(), String> {
        let left = self.left.checked_sub(steps);
        self.left = left
            .ok_or_else(|| format!("the schema asks for more than {} values", limits::INSTANCE_STEPS_MAX))?;
        Ok(())
    }

    /// `variant` makes items of a set differ.
    fn value(&mut self, schema: &Value, depth: usize, variant: u64) -> Result<Value, String> {
        if depth > limits::SCHEMA_DEPTH_MAX {
            return Err(format!("the schema goes deeper than {}", limits::SCHEMA_DEPTH_MAX));
        }
        self.charge(1)?;
        let Some(keys) = schema.as_object() else { return Ok(json!(WORD)) };
        if let Some(reference) = keys.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap_or("/");
            let root = self.root;
            let target = root.pointer(pointer).ok_or_else(|| format!("the schema has no {reference}"))?;
            return self.value(target, depth + 1, variant);
        }
        if let Some(given) = given(keys, variant) {
            return Ok(given);
        }
        if let Some(all) = keys.get("allOf").and_then(Value::as_array) {
            let merged = self.merged(keys, all)?;
            return self.value(&merged, depth + 1, variant);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(first) = keys.get(choice).and_then(|list| list.get(0)) {
                let merged = self.merged(&without(keys, choice), std::slice::from_ref(first))?;
                return self.value(&merged, depth + 1, variant);
            }
        }
        match kind(keys) {
            "object" => self.object(keys, depth, variant),
            "array" => self.array(keys, depth, variant),
            "string" => string(keys, variant),
            "integer" => Ok(whole(keys, variant)),
            "number" => Ok(number(keys, variant)),
            "boolean" => Ok(json!(variant % 2 == 1)),
            _ => Ok(Value::Null),
        }
    }

    fn object(&mut self, keys: &Map<String, Value>, depth: usize, variant: u64) -> Result<Value, String> {
        let mut made = Map::new();
        let required = keys.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            let property = keys.get("properties").and_then(|properties| properties.get(name));
            let property = property.or_else(|| keys.get("additionalProperties"));
            let value = self.value(property.unwrap_or(&ANYTHING), depth + 1, variant)?;
            made.insert(name.to_owned(), value);
        }
        Ok(Value::Object(made))
    }

    fn array(&mut self, keys: &Map<String, Value>, depth: usize, variant: u64) -> Result<Value, String> {
        let wanted = keys.get("minItems").and_then(Value::as_u64).unwrap_or(0);
        let mut made = Vec::new();
        for at in 0..wanted {
            let index = usize::try_from(at).unwrap_or(usize::MAX);
            let item = keys.get("prefixItems").and_then(|items| items.get(index));
            let item = item.or_else(|| keys.get("items")).unwrap_or(&ANYTHING);
            let differ = keys.get("uniqueItems") == Some(&Value::Bool(true));
            made.push(self.value(item, depth + 1, if differ { at } else { variant })?);
        }
        Ok(Value::Array(made))
    }

    /// One schema that asks for all of these.
    fn merged(&mut self, keys: &Map<String, Value>, all: &[Value]) -> Result<Value, String> {
        let mut weight = 0;
        keys.values().for_each(|value| weigh(value, &mut weight));
        self.charge(weight)?;
        let mut merged = without(keys, "allOf");
        for part in all {
            let mut part = part;
            for _ in 0..limits::SCHEMA_DEPTH_MAX {
                let Some(reference) = part.get("$ref").and_then(Value::as_str) else { break };
                let (root, pointer) = (self.root, reference.strip_prefix('#').unwrap_or("/"));
                part = root.pointer(pointer).ok_or_else(|| format!("the schema has no {reference}"))?;
            }
            let mut weight = 0;
            weigh(part, &mut weight);
            self.charge(weight)?;
            for (name, value) in part.as_object().into_iter().flatten() {
                match (merged.get_mut(name), value) {
                    (Some(Value::Object(into)), Value::Object(from)) => into.extend(from.clone()),
                    (Some(Value::Array(into)), Value::Array(from)) if name == "required" => {
                        into.extend(from.iter().cloned());
                    }
                    _ => drop(merged.insert(name.clone(), value.clone())),
                }
            }
        }
        Ok(Value::Object(merged))
    }
}

/// Adds up the values in a value, as far as anybody wants to know: it is about to be copied.
fn weigh(value: &Value, weight: &mut usize) {
    *weight += 1;
    if *weight <= limits::INSTANCE_STEPS_MAX {
        match value {
            Value::Array(list) => list.iter().for_each(|value| weigh(value, weight)),
            Value::Object(members) => members.values().for_each(|value| weigh(value, weight)),
            _ => {}
        }
    }
}

fn without(keys: &Map<String, Value>, name: &str) -> Map<String, Value> {
    let mut rest = keys.clone();
    rest.remove(name);
    rest
}

/// A value that the schema itself names.
fn given(keys: &Map<String, Value>, variant: u64) -> Option<Value> {
    if let Some(value) = keys.get("const") {
        return Some(value.clone());
    }
    if let Some(choices) = keys.get("enum").and_then(Value::as_array).filter(|choices| !choices.is_empty()) {
        return choices.get(usize::try_from(variant).unwrap_or(0) % choices.len()).cloned();
    }
    let examples = keys.get("examples").and_then(Value::as_array);
    let example = examples.and_then(|list| list.get(usize::try_from(variant).unwrap_or(0)));
    example.or_else(|| keys.get("default").filter(|_| variant == 0)).cloned()
}

/// The type, as it is named or as the other keywords suggest. Of several the first.
fn kind(keys: &Map<String, Value>) -> &str {
    let named = match keys.get("type") {
        Some(Value::Array(several)) => several.first().and_then(Value::as_str),
        Some(one) => one.as_str(),
        None => None,
    };
    let has = |name: &str| keys.contains_key(name);
    match named {
        Some(named) => named,
        None if has("properties") || has("required") => "object",
        None if has("items") || has("prefixItems") || has("minItems") => "array",
        None if has("minimum") || has("maximum") || has("exclusiveMinimum") || has("multipleOf") => "number",
        None => "string",
    }
}

fn string(keys: &Map<String, Value>, variant: u64) -> Result<Value, String> {
    let n = variant + 1;
    let mut text = match keys.get("format").and_then(Value::as_str) {
        Some("date-time") => format!("2026-01-01T00:00:{:02}Z", variant % 60),
        Some("date") => format!("2026-01-{:02}", 1 + variant % 28),
        Some("time") => format!("00:00:{:02}Z", variant % 60),
        Some("duration") => format!("PT{n}S"),
        Some("uuid") => format!("00000000-0000-4000-8000-{n:012x}"),
        Some("email" | "idn-email") => format!("stub{n}@example.com"),
        Some("uri" | "url" | "iri" | "uri-reference") => format!("https://example.com/{n}"),
        Some("hostname") => format!("stub{n}.example.com"),
        Some("ipv4") => format!("192.0.2.{}", n % 255),
        Some("ipv6") => format!("2001:db8::{:x}", n % 0xffff),
        _ if variant == 0 => WORD.to_owned(),
        _ => format!("{WORD}-{n}"),
    };
    let least = keys.get("minLength").and_then(Value::as_u64).unwrap_or(0);
    let most = keys.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX);
    if least > limits::STRING_CHARS_MAX {
        return Err(format!("the schema asks for more than {} characters", limits::STRING_CHARS_MAX));
    }
    while (text.chars().count() as u64) < least {
        text.push('.');
    }
    // The end differs from item to item.
    let over = (text.chars().count() as u64).saturating_sub(most);
    Ok(json!(text.chars().skip(usize::try_from(over).unwrap_or(0)).collect::<String>()))
}

fn whole(keys: &Map<String, Value>, variant: u64) -> Value {
    let Some(least) = number(keys, variant).as_f64() else { return json!(0) };
    let step = keys.get("multipleOf").and_then(Value::as_f64).filter(|step| *step > 0.0).unwrap_or(1.0);
    let value = if least.fract() == 0.0 { least } else { (least / step).ceil() * step };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and a schema with such bounds has no small instance"
    )]
    let value = value as i64;
    json!(value)
}

fn number(keys: &Map<String, Value>, variant: u64) -> Value {
    let read = |name: &str| keys.get(name).and_then(Value::as_f64);
    let step = read("multipleOf").filter(|step| *step > 0.0);
    let unit = step.unwrap_or(1.0);
    let least = match (read("minimum"), read("exclusiveMinimum")) {
        (Some(minimum), None) => minimum,
        (_, Some(above)) => match read("maximum").or_else(|| read("exclusiveMaximum")) {
            Some(most) if above + unit >= most && kind(keys) == "number" && step.is_none() => {
                (above + most) / 2.0
            }
            _ => above + unit,
        },
        // Nothing from below: 0 unless it is too much.
        (None, None) => match (read("maximum"), read("exclusiveMaximum")) {
            (Some(most), _) if most < 0.0 => most,
            (_, Some(below)) if below <= 0.0 => below - unit,
            _ => 0.0,
        },
    };
    let least = step.map_or(least, |step| (least / step).ceil() * step);
    #[expect(clippy::cast_precision_loss, reason = "a variant is the place in a list")]
    let value = least + variant as f64 * unit;
    // `1` rather than `1.0`, as people and models write it.
    #[expect(clippy::cast_possible_truncation, reason = "looked at: it is whole and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(schema: &Value) -> Value {
        instance(schema).unwrap()
    }

    #[test]
    fn the_least_that_fits_is_made() {
        for (schema, least) in [
            (json!({"type": "object", "properties": {"a": {"type": "string"}}}), json!({})),
            (
                json!({"type": "object", "required": ["a", "n"], "properties": {"a": {"type": "array", "items": {}}, "n": {"type": ["null", "string"]}}}),
                json!({"a": [], "n": null}),
            ),
            (json!({"type": "array", "minItems": 2, "items": {"type": "integer"}}), json!([0, 0])),
            (
                json!({"minItems": 2, "uniqueItems": true, "items": {"properties": {"id": {"type": "string"}}, "required": ["id"]}}),
                json!([{"id": "stub"}, {"id": "stub-2"}]),
            ),
            (
                json!({"minItems": 2, "prefixItems": [{"const": 1}], "items": {"type": "boolean"}}),
                json!([1, false]),
            ),
            (json!({"type": "integer", "exclusiveMinimum": 3}), json!(4)),
            (json!({"type": "integer", "minimum": 3, "multipleOf": 5}), json!(5)),
            (json!({"type": "integer", "minimum": 0.5}), json!(1)),
            (json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1}), json!(0.5)),
            (json!({"type": "number", "maximum": -2.5}), json!(-2.5)),
            (json!({"type": "string", "minLength": 6}), json!("stub..")),
            (json!({"type": "string", "maxLength": 2}), json!("ub")),
            (json!({"type": "string", "format": "date"}), json!("2026-01-01")),
            (json!({"enum": ["low", "high"]}), json!("low")),
            (json!({"type": "string", "pattern": "^[a-z]+$", "examples": ["fits"]}), json!("fits")),
            (json!({"anyOf": [{"type": "null"}, {"type": "string"}]}), json!(null)),
            (
                json!({"allOf": [{"$ref": "#/$defs/a"}, {"required": ["b"]}], "$defs": {"a": {"properties": {"a": {"const": 1}}, "required": ["a"]}}}),
                json!({"a": 1, "b": "stub"}),
            ),
            (json!({"type": "boolean"}), json!(false)),
            (json!(true), json!("stub")),
        ] {
            assert_eq!(of(&schema), least, "{schema}");
        }
    }

    #[test]
    fn what_asks_for_too_much_is_refused() {
        let endless = json!({"$ref": "#/$defs/a", "$defs": {"a": {"required": ["a"], "properties": {"a": {"$ref": "#/$defs/a"}}}}});
        assert!(instance(&endless).unwrap_err().contains("deeper"));
        let many = json!({"minItems": 1_000_000});
        assert!(instance(&many).unwrap_err().contains("more than 100000 values"));
        let copied = json!({"minItems": 1_000, "items": {"anyOf": [{"const": 1}], "junk": vec![0; 1_000]}});
        assert!(instance(&copied).unwrap_err().contains("more than 100000 values"));
        assert!(instance(&json!({"minLength": u64::MAX})).unwrap_err().contains("characters"));
        assert!(instance(&json!({"$ref": "#/nowhere"})).unwrap_err().contains("#/nowhere"));
    }
}
