//! From one type to another, and the parts of points in time.

use std::sync::Arc;

use super::super::Budget;
use super::super::arithmetic::{narrow, overflow};
use super::super::budget::{NOTATION, PIECE};
use super::super::datum::{Datum, Number, Shape};
use super::super::error::{self, Error, excerpt};
use super::super::moment::{self, Part};
use super::{argument, text_argument, unfit};
use crate::model::Value;

/// Fractions are cut off.
pub(super) fn int<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    whole("int", argument(arguments, 0), budget)?
        .and_then(|number| i64::try_from(number).ok())
        .map(Datum::int)
        .ok_or_else(|| overflow("the int"))
}

/// An integer that is not negative.
pub(super) fn uint<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    whole("uint", argument(arguments, 0), budget)?
        .filter(|number| *number >= 0)
        .and_then(narrow)
        .map(Datum::Own)
        .ok_or_else(|| overflow("the uint"))
}

/// `None`: out of any range.
fn whole(name: &str, shape: Shape<'_>, budget: &mut Budget) -> Result<Option<i128>, Error> {
    Ok(match shape {
        Shape::Number(Number::Int(number)) => Some(i128::from(number)),
        Shape::Number(Number::UInt(number)) => Some(i128::from(number)),
        Shape::Number(Number::Float(number)) => (number.abs() < 1e20).then_some(number as i128),
        Shape::Text(text) => {
            budget.take(PIECE)?;
            budget.scan(text.len())?;
            Some(text.parse().map_err(|_| not_a(name, text))?)
        }
        Shape::Timestamp(point) if name == "int" => Some(i128::from(point.as_second())),
        other => return Err(unfit(name, "a number or text", other)),
    })
}

pub(super) fn double<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let number = match argument(arguments, 0) {
        Shape::Number(number) => number.as_f64(),
        Shape::Text(text) => {
            budget.take(PIECE)?;
            budget.scan(text.len())?;
            text.parse().map_err(|_| not_a("double", text))?
        }
        other => return Err(unfit("double", "a number or text", other)),
    };
    Value::float(number).map(Datum::Own).ok_or_else(|| overflow("the double"))
}

pub(super) fn string<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let shape = argument(arguments, 0);
    budget.take(match shape {
        Shape::Number(Number::Float(_)) | Shape::Duration(_) | Shape::Timestamp(_) => NOTATION,
        _ => PIECE,
    })?;
    Ok(match shape {
        Shape::Text(_) => arguments.first().cloned().unwrap_or(Datum::NULL),
        Shape::Bool(value) => Datum::string(if value { "true" } else { "false" }),
        Shape::Number(Number::Int(number)) => Datum::string(number.to_string()),
        Shape::Number(Number::UInt(number)) => Datum::string(number.to_string()),
        Shape::Number(Number::Float(number)) => {
            // Written out: 1e-300 is 302 characters.
            let text = number.to_string();
            budget.text(text.len())?;
            Datum::string(text)
        }
        Shape::Duration(duration) => Datum::string(moment::duration_text(duration)),
        Shape::Timestamp(point) => Datum::string(point.to_string()),
        Shape::Type(kind) => Datum::string(kind.name()),
        Shape::Bytes(bytes) => {
            budget.text(bytes.len())?;
            match std::str::from_utf8(bytes) {
                Ok(text) => Datum::string(text),
                Err(_) => return Err(Error::new(error::INVALID, "the bytes are no UTF-8")),
            }
        }
        other => {
            return Err(Error::new(
                error::TYPE,
                format!("string() does not take {}; use to_json()", other.name()),
            ));
        }
    })
}

pub(super) fn bool<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    match argument(arguments, 0) {
        Shape::Bool(value) => Ok(Datum::bool(value)),
        Shape::Text("true" | "True" | "TRUE" | "t" | "T" | "1") => Ok(Datum::bool(true)),
        Shape::Text("false" | "False" | "FALSE" | "f" | "F" | "0") => Ok(Datum::bool(false)),
        Shape::Text(text) => Err(not_a("bool", text)),
        other => Err(unfit("bool", "a bool or text", other)),
    }
}

pub(super) fn bytes<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    match argument(arguments, 0) {
        Shape::Bytes(_) => Ok(arguments.first().cloned().unwrap_or(Datum::NULL)),
        Shape::Text(text) => {
            budget.text(text.len())?;
            Ok(Datum::Bytes(text.as_bytes().into()))
        }
        other => Err(unfit("bytes", "text", other)),
    }
}

