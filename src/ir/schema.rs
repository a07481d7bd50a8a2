//! A JSON Schema (2020-12), compiled once: what a node's output or a run's inputs must look like. Regular expressions run
//! in linear time, and nothing is fetched: a `$ref` stays inside the document.

use std::fmt;
use std::sync::Arc;

use crate::limits;
use crate::model::Value;

/// One schema; copies share it.
#[derive(Clone)]
pub struct Schema(Arc<jsonschema::Validator>);

/// Where a value does not fit, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer into the value.
    pub pointer: String,
    /// One sentence; the value itself is not quoted.
    pub message: String,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// One sentence: why this is none.
    pub fn new(schema: &Value) -> Result<Self, String> {
        let schema = serde_json::to_value(schema).map_err(|failure| failure.to_string())?;
        let validator = jsonschema::draft202012::options()
            .with_pattern_options(
                jsonschema::PatternOptions::regex().size_limit(limits::EXPRESSION_PATTERN_PROGRAM_BYTES_MAX),
            )
            .build(&schema)
            .map_err(|failure| failure.to_string())?;
        Ok(Self(Arc::new(validator)))
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Where it does not fit: at least one place and at most `count_max`.
    pub fn check(&self, value: &Value, count_max: usize) -> Result<(), Vec<Violation>> {
        let value = serde_json::to_value(value)
            .map_err(|failure| vec![Violation { pointer: String::new(), message: failure.to_string() }])?;
        let found: Vec<Violation> = self
            .0
            .iter_errors(&value)
            .take(count_max)
            .map(|failure| Violation {
                pointer: failure.instance_path().to_string(),
                message: failure.masked_with("the value").to_string(),
            })
            .collect();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}
