//! When a node runs: policies, dead edges, errors.

use super::build::{Build, delay, identity, join, wait};
use super::{Driver, value};
use crate::ir::{On, OnError, Policy};
use crate::model::Status;

/// Three waits into one join.
fn three(policy: Policy) -> Driver {
    let mut b = Build::new();
    let sources: Vec<_> = ["a", "b", "c"].map(|id| b.node(0, id, wait(id, Some(60)))).into();
    let gather = b.node(0, "gather", join());
    let after = b.node(0, "after", identity());
    for source in sources {
        b.edge(0, source, gather);
        b.at(0, source).on_error = OnError::Fail;
        b.edge_on(0, (source, after), On::Error, None);
    }
    b.edge(0, gather, after);
    b.at(0, after).policy = Policy::All;
    b.at(0, gather).policy = policy;
    Driver::of(&b.build())
}

#[test]
fn all_waits_for_every_edge() {
    let mut driver = three(Policy::All);
    driver.signal("b", "2");
    driver.signal("c", "3");
    assert_eq!(driver.state("gather"), "pending");
    driver.signal("a", "1");
    assert_eq!(driver.outputs(), value(r#"{"after": {"a": 1, "b": 2, "c": 3}}"#));
}

#[test]
fn any_takes_the_first_and_ignores_the_rest() {
    let mut driver = three(Policy::Any);
    driver.signal("b", "2");
    assert_eq!(driver.state("gather"), "completed");
    driver.signal("c", "3");
    driver.signal("a", "1");
    assert_eq!(driver.outputs(), value(r#"{"after": {"b": 2}}"#));
}

#[test]
fn any_takes_one_even_when_more_arrive_before_it_starts() {
    let mut b = Build::new();
    let kind = b.function(0, "1");
    let a = b.node(0, "a", kind);
    let kind = b.function(0, "2");
    let c = b.node(0, "c", kind);
    let first = b.node(0, "first", identity());
    b.edge(0, a, first);
    b.edge(0, c, first);
    b.at(0, first).policy = Policy::Any;
    assert_eq!(Driver::of(&b.build()).outputs(), value(r#"{"first": 1}"#));
}

#[test]
fn at_least_takes_the_kth() {
    let mut driver = three(Policy::AtLeast(2));
    driver.signal("c", "3");
    assert_eq!(driver.state("gather"), "pending");
    driver.signal("a", "1");
    driver.signal("b", "2");
    assert_eq!(driver.outputs(), value(r#"{"after": {"a": 1, "c": 3}}"#));
}

#[test]
fn at_least_fails_as_soon_as_too_few_can_arrive() {
    let mut driver = three(Policy::AtLeast(3));
    driver.signal("a", "1");
    driver.fire_next();
    assert_eq!(driver.failure(), ("join_unsatisfiable".into(), Some("gather".into())));
    assert!(!driver.told().contains(&"node.started gather".to_owned()));
}

#[test]
fn at_least_with_nothing_live_is_skipped() {
    let mut driver = three(Policy::AtLeast(2));
    while driver.fire_next() {}
    assert_eq!((driver.run.status(), driver.state("gather")), (Status::Completed, "skipped"));
    assert_eq!(driver.state("after"), "completed");
}

#[test]
fn at_least_none_is_at_least_one() {
    let mut driver = three(Policy::AtLeast(0));
    driver.fire_next();
    assert_eq!(driver.state("gather"), "pending");
    driver.signal("b", "2");
    assert_eq!(driver.state("gather"), "completed");
}

#[test]
fn dead_edges_spread_through_a_long_chain_without_recursion() {
    let mut b = Build::new();
    let kind = b.conditional(0, &[("yes", "false")], Some("no"));
    let mut last = b.node(0, "choose", kind);
    for at in 0..9_000 {
        let next = b.node(0, &format!("n{at}"), identity());
        let on = if at == 0 { On::Branch("yes".into()) } else { On::Success };
        b.edge_on(0, (last, next), on, None);
        last = next;
    }
    let (history, run) = super::plain(&super::start(&b.build(), value("1")));
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(history.iter().filter(|event| event.body.type_name() == "node.skipped").count(), 9_000);
}

#[test]
fn the_widest_join_is_gathered_in_good_time() {
    let mut b = Build::new();
    let gather = b.node(0, "gather", join());
    for at in 1..10_000 {
        let source = b.node(0, &format!("n{at}"), identity());
        b.edge(0, source, gather);
    }
    let (_, run) = super::plain(&super::start(&b.build(), value("1")));
    assert_eq!(run.status(), Status::Completed);
    assert_eq!(run.view().outputs.unwrap().get("gather").unwrap().get("n9999"), Some(&value("1")));
}

#[test]
fn error_edges_take_a_failure() {
    let mut b = Build::new();
    let kind = b.function(0, "1 / 0");
    let bad = b.node(0, "bad", kind);
    let ok = b.node(0, "ok", identity());
    let saved = b.node(0, "saved", identity());
    b.edge(0, bad, ok);
    b.edge_on(0, (bad, saved), On::Error, None);
    let driver = Driver::of(&b.build());
    assert_eq!(driver.outputs(), value(r#"{"saved": null}"#));
    assert_eq!((driver.state("bad"), driver.state("ok")), ("failed", "skipped"));
}

#[test]
fn error_edges_that_do_not_hold_take_nothing() {
    let mut b = Build::new();
    let kind = b.function(0, "1 / 0");
    let bad = b.node(0, "bad", kind);
    let saved = b.node(0, "saved", identity());
    b.edge_on(0, (bad, saved), On::Error, Some("inputs == 1"));
    assert_eq!(Driver::with(&b.build(), "2").failure().1.as_deref(), Some("bad"));
}

#[test]
fn a_node_may_go_on_with_null() {
    let mut b = Build::new();
    let kind = b.function(0, "1 / 0");
    let bad = b.node(0, "bad", kind);
    b.at(0, bad).on_error = OnError::Continue;
    let kind = b.function(0, "input == null");
    let after = b.node(0, "after", kind);
    b.edge(0, bad, after);
    let driver = Driver::of(&b.build());
    assert_eq!(driver.outputs(), value(r#"{"after": true}"#));
    assert!(driver.told().contains(&"node.failed bad".to_owned()), "the failure stays in the history");
}

#[test]
fn a_when_that_fails_leaves_the_completion_and_fails_the_run() {
    for when in ["1 / output > 0", "output"] {
        let mut b = Build::new();
        let kind = b.function(0, "0");
        let from = b.node(0, "from", kind);
        b.at(0, from).on_error = OnError::Continue;
        let to = b.node(0, "to", identity());
        let saved = b.node(0, "saved", identity());
        b.edge_on(0, (from, to), On::Success, Some(when));
        b.edge_on(0, (from, saved), On::Error, None);
        let driver = Driver::of(&b.build());
        let (code, node) = driver.failure();
        assert!(code.starts_with("expression_"), "{code}");
        assert_eq!(node.as_deref(), Some("from"));
        let message = driver.run.view().failure.unwrap().message;
        assert!(message.starts_with("on the edge from from to to: "), "{message}");
        assert_eq!(driver.told()[1..], ["node.started from", "node.completed from", "run.failed from"]);
        assert_eq!((driver.state("from"), driver.state("to")), ("completed", "cancelled"));
    }
}

#[test]
fn an_edge_may_ask_about_the_sources_output() {
    let mut b = Build::new();
    let from = b.node(0, "from", identity());
    for (id, when) in [("low", "output < 5"), ("high", "nodes.from.output >= 5")] {
        let node = b.node(0, id, identity());
        b.edge_on(0, (from, node), On::Success, Some(when));
    }
    assert_eq!(Driver::with(&b.build(), "7").outputs(), value(r#"{"high": 7}"#));
}

#[test]
fn a_failure_stops_everything_else() {
    let mut b = Build::new();
    let slow = b.node(0, "slow", delay(10));
    let kind = b.function(0, "1 / 0");
    b.node(0, "bad", kind);
    let after = b.node(0, "after", identity());
    b.edge(0, slow, after);
    b.node(0, "never", identity());
    let driver = Driver::of(&b.build());
    assert_eq!(driver.run.status(), Status::Failed);
    assert_eq!((driver.state("slow"), driver.state("never")), ("cancelled", "cancelled"));
    assert_eq!(driver.run.timers().count(), 0);
    assert!(driver.told().last().unwrap().starts_with("run.failed"));
}
