//! YAML 1.2, core schema, to a value: what JSON can say and no more. Aliases are expanded, and everything they expand
//! to counts against the limits, so an alias bomb is refused before it grows. Merge keys, other tags, keys that are no
//! strings and numbers that are not finite are refused.

use std::sync::Arc;

use ahash::AHashSet;
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Source, depth_message, refused};
use crate::compile::finding::{Diagnostic, quoted};
use crate::limits;
use crate::model::{Map, Value};

/// A finished value under an anchor.
struct Anchored {
    id: usize,
    value: Value,
    count: usize,
    height: usize,
}

/// A list or map that is being read.
struct Frame {
    anchor: usize,
    count: usize,
    height: usize,
    holds: Holds,
}

enum Holds {
    List(Vec<Value>),
    Map { entries: Vec<(Arc<str>, Value)>, seen: AHashSet<Arc<str>>, key: Option<Arc<str>> },
}

#[derive(Default)]
struct Reader {
    stack: Vec<Frame>,
    anchors: Vec<Anchored>,
    used: usize,
    root: Option<Value>,
    version: Option<Arc<str>>,
}

/// Where an event stood.
#[derive(Clone, Copy)]
struct At {
    line: usize,
    column: usize,
}

impl At {
    fn of(span: &Span) -> Self {
        Self { line: span.start.line(), column: span.start.col() + 1 }
    }

    fn refused(self, code: &'static str, message: impl Into<String>) -> Box<Diagnostic> {
        refused(code, message, self.line, self.column)
    }
}

/// The events of a text, with our limits set on the parser too.
pub(in crate::compile) fn events(text: &str) -> Parser<'_, granit_parser::StrInput<'_>> {
    Parser::new_from_str(text)
}

pub(super) fn read(text: &str) -> Result<Source, Box<Diagnostic>> {
    let mut reader = Reader::default();
    let mut documents = 0_usize;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut events = events(text);
    while let Some(event) = events.next_event() {
        let (event, span) = event.map_err(|failure| {
            let at = At { line: failure.marker().line(), column: failure.marker().col() + 1 };
            match failure.kind() {
                granit_parser::ErrorKind::RecursionLimitExceeded => {
                    at.refused("value_depth_max", depth_message())
                }
                kind => at.refused("syntax", kind.to_string()),
            }
        })?;
        let at = At::of(&span);
        match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents > 1 {
                    return Err(
                        at.refused("several_documents", "a second YAML document; only one is expected")
                    );
                }
            }
            Event::StreamEnd => break,
            event => reader.take(event, at)?,
        }
    }
    match reader.root {
        Some(Value::Null) | None => Err(refused("empty_document", "the document is empty", 1, 1)),
        Some(value) => Ok(Source { value, version: reader.version }),
    }
}

