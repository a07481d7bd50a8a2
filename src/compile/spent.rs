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
        if self.programs.len() >= limits::EXPRESSIONS_MAX {
            let most = limits::EXPRESSIONS_MAX;
            let message = format!("more than {most} different expressions (limit expressions_max)");
            findings.error("expressions_max", at, message);
            self.over = true;
            return None;
        }
        if self.bytes > limits::EXPRESSIONS_BYTES_MAX {
            let most = limits::EXPRESSIONS_BYTES_MAX;
            let message =
                format!("the expressions have more than {most} bytes together (limit expressions_bytes_max)");
            findings.error("expressions_bytes_max", at, message);
            self.over = true;
            return None;
        }
        let compiled = Program::compile(source).map(Arc::new);
        self.programs.insert(source.into(), compiled.clone());
        Some(compiled)
    }
}
