//! Text functions. Positions count characters (code points), as in CEL's strings extension.

use super::super::Budget;
use super::super::datum::{Datum, Number, Shape};
use super::super::error::{self, Error};
use super::{argument, int_argument, list, text_argument, unfit};
use crate::model::Value;

pub(super) fn contains<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    if let Shape::List(_) = argument(arguments, 0) {
        return Err(Error::new(error::TYPE, "contains() looks into text; for a list write `x in list`"));
    }
    let (text, part) = two("contains", arguments, budget)?;
    Ok(Datum::bool(text.contains(part)))
}

pub(super) fn starts_with<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (text, part) = two("startsWith", arguments, budget)?;
    Ok(Datum::bool(text.starts_with(part)))
}

pub(super) fn ends_with<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (text, part) = two("endsWith", arguments, budget)?;
    Ok(Datum::bool(text.ends_with(part)))
}

/// Two texts that will be read once.
fn two<'d>(name: &str, arguments: &'d [Datum<'_>], budget: &mut Budget) -> Result<(&'d str, &'d str), Error> {
    let (text, part) = (text_argument(name, arguments, 0)?, text_argument(name, arguments, 1)?);
    budget.scan(text.len() + part.len())?;
    Ok((text, part))
}

pub(super) fn lower_ascii<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let text = text_argument("lowerAscii", arguments, 0)?;
    budget.text(text.len())?;
    Ok(Datum::string(text.to_ascii_lowercase()))
}

pub(super) fn upper_ascii<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let text = text_argument("upperAscii", arguments, 0)?;
    budget.text(text.len())?;
    Ok(Datum::string(text.to_ascii_uppercase()))
}

pub(super) fn trim<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let text = text_argument("trim", arguments, 0)?;
    budget.text(text.len())?;
    Ok(Datum::string(text.trim()))
}

/// `split(text, separator[, limit])`; a limit below 0 is none.
pub(super) fn split<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (text, separator) = two("split", arguments, budget)?;
    budget.text(text.len())?;
    let limit = if arguments.len() > 2 { int_argument("split", arguments, 2)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut parts: Vec<Value> = Vec::new();
    if separator.is_empty() {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if parts.len() >= limit {
                break;
            }
            let cut = if parts.len() + 1 == limit { rest.len() } else { first.len_utf8() };
            let (part, after) = rest.split_at(cut);
            budget.list(1)?;
            budget.push(parts.len())?;
            parts.push(Value::string(part));
            rest = after;
        }
    } else {
        for part in text.splitn(limit, separator) {
            budget.list(1)?;
            budget.push(parts.len())?;
            parts.push(Value::string(part));
        }
    }
    Ok(Datum::Own(Value::list(parts)))
}

/// `join(list[, separator])`
pub(super) fn join<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let Shape::List(items) = argument(arguments, 0) else {
        return Err(unfit("join", "a list of texts", argument(arguments, 0)));
    };
    let separator = if arguments.len() > 1 { text_argument("join", arguments, 1)? } else { "" };
    budget.take(items.len() as u64)?;
    let mut bytes = separator.len().saturating_mul(items.len().saturating_sub(1));
    for item in items.iter() {
        match item {
            Shape::Text(text) => bytes = bytes.saturating_add(text.len()),
            other => return Err(unfit("join", "a list of texts", other)),
        }
    }
    budget.text(bytes)?;
    let mut joined = String::with_capacity(bytes);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        if let Shape::Text(text) = item {
            joined.push_str(text);
        }
    }
    Ok(Datum::string(joined))
}

/// `replace(text, old, new[, limit])`
pub(super) fn replace<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (text, old) = two("replace", arguments, budget)?;
    let new = text_argument("replace", arguments, 2)?;
    let limit = if arguments.len() > 3 { int_argument("replace", arguments, 3)? } else { -1 };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = text.matches(old).count().min(limit);
    budget.take(count as u64)?;
    let bytes = text.len().saturating_add(count.saturating_mul(new.len()));
    budget.text(bytes)?;
    Ok(Datum::string(text.replacen(old, new, count)))
}

/// `substring(text, start[, end])`
pub(super) fn substring<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let text = text_argument("substring", arguments, 0)?;
    budget.text(text.len())?;
    let start = int_argument("substring", arguments, 1)?;
    let from = byte_of(text, start);
    let to = if arguments.len() > 2 {
        byte_of(text, int_argument("substring", arguments, 2)?)
    } else {
        Some(text.len())
    };
    match (from, to) {
        (Some(from), Some(to)) if from <= to => Ok(Datum::string(text.get(from..to).unwrap_or_default())),
        _ => Err(Error::new(
            error::INDEX,
            format!("substring() goes outside a text of {} characters", text.chars().count()),
        )),
    }
}

/// The byte where character `place` starts, or the end.
fn byte_of(text: &str, place: i64) -> Option<usize> {
    let place = usize::try_from(place).ok()?;
    text.char_indices().map(|(offset, _)| offset).chain([text.len()]).nth(place)
}

/// `indexOf(text, part[, start])`, -1 when it is not there; on a list, the place of an equal element.
pub(super) fn index_of<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (text, part) = match argument(arguments, 0) {
        Shape::List(items) => return list::position(items, argument(arguments, 1), budget),
        _ => two("indexOf", arguments, budget)?,
    };
    let start = if arguments.len() > 2 { int_argument("indexOf", arguments, 2)? } else { 0 };
    let Some(from) = byte_of(text, start) else {
        return Err(Error::new(error::INDEX, format!("indexOf() starts outside the text, at {start}")));
    };
    let found = text.get(from..).and_then(|rest| rest.find(part)).map(|at| from + at);
    Ok(place_of(text, found))
}

pub(super) fn last_index_of<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (text, part) = two("lastIndexOf", arguments, budget)?;
    Ok(place_of(text, text.rfind(part)))
}

fn place_of<'a>(text: &str, found: Option<usize>) -> Datum<'a> {
    match found.and_then(|at| text.get(..at)) {
        Some(before) => Datum::count(before.chars().count()),
        None => Datum::int(-1),
    }
}

/// The character at a place; the empty text just behind the end.
pub(super) fn char_at<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let text = text_argument("charAt", arguments, 0)?;
    budget.scan(text.len())?;
    let place = int_argument("charAt", arguments, 1)?;
    match byte_of(text, place).and_then(|from| text.get(from..)) {
        Some(rest) => Ok(Datum::string(rest.chars().next().map(String::from).unwrap_or_default())),
        None => Err(Error::new(
            error::INDEX,
            format!("there is no character {} in the text", Number::Int(place).value()),
        )),
    }
}
