//! What differs between two documents of one run, for people: nodes, edges and metadata, each member by its path.
//!
//! Both are canonical, so nodes and edges stand under their keys and nothing is a matter of spelling. Only the outermost
//! scope is told apart by node; what differs in a body is a member of the node that it stands in.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use super::operation::ends;
use super::scope::{Scope, bodies, kind, members};
use crate::limits;
use crate::model::Value;

/// What differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    /// Nodes, by id.
    pub nodes: Vec<Item>,
    /// Edges, by key.
    pub edges: Vec<Item>,
    /// Members of `metadata`.
    pub metadata: Vec<Member>,
}

/// A node or an edge that is not what it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its id, or `from/to`, or `from/to:on`.
    pub key: Arc<str>,
    /// The kind of a node as it is, or was; empty for an edge.
    pub kind: Arc<str>,
    /// What became of it.
    pub what: What,
}

/// What became of a node or an edge.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// These members differ; at least one.
    Changed(Vec<Member>),
}

/// A member that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Where it stands: `with.url`, `with.branches[0].when`.
    pub path: String,
    /// What it was; `None` when it was not there.
    pub from: Option<Value>,
    /// What it is; `None` when it is not there any more.
    pub to: Option<Value>,
}

/// Compares two canonical documents.
pub fn diff(before: &Value, after: &Value) -> Diff {
    let items = |root: &str| items(before.get(root), after.get(root));
    let mut metadata = Vec::new();
    compare(before.get("metadata"), after.get("metadata"), "metadata", &mut metadata);
    Diff { nodes: items("nodes"), edges: items("edges"), metadata }
}

fn items(before: Option<&Value>, after: Option<&Value>) -> Vec<Item> {
    let mut found = Vec::new();
    let keys: BTreeSet<&str> = members(before).chain(members(after)).map(|(key, _)| key).collect();
    for key in keys {
        let (was, is) = (before.and_then(|map| map.get(key)), after.and_then(|map| map.get(key)));
        let what = match (was, is) {
            (None, _) => What::Added,
            (Some(_), None) => What::Removed,
            (Some(was), Some(is)) if was == is => continue,
            (was, is) => {
                let mut changes = Vec::new();
                compare(was, is, "", &mut changes);
                What::Changed(changes)
            }
        };
        let kind = is.or(was).map(kind).unwrap_or_default();
        found.push(Item { key: key.into(), kind: kind.into(), what });
    }
    found
}

/// The kinds of the nodes that are new, those in their bodies included, if nothing else differs but edges that lead to them.
pub fn only_adds(before: &Value, after: &Value) -> Option<BTreeSet<Arc<str>>> {
    let diff = diff(before, after);
    let added = |item: &Item| item.what == What::Added;
    if !diff.metadata.is_empty() || !diff.nodes.iter().chain(&diff.edges).all(added) {
        return None;
    }
    let new = |id: &str| diff.nodes.binary_search_by(|item| (*item.key).cmp(id)).is_ok();
    if !diff.edges.iter().all(|edge| ends(&edge.key).is_some_and(|(_, to)| new(to))) {
        return None;
    }
    let mut kinds = BTreeSet::new();
    let nodes = after.get("nodes");
    for item in &diff.nodes {
        kinds_of(nodes.and_then(|nodes| nodes.get(&item.key))?, &mut kinds);
    }
    Some(kinds)
}

fn kinds_of(node: &Value, kinds: &mut BTreeSet<Arc<str>>) {
    kinds.insert(kind(node).into());
    for (_, body) in bodies(node) {
        Scope::of(body).nodes.values().for_each(|node| kinds_of(node, kinds));
    }
}

/// Goes into maps, and into lists that are as long as they were; anything else is changed as a whole.
fn compare(was: Option<&Value>, is: Option<&Value>, path: &str, found: &mut Vec<Member>) {
    match (was, is) {
        (was, is) if was == is => {}
        (Some(Value::Map(_)), Some(Value::Map(_))) => {
            let keys: BTreeSet<&str> = members(was).chain(members(is)).map(|(key, _)| key).collect();
            for key in keys {
                let dot = if path.is_empty() { "" } else { "." };
                let of = |value: Option<&'_ Value>| value.and_then(|map| map.get(key)).cloned();
                compare(of(was).as_ref(), of(is).as_ref(), &format!("{path}{dot}{}", step(key)), found);
            }
        }
        (Some(Value::List(from)), Some(Value::List(to))) if from.len() == to.len() => {
            for (at, (from, to)) in from.iter().zip(to.iter()).enumerate() {
                compare(Some(from), Some(to), &format!("{path}[{at}]"), found);
            }
        }
        (was, is) => found.push(Member { path: path.to_owned(), from: was.cloned(), to: is.cloned() }),
    }
}

/// A key as it is read in a path: quoted unless it is a plain word.
fn step(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !key.is_empty() && key.bytes().all(plain) { key.to_owned() } else { format!("{key:?}") }
}

