//! Expressions: CEL, bounded and deterministic, and templates around them.
//!
//! `cel` parses; the evaluator is ours, because the crate has no cost bound and converts every value on the way in
//! (docs/adr). A [`Program`] lists the names it refers to ([`Program::references`]); whoever evaluates hands their
//! values in by that list's index through [`Env`]. Evaluation is pure: no clock, no randomness.

use std::sync::Arc;

use crate::model::Value;

/// A name that an expression refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `inputs`
    Inputs,
    /// `nodes.<id>.output` (also `nodes["<id>"].output`)
    Node(Arc<str>),
    /// `outputs.<name>`
    Output(Arc<str>),
    /// `input`
    Input,
    /// `output`
    EdgeOutput,
    /// `item`
    Item,
    /// `index`
    Index,
    /// `iteration`
    Iteration,
    /// `run`
    Run,
}

/// Where an evaluation finds its values.
pub trait Env {
    /// The value of `program.references()[index]`.
    fn value(&self, index: usize) -> Value;
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    references: Vec<Reference>,
}

/// Why a text is no expression, or an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Stable: `expression_syntax`, `expression_unknown_name`, `expression_type`, `expression_steps_max`, ...
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// Byte offset in the source, when known.
    pub offset: Option<usize>,
}

/// What one evaluation may still spend.
#[derive(Debug)]
pub struct Budget {
    /// Steps left.
    pub steps: u64,
}

impl Program {
    /// Parses and checks one CEL expression.
    ///
    /// # Errors
    /// Syntax, unknown names or functions, over a limit.
    pub fn compile(_source: &str) -> Result<Self, Error> {
        Err(Error { code: "not_yet", message: String::new(), offset: None })
    }

    /// The names this program needs, each once.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Evaluates.
    ///
    /// # Errors
    /// A type that does not fit, a missing key, division by zero, overflow, the budget spent.
    pub fn evaluate(&self, _env: &dyn Env, _budget: &mut Budget) -> Result<Value, Error> {
        Ok(Value::Null)
    }
}