impl Reader {
    fn take(&mut self, event: Event<'_>, at: At) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), at)?;
                if self.expects_key() {
                    self.anchor(anchor, &value, 1, 0);
                    return self.key(value, style, at);
                }
                self.spend(1, 0, at)?;
                if matches!(value, Value::Int(_) | Value::UInt(_) | Value::Float(_)) && self.at_version() {
                    self.version = Some(text.as_ref().into());
                }
                self.anchor(anchor, &value, 1, 0);
                self.push(value, 1, 0);
            }
            Event::SequenceStart(_, anchor, tag) => {
                core(tag.as_deref(), "seq", at)?;
                self.open(anchor, Holds::List(Vec::new()), at)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                core(tag.as_deref(), "map", at)?;
                self.open(anchor, Holds::Map { entries: Vec::new(), seen: AHashSet::new(), key: None }, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at)?,
            Event::Alias(id) => self.alias(id, at)?,
            _ => {}
        }
        Ok(())
    }

    /// Does the next node stand where a key must?
    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { holds: Holds::Map { key: None, .. }, .. }))
    }

    fn at_version(&self) -> bool {
        matches!(self.stack.as_slice(), [Frame { holds: Holds::Map { key: Some(key), .. }, .. }] if &**key == "version")
    }

    fn spend(&mut self, count: usize, height: usize, at: At) -> Result<(), Box<Diagnostic>> {
        self.used = self.used.saturating_add(count);
        if self.used > limits::VALUE_COUNT_MAX {
            let message = format!("more than {} values (limit value_count_max)", limits::VALUE_COUNT_MAX);
            return Err(at.refused("value_count_max", message));
        }
        if self.stack.len() + height > limits::VALUE_DEPTH_MAX {
            return Err(at.refused("value_depth_max", depth_message()));
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, holds: Holds, at: At) -> Result<(), Box<Diagnostic>> {
        if self.expects_key() {
            return Err(at.refused("key", "a key must be a string, not a list or a map"));
        }
        self.spend(1, 0, at)?;
        self.stack.push(Frame { anchor, count: 1, height: 0, holds });
        Ok(())
    }

    fn close(&mut self, at: At) -> Result<(), Box<Diagnostic>> {
        let Some(Frame { anchor, count, height, holds }) = self.stack.pop() else {
            return Err(at.refused("syntax", "an end without a start"));
        };
        let value = match holds {
            Holds::List(items) => Value::list(items),
            Holds::Map { entries, .. } => Value::Map(Arc::new(entries.into_iter().collect::<Map>())),
        };
        self.anchor(anchor, &value, count, height);
        self.push(value, count, height);
        Ok(())
    }

    fn anchor(&mut self, id: usize, value: &Value, count: usize, height: usize) {
        if id != 0 {
            self.anchors.push(Anchored { id, value: value.clone(), count, height });
        }
    }

    fn alias(&mut self, id: usize, at: At) -> Result<(), Box<Diagnostic>> {
        // Anchors get rising ids, but an outer one ends after its inner ones.
        let Some(found) = self.anchors.iter().rev().find(|anchored| anchored.id == id) else {
            return Err(at.refused("syntax", "an alias to a value that is not finished"));
        };
        let (value, count, height) = (found.value.clone(), found.count, found.height);
        if self.expects_key() {
            return self.key(value, ScalarStyle::DoubleQuoted, at);
        }
        self.spend(count, height, at)?;
        self.push(value, count, height);
        Ok(())
    }

    fn key(&mut self, value: Value, style: ScalarStyle, at: At) -> Result<(), Box<Diagnostic>> {
        let Value::String(name) = value else {
            return Err(at.refused("key", format!("a key must be a string; put {value} in quotes")));
        };
        if &*name == "<<" && style == ScalarStyle::Plain {
            return Err(
                at.refused("merge_key", "merge keys (`<<`) are not part of YAML 1.2; write the members out")
            );
        }
        if name.len() > limits::KEY_BYTES_MAX {
            let message = format!(
                "a key of {} bytes; at most {} are allowed (limit key_bytes_max)",
                name.len(),
                limits::KEY_BYTES_MAX
            );
            return Err(at.refused("key_bytes_max", message));
        }
        if let Some(Frame { holds: Holds::Map { seen, key, .. }, .. }) = self.stack.last_mut() {
            if !seen.insert(name.clone()) {
                return Err(
                    at.refused("duplicate_key", format!("the key {} stands twice in one map", quoted(&name)))
                );
            }
            *key = Some(name);
        }
        Ok(())
    }

    fn push(&mut self, value: Value, count: usize, height: usize) {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(value);
            return;
        };
        frame.count = frame.count.saturating_add(count);
        frame.height = frame.height.max(height + 1);
        match &mut frame.holds {
            Holds::List(items) => items.push(value),
            Holds::Map { entries, key, .. } => entries.extend(key.take().map(|key| (key, value))),
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: At,
    ) -> Result<Value, Box<Diagnostic>> {
        let plain = style == ScalarStyle::Plain;
        let Some(tag) = tag else {
            return if plain { resolve(text, at) } else { Ok(Value::string(text)) };
        };
        if tag.handle().is_empty() && tag.suffix() == "!" || tag.original() == "!" {
            return Ok(Value::string(text));
        }
        let unknown = || at.refused("tag", format!("the tag {} is not known", quoted(&tag.original())));
        let name = tag.core_suffix().ok_or_else(unknown)?;
        if name == "str" {
            return Ok(Value::string(text));
        }
        let value = resolve(text, at)?;
        let fits = matches!(
            (&value, name),
            (Value::Null, "null")
                | (Value::Bool(_), "bool")
                | (Value::Int(_) | Value::UInt(_), "int" | "float")
                | (Value::Float(_), "float")
        );
        if fits { Ok(value) } else { Err(at.refused("tag", format!("{} is no {name}", quoted(text)))) }
    }
}

/// Only the core schema's own tag, or none.
fn core(tag: Option<&Tag>, name: &str, at: At) -> Result<(), Box<Diagnostic>> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(name) && tag.original() != "!" => {
            Err(at.refused("tag", format!("the tag {} is not known here", quoted(&tag.original()))))
        }
        _ => Ok(()),
    }
}

/// A plain scalar by the core schema.
fn resolve(text: &str, at: At) -> Result<Value, Box<Diagnostic>> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let infinite = matches!(unsigned, ".inf" | ".Inf" | ".INF");
    if infinite || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(at.refused("finite", format!("a number must be finite; {text} is not")));
    }
    let radix = [("0x", 16), ("0o", 8)].into_iter().find_map(|(prefix, radix)| {
        let digits = text.strip_prefix(prefix)?;
        (!digits.is_empty() && digits.chars().all(|letter| letter.is_digit(radix))).then_some((digits, radix))
    });
    if let Some((digits, radix)) = radix {
        let number = u64::from_str_radix(digits, radix);
        return number
            .map(Value::unsigned)
            .map_err(|_| at.refused("number_precision", "the number is too large"));
    }
    if !is_number(unsigned) {
        return Ok(Value::string(text));
    }
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Value::Int(number));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Ok(Value::unsigned(number));
    }
    let number = text.parse::<f64>().ok().and_then(Value::float);
    number.ok_or_else(|| {
        at.refused("finite", format!("a number must be finite; {} is too large", quoted(text)))
    })
}

/// `[0-9]+`, `\.[0-9]+` or `[0-9]+\.[0-9]*`, then maybe an exponent.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    if exponent.is_some_and(|exponent| !digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))) {
        return false;
    }
    match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
    }
}
