//! Text with expressions in it: `Report for ${ inputs.topic }`.
//!
//! [`split`] takes a text apart without compiling anything. An expression ends at the `}` that closes its `${`; braces
//! and texts inside it are read as CEL reads them. `$${` stands for a plain `${`. `${secret:NAME}` is no expression:
//! it is recognised before anything else, and whether it is allowed where it stands is the caller's to say.

use super::error::{self, Error};
use super::scan::{self, Token};
use crate::limits;
use crate::model::Value;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// As it stands; neighbours may both be text.
    Text(&'t str),
    /// CEL.
    Expression {
        /// Without `${` and `}`, spaces trimmed.
        source: &'t str,
        /// Byte offset of `source` in the text.
        offset: usize,
    },
    /// The name of a secret.
    Secret(&'t str),
}

/// Takes a text apart.
///
/// # Errors
/// `expression_template` for a `${` that is not closed, is empty, or names a secret wrongly; `expression_syntax` for
/// what cannot be CEL.
pub fn split(text: &str) -> Result<Vec<Piece<'_>>, Error> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut from = 0;
    while let Some(found) = text.get(from..).and_then(|rest| rest.find("${")) {
        let open = from + found;
        let escaped = open > start && text.as_bytes().get(open - 1) == Some(&b'$');
        if escaped {
            push_text(&mut pieces, text.get(start..open - 1));
            push_text(&mut pieces, text.get(open..open + 2));
            start = open + 2;
            from = start;
            continue;
        }
        push_text(&mut pieces, text.get(start..open));
        let (piece, end) = hole(text, open)?;
        pieces.push(piece);
        start = end;
        from = end;
    }
    push_text(&mut pieces, text.get(start..));
    Ok(pieces)
}

/// Appends a value to a text: a string as it is, anything else as JSON.
pub fn render(value: &Value, text: &mut String) {
    match value {
        Value::String(string) => text.push_str(string),
        other => text.push_str(&other.to_json()),
    }
}

fn push_text<'t>(pieces: &mut Vec<Piece<'t>>, text: Option<&'t str>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        pieces.push(Piece::Text(text));
    }
}

/// What stands between the `${` at `open` and its `}`, and where the text goes on.
fn hole(text: &str, open: usize) -> Result<(Piece<'_>, usize), Error> {
    let inside = open + 2;
    let rest = text.get(inside..).unwrap_or_default();
    if let Some(name) = rest.trim_start().strip_prefix("secret:") {
        let (name, _) = name.split_once('}').ok_or_else(|| unclosed(open))?;
        let end = inside + rest.find('}').unwrap_or(rest.len()) + 1;
        return Ok((Piece::Secret(secret(name.trim(), open)?), end));
    }
    let mut depth: usize = 0;
    let mut at = inside;
    loop {
        let (token, end) = scan::token(text, at)
            .map_err(|error| if error.message.contains("not closed") { unclosed(open) } else { error })?
            .ok_or_else(|| unclosed(open))?;
        match token {
            Token::Open(b'{') => depth += 1,
            Token::Close(b'}') if depth == 0 => break,
            Token::Close(b'}') => depth -= 1,
            _ => {}
        }
        at = end;
    }
    let raw = text.get(inside..at).unwrap_or_default();
    let source = raw.trim();
    if source.is_empty() {
        return Err(template(open, "is empty"));
    }
    let offset = inside + (raw.len() - raw.trim_start().len());
    Ok((Piece::Expression { source, offset }, at + 1))
}

fn secret(name: &str, open: usize) -> Result<&str, Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > limits::NAME_BYTES_MAX || !name.bytes().all(fits) {
        return Err(template(open, "names no secret; a name is made of letters, digits, `_`, `.` and `-`"));
    }
    Ok(name)
}

fn unclosed(open: usize) -> Error {
    template(open, "is not closed; write `$${` where no expression is meant")
}

fn template(open: usize, what: &str) -> Error {
    Error { code: error::TEMPLATE, message: format!("the `${{` at byte {open} {what}"), offset: Some(open) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(source: &str, offset: usize) -> Piece<'_> {
        Piece::Expression { source, offset }
    }

    #[test]
    fn a_text_is_taken_apart() {
        let text = Piece::Text;
        for (template, wanted) in [
            ("", vec![]),
            ("plain $ text } {", vec![text("plain $ text } {")]),
            ("${a}", vec![expression("a", 2)]),
            ("${  a + 1\n}", vec![expression("a + 1", 4)]),
            ("x ${a} y ${b}", vec![text("x "), expression("a", 4), text(" y "), expression("b", 11)]),
            ("${a}${b}", vec![expression("a", 2), expression("b", 6)]),
            ("é${a}", vec![text("é"), expression("a", 4)]),
            ("${ {'k': {'l': 1}}.k }!", vec![expression("{'k': {'l': 1}}.k", 3), text("!")]),
            ("${ '}' + \"}{\" + '''}''' + r'\\' }", vec![expression("'}' + \"}{\" + '''}''' + r'\\'", 3)]),
            ("${ a // } ends nothing\n }", vec![expression("a // } ends nothing", 3)]),
            ("$${a}", vec![text("${"), text("a}")]),
            ("a$${b} ${c}", vec![text("a"), text("${"), text("b} "), expression("c", 9)]),
            ("$$${a}", vec![text("$"), text("${"), text("a}")]),
            ("${a}$${b}", vec![expression("a", 2), text("${"), text("b}")]),
            ("$ {a}", vec![text("$ {a}")]),
            ("Bearer ${secret:API_KEY}.", vec![text("Bearer "), Piece::Secret("API_KEY"), text(".")]),
            ("${ secret: a.b-c }", vec![Piece::Secret("a.b-c")]),
            ("${secret}", vec![expression("secret", 2)]),
        ] {
            assert_eq!(split(template), Ok(wanted), "{template:?}");
        }
    }

    #[test]
    fn what_is_not_closed_or_empty_is_refused_where_it_starts() {
        for (text, code, offset) in [
            ("a ${", error::TEMPLATE, 2),
            ("a ${b", error::TEMPLATE, 2),
            ("${ {'a': 1} ", error::TEMPLATE, 0),
            ("${ '} ", error::TEMPLATE, 0),
            ("${}", error::TEMPLATE, 0),
            ("é${ }", error::TEMPLATE, 2),
            ("${secret:A", error::TEMPLATE, 0),
            ("${secret:}", error::TEMPLATE, 0),
            ("${secret:a b}", error::TEMPLATE, 0),
            ("${secret:é}", error::TEMPLATE, 0),
            ("${ a # b }", error::SYNTAX, 5),
        ] {
            let error = split(text).unwrap_err();
            assert_eq!((error.code, error.offset), (code, Some(offset)), "{text:?}: {error}");
        }
        let long = format!("${{secret:{}}}", "a".repeat(limits::NAME_BYTES_MAX + 1));
        assert_eq!(split(&long).map_err(|error| error.code), Err(error::TEMPLATE));
    }

    #[test]
    fn a_value_in_a_text_is_itself_or_json() {
        let rendered = |value: Value| {
            let mut text = String::from("<");
            render(&value, &mut text);
            text
        };
        assert_eq!(rendered(Value::from("a \"b\"")), "<a \"b\"");
        assert_eq!(rendered(Value::Null), "<null");
        assert_eq!(rendered(Value::Float(1.0)), "<1.0");
        assert_eq!(rendered(Value::list(vec![Value::from("a"), Value::Int(1)])), "<[\"a\",1]");
    }
}
