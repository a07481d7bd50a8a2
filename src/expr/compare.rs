//! Equality, order and sorting.
//!
//! Numbers compare by value across int, uint and double, exactly: `81 == 81.0`, and no integer is rounded to be
//! compared. Unlike kinds are unequal, and have no order. Whatever looks into lists and maps pays for what it touches
//! and can therefore fail, which is why the sort is our own: the standard one has no way out of a comparison.

use std::cmp::Ordering;

use super::Budget;
use super::datum::{Number, Shape};
use super::error::{self, Error};
use crate::model::Map;

/// `a == b`.
#[inline]
pub(super) fn equal(a: Shape<'_>, b: Shape<'_>, budget: &mut Budget) -> Result<bool, Error> {
    Ok(match (a, b) {
        (Shape::Number(a), Shape::Number(b)) => numbers(a, b).is_eq(),
        (Shape::Text(a), Shape::Text(b)) => {
            a.len() == b.len() && {
                budget.scan(a.len())?;
                a == b
            }
        }
        (Shape::Null, Shape::Null) => true,
        (Shape::Bool(a), Shape::Bool(b)) => a == b,
        (Shape::List(_), Shape::List(_)) | (Shape::Map(_), Shape::Map(_)) => {
            total(a, b, Lists::Unordered, budget)?.is_eq()
        }
        (Shape::Bytes(a), Shape::Bytes(b)) => {
            budget.scan(a.len().min(b.len()))?;
            a == b
        }
        (Shape::Duration(a), Shape::Duration(b)) => a == b,
        (Shape::Timestamp(a), Shape::Timestamp(b)) => a == b,
        (Shape::Type(a), Shape::Type(b)) => a == b,
        _ => false,
    })
}

/// The order of two values of one kind that has an order.
#[inline]
pub(super) fn order(a: Shape<'_>, b: Shape<'_>, budget: &mut Budget) -> Result<Ordering, Error> {
    Ok(match (a, b) {
        (Shape::Number(a), Shape::Number(b)) => numbers(a, b),
        (Shape::Text(a), Shape::Text(b)) => {
            budget.scan(a.len().min(b.len()))?;
            a.cmp(b)
        }
        (Shape::Bool(a), Shape::Bool(b)) => a.cmp(&b),
        (Shape::Bytes(a), Shape::Bytes(b)) => {
            budget.scan(a.len().min(b.len()))?;
            a.cmp(b)
        }
        (Shape::Duration(a), Shape::Duration(b)) => a.cmp(&b),
        (Shape::Timestamp(a), Shape::Timestamp(b)) => a.cmp(&b),
        (a, b) => {
            return Err(Error::new(error::TYPE, format!("{} and {} have no order", a.name(), b.name())));
        }
    })
}

/// An order over all values that agrees with [`equal`]; not for users, but to find equal values.
pub(super) fn any_order(a: Shape<'_>, b: Shape<'_>, budget: &mut Budget) -> Result<Ordering, Error> {
    total(a, b, Lists::Ordered, budget)
}

/// Does the order of two lists of unlike length matter, or only that they are unequal?
#[derive(Clone, Copy, PartialEq)]
enum Lists {
    Ordered,
    Unordered,
}

fn total(a: Shape<'_>, b: Shape<'_>, lists: Lists, budget: &mut Budget) -> Result<Ordering, Error> {
    budget.take(1)?;
    Ok(match (a, b) {
        (Shape::List(a), Shape::List(b)) => {
            if lists == Lists::Unordered && a.len() != b.len() {
                return Ok(a.len().cmp(&b.len()));
            }
            for (a, b) in a.iter().zip(b.iter()) {
                budget.take(1)?;
                let ordering = total(a, b, lists, budget)?;
                if ordering.is_ne() {
                    return Ok(ordering);
                }
            }
            a.len().cmp(&b.len())
        }
        (Shape::Map(a), Shape::Map(b)) => maps(a, b, lists, budget)?,
        (Shape::Null, Shape::Null) => Ordering::Equal,
        (Shape::Type(a), Shape::Type(b)) => a.cmp(&b),
        (a, b) if rank(a) == rank(b) => order(a, b, budget)?,
        (a, b) => rank(a).cmp(&rank(b)),
    })
}

