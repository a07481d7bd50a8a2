//! The macros that go over a list (or the keys of a map) with a variable.
//!
//! A pass costs two steps besides its body: one for the element, one for binding the variable.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::budget::ABSORBED;
use super::super::compare;
use super::super::datum::{Datum, ListBuilder, Shape};
use super::super::error::{self, Error};
use super::super::function;
use super::super::tree::{Loop, LoopKind};
use super::{Machine, not_bool};
use crate::limits;
use crate::model::{Map, Value};

/// Steps of a pass, without its body.
const PASS: u64 = 2;

/// Steps of a group: a key, a list and a place in the tree.
const GROUP: u64 = 20;

/// What a macro goes over.
enum Range<'a> {
    List(Datum<'a>, usize),
    Keys(Vec<Arc<str>>),
}

impl<'a> Range<'a> {
    fn len(&self) -> usize {
        match self {
            Self::List(_, len) => *len,
            Self::Keys(keys) => keys.len(),
        }
    }

    fn get(&self, index: usize) -> Option<Datum<'a>> {
        match self {
            Self::List(list, _) => list.element(index),
            Self::Keys(keys) => keys.get(index).map(|key| Datum::string(Arc::clone(key))),
        }
    }
}

impl<'a> Machine<'a, '_> {
    pub(super) fn repeat(&mut self, repeat: &'a Loop) -> Result<Datum<'a>, Error> {
        let range = self.range(repeat)?;
        match repeat.kind {
            LoopKind::Map => self.map_all(repeat, &range),
            LoopKind::Filter => self.filter(repeat, &range),
            LoopKind::All => self.quantify(repeat, &range, false),
            LoopKind::Exists => self.quantify(repeat, &range, true),
            LoopKind::ExistsOne => self.exists_one(repeat, &range),
            LoopKind::SortBy => self.sort_by(repeat, &range),
            LoopKind::GroupBy => self.group_by(repeat, &range),
        }
    }

    fn range(&mut self, repeat: &'a Loop) -> Result<Range<'a>, Error> {
        let range = self.eval(&repeat.range)?;
        let ordered = matches!(repeat.kind, LoopKind::SortBy | LoopKind::GroupBy);
        match range.shape() {
            Shape::List(items) => {
                let count = items.len();
                Ok(Range::List(range, count))
            }
            Shape::Map(map) if !ordered => {
                self.budget.list(map.len())?;
                Ok(Range::Keys(map.iter().map(|(key, _)| Arc::clone(key)).collect()))
            }
            other => Err(Error::new(
                error::TYPE,
                format!("{} goes over a list, not over {}", name(repeat.kind), other.name()),
            )
            .at(repeat.range.offset)),
        }
    }

    /// Binds the next element; `None` at the end.
    fn bind(&mut self, repeat: &Loop, range: &Range<'a>, index: usize) -> Result<Option<Datum<'a>>, Error> {
        let Some(element) = range.get(index) else { return Ok(None) };
        self.budget.take(PASS)?;
        if let Some(slot) = self.locals.get_mut(repeat.slot as usize) {
            *slot = element.clone();
        }
        Ok(Some(element))
    }

    fn map_all(&mut self, repeat: &'a Loop, range: &Range<'a>) -> Result<Datum<'a>, Error> {
        let mut list = ListBuilder::with_capacity(self.room(range));
        for index in 0..range.len() {
            if self.bind(repeat, range, index)?.is_none() {
                break;
            }
            if let Some(filter) = &repeat.filter
                && !self.truth(filter, "the filter of map")?
            {
                continue;
            }
            let element = self.eval(&repeat.body)?;
            self.budget.push(list.len())?;
            list.push(element);
        }
        Ok(list.finish())
    }

    fn filter(&mut self, repeat: &'a Loop, range: &Range<'a>) -> Result<Datum<'a>, Error> {
        let mut list = ListBuilder::default();
        for index in 0..range.len() {
            let Some(element) = self.bind(repeat, range, index)? else { break };
            if self.truth(&repeat.body, "the condition of filter")? {
                self.budget.push(list.len())?;
                list.push(element);
            }
        }
        Ok(list.finish())
    }

    /// `all` (`decides` false) and `exists` (true): an element that decides outweighs errors on others.
    fn quantify(&mut self, repeat: &'a Loop, range: &Range<'a>, decides: bool) -> Result<Datum<'a>, Error> {
        let mut failed = None;
        for index in 0..range.len() {
            if self.bind(repeat, range, index)?.is_none() {
                break;
            }
            match self.truth(&repeat.body, "the condition of all and exists") {
                Ok(value) if value == decides => return Ok(Datum::bool(decides)),
                Ok(_) => {}
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    self.budget.take(ABSORBED)?;
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(Datum::bool(!decides)), Err)
    }

    fn exists_one(&mut self, repeat: &'a Loop, range: &Range<'a>) -> Result<Datum<'a>, Error> {
        let mut found: u32 = 0;
        for index in 0..range.len() {
            if self.bind(repeat, range, index)?.is_none() {
                break;
            }
            match self.eval(&repeat.body)?.shape() {
                Shape::Bool(true) => found = found.saturating_add(1),
                Shape::Bool(false) => {}
                other => return Err(not_bool("the condition of exists_one", other).at(repeat.body.offset)),
            }
        }
        Ok(Datum::bool(found == 1))
    }

    fn sort_by(&mut self, repeat: &'a Loop, range: &Range<'a>) -> Result<Datum<'a>, Error> {
        let mut keyed = Vec::with_capacity(self.room(range));
        for index in 0..range.len() {
            let Some(element) = self.bind(repeat, range, index)? else { break };
            let key = self.eval(&repeat.body)?;
            self.budget.list(1)?;
            keyed.push((key, element));
        }
        self.budget.list(keyed.len())?;
        let sorted = compare::sort(
            keyed,
            self.budget,
            |(key, _)| key.shape(),
            |a, b, budget| {
                compare::order(a, b, budget).map_err(|error| {
                    if error.is_final() {
                        return error;
                    }
                    Error::new(
                        error::TYPE,
                        format!(
                            "sort_by needs keys of one kind that has an order, not {} and {}",
                            a.name(),
                            b.name()
                        ),
                    )
                })
            },
        )?;
        let mut list = ListBuilder::with_capacity(sorted.len());
        sorted.into_iter().for_each(|(_, element)| list.push(element));
        Ok(list.finish())
    }

    fn group_by(&mut self, repeat: &'a Loop, range: &Range<'a>) -> Result<Datum<'a>, Error> {
        let mut groups: BTreeMap<Arc<str>, Vec<Value>> = BTreeMap::new();
        let mut opened = 0;
        for index in 0..range.len() {
            let Some(element) = self.bind(repeat, range, index)? else { break };
            let key = self.eval(&repeat.body)?;
            let key = function::key_text(&key, self.budget).map_err(|error| error.at(repeat.body.offset))?;
            self.budget.list(1)?;
            self.budget.scan(key.len().saturating_mul(4))?;
            let group = groups.entry(key).or_insert_with(|| {
                opened += 1;
                Vec::new()
            });
            group.push(element.into_value()?);
            self.budget.take(std::mem::take(&mut opened) * GROUP)?;
        }
        self.budget.list(groups.len())?;
        let map: Map = groups.into_iter().map(|(key, items)| (key, Value::list(items))).collect();
        Ok(Datum::Own(Value::Map(Arc::new(map))))
    }

    /// Places to reserve: only what the budget could fill.
    fn room(&self, range: &Range<'a>) -> usize {
        let paid = usize::try_from(self.budget.steps / PASS).unwrap_or(usize::MAX);
        range.len().min(paid).min(limits::VALUE_COUNT_MAX)
    }
}

fn name(kind: LoopKind) -> &'static str {
    match kind {
        LoopKind::Map => "map",
        LoopKind::Filter => "filter",
        LoopKind::All => "all",
        LoopKind::Exists => "exists",
        LoopKind::ExistsOne => "exists_one",
        LoopKind::SortBy => "sort_by",
        LoopKind::GroupBy => "group_by",
    }
}
