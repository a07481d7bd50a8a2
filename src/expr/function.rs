//! The functions an expression may call, in one table. Each pays for what it touches before it touches it.
//!
//! Names are CEL's where CEL has the function (the strings and math extensions included), and WORKFLOW.md's for the
//! helpers. docs/expressions.md has an example of each.

mod convert;
mod list;
mod number;
mod pattern;
mod text;

use super::Budget;
use super::datum::{Datum, Shape};
use super::error::{self, Error};

pub(super) use convert::key_text;
pub(super) use pattern::Pattern;

type Run = for<'a> fn(&[Datum<'a>], &mut Budget) -> Result<Datum<'a>, Error>;

/// One function; the target of a method call is its first argument.
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Arguments, at least and at most.
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) run: Run,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// As many arguments as the expression has room for.
pub(super) const ANY: usize = usize::MAX;

const fn function(name: &'static str, least: usize, most: usize, run: Run) -> Function {
    Function { name, least, most, run }
}

static FUNCTIONS: [Function; 64] = [
    function("size", 1, 1, list::size),
    // text
    function("contains", 2, 2, text::contains),
    function("startsWith", 2, 2, text::starts_with),
    function("endsWith", 2, 2, text::ends_with),
    function("matches", 2, 2, pattern::matches),
    function("lowerAscii", 1, 1, text::lower_ascii),
    function("upperAscii", 1, 1, text::upper_ascii),
    function("trim", 1, 1, text::trim),
    function("split", 2, 3, text::split),
    function("join", 1, 2, text::join),
    function("replace", 3, 4, text::replace),
    function("substring", 2, 3, text::substring),
    function("indexOf", 2, 3, text::index_of),
    function("lastIndexOf", 2, 2, text::last_index_of),
    function("charAt", 2, 2, text::char_at),
    // conversions
    function("int", 1, 1, convert::int),
    function("uint", 1, 1, convert::uint),
    function("double", 1, 1, convert::double),
    function("string", 1, 1, convert::string),
    function("bool", 1, 1, convert::bool),
    function("bytes", 1, 1, convert::bytes),
    function("dyn", 1, 1, convert::dynamic),
    function("type", 1, 1, convert::type_of),
    function("duration", 1, 1, convert::duration),
    function("timestamp", 1, 1, convert::timestamp),
    function("parse_json", 1, 1, convert::parse_json),
    function("to_json", 1, 1, convert::to_json),
    function("getFullYear", 1, 1, convert::get_full_year),
    function("getMonth", 1, 1, convert::get_month),
    function("getDayOfMonth", 1, 1, convert::get_day_of_month),
    function("getDate", 1, 1, convert::get_date),
    function("getDayOfWeek", 1, 1, convert::get_day_of_week),
    function("getDayOfYear", 1, 1, convert::get_day_of_year),
    function("getHours", 1, 1, convert::get_hours),
    function("getMinutes", 1, 1, convert::get_minutes),
    function("getSeconds", 1, 1, convert::get_seconds),
    function("getMilliseconds", 1, 1, convert::get_milliseconds),
    // numbers
    function("abs", 1, 1, number::abs),
    function("floor", 1, 1, number::floor),
    function("ceil", 1, 1, number::ceil),
    function("round", 1, 1, number::round),
    function("trunc", 1, 1, number::trunc),
    function("sign", 1, 1, number::sign),
    // lists and maps
    function("sum", 1, ANY, list::sum),
    function("avg", 1, ANY, list::avg),
    function("min", 1, ANY, list::min),
    function("max", 1, ANY, list::max),
    function("distinct", 1, 1, list::distinct),
    function("flatten", 1, 1, list::flatten),
    function("reverse", 1, 1, list::reverse),
    function("slice", 3, 3, list::slice),
    function("keys", 1, 1, list::keys),
    function("values", 1, 1, list::values),
    function("range", 1, 1, list::range),
    // their names in CEL's math extension
    function("math.abs", 1, 1, number::abs),
    function("math.floor", 1, 1, number::floor),
    function("math.ceil", 1, 1, number::ceil),
    function("math.round", 1, 1, number::round),
    function("math.trunc", 1, 1, number::trunc),
    function("math.sign", 1, 1, number::sign),
    function("math.least", 1, ANY, list::min),
    function("math.greatest", 1, ANY, list::max),
    function("math.min", 1, ANY, list::min),
    function("math.max", 1, ANY, list::max),
];

/// The function of that name.
pub(super) fn named(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// `math.<name>`
pub(super) fn math(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name.strip_prefix("math.") == Some(name))
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name)
}

/// Argument `index`; the table has checked that there are enough.
fn argument<'d>(arguments: &'d [Datum<'_>], index: usize) -> Shape<'d> {
    arguments.get(index).map_or(Shape::Null, Datum::shape)
}

/// Argument `index` as text.
fn text_argument<'d>(name: &str, arguments: &'d [Datum<'_>], index: usize) -> Result<&'d str, Error> {
    match argument(arguments, index) {
        Shape::Text(text) => Ok(text),
        other => Err(unfit(name, "text", other)),
    }
}

/// Argument `index` as an integer.
fn int_argument(name: &str, arguments: &[Datum<'_>], index: usize) -> Result<i64, Error> {
    match argument(arguments, index) {
        Shape::Number(super::datum::Number::Int(number)) => Ok(number),
        other => Err(unfit(name, "an integer", other)),
    }
}

#[cold]
fn unfit(name: &str, wanted: &str, found: Shape<'_>) -> Error {
    Error::new(error::TYPE, format!("{name}() needs {wanted}, not {}", found.name()))
}
