//! `--policy FILE`: where the rules of a node's configuration put gates, without a node.

use std::path::PathBuf;
use std::sync::Arc;

use super::Error;
use crate::compile::Compiled;
use crate::compile::policy::{self, Rules};
use crate::config::{self, Sources};
use crate::model::Value;

/// The rules of a configuration file (`policy.gates`).
pub(super) fn rules(file: &str) -> Result<Arc<Rules>, Error> {
    let sources = Sources { file: Some(PathBuf::from(file)), ..Sources::default() };
    let (config, _) = config::load(&sources).map_err(|error| Error::Usage(error.to_string()))?;
    Ok(config.policy)
}

/// What a run of a document would run under these rules.
pub(super) fn effective(compiled: &Compiled, rules: &Rules) -> Result<Value, Error> {
    let made = policy::materialise(compiled, &compiled.ir.name, rules);
    let made = made.map_err(|refused| Error::Invalid(format!("with its gates: {refused}")))?;
    Ok(made.map_or_else(|| compiled.document.clone(), |made| made.document))
}

/// Where its gates stand, and why.
pub(super) fn gates(compiled: &Compiled, rules: &Rules) -> Result<Vec<(String, String)>, Error> {
    Ok(policy::gates(&effective(compiled, rules)?))
}
