//! Expressions: CEL, bounded and deterministic, and templates around them.
//!
//! `cel` parses; the evaluator is ours, because the crate has no cost bound and converts every value on the way in
//! (docs/adr/0001-own-cel-evaluator.md). A [`Program`] lists the names it refers to ([`Program::references`]);
//! whoever evaluates hands their values in by that list's index through [`Env`]. Evaluation is pure: no clock, no
//! randomness. The user's reference is docs/expressions.md.
//!
//! What must hold: no text and no value panics, overflows the stack or runs past its [`Budget`]; every value that
//! leaves an evaluation fits the limits under which it is read back from the log. Over a limit there is an error that
//! names it, and nothing is kept.

mod arithmetic;
mod budget;
mod compare;
mod datum;
mod error;
mod eval;
mod function;
mod lower;
mod moment;
mod scan;
pub mod template;
mod tree;

use std::sync::Arc;

use crate::model::Value;

pub use error::Error;

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
    /// The value of `program.references()[index]`. Asked at most once per evaluation, and only when it is needed.
    fn value(&self, index: usize) -> Value;
}

/// A compiled expression: immutable, cheap to evaluate, to be shared between threads.
#[derive(Debug)]
pub struct Program {
    source: Arc<str>,
    references: Vec<Reference>,
    /// Local variables that are alive at the same time, at most.
    slots: usize,
    root: tree::Node,
}

/// What one evaluation may still spend.
#[derive(Debug)]
pub struct Budget {
    /// Steps left. [`crate::limits::EXPRESSION_STEPS_MAX`] is the usual start.
    pub steps: u64,
}

impl Program {
    /// Parses and checks one CEL expression.
    ///
    /// # Errors
    /// Syntax, unknown names or functions, over a limit.
    pub fn compile(source: &str) -> Result<Self, Error> {
        let lowered = lower::lower(source)?;
        Ok(Self {
            source: source.into(),
            references: lowered.references,
            slots: lowered.slots,
            root: lowered.root,
        })
    }

    /// The text this program was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names this program needs, each once.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Evaluates.
    ///
    /// # Errors
    /// A type that does not fit, a missing key, division by zero, overflow, the budget spent.
    pub fn evaluate(&self, env: &dyn Env, budget: &mut Budget) -> Result<Value, Error> {
        eval::evaluate(self, env, budget)
    }
}

#[cfg(test)]
mod tests;
