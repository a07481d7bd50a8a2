//! Evaluation of a tree: by recursion, as deep as the tree is; every operation pays before it works.
//!
//! Values from the environment are fetched when they are first needed, kept for this evaluation and borrowed from
//! there: a path through a node's output copies nothing but its last reference count.

mod repeat;

use std::cell::OnceCell;
use std::sync::Arc;

use smallvec::SmallVec;

use super::budget::ABSORBED;
use super::datum::{Datum, Items, ListBuilder, Number, Shape};
use super::error::{self, Error, excerpt};
use super::lower::duplicate_key;
use super::tree::{Arithmetic, Comparison, Kind, Node};
use super::{Budget, Env, Program, arithmetic, compare};
use crate::model::{Map, Value};

/// Evaluates `program` and checks that the result may leave.
pub(super) fn evaluate(program: &Program, env: &dyn Env, budget: &mut Budget) -> Result<Value, Error> {
    let mut values: SmallVec<[OnceCell<Value>; 4]> = SmallVec::new();
    values.resize_with(program.references.len(), OnceCell::new);
    let mut locals = SmallVec::new();
    locals.resize(program.slots, Datum::NULL);
    let mut machine = Machine { env, values: &values, locals, budget };
    let result = machine.eval(&program.root)?;
    finish(result, machine.budget)
}

/// What an expression makes must be readable again under the limits of values. What it only passes on is.
fn finish(result: Datum<'_>, budget: &mut Budget) -> Result<Value, Error> {
    match result {
        Datum::Ref(value) => Ok(value.clone()),
        Datum::Own(value @ (Value::List(_) | Value::Map(_) | Value::String(_))) => {
            budget.measure(Shape::of(&value))?;
            Ok(value)
        }
        Datum::Own(value) => Ok(value),
        other => {
            budget.measure(other.shape())?;
            other.into_value()
        }
    }
}

