//! The form in which a program is evaluated: names are indexes, constants are values, functions are pointers, macros
//! are loops. Built once by `lower`, never changed.

use std::sync::Arc;

use super::datum::Datum;
use super::function::{Function, Pattern};
use crate::model::Value;

/// One operation.
#[derive(Debug)]
pub(super) struct Node {
    /// Byte offset in the source.
    pub(super) offset: u32,
    pub(super) kind: Kind,
}

/// What it does.
#[derive(Debug)]
pub(super) enum Kind {
    Constant(Value),
    /// A constant that is no model value.
    Special(Special),
    /// Index into the program's references.
    Reference(u32),
    /// Slot of a local variable.
    Local(u32),
    Select(Box<Node>, Arc<str>),
    Has(Box<Node>, Arc<str>),
    /// `has(nodes.x.output)`: is it there and not null?
    Present(Box<Node>),
    Index(Box<[Node; 2]>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Conditional(Box<[Node; 3]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    Compare(Comparison, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    List(Box<[Node]>),
    /// Keys that are constants, in order and unique.
    Map(Box<[(Arc<str>, Node)]>),
    /// Keys that are computed.
    DynamicMap(Box<[(Node, Node)]>),
    Call(&'static Function, Box<[Node]>),
    /// `matches` with a constant pattern.
    Matches(Box<Node>, Box<Pattern>),
    Loop(Box<Loop>),
}

/// Constants outside the model.
#[derive(Debug)]
pub(super) enum Special {
    Bytes(Arc<[u8]>),
    Type(super::datum::Type),
}

/// A macro that binds a variable to each element of a list, or each key of a map.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) range: Node,
    pub(super) slot: u32,
    /// `map(x, filter, body)`
    pub(super) filter: Option<Node>,
    pub(super) body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    Map,
    Filter,
    All,
    Exists,
    ExistsOne,
    SortBy,
    GroupBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Arithmetic {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

impl Special {
    pub(super) fn datum<'a>(&self) -> Datum<'a> {
        match self {
            Self::Bytes(bytes) => Datum::Bytes(Arc::clone(bytes)),
            Self::Type(kind) => Datum::Type(*kind),
        }
    }
}
