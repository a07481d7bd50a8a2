//! Random documents: every kind of node, bodies in bodies, every setting. All reviews have a timeout and all loops an
//! end, so that every run can come to its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Bytes;
use crate::engine::tests::build::{Build, accepting, call, delay, identity, join, wait};
use crate::engine::tests::value;
use crate::ir::{
    Admission, Backoff, Executor, Fallback, Ir, Kind, Limited, Merge, On, OnError, OnExhausted, OnItemError,
    OnTimeout, ParentClose, Policy, Retry, Review, Schema, Slot, Span, Template,
};
use crate::model::Priority;

/// Bodies in bodies, at most.
const DEPTH_MAX: u32 = 3;
/// Nodes of one document, about.
const NODES_MAX: u32 = 24;

/// Whose body a scope is.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    /// Nobody's, or nobody's that gives names.
    Other,
    Map,
    Loop,
}

/// Where a node is put.
#[derive(Clone, Copy)]
struct Spot {
    scope: u32,
    depth: u32,
    owner: Owner,
}

struct Writer<'a> {
    b: Build,
    bytes: Bytes<'a>,
    nodes: u32,
}

/// The document that these bytes mean.
pub(super) fn document(bytes: &[u8]) -> Arc<Ir> {
    let mut writer = Writer { b: Build::new(), bytes: Bytes(bytes), nodes: 0 };
    let top = Spot { scope: 0, depth: 0, owner: Owner::Other };
    writer.graph(top);
    if writer.bytes.one_in(8) {
        writer.b.ir.deadline = Some(Duration::from_secs(1 + u64::from(writer.bytes.below(20))));
    }
    if writer.bytes.one_in(6) {
        let source = *writer.bytes.of(&["inputs", "run.id", "1 / 0"]);
        let key = Template::Expr(writer.b.expr(0, source));
        let concurrency = Some(Limited { key, max: 3 });
        writer.b.ir.admission = Some(Box::new(Admission { concurrency, rate: None }));
    }
    if writer.bytes.one_in(4) {
        let source = *writer.bytes.of(&["nodes.n0_0.output", "inputs", "1 / 0"]);
        let outputs = writer.b.template(0, source);
        writer.b.ir.outputs = vec![("x".into(), outputs)];
    }
    writer.b.build()
}

