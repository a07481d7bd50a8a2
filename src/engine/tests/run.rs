//! The run as a whole: start, outputs, deadline, cancel, views.

use std::time::Duration;

use super::build::{Build, delay, identity, wait};
use super::{Driver, Given, Mode, START, start, value};
use crate::engine::{FoldError, Run, Timer};
use crate::model::event::Idempotency;
use crate::model::{Event, EventBody, Status, Value};

fn waiting() -> Build {
    let mut b = Build::new();
    let ask = b.node(0, "ask", wait("go", None));
    let after = b.node(0, "after", identity());
    b.edge(0, ask, after);
    b
}

#[test]
fn a_run_knows_how_it_was_started() {
    let mut b = waiting();
    b.ir.deadline = Some(Duration::from_secs(50));
    let ir = b.build();
    let mut start = start(&ir, value("[1]"));
    start.idempotency = Some(Idempotency { key: [1; 16], fingerprint: [2; 16] });
    for (asked, deadline) in [(None, 50), (Some(20), 20), (Some(90), 50)] {
        start.deadline = asked.map(Duration::from_secs);
        let driver = Driver::begin(&start, Mode::Bursts(512));
        let deadline = START.saturating_add(Duration::from_secs(deadline));
        assert_eq!(driver.run.deadline(), Some(deadline));
        assert_eq!(driver.run.timers().collect::<Vec<_>>(), [(deadline, Timer::Deadline)]);
        assert_eq!(driver.run.idempotency(), start.idempotency.as_ref());
        let view = driver.run.view();
        assert_eq!((view.inputs, view.outputs, view.deadline), (value("[1]"), None, Some(deadline)));
        let summary = driver.run.summary();
        assert_eq!((&*summary.workflow, &*summary.version, summary.epoch), ("w", "1", 3));
        assert_eq!((summary.started_at, summary.ended_at), (START, None));
    }
}

#[test]
fn a_run_that_is_late_fails() {
    let mut b = waiting();
    b.ir.deadline = Some(Duration::from_secs(50));
    let mut driver = Driver::of(&b.build());
    driver.now = START.saturating_add(Duration::from_secs(49));
    assert!(driver.give(&Given::Timer(Timer::Deadline)), "early");
    assert!(driver.fire_next());
    assert_eq!(driver.failure(), ("deadline_exceeded".into(), None));
    assert_eq!((driver.state("ask"), driver.state("after")), ("cancelled", "cancelled"));
    assert!(driver.give(&Given::Timer(Timer::Deadline)));
    assert!(driver.signal("go", "1"), "nothing reaches a run that has ended");
}

#[test]
fn a_cancel_ends_the_run_and_nothing_starts_after_it() {
    // F011
    let mut driver = Driver::of(&waiting().build());
    assert!(!driver.give(&Given::Cancel));
    assert_eq!(driver.run.status(), Status::Cancelled);
    assert_eq!(driver.told()[3..], ["run.cancel_requested", "run.cancelled"]);
    assert!(driver.give(&Given::Cancel), "a second one is dropped");
    assert_eq!(driver.run.seq(), 5);
    assert!(driver.run.view().current_nodes.is_empty());
}

#[test]
fn a_cancel_between_slices_comes_before_what_is_ready() {
    // F011
    let mut b = Build::new();
    for at in 0..10 {
        b.node(0, &format!("n{at}"), identity());
    }
    let ir = b.build();
    let start = start(&ir, Value::Null);
    let event = Event { seq: 1, at: START, body: Run::begin(&start, START, 1) };
    for slices in 0..12 {
        let mut run = Run::from_started(start.run_id, ir.clone(), &event).unwrap();
        let mut out = crate::engine::Outcome::default();
        for _ in 0..slices {
            crate::engine::advance(&mut run, crate::engine::Input::Continue, START, 1, &mut out).unwrap();
        }
        let ended = run.status().is_terminal();
        out.clear();
        let cancel = crate::engine::Input::Cancel { reason: "enough" };
        crate::engine::advance(&mut run, cancel, START, 512, &mut out).unwrap();
        assert_eq!(out.stale, ended);
        if !ended {
            assert_eq!(
                out.events.iter().map(EventBody::type_name).collect::<Vec<_>>(),
                ["run.cancel_requested", "run.cancelled"]
            );
        }
    }
}

#[test]
fn outputs_are_evaluated_at_the_end() {
    let mut b = waiting();
    b.ir.outputs = vec![("sum".into(), b.template(0, "nodes.ask.output + inputs"))];
    let ir = b.build();
    let mut driver = Driver::with(&ir, "1");
    driver.signal("go", "2");
    assert_eq!(driver.outputs(), value(r#"{"sum": 3}"#));
    let mut driver = Driver::with(&ir, "\"text\"");
    driver.signal("go", "2");
    let (code, node) = driver.failure();
    assert!(code.starts_with("expression_"), "{code}");
    assert_eq!(node, None);
}

#[test]
fn an_empty_workflow_completes() {
    assert_eq!(Driver::of(&Build::new().build()).outputs(), value("{}"));
}

#[test]
fn states_are_told_as_they_are() {
    let mut b = Build::new();
    let first = b.node(0, "first", identity());
    let pause = b.node(0, "pause", delay(5));
    let last = b.node(0, "last", identity());
    b.chain(0, &[first, pause, last]);
    let ir = b.build();
    let driver = Driver::of(&ir);
    let states: Vec<_> = driver.run.graph().nodes.iter().map(|node| (node.state, node.attempts)).collect();
    assert_eq!(states, [("completed", 1), ("waiting", 1), ("pending", 0)]);
    let fresh = super::refold(&ir, &driver.history[..1]);
    assert_eq!(fresh.graph().nodes[0].state, "ready");
    assert!(fresh.is_ready());
    let begun = super::refold(&ir, &driver.history[..2]);
    assert_eq!(
        (begun.graph().nodes[0].state, begun.view().current_nodes),
        ("running", vec!["first".to_owned()])
    );
}

#[test]
fn a_history_of_another_document_or_engine_is_refused() {
    let ir = waiting().build();
    let start = start(&ir, Value::Null);
    let body = Run::begin(&start, START, 1);
    let of =
        |body: EventBody, seq| Run::from_started(start.run_id, ir.clone(), &Event { seq, at: START, body });
    assert_eq!(of(body.clone(), 2).unwrap_err(), FoldError::NotStarted);
    assert_eq!(of(EventBody::RunCancelled { reason: "".into() }, 1).unwrap_err(), FoldError::NotStarted);
    let EventBody::RunStarted(started) = body else { panic!() };
    let mut other = started.clone();
    other.semantics += 1;
    assert_eq!(of(EventBody::RunStarted(other), 1).unwrap_err().code(), "history_semantics");
    let mut other = started;
    other.document = [0; 32];
    assert_eq!(of(EventBody::RunStarted(other), 1).unwrap_err(), FoldError::Document);
}
