//! Bytes to a value, JSON or YAML, under every limit of a document. Everything that is refused here is refused before
//! anything is built from it, and a limit is named. Nesting is walked without recursion in YAML and to a bounded depth
//! in JSON, so no document overflows the stack.

pub(super) mod yaml;

use std::sync::Arc;

use super::Format;
use super::finding::{Diagnostic, error};
use crate::limits;
use crate::model::Value;

/// A document as read.
pub(super) struct Source {
    pub(super) value: Value,
    /// The text of a `version` that was written as a number: `1.10` is not `1.1`.
    pub(super) version: Option<Arc<str>>,
}

pub(super) fn read(bytes: &[u8], format: Format) -> Result<Source, Box<Diagnostic>> {
    if bytes.len() > limits::DOCUMENT_BYTES_MAX {
        let message = format!(
            "the document has {} bytes; at most {} are allowed (limit document_bytes_max)",
            bytes.len(),
            limits::DOCUMENT_BYTES_MAX
        );
        return Err(Box::new(error("document_bytes_max", "", message)));
    }
    let text = utf8(bytes)?;
    let mut source = match format {
        Format::Json => json(text)?,
        Format::Yaml => yaml::read(text)?,
    };
    if !is_normal(&source.value)
        && let Some(value) = normal(&source.value, &mut String::new())?
    {
        source.value = value;
    }
    Ok(source)
}

/// What a patch made of a canonical document, read as its JSON text would be. The limits of values hold of it, so nothing but
/// its size is left to be refused.
pub(super) fn made(value: &Value) -> Result<Source, Box<Diagnostic>> {
    // No value has more text than so many times what it weighs.
    const TEXT_OF_WEIGHT: usize = 6;
    let is_numbered = matches!(value.get("version"), Some(Value::Float(_) | Value::Int(_) | Value::UInt(_)));
    if is_numbered || value.weight().saturating_mul(TEXT_OF_WEIGHT) > limits::DOCUMENT_BYTES_MAX {
        return read(value.to_json().as_bytes(), Format::Json);
    }
    let changed = if is_normal(value) { None } else { normal(value, &mut String::new())? };
    Ok(Source { value: changed.unwrap_or_else(|| value.clone()), version: None })
}

/// Are all numbers as [`normal`] leaves them? Asked before it, because it takes note of where each value stands.
fn is_normal(value: &Value) -> bool {
    match value {
        Value::Int(number) => exact(i128::from(*number)),
        Value::UInt(number) => exact(i128::from(*number)),
        Value::Float(number) => whole(*number).is_none(),
        Value::List(items) => items.iter().all(is_normal),
        Value::Map(map) => map.iter().all(|(_, item)| is_normal(item)),
        _ => true,
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Box<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|failure| {
        let at = failure.valid_up_to();
        let before = bytes.get(..at).unwrap_or_default();
        let (line, column) = super::position::count(std::str::from_utf8(before).unwrap_or_default(), at);
        let message = format!("not UTF-8 at byte {at}");
        Box::new(Diagnostic { line, column, ..error("not_utf8", "", message) })
    })
}

/// A finding with its place.
pub(super) fn refused(
    code: &'static str,
    message: impl Into<String>,
    line: usize,
    column: usize,
) -> Box<Diagnostic> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Box::new(Diagnostic { line: number(line), column: number(column), ..error(code, "", message) })
}

pub(super) fn depth_message() -> String {
    format!("nested deeper than {} levels (limit value_depth_max)", limits::VALUE_DEPTH_MAX)
}

fn json(text: &str) -> Result<Source, Box<Diagnostic>> {
    if text.trim().is_empty() {
        return Err(refused("empty_document", "the document is empty", 1, 1));
    }
    let value = Value::from_json(text.as_bytes()).map_err(|failure| {
        let full = failure.to_string();
        let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message);
        let code = if message.contains("value_depth_max") || message.contains("recursion limit") {
            "value_depth_max"
        } else if message.contains("value_count_max") {
            "value_count_max"
        } else if message.contains("key_bytes_max") {
            "key_bytes_max"
        } else if message.contains("stands twice") {
            "duplicate_key"
        } else if message.contains("out of range") {
            "finite"
        } else {
            "syntax"
        };
        refused(code, message, failure.line(), failure.column().max(1))
    })?;
    let version = match value.get("version") {
        Some(Value::Float(_) | Value::Int(_) | Value::UInt(_)) => super::position::json_text(text, "version"),
        _ => None,
    };
    Ok(Source { value, version })
}

/// Numbers as RFC 8785 gives them back: `1.0` is the integer 1. `None` when all are so already. An integer that the
/// canonical form cannot hold is refused rather than rounded.
pub(super) fn normal(value: &Value, at: &mut String) -> Result<Option<Value>, Box<Diagnostic>> {
    Ok(match value {
        Value::Int(number) => {
            check_exact(i128::from(*number), at)?;
            None
        }
        Value::UInt(number) => {
            check_exact(i128::from(*number), at)?;
            None
        }
        Value::Float(number) => whole(*number),
        Value::List(items) => {
            let mut changed: Option<Vec<Value>> = None;
            let length = at.len();
            for (index, item) in items.iter().enumerate() {
                *at = super::pointer::index(at, index);
                if let Some(value) = normal(item, at)?
                    && let Some(place) = changed.get_or_insert_with(|| items.to_vec()).get_mut(index)
                {
                    *place = value;
                }
                at.truncate(length);
            }
            changed.map(Value::list)
        }
        Value::Map(map) => {
            let mut changed = None;
            let length = at.len();
            for (key, item) in map.iter() {
                super::pointer::push(at, key);
                if let Some(value) = normal(item, at)? {
                    changed.get_or_insert_with(|| (**map).clone()).insert(key.clone(), value);
                }
                at.truncate(length);
            }
            changed.map(|map| Value::Map(Arc::new(map)))
        }
        _ => None,
    })
}

/// The integer that a whole float is written as.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked before each cast"
)]
fn whole(number: f64) -> Option<Value> {
    const I64: f64 = 9_223_372_036_854_775_808.0;
    const U64: f64 = 18_446_744_073_709_551_616.0;
    if number.fract() != 0.0 {
        None
    } else if (-I64..I64).contains(&number) {
        Some(Value::Int(number as i64))
    } else if (I64..U64).contains(&number) {
        Some(Value::unsigned(number as u64))
    } else {
        None
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "that is what is asked")]
fn exact(number: i128) -> bool {
    (number as f64) as i128 == number
}

fn check_exact(number: i128, at: &str) -> Result<(), Box<Diagnostic>> {
    if exact(number) {
        return Ok(());
    }
    let message = format!("the number {number} cannot be kept exactly (RFC 8785 numbers are doubles)");
    Err(Box::new(Diagnostic {
        help: Some("write it as a string".into()),
        ..error("number_precision", at.to_owned(), message)
    }))
}
