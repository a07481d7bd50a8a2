//! What a wait accepts, who answers an update, and how the end of the node that answers is noticed.

use super::build::{Build, accepting, call, delay, identity, wait};
use super::*;
use crate::engine::Settled;
use crate::ir::{Executor, Kind, On, OnItemError};
use crate::model::Status;

/// A wait for `go` that accepts a number, answered by node `reply`.
fn number(reply: Option<u32>) -> Kind {
    let Kind::Wait { signal, timeout, accepts, .. } = accepting(wait("go", None), r#"{"type": "integer"}"#)
    else {
        unreachable!()
    };
    Kind::Wait { signal, timeout, accepts, reply }
}

#[test]
fn a_kept_signal_that_does_not_fit_fails_the_wait_and_is_gone() {
    let mut b = Build::new();
    let gate = b.node(0, "gate", delay(1));
    let ask = b.node(0, "ask", number(None));
    let again = b.node(0, "again", number(None));
    let never = b.node(0, "never", identity());
    b.edge(0, gate, ask);
    b.edge(0, ask, never);
    b.edge_on(0, (ask, again), On::Error, None);
    let mut driver = Driver::of(&b.build());
    assert!(!driver.signal("go", r#""soon""#), "kept");
    assert!(!driver.signal("go", "7"), "kept");
    driver.fire_next();
    assert_eq!((driver.state("ask"), driver.state("never")), ("failed", "skipped"));
    assert_eq!(driver.outputs().get("again"), Some(&Value::Int(7)), "the next one is the next one kept");
    let failed = driver.history.iter().find_map(|event| match &event.body {
        EventBody::NodeFailed { failure, .. } => Some(failure.clone()),
        _ => None,
    });
    let failed = failed.unwrap();
    assert_eq!((&*failed.code, failed.retryable()), ("payload_invalid", false));
    assert!(!failed.message.contains("soon"), "values are not quoted: {}", failed.message);
}

#[test]
fn a_wait_says_who_answers_and_what_it_accepts() {
    let mut b = Build::new();
    let each = b.body(0, false);
    b.node(each, "hear", number(Some(1)));
    let tell = call(&b, each, Executor::Task);
    b.node(each, "tell", tell);
    b.edge(each, 0, 1);
    let map = b.map(0, "[1, 2]", each, OnItemError::Fail);
    b.node(0, "each", map);
    b.node(0, "other", wait("stop", None));
    let mut driver = Driver::of(&b.build());
    let awaited = driver.run.awaited("go").unwrap();
    assert_eq!((&awaited.place.scopes[..], awaited.place.node), (&[(0, 0)][..], 0));
    assert_eq!((&awaited.reply.scopes[..], awaited.reply.node), (&[(0, 0)][..], 1));
    let other = driver.run.awaited("stop").unwrap();
    assert_eq!(other.place, other.reply);
    assert_eq!(driver.run.awaited("nothing"), None);
    assert_eq!(driver.run.awaited_names(9), ["go", "stop"].map(Arc::<str>::from));
    assert_eq!(driver.run.awaited_names(1).len(), 1);
    assert_eq!(driver.run.unfit(&awaited.place, &Value::Int(1)), []);
    assert_eq!(driver.run.unfit(&awaited.place, &value("[]")).len(), 1);
    assert_eq!(driver.run.unfit(&other.place, &value("[]")), [], "it accepts anything");
    driver.signal("stop", "1");
    assert_eq!(driver.run.awaited_names(9), ["go"].map(Arc::<str>::from));
    driver.signal("go", "1");
    assert_eq!(driver.run.awaited("go").unwrap().place.scopes[..], [(0, 1)], "one signal, one waiter");
    assert_eq!(driver.run.settled(&awaited.place), Some(Settled::Completed(Value::Int(1))));
    assert_eq!(driver.run.settled(&awaited.reply), None);
    driver.give(&Given::Terminate);
    assert_eq!(driver.run.settled(&awaited.reply), Some(Settled::Gone));
}

#[test]
fn the_end_of_a_watched_node_is_noted_whether_it_is_written_down_or_not() {
    for mode in [crate::model::Mode::Full, crate::model::Mode::Fast] {
        let mut b = Build::new();
        b.ir.mode = mode;
        let ask = b.node(0, "ask", number(Some(1)));
        let good = b.function(0, "nodes.ask.output + 1");
        let good = b.node(0, "good", good);
        let bad = b.function(0, "nodes.ask.output / 0");
        let bad = b.node(0, "bad", bad);
        let off = b.node(0, "off", identity());
        b.chain(0, &[ask, good]);
        b.edge(0, ask, bad);
        b.edge_on(0, (good, off), On::Error, None);
        let end = b.node(0, "end", identity());
        b.edge_on(0, (bad, end), On::Error, None);
        let ir = b.build();
        let mut driver = Driver::of(&ir);
        let watched = [ask, good, bad, off].map(Place::root).into();
        let mut out = Outcome { watched, ..Outcome::default() };
        let payload = Value::Int(41);
        let input = Input::Signal { name: "go", payload: &payload, key: None };
        advance(&mut driver.run, input, START, 512, &mut out).unwrap();
        assert_eq!(driver.run.status(), Status::Completed, "{mode:?}");
        let told: Vec<_> = out.settled.iter().map(|(place, how)| (place.node, how.clone())).collect();
        let of = |node: u32| told.iter().find(|(other, _)| *other == node).unwrap().1.clone();
        assert_eq!(told.len(), 4, "{mode:?}: each once, and no other: {told:?}");
        assert_eq!(of(ask), Settled::Completed(Value::Int(41)));
        assert_eq!(of(good), Settled::Completed(Value::Int(42)));
        assert!(
            matches!(of(bad), Settled::Failed(failure) if &*failure.code == "expression_division_by_zero")
        );
        assert_eq!(of(off), Settled::Skipped);
        out.clear();
        assert!(out.watched.is_empty() && out.settled.is_empty());
    }
}
