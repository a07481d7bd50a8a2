//! What can be wrong with an expression. One type for compiling and evaluating; the code tells them apart.
//!
//! A code is stable and documented in docs/expressions.md. A message is one sentence that names the value or the limit.

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

pub(super) const SYNTAX: &str = "expression_syntax";
pub(super) const BYTES_MAX: &str = "expression_bytes_max";
pub(super) const DEPTH_MAX: &str = "expression_depth_max";
pub(super) const UNKNOWN_NAME: &str = "expression_unknown_name";
pub(super) const UNKNOWN_FUNCTION: &str = "expression_unknown_function";
pub(super) const REFERENCE: &str = "expression_reference";
pub(super) const ARGUMENTS: &str = "expression_arguments";
pub(super) const TEMPLATE: &str = "expression_template";
pub(super) const TYPE: &str = "expression_type";
pub(super) const NO_KEY: &str = "expression_no_key";
pub(super) const INDEX: &str = "expression_index";
pub(super) const OVERFLOW: &str = "expression_overflow";
pub(super) const DIVISION_BY_ZERO: &str = "expression_division_by_zero";
pub(super) const INVALID: &str = "expression_invalid_value";
pub(super) const DUPLICATE_KEY: &str = "expression_duplicate_key";
pub(super) const PATTERN: &str = "expression_pattern";
pub(super) const STEPS_MAX: &str = "expression_steps_max";
pub(super) const SIZE_MAX: &str = "expression_size_max";

impl Error {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), offset: None }
    }

    /// Says where, unless an inner part has said so already.
    #[cold]
    pub(super) fn at(mut self, offset: u32) -> Self {
        self.offset.get_or_insert(offset as usize);
        self
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Must this end the evaluation, even where CEL lets an error be absorbed (`false && error`)?
    pub(super) fn is_final(&self) -> bool {
        self.code == STEPS_MAX || self.code == SIZE_MAX
    }
}

/// `text`, shortened for a message.
pub(super) fn excerpt(text: &str) -> String {
    const CHARS: usize = 60;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
