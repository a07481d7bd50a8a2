//! Random graphs, random completions, crashes after every event.
//!
//! A graph and a script are made from bytes, so that proptest can shrink them. What holds is checked by the driver after
//! every event; here are the histories as a whole.

use std::sync::Arc;

use proptest::prelude::*;

use super::build::{Build, accepting, delay, identity, join, wait};
use super::{Driver, Given, Mode, Phase, start, value};
use crate::engine::Timer;
use crate::ir::{Ir, Kind, Merge, On, OnError, OnItemError, Policy};
use crate::model::{EventBody, Place, Status, Value};

/// Decisions, one after the other; 0 when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn below(&mut self, count: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % count
    }

    fn one_in(&mut self, count: u8) -> bool {
        self.below(count) == count - 1
    }
}

/// What may be in a graph.
#[derive(Clone, Copy, PartialEq)]
enum Mix {
    Everything,
    /// Nothing whose result depends on who comes first, and nothing that fails the run.
    Confluent,
}

fn graph(b: &mut Build, scope: u32, depth: u32, mix: Mix, bytes: &mut Bytes<'_>) {
    let count = if depth == 0 { 3 + bytes.below(7) } else { 1 + bytes.below(4) };
    for at in 0..count {
        let id = format!("n{scope}_{at}");
        let kind = kind(b, (scope, depth), mix, &id, bytes);
        let node = b.node(scope, &id, kind);
        if mix == Mix::Confluent || !bytes.one_in(8) {
            b.at(scope, node).on_error = OnError::Continue;
        }
        if mix == Mix::Everything {
            let policy =
                [Policy::All, Policy::All, Policy::Any, Policy::AtLeast(2)][usize::from(bytes.below(4))];
            b.at(scope, node).policy = policy;
        }
        for from in 0..u32::from(at) {
            if bytes.below(3) == 1 {
                edge(b, scope, (from, node), mix, bytes);
            }
        }
    }
}

