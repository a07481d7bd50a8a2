//! Functions of lists and maps. `sum`, `avg`, `min` and `max` take one list, or the values themselves as arguments.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::Budget;
use super::super::arithmetic;
use super::super::compare;
use super::super::datum::{Datum, Items, ListBuilder, Number, Shape};
use super::super::error::{self, Error};
use super::super::tree::Arithmetic;
use super::{argument, int_argument, unfit};
use crate::model::{Map, Value};

pub(super) fn size<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    Ok(Datum::count(match argument(arguments, 0) {
        Shape::Text(text) => {
            budget.scan(text.len())?;
            text.chars().count()
        }
        Shape::List(items) => items.len(),
        Shape::Map(map) => map.len(),
        Shape::Bytes(bytes) => bytes.len(),
        other => return Err(unfit("size", "text, a list or a map", other)),
    }))
}

/// Element `index` of the one list, or argument `index`.
fn each<'d, 'a>(arguments: &'d [Datum<'a>]) -> (usize, impl Fn(usize) -> Option<Datum<'a>> + use<'d, 'a>) {
    let list = match arguments {
        [only] => match only.shape() {
            Shape::List(items) => Some((only, items.len())),
            _ => None,
        },
        _ => None,
    };
    let count = list.map_or(arguments.len(), |(_, count)| count);
    (count, move |index| match list {
        Some((list, _)) => list.element(index),
        None => arguments.get(index).cloned(),
    })
}

pub(super) fn sum<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    total("sum", arguments, budget).map(|(total, _)| total)
}

fn total<'a>(name: &str, arguments: &[Datum<'a>], budget: &mut Budget) -> Result<(Datum<'a>, usize), Error> {
    let (count, element) = each(arguments);
    let mut total = Datum::int(0);
    for (index, item) in (0..count).filter_map(|index| Some((index, element(index)?))) {
        budget.take(2)?;
        let shape = item.shape();
        if !matches!(shape, Shape::Number(_) | Shape::Duration(_)) {
            return Err(unfit(name, "numbers (or durations)", shape));
        }
        total = if index == 0 { item } else { arithmetic::apply(Arithmetic::Add, &total, &item, budget)? };
    }
    Ok((total, count))
}

pub(super) fn avg<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (total, count) = total("avg", arguments, budget)?;
    match total.shape() {
        _ if count == 0 => Err(empty("avg")),
        Shape::Number(total) => {
            let count = Number::Float(count as f64);
            arithmetic::numbers(Arithmetic::Divide, total, count).map(Datum::Own)
        }
        Shape::Duration(total) => {
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            total.checked_div(count).map(Datum::Duration).ok_or_else(|| empty("avg"))
        }
        other => Err(unfit("avg", "numbers (or durations)", other)),
    }
}

pub(super) fn min<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    extreme("min", arguments, Ordering::Less, budget)
}

pub(super) fn max<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    extreme("max", arguments, Ordering::Greater, budget)
}

/// The first of the elements that come before (or after) all others.
fn extreme<'a>(
    name: &str,
    arguments: &[Datum<'a>],
    wanted: Ordering,
    budget: &mut Budget,
) -> Result<Datum<'a>, Error> {
    let (count, element) = each(arguments);
    let mut best: Option<Datum<'a>> = None;
    for item in (0..count).filter_map(element) {
        budget.take(1)?;
        // Compared with itself when it is the first: a value without an order has no extreme either.
        let than = best.as_ref().unwrap_or(&item);
        if compare::order(item.shape(), than.shape(), budget)? == wanted || best.is_none() {
            best = Some(item);
        }
    }
    best.ok_or_else(|| empty(name))
}

#[cold]
fn empty(name: &str) -> Error {
    Error::new(error::INVALID, format!("{name}() of an empty list"))
}

/// The first of equal elements, in the order of the list.
pub(super) fn distinct<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (list, items) = list_argument("distinct", arguments)?;
    budget.list(items.len())?;
    let order: Vec<(usize, Shape<'_>)> = items.iter().enumerate().collect();
    let sorted = compare::sort(order, budget, |(_, shape)| *shape, compare::any_order)?;
    let mut first: Vec<usize> = Vec::with_capacity(sorted.len());
    let mut before: Option<Shape<'_>> = None;
    for (index, shape) in sorted {
        let same = match before {
            Some(before) => compare::any_order(before, shape, budget)?.is_eq(),
            None => false,
        };
        if !same {
            first.push(index);
        }
        before = Some(shape);
    }
    first.sort_unstable();
    let mut kept = ListBuilder::with_capacity(first.len());
    first.into_iter().filter_map(|index| list.element(index)).for_each(|element| kept.push(element));
    Ok(kept.finish())
}

