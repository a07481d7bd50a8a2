//! Why nodes do not run.

use super::build::{Build, call, delay, identity, wait};
use super::*;
use crate::engine::{Waits, Why};
use crate::ir::{Executor, OnError};

fn why(driver: &Driver, id: &str) -> Option<Why> {
    waits(driver, id).map(|waits| waits.why)
}

fn waits(driver: &Driver, id: &str) -> Option<Waits> {
    driver.run.graph().nodes.into_iter().find(|node| node.path == id).unwrap().waits
}

#[test]
fn a_node_says_what_it_waits_for_until_it_settles() {
    let mut b = Build::new();
    let pause = b.node(0, "pause", delay(90));
    let hear = b.node(0, "hear", wait("go", Some(60)));
    let kind = call(&b, 0, Executor::Task);
    let work = b.node(0, "work", kind);
    let after = b.node(0, "after", identity());
    b.at(0, work).on_error = OnError::Continue;
    for node in [pause, hear, work] {
        b.edge(0, node, after);
    }
    let mut driver = Driver::with(&b.build(), "5");
    let edges = |ids: &[&str]| Some(Why::Edges(ids.iter().map(|id| (*id).into()).collect()));
    assert_eq!(why(&driver, "pause"), Some(Why::Timer));
    let due = driver.now.saturating_add(std::time::Duration::from_secs(60));
    assert_eq!(waits(&driver, "hear"), Some(Waits { why: Why::Signal("go".into()), until: Some(due) }));
    let seq = driver.dispatched[0].seq;
    assert_eq!(why(&driver, "work"), Some(Why::Worker { queue: "work".into(), seq }));
    assert_eq!(why(&driver, "after"), edges(&["pause", "hear", "work"]));

    let place = driver.dispatched[0].place.clone();
    driver.give(&Given::Pause);
    assert_eq!(why(&driver, "work"), Some(Why::Paused), "no worker may take it");
    assert_eq!(why(&driver, "pause"), Some(Why::Timer), "time goes on");
    driver.give(&Given::Resume);
    driver.give(&Given::Lease(place, seq));
    assert_eq!(why(&driver, "work"), None, "a worker has it");
    driver.signal("go", "1");
    driver.settle("work", Err(Failure::fatal("no", "no")));
    assert_eq!((why(&driver, "hear"), why(&driver, "work")), (None, None));
    assert_eq!(why(&driver, "after"), edges(&["pause"]));
    driver.give(&Given::Pause);
    driver.fire_next();
    assert_eq!(why(&driver, "after"), Some(Why::Paused));
    driver.give(&Given::Resume);
    assert!(driver.run.graph().nodes.iter().all(|node| node.waits.is_none()), "it is over");
}

#[test]
fn of_a_run_that_is_being_cancelled_nothing_starts() {
    let mut b = Build::new();
    let kind = call(&b, 0, Executor::Http);
    let work = b.node(0, "work", kind);
    let after = b.node(0, "after", identity());
    b.edge(0, work, after);
    let mut driver = Driver::with(&b.build(), "5");
    driver.give(&Given::Cancel);
    let seq = driver.dispatched[0].seq;
    assert_eq!(why(&driver, "work"), Some(Why::Call { executor: Executor::Http, seq }));
    assert_eq!(why(&driver, "after"), Some(Why::Cancelling));
}
