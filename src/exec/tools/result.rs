//! What a tool brings, made fit for a model: bounded, and without secrets. It is other people's text and never trusted.

use crate::exec::secret::Redactor;
use crate::limits;
use crate::model::{Failure, Value};

/// The most of a tool's words that stand in a failure.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// `text` up to a boundary of characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// What a tool's server says of a failure, short and without secrets.
pub(super) fn words(text: &str, redactor: &Redactor) -> String {
    cut(&redactor.text(text), MESSAGE_BYTES_MAX).to_owned()
}

/// A result as the model is told of it. Secrets go first, so that no cut leaves a part of one.
///
/// # Errors
/// `tool_result_too_large`: it is no text, and cannot be cut.
pub(super) fn fit(value: Value, redactor: &Redactor) -> Result<Value, Failure> {
    let most = limits::TOOL_RESULT_BYTES_MAX;
    let value = redactor.value(value);
    if let Value::String(text) = &value {
        if text.len() <= most {
            return Ok(value);
        }
        let bytes = text.len();
        let shown = cut(text, most);
        return Ok(Value::string(format!(
            "{shown}\n[cut: {bytes} bytes; limit tool_result_bytes_max is {most}]"
        )));
    }
    let bytes = value.to_json().len();
    if bytes <= most {
        return Ok(value);
    }
    let message = format!(
        "the tool's result has {bytes} bytes; at most {most} are taken (limit tool_result_bytes_max)"
    );
    let details =
        Value::map([("bytes", Value::unsigned(bytes as u64)), ("limit", Value::unsigned(most as u64))]);
    Err(Failure { details, ..Failure::fatal("tool_result_too_large", message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_and_says_so_and_anything_else_is_refused() {
        let none = Redactor::default();
        let long = "ä".repeat(limits::TOOL_RESULT_BYTES_MAX);
        let text = fit(Value::string(&*long), &none).unwrap();
        let text = text.as_str().unwrap();
        assert!(
            text.ends_with("bytes; limit tool_result_bytes_max is 262144]"),
            "{}",
            &text[text.len() - 80..]
        );
        assert!(text.len() < limits::TOOL_RESULT_BYTES_MAX + 100);
        let failure = fit(Value::list(vec![Value::string(&*long)]), &none).unwrap_err();
        assert_eq!((&*failure.code, failure.retryable()), ("tool_result_too_large", false));
        assert_eq!(fit(Value::Int(7), &none), Ok(Value::Int(7)));
    }

    // F411
    #[test]
    fn no_cut_leaves_a_part_of_a_secret() {
        let mut redactor = Redactor::default();
        redactor.add("cAnary-0123456789");
        let text = "x".repeat(limits::TOOL_RESULT_BYTES_MAX - 8) + "cAnary-0123456789";
        assert!(!fit(Value::string(text), &redactor).unwrap().to_json().contains("cAn"));
        let words = words(&("x".repeat(MESSAGE_BYTES_MAX - 5) + "cAnary-0123456789"), &redactor);
        assert!(!words.contains("cAn") && words.len() <= MESSAGE_BYTES_MAX, "{words}");
    }
}
