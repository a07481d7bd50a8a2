//! JSON Schemas in a document: bounded before they are compiled, because references that double at each step make 2^n
//! visits of n lines, and because a schema is looked through for every value it checks.
//!
//! [`Parts`] is the schema as a graph of subschemas; [`Parts::visits`] counts how many of them may look at one and the same
//! value, at most, on the costliest way down to the deepest value there can be. Above [`limits::SCHEMA_VISITS_MAX`] the schema
//! is refused; so is one that applies itself to the value it is looking at. Only references inside the schema are read
//! (`#`, `#/...`), so that every reference can be counted.

mod parts;

use super::document::Reading;
use crate::ir::Schema;
use crate::limits;
use crate::model::Value;
use crate::model::workflow::Written;
use parts::Parts;

/// Code and message.
type Refused = (&'static str, String);

/// Checks a schema and compiles it. Findings otherwise.
pub(super) fn check(written: &Written, what: &str, reading: &mut Reading<'_>) -> Option<Schema> {
    let text = written.value.to_json();
    reading.schema_bytes = reading.schema_bytes.saturating_add(text.len());
    reading.schema_patterns = reading.schema_patterns.saturating_add(patterns(&written.value));
    compiled(&written.value, text, reading)
        .map_err(|(code, message)| {
            let code = match (code, what) {
                (NO_SCHEMA, "inputs") => "inputs_schema",
                (NO_SCHEMA, "form") => "form_schema",
                (NO_SCHEMA, "accepts") => "accepts_schema",
                (NO_SCHEMA, _) => "output_schema",
                (other, _) => other,
            };
            reading.findings.error(code, written.at.clone(), format!("{what}: {message}"))
        })
        .ok()
}

/// Stands for the code of a text that is no schema, which follows from where it stands.
const NO_SCHEMA: &str = "";

fn compiled(schema: &Value, text: String, reading: &mut Reading<'_>) -> Result<Schema, Refused> {
    within(reading.schema_bytes, reading.schema_patterns)?;
    if let Some(schema) = reading.spent.schema(&text) {
        return Ok(schema);
    }
    visits(schema)?;
    let made =
        Schema::new(schema).map_err(|message| (NO_SCHEMA, format!("it is no JSON Schema: {message}")))?;
    reading.spent.add_schema(text, &made);
    Ok(made)
}

/// Compiles a schema that stands in no document, under the same bounds: that of a tool's arguments.
///
/// # Errors
/// One sentence: which bound it is over, or why it is no schema.
pub fn bounded_schema(schema: &Value) -> Result<Schema, String> {
    let bounded = within(schema.to_json().len(), patterns(schema)).and_then(|()| visits(schema));
    bounded.map_err(|(_, message)| message)?;
    Schema::new(schema)
}

/// Regular expressions in it, or what may be some.
fn patterns(schema: &Value) -> usize {
    match schema {
        Value::List(items) => items.iter().map(patterns).sum(),
        Value::Map(map) => {
            let own = |key: &str, value: &Value| match (key, value) {
                ("pattern", Value::String(_)) => 1,
                ("patternProperties", Value::Map(map)) => map.len(),
                _ => 0,
            };
            map.iter().map(|(key, value)| own(key, value) + patterns(value)).sum()
        }
        _ => 0,
    }
}

/// Have the schemas so far no more bytes and regular expressions than there may be?
fn within(bytes: usize, patterns: usize) -> Result<(), Refused> {
    if bytes > limits::SCHEMA_BYTES_MAX {
        let most = limits::SCHEMA_BYTES_MAX;
        let message = format!(
            "the schemas so far have {bytes} bytes; at most {most} are allowed (limit schema_bytes_max)"
        );
        return Err(("schema_bytes_max", message));
    }
    if patterns > limits::SCHEMA_PATTERNS_MAX {
        let most = limits::SCHEMA_PATTERNS_MAX;
        let message = format!(
            "the schemas so far have {patterns} regular expressions; at most {most} are allowed (limit \
             schema_patterns_max)"
        );
        return Err(("schema_patterns_max", message));
    }
    Ok(())
}

fn visits(schema: &Value) -> Result<(), Refused> {
    if Parts::new(schema)?.visits()? > limits::SCHEMA_VISITS_MAX {
        let most = limits::SCHEMA_VISITS_MAX;
        let message = format!(
            "more than {most} subschemas may look at one value, all references followed (limit schema_visits_max)"
        );
        return Err(("schema_visits_max", message));
    }
    Ok(())
}