struct Machine<'a, 'b> {
    env: &'a dyn Env,
    values: &'a [OnceCell<Value>],
    locals: SmallVec<[Datum<'a>; 4]>,
    budget: &'b mut Budget,
}

impl<'a> Machine<'a, '_> {
    fn eval(&mut self, node: &'a Node) -> Result<Datum<'a>, Error> {
        self.budget.take(1)?;
        match self.step(&node.kind) {
            Ok(datum) => Ok(datum),
            Err(error) => Err(error.at(node.offset)),
        }
    }

    fn step(&mut self, kind: &'a Kind) -> Result<Datum<'a>, Error> {
        match kind {
            Kind::Constant(value) => Ok(Datum::Ref(value)),
            Kind::Reference(index) => self.reference(*index as usize),
            Kind::Local(slot) => Ok(self.locals.get(*slot as usize).cloned().unwrap_or(Datum::NULL)),
            Kind::Select(operand, key) => {
                let operand = self.eval(operand)?;
                self.look_up(&operand)?;
                operand.member(key).ok_or_else(|| no_member(&operand, key))
            }
            Kind::Arithmetic(op, sides) => {
                let [a, b] = &**sides;
                self.arithmetic(*op, a, b)
            }
            Kind::Compare(op, sides) => {
                let [a, b] = &**sides;
                self.compare(*op, a, b)
            }
            Kind::Conditional(parts) => {
                let [test, yes, no] = &**parts;
                if self.truth(test, "the condition of `? :`")? { self.eval(yes) } else { self.eval(no) }
            }
            Kind::And(sides) => self.absorbing(sides, false),
            Kind::Or(sides) => self.absorbing(sides, true),
            Kind::Not(operand) => self.truth(operand, "the operand of `!`").map(|value| Datum::bool(!value)),
            Kind::Special(special) => Ok(special.datum()),
            _ => self.rare(kind),
        }
    }

    /// Apart from [`Self::step`], to keep the stack of deep trees small.
    #[inline(never)]
    fn rare(&mut self, kind: &'a Kind) -> Result<Datum<'a>, Error> {
        match kind {
            Kind::Index(sides) => {
                let [operand, index] = &**sides;
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                self.look_up(&operand)?;
                at_index(&operand, &index)
            }
            Kind::In(sides) => {
                let [needle, hay] = &**sides;
                let (needle, hay) = (self.eval(needle)?, self.eval(hay)?);
                self.look_up(&hay)?;
                self.contained(&needle, &hay).map(Datum::bool)
            }
            Kind::Has(operand, key) => {
                let operand = self.eval(operand)?;
                self.look_up(&operand)?;
                match operand.shape() {
                    Shape::Map(map) => Ok(Datum::bool(map.get(key).is_some())),
                    // The output of a skipped node is null and has nothing.
                    Shape::Null => Ok(Datum::bool(false)),
                    other => Err(Error::new(
                        error::TYPE,
                        format!("has() looks for a member of a map, not of {}", other.name()),
                    )),
                }
            }
            Kind::Present(operand) => {
                let operand = self.eval(operand)?;
                Ok(Datum::bool(!matches!(operand.shape(), Shape::Null)))
            }
            Kind::Negate(operand) => arithmetic::negate(&self.eval(operand)?),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::DynamicMap(entries) => self.dynamic_map(entries),
            Kind::Call(function, arguments) => {
                let mut values: SmallVec<[Datum<'a>; 3]> = SmallVec::new();
                for argument in &**arguments {
                    values.push(self.eval(argument)?);
                }
                (function.run)(&values, self.budget)
            }
            Kind::Matches(operand, pattern) => {
                let operand = self.eval(operand)?;
                pattern.is_match(&operand, self.budget).map(Datum::bool)
            }
            Kind::Loop(repeat) => self.repeat(repeat),
            _ => Ok(Datum::NULL),
        }
    }

    fn reference(&self, index: usize) -> Result<Datum<'a>, Error> {
        match self.values.get(index) {
            Some(cell) => Ok(Datum::Ref(cell.get_or_init(|| self.env.value(index)))),
            None => Err(Error::new(error::REFERENCE, "a reference without a place")),
        }
    }

    /// Pays for finding a member.
    #[inline]
    fn look_up(&mut self, within: &Datum<'a>) -> Result<(), Error> {
        match within.shape() {
            Shape::Map(map) => self.budget.lookup(map.len()),
            _ => Ok(()),
        }
    }

    fn arithmetic(&mut self, op: Arithmetic, a: &'a Node, b: &'a Node) -> Result<Datum<'a>, Error> {
        let (a, b) = (self.eval(a)?, self.eval(b)?);
        arithmetic::apply(op, &a, &b, self.budget)
    }

    fn compare(&mut self, op: Comparison, a: &'a Node, b: &'a Node) -> Result<Datum<'a>, Error> {
        let (a, b) = (self.eval(a)?, self.eval(b)?);
        let (a, b) = (a.shape(), b.shape());
        Ok(Datum::bool(match op {
            Comparison::Equal => compare::equal(a, b, self.budget)?,
            Comparison::NotEqual => !compare::equal(a, b, self.budget)?,
            Comparison::Less => compare::order(a, b, self.budget)?.is_lt(),
            Comparison::LessOrEqual => compare::order(a, b, self.budget)?.is_le(),
            Comparison::Greater => compare::order(a, b, self.budget)?.is_gt(),
            Comparison::GreaterOrEqual => compare::order(a, b, self.budget)?.is_ge(),
        }))
    }

    /// The value of a node that must be a bool.
    fn truth(&mut self, node: &'a Node, what: &str) -> Result<bool, Error> {
        match self.eval(node)?.shape() {
            Shape::Bool(value) => Ok(value),
            other => Err(not_bool(what, other).at(node.offset)),
        }
    }

    /// `&&` (`decides` false) and `||` (true): a side that decides outweighs an error on the other.
    fn absorbing(&mut self, sides: &'a [Node; 2], decides: bool) -> Result<Datum<'a>, Error> {
        let what = if decides { "a side of `||`" } else { "a side of `&&`" };
        let [a, b] = sides;
        let first = self.truth(a, what);
        match first {
            Ok(value) if value == decides => return Ok(Datum::bool(decides)),
            Ok(_) => {}
            Err(error) if error.is_final() => return Err(error),
            Err(_) => self.budget.take(ABSORBED)?,
        }
        match self.truth(b, what) {
            Ok(value) if value == decides => Ok(Datum::bool(decides)),
            Err(error) if error.is_final() => Err(error),
            second => first.and(second).map(Datum::bool),
        }
    }

    fn contained(&mut self, needle: &Datum<'a>, hay: &Datum<'a>) -> Result<bool, Error> {
        let needle = needle.shape();
        match (needle, hay.shape()) {
            (_, Shape::List(items)) => {
                for item in items.iter() {
                    self.budget.take(1)?;
                    if compare::equal(needle, item, self.budget)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (Shape::Text(key), Shape::Map(map)) => Ok(map.get(key).is_some()),
            (_, Shape::Map(_)) => Ok(false),
            (_, other) => Err(Error::new(
                error::TYPE,
                format!("`in` looks into a list or a map, not into {}", other.name()),
            )),
        }
    }

    fn list(&mut self, elements: &'a [Node]) -> Result<Datum<'a>, Error> {
        self.budget.list(elements.len())?;
        let mut list = ListBuilder::with_capacity(elements.len());
        for element in elements {
            list.push(self.eval(element)?);
        }
        Ok(list.finish())
    }

    fn map(&mut self, entries: &'a [(Arc<str>, Node)]) -> Result<Datum<'a>, Error> {
        self.budget.map(entries.len())?;
        let mut map = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            map.push((Arc::clone(key), self.eval(value)?.into_value()?));
        }
        finished_map(map)
    }

    fn dynamic_map(&mut self, entries: &'a [(Node, Node)]) -> Result<Datum<'a>, Error> {
        self.budget.map(entries.len())?;
        let mut map = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let offset = key.offset;
            let key = match self.eval(key)?.into_value()? {
                Value::String(key) => key,
                other => {
                    return Err(Error::new(
                        error::TYPE,
                        format!("a map key is text here, not {}; use string()", other.type_name()),
                    )
                    .at(offset));
                }
            };
            map.push((key, self.eval(value)?.into_value()?));
        }
        finished_map(map)
    }
}

fn finished_map<'a>(entries: Vec<(Arc<str>, Value)>) -> Result<Datum<'a>, Error> {
    match Map::new(entries) {
        Ok(map) => Ok(Datum::Own(Value::Map(Arc::new(map)))),
        Err(key) => Err(duplicate_key(&key)),
    }
}

#[cold]
fn not_bool(what: &str, found: Shape<'_>) -> Error {
    Error::new(error::TYPE, format!("{what} must be a bool, not {}", found.name()))
}

#[cold]
fn no_member(operand: &Datum<'_>, key: &str) -> Error {
    match operand.shape() {
        Shape::Map(_) => no_key(key),
        other => Error::new(
            error::TYPE,
            format!("{} has no members, so there is no `.{}`", other.name(), excerpt(key)),
        ),
    }
}

fn no_key(key: &str) -> Error {
    Error::new(error::NO_KEY, format!("the map has no key {:?}; has() tests for one", excerpt(key)))
}

fn at_index<'a>(operand: &Datum<'a>, index: &Datum<'a>) -> Result<Datum<'a>, Error> {
    match (operand.shape(), index.shape()) {
        (Shape::Map(_), Shape::Text(key)) => operand.member(key).ok_or_else(|| no_key(key)),
        (Shape::List(items), Shape::Number(number)) => {
            let place = place(number);
            place.and_then(|place| operand.element(place)).ok_or_else(|| out_of_range(number, items))
        }
        (Shape::Map(_), other) => {
            Err(Error::new(error::TYPE, format!("a map is indexed by text, not by {}", other.name())))
        }
        (Shape::List(_), other) => {
            Err(Error::new(error::TYPE, format!("a list is indexed by an integer, not by {}", other.name())))
        }
        (other, _) => Err(Error::new(error::TYPE, format!("{} cannot be indexed", other.name()))),
    }
}

fn place(number: Number) -> Option<usize> {
    match number {
        Number::Int(number) => usize::try_from(number).ok(),
        Number::UInt(number) => usize::try_from(number).ok(),
        Number::Float(number) if number.fract() == 0.0 && number >= 0.0 => Some(number as usize),
        Number::Float(_) => None,
    }
}

fn out_of_range(number: Number, items: Items<'_>) -> Error {
    Error::new(
        error::INDEX,
        format!("index {} is outside a list of {} elements", number.value(), items.len()),
    )
}
