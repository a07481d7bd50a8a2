//! Bodies about registered workflows.

use serde::Serialize;

use super::Shown;

/// Answer to a registration.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Registered"))]
pub struct Registered<'a, W: Serialize> {
    /// Name of the workflow.
    pub name: &'a str,
    /// Its version, assigned when the document had none.
    pub version: &'a str,
    /// Hash of the canonical document.
    pub hash: Shown<super::Hash<'a>>,
    /// False when this very document was registered before.
    pub created: bool,
    /// What is odd but allowed.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub warnings: &'a [W],
}

/// Answer to `validate`.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Verdict"))]
pub struct Verdict<'a, E: Serialize> {
    /// May it be registered, once what the warnings say is at hand?
    pub valid: bool,
    /// Empty when valid.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub errors: &'a [E],
    /// What is odd but allowed.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub warnings: Vec<&'a E>,
}
