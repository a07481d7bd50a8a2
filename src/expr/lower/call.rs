//! Calls: operators, macros and functions. `f(x, y)` and `x.f(y)` are the same call.

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};

use super::super::error::{self, Error, excerpt};
use super::super::function::{self, Function, Pattern};
use super::super::tree::{Arithmetic, Comparison, Kind, Loop, LoopKind, Node};
use super::Lowering;
use super::name::nearest;
use crate::model::Value;

const MACROS: [(&str, LoopKind); 8] = [
    ("map", LoopKind::Map),
    ("filter", LoopKind::Filter),
    ("all", LoopKind::All),
    ("exists", LoopKind::Exists),
    ("exists_one", LoopKind::ExistsOne),
    ("existsOne", LoopKind::ExistsOne),
    ("sort_by", LoopKind::SortBy),
    ("group_by", LoopKind::GroupBy),
];

impl Lowering {
    pub(super) fn call(&mut self, call: &CallExpr) -> Result<Kind, Error> {
        if call.target.is_none()
            && let Some(kind) = self.operator(&call.func_name, &call.args)?
        {
            return Ok(kind);
        }
        let name = call.func_name.trim_start_matches('.');
        let target = call.target.as_deref();
        if let Some(target) = target
            && self.is_root(target, "math")
        {
            return self.function(function::math(name), &format!("math.{name}"), &mut call.args.iter());
        }
        let mut arguments = target.into_iter().chain(call.args.iter());
        if name == "has" && target.is_none() {
            return match call.args.as_slice() {
                [argument] => self.has(argument),
                _ => Err(Error::new(error::ARGUMENTS, "has() takes one argument: has(x.y)")),
            };
        }
        if let Some((_, kind)) = MACROS.iter().find(|(known, _)| *known == name) {
            let arguments: Vec<&IdedExpr> = arguments.collect();
            return self.repeat(name, *kind, &arguments);
        }
        self.function(function::named(name), name, &mut arguments)
    }

    fn operator(&mut self, name: &str, arguments: &[IdedExpr]) -> Result<Option<Kind>, Error> {
        let arithmetic = match name {
            operators::ADD => Some(Arithmetic::Add),
            operators::SUBSTRACT => Some(Arithmetic::Subtract),
            operators::MULTIPLY => Some(Arithmetic::Multiply),
            operators::DIVIDE => Some(Arithmetic::Divide),
            operators::MODULO => Some(Arithmetic::Modulo),
            _ => None,
        };
        let comparison = match name {
            operators::EQUALS => Some(Comparison::Equal),
            operators::NOT_EQUALS => Some(Comparison::NotEqual),
            operators::LESS => Some(Comparison::Less),
            operators::LESS_EQUALS => Some(Comparison::LessOrEqual),
            operators::GREATER => Some(Comparison::Greater),
            operators::GREATER_EQUALS => Some(Comparison::GreaterOrEqual),
            _ => None,
        };
        Ok(Some(match (arguments, arithmetic, comparison) {
            ([a, b], Some(op), _) => Kind::Arithmetic(op, self.pair(a, b)?),
            ([a, b], _, Some(op)) => Kind::Compare(op, self.pair(a, b)?),
            ([a, b], _, _) => match name {
                operators::LOGICAL_AND => Kind::And(self.pair(a, b)?),
                operators::LOGICAL_OR => Kind::Or(self.pair(a, b)?),
                operators::INDEX => Kind::Index(self.pair(a, b)?),
                operators::IN => Kind::In(self.pair(a, b)?),
                _ => return Ok(None),
            },
            ([a], _, _) => match name {
                operators::LOGICAL_NOT => Kind::Not(Box::new(self.node(a)?)),
                operators::NEGATE => self.negate(a)?,
                _ => return Ok(None),
            },
            ([a, b, c], _, _) if name == operators::CONDITIONAL => {
                Kind::Conditional(Box::new([self.node(a)?, self.node(b)?, self.node(c)?]))
            }
            _ => return Ok(None),
        }))
    }

