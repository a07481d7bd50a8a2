//! From a JSON Pointer to a line and a column of the source. Asked only for findings, so it reads the source again
//! instead of keeping a position for every value. A pointer to something that is not there takes the place of what
//! would hold it.

use std::collections::BTreeMap;
use std::sync::Arc;

use granit_parser::{Event, Span};
use serde_json::value::RawValue;

use super::finding::Findings;
use super::read::yaml;
use super::{Format, pointer};

type Places = BTreeMap<String, Option<(u32, u32)>>;

/// Fills in `file`, `line` and `column` of every finding that has no place yet.
pub(super) fn locate(findings: &mut Findings, text: &str, format: Format, file: Option<&str>) {
    if findings.is_empty() {
        return;
    }
    let mut places = Places::new();
    for finding in findings.all_mut() {
        finding.file = file.map(str::to_owned);
        let mut pointer = Some(finding.pointer.as_str());
        while let Some(wanted) = pointer {
            if finding.line != 0 || places.insert(wanted.to_owned(), None).is_some() {
                break;
            }
            pointer = pointer::parent(wanted);
        }
    }
    match format {
        Format::Json => {
            let mut walk = Walk { text, places: &mut places, before: (0, 1, 1) };
            if let Ok(raw) = serde_json::from_str::<&RawValue>(text) {
                walk.value(raw, &mut String::new());
            }
        }
        Format::Yaml => in_yaml(text, &mut places),
    }
    for finding in findings.all_mut().filter(|finding| finding.line == 0) {
        let mut pointer = Some(finding.pointer.as_str());
        while let Some(wanted) = pointer {
            if let Some(Some((line, column))) = places.get(wanted) {
                (finding.line, finding.column) = (*line, *column);
                break;
            }
            pointer = pointer::parent(wanted);
        }
    }
}

/// Line and column of a byte offset, from 1, columns in characters.
pub(super) fn count(text: &str, offset: usize) -> (u32, u32) {
    advance(text, (0, 1, 1), offset)
}

fn advance(text: &str, (from, mut line, mut column): (usize, u32, u32), to: usize) -> (u32, u32) {
    for letter in text.get(from..to).unwrap_or_default().chars() {
        if letter == '\n' {
            line = line.saturating_add(1);
            column = 1;
        } else {
            column = column.saturating_add(1);
        }
    }
    (line, column)
}

/// The text of member `key` of a JSON object.
pub(super) fn json_text(text: &str, key: &str) -> Option<Arc<str>> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    members.get(key).map(|raw| raw.get().into())
}

struct Walk<'t, 'p> {
    text: &'t str,
    places: &'p mut Places,
    /// Offset, line and column of the last place looked up.
    before: (usize, u32, u32),
}

impl<'t> Walk<'t, '_> {
    /// Nesting is bounded: the text has been read as a value before.
    fn value(&mut self, raw: &'t RawValue, at: &mut String) {
        if !self.places.contains_key(at.as_str()) {
            return;
        }
        let inner = raw.get();
        let offset = (inner.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let from = if offset < self.before.0 { (0, 1, 1) } else { self.before };
        let (line, column) = advance(self.text, from, offset);
        self.before = (offset, line, column);
        self.places.insert(at.clone(), Some((line, column)));
        let length = at.len();
        if inner.starts_with('{') {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(inner).unwrap_or_default();
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by_key(|(_, raw)| raw.get().as_ptr() as usize);
            for (key, raw) in members {
                pointer::push(at, &key);
                self.value(raw, at);
                at.truncate(length);
            }
        } else if inner.starts_with('[') {
            let items: Vec<&RawValue> = serde_json::from_str(inner).unwrap_or_default();
            for (index, raw) in items.into_iter().enumerate() {
                at.push('/');
                at.push_str(&index.to_string());
                self.value(raw, at);
                at.truncate(length);
            }
        }
    }
}

/// A list or map that is open: the pointer's length before its members, and which member comes next.
struct Open {
    length: usize,
    next: Next,
}

enum Next {
    Item(usize),
    Key,
    /// The key has been read and its place taken.
    Member,
}

fn mark(places: &mut Places, at: &str, span: &Span) {
    if let Some(place) = places.get_mut(at) {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        place.get_or_insert((number(span.start.line()), number(span.start.col() + 1)));
    }
}

fn in_yaml(text: &str, places: &mut Places) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut events = yaml::events(text);
    let mut at = String::new();
    let mut stack: Vec<Open> = Vec::new();
    while let Some(Ok((event, span))) = events.next_event() {
        let (opens, ends) = match &event {
            Event::Scalar(..) | Event::Alias(_) => (None, false),
            Event::SequenceStart(..) => (Some(Next::Item(0)), false),
            Event::MappingStart(..) => (Some(Next::Key), false),
            Event::SequenceEnd | Event::MappingEnd => (None, true),
            _ => continue,
        };
        if ends {
            stack.pop();
            let length = stack.last().map_or(0, |open| open.length);
            at.truncate(length);
            continue;
        }
        match stack.last_mut() {
            None => mark(places, &at, &span),
            Some(open) => match &mut open.next {
                Next::Key => {
                    if let Event::Scalar(key, ..) = &event {
                        pointer::push(&mut at, key);
                    }
                    open.next = Next::Member;
                    mark(places, &at, &span);
                    continue;
                }
                Next::Member => open.next = Next::Key,
                Next::Item(index) => {
                    at.push('/');
                    at.push_str(&index.to_string());
                    *index += 1;
                    mark(places, &at, &span);
                }
            },
        }
        match opens {
            Some(next) => stack.push(Open { length: at.len(), next }),
            None => at.truncate(stack.last().map_or(0, |open| open.length)),
        }
    }
}
