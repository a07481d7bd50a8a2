//! Checks a run's inputs against the document's JSON Schema (2020-12). Compiled once, shared by all starts; without a
//! schema a check costs nothing. Regular expressions run in linear time, and nothing is fetched: a `$ref` stays inside
//! the document.

use std::fmt;

use super::finding::{Diagnostic, error};
use crate::limits;
use crate::model::Value;

/// Knows what the inputs of a workflow must look like.
#[derive(Default)]
pub struct InputsValidator {
    schema: Option<Box<jsonschema::Validator>>,
}

impl fmt::Debug for InputsValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputsValidator").field("schema", &self.schema.is_some()).finish()
    }
}

impl InputsValidator {
    /// `Err` is one sentence: why this is no schema.
    pub(super) fn new(schema: &Value) -> Result<Self, String> {
        let schema = serde_json::to_value(schema).map_err(|failure| failure.to_string())?;
        let validator = jsonschema::draft202012::options()
            .with_pattern_options(jsonschema::PatternOptions::regex())
            .build(&schema)
            .map_err(|failure| failure.to_string())?;
        Ok(Self { schema: Some(Box::new(validator)) })
    }

    /// Checks the inputs of one run.
    ///
    /// # Errors
    /// Every violation, at most [`limits::DIAGNOSTICS_MAX`], with a pointer into the inputs.
    pub fn check(&self, inputs: &Value) -> Result<(), Vec<Diagnostic>> {
        let Some(schema) = &self.schema else { return Ok(()) };
        let inputs = serde_json::to_value(inputs)
            .map_err(|failure| vec![error("inputs_invalid", "", failure.to_string())])?;
        let found: Vec<Diagnostic> = schema
            .iter_errors(&inputs)
            .take(limits::DIAGNOSTICS_MAX)
            .map(|failure| {
                let message = failure.masked_with("the value").to_string();
                error("inputs_invalid", failure.instance_path().to_string(), message)
            })
            .collect();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }
}