fn kind(b: &mut Build, (scope, depth): (u32, u32), mix: Mix, id: &str, bytes: &mut Bytes<'_>) -> Kind {
    match bytes.below(11) {
        0 | 1 => identity(),
        2 => b.function(scope, "7"),
        3 => b.function(scope, "[input]"),
        4 => b.function(scope, "1 / 0"),
        5 => b.conditional(
            scope,
            &[("t", ["true", "false", "input == 7"][usize::from(bytes.below(3))])],
            Some("f"),
        ),
        6 => delay(u64::from(bytes.below(4))),
        7 => {
            // A name of its own where it must not matter who comes first.
            let shared = format!("s{}", bytes.below(2));
            let timeout = bytes.one_in(2).then(|| 1 + u64::from(bytes.below(4)));
            let own = mix == Mix::Confluent;
            let kind = wait(if own { id } else { &shared }, timeout.filter(|_| !own));
            // Some signals do not fit, those that were kept among them.
            let choosy = !own && timeout == Some(3);
            if choosy { accepting(kind, r#"{"maximum": 6}"#) } else { kind }
        }
        8 | 9 if depth < 2 => {
            let body = b.body(scope, bytes.one_in(2));
            if b.ir.scopes[body as usize].anonymous {
                let kind = kind(b, (body, depth + 1), mix, id, bytes);
                b.node(body, "body", kind);
            } else {
                graph(b, body, depth + 1, mix, bytes);
                if bytes.one_in(2) {
                    let output = ["item", "[index, nodes.%.output]"][usize::from(bytes.below(2))];
                    let output = output.replace('%', &format!("n{body}_0"));
                    b.ir.scopes[body as usize].output = Some(b.template(body, &output));
                }
            }
            // Items that wait for one name get their signals in the order in which they began to wait.
            let wide = mix == Mix::Everything;
            let over = ["[]", "[7]", "[1, 7, 3]", "[1, 2, 3, 4]"][usize::from(bytes.below(4))];
            let errors =
                [OnItemError::Fail, OnItemError::Collect, OnItemError::Skip][usize::from(bytes.below(3))];
            let mut map = b.map(scope, if wide { over } else { "[7, 7, 7]" }, body, errors);
            if let Kind::Map { max_concurrency, .. } = &mut map {
                *max_concurrency = [None, Some(1), Some(2)][usize::from(bytes.below(3))];
            }
            map
        }
        10 => Kind::Join { merge: Merge::Array },
        _ => join(),
    }
}

fn edge(b: &mut Build, scope: u32, (from, to): (u32, u32), mix: Mix, bytes: &mut Bytes<'_>) {
    let on = match (&b.at(scope, from).kind, bytes.below(8)) {
        (Kind::Conditional { .. }, 0..=3) => On::Branch("t".into()),
        (Kind::Conditional { .. }, 4..=6) => On::Branch("f".into()),
        (_, 6) => On::Error,
        (Kind::Wait { .. }, 7) => On::Timeout,
        _ => On::Success,
    };
    let when = match bytes.below(30) {
        8 => Some("true"),
        9 => Some("false"),
        10 => Some("output == 7"),
        11 if mix == Mix::Everything => Some("1 / 0 == 1"),
        _ => None,
    };
    b.edge_on(scope, (from, to), on, when);
}

fn ir(mix: Mix, bytes: &[u8]) -> Arc<Ir> {
    let mut b = Build::new();
    graph(&mut b, 0, 0, mix, &mut Bytes(bytes));
    b.build()
}

/// Something that may happen next: a due timer, an old one, a signal that somebody waits for, or one that nobody does.
fn happening(driver: &Driver, bytes: &mut Bytes<'_>) -> Given {
    let timers: Vec<_> = driver.run.timers().map(|(_, timer)| timer).collect();
    let names: Vec<_> = driver.run.waiting.keys().cloned().collect();
    match bytes.below(8) {
        0..=2 if !timers.is_empty() => {
            Given::Timer(timers[usize::from(bytes.below(255)) % timers.len()].clone())
        }
        3..=5 if !names.is_empty() => {
            let name = &names[usize::from(bytes.below(255)) % names.len()];
            Given::Signal(name.to_string(), Value::Int(i64::from(bytes.below(9))))
        }
        6 => Given::Timer(Timer::Node(Place::root(u32::from(bytes.below(9))))),
        _ => Given::Signal(format!("s{}", bytes.below(3)), Value::Int(7)),
    }
}

/// The time at which an input is given: a timer's due time, or a little before it.
fn come(driver: &mut Driver, given: &Given, late: bool) {
    if let Given::Timer(timer) = given
        && let Some((due, _)) = driver.run.timers().find(|(_, armed)| armed == timer)
        && late
    {
        driver.now = driver.now.max(due);
    }
}

/// F116, and liveness: once all timers fire and all signals arrive, the run ends.
fn settle(driver: &mut Driver, taken: &mut Vec<(crate::time::Timestamp, Given)>) {
    for _ in 0..20_000 {
        if driver.run.status().is_terminal() {
            return;
        }
        let given = match driver.run.timers().min() {
            Some((due, timer)) => {
                driver.now = driver.now.max(due);
                Given::Timer(timer)
            }
            None => {
                let waiting = driver.run.waiting.keys().find(|name| driver.run.waiter(name).is_some());
                let name = waiting.unwrap_or_else(|| panic!("stuck: {:#?}", driver.run));
                Given::Signal(name.to_string(), Value::Int(7))
            }
        };
        taken.push((driver.now, given.clone()));
        driver.give(&given);
    }
    panic!("it never ends: {:#?}", driver.run);
}

/// Every node of the outermost scope has settled, and none is left behind.
fn nothing_is_left(driver: &Driver) {
    if driver.run.status() == Status::Completed {
        assert!(driver.run.root.nodes.iter().all(|node| node.phase.is_settled()));
        let skipped = driver.run.root.nodes.iter().filter(|node| node.phase == Phase::Skipped);
        assert!(skipped.into_iter().all(|node| node.attempts == 0));
    }
}

fn bytes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// F114, F116: whatever happens, in whatever slices: one outcome a node, gapless, an end. And a node that dies after
    /// every event writes the same history, event by event.
    #[test]
    fn crashes_change_nothing(document in bytes(40..240), script in bytes(0..60), slice in 1_u32..9) {
        let ir = ir(Mix::Everything, &document);
        let start = start(&ir, value("7"));
        let mut whole = Driver::begin(&start, Mode::Bursts(slice));
        let entries = ir.root().nodes.iter().filter(|node| node.incoming.is_empty()).count();
        let mut script = Bytes(&script);
        let mut taken = Vec::new();
        while !script.0.is_empty() && !whole.run.status().is_terminal() {
            let given = happening(&whole, &mut script);
            let late = !script.one_in(4);
            come(&mut whole, &given, late);
            taken.push((whole.now, given.clone()));
            whole.give(&given);
        }
        settle(&mut whole, &mut taken);
        nothing_is_left(&whole);
        if whole.run.status() == Status::Completed {
            let started = whole.history.iter().filter(|event| {
                matches!(&event.body, EventBody::NodeStarted { place, .. }
                    if place.scopes.is_empty() && ir.root().nodes[place.node as usize].incoming.is_empty())
            });
            prop_assert_eq!(started.count(), entries);
        }

        let mut crashed = Driver::begin(&start, Mode::CrashAfterEachEvent);
        for (at, given) in taken {
            crashed.now = at;
            // The input is given once; what follows from it is decided again after each crash.
            crashed.give(&given);
        }
        prop_assert_eq!(&crashed.history, &whole.history);
        prop_assert_eq!(&crashed.run, &whole.run);
        prop_assert_eq!(crashed.run.view().outputs, whole.run.view().outputs);
    }

    /// F011: cancelled at any moment, a run is cancelled, and nothing starts afterwards (the driver looks).
    #[test]
    fn a_cancel_at_any_moment_ends_the_run(document in bytes(40..240), script in bytes(0..30), cut in 1_usize..60) {
        let ir = ir(Mix::Everything, &document);
        let mut driver = Driver::begin(&start(&ir, value("7")), Mode::Bursts(512));
        let mut script = Bytes(&script);
        while !script.0.is_empty() && !driver.run.status().is_terminal() {
            let given = happening(&driver, &mut script);
            come(&mut driver, &given, true);
            driver.give(&given);
        }
        // Back to some moment of its life.
        let cut = cut.min(driver.history.len());
        let ended = driver.history[..cut].last().is_some_and(|event| event.body.ends_run());
        driver.history.truncate(cut);
        driver.run = driver.rebuilt();
        driver.timers = driver.run.timers().collect();
        let decided = driver.run.is_ending();
        let stale = driver.give(&Given::Cancel);
        prop_assert_eq!(stale, ended || decided);
        if !stale {
            prop_assert_eq!(driver.run.status(), Status::Cancelled);
            prop_assert_eq!(driver.history.len(), cut + 2);
        }
        prop_assert!(driver.run.status().is_terminal());
    }

    /// Where nothing depends on who comes first, the order in which things come changes no output.
    #[test]
    fn order_changes_no_output(document in bytes(40..240), one in bytes(0..60), other in bytes(0..60)) {
        let ir = ir(Mix::Confluent, &document);
        let outputs = [one, other].map(|script| {
            let mut driver = Driver::begin(&start(&ir, value("7")), Mode::Bursts(3));
            let mut script = Bytes(&script);
            while !driver.run.status().is_terminal() {
                let timers: Vec<_> = driver.run.timers().map(|(_, timer)| Given::Timer(timer)).collect();
                let names = driver.run.waiting.keys().filter(|name| driver.run.waiter(name).is_some());
                let signals = names.map(|name| Given::Signal(name.to_string(), Value::Int(7)));
                let mut all: Vec<_> = timers.into_iter().chain(signals).collect();
                let at = usize::from(script.below(255)) % all.len();
                let given = all.swap_remove(at);
                come(&mut driver, &given, true);
                driver.give(&given);
            }
            driver.outputs()
        });
        prop_assert_eq!(&outputs[0], &outputs[1]);
    }
}