fn maps(a: &Map, b: &Map, lists: Lists, budget: &mut Budget) -> Result<Ordering, Error> {
    if std::ptr::eq(a, b) {
        return Ok(Ordering::Equal);
    }
    if lists == Lists::Unordered && a.len() != b.len() {
        return Ok(a.len().cmp(&b.len()));
    }
    for ((a_key, a_value), (b_key, b_value)) in a.iter().zip(b.iter()) {
        budget.scan(a_key.len())?;
        let ordering = a_key.cmp(b_key);
        if ordering.is_ne() {
            return Ok(ordering);
        }
        let ordering = total(Shape::of(a_value), Shape::of(b_value), lists, budget)?;
        if ordering.is_ne() {
            return Ok(ordering);
        }
    }
    Ok(a.len().cmp(&b.len()))
}

/// Numbers of all types share a rank.
fn rank(shape: Shape<'_>) -> u8 {
    match shape {
        Shape::Null => 0,
        Shape::Bool(_) => 1,
        Shape::Number(_) => 2,
        Shape::Text(_) => 3,
        Shape::List(_) => 4,
        Shape::Map(_) => 5,
        Shape::Bytes(_) => 6,
        Shape::Duration(_) => 7,
        Shape::Timestamp(_) => 8,
        Shape::Type(_) => 9,
    }
}

/// By value, exactly.
#[inline]
pub(super) fn numbers(a: Number, b: Number) -> Ordering {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => a.cmp(&b),
        (Number::UInt(a), Number::UInt(b)) => a.cmp(&b),
        (Number::Int(a), Number::UInt(b)) => i128::from(a).cmp(&i128::from(b)),
        (Number::UInt(a), Number::Int(b)) => i128::from(a).cmp(&i128::from(b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (Number::Int(a), Number::Float(b)) => integer_and_float(i128::from(a), b),
        (Number::UInt(a), Number::Float(b)) => integer_and_float(i128::from(a), b),
        (Number::Float(a), Number::Int(b)) => integer_and_float(i128::from(b), a).reverse(),
        (Number::Float(a), Number::UInt(b)) => integer_and_float(i128::from(b), a).reverse(),
    }
}

fn integer_and_float(a: i128, b: f64) -> Ordering {
    // Beyond any integer of ours the cast below would still be right (it saturates), but say so plainly.
    const BEYOND: f64 = 1e30;
    if b >= BEYOND {
        return Ordering::Less;
    }
    if b <= -BEYOND {
        return Ordering::Greater;
    }
    let whole = b.trunc();
    a.cmp(&(whole as i128)).then_with(|| 0.0_f64.partial_cmp(&(b - whole)).unwrap_or(Ordering::Equal))
}

/// The first bytes of a text, in the order of texts: of two that differ, the smaller one's text is smaller. 0 for
/// anything else.
fn head(shape: Shape<'_>) -> u64 {
    let Shape::Text(text) = shape else { return 0 };
    let mut head = [0; 8];
    head.iter_mut().zip(text.bytes()).for_each(|(into, byte)| *into = byte);
    u64::from_be_bytes(head)
}

/// Stable merge sort by an order that may fail and, between two texts, is that of texts; pays one step a comparison.
pub(super) fn sort<T>(
    items: Vec<T>,
    budget: &mut Budget,
    key: impl Fn(&T) -> Shape<'_>,
    mut order: impl FnMut(Shape<'_>, Shape<'_>, &mut Budget) -> Result<Ordering, Error>,
) -> Result<Vec<T>, Error> {
    // Places are sorted, and the items follow them at the end. Most texts differ in their heads, which lie close together.
    let mut places: Vec<(u64, usize)> =
        items.iter().enumerate().map(|(place, item)| (head(key(item)), place)).collect();
    let mut merged: Vec<(u64, usize)> = Vec::with_capacity(items.len());
    let mut width = 1;
    while width < items.len() {
        for pair in places.chunks(width * 2) {
            let (mut left, mut right) = pair.split_at(width.min(pair.len()));
            while let (Some((a, left_rest)), Some((b, right_rest))) =
                (left.split_first(), right.split_first())
            {
                budget.take(1)?;
                let ordering = if a.0 != 0 && b.0 != 0 && a.0 != b.0 {
                    a.0.cmp(&b.0)
                } else {
                    let (Some(a), Some(b)) = (items.get(a.1), items.get(b.1)) else { break };
                    order(key(a), key(b), budget)?
                };
                if ordering.is_le() {
                    merged.push(*a);
                    left = left_rest;
                } else {
                    merged.push(*b);
                    right = right_rest;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        std::mem::swap(&mut places, &mut merged);
        merged.clear();
        width *= 2;
    }
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    Ok(places.into_iter().filter_map(|(_, place)| items.get_mut(place)?.take()).collect())
}
