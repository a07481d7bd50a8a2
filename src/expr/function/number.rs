//! Functions of one number. An integer stays an integer; a float stays a float, also when it is whole.

use super::super::Budget;
use super::super::arithmetic::negate;
use super::super::datum::{Datum, Number, Shape};
use super::super::error::Error;
use super::{argument, unfit};
use crate::model::Value;

pub(super) fn abs<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    match argument(arguments, 0) {
        Shape::Number(Number::Int(number)) if number < 0 => negate(&Datum::int(number)),
        Shape::Number(Number::Float(number)) => Ok(Datum::Own(Value::Float(number.abs()))),
        Shape::Number(number) => Ok(Datum::Own(number.value())),
        other => Err(unfit("abs", "a number", other)),
    }
}

pub(super) fn floor<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    rounded("floor", arguments, f64::floor)
}

pub(super) fn ceil<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    rounded("ceil", arguments, f64::ceil)
}

/// Halves go away from zero.
pub(super) fn round<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    rounded("round", arguments, f64::round)
}

pub(super) fn trunc<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    rounded("trunc", arguments, f64::trunc)
}

pub(super) fn sign<'a>(arguments: &[Datum<'a>], _: &mut Budget) -> Result<Datum<'a>, Error> {
    match argument(arguments, 0) {
        Shape::Number(Number::Int(number)) => Ok(Datum::int(number.signum())),
        Shape::Number(Number::UInt(_)) => Ok(Datum::int(1)),
        Shape::Number(Number::Float(0.0)) => Ok(Datum::Own(Value::Float(0.0))),
        Shape::Number(Number::Float(number)) => Ok(Datum::Own(Value::Float(number.signum()))),
        other => Err(unfit("sign", "a number", other)),
    }
}

fn rounded<'a>(name: &str, arguments: &[Datum<'a>], round: fn(f64) -> f64) -> Result<Datum<'a>, Error> {
    match argument(arguments, 0) {
        Shape::Number(Number::Float(number)) => Ok(Datum::Own(Value::Float(round(number)))),
        Shape::Number(number) => Ok(Datum::Own(number.value())),
        other => Err(unfit(name, "a number", other)),
    }
}