fn integer() -> Schema {
    static INTEGER: OnceLock<Schema> = OnceLock::new();
    INTEGER.get_or_init(|| Schema::new(&value(r#"{"type": "integer"}"#)).unwrap()).clone()
}

impl Writer<'_> {
    fn graph(&mut self, spot: Spot) {
        let count = if spot.depth == 0 { 3 + self.bytes.below(7) } else { 1 + self.bytes.below(3) };
        for at in 0..u32::from(count) {
            let id = format!("n{}_{at}", spot.scope);
            let kind = self.kind(spot);
            let node = self.node(spot, &id, kind);
            for from in 0..at {
                if self.bytes.below(3) == 1 {
                    self.edge(spot.scope, (from, node));
                }
            }
        }
    }

    /// Puts a node there, with settings.
    fn node(&mut self, spot: Spot, id: &str, kind: Kind) -> u32 {
        self.nodes += 1;
        let scope = spot.scope;
        let is_call = matches!(kind, Kind::Call { .. } | Kind::Child { .. });
        let has_bodies = matches!(
            kind,
            Kind::Map { .. } | Kind::Parallel { .. } | Kind::Loop { .. } | Kind::Composite { .. }
        );
        let is_review = matches!(kind, Kind::HumanReview(_));
        let fallback = self.bytes.one_in(6).then(|| self.fallback(spot));
        let input = self.bytes.one_in(8).then(|| {
            let source = self.source(spot);
            self.b.template(scope, source)
        });
        let retry = self.bytes.one_in(if is_call { 2 } else { 5 }).then(|| self.retry());
        let timed = is_review || ((is_call || has_bodies) && self.bytes.one_in(3));
        let timeout = timed.then(|| Duration::from_millis(500) + self.bytes.seconds(10));
        let node = self.b.node(scope, id, kind);
        let settings = self.b.at(scope, node);
        settings.on_error = if self.bytes.one_in(7) { OnError::Fail } else { OnError::Continue };
        settings.policy =
            *self.bytes.of(&[Policy::All, Policy::All, Policy::All, Policy::Any, Policy::AtLeast(2)]);
        settings.priority = *self.bytes.of(&[Priority::Medium, Priority::High, Priority::Low]);
        settings.at_most_once = is_call && self.bytes.one_in(5);
        settings.output_schema = self.bytes.one_in(12).then(integer);
        (settings.fallback, settings.input, settings.retry, settings.timeout) =
            (fallback, input, retry, timeout);
        node
    }

    fn retry(&mut self) -> Retry {
        Retry {
            max_attempts: 1 + u32::from(self.bytes.below(3)),
            backoff: *self.bytes.of(&[Backoff::Exponential, Backoff::Linear, Backoff::Fixed]),
            initial: self.bytes.seconds(6),
            max: self.bytes.seconds(8),
            multiplier: *self.bytes.of(&[2.0, 1.0, 3.5]),
            jitter: self.bytes.one_in(2),
        }
    }

    fn fallback(&mut self, spot: Spot) -> Fallback {
        if self.is_full(spot) || !self.bytes.one_in(2) {
            let source = self.source(spot);
            return Fallback::Value(self.b.template(spot.scope, source));
        }
        Fallback::Body(self.body(spot, Owner::Other))
    }

    fn is_full(&self, spot: Spot) -> bool {
        spot.depth >= DEPTH_MAX || self.nodes >= NODES_MAX
    }

    fn body(&mut self, around: Spot, owner: Owner) -> u32 {
        let anonymous = self.bytes.one_in(2);
        let scope = self.b.body(around.scope, anonymous);
        let spot = Spot { scope, depth: around.depth + 1, owner };
        if anonymous {
            let kind = self.kind(spot);
            self.node(spot, "body", kind);
        } else {
            self.graph(spot);
            if self.bytes.one_in(3) {
                let source = match self.source(spot) {
                    source if source.contains("input") => String::from("inputs"),
                    source => source.to_owned(),
                };
                let output = if self.bytes.one_in(2) { format!("nodes.n{scope}_0.output") } else { source };
                self.b.ir.scopes[scope as usize].output = Some(self.b.template(scope, &output));
            }
        }
        scope
    }

    /// An expression for a node at `spot`.
    fn source(&mut self, spot: Spot) -> &'static str {
        match (self.bytes.below(9), spot.owner) {
            (0, Owner::Map) => "item",
            (1, Owner::Map) => "[index, item]",
            (0 | 1, Owner::Loop) => "iteration",
            (2, _) => "[input]",
            (3, _) => "{'a': input}",
            (4, _) => "1 / 0",
            (5, _) => "inputs",
            (6, _) => "[1, 7, 3]",
            (7, _) => "7",
            _ => "input",
        }
    }

    fn kind(&mut self, spot: Spot) -> Kind {
        let choice = self.bytes.below(20);
        if choice >= 14 && !self.is_full(spot) {
            return self.with_bodies(spot, choice);
        }
        let scope = spot.scope;
        match choice {
            0 => identity(),
            1 => {
                let source = self.source(spot);
                self.b.function(scope, source)
            }
            2 => self.b.function(scope, "1 / 0"),
            3 => self.b.conditional(
                scope,
                &[("t", *self.bytes.of(&["true", "false", "input == 7", "1 / 0 == 1"]))],
                Some("f"),
            ),
            4 => delay(u64::from(self.bytes.below(4))),
            5 => Kind::Delay {
                span: Span::ForExpr(
                    self.b.template(scope, self.bytes.of::<&str>(&["'2s'", "1.5", "input", "'x'"])),
                ),
            },
            6 => {
                let timeout = self.bytes.one_in(2).then(|| 1 + u64::from(self.bytes.below(4)));
                let kind = wait(["s0", "s1"][usize::from(self.bytes.below(2))], timeout);
                if timeout == Some(3) { accepting(kind, r#"{"maximum": 6}"#) } else { kind }
            }
            7 => Kind::Join { merge: Merge::Array },
            8 => join(),
            9 => self.review(),
            10 => Kind::Child {
                workflow: "child@1".into(),
                parent_close: *self.bytes.of(&[ParentClose::Cancel, ParentClose::Abandon]),
            },
            _ => call(&self.b, scope, *self.bytes.of(&[Executor::Http, Executor::Task, Executor::Agent])),
        }
    }

    fn with_bodies(&mut self, spot: Spot, choice: u8) -> Kind {
        let scope = spot.scope;
        match choice {
            14 | 15 => {
                let body = self.body(spot, Owner::Map);
                let over = *self.bytes.of(&["[1, 7, 3]", "[]", "[7]", "[[7], null]", "input"]);
                let errors = *self.bytes.of(&[OnItemError::Fail, OnItemError::Collect, OnItemError::Skip]);
                let mut map = self.b.map(scope, over, body, errors);
                if let Kind::Map { max_concurrency, .. } = &mut map {
                    *max_concurrency = *self.bytes.of(&[None, Some(1), Some(2)]);
                }
                map
            }
            16 => {
                let count = self.bytes.below(4);
                let names = ["left", "right", "middle"].into_iter().take(usize::from(count));
                let branches = names.map(|name| (Arc::from(name), self.body(spot, Owner::Other))).collect();
                Kind::Parallel { branches, results: self.bytes.one_in(2) }
            }
            17 | 18 => {
                let body = self.body(spot, Owner::Loop);
                let source = *self.bytes.of(&[
                    "iteration < 2",
                    "true",
                    "false",
                    "output == null",
                    "1 / (1 - iteration) == 1",
                ]);
                let mut condition = self.b.expr(scope, source);
                for slot in &mut condition.slots {
                    if matches!(slot, Slot::Iteration { .. }) {
                        *slot = Slot::NextIteration;
                    }
                }
                let max_iterations = 1 + u32::from(self.bytes.below(3));
                let on_exhausted = *self.bytes.of(&[OnExhausted::Continue, OnExhausted::Fail]);
                Kind::Loop { condition, body, max_iterations, on_exhausted }
            }
            _ => Kind::Composite { body: self.body(spot, Owner::Other) },
        }
    }

    fn review(&mut self) -> Kind {
        let names = |names: &str| Template::Value(value(names));
        let escalate = (0..self.bytes.below(3)).map(|step| {
            let after = Duration::from_secs(u64::from(step) * 2 + 1);
            (after, names(r#"["lead"]"#))
        });
        Kind::HumanReview(Box::new(Review {
            reviewers: names(r#"["ops"]"#),
            data: None,
            escalate: escalate.collect(),
            on_timeout: *self.bytes.of(&[OnTimeout::Reject, OnTimeout::Approve, OnTimeout::Fail]),
            form: None,
            reason_required: false,
            policy: None,
        }))
    }

    fn edge(&mut self, scope: u32, (from, to): (u32, u32)) {
        let choice = self.bytes.below(8);
        let on = match (&self.b.at(scope, from).kind, choice) {
            (Kind::Conditional { .. }, 0..=3) => On::Branch("t".into()),
            (Kind::Conditional { .. }, 4..=6) => On::Branch("f".into()),
            (Kind::HumanReview(_), 0 | 1) => On::Approved,
            (Kind::HumanReview(_), 2 | 3) => On::Rejected,
            (_, 5) => On::Timeout,
            (_, 6) => On::Error,
            _ => On::Success,
        };
        let when = match self.bytes.below(30) {
            8 => Some("true"),
            9 => Some("false"),
            10 => Some("output == 7"),
            11 => Some("1 / 0 == 1"),
            _ => None,
        };
        self.b.edge_on(scope, (from, to), on, when);
    }
}
