//! A look over an expression's text before the parser sees it: is it short and shallow enough to be parsed by
//! recursion? The parser's own depth limit counts brackets only, but a row of operators nests as deep.
//!
//! The scan is stricter than the parser's lexer: what the lexer would skip with an error, and read on behind it, ends
//! the scan. So the parser never sees a token that was not counted here.

use super::error::{self, Error};
use crate::limits;

/// Fails when `source` is too long, too deep, or is not made of CEL's tokens.
pub(super) fn check(source: &str) -> Result<(), Error> {
    if source.len() > limits::EXPRESSION_BYTES_MAX {
        return Err(Error::new(
            error::BYTES_MAX,
            format!(
                "the expression has {} bytes; at most {} are allowed (limit expression_bytes_max)",
                source.len(),
                limits::EXPRESSION_BYTES_MAX
            ),
        ));
    }
    let mut scan = Scan { frames: vec![Frame::default()] };
    let mut at = 0;
    while let Some((token, end)) = token(source, at)? {
        scan.take(token, at)?;
        at = end;
    }
    scan.finish(source.len())
}

/// What counts for the depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Space,
    /// A name, a number, a text: nests nothing.
    Operand,
    /// `.`
    Postfix,
    /// `+ - * / % < <= > >= == != in`, which lean to the left.
    Binary,
    /// `!`: rows of it are flat.
    Prefix,
    /// `&& ||`: rows of them are flat.
    Logic,
    /// `?`
    Question,
    /// `:`
    Colon,
    /// `,`
    Comma,
    Open(u8),
    Close(u8),
}

/// The token at `at` and where it ends; `None` at the end of the text.
pub(super) fn token(source: &str, at: usize) -> Result<Option<(Token, usize)>, Error> {
    let rest = source.as_bytes().get(at..).unwrap_or_default();
    let Some(first) = rest.first().copied() else { return Ok(None) };
    let second = rest.get(1).copied();
    let one = |token| Ok(Some((token, at + 1)));
    let two = |token| Ok(Some((token, at + 2)));
    match (first, second) {
        (b' ' | b'\t' | b'\r' | b'\n' | 0x0c, _) => one(Token::Space),
        (b'/', Some(b'/')) => {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            Ok(Some((Token::Space, at + end)))
        }
        (b'=', Some(b'=')) | (b'!', Some(b'=')) | (b'<', Some(b'=')) | (b'>', Some(b'=')) => {
            two(Token::Binary)
        }
        (b'&', Some(b'&')) | (b'|', Some(b'|')) => two(Token::Logic),
        (b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>', _) => one(Token::Binary),
        (b'!', _) => one(Token::Prefix),
        (b'.', _) => one(Token::Postfix),
        (b'?', _) => one(Token::Question),
        (b':', _) => one(Token::Colon),
        (b',', _) => one(Token::Comma),
        (b'(' | b'[' | b'{', _) => one(Token::Open(first)),
        (b')' | b']' | b'}', _) => one(Token::Close(first)),
        (b'`', _) => quoted_name(rest, at).map(|length| Some((Token::Operand, at + length))),
        (b'"' | b'\'', _) => text(rest, false, at).map(|length| Some((Token::Operand, at + length))),
        (b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_', _) => word(rest, at),
        _ => {
            let found = source.get(at..).and_then(|rest| rest.chars().next()).unwrap_or('?');
            Err(syntax(at, &format!("the unexpected character {found:?}")))
        }
    }
}

/// A name, a number, or a text with a prefix (`r"..."`, `b"..."`, `br"..."`).
fn word(rest: &[u8], at: usize) -> Result<Option<(Token, usize)>, Error> {
    let length =
        rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(rest.len());
    let (word, after) = rest.split_at(length);
    if matches!(after.first(), Some(b'"' | b'\'')) {
        let raw = match word {
            b"r" | b"R" | b"br" | b"bR" | b"Br" | b"BR" => Some(true),
            b"b" | b"B" => Some(false),
            _ => None,
        };
        if let Some(raw) = raw {
            return text(after, raw, at + length).map(|text| Some((Token::Operand, at + length + text)));
        }
    }
    Ok(Some((if word == b"in" { Token::Binary } else { Token::Operand }, at + length)))
}

/// The length of a name in backticks.
fn quoted_name(rest: &[u8], at: usize) -> Result<usize, Error> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-/ ".contains(byte);
    let length = rest.iter().skip(1).take_while(|byte| fits(byte)).count();
    match rest.get(length + 1) {
        Some(b'`') if length > 0 => Ok(length + 2),
        None => Err(syntax(at, "a name in backticks that is not closed")),
        _ => Err(syntax(at, "a name in backticks that is not made of letters, digits, `_.-/` and spaces")),
    }
}

/// The length of the quoted text that `rest` starts with.
fn text(rest: &[u8], raw: bool, at: usize) -> Result<usize, Error> {
    let quote = rest.first().copied().unwrap_or(b'"');
    let triple = rest.get(..3).is_some_and(|start| start.iter().all(|byte| *byte == quote));
    let mut index = if triple { 3 } else { 1 };
    loop {
        let here = rest.get(index..).unwrap_or_default();
        match here.first() {
            None => return Err(syntax(at, "a text that is not closed")),
            Some(b'\n' | b'\r') if !triple => {
                return Err(syntax(at, "a text that is not closed on its line"));
            }
            Some(byte) if *byte == quote => {
                if !triple {
                    return Ok(index + 1);
                }
                if here.get(..3).is_some_and(|end| end.iter().all(|byte| *byte == quote)) {
                    return Ok(index + 3);
                }
                index += 1;
            }
            Some(b'\\') if !raw => {
                index += escape(here).ok_or_else(|| syntax(at + index, "an unknown escape in a text"))?;
            }
            Some(_) => index += 1,
        }
    }
}

/// The length of a valid escape.
fn escape(here: &[u8]) -> Option<usize> {
    let hex = |count: usize| {
        let digits = here.get(2..2 + count)?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(2 + count)
    };
    match here.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(2),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => here.get(2..4)?.iter().all(|byte| (b'0'..=b'7').contains(byte)).then_some(4),
        _ => None,
    }
}

