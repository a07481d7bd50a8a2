//! No human who had to be asked is left out: what patches may not do to `human_review` nodes, in any scope.
//!
//! A gate that was there
//!
//! - stays, and stays a `human_review`; so does every node whose body it stands in, as far as that body goes;
//! - asks whom it asked, nobody less and nobody else, for what it asked; where anybody may decide, some may be named;
//! - lets nothing through for want of an answer that it did not let through before;
//! - keeps its edges `on: approved` and `on: rejected` as they are;
//! - is led around by nobody. [`Flow`] says for every node which approvals it can be reached from with none in between; an
//!   edge that is new must not add to those of a node that was there, unless the way there has been approved before by one
//!   of them. So by induction every new way to such a node passes the gates of an old one.
//!
//! A gate that a policy put there is the policy's alone: no author changes it. It follows the node that it stands before
//! ([`Gates::Follow`]), and goes with it when the patch that brought both is taken back.
//!
//! What a new node does is not judged here, nor how many of its edges a join waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Aim;
use super::scope::{Edge, Scope, bodies, each, kind, members};
use crate::compile::fields::seconds;
use crate::compile::finding::quoted;
use crate::compile::{order, pointer};
use crate::model::Value;
use crate::model::parse_duration;
use crate::model::workflow::ON_SUCCESS;

const REVIEW: &str = "human_review";

/// Where, and what.
type Found = Vec<(String, String)>;

/// What becomes of gates that a policy put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gates {
    /// They stay to the letter.
    Stay,
    /// What they show may be what is done now: every node has the gates that its rules want.
    Follow,
}

/// Compares two canonical documents.
pub(super) fn check(before: &Value, after: &Value, how: (Aim, Gates)) -> Found {
    let mut found = Found::new();
    compare((&Scope::of(before), Some(&Scope::of(after))), how, "", &mut found);
    found
}

/// Does this node hold reviews, all of which a policy asks for?
fn is_governed(node: &Value) -> bool {
    let (mut rules, mut authors) = (0, 0);
    each(node, &mut |_, node| {
        let policy = node.get("with").and_then(|with| with.get("policy")).is_some();
        if kind(node) == REVIEW {
            *(if policy { &mut rules } else { &mut authors }) += 1;
        }
    });
    rules > 0 && authors == 0
}

fn compare(
    (before, after): (&Scope<'_>, Option<&Scope<'_>>),
    how: (Aim, Gates),
    at: &str,
    found: &mut Found,
) {
    let mut gates = BTreeSet::new();
    for (id, was) in &before.nodes {
        let at = if id.is_empty() { at.to_owned() } else { pointer::join(&format!("{at}/nodes"), id) };
        let is = after.and_then(|after| after.nodes.get(id).copied());
        if is.is_none() && how.0 == Aim::TakeBack && kind(was) != REVIEW && is_governed(was) {
            // Nothing is left to be asked about.
            continue;
        }
        if kind(was) == REVIEW {
            gates.insert(*id);
            let what = match is {
                None => Some("cannot be taken out"),
                Some(is) if kind(is) != REVIEW => Some("cannot become something else"),
                Some(is) => looser(was, is, how.1),
            };
            found.extend(what.map(|what| {
                let name = if id.is_empty() { "body" } else { id };
                (at.clone(), format!("the human_review {} {what} by a patch", quoted(name)))
            }));
        }
        for (slot, body) in bodies(was) {
            let others = is.map(bodies).unwrap_or_default();
            let other = others.into_iter().find(|(other, _)| *other == slot);
            let other = other.map(|(_, body)| Scope::of(body));
            compare((&Scope::of(body), other.as_ref()), how, &format!("{at}{slot}"), found);
        }
    }
    if let (Some(after), false) = (after, gates.is_empty()) {
        kept(before, after, &gates, at, found);
        around(before, after, &gates, at, found);
    }
}