impl Diff {
    /// Are the two the same?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.edges.is_empty() && self.metadata.is_empty()
    }

    /// One line for each difference: `+ node email (task)`, `~ node x: with.url "a" -> "b"`, `- edge a -> b`. Text from the
    /// documents is quoted; long values are shortened, which the JSON form does not do.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for item in &self.nodes {
            let name = &item.key;
            line(&mut text, ("node", name), item, &format!(" ({})", item.kind));
        }
        for item in &self.edges {
            let (pair, on) = item.key.split_once(':').map_or((&*item.key, ""), |(pair, on)| (pair, on));
            let name = pair.replacen('/', " -> ", 1);
            let name = if on.is_empty() { name } else { format!("{name} on {on}") };
            line(&mut text, ("edge", &name), item, "");
        }
        for member in &self.metadata {
            let _ = writeln!(text, "~ {}", said(member));
        }
        text
    }
}

fn line(text: &mut String, (what, name): (&str, &str), item: &Item, kind: &str) {
    let _ = match &item.what {
        What::Added => writeln!(text, "+ {what} {name}{kind}"),
        What::Removed => writeln!(text, "- {what} {name}{kind}"),
        What::Changed(members) => {
            let said = members.iter().map(said).collect::<Vec<_>>().join(", ");
            writeln!(text, "~ {what} {name}: {said}")
        }
    };
}

fn said(member: &Member) -> String {
    let value = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".into(), short);
    format!("{} {} -> {}", member.path, value(&member.from), value(&member.to))
}

/// A value on one line, in printable characters only.
fn short(value: &Value) -> String {
    let mut text = String::new();
    for letter in value.to_json().chars() {
        if text.len() >= limits::DIFF_VALUE_CHARS_MAX {
            text.push_str("...");
            break;
        }
        // What could reorder or hide the text on a terminal is spelled out.
        if letter == '"' || letter == '\'' || letter == '\\' {
            text.push(letter);
        } else {
            text.extend(letter.escape_debug());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::compile_canonical;

    fn document(nodes: &str, rest: &str) -> Value {
        compile_canonical(format!(r#"{{"name": "w", "nodes": {{{nodes}}}{rest}}}"#).as_bytes())
            .unwrap()
            .document
    }

    // F191, N1
    #[test]
    fn every_difference_has_a_line() {
        let before = document(
            r#""a": {"type": "http", "with": {"url": "http://a.example/"}},
               "b": {"type": "function", "with": {"expr": "1"}, "needs": ["a"]},
               "c": {"type": "function", "with": {"expr": "1"}, "needs": ["b"]}"#,
            r#", "metadata": {"x": 1}"#,
        );
        let after = document(
            r#""a": {"type": "http", "with": {"url": "http://b.example/", "method": "POST"}},
               "c": {"type": "function", "with": {"expr": "1"}},
               "email": {"type": "task", "with": {"queue": "mail"}}"#,
            r#", "edges": [{"from": "a", "to": "c"}, {"from": "a", "to": "email", "on": "error"}], "metadata": {"x": "\u0007\u202e"}"#,
        );
        let diff = diff(&before, &after);
        let text = diff.to_text();
        let lines: Vec<_> = text.lines().collect();
        let method =
            before.get("nodes").unwrap().get("a").unwrap().get("with").unwrap().get("method").is_some();
        let was = if method { "\"GET\"" } else { "nothing" };
        assert_eq!(
            lines,
            [
                &*format!(
                    "~ node a: with.method {was} -> \"POST\", with.url \"http://a.example/\" -> \"http://b.example/\""
                ),
                "- node b (function)",
                "+ node email (task)",
                "- edge a -> b",
                "+ edge a -> c",
                "+ edge a -> email on error",
                "- edge b -> c",
                "~ metadata.x 1 -> \"\\u0007\\u{202e}\"",
            ]
        );
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    }

    // N2: what a class of patches may do is judged by what it does, bodies included.
    #[test]
    fn additions_are_told_from_changes() {
        let base = r#""a": {"type": "function", "with": {"expr": "1"}}"#;
        let before = document(base, "");
        let add = |more: &str, rest: &str| only_adds(&before, &document(&format!("{base}, {more}"), rest));
        let kinds =
            |kinds: &[&str]| Some(kinds.iter().map(|kind| Arc::from(*kind)).collect::<BTreeSet<Arc<str>>>());
        let function = r#""b": {"type": "function", "with": {"expr": "1"}, "needs": ["a"]}"#;
        assert_eq!(add(function, ""), kinds(&["function"]));
        let map = r#""b": {"type": "map", "needs": ["a"], "with": {"over": "[1]", "body": {"type": "task", "with": {"queue": "q"}}}}"#;
        assert_eq!(add(map, ""), kinds(&["map", "task"]));
        let in_front = r#""b": {"type": "function", "with": {"expr": "1"}}"#;
        assert_eq!(
            add(in_front, r#", "edges": [{"from": "b", "to": "a"}]"#),
            None,
            "an edge to what was there"
        );
        assert_eq!(add(function, r#", "metadata": {"x": 1}"#), None);
        assert_eq!(
            only_adds(&document(function.replace(r#", "needs": ["a"]"#, "").as_str(), ""), &before),
            None
        );
    }

    #[test]
    fn a_document_does_not_differ_from_itself() {
        let same = document(r#""a": {"type": "function", "with": {"expr": "1"}}"#, "");
        assert!(diff(&same, &same).is_empty());
        assert_eq!(diff(&same, &same).to_text(), "");
    }
}
