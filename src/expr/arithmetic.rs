//! `+ - * / %` and negation.
//!
//! Integers stay integers and never wrap; with a float on either side both become floats (JSON writes 1 and 1.5 for
//! the same field). Results that are not finite are errors.

use std::sync::Arc;

use super::Budget;
use super::datum::{Datum, Items, ListBuilder, Number, Shape};
use super::error::{self, Error};
use super::moment;
use super::tree::Arithmetic;
use crate::model::Value;

/// `a op b`.
#[inline]
pub(super) fn apply<'a>(
    op: Arithmetic,
    a: &Datum<'a>,
    b: &Datum<'a>,
    budget: &mut Budget,
) -> Result<Datum<'a>, Error> {
    match (a.shape(), b.shape()) {
        (Shape::Number(a), Shape::Number(b)) => numbers(op, a, b).map(Datum::Own),
        _ if op == Arithmetic::Add => add(a, b, budget),
        _ if op == Arithmetic::Subtract => subtract(a, b),
        (a, b) => Err(unfit(op, a, b)),
    }
}

/// `-a`.
pub(super) fn negate<'a>(a: &Datum<'_>) -> Result<Datum<'a>, Error> {
    match a.shape() {
        Shape::Number(Number::Float(number)) => Ok(Datum::Own(Value::Float(-number))),
        Shape::Number(number) => numbers(Arithmetic::Subtract, Number::Int(0), number).map(Datum::Own),
        Shape::Duration(duration) => {
            duration.checked_neg().map(Datum::Duration).ok_or_else(|| overflow("the negated duration"))
        }
        other => Err(Error::new(error::TYPE, format!("`-` needs a number, not {}", other.name()))),
    }
}

#[inline]
pub(super) fn numbers(op: Arithmetic, a: Number, b: Number) -> Result<Value, Error> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => ints(op, a, b).map(Value::Int),
        (Number::Float(_), _) | (_, Number::Float(_)) => floats(op, a.as_f64(), b.as_f64()),
        (a, b) => wide(op, integer(a), integer(b)),
    }
}

#[inline]
fn ints(op: Arithmetic, a: i64, b: i64) -> Result<i64, Error> {
    let result = match op {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide if b == 0 => return Err(by_zero(op)),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Modulo if b == 0 => return Err(by_zero(op)),
        Arithmetic::Modulo => a.checked_rem(b),
    };
    result.ok_or_else(|| overflow(&format!("{a} {} {b}", op.sign())))
}

/// At least one side is above `i64::MAX`; the result may lie anywhere between `i64::MIN` and `u64::MAX`.
#[cold]
fn wide(op: Arithmetic, a: i128, b: i128) -> Result<Value, Error> {
    let result = match op {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide | Arithmetic::Modulo if b == 0 => return Err(by_zero(op)),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Modulo => a.checked_rem(b),
    };
    result.and_then(narrow).ok_or_else(|| overflow(&format!("{a} {} {b}", op.sign())))
}

/// An integer of the model, when it fits one.
pub(super) fn narrow(number: i128) -> Option<Value> {
    i64::try_from(number).map(Value::Int).or_else(|_| u64::try_from(number).map(Value::unsigned)).ok()
}

fn integer(number: Number) -> i128 {
    match number {
        Number::Int(number) => i128::from(number),
        Number::UInt(number) => i128::from(number),
        Number::Float(number) => number as i128,
    }
}

fn floats(op: Arithmetic, a: f64, b: f64) -> Result<Value, Error> {
    let result = match op {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide if b == 0.0 => return Err(by_zero(op)),
        Arithmetic::Divide => a / b,
        Arithmetic::Modulo => {
            return Err(Error::new(error::TYPE, "`%` needs two integers, not double"));
        }
    };
    Value::float(result).ok_or_else(|| overflow(&format!("{a} {} {b}", op.sign())))
}

fn add<'a>(a: &Datum<'a>, b: &Datum<'a>, budget: &mut Budget) -> Result<Datum<'a>, Error> {
    match (a.shape(), b.shape()) {
        (Shape::Text(a), Shape::Text(b)) => {
            budget.text(a.len() + b.len())?;
            Ok(Datum::string([a, b].concat()))
        }
        (Shape::List(left), Shape::List(right)) => concatenate((a, left), (b, right), budget),
        (Shape::Duration(a), Shape::Duration(b)) => {
            a.checked_add(b).map(Datum::Duration).ok_or_else(|| overflow("the sum of the durations"))
        }
        (Shape::Timestamp(point), Shape::Duration(by)) | (Shape::Duration(by), Shape::Timestamp(point)) => {
            moment::shift(point, by).map(Datum::Timestamp)
        }
        (Shape::Bytes(a), Shape::Bytes(b)) => {
            budget.text(a.len() + b.len())?;
            Ok(Datum::Bytes([a, b].concat().into()))
        }
        (a, b) => Err(unfit(Arithmetic::Add, a, b)),
    }
}

fn subtract<'a>(a: &Datum<'_>, b: &Datum<'_>) -> Result<Datum<'a>, Error> {
    match (a.shape(), b.shape()) {
        (Shape::Duration(a), Shape::Duration(b)) => {
            a.checked_sub(b).map(Datum::Duration).ok_or_else(|| overflow("the difference of the durations"))
        }
        (Shape::Timestamp(point), Shape::Duration(by)) => {
            let by = by.checked_neg().ok_or_else(|| overflow("the negated duration"))?;
            moment::shift(point, by).map(Datum::Timestamp)
        }
        (Shape::Timestamp(a), Shape::Timestamp(b)) => Ok(Datum::Duration(a.duration_since(b))),
        (a, b) => Err(unfit(Arithmetic::Subtract, a, b)),
    }
}

fn concatenate<'a>(
    (a, left): (&Datum<'a>, Items<'_>),
    (b, right): (&Datum<'a>, Items<'_>),
    budget: &mut Budget,
) -> Result<Datum<'a>, Error> {
    let count = left.len() + right.len();
    budget.list(count)?;
    if let (Items::Plain(left), Items::Plain(right)) = (left, right) {
        return Ok(Datum::Own(Value::List(Arc::from([left, right].concat()))));
    }
    let mut list = ListBuilder::with_capacity(count);
    for (datum, items) in [(a, left), (b, right)] {
        (0..items.len()).filter_map(|index| datum.element(index)).for_each(|element| list.push(element));
    }
    Ok(list.finish())
}

#[cold]
fn unfit(op: Arithmetic, a: Shape<'_>, b: Shape<'_>) -> Error {
    let hint = match (op, a, b) {
        (Arithmetic::Add, Shape::Text(_), _) | (Arithmetic::Add, _, Shape::Text(_)) => {
            "; turn the other side into text with string()"
        }
        _ => "",
    };
    Error::new(error::TYPE, format!("`{}` does not work on {} and {}{hint}", op.sign(), a.name(), b.name()))
}

#[cold]
fn by_zero(op: Arithmetic) -> Error {
    Error::new(error::DIVISION_BY_ZERO, format!("`{}` by zero", op.sign()))
}

#[cold]
pub(super) fn overflow(what: &str) -> Error {
    Error::new(error::OVERFLOW, format!("{what} is out of range"))
}