    fn pair(&mut self, a: &IdedExpr, b: &IdedExpr) -> Result<Box<[Node; 2]>, Error> {
        Ok(Box::new([self.node(a)?, self.node(b)?]))
    }

    fn negate(&mut self, operand: &IdedExpr) -> Result<Kind, Error> {
        let operand = self.node(operand)?;
        Ok(match operand.kind {
            Kind::Constant(Value::Float(number)) => Kind::Constant(Value::Float(-number)),
            Kind::Constant(Value::Int(number)) if number != i64::MIN => Kind::Constant(Value::Int(-number)),
            _ => Kind::Negate(Box::new(operand)),
        })
    }

    /// A macro with a variable: `list.map(x, body)`, `sort_by(list, x, key)`.
    fn repeat(&mut self, name: &str, kind: LoopKind, arguments: &[&IdedExpr]) -> Result<Kind, Error> {
        let (range, variable, filter, body) = match arguments {
            [range, variable, body] => (range, variable, None, body),
            [range, variable, filter, body] if kind == LoopKind::Map => (range, variable, Some(filter), body),
            _ => {
                return Err(Error::new(
                    error::ARGUMENTS,
                    format!("{name} takes a list, a variable and an expression: list.{name}(x, ...)"),
                ));
            }
        };
        let variable = match &variable.expr {
            Expr::Ident(variable) if !variable.starts_with('.') => variable.as_str(),
            _ => {
                return Err(Error::new(
                    error::ARGUMENTS,
                    format!("the variable of {name} must be a simple name: list.{name}(x, ...)"),
                ));
            }
        };
        let range = self.node(range)?;
        let (slot, (filter, body)) = self.with_local(variable, |lowering| {
            Ok((filter.map(|filter| lowering.node(filter)).transpose()?, lowering.node(body)?))
        })?;
        Ok(Kind::Loop(Box::new(Loop { kind, range, slot, filter, body })))
    }

    fn function(
        &mut self,
        function: Option<&'static Function>,
        name: &str,
        arguments: &mut dyn Iterator<Item = &IdedExpr>,
    ) -> Result<Kind, Error> {
        let Some(function) = function else { return Err(unknown(name)) };
        let mut arguments: Vec<Node> =
            arguments.map(|argument| self.node(argument)).collect::<Result<_, _>>()?;
        if !(function.least..=function.most).contains(&arguments.len()) {
            return Err(wrong_count(function, arguments.len()));
        }
        if function.name == "matches"
            && let [_, Node { kind: Kind::Constant(Value::String(source)), .. }] = arguments.as_slice()
        {
            let pattern = Pattern::new(source)?;
            if Pattern::is_small(source) {
                return Ok(Kind::Matches(Box::new(arguments.swap_remove(0)), Box::new(pattern)));
            }
        }
        Ok(Kind::Call(function, arguments.into()))
    }
}

fn unknown(name: &str) -> Error {
    const OTHER_LANGUAGES: [&str; 3] = ["len", "length", "count"];
    let macros = MACROS.iter().map(|(known, _)| *known);
    let known = function::names().chain(macros).chain(["has"]).chain(OTHER_LANGUAGES);
    let near = nearest(name, known).map(|near| if OTHER_LANGUAGES.contains(&near) { "size" } else { near });
    let hint = match (name, near) {
        ("now", _) => String::from("; expressions have no clock"),
        (_, Some(near)) => format!("; did you mean `{near}`?"),
        (_, None) => String::new(),
    };
    Error::new(error::UNKNOWN_FUNCTION, format!("unknown function `{}`{hint}", excerpt(name)))
}

fn wrong_count(function: &Function, found: usize) -> Error {
    let Function { name, least, most, .. } = function;
    let wanted = match (least, most) {
        (a, b) if a == b => format!("{a}"),
        (a, b) if *b == function::ANY => format!("at least {a}"),
        (a, b) => format!("{a} to {b}"),
    };
    Error::new(
        error::ARGUMENTS,
        format!("{name} takes {wanted} arguments, not {found} (x.{name}() counts x as one)"),
    )
}
