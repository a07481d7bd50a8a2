//! `POST /v1/embeddings`: vectors of length 1 that follow from model and text; texts with the same words are near each other.

use std::io::Write as _;

use serde_json::Value;

use crate::ask::{Api, Ask, list, tokens};
use crate::behaviour::{Refusal, Usage};
use crate::reply::quoted;
use crate::{hash, limits};

/// Texts to be turned into numbers.
#[derive(Debug)]
pub(crate) struct Texts {
    texts: Vec<String>,
    dimensions: usize,
    base64: bool,
}

/// Reads a request.
pub(crate) fn read(request: &Value, hash: u64) -> Result<(Ask, Texts), Refusal> {
    let mut ask = Ask::begin(Api::Embeddings, request, hash)?;
    let texts = texts(request)?;
    let usual = if ask.model.ends_with("3-large") { 3_072 } else { 1_536 };
    let dimensions = request.get("dimensions").map_or(Some(usual), Value::as_u64).unwrap_or(0);
    if !(1..=limits::DIMENSIONS_MAX).contains(&dimensions) {
        let most = limits::DIMENSIONS_MAX;
        return Err(Refusal::invalid(format!("Invalid value for 'dimensions': from 1 to {most}.")));
    }
    if dimensions * texts.len() as u64 > limits::NUMBERS_MAX {
        return Err(Refusal::invalid(format!(
            "stub: more than {} numbers in one answer",
            limits::NUMBERS_MAX
        )));
    }
    let base64 = match request.get("encoding_format").and_then(Value::as_str) {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Refusal::invalid("Invalid value for 'encoding_format': 'float' or 'base64'.")),
    };
    ask.turn = 1;
    ask.user_texts = texts.join("\n");
    ask.last.clone_from(&ask.user_texts);
    ask.usage = Usage { input: tokens(texts.iter().map(String::len).sum()), ..Usage::default() };
    Ok((ask, Texts { texts, dimensions: usize::try_from(dimensions).unwrap_or(1), base64 }))
}

/// One text, several, or tokens in place of a text.
fn texts(request: &Value) -> Result<Vec<String>, Refusal> {
    let bad = || {
        Refusal::invalid("Invalid 'input': a text, a list of texts, or lists of tokens, none of them empty.")
    };
    if let Some(Value::String(text)) = request.get("input") {
        return if text.is_empty() { Err(bad()) } else { Ok(vec![text.clone()]) };
    }
    let inputs = list(request, "input", limits::EMBEDDINGS_MAX)?;
    if inputs.is_empty() {
        return Err(bad());
    }
    if inputs.iter().all(Value::is_u64) {
        return Ok(vec![Value::from(inputs.to_vec()).to_string()]);
    }
    let text = |input: &Value| match input {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        Value::Array(tokens) if !tokens.is_empty() && tokens.iter().all(Value::is_u64) => {
            Ok(input.to_string())
        }
        _ => Err(bad()),
    };
    inputs.iter().map(text).collect()
}

/// The answer.
pub(crate) fn whole(ask: &Ask, texts: &Texts, usage: Option<&Usage>) -> Vec<u8> {
    let mut out = br#"{"object":"list","data":["#.to_vec();
    for (at, text) in texts.texts.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}{{"object":"embedding","index":{at},"embedding":"#);
        let numbers = hash::embedding(&ask.model, text, texts.dimensions);
        if texts.base64 {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            let _ = write!(out, r#""{}""#, base64(&bytes));
        } else {
            for (at, number) in numbers.iter().enumerate() {
                let _ = write!(out, "{}{number}", if at == 0 { '[' } else { ',' });
            }
            out.push(b']');
        }
        out.push(b'}');
    }
    let _ = write!(out, r#"],"model":{}"#, quoted(&ask.model));
    if let Some(usage) = usage {
        let _ = write!(out, r#","usage":{{"prompt_tokens":{0},"total_tokens":{0}}}"#, usage.input);
    }
    out.push(b'}');
    out
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let letter = LETTERS.get((bits >> (18 - 6 * at) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
