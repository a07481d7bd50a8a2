//! Checks a run's inputs against the document's JSON Schema (2020-12). Compiled once, shared by all starts; without a
//! schema a check costs nothing.

use super::finding::{Diagnostic, error};
use crate::ir::Schema;
use crate::limits;
use crate::model::Value;

/// Knows what the inputs of a workflow must look like.
#[derive(Debug, Default)]
pub struct InputsValidator {
    schema: Option<Schema>,
}

impl InputsValidator {
    pub(super) fn new(schema: Schema) -> Self {
        Self { schema: Some(schema) }
    }

    /// Checks the inputs of one run.
    ///
    /// # Errors
    /// Every violation, at most [`limits::DIAGNOSTICS_MAX`], with a pointer into the inputs.
    pub fn check(&self, inputs: &Value) -> Result<(), Vec<Diagnostic>> {
        let Some(schema) = &self.schema else { return Ok(()) };
        schema.check(inputs, limits::DIAGNOSTICS_MAX).map_err(|found| {
            found.into_iter().map(|found| error("inputs_invalid", found.pointer, found.message)).collect()
        })
    }
}
