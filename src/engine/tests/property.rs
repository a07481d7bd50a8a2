//! Random documents of every kind of node, random things that happen to their runs, in any order: what RELIABILITY.md
//! ("Invariants") says of one run holds after every event.
//!
//! A document and a script are made from bytes (`document`, `world`), so that proptest can shrink them; `ledger` reads
//! the history as an outsider would, and knows nothing of the engine's state. Few cases here; `AOB_FULL=1` runs many.

mod document;
mod ledger;
mod script;
mod watch;
mod world;

use std::sync::Arc;

use proptest::prelude::*;

use super::{relive, value};
use crate::engine::Bill;
use crate::model::event::Waiting;
use crate::model::usage::Part;
use crate::model::{EventBody, Mode};
use crate::replay::{self, Error, Record};
use crate::time::Timestamp;
use world::{Begun, Pace, World};

/// Decisions, one after the other; 0 when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn below(&mut self, count: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % count
    }

    /// Once in `count` times; never when the bytes are used up.
    fn one_in(&mut self, count: u8) -> bool {
        self.below(count) == count - 1
    }

    fn of<'t, T>(&mut self, choices: &'t [T]) -> &'t T {
        &choices[usize::from(self.below(u8::try_from(choices.len()).unwrap()))]
    }

    fn seconds(&mut self, count: u8) -> std::time::Duration {
        std::time::Duration::from_millis(u64::from(self.below(count)) * 500)
    }
}

fn bytes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), count)
}