/// One pair of brackets, or the whole text.
#[derive(Debug, Default)]
struct Frame {
    open: u8,
    /// `?` in a row: each nests the next.
    questions: usize,
    /// Operators in the row that is being read.
    binary: usize,
    /// Selects, calls and indexes of the operand that is being read, and what is in their brackets.
    postfix: usize,
    inner: usize,
    /// The deepest operand of this row, row since the last comma, and part between commas.
    operand: usize,
    row: usize,
    segment: usize,
}

impl Frame {
    fn end_operand(&mut self) {
        self.operand = self.operand.max(self.postfix + self.inner);
        self.postfix = 0;
        self.inner = 0;
    }

    fn end_row(&mut self) {
        self.end_operand();
        self.row = self.row.max(self.binary + self.operand);
        self.binary = 0;
        self.operand = 0;
    }

    /// A comma ends every `? :` before it; a colon does not.
    fn end_segment(&mut self) {
        self.end_row();
        self.segment = self.segment.max(self.row + self.questions);
        self.row = 0;
        self.questions = 0;
    }
}

struct Scan {
    frames: Vec<Frame>,
}

impl Scan {
    fn take(&mut self, token: Token, at: usize) -> Result<(), Error> {
        let nesting = self.frames.len() + self.frames.iter().map(|frame| frame.questions).sum::<usize>();
        let Some(frame) = self.frames.last_mut() else { return Err(syntax(at, "a bracket too many")) };
        match token {
            Token::Space | Token::Operand | Token::Prefix => {}
            Token::Postfix => frame.postfix += 1,
            Token::Binary => {
                frame.end_operand();
                frame.binary += 1;
            }
            Token::Logic => frame.end_row(),
            Token::Question => {
                frame.end_row();
                frame.questions += 1;
                nested(nesting, at)?;
            }
            Token::Colon => frame.end_row(),
            Token::Comma => frame.end_segment(),
            Token::Open(open) => {
                frame.postfix += 1;
                self.frames.push(Frame { open, ..Frame::default() });
                nested(nesting, at)?;
            }
            Token::Close(close) => self.close(close, at)?,
        }
        Ok(())
    }

    fn close(&mut self, close: u8, at: usize) -> Result<(), Error> {
        let depth = self.end_frame(at, Some(close))?;
        match self.frames.last_mut() {
            Some(outer) => outer.inner = outer.inner.max(depth),
            None => return Err(syntax(at, "a closing bracket too many")),
        }
        Ok(())
    }

    fn finish(mut self, end: usize) -> Result<(), Error> {
        self.end_frame(end, None)?;
        if self.frames.is_empty() { Ok(()) } else { Err(syntax(end, "a bracket that is not closed")) }
    }

    /// The depth of the innermost frame, which ends here.
    fn end_frame(&mut self, at: usize, close: Option<u8>) -> Result<usize, Error> {
        let Some(mut frame) = self.frames.pop() else { return Err(syntax(at, "a closing bracket too many")) };
        let fits = match close {
            Some(b')') => frame.open == b'(',
            Some(b']') => frame.open == b'[',
            Some(b'}') => frame.open == b'{',
            _ => frame.open == 0,
        };
        if !fits {
            return Err(syntax(at, "brackets that do not match"));
        }
        frame.end_segment();
        let depth = frame.segment;
        if depth > limits::EXPRESSION_CHAIN_MAX {
            return Err(Error::new(
                error::DEPTH_MAX,
                format!(
                    "more than {} operators in a row or inside each other (limit expression_chain_max)",
                    limits::EXPRESSION_CHAIN_MAX
                ),
            ));
        }
        Ok(depth)
    }
}

fn nested(depth: usize, at: usize) -> Result<(), Error> {
    if depth <= limits::EXPRESSION_DEPTH_MAX {
        return Ok(());
    }
    Err(too_deep().at(u32::try_from(at).unwrap_or(u32::MAX)))
}

/// Brackets or conditionals inside each other.
pub(super) fn too_deep() -> Error {
    Error::new(
        error::DEPTH_MAX,
        format!(
            "brackets or conditionals nested deeper than {} levels (limit expression_depth_max)",
            limits::EXPRESSION_DEPTH_MAX
        ),
    )
}

fn syntax(at: usize, what: &str) -> Error {
    Error { code: error::SYNTAX, message: format!("the expression has {what}"), offset: Some(at) }
}
