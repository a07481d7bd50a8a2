//! From text to tree: parses with the `cel` crate (its macros switched off, so that calls arrive as they are written)
//! and lowers its syntax tree into ours. Every name is resolved here; what is unknown is an error with the nearest
//! known name beside it.
//!
//! The parser is not ours and is given text from outside: it sees only what `scan` let through, and a panic of its
//! own would be a syntax error here.

mod call;
mod name;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, SourceInfo};

use super::Reference;
use super::error::{self, Error, excerpt};
use super::scan;
use super::tree::{Kind, Node, Special};
use crate::limits;
use crate::model::Value;

/// What becomes a program.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) references: Vec<Reference>,
    pub(super) slots: usize,
    pub(super) root: Node,
}

/// Parses and lowers one expression.
pub(super) fn lower(source: &str) -> Result<Lowered, Error> {
    scan::check(source)?;
    let (tree, info) = parse(source)?;
    let mut lowering = Lowering { info, references: Vec::new(), locals: Vec::new(), slots: 0, depth: 0 };
    let root = lowering.node(&tree)?;
    Ok(Lowered { references: lowering.references, slots: lowering.slots, root })
}

fn parse(source: &str) -> Result<(IdedExpr, SourceInfo), Error> {
    let depth = u16::try_from(limits::EXPRESSION_DEPTH_MAX).unwrap_or(u16::MAX);
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        cel::Env::default()
            .with_optional_support(false)
            .parser()
            .enable_ident_escape_syntax(true)
            .max_recursion_depth(depth)
            .parse_with_source_info(source)
    }));
    let errors = match parsed {
        Ok(Ok(parsed)) => return Ok(parsed),
        Ok(Err(errors)) => errors.errors,
        Err(_) => return Err(Error::new(error::SYNTAX, "the expression cannot be parsed")),
    };
    let Some(first) = errors.first() else {
        return Err(Error::new(error::SYNTAX, "the expression cannot be parsed"));
    };
    let cause = first.source.as_ref().map(ToString::to_string).unwrap_or_default();
    if errors.iter().any(|error| error.msg.contains("Recursion limit")) || cause.contains("Recursion limit") {
        return Err(scan::too_deep());
    }
    let text = first.msg.trim_start_matches("Syntax error: ").replace('\n', " ");
    Err(Error {
        code: error::SYNTAX,
        message: if source.trim().is_empty() {
            String::from("the expression is empty")
        } else {
            format!("the expression is no CEL: {}", excerpt(&text))
        },
        offset: position(source, first.pos),
    })
}

/// Byte offset of a line and column, both counted from 1, columns in characters.
fn position(source: &str, (line, column): (isize, isize)) -> Option<usize> {
    let line = usize::try_from(line).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = source.get(start..)?;
    Some(start + rest.char_indices().nth(column).map_or(rest.len(), |(offset, _)| offset))
}

struct Lowering {
    info: SourceInfo,
    references: Vec<Reference>,
    /// Variables of the macros around the place that is being lowered; the slot is the position.
    locals: Vec<String>,
    slots: usize,
    depth: usize,
}

impl Lowering {
    fn node(&mut self, tree: &IdedExpr) -> Result<Node, Error> {
        let offset = self.offset(tree.id);
        self.depth += 1;
        if self.depth > limits::EXPRESSION_CHAIN_MAX + limits::EXPRESSION_DEPTH_MAX {
            return Err(scan::too_deep());
        }
        let kind = self.kind(tree).map_err(|error| error.at(offset))?;
        self.depth -= 1;
        Ok(Node { offset, kind })
    }

    fn kind(&mut self, tree: &IdedExpr) -> Result<Kind, Error> {
        if let Some(kind) = self.reference(tree)? {
            return Ok(kind);
        }
        match &tree.expr {
            Expr::Literal(literal) => Ok(constant(literal)),
            Expr::Ident(name) => self.ident(name),
            Expr::Select(select) => {
                Ok(Kind::Select(Box::new(self.node(&select.operand)?), select.field.as_str().into()))
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(&list.elements),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(message) => Err(Error::new(
                error::SYNTAX,
                format!(
                    "{}{{...}} is a message, and there are none here; write a map",
                    excerpt(&message.type_name)
                ),
            )),
            Expr::Unspecified | Expr::Comprehension(_) => {
                Err(Error::new(error::SYNTAX, "the expression is incomplete"))
            }
        }
    }

    fn nodes(&mut self, trees: &[IdedExpr]) -> Result<Box<[Node]>, Error> {
        trees.iter().map(|tree| self.node(tree)).collect()
    }

    fn list(&mut self, elements: &[IdedExpr]) -> Result<Kind, Error> {
        let elements = self.nodes(elements)?;
        let constants: Option<Vec<Value>> = elements
            .iter()
            .map(|element| match &element.kind {
                Kind::Constant(value) => Some(value.clone()),
                _ => None,
            })
            .collect();
        Ok(constants.map_or(Kind::List(elements), |values| Kind::Constant(Value::list(values))))
    }

    fn map(&mut self, entries: &[IdedEntryExpr]) -> Result<Kind, Error> {
        let mut lowered = Vec::with_capacity(entries.len());
        for entry in entries {
            match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    lowered.push((self.node(&entry.key)?, self.node(&entry.value)?))
                }
                EntryExpr::StructField(_) => {
                    return Err(Error::new(error::SYNTAX, "a map needs keys that are values"));
                }
            }
        }
        let texts = lowered.iter().all(|(key, _)| matches!(&key.kind, Kind::Constant(Value::String(_))));
        if !texts {
            return Ok(Kind::DynamicMap(lowered.into()));
        }
        let mut keyed: Vec<(Arc<str>, Node)> = lowered
            .into_iter()
            .filter_map(|(key, value)| match key.kind {
                Kind::Constant(Value::String(key)) => Some((key, value)),
                _ => None,
            })
            .collect();
        keyed.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some((a, _)) = keyed.iter().zip(keyed.iter().skip(1)).find(|(a, b)| a.0 == b.0) {
            return Err(duplicate_key(&a.0));
        }
        Ok(Kind::Map(keyed.into()))
    }

    /// Byte offset of a part of the syntax tree.
    fn offset(&self, id: u64) -> u32 {
        self.info.offset_for(id).map_or(0, |(start, _)| start)
    }
}

fn constant(literal: &LiteralValue) -> Kind {
    Kind::Constant(match literal {
        LiteralValue::Null => Value::Null,
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Int(value) => Value::Int(*value.inner()),
        LiteralValue::UInt(value) => Value::unsigned(*value.inner()),
        LiteralValue::Double(value) => match Value::float(*value.inner()) {
            Some(value) => value,
            None => Value::Null,
        },
        LiteralValue::String(text) => Value::string(text.inner()),
        LiteralValue::Bytes(bytes) => return Kind::Special(Special::Bytes(bytes.inner().into())),
    })
}

/// A map that has `key` twice.
pub(super) fn duplicate_key(key: &str) -> Error {
    Error::new(error::DUPLICATE_KEY, format!("the key {:?} stands twice in one map", excerpt(key)))
}