fn config() -> ProptestConfig {
    let cases = if std::env::var_os("AOB_FULL").is_some() { 40_000 } else { 2_000 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn begun(document: &[u8], pace: Pace) -> Begun {
    Begun { ir: document::document(document), inputs: value("7"), pace, terminated: true }
}

proptest! {
    #![proptest_config(config())]

    /// I-5, I-8, I-12, I-17, I-20, I-21: whatever happens, in whatever slices. The same inputs give the same bytes,
    /// and so do they to a node that dies after every event.
    #[test]
    fn whatever_happens_the_invariants_hold(document in bytes(60..400), script in bytes(0..160), slice in 1_u32..9) {
        let mut whole = World::begin(Begun { terminated: false, ..begun(&document, Pace::Slices(slice)) });
        whole.play(&script);
        whole.settle();
        for pace in [Pace::Slices(512), Pace::CrashAfterEachEvent] {
            let mut again = World::begin(begun(&document, pace));
            again.replay(&whole.moves);
            prop_assert_eq!(again.difference(&whole), None);
            prop_assert_eq!(again.bytes(), whole.bytes());
            prop_assert!(again.run == whole.run);
        }
    }

    /// The same when things come while the run still has much to do.
    #[test]
    fn inputs_may_come_in_the_middle_of_a_slice(document in bytes(60..400), script in bytes(0..160), slice in 1_u32..5) {
        let mut whole = World::begin(begun(&document, Pace::Hurried(slice)));
        whole.play(&script);
        whole.settle();
        let mut again = World::begin(begun(&document, Pace::Hurried(slice)));
        again.replay(&whole.moves);
        prop_assert_eq!(again.difference(&whole), None);
        prop_assert_eq!(again.bytes(), whole.bytes());
        prop_assert!(whole.rebuilt() == whole.run);
    }

    /// I-17: from any moment of its life another life is possible, and it ends too.
    #[test]
    fn a_run_goes_on_from_any_moment(
        document in bytes(60..400), script in bytes(0..100), other in bytes(0..100), cut in 1_usize..120
    ) {
        let mut world = World::begin(begun(&document, Pace::Slices(512)));
        world.play(&script);
        world.cut(cut);
        world.play(&other);
        world.settle();
        prop_assert!(world.rebuilt() == world.run);
    }
}

/// Gives the inputs of what happened to the engine again, and then of what happened with one event changed.
fn frozen(world: &World, which: usize) {
    frozen_from(world, 1, which);
}

fn frozen_from(world: &World, from: u64, which: usize) {
    let record = world.record().unwrap();
    let mut graphs = world::Same(world.run.ir().clone());
    let verified = replay::freeze(&record, &mut graphs, None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((verified.from, verified.to), (from, record.last_seq()));
    assert_eq!(verified.hash, world.run.state_hash().unwrap());
    let seq = 1 + which as u64 % record.last_seq();
    let (Some(broken), true) = (broken(&record, seq), seq > from) else { return };
    let found = replay::freeze(&broken, &mut graphs, None);
    let Err(Error::Diverged(found)) = found else { panic!("event {seq} was changed: {found:?}") };
    assert_eq!(found.seq, seq, "{found}");
}

/// The record with an event that the engine decides by itself changed; `None` when this one is told from outside.
fn broken(record: &Record, seq: u64) -> Option<Record> {
    let mut record = record.clone();
    let burst = record.bursts.iter_mut().find(|burst| (burst.first_seq..=burst.last_seq()).contains(&seq))?;
    let at = (seq - burst.first_seq) as usize;
    let due = |due: &mut Timestamp| *due = due.saturating_add(std::time::Duration::from_millis(1));
    match &mut burst.events[at] {
        EventBody::NodeStarted { attempt, .. } => *attempt += 1,
        EventBody::NodeWaiting {
            waiting: Waiting::Timer { due: at } | Waiting::Call { due: at, .. },
            ..
        } => due(at),
        EventBody::TimerSet { due: at, .. } | EventBody::NodeRetryScheduled { due: at, .. } => due(at),
        EventBody::NodeSkipped { place } => place.node += 1,
        EventBody::LoopContinued { iteration, .. } => *iteration += 1,
        // One more or less is what an input that came too late makes of a slice.
        EventBody::EventsDerived { count } => *count += 1_000,
        // The end of an attempt is told from outside, its edges are not.
        EventBody::NodeCompleted { edges, .. } | EventBody::NodeFailed { edges, .. } => {
            *edges.first_mut()? ^= true;
        }
        EventBody::RunCompleted { outputs } => *outputs = value(r#"{"changed": true}"#),
        _ => return None,
    }
    Some(record)
}

proptest! {
    #![proptest_config(config())]

    /// F090, F092, F188, N4, I-9: the record of whatever happened is decided again, byte for byte, in full and in fast
    /// mode; an event that was changed is the one that is named.
    #[test]
    fn a_record_is_decided_again_and_a_changed_event_is_named(
        document in bytes(60..400), script in bytes(0..160), slice in 1_u32..9, hurried: bool, fast: bool,
        which in 0_usize..10_000
    ) {
        let pace = if hurried { Pace::Hurried(slice) } else { Pace::Slices(slice) };
        let mut begun = begun(&document, pace);
        if fast {
            Arc::make_mut(&mut begun.ir).mode = Mode::Fast;
        }
        let mut world = World::begin(begun);
        world.play(&script);
        frozen(&world, which);
        world.settle();
        frozen(&world, which);
    }
}

proptest! {
    #![proptest_config(config())]

    /// F012, F084, I-20, I-21: from any moment of a run another one may go on, under any pace; it ends, and its record holds.
    #[test]
    fn a_fork_of_any_moment_goes_on_and_ends(
        document in bytes(60..400), script in bytes(0..160), other in bytes(0..100), slice in 1_u32..9, hurried: bool,
        fast: bool, cut in 1_usize..120
    ) {
        let pace = if hurried { Pace::Hurried(slice) } else { Pace::Slices(slice) };
        let mut begun = begun(&document, pace);
        if fast {
            Arc::make_mut(&mut begun.ir).mode = Mode::Fast;
        }
        let mut world = World::begin(begun);
        world.play(&script);
        let cut = 1 + cut % world.history.len();
        if let Some(mut fork) = world.fork(cut) {
            fork.play(&other);
            fork.settle();
            prop_assert!(fork.rebuilt() == fork.run);
            frozen_from(&fork, cut as u64 + 1, cut);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// F242, F247: in fast mode the same may happen, and what is not written down is decided again, the same. After every
    /// slice the fold of the history is the run.
    #[test]
    fn a_fast_run_is_what_its_history_says(
        document in bytes(60..400), script in bytes(0..160), slice in 1_u32..9, cut in 1_usize..60, hurried: bool
    ) {
        let pace = if hurried { Pace::Hurried(slice) } else { Pace::Slices(slice) };
        let mut begun = begun(&document, pace);
        Arc::make_mut(&mut begun.ir).mode = Mode::Fast;
        let mut world = World::begin(begun);
        world.play(&script);
        let mut other = world.clone();
        world.settle();
        prop_assert!(world.rebuilt() == world.run);
        other.cut(cut);
        other.settle();
        prop_assert!(other.rebuilt() == other.run);
    }
}

/// What the history alone says of money is what the run's state says.
fn billed(world: &World) {
    let ir = world.run.ir().clone();
    let (_, whole) = relive(&ir, &world.history);
    let mut bill = Bill::default();
    whole.iter().for_each(|(_, body)| bill.take(body, Some(&ir), &|place| ir.path(place).into()));
    let (total, spend) = (bill.total(), world.run.spend().cloned().unwrap_or_default());
    assert_eq!(total.usd.plus(total.reserved), spend.spent.plus(spend.reserved));
    assert_eq!(total.tokens_taken() + total.tokens_reserved, spend.tokens + spend.tokens_reserved);
    assert_eq!((total.answers, total.unpriced), (spend.answers, spend.unpriced));
    let mut used = std::collections::BTreeMap::<(Arc<str>, Arc<str>), Part>::new();
    for (whose, part) in &bill.own {
        used.entry((whose.role.clone(), whose.model.clone())).or_default().add(part);
    }
    if world.run.status().is_terminal() {
        assert_eq!((total.reserved, total.tokens_reserved), Default::default(), "nothing is under way");
        let told = spend.used.iter().map(|used| ((used.role.clone(), used.model.clone()), used.part.clone()));
        assert_eq!(told.collect::<std::collections::BTreeMap<_, _>>(), used);
        assert_eq!((total.usd, total.unknown), (spend.spent, spend.unknown));
    } else if !world.run.is_ready() {
        assert_eq!((total.usd, total.unknown), (spend.spent, spend.unknown));
    }
}

proptest! {
    #![proptest_config(config())]

    /// F396, F400: the parts of a bill are what was spent and reserved, after whatever happened, in full and in fast mode, and
    /// in forks.
    #[test]
    fn the_parts_of_a_bill_are_the_spend_of_the_run(
        document in bytes(60..400), script in bytes(0..160), slice in 1_u32..9, fast: bool, cut in 1_usize..120
    ) {
        let mut begun = begun(&document, Pace::Slices(slice));
        if fast {
            Arc::make_mut(&mut begun.ir).mode = Mode::Fast;
        }
        let mut world = World::begin(begun);
        for part in script.chunks(12) {
            world.play(part);
            billed(&world);
        }
        if let Some(mut fork) = world.fork(1 + cut % world.history.len()) {
            billed(&fork);
            fork.settle();
            billed(&fork);
        }
        world.settle();
        billed(&world);
    }
}

/// The generator reaches what the tests are about.
#[test]
fn all_kinds_of_events_happen() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for round in 0..400 {
        let (document, script) = (bytes(60..400), bytes(0..160)).new_tree(&mut runner).unwrap().current();
        let mut begun = begun(&document, Pace::Slices(512));
        if round % 4 == 3 {
            Arc::make_mut(&mut begun.ir).mode = Mode::Fast;
        }
        let mut world = World::begin(begun);
        world.play(&script);
        world.settle();
        for event in &world.history {
            *seen.entry(event.body.type_name().to_owned()).or_default() += 1;
        }
        for code in world.failures() {
            *seen.entry(code).or_default() += 1;
        }
    }
    for wanted in [
        "node.skipped",
        "node.completed",
        "node.failed",
        "node.retry_scheduled",
        "node.fell_back",
        "node.uncertain",
        "node.progress",
        "timer.set",
        "timer.fired",
        "signal.received",
        "approval.escalated",
        "approval.expired",
        "approval.decided",
        "run.waiting",
        "run.admitted",
        "run.paused",
        "run.resumed",
        "run.cancelled",
        "run.failed",
        "run.completed",
        "events.derived",
        "model.called",
        "model.answered",
        "timeout",
        "expression_division_by_zero",
        "output_schema",
        "join_unsatisfiable",
        "loop_exhausted",
        "deadline_exceeded",
    ] {
        assert!(seen.contains_key(wanted), "{wanted} never happened: {seen:?}");
    }
}
