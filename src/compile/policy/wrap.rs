//! Puts the gates in: every scope, the innermost first, every node that a rule is about and that no gate of it guards.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::gate::Ends;
use super::rules::{About, Rule};
use super::{Rules, fresh, with};
use crate::compile::patch::{each, kind};
use crate::limits;
use crate::model::{Map, Value};

/// Room for a number behind an id that is taken.
const NUMBER_BYTES: usize = 8;

/// One document being gone through.
pub(super) struct Wrapping<'r> {
    pub(super) rules: &'r Rules,
    /// Every id in the document: an expression may name it.
    taken: BTreeSet<Arc<str>>,
}

/// What is being put around one node.
struct Body {
    nodes: Map,
    edges: Map,
}

impl<'r> Wrapping<'r> {
    pub(super) fn new(document: &Value, rules: &'r Rules) -> Self {
        let mut taken = BTreeSet::new();
        each(document, &mut |path, _| {
            // The node of a body that is one node has no id.
            taken.extend(
                path.rsplit_once("/nodes/").filter(|(_, id)| !id.contains('/')).map(|(_, id)| Arc::from(id)),
            );
        });
        Self { rules, taken }
    }

    /// A scope with its gates: the document, or a body `{nodes, edges}`.
    pub(super) fn scope(&self, value: &Value) -> Value {
        let inner = fresh::scope(self, &self.inside(value));
        let ends = Ends::of(&inner);
        let nodes: Map =
            ends.scope.nodes.iter().map(|(id, node)| (Arc::from(*id), self.node(&ends, id, node))).collect();
        with(&inner, [("nodes", Some(Value::Map(Arc::new(nodes))))])
    }

    /// The same with the gates of all bodies in it.
    fn inside(&self, value: &Value) -> Value {
        let Some(Value::Map(nodes)) = value.get("nodes") else { return value.clone() };
        let nodes: Map = nodes.iter().map(|(id, node)| (id.clone(), self.bodies(node))).collect();
        with(value, [("nodes", Some(Value::Map(Arc::new(nodes))))])
    }

    /// A body: a scope, or one node.
    fn body(&self, value: &Value) -> Value {
        if value.get("nodes").is_some() {
            return self.scope(value);
        }
        let node = self.bodies(value);
        self.node(&Ends::of(&node), "", &node)
    }

    fn bodies(&self, node: &Value) -> Value {
        let settings = node.get("with");
        let within = |key: &'static str, of: &dyn Fn(&Value) -> Value| {
            let body = settings.and_then(|settings| settings.get(key)).map(of)?;
            Some(with(settings?, [(key, Some(body))]))
        };
        let made = match kind(node) {
            "map" | "loop" | "composite" => within("body", &|body| self.body(body)),
            "parallel" => within("branches", &|branches| match branches {
                Value::Map(map) => Value::map(map.iter().map(|(name, body)| (name.clone(), self.body(body)))),
                other => other.clone(),
            }),
            _ => None,
        };
        let is_body = |value: &&Value| value.get("type").is_some() || value.get("nodes").is_some();
        let fallback = node.get("fallback").filter(is_body).map(|body| self.body(body));
        let changed = [("with", made), ("fallback", fallback)];
        with(node, changed.into_iter().filter(|(_, value)| value.is_some()))
    }

    /// A node, with what its rules want around it.
    fn node(&self, ends: &Ends<'_>, id: &str, node: &Value) -> Value {
        let tags = match node.get("tags") {
            Some(Value::List(tags)) => &tags[..],
            _ => &[],
        };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut all_stand = true;
        for rule in &self.rules.rules {
            match &rule.about {
                About::Tag(tag) => {
                    if tags.iter().any(|own| own.as_str() == Some(tag)) {
                        all_stand &= ends.is_behind(id, rule, &gate(rule, id, node, node.get("input")));
                        before.push(rule);
                    }
                }
                About::Confidence(below) => {
                    let Some(low) = low(node, *below) else { continue };
                    if !ends.is_looked_at(id, &low, &look(rule, id, node)) {
                        after.push((rule, low));
                    }
                }
            }
        }
        if all_stand && after.is_empty() {
            return node.clone();
        }
        if all_stand {
            // They stand outside, and so the tags do.
            before.clear();
        }
        self.wrapped(id, node, (&before, &after))
    }

    fn wrapped(&self, id: &str, node: &Value, (before, after): (&[&Rule], &[(&Rule, String)])) -> Value {
        let mut body = Body { nodes: Map::default(), edges: Map::default() };
        // A body that is one node has no id for it.
        let own: Arc<str> = if id.is_empty() { self.free(&body.nodes, "body") } else { id.into() };
        let unnamed = node.get("with").and_then(|with| with.get("queue")).is_none();
        let mut inner = with(node, [("input", None), ("outputs", None), ("on_error", None)]);
        let tags = if before.is_empty() { node.get("tags") } else { None };
        if tags.is_some() {
            inner = with(&inner, [("tags", None)]);
        }
        if kind(node) == "task" && unnamed && id.is_empty() {
            // Its queue is called after its place, which is another one now.
            let settings = node.get("with").cloned().unwrap_or_default();
            inner = with(&inner, [("with", Some(with(&settings, [("queue", Some("body".into()))])))]);
        }
        body.nodes.insert(own.clone(), Value::Null);
        if !before.is_empty() {
            let input = self.free(&body.nodes, &format!("input_{own}"));
            body.nodes.insert(input.clone(), Value::map([("type", Value::from("function"))]));
            let given = Value::string(format!("${{ nodes[\"{input}\"].output }}"));
            inner = with(&inner, [("input", Some(given.clone()))]);
            let mut last = (input, None);
            for rule in before {
                let id = self.free(&body.nodes, &format!("gate_{own}"));
                body.nodes.insert(id.clone(), gate(rule, &own, &inner, Some(&given)));
                body.edge((&last.0, &id), last.1, None);
                last = (id, Some("approved"));
            }
            body.edge((&last.0, &own), last.1, None);
        }
        for (rule, low) in after {
            let id = self.free(&body.nodes, &format!("review_{own}"));
            body.nodes.insert(id.clone(), look(rule, &own, &inner));
            body.edge((&own, &id), None, Some(low));
        }
        body.nodes.insert(own.clone(), inner);
        let outer = ["input", "outputs", "on_error", "priority"];
        let outer = outer.into_iter().filter_map(|key| Some((key, node.get(key)?.clone())));
        let outer = outer.chain(tags.map(|tags| ("tags", tags.clone())));
        let output = Value::string(format!("${{ nodes[\"{own}\"].output }}"));
        let body = Value::map([
            ("nodes", Value::Map(Arc::new(body.nodes))),
            ("edges", Value::Map(Arc::new(body.edges))),
            ("outputs", output),
        ]);
        let composite = [("type", Value::from("composite")), ("with", Value::map([("body", body)]))];
        Value::map(outer.chain(composite))
    }

    /// An id like this one that nothing in the document has, nor is about to.
    pub(super) fn free(&self, put: &Map, wanted: &str) -> Arc<str> {
        let room = wanted.len().min(limits::NODE_ID_BYTES_MAX - NUMBER_BYTES);
        let stem = wanted.get(..room).unwrap_or("gate");
        let is_free = |id: &str| !self.taken.contains(id) && put.get(id).is_none();
        if is_free(stem) {
            return stem.into();
        }
        let mut numbered = (2_u64..).map(|number| format!("{stem}_{number}"));
        numbered.find(|id| is_free(id)).unwrap_or_default().into()
    }
}

