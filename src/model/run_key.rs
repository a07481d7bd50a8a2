//! Business keys of runs: what the caller calls a run, of which at most one is unfinished at a time.
//!
//! A key belongs to a workflow of a workspace, and the run it names lives on the partition it hashes to (docs/adr/0014).
//! A key of the form `exec_` and 12 hex digits is an execution id: it belongs to the whole workspace, so that it can be
//! looked up without saying of which workflow.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Partition, Workspace};
use crate::limits;

/// What a key is known by inside the node: first 16 bytes of sha-256 over its scope and itself.
pub type Claim = [u8; 16];

/// One key: 1 to [`limits::RUN_KEY_BYTES_MAX`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunKey(Arc<str>);

/// The text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has no bytes.
    #[error("a run_key is not empty")]
    Empty,
    /// It has too many.
    #[error("a run_key of {0} bytes; at most {max}", max = limits::RUN_KEY_BYTES_MAX)]
    TooLong(usize),
    /// It would disturb whoever is shown it.
    #[error("a run_key has no control characters")]
    Control,
}

impl RunKey {
    /// Checks a key.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn new(text: &Arc<str>) -> Result<Self, Invalid> {
        match text.len() {
            0 => Err(Invalid::Empty),
            bytes if bytes > limits::RUN_KEY_BYTES_MAX => Err(Invalid::TooLong(bytes)),
            _ if text.chars().any(char::is_control) => Err(Invalid::Control),
            _ => Ok(Self(text.clone())),
        }
    }

    /// As given.
    pub fn as_str(&self) -> &Arc<str> {
        &self.0
    }

    /// What it is known by for a workflow, named as inside the node.
    pub fn claim(&self, workflow: &str) -> Claim {
        claim(&self.0, workflow)
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key that was checked before is known by.
pub fn claim(key: &str, workflow: &str) -> Claim {
    let workspace = Workspace::of(workflow);
    let workflow = if is_execution_id(key) { "" } else { super::workspace::shown(workflow) };
    hash(&workspace, workflow, key)
}

/// What an execution id is known by in a workspace; `None` when the text is none.
pub fn execution_claim(workspace: &Workspace, text: &str) -> Option<Claim> {
    is_execution_id(text).then(|| hash(workspace, "", text))
}

/// The partition of whatever is started under this claim.
pub fn partition(claim: &Claim) -> Partition {
    Partition::of_key(claim)
}

/// Is this `exec_` and 12 lower-case hexadecimal digits?
pub fn is_execution_id(text: &str) -> bool {
    text.strip_prefix("exec_").is_some_and(|digits| {
        digits.len() == 12 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn hash(workspace: &Workspace, workflow: &str, key: &str) -> Claim {
    let mut hash = Sha256::new_with_prefix(b"run_key\0");
    for part in [workspace.name(), workflow, key] {
        // A zero byte stands in none of them.
        hash.update(part);
        hash.update(b"\0");
    }
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_belongs_to_its_workflow_and_workspace_and_an_execution_id_to_the_workspace() {
        let key = RunKey::new(&"order-1".into()).unwrap();
        let claims = [key.claim("pay"), key.claim("ship"), key.claim("acme/pay"), claim("order-2", "pay")];
        for (at, one) in claims.iter().enumerate() {
            assert!(claims.iter().skip(at + 1).all(|other| other != one));
        }
        let execution = RunKey::new(&"exec_0123456789ab".into()).unwrap();
        assert_eq!(execution.claim("pay"), execution.claim("ship"));
        assert_ne!(execution.claim("pay"), execution.claim("acme/pay"));
        assert_eq!(execution_claim(&Workspace::DEFAULT, execution.as_str()), Some(execution.claim("pay")));
        for none in ["exec_0123456789aB", "exec_0123456789a", "exec_0123456789abc", "run_0123456789ab"] {
            assert_eq!(execution_claim(&Workspace::DEFAULT, none), None, "{none}");
        }
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        assert_eq!(RunKey::new(&"".into()), Err(Invalid::Empty));
        assert_eq!(RunKey::new(&"a\nb".into()), Err(Invalid::Control));
        let long = "x".repeat(limits::RUN_KEY_BYTES_MAX);
        assert!(RunKey::new(&long.as_str().into()).is_ok());
        assert_eq!(RunKey::new(&format!("{long}x").into()), Err(Invalid::TooLong(long.len() + 1)));
    }
}
