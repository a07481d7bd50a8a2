//! What an evaluation computes with: model values, borrowed wherever they can be, and the few kinds that exist only
//! inside an expression (bytes, durations, points in time, types).
//!
//! A [`Datum`] owns or borrows; a [`Shape`] is a look at one, for everything that only reads. Lists that hold a kind
//! which is no model value stay apart as [`Datum::Mixed`] until the evaluation ends; maps turn such members into
//! their text form at once.

use std::rc::Rc;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::error::{self, Error};
use super::moment;
use crate::model::{Map, Value};

/// A value while an expression is evaluated.
#[derive(Clone, Debug)]
pub(super) enum Datum<'a> {
    /// Part of a node's output, of the inputs, or of the program's constants.
    Ref(&'a Value),
    /// Made by this evaluation, or shared with what made it.
    Own(Value),
    /// A list with at least one element that is no model value.
    Mixed(Rc<[Datum<'a>]>),
    /// `b"..."`
    Bytes(Arc<[u8]>),
    /// `duration("90s")`
    Duration(SignedDuration),
    /// `timestamp("2026-11-21T08:00:00Z")`
    Timestamp(Timestamp),
    /// `type(x)`
    Type(Type),
}

/// A look at a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'d> {
    Null,
    Bool(bool),
    Number(Number),
    Text(&'d str),
    List(Items<'d>),
    Map(&'d Map),
    Bytes(&'d [u8]),
    Duration(SignedDuration),
    Timestamp(Timestamp),
    Type(Type),
}

/// Integers are `UInt` only above `i64::MAX`; floats are finite.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i64),
    UInt(u64),
    Float(f64),
}

/// The elements of a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Items<'d> {
    Plain(&'d [Value]),
    Mixed(&'d [Datum<'d>]),
}

/// CEL's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Type {
    Null,
    Bool,
    Int,
    UInt,
    Double,
    String,
    Bytes,
    List,
    Map,
    Duration,
    Timestamp,
    /// The type of types.
    Kind,
}

impl Type {
    const NAMES: [(&'static str, Self); 12] = [
        ("null_type", Self::Null),
        ("bool", Self::Bool),
        ("int", Self::Int),
        ("uint", Self::UInt),
        ("double", Self::Double),
        ("string", Self::String),
        ("bytes", Self::Bytes),
        ("list", Self::List),
        ("map", Self::Map),
        ("google.protobuf.Duration", Self::Duration),
        ("google.protobuf.Timestamp", Self::Timestamp),
        ("type", Self::Kind),
    ];

    /// The type a name in an expression stands for.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("type", |(name, _)| name)
    }
}

impl<'d> Shape<'d> {
    #[inline]
    pub(super) fn of(value: &'d Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Number(Number::Int(*value)),
            Value::UInt(value) => Self::Number(Number::UInt(*value)),
            Value::Float(value) => Self::Number(Number::Float(*value)),
            Value::String(text) => Self::Text(text),
            Value::List(items) => Self::List(Items::Plain(items)),
            Value::Map(map) => Self::Map(map),
        }
    }

    pub(super) fn kind(self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Number(Number::Int(_)) => Type::Int,
            Self::Number(Number::UInt(_)) => Type::UInt,
            Self::Number(Number::Float(_)) => Type::Double,
            Self::Text(_) => Type::String,
            Self::List(_) => Type::List,
            Self::Map(_) => Type::Map,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Type(_) => Type::Kind,
        }
    }

    /// For messages: `null`, `int`, `timestamp`.
    pub(super) fn name(self) -> &'static str {
        match self.kind() {
            Type::Null => "null",
            Type::Duration => "duration",
            Type::Timestamp => "timestamp",
            kind => kind.name(),
        }
    }
}

impl<'d> Items<'d> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Plain(values) => values.len(),
            Self::Mixed(values) => values.len(),
        }
    }

    pub(super) fn get(self, index: usize) -> Option<Shape<'d>> {
        match self {
            Self::Plain(values) => values.get(index).map(Shape::of),
            Self::Mixed(values) => values.get(index).map(Datum::shape),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Shape<'d>> {
        (0..self.len()).filter_map(move |index| self.get(index))
    }
}

impl<'a> Datum<'a> {
    pub(super) const NULL: Datum<'static> = Datum::Own(Value::Null);

    pub(super) fn string(text: impl Into<Arc<str>>) -> Self {
        Self::Own(Value::string(text))
    }

