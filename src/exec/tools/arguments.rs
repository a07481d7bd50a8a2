//! What a model gives a tool, before anything is done with it: bounded, a map, and as the tool's schema has it.
//!
//! Schemas come from documents and from servers; both are compiled under the bounds of `compile`, and nothing is fetched.

use crate::compile::bounded_schema;
use crate::limits;
use crate::model::{Failure, Map, Value};

fn invalid(message: String) -> Failure {
    Failure::fatal("tool_arguments_invalid", message)
}

/// The arguments as a map.
///
/// # Errors
/// `tool_arguments_invalid`: they are none, too large, or do not fit; `details.places` says where.
pub(super) fn check(arguments: &Value, parameters: &Value) -> Result<Map, Failure> {
    let map = match arguments {
        Value::Null => Map::default(),
        Value::Map(map) => (**map).clone(),
        Value::String(_) => return Err(invalid("the arguments are no JSON; give an object".into())),
        other => {
            return Err(invalid(format!("the arguments must be an object, not {}", other.type_name())));
        }
    };
    let bytes = arguments.to_json().len();
    if bytes > limits::TOOL_ARGUMENTS_BYTES_MAX {
        let most = limits::TOOL_ARGUMENTS_BYTES_MAX;
        let message = format!(
            "the arguments have {bytes} bytes; at most {most} are allowed (limit tool_arguments_bytes_max)"
        );
        return Err(invalid(message));
    }
    let schema = bounded_schema(parameters)
        .map_err(|message| invalid(format!("the tool's schema cannot be used: {message}")))?;
    let found = schema.check(&Value::Map(map.clone().into()), limits::TOOL_ARGUMENTS_PLACES_MAX);
    found.map_err(|places| {
        let told: Vec<String> = places
            .iter()
            .map(|place| {
                format!("{}: {}", if place.pointer.is_empty() { "/" } else { &place.pointer }, place.message)
            })
            .collect();
        let shown = places.iter().map(|place| {
            Value::map([
                ("pointer", Value::string(place.pointer.as_str())),
                ("message", Value::string(place.message.as_str())),
            ])
        });
        let details = Value::map([("places", Value::list(shown.collect()))]);
        Failure {
            details,
            ..invalid(format!("the arguments do not fit the tool's schema: {}", told.join("; ")))
        }
    })?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn arguments_fit_the_schema_or_say_where_not() {
        let schema = json(
            r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}"#,
        );
        assert_eq!(check(&json(r#"{"n": 1}"#), &schema).unwrap().len(), 1);
        for (arguments, says) in [
            ("\"{broken\"", "no JSON"),
            ("[1]", "must be an object"),
            ("{}", "required"),
            (r#"{"n": "1"}"#, "/n"),
            (r#"{"n": 1, "x": 2}"#, "x"),
        ] {
            let failure = check(&json(arguments), &schema).unwrap_err();
            assert_eq!((&*failure.code, failure.retryable()), ("tool_arguments_invalid", false));
            assert!(failure.message.contains(says), "{arguments}: {failure}");
        }
        let large = Value::map([("n", Value::string("x".repeat(limits::TOOL_ARGUMENTS_BYTES_MAX)))]);
        assert!(check(&large, &schema).unwrap_err().message.contains("tool_arguments_bytes_max"));
    }

    #[test]
    fn a_schema_that_would_fetch_or_explode_is_not_used() {
        let mut doubling = String::from(r##"{"type": "object", "$ref": "#/$defs/d0", "$defs": {"d30": {}"##);
        for n in 0..30 {
            let next = n + 1;
            doubling += &format!(
                r##", "d{n}": {{"allOf": [{{"$ref": "#/$defs/d{next}"}}, {{"$ref": "#/$defs/d{next}"}}]}}"##
            );
        }
        doubling += "}}";
        for schema in [
            r#"{"type": "object", "$ref": "http://169.254.169.254/schema"}"#,
            r#"{"type": "object", "$ref": "file:///etc/passwd"}"#,
            &doubling,
        ] {
            let failure = check(&json("{}"), &json(schema)).unwrap_err();
            assert!(failure.message.contains("cannot be used"), "{failure}");
        }
    }
}