/// Lists in the list are replaced by their elements, one level deep.
pub(super) fn flatten<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (list, items) = list_argument("flatten", arguments)?;
    let mut flat = ListBuilder::default();
    for element in (0..items.len()).filter_map(|index| list.element(index)) {
        budget.take(1)?;
        match element.shape() {
            Shape::List(inner) => {
                for inner in (0..inner.len()).filter_map(|index| element.element(index)) {
                    budget.take(1)?;
                    budget.push(flat.len())?;
                    flat.push(inner);
                }
            }
            _ => {
                budget.push(flat.len())?;
                flat.push(element);
            }
        }
    }
    Ok(flat.finish())
}

/// A list, or a text, from the back.
pub(super) fn reverse<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    if let Shape::Text(text) = argument(arguments, 0) {
        budget.text(text.len())?;
        return Ok(Datum::string(text.chars().rev().collect::<String>()));
    }
    let (list, items) = list_argument("reverse", arguments)?;
    pick(list, (0..items.len()).rev(), budget)
}

/// `slice(list, start, end)`: the elements from `start` up to, and without, `end`.
pub(super) fn slice<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let (list, items) = list_argument("slice", arguments)?;
    let (start, end) = (int_argument("slice", arguments, 1)?, int_argument("slice", arguments, 2)?);
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end && end <= items.len() => pick(list, start..end, budget),
        _ => Err(Error::new(
            error::INDEX,
            format!("slice() from {start} to {end} is outside a list of {} elements", items.len()),
        )),
    }
}

fn pick<'a>(
    list: &Datum<'a>,
    places: impl ExactSizeIterator<Item = usize>,
    budget: &mut Budget,
) -> Result<Datum<'a>, Error> {
    budget.list(places.len())?;
    let mut picked = ListBuilder::with_capacity(places.len());
    places.filter_map(|place| list.element(place)).for_each(|element| picked.push(element));
    Ok(picked.finish())
}

pub(super) fn keys<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let map = map_argument("keys", arguments)?;
    budget.list(map.len())?;
    Ok(Datum::Own(Value::list(map.iter().map(|(key, _)| Value::String(Arc::clone(key))).collect())))
}

pub(super) fn values<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let map = map_argument("values", arguments)?;
    budget.list(map.len())?;
    Ok(Datum::Own(Value::list(map.iter().map(|(_, value)| value.clone()).collect())))
}

/// `range(n)`: `[0, 1, ... n - 1]`
pub(super) fn range<'a>(arguments: &[Datum<'a>], budget: &mut Budget) -> Result<Datum<'a>, Error> {
    let count = int_argument("range", arguments, 0)?;
    if count < 0 {
        return Err(Error::new(error::INVALID, format!("range() needs a count of 0 or more, not {count}")));
    }
    budget.list(usize::try_from(count).unwrap_or(usize::MAX))?;
    Ok(Datum::Own(Value::list((0..count).map(Value::Int).collect())))
}

/// The place of the first element that is equal, or -1.
pub(super) fn position<'a>(
    items: Items<'_>,
    wanted: Shape<'_>,
    budget: &mut Budget,
) -> Result<Datum<'a>, Error> {
    for (index, item) in items.iter().enumerate() {
        budget.take(1)?;
        if compare::equal(item, wanted, budget)? {
            return Ok(Datum::count(index));
        }
    }
    Ok(Datum::int(-1))
}

fn list_argument<'d, 'a>(
    name: &str,
    arguments: &'d [Datum<'a>],
) -> Result<(&'d Datum<'a>, Items<'d>), Error> {
    match (arguments.first(), argument(arguments, 0)) {
        (Some(list), Shape::List(items)) => Ok((list, items)),
        (_, other) => Err(unfit(name, "a list", other)),
    }
}

fn map_argument<'d>(name: &str, arguments: &'d [Datum<'_>]) -> Result<&'d Map, Error> {
    match argument(arguments, 0) {
        Shape::Map(map) => Ok(map),
        other => Err(unfit(name, "a map", other)),
    }
}
