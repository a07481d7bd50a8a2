//! Events that do not fit: the fold refuses them, never panics, and leaves the run as it was.

use proptest::prelude::*;
use smallvec::SmallVec;

use super::build::{Build, delay, identity, wait};
use super::{Driver, START};
use crate::engine::{FoldError, Run, apply};
use crate::ir::OnItemError;
use crate::model::event::{Verdicts, Waiting};
use crate::model::{EventBody, Failure, Place, Value};

/// A map under way, a delay, a wait, a node that is pending.
fn busy() -> Driver {
    let mut b = Build::new();
    let body = b.body(0, false);
    let ask = b.node(body, "ask", wait("go", None));
    let last = b.node(body, "last", identity());
    b.edge(body, ask, last);
    let kind = b.map(0, "[1, 2]", body, OnItemError::Collect);
    let each = b.node(0, "each", kind);
    b.node(0, "pause", delay(5));
    b.node(0, "hear", wait("say", Some(5)));
    let after = b.node(0, "after", identity());
    b.edge(0, each, after);
    Driver::of(&b.build())
}

fn events(place: &Place) -> Vec<EventBody> {
    let place = || place.clone();
    let failure = || Failure::fatal("code", "message");
    let verdicts = |count: usize| -> Verdicts { std::iter::repeat_n(true, count).collect() };
    let mut events = vec![
        EventBody::NodeStarted { place: place(), attempt: 1 },
        EventBody::NodeStarted { place: place(), attempt: 7 },
        EventBody::NodeWaiting { place: place(), waiting: Waiting::Timer { due: START } },
        EventBody::NodeWaiting { place: place(), waiting: Waiting::Signal { name: "go".into(), due: None } },
        EventBody::NodeWaiting { place: place(), waiting: Waiting::Items { items: Value::Null } },
        EventBody::NodeWaiting {
            place: place(),
            waiting: Waiting::Items { items: Value::list(vec![Value::Null]) },
        },
        EventBody::TimerFired { place: place() },
        EventBody::NodeSkipped { place: place() },
        EventBody::SignalReceived { name: "go".into(), payload: Value::Null, waiter: Some(place()) },
        EventBody::SignalReceived { name: "say".into(), payload: Value::Null, waiter: Some(place()) },
        EventBody::SignalReceived { name: "go".into(), payload: Value::Null, waiter: None },
        EventBody::RunCompleted { outputs: Value::Null },
        EventBody::RunCancelRequested { reason: "r".into() },
        EventBody::RunCancelled { reason: "r".into() },
        EventBody::RunFailed { failure: failure(), place: Some(place()) },
    ];
    for count in 0..3 {
        events.push(EventBody::NodeCompleted { place: place(), output: Value::Null, edges: verdicts(count) });
        for continued in [false, true] {
            let (failure, edges) = (failure(), verdicts(count));
            events.push(EventBody::NodeFailed { place: place(), failure, edges, continued });
        }
    }
    events
}

fn places() -> impl Strategy<Value = Place> {
    let node = prop_oneof![0_u32..6, Just(Place::PASS), Just(u32::MAX - 1)];
    let step = (0_u32..3, prop_oneof![0_u32..3, Just(u32::MAX)]);
    (proptest::collection::vec(step, 0..4), node)
        .prop_map(|(scopes, node)| Place { scopes: SmallVec::from_vec(scopes), node })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_out_of_order_are_refused_or_fit(
        cut in 1_usize..30,
        picks in proptest::collection::vec((places(), any::<prop::sample::Index>()), 1..40),
    ) {
        let driver = busy();
        let cut = cut.min(driver.history.len());
        let mut run = super::refold(&driver.ir, &driver.history[..cut]);
        for (place, pick) in picks {
            let events = events(&place);
            let event = &events[pick.index(events.len())];
            let before = run.clone();
            match apply(&mut run, event, START) {
                Ok(()) => prop_assert_eq!(run.seq(), before.seq() + 1),
                Err(error) => {
                    prop_assert_eq!(&run, &before, "a refused event changes nothing: {}", error);
                    prop_assert!(error.code().starts_with("history_"));
                }
            }
            super::check_scope(&run.root);
        }
        // Whatever was let in, the run can go on from there.
        let mut out = crate::engine::Outcome::default();
        for _ in 0..100 {
            crate::engine::advance(&mut run, crate::engine::Input::Continue, START, 512, &mut out).unwrap();
        }
        prop_assert!(!run.is_ready());
    }
}

fn refused(run: &Run, body: &EventBody) -> FoldError {
    apply(&mut run.clone(), body, START).unwrap_err()
}

#[test]
fn errors_name_the_event_the_place_and_the_problem() {
    let driver = busy();
    let inner = Place { scopes: SmallVec::from_slice(&[(0, 1)]), node: 1 };
    let body = EventBody::NodeCompleted { place: inner, output: Value::Null, edges: Verdicts::new() };
    let told = refused(&driver.run, &body).to_string();
    assert!(told.starts_with("node.completed at each[1].last: "), "{told}");
    let body = EventBody::NodeSkipped { place: Place::root(77) };
    assert_eq!(refused(&driver.run, &body).to_string(), "node.skipped at ?: there is no such node");
    let told = refused(&driver.run, &EventBody::RunCompleted { outputs: Value::Null }).to_string();
    assert!(told.starts_with("run.completed: nodes are ready or under way"), "{told}");
    assert_eq!(refused(&driver.run, &driver.history[0].body).code(), "history_misfit");
}

#[test]
fn nothing_follows_the_end() {
    let mut driver = busy();
    driver.give(&super::Given::Cancel);
    for body in events(&Place::root(0)) {
        assert!(matches!(refused(&driver.run, &body), FoldError::Ended { .. }));
    }
}

#[test]
fn every_history_event_fits_only_where_it_stands() {
    let driver = busy();
    let history = &driver.history;
    for skip in 1..history.len() - 1 {
        let mut run = super::refold(&driver.ir, &history[..skip]);
        let rest: Result<(), FoldError> =
            history[skip + 1..].iter().try_for_each(|event| apply(&mut run, &event.body, event.at));
        assert!(rest.is_err() || run.seq() < driver.run.seq(), "event {skip} was left out");
        let mut run = super::refold(&driver.ir, &history[..=skip]);
        assert!(
            apply(&mut run, &history[skip].body, START).is_err(),
            "event {skip} twice: {:?}",
            history[skip]
        );
    }
}
