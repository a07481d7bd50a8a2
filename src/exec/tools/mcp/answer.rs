//! From a tool's answer to a value: its structured content when there is some, its text, or a list of what it holds.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use crate::exec::secret::Redactor;
use crate::exec::tools::result;
use crate::model::{Failure, Value};

/// The value, or what the tool says went wrong.
///
/// # Errors
/// `tool_failed`; `tool_result_too_large`.
pub(super) fn value(answer: CallToolResult, redactor: &Redactor) -> Result<Value, Failure> {
    let failed = answer.is_error.unwrap_or_default();
    let value = match answer.structured_content {
        Some(structured) if !failed => {
            let bytes = serde_json::to_vec(&structured).unwrap_or_default();
            Value::from_json(&bytes).map_err(|error| {
                Failure::fatal(
                    "tool_failed",
                    format!("the tool's structured content cannot be taken: {error}"),
                )
            })?
        }
        _ => content(answer.content),
    };
    if !failed {
        return result::fit(value, redactor);
    }
    let text = match &value {
        Value::String(text) => text.to_string(),
        other => other.to_json(),
    };
    let message = result::words(&text, redactor);
    let message =
        if message.is_empty() { String::from("the tool failed and does not say why") } else { message };
    Err(Failure::fatal("tool_failed", message))
}

/// Text when it is nothing else.
fn content(blocks: Vec<ContentBlock>) -> Value {
    if blocks.iter().all(|block| matches!(block, ContentBlock::Text(_))) {
        let texts = blocks.into_iter().filter_map(|block| match block {
            ContentBlock::Text(text) => Some(text.text),
            _ => None,
        });
        return Value::string(texts.collect::<Vec<_>>().join("\n"));
    }
    Value::list(blocks.into_iter().map(block).collect())
}

fn block(block: ContentBlock) -> Value {
    let text = |text: String| Value::string(text);
    let named = |kind: &str, rest: Vec<(&'static str, Value)>| {
        Value::map(rest.into_iter().chain([("type", Value::string(kind))]))
    };
    let optional = |text: Option<String>| text.map_or(Value::Null, Value::string);
    match block {
        ContentBlock::Text(it) => named("text", vec![("text", text(it.text))]),
        ContentBlock::Image(it) => {
            named("image", vec![("mime_type", text(it.mime_type)), ("base64", text(it.data))])
        }
        ContentBlock::Audio(it) => {
            named("audio", vec![("mime_type", text(it.mime_type)), ("base64", text(it.data))])
        }
        ContentBlock::ResourceLink(it) => {
            // Nothing is fetched for it.
            named(
                "link",
                vec![("uri", text(it.uri)), ("name", text(it.name)), ("mime_type", optional(it.mime_type))],
            )
        }
        ContentBlock::Resource(it) => match it.resource {
            ResourceContents::TextResourceContents { uri, mime_type, text: held, .. } => named(
                "resource",
                vec![("uri", text(uri)), ("mime_type", optional(mime_type)), ("text", text(held))],
            ),
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => named(
                "resource",
                vec![("uri", text(uri)), ("mime_type", optional(mime_type)), ("base64", text(blob))],
            ),
            _ => named("unknown", Vec::new()),
        },
        _ => named("unknown", Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: &str) -> Result<Value, Failure> {
        let mut redactor = Redactor::default();
        redactor.add("cAnary-99");
        value(serde_json::from_str(json).unwrap(), &redactor)
    }

    // F429
    #[test]
    fn what_a_tool_holds_becomes_a_value() {
        for (json, expected) in [
            (
                r#"{"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "cAnary-99"}]}"#,
                r#""a\n[redacted]""#,
            ),
            (r#"{"content": [], "structuredContent": {"n": 1.5}}"#, r#"{"n":1.5}"#),
            (r#"{"content": []}"#, r#""""#),
            (
                r#"{"content": [{"type": "text", "text": "a"}, {"type": "image", "data": "aGk=", "mimeType": "image/png"}]}"#,
                r#"[{"text":"a","type":"text"},{"base64":"aGk=","mime_type":"image/png","type":"image"}]"#,
            ),
            (
                r#"{"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "t"}}, {"type": "resource_link", "uri": "http://169.254.169.254/", "name": "n"}]}"#,
                r#"[{"mime_type":null,"text":"t","type":"resource","uri":"file:///a"},{"mime_type":null,"name":"n","type":"link","uri":"http://169.254.169.254/"}]"#,
            ),
        ] {
            assert_eq!(answer(json).unwrap().to_json(), expected, "{json}");
        }
        let failed = r#"{"content": [{"type": "text", "text": "no cAnary-99 here"}], "isError": true}"#;
        assert_eq!(&*answer(failed).unwrap_err().message, "no [redacted] here");
        let deep =
            format!(r#"{{"content": [], "structuredContent": {}1{}}}"#, "[".repeat(100), "]".repeat(100));
        assert_eq!(&*answer(&deep).unwrap_err().code, "tool_failed");
    }
}
