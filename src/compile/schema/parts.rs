//! A JSON Schema as a graph: which subschema applies which others, to the same value or to what is in it.

use ahash::AHashMap;

use super::Refused;
use crate::compile::{finding, pointer};
use crate::limits;
use crate::model::Value;

/// Keywords whose subschema looks at the same value (or its keys), and those with lists and maps of such.
const SAME: [&str; 5] = ["not", "if", "then", "else", "propertyNames"];
const SAME_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Subschemas of all items of a list.
const ITEMS: [&str; 3] = ["items", "contains", "unevaluatedItems"];
/// Subschemas of members that have no property of their own.
const OTHERS: [&str; 2] = ["additionalProperties", "unevaluatedProperties"];

/// One subschema: the numbers of those it applies.
#[derive(Default)]
struct Part {
    /// To the same value.
    same: Vec<usize>,
    /// Each to every item.
    items: Vec<usize>,
    /// Each to one item.
    prefix: Vec<usize>,
    /// Each to one member.
    properties: Vec<usize>,
    /// Each to any member.
    patterns: Vec<usize>,
}

/// A schema taken apart.
pub(super) struct Parts<'s> {
    root: &'s Value,
    numbers: AHashMap<*const Value, usize>,
    schemas: Vec<&'s Value>,
    parts: Vec<Part>,
}

/// Visits of a value and, on the costliest way down, of what is in it: if it is a list, and if it is a map.
#[derive(Clone, Copy, Default)]
struct Visits {
    list: u64,
    map: u64,
}

impl Visits {
    fn most(self) -> u64 {
        self.list.max(self.map)
    }
}

impl<'s> Parts<'s> {
    /// Takes a schema apart, following its references.
    pub(super) fn new(root: &'s Value) -> Result<Self, Refused> {
        let mut parts = Self { root, numbers: AHashMap::new(), schemas: Vec::new(), parts: Vec::new() };
        parts.number(root);
        let mut next = 0;
        while let Some(schema) = parts.schemas.get(next).copied() {
            let part = parts.part(schema)?;
            parts.parts.push(part);
            next += 1;
        }
        Ok(parts)
    }

    fn number(&mut self, schema: &'s Value) -> usize {
        *self.numbers.entry(std::ptr::from_ref(schema)).or_insert_with(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        })
    }

    fn part(&mut self, schema: &'s Value) -> Result<Part, Refused> {
        let mut part = Part::default();
        let Value::Map(keywords) = schema else { return Ok(part) };
        for (keyword, value) in keywords.iter() {
            match (&**keyword, value) {
                ("$ref", Value::String(target)) => {
                    let target = self.target(target)?;
                    part.same.push(self.number(target));
                }
                ("$ref" | "$dynamicRef" | "$recursiveRef", _) => return Err(foreign(keyword)),
                ("$id", _) if !std::ptr::eq(schema, self.root) => return Err(foreign("$id inside a schema")),
                (name, Value::List(list)) if SAME_LISTS.contains(&name) => {
                    part.same.extend(list.iter().map(|schema| self.number(schema)));
                }
                (name, Value::List(list)) if name == "prefixItems" || name == "items" => {
                    part.prefix.extend(list.iter().map(|schema| self.number(schema)));
                }
                ("dependentSchemas", Value::Map(map)) => {
                    part.same.extend(map.iter().map(|(_, schema)| self.number(schema)));
                }
                ("properties", Value::Map(map)) => {
                    part.properties.extend(map.iter().map(|(_, schema)| self.number(schema)));
                }
                ("patternProperties", Value::Map(map)) => {
                    part.patterns.extend(map.iter().map(|(_, schema)| self.number(schema)));
                }
                (name, schema) if SAME.contains(&name) => part.same.push(self.number(schema)),
                (name, schema) if ITEMS.contains(&name) => part.items.push(self.number(schema)),
                (name, schema) if OTHERS.contains(&name) => part.properties.push(self.number(schema)),
                _ => {}
            }
        }
        Ok(part)
    }

    /// What `#/...` names.
    fn target(&self, reference: &str) -> Result<&'s Value, Refused> {
        let missing = || {
            let shown = finding::quoted(reference);
            let code = "schema_ref";
            (code, format!("the $ref {shown} names nothing in the schema; write #/$defs/NAME"))
        };
        let steps = reference.strip_prefix('#').ok_or_else(|| foreign("a $ref to elsewhere"))?;
        if !(steps.is_empty() || steps.starts_with('/')) {
            return Err(missing());
        }
        let mut at = self.root;
        for step in steps.split('/').skip(1) {
            let step = pointer::unescape(step);
            let next = match at {
                Value::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                other => other.get(&step),
            };
            at = next.ok_or_else(missing)?;
        }
        Ok(at)
    }

    /// Subschemas so that each comes after those that it applies to the same value.
    fn order(&self) -> Result<Vec<usize>, Refused> {
        let mut open: Vec<usize> = self.parts.iter().map(|part| part.same.len()).collect();
        let mut users = vec![Vec::new(); self.parts.len()];
        for (number, part) in self.parts.iter().enumerate() {
            for same in &part.same {
                users.get_mut(*same).into_iter().for_each(|users: &mut Vec<usize>| users.push(number));
            }
        }
        let mut order: Vec<usize> = (0..open.len()).filter(|part| open.get(*part) == Some(&0)).collect();
        let mut next = 0;
        while let Some(done) = order.get(next).copied() {
            next += 1;
            for user in users.get(done).into_iter().flatten() {
                if let Some(left) = open.get_mut(*user) {
                    *left -= 1;
                    if *left == 0 {
                        order.push(*user);
                    }
                }
            }
        }
        if order.len() < self.parts.len() {
            let message = String::from("a part of it applies itself to the value that it looks at");
            return Err(("schema_recursion", message));
        }
        Ok(order)
    }

    /// The most visits of one value, with everything around it. Counting ends above the limit.
    pub(super) fn visits(&self) -> Result<u64, Refused> {
        let order = self.order()?;
        let mut below = vec![Visits::default(); self.parts.len()];
        for _ in 0..=limits::VALUE_DEPTH_MAX {
            let mut now = vec![Visits::default(); self.parts.len()];
            for number in &order {
                let Some(part) = self.parts.get(*number) else { continue };
                let visits = part.visits(&now, &below);
                if let Some(place) = now.get_mut(*number) {
                    *place = visits;
                }
            }
            let most = now.first().copied().unwrap_or_default().most();
            if most > limits::SCHEMA_VISITS_MAX {
                return Ok(most);
            }
            below = now;
        }
        Ok(below.first().copied().unwrap_or_default().most())
    }
}

impl Part {
    fn visits(&self, now: &[Visits], below: &[Visits]) -> Visits {
        let at = |number: &usize| below.get(*number).copied().unwrap_or_default().most();
        let sum = |numbers: &[usize]| numbers.iter().map(at).fold(0, u64::saturating_add);
        let most = |numbers: &[usize]| numbers.iter().map(at).max().unwrap_or_default();
        let items = sum(&self.items).saturating_add(most(&self.prefix));
        let members = sum(&self.patterns).saturating_add(most(&self.properties));
        let mut visits = Visits { list: items.saturating_add(1), map: members.saturating_add(1) };
        for same in &self.same {
            let same = now.get(*same).copied().unwrap_or_default();
            visits.list = visits.list.saturating_add(same.list);
            visits.map = visits.map.saturating_add(same.map);
        }
        visits
    }
}

fn foreign(what: &str) -> Refused {
    (
        "schema_ref",
        format!("{what} is not supported; a schema refers to its own parts, as $ref: '#/$defs/NAME'"),
    )
}
