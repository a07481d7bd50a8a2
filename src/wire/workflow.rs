//! Bodies about registered workflows.

use serde::Serialize;

use super::Shown;

/// Answer to a registration.
#[derive(Debug, Serialize)]
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
    pub warnings: &'a [W],
}

/// Answer to `validate`.
#[derive(Debug, Serialize)]
pub struct Verdict<'a, E: Serialize> {
    /// May it be registered, once what the warnings say is at hand?
    pub valid: bool,
    /// Empty when valid.
    pub errors: &'a [E],
    /// What is odd but allowed.
    pub warnings: Vec<&'a E>,
}
