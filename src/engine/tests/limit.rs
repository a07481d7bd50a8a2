//! Limits, each at its edge.

use super::build::{Build, identity, wait};
use super::{Driver, start, value};
use crate::engine::Input;
use crate::ir::{OnItemError, Policy};
use crate::limits;
use crate::model::{Status, Value};

#[test]
fn kept_signals_are_bounded_and_a_waiter_is_always_served() {
    let mut b = Build::new();
    b.node(0, "ask", wait("go", None));
    let mut driver = Driver::of(&b.build());
    for _ in 0..limits::SIGNALS_KEPT_MAX {
        assert!(!driver.signal("other", "1"));
    }
    assert_eq!(driver.run.signals_kept(), limits::SIGNALS_KEPT_MAX);
    assert_eq!(driver.run.signal_limit("other", &Value::Null), Some("signals_kept_max"));
    let seq = driver.run.seq();
    assert!(driver.signal("other", "1"), "no room");
    assert_eq!(driver.run.seq(), seq);
    assert_eq!(driver.run.signal_limit("go", &Value::Null), None);
    assert!(!driver.signal("go", "1"));
    assert_eq!(driver.run.status(), Status::Completed);
}

#[test]
fn kept_signals_do_not_outgrow_the_run() {
    let mut b = Build::new();
    b.node(0, "ask", wait("go", None));
    let mut driver = Driver::of(&b.build());
    let large = Value::string("x".repeat(limits::VALUE_BYTES_MAX - 100));
    let mut kept = 0;
    while driver.run.signal_limit("other", &large).is_none() {
        assert!(!driver.give(&super::Given::Signal("other".into(), large.clone())));
        kept += 1;
    }
    assert_eq!(driver.run.signal_limit("other", &large), Some("run_value_bytes_max"));
    assert_eq!(kept, limits::RUN_VALUE_BYTES_MAX / limits::VALUE_BYTES_MAX);
    assert_eq!(driver.run.status(), Status::Running);
}

#[test]
fn an_output_that_is_too_large_fails_its_node() {
    let mut b = Build::new();
    let kind = b.function(0, "[inputs, inputs, inputs]");
    b.node(0, "grow", kind);
    let ir = b.build();
    let third = limits::VALUE_BYTES_MAX / 3;
    let run =
        |bytes: usize| Driver::begin(&start(&ir, Value::string("x".repeat(bytes))), super::Mode::Bursts(9));
    assert_eq!(run(third - 10).run.status(), Status::Completed);
    let (code, node) = run(third + 10).failure();
    assert!(code == "value_bytes_max" || code == "expression_size_max", "{code}");
    assert_eq!(node.as_deref(), Some("grow"));
}

#[test]
fn what_the_engine_puts_together_can_be_read_back_too() {
    // A join nests one level deeper than what arrives.
    let deep = (0..limits::VALUE_DEPTH_MAX).fold(Value::Int(1), |inner, _| Value::list(vec![inner]));
    let mut b = Build::new();
    let first = b.node(0, "first", identity());
    let gather = b.node(0, "gather", super::build::join());
    b.edge(0, first, gather);
    let driver = Driver::begin(&start(&b.build(), deep), super::Mode::Bursts(9));
    assert_eq!(driver.failure(), ("value_depth_max".into(), Some("gather".into())));
}

#[test]
fn values_of_a_run_are_bounded() {
    let mut b = Build::new();
    let nodes: Vec<_> = (0..20).map(|at| b.node(0, &format!("n{at}"), identity())).collect();
    b.chain(0, &nodes);
    let text = Value::string("x".repeat(limits::VALUE_BYTES_MAX - 1000));
    let driver = Driver::begin(&start(&b.build(), text), super::Mode::Bursts(512));
    assert_eq!(driver.failure(), ("run_value_bytes_max".into(), None));
    assert_eq!(driver.state("n15"), "completed");
    assert_eq!(driver.state("n16"), "cancelled");
}

#[test]
fn a_slice_ends_when_its_values_are_many() {
    let mut b = Build::new();
    for at in 0..4 {
        b.node(0, &format!("n{at}"), identity());
    }
    let ir = b.build();
    let text = Value::string("x".repeat(limits::SLICE_BYTES_MAX));
    let start = start(&ir, text);
    let body = crate::engine::Run::begin(&start, super::START, 1);
    let event = crate::model::Event { seq: 1, at: super::START, body };
    let mut run = crate::engine::Run::from_started(start.run_id, ir, &event).unwrap();
    let mut out = crate::engine::Outcome::default();
    crate::engine::advance(&mut run, Input::Continue, super::START, 512, &mut out).unwrap();
    assert_eq!((out.steps, out.events.len()), (1, 2));
    assert!(run.is_ready());
}

#[test]
fn a_history_is_bounded() {
    // 10,000 items of 13 nodes: over 260,000 events.
    let mut b = Build::new();
    let body = b.body(0, false);
    let nodes: Vec<_> = (0..13).map(|at| b.node(body, &format!("n{at}"), identity())).collect();
    b.chain(body, &nodes);
    let kind = b.map(0, "inputs", body, OnItemError::Fail);
    b.node(0, "each", kind);
    let list = Value::list(vec![Value::Int(1); limits::MAP_ITEMS_MAX]);
    let (history, run) = super::plain(&start(&b.build(), list));
    assert_eq!(&*run.view().failure.unwrap().code, "history_limit");
    assert!(history.len() as u64 <= limits::RUN_EVENTS_MAX);
    assert!(history.len() as u64 > limits::RUN_EVENTS_MAX - 16);
}

#[test]
fn an_expression_that_takes_too_long_fails_its_node() {
    let mut b = Build::new();
    let kind = b.function(0, "inputs.map(a, inputs.map(b, inputs.map(c, a * b * c))).size()");
    b.node(0, "spin", kind);
    let list = format!("[{}]", vec!["1"; 400].join(","));
    let (code, node) = Driver::with(&b.build(), &list).failure();
    assert!(code == "expression_steps_max" || code == "expression_size_max", "{code}");
    assert_eq!(node.as_deref(), Some("spin"));
}

#[test]
fn an_unsatisfiable_count_of_an_entry_is_no_trap() {
    let mut b = Build::new();
    let entry = b.node(0, "entry", identity());
    b.at(0, entry).policy = Policy::AtLeast(7);
    assert_eq!(Driver::with(&b.build(), "1").outputs(), value(r#"{"entry": 1}"#));
}
