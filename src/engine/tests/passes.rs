//! Bodies: loops, parallels, composites; their retries, timeouts and failures as one unit.

use std::time::Duration;

use super::build::{Build, call, identity, retry};
use super::{Driver, Mode, start, value};
use crate::ir::{Executor, Expr, Kind, OnExhausted, Slot};
use crate::model::{Failure, Status};

fn both(test: impl Fn(Mode)) {
    test(Mode::Bursts(512));
    test(Mode::CrashAfterEachEvent);
}

/// A loop's condition: `iteration` is the next one's.
fn condition(build: &Build, source: &str) -> Expr {
    let mut expr = build.expr(0, source);
    for slot in &mut expr.slots {
        if matches!(slot, Slot::Iteration { .. }) {
            *slot = Slot::NextIteration;
        }
    }
    expr
}

/// `again`: a loop whose body doubles what it is given.
fn doubling(while_: &str, max_iterations: u32, on_exhausted: OnExhausted) -> Build {
    let mut build = Build::new();
    let body = build.body(0, true);
    let kind = build.function(body, "input * 2 + iteration * 0");
    build.node(body, "body", kind);
    let condition = condition(&build, while_);
    build.node(0, "again", Kind::Loop { condition, body, max_iterations, on_exhausted });
    build
}

#[test]
fn a_loop_goes_round_while_its_condition_holds() {
    // F266
    both(|mode| {
        for (while_, output) in [
            ("iteration < 3", "40"),
            ("input < 20", "20"),
            ("output == null || output < 80", "80"),
            ("false", "null"),
        ] {
            let ir = doubling(while_, 10, OnExhausted::Fail).build();
            let driver = Driver::begin(&start(&ir, value("5")), mode);
            assert_eq!(driver.outputs(), value(&format!(r#"{{"again": {output}}}"#)), "{while_}");
        }
    });
}

#[test]
fn a_loop_stops_after_its_last_iteration_whatever_its_condition_says() {
    // F266
    let ir = doubling("true", 3, OnExhausted::Fail).build();
    let driver = Driver::with(&ir, "5");
    assert_eq!(driver.failure(), ("loop_exhausted".into(), Some("again".into())));
    let ir = doubling("true", 3, OnExhausted::Continue).build();
    let driver = Driver::with(&ir, "5");
    assert_eq!(driver.outputs(), value(r#"{"again": 40}"#));
    assert_eq!(driver.told().iter().filter(|told| *told == "node.progress again").count(), 2);
    let ir = doubling("iteration / 0 == 1", 3, OnExhausted::Continue).build();
    assert_eq!(Driver::with(&ir, "5").failure().1, Some("again".into()));
}

#[test]
fn a_loop_is_given_up_when_its_time_is_over_even_between_two_passes() {
    both(|mode| {
        let mut build = Build::new();
        let body = build.body(0, true);
        let kind = call(&build, body, Executor::Task);
        build.node(body, "body", kind);
        let condition = condition(&build, "true");
        let again = Kind::Loop { condition, body, max_iterations: 9, on_exhausted: OnExhausted::Fail };
        let again = build.node(0, "again", again);
        build.at(0, again).timeout = Some(Duration::from_secs(5));
        let mut driver = Driver::begin(&start(&build.build(), value("5")), mode);
        driver.settle("again[0]", Ok("6"));
        driver.settle("again[1]", Ok("7"));
        assert!(driver.fire_next());
        assert_eq!(driver.failure(), ("timeout".into(), Some("again".into())));
    });
}

#[test]
fn branches_run_side_by_side_and_come_together_by_name() {
    // F264, F277
    both(|mode| {
        for (results, output) in [
            (false, r#"{"fan": {"left": 1, "right": 2}}"#),
            (true, r#"{"fan": {"parallel_results": [1, 2]}}"#),
        ] {
            let mut build = Build::new();
            let mut branches = Vec::new();
            for name in ["left", "right"] {
                let body = build.body(0, false);
                let kind = call(&build, body, Executor::Task);
                build.node(body, "ask", kind);
                branches.push((name.into(), body));
            }
            build.node(0, "fan", Kind::Parallel { branches, results });
            let mut driver = Driver::begin(&start(&build.build(), value("5")), mode);
            driver.settle("fan[right].ask", Ok("2"));
            driver.settle("fan[left].ask", Ok("1"));
            assert_eq!(driver.outputs(), value(output));
        }
    });
}

#[test]
fn a_branch_that_fails_takes_the_others_with_it() {
    let mut build = Build::new();
    let bodies = [(); 2].map(|()| {
        let body = build.body(0, true);
        let kind = call(&build, body, Executor::Task);
        build.node(body, "body", kind);
        body
    });
    let branches = vec![("left".into(), bodies[0]), ("right".into(), bodies[1])];
    build.node(0, "fan", Kind::Parallel { branches, results: false });
    let mut driver = Driver::with(&build.build(), "5");
    driver.settle("fan[left]", Err(Failure::fatal("no", "no")));
    assert_eq!(driver.failure(), ("no".into(), Some("fan".into())));
    assert_eq!(driver.recalled.len(), 1, "the other call is called back: {:?}", driver.recalled);
}

#[test]
fn a_composite_is_tried_again_as_one() {
    // F025
    both(|mode| {
        let mut build = Build::new();
        let body = build.body(0, false);
        let first = build.node(body, "first", identity());
        let kind = call(&build, body, Executor::Http);
        let second = build.node(body, "second", kind);
        build.edge(body, first, second);
        let sub = build.node(0, "sub", Kind::Composite { body });
        build.at(0, sub).retry = retry(2, 1);
        let mut driver = Driver::begin(&start(&build.build(), value("5")), mode);
        driver.settle("sub.second", Err(Failure::transient("connection_reset", "gone")));
        assert_eq!(driver.state("sub"), "retrying");
        driver.settled.clear();
        assert!(driver.fire_next());
        driver.settle("sub.second", Ok("9"));
        assert_eq!(driver.outputs(), value(r#"{"sub": 9}"#));
        assert_eq!(driver.told().iter().filter(|told| *told == "node.started sub.first").count(), 2);
    });
}

#[test]
fn a_body_within_a_body_sees_what_each_was_given() {
    let mut build = Build::new();
    let outer = build.body(0, true);
    let inner = build.body(outer, true);
    let mut kind = build.function(inner, "[item, iteration]");
    if let Kind::Function { expr: Some(expr) } = &mut kind {
        for slot in &mut expr.slots {
            if let Slot::Item { up } = slot {
                *up = 1;
            }
        }
    }
    build.node(inner, "body", kind);
    let condition = condition(&build, "iteration < 2");
    let again = Kind::Loop { condition, body: inner, max_iterations: 9, on_exhausted: OnExhausted::Fail };
    build.node(outer, "body", again);
    let each = build.map(0, "inputs", outer, crate::ir::OnItemError::Fail);
    build.node(0, "each", each);
    let driver = Driver::with(&build.build(), r#"["a", "b"]"#);
    assert_eq!(driver.run.status(), Status::Completed, "{:?}", driver.told());
    assert_eq!(driver.outputs(), value(r#"{"each": [["a", 1], ["b", 1]]}"#));
    assert!(driver.told().contains(&"node.started each[1][0]".into()), "{:?}", driver.told());
}
