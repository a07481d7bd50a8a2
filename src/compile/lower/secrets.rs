//! Secrets in the settings of a call: where they are named, and where somebody wrote one down.
//!
//! Which texts name secrets is settled here, from the document alone: a text that looks like `${secret:NAME}` but came with
//! the data of a run is data.

use crate::compile::document::Reading;
use crate::compile::finding::quoted;
use crate::compile::pointer;
use crate::expr::template::{self, Piece};
use crate::model::Value;

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

/// How keys of well-known services begin, and the fewest letters that follow.
const KEYS: [(&str, usize); 14] = [
    ("sk-", 20),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghs_", 30),
    ("github_pat_", 30),
    ("glpat-", 18),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("AKIA", 16),
    ("AIza", 30),
    ("whsec_", 20),
    ("-----BEGIN ", 10),
];

fn is_key(text: &str) -> bool {
    KEYS.iter().any(|(begin, least)| {
        text.match_indices(begin).any(|(at, _)| {
            // In the middle of a word it is a part of something else.
            let before = text.get(..at).and_then(|before| before.chars().next_back());
            let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            let rest = text.get(at + begin.len()..).unwrap_or_default();
            before.is_none_or(|c| !c.is_ascii_alphanumeric())
                && rest.chars().take_while(|c| fits(c) || (begin.ends_with(' ') && *c == ' ')).count()
                    >= *least
        })
    })
}

/// Refuses keys that are written down (F409): whoever reads the document, an event or a log would have them.
pub(super) fn refuse_literal(value: &Value, at: &str, reading: &mut Reading<'_>) {
    match value {
        Value::String(text) => {
            let header = at.rsplit_once("/headers/").map(|(_, name)| name.to_ascii_lowercase());
            let written = !text.contains("${") && !text.is_empty();
            let in_header = written && header.is_some_and(|header| KEY_HEADERS.contains(&header.as_str()));
            if in_header || is_key(text) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_how_they_begin() {
        for key in [
            "sk-proj-abcdefghijklmnopqrstuvwx",
            "Bearer ghp_0123456789abcdefghijklmnopqrstuvwxyz",
            "AKIAIOSFODNN7EXAMPLE",
            "-----BEGIN RSA PRIVATE KEY-----",
        ] {
            assert!(is_key(key), "{key}");
        }
        for plain in
            ["sk-short", "task-0123456789abcdefghijklmnop", "a risk-free-and-longer-than-twenty", "AKIA"]
        {
            assert!(!is_key(plain), "{plain}");
        }
    }
}