/// How the gate is looser than it was.
fn looser(was: &Value, is: &Value, gates: Gates) -> Option<&'static str> {
    let with = |node: &Value, key: &str| node.get("with").and_then(|with| with.get(key)).cloned();
    let policy = |node: &Value| {
        with(node, "policy")?;
        let stays = |(key, _): &(&str, &Value)| gates == Gates::Stay || *key != "data";
        let with: Vec<(String, Value)> = members(node.get("with"))
            .filter(stays)
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        Some(with)
    };
    if policy(was).is_some() && policy(was) != policy(is) {
        return Some("was put there by a policy and cannot be changed");
    }
    let asked = |node: &Value| with(node, "reviewers").filter(|asked| *asked != Value::list(Vec::new()));
    let same = match (asked(was), asked(is)) {
        (None, _) => true,
        // In any order.
        (Some(Value::List(was)), Some(Value::List(is))) => {
            was.iter().all(|name| is.contains(name)) && is.iter().all(|name| was.contains(name))
        }
        (was, is) => was == is,
    };
    // One decision is enough: whoever is asked besides could decide alone.
    if !same || with(was, "escalate") != with(is, "escalate") {
        return Some("cannot be given other reviewers");
    }
    if with(was, "form").is_some() && with(was, "form") != with(is, "form") {
        return Some("cannot be made to ask for something else");
    }
    let explains = |node: &Value| with(node, "reason").is_some_and(|word| word.as_str() == Some("required"));
    if explains(was) && !explains(is) {
        return Some("cannot be made to take decisions without a reason");
    }
    let approves =
        |node: &Value| with(node, "on_timeout").is_some_and(|word| word.as_str() == Some("approve"));
    let continues = |node: &Value| node.get("on_error").is_some_and(|word| word.as_str() == Some("continue"));
    let stands_in = |node: &Value| node.get("fallback").cloned();
    if approves(is) && !approves(was) {
        return Some("cannot be made to approve by itself");
    }
    if continues(is) && !continues(was) {
        return Some("cannot be made to let through when it fails");
    }
    if stands_in(is).is_some() && stands_in(is) != stands_in(was) {
        return Some("cannot be given something that stands in for an answer");
    }
    let lets_through = approves(is) || continues(is) || stands_in(is).is_some();
    let sooner = match (lapse(was), lapse(is)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(was), Some(is)) => is < was,
    };
    (lets_through && sooner).then_some("cannot be made to lapse sooner, because it then lets through")
}

/// How long a review waits: the shorter of its two timeouts.
fn lapse(node: &Value) -> Option<Duration> {
    let inner = node.get("with").and_then(|with| with.get("timeout"));
    let read = |value: &Value| match value {
        Value::String(text) => parse_duration(text),
        other => seconds(other),
    };
    [inner, node.get("timeout")].into_iter().flatten().filter_map(read).min()
}

/// The answers of every gate lead where they led.
fn kept(before: &Scope<'_>, after: &Scope<'_>, gates: &BTreeSet<&str>, at: &str, found: &mut Found) {
    let still: BTreeMap<&str, Option<&Value>> =
        after.edges.iter().map(|edge| (edge.key, edge.when)).collect();
    let answers = before
        .edges
        .iter()
        .filter(|edge| gates.contains(edge.from) && matches!(edge.on, "approved" | "rejected"));
    for edge in answers {
        let what = match still.get(edge.key) {
            None => "taken out",
            Some(when) if *when != edge.when => "given another condition",
            Some(_) => continue,
        };
        let at = pointer::join(&format!("{at}/edges"), edge.key);
        found.push((at, format!("the edge {} of a human_review cannot be {what} by a patch", edge.key)));
    }
}

/// Is it an edge that only an approval makes live?
fn passes(edge: &Edge<'_>) -> bool {
    matches!(edge.on, ON_SUCCESS | "approved")
}

fn around(before: &Scope<'_>, after: &Scope<'_>, gates: &BTreeSet<&str>, at: &str, found: &mut Found) {
    let (was, is) = (Flow::new(before, gates), Flow::new(after, gates));
    let old: BTreeSet<(&str, &str, &str)> =
        before.edges.iter().map(|edge| (edge.from, edge.to, edge.on)).collect();
    for edge in after.edges.iter().filter(|edge| !old.contains(&(edge.from, edge.to, edge.on))) {
        let Some(allowed) = was.reached_from(edge.to) else { continue };
        let gate = gates.contains(edge.from) && passes(edge);
        let sources = if gate { was.bit(edge.from) } else { is.reached_from(edge.from).cloned() };
        let Some(sources) = sources else { continue };
        if sources.ones().any(|source| !was.is_behind(source, allowed)) {
            let message = format!(
                "the edge {} would lead around a human_review that {} stood behind",
                edge.key,
                quoted(edge.to)
            );
            found.push((pointer::join(&format!("{at}/edges"), edge.key), message));
        }
    }
    let targets: BTreeSet<&str> = after.edges.iter().map(|edge| edge.to).collect();
    for id in after.nodes.keys().filter(|id| !targets.contains(*id)) {
        if was.reached_from(id).is_some_and(|allowed| !allowed.has(Flow::START)) {
            // It had edges, or it would have been reached from the start: they are gone.
            let gone = before.edges.iter().rev().find(|edge| edge.to == *id).map(|edge| edge.key);
            let message = format!("{} stood behind a human_review and would run at once", quoted(id));
            found.push((pointer::join(&format!("{at}/edges"), gone.unwrap_or_default()), message));
        }
    }
}