/// Every value is dynamic here.
pub(super) fn dynamic<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    Ok(arguments.first().cloned().unwrap_or(Datum::NULL))
}

pub(super) fn type_of<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    Ok(Datum::Type(argument(arguments, 0).kind()))
}

pub(super) fn duration<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    match argument(arguments, 0) {
        Shape::Duration(duration) => Ok(Datum::Duration(duration)),
        Shape::Text(text) => {
            budget.take(NOTATION)?;
            budget.scan(text.len())?;
            moment::parse_duration(text).map(Datum::Duration)
        }
        other => Err(unfit("duration", "text such as \"90s\"", other)),
    }
}

/// From RFC 3339, or from whole seconds since 1970.
pub(super) fn timestamp<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    match argument(arguments, 0) {
        Shape::Timestamp(point) => Ok(Datum::Timestamp(point)),
        Shape::Number(Number::Int(seconds)) => {
            budget.take(PIECE)?;
            moment::from_seconds(seconds).map(Datum::Timestamp)
        }
        Shape::Text(text) => {
            budget.take(NOTATION)?;
            budget.scan(text.len())?;
            moment::parse_timestamp(text).map(Datum::Timestamp)
        }
        other => Err(unfit("timestamp", "text or seconds", other)),
    }
}

pub(super) fn parse_json<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let text = text_argument("parse_json", arguments, 0)?;
    // A value takes at least two bytes and up to 40 in memory.
    budget.take(NOTATION + text.len() as u64 * 3 / 2)?;
    Value::from_json(text.as_bytes())
        .map(Datum::Own)
        .map_err(|error| Error::new(error::INVALID, format!("parse_json(): the text is no JSON: {error}")))
}

pub(super) fn to_json<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let datum = arguments.first().cloned().unwrap_or(Datum::NULL);
    budget.take(NOTATION)?;
    let bytes = budget.measure(datum.shape())?;
    budget.text(bytes)?;
    Ok(Datum::string(datum.into_value()?.to_json()))
}

/// A group's key: text as it is, anything else as JSON.
pub(in super::super) fn key_text(key: &Datum<'_>, budget: &mut Budget) -> Result<Arc<str>, Error> {
    if let Some(Value::String(text)) = key.plain() {
        return Ok(Arc::clone(text));
    }
    budget.take(PIECE)?;
    budget.measure(key.shape())?;
    Ok(match key.clone().into_value()? {
        Value::String(text) => text,
        other => other.to_json().into(),
    })
}

fn not_a(name: &str, text: &str) -> Error {
    Error::new(error::INVALID, format!("{:?} is no {name}", excerpt(text)))
}

pub(super) fn get_full_year<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getFullYear", arguments, Part::FullYear)
}

pub(super) fn get_month<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getMonth", arguments, Part::Month)
}

pub(super) fn get_day_of_month<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getDayOfMonth", arguments, Part::DayOfMonth)
}

pub(super) fn get_date<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getDate", arguments, Part::Date)
}

pub(super) fn get_day_of_week<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getDayOfWeek", arguments, Part::DayOfWeek)
}

pub(super) fn get_day_of_year<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getDayOfYear", arguments, Part::DayOfYear)
}

pub(super) fn get_hours<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getHours", arguments, Part::Hours)
}

pub(super) fn get_minutes<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getMinutes", arguments, Part::Minutes)
}

pub(super) fn get_seconds<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getSeconds", arguments, Part::Seconds)
}

pub(super) fn get_milliseconds<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    part(budget, "getMilliseconds", arguments, Part::Milliseconds)
}

fn part<'a>(
    budget: &mut Budget,
    name: &str,
    arguments: &[Datum<'a>],
    part: Part,
) -> Result<Datum<'a>, Error> {
    budget.take(PIECE)?;
    match argument(arguments, 0) {
        Shape::Timestamp(point) => Ok(Datum::int(moment::part_of(point, part))),
        Shape::Duration(duration) => moment::whole_of(duration, part)
            .map(Datum::int)
            .ok_or_else(|| unfit(name, "a timestamp", Shape::Duration(duration))),
        other => Err(unfit(name, "a timestamp; timestamp() makes one", other)),
    }
}
