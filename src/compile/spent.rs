//! What a document's expressions cost to parse, bounded for all of them together. An expression that stands in several
//! places is parsed once, and one that is known not at all; it counts as if it were. Over a limit nothing more is parsed, and
//! that is reported once.

use std::sync::Arc;

use ahash::AHashMap;

use super::finding::Findings;
use super::known::Known;
use crate::expr::{Error, Program};
use crate::ir::Schema;
use crate::limits;

/// The expressions of a document that have been parsed, and its schemas.
#[derive(Default)]
pub(super) struct Spent<'k> {
    /// Of the document that this one was made of.
    known: Option<&'k Known>,
    /// Of this one.
    made: Known,
    wrong: AHashMap<Box<str>, Error>,
    count: usize,
    bytes: usize,
    over: bool,
}

impl<'k> Spent<'k> {
    pub(super) fn new(known: Option<&'k Known>) -> Self {
        Self { known, ..Self::default() }
    }

    /// What there is to know about this document.
    pub(super) fn into_known(self) -> Known {
        self.made
    }

    /// Compiles an expression. `None` over a limit, which is reported at `at` the first time.
    pub(super) fn compile(
        &mut self,
        source: &str,
        at: &str,
        findings: &mut Findings,
    ) -> Option<Result<Arc<Program>, Error>> {
        if let Some(program) = self.made.program(source) {
            return Some(Ok(program.clone()));
        }
        if let Some(error) = self.wrong.get(source) {
            return Some(Err(error.clone()));
        }
        if self.over {
            return None;
        }
        self.bytes += source.len();
        if self.count >= limits::EXPRESSIONS_MAX {
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
        self.count += 1;
        let known = self.known.and_then(|known| known.program(source));
        match known.cloned().map_or_else(|| Program::compile(source).map(Arc::new), Ok) {
            Ok(program) => {
                self.made.add_program(program.clone());
                Some(Ok(program))
            }
            Err(error) => {
                self.wrong.insert(source.into(), error.clone());
                Some(Err(error))
            }
        }
    }

    /// The schema of this text, when it was compiled before.
    pub(super) fn schema(&mut self, text: &str) -> Option<Schema> {
        if let Some((_, schema)) = self.made.schema(text) {
            return Some(schema.clone());
        }
        let (text, schema) = self.known?.schema(text)?;
        self.made.add_schema(text.clone(), schema.clone());
        Some(schema.clone())
    }

    /// One that has been compiled.
    pub(super) fn add_schema(&mut self, text: String, schema: &Schema) {
        self.made.add_schema(text.into(), schema.clone());
    }
}
