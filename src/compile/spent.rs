//! What a document's expressions cost to parse, bounded for all of them together. An expression that stands in several
//! places is parsed once. Over a limit nothing more is parsed, and that is reported once.

use std::sync::Arc;

use ahash::AHashMap;

use super::finding::Findings;
use crate::expr::{Error, Program};
use crate::limits;

/// The expressions of a document that have been parsed.
#[derive(Default)]
pub(super) struct Spent {
    programs: AHashMap<Box<str>, Result<Arc<Program>, Error>>,
    bytes: usize,
    over: bool,
}

impl Spent {
    /// Compiles an expression. `None` over a limit, which is reported at `at` the first time.
    pub(super) fn compile(
        &mut self,
        source: &str,
        at: &str,
        findings: &mut Findings,
    ) -> Option<Result<Arc<Program>, Error>> {
        if let Some(known) = self.programs.get(source) {
            return Some(known.clone());
        }
        if self.over {
            return None;
        }
        self.bytes += source.len();
        let over = if self.programs.len() >= limits::EXPRESSIONS_MAX {
            Some((
                "expressions_max",
                format!(
                    "more than {} different expressions (limit expressions_max)",
                    limits::EXPRESSIONS_MAX
                ),
            ))
        } else if self.bytes > limits::EXPRESSIONS_BYTES_MAX {
            Some((
                "expressions_bytes_max",
                format!(
                    "the expressions have more than {} bytes together (limit expressions_bytes_max)",
                    limits::EXPRESSIONS_BYTES_MAX
                ),
            ))
        } else {
            None
        };
        if let Some((code, message)) = over {
            self.over = true;
            findings.error(code, at, message);
            return None;
        }
        let compiled = Program::compile(source).map(Arc::new);
        self.programs.insert(source.into(), compiled.clone());
        Some(compiled)
    }
}