impl Body {
    fn edge(&mut self, (from, to): (&Arc<str>, &Arc<str>), on: Option<&str>, when: Option<&str>) {
        let (key, edge) = edge((&**from, &**to), on, when);
        self.edges.insert(key, edge);
    }
}

/// An edge, with its key.
pub(super) fn edge((from, to): (&str, &str), on: Option<&str>, when: Option<&str>) -> (Arc<str>, Value) {
    let key = on.map_or_else(|| format!("{from}/{to}"), |on| format!("{from}/{to}:{on}"));
    let text = |text: &str| Value::string(text.to_owned());
    let ends = [("from", text(from)), ("to", text(to))];
    let said = [("on", on.map(text)), ("when", when.map(text))];
    let said = said.into_iter().filter_map(|(key, value)| Some((key, value?)));
    (key.into(), Value::map(ends.into_iter().chain(said)))
}

/// The gate of a rule before a node that is given this.
pub(super) fn gate(rule: &Rule, id: &str, node: &Value, given: Option<&Value>) -> Value {
    let shown = asked(id, node, ("input", "${ input }".into()));
    with(&review(rule, shown), [("input", given.cloned())])
}

/// The review of a rule about what a node gave.
fn look(rule: &Rule, id: &str, node: &Value) -> Value {
    let shown = [("node", Value::string(id)), ("type", kind(node).into()), ("output", "${ input }".into())];
    review(rule, Value::map(shown))
}

/// A review that this rule asks for, about what is shown.
fn review(rule: &Rule, shown: Value) -> Value {
    let why = Value::string(rule.why());
    let shown = with(&shown, [("policy", Some(why.clone()))]);
    let settings = with(&rule.with, [("policy", Some(why)), ("data", Some(shown))]);
    Value::map([("type", Value::from("human_review")), ("with", settings)])
}

/// What a reviewer is shown of a node that has not begun: what it is, where it goes, and what it would be given. What has
/// a secret in it is left out.
fn asked(id: &str, node: &Value, given: (&'static str, Value)) -> Value {
    let shown: &[&'static str] = match kind(node) {
        "http" => &["method", "url", "query", "body"],
        "task" => &["queue", "payload"],
        "agent" => &["role", "task"],
        "composite" => &["workflow"],
        _ => &[],
    };
    let setting = |key: &&'static str| {
        let value = node.get("with")?.get(key)?;
        (!value.to_json().contains("${secret:")).then(|| (*key, value.clone()))
    };
    let mut entries: Vec<(&'static str, Value)> = shown.iter().filter_map(setting).collect();
    let defaults = [("http", "method", Value::from("GET")), ("task", "queue", Value::string(id))];
    for (of, key, value) in defaults {
        if kind(node) == of && !entries.iter().any(|(known, _)| *known == key) {
            entries.push((key, value));
        }
    }
    entries.extend([("node", Value::string(id)), ("type", kind(node).into()), given]);
    Value::map(entries)
}

/// The condition on a node's output for a confidence below this. `None`: it makes no output of its own.
fn low(node: &Value, below: f64) -> Option<String> {
    let says = |key: &str| node.get("with").and_then(|with| with.get(key));
    let made = match kind(node) {
        "task" | "agent" | "wait" => true,
        "composite" => says("workflow").is_some(),
        "http" => return Some(condition("output.body", "type(output) == map && ", below)),
        // It passes on what others gave, who were looked at, unless it says otherwise.
        "function" => says("expr")
            .and_then(Value::as_str)
            .is_some_and(|expr| expr.contains("confidence") || expr.contains("parse_json")),
        _ => false,
    };
    made.then(|| condition("output", "", below))
}

fn condition(of: &str, first: &str, below: f64) -> String {
    format!(
        "{first}type({of}) == map && has({of}.confidence) && (type({of}.confidence) == int || \
         type({of}.confidence) == double) && double({of}.confidence) < {below:?}"
    )
}