/// A set of small numbers.
#[derive(Clone, Debug, PartialEq)]
struct Bits(Vec<u64>);

impl Bits {
    fn none(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn set(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    fn has(&self, bit: usize) -> bool {
        self.0.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(into, from)| *into |= from);
    }

    fn meet(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(into, from)| *into &= from);
    }

    fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    fn ones(&self) -> impl Iterator<Item = usize> {
        let words = self.0.iter().zip(0..).filter(|(word, _)| **word != 0);
        words.flat_map(|(word, at)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        })
    }
}

/// Which approvals lead where. Bit 0 is the scope's start, bit n the approval of gate n - 1.
struct Flow<'d> {
    /// By id: what the node can be reached from with no approval in between.
    reached: BTreeMap<&'d str, Bits>,
    /// By number of a gate: approvals that are on every way to it.
    required: Vec<Bits>,
    numbers: BTreeMap<&'d str, usize>,
}

impl<'d> Flow<'d> {
    const START: usize = 0;

    fn new(scope: &Scope<'d>, gates: &BTreeSet<&'d str>) -> Self {
        let size = gates.len() + 1;
        let numbers: BTreeMap<&str, usize> = gates.iter().copied().zip(1..).collect();
        let ids: Vec<&str> = scope.nodes.keys().copied().collect();
        let index: BTreeMap<&str, usize> = ids.iter().copied().zip(0..).collect();
        let mut into: Vec<Vec<(usize, bool)>> = vec![Vec::new(); ids.len()];
        let mut next = vec![Vec::new(); ids.len()];
        let mut before = vec![Vec::new(); ids.len()];
        for edge in &scope.edges {
            let (Some(&from), Some(&to)) = (index.get(edge.from), index.get(edge.to)) else { continue };
            next.get_mut(from).into_iter().for_each(|list| list.push(to));
            before.get_mut(to).into_iter().for_each(|list| list.push(from));
            into.get_mut(to).into_iter().for_each(|list| list.push((from, passes(edge))));
        }
        let mut start = Bits::none(size);
        start.set(Self::START);
        let mut flow = Self { reached: BTreeMap::new(), required: vec![Bits::none(size); size], numbers };
        let mut ways: Vec<Bits> = vec![Bits::none(size); ids.len()];
        for node in order::kahn(&next, &before) {
            let incoming = into.get(node).map(Vec::as_slice).unwrap_or_default();
            let mut reached = if incoming.is_empty() { start.clone() } else { Bits::none(size) };
            let mut required: Option<Bits> = None;
            for (from, passes) in incoming {
                let Some(id) = ids.get(*from) else { continue };
                let mut way = ways.get(*from).cloned().unwrap_or_else(|| Bits::none(size));
                match flow.bit(id).filter(|_| *passes) {
                    Some(gate) => {
                        reached.join(&gate);
                        way.join(&gate);
                    }
                    None => flow.reached.get(id).into_iter().for_each(|from| reached.join(from)),
                }
                required = Some(match required {
                    Some(mut other) => {
                        other.meet(&way);
                        other
                    }
                    None => way,
                });
            }
            let required = required.unwrap_or_else(|| Bits::none(size));
            let Some(id) = ids.get(node) else { continue };
            if let Some(slot) = flow.numbers.get(id).and_then(|number| flow.required.get_mut(*number)) {
                *slot = required.clone();
            }
            ways.get_mut(node).into_iter().for_each(|way| *way = required.clone());
            flow.reached.insert(id, reached);
        }
        flow
    }

    fn reached_from(&self, id: &str) -> Option<&Bits> {
        self.reached.get(id)
    }

    /// The approval of this gate, when it is one.
    fn bit(&self, id: &str) -> Option<Bits> {
        let number = *self.numbers.get(id)?;
        let mut bits = Bits::none(self.numbers.len() + 1);
        bits.set(number);
        Some(bits)
    }

    /// Is what comes after `source` behind one of `allowed` already?
    fn is_behind(&self, source: usize, allowed: &Bits) -> bool {
        allowed.has(Self::START)
            || allowed.has(source)
            || self.required.get(source).is_some_and(|required| required.meets(allowed))
    }
}