    pub(super) fn int(number: i64) -> Self {
        Self::Own(Value::Int(number))
    }

    /// The length of something.
    pub(super) fn count(number: usize) -> Self {
        Self::Own(Value::unsigned(number as u64))
    }

    pub(super) fn bool(value: bool) -> Self {
        Self::Own(Value::Bool(value))
    }

    /// The model value, when it is one.
    #[inline]
    pub(super) fn plain(&self) -> Option<&Value> {
        match self {
            Self::Ref(value) => Some(value),
            Self::Own(value) => Some(value),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn shape(&self) -> Shape<'_> {
        match self {
            Self::Ref(value) => Shape::of(value),
            Self::Own(value) => Shape::of(value),
            Self::Mixed(items) => Shape::List(Items::Mixed(items)),
            Self::Bytes(bytes) => Shape::Bytes(bytes),
            Self::Duration(duration) => Shape::Duration(*duration),
            Self::Timestamp(point) => Shape::Timestamp(*point),
            Self::Type(kind) => Shape::Type(*kind),
        }
    }

    /// Element `index` of a list, without a copy of what it holds.
    #[inline]
    pub(super) fn element(&self, index: usize) -> Option<Datum<'a>> {
        match self {
            Self::Ref(Value::List(items)) => items.get(index).map(Datum::Ref),
            Self::Own(Value::List(items)) => items.get(index).cloned().map(Datum::Own),
            Self::Mixed(items) => items.get(index).cloned(),
            _ => None,
        }
    }

    /// Member `key` of a map, without a copy of what it holds.
    #[inline]
    pub(super) fn member(&self, key: &str) -> Option<Datum<'a>> {
        match self {
            Self::Ref(Value::Map(map)) => member(map, key).map(Datum::Ref),
            Self::Own(Value::Map(map)) => member(map, key).cloned().map(Datum::Own),
            _ => None,
        }
    }

    /// As a model value; kinds of our own become their text.
    pub(super) fn into_value(self) -> Result<Value, Error> {
        Ok(match self {
            Self::Ref(value) => value.clone(),
            Self::Own(value) => value,
            Self::Mixed(items) => {
                Value::list(items.iter().cloned().map(Datum::into_value).collect::<Result<_, _>>()?)
            }
            Self::Duration(duration) => Value::string(moment::duration_text(duration)),
            Self::Timestamp(point) => Value::string(point.to_string()),
            Self::Type(kind) => Value::string(kind.name()),
            Self::Bytes(_) => {
                return Err(Error::new(
                    error::TYPE,
                    "bytes are no JSON value and cannot leave an expression; turn them into text with string()",
                ));
            }
        })
    }
}

/// Of a few keys, those of another length are passed by without a look at their text.
#[inline]
fn member<'m>(map: &'m Map, key: &str) -> Option<&'m Value> {
    const FEW: usize = 8;
    if map.len() > FEW {
        return map.get(key);
    }
    map.iter().find(|(other, _)| other.len() == key.len() && ***other == *key).map(|(_, value)| value)
}

impl Number {
    pub(super) fn value(self) -> Value {
        match self {
            Self::Int(number) => Value::Int(number),
            Self::UInt(number) => Value::unsigned(number),
            Self::Float(number) => Value::Float(number),
        }
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::UInt(number) => number as f64,
            Self::Float(number) => number,
        }
    }
}

/// Collects the elements of a list; the caller has paid for each.
#[derive(Debug, Default)]
pub(super) struct ListBuilder<'a> {
    plain: Vec<Value>,
    mixed: Vec<Datum<'a>>,
}

impl<'a> ListBuilder<'a> {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { plain: Vec::with_capacity(count), mixed: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.plain.len().max(self.mixed.len())
    }

    pub(super) fn push(&mut self, datum: Datum<'a>) {
        match datum {
            Datum::Ref(value) if self.mixed.is_empty() => self.plain.push(value.clone()),
            Datum::Own(value) if self.mixed.is_empty() => self.plain.push(value),
            datum => {
                self.mixed.extend(self.plain.drain(..).map(Datum::Own));
                self.mixed.push(datum);
            }
        }
    }

    pub(super) fn finish(self) -> Datum<'a> {
        if self.mixed.is_empty() {
            Datum::Own(Value::list(self.plain))
        } else {
            Datum::Mixed(self.mixed.into())
        }
    }
}
