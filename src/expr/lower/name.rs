//! Names: roots, local variables, types; and what to say about the ones nobody knows.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use super::super::Reference;
use super::super::datum::Type;
use super::super::error::{self, Error, excerpt};
use super::super::tree::{Kind, Node, Special};
use super::Lowering;

const ROOTS: [(&str, Reference); 7] = [
    ("inputs", Reference::Inputs),
    ("input", Reference::Input),
    ("output", Reference::EdgeOutput),
    ("item", Reference::Item),
    ("index", Reference::Index),
    ("iteration", Reference::Iteration),
    ("run", Reference::Run),
];

impl Lowering {
    /// A whole reference that is longer than a name: `nodes.<id>.output`, `outputs.<name>`.
    pub(super) fn reference(&mut self, tree: &IdedExpr) -> Result<Option<Kind>, Error> {
        let Some((operand, key)) = member(tree) else { return Ok(self.type_path(tree)) };
        if self.is_root(operand, "outputs") {
            return Ok(Some(self.refer(Reference::Output(key.into()))));
        }
        if self.is_root(operand, "nodes") {
            return Err(incomplete_node(key));
        }
        let Some((root, id)) = member(operand) else { return Ok(self.type_path(tree)) };
        if !self.is_root(root, "nodes") {
            return Ok(self.type_path(tree));
        }
        if key == "output" {
            return Ok(Some(self.refer(Reference::Node(id.into()))));
        }
        Err(Error::new(
            error::REFERENCE,
            format!(
                "`nodes.{}` has no member {:?}; what a node gives is in nodes.{}.output",
                excerpt(id),
                excerpt(key),
                excerpt(id)
            ),
        ))
    }

    /// `google.protobuf.Timestamp`, a type with dots in its name.
    fn type_path(&self, tree: &IdedExpr) -> Option<Kind> {
        let (parent, last) = member(tree)?;
        let (root, middle) = member(parent)?;
        if !self.is_root(root, "google") {
            return None;
        }
        let kind = Type::named(&format!("google.{middle}.{last}"))?;
        Some(Kind::Special(Special::Type(kind)))
    }

    pub(super) fn is_root(&self, tree: &IdedExpr, root: &str) -> bool {
        match &tree.expr {
            Expr::Ident(name) => match name.strip_prefix('.') {
                Some(name) => name == root,
                None => name == root && !self.locals.contains(name),
            },
            _ => false,
        }
    }

    /// A name that stands alone. With a dot before it, no local variable is meant.
    pub(super) fn ident(&mut self, name: &str) -> Result<Kind, Error> {
        let bare = name.strip_prefix('.');
        if bare.is_none()
            && let Some(slot) = self.locals.iter().rposition(|local| local == name)
        {
            return Ok(Kind::Local(u32::try_from(slot).unwrap_or(u32::MAX)));
        }
        let name = bare.unwrap_or(name);
        if let Some((_, root)) = ROOTS.iter().find(|(known, _)| *known == name) {
            return Ok(self.refer(root.clone()));
        }
        if let Some(kind) = Type::named(name) {
            return Ok(Kind::Special(Special::Type(kind)));
        }
        match name {
            "nodes" => Err(Error::new(
                error::REFERENCE,
                "`nodes` is no value by itself; write nodes.<id>.output, or nodes[\"<id>\"].output when the id has a \
                 dash in it",
            )),
            "outputs" => {
                Err(Error::new(error::REFERENCE, "`outputs` is no value by itself; write outputs.<name>"))
            }
            _ => Err(self.unknown(name)),
        }
    }

    pub(super) fn refer(&mut self, reference: Reference) -> Kind {
        let index = self.references.iter().position(|known| *known == reference).unwrap_or_else(|| {
            self.references.push(reference);
            self.references.len() - 1
        });
        Kind::Reference(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// Lowers `body` with one more local variable, and answers its slot.
    pub(super) fn with_local<T>(
        &mut self,
        name: &str,
        body: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<(u32, T), Error> {
        let slot = self.locals.len();
        self.locals.push(name.to_owned());
        self.slots = self.slots.max(self.locals.len());
        let result = body(self);
        self.locals.truncate(slot);
        Ok((u32::try_from(slot).unwrap_or(u32::MAX), result?))
    }

    fn unknown(&self, name: &str) -> Error {
        let known = ROOTS.iter().map(|(known, _)| *known).chain(["nodes", "outputs"]);
        let hint = match nearest(name, known.chain(self.locals.iter().map(String::as_str))) {
            Some(near) => format!("did you mean `{near}`?"),
            None => String::from(
                "known are inputs, nodes.<id>.output, outputs.<name>, input, output, item, index, iteration and run",
            ),
        };
        Error::new(error::UNKNOWN_NAME, format!("unknown name `{}`; {hint}", excerpt(name)))
    }

    /// `has(x.y)`
    pub(super) fn has(&mut self, argument: &IdedExpr) -> Result<Kind, Error> {
        if let Some(reference) = self.reference(argument)? {
            let offset = self.offset(argument.id);
            return Ok(Kind::Present(Box::new(Node { offset, kind: reference })));
        }
        match member(argument) {
            Some((operand, key)) => Ok(Kind::Has(Box::new(self.node(operand)?), key.into())),
            None => Err(Error::new(error::ARGUMENTS, "has() needs a member to look for: has(x.y)")),
        }
    }
}

/// `x.key` or `x["key"]`.
fn member(tree: &IdedExpr) -> Option<(&IdedExpr, &str)> {
    match &tree.expr {
        Expr::Select(select) => Some((&select.operand, &select.field)),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] => {
                Some((operand, key.inner()))
            }
            _ => None,
        },
        _ => None,
    }
}

fn incomplete_node(id: &str) -> Error {
    Error::new(
        error::REFERENCE,
        format!(
            "`nodes.{}` is no value by itself; write nodes.{}.output, or nodes[\"<id>\"].output when the id has a \
             dash in it",
            excerpt(id),
            excerpt(id)
        ),
    )
}

/// The known name that was probably meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > 64 {
        return None;
    }
    let allowed = (name.chars().count() / 3).max(1);
    known
        .map(|known| (strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known)
}
