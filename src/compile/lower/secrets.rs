//! Secrets in the settings of a call: where they are named, and where somebody wrote one down.
//!
//! Which texts name secrets is settled here, from the document alone: a text that looks like `${secret:NAME}` but came with
//! the data of a run is data.

use crate::compile::document::Reading;
use crate::compile::finding::quoted;
use crate::compile::pointer;
use crate::expr::template::{self, Piece};
use crate::model::{Value, credential};

/// `[{at, name}]` of every secret under `value`, `at` being a JSON Pointer into the settings.
pub(super) fn named(value: &Value, at: &str, found: &mut Vec<Value>) {
    match value {
        Value::String(text) if text.contains("${") => {
            // A text that cannot be split is a finding of its own.
            for piece in template::split(text).unwrap_or_default() {
                if let Piece::Secret(name) = piece {
                    found.push(Value::map([("at", Value::string(at)), ("name", Value::string(name))]));
                }
            }
        }
        Value::List(items) => {
            items.iter().enumerate().for_each(|(index, item)| named(item, &pointer::index(at, index), found));
        }
        Value::Map(map) => map.iter().for_each(|(key, item)| named(item, &pointer::join(at, key), found)),
        _ => {}
    }
}

/// Headers that hold nothing but a key.
const KEY_HEADERS: [&str; 6] =
    ["authorization", "proxy-authorization", "x-api-key", "api-key", "x-auth-token", "cookie"];

/// Refuses keys that are written down (F409): whoever reads the document, an event or a log would have them.
pub(in crate::compile) fn refuse_literal(value: &Value, at: &str, reading: &mut Reading<'_>) {
    match value {
        Value::String(text) => {
            let header = at.rsplit_once("/headers/").map(|(_, name)| name.to_ascii_lowercase());
            let written = !text.contains("${") && !text.is_empty();
            let in_header = written && header.is_some_and(|header| KEY_HEADERS.contains(&header.as_str()));
            if in_header || credential::find(text).is_some() {
                let shown: String = text.chars().take(4).collect();
                let message = format!(
                    "a key is written down here ({}...): name it, as in ${{secret:NAME}}, and keep it where the node finds it",
                    quoted(&shown)
                );
                reading.findings.error("literal_secret", at, message);
            }
        }
        Value::List(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| refuse_literal(item, &pointer::index(at, index), reading));
        }
        Value::Map(map) => {
            map.iter().for_each(|(key, item)| refuse_literal(item, &pointer::join(at, key), reading));
        }
        _ => {}
    }
}
