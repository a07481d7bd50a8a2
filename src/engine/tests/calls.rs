//! Calls: handed out, answered, tried again, given up; made at most once; replaced by a fallback.

use std::time::Duration;

use super::build::{Build, call, identity, retry};
use super::{Driver, Given, Mode, START, start, value};
use crate::engine::{Recalled, Work};
use crate::ir::{Executor, Fallback, Kind, On, OnError, ParentClose, Template};
use crate::model::{Class, EventBody, Failure, Place, Status, Value};

fn broken() -> Result<&'static str, Failure> {
    Err(Failure::transient("connection_refused", "nobody there"))
}

/// fetch (http, 3 attempts a second apart) -> done.
fn fetch(change: impl FnOnce(&mut Build)) -> std::sync::Arc<crate::ir::Ir> {
    let mut build = Build::new();
    let kind = call(&build, 0, Executor::Http);
    let fetch = build.node(0, "fetch", kind);
    let done = build.node(0, "done", identity());
    build.edge(0, fetch, done);
    build.at(0, fetch).retry = retry(3, 1);
    build.at(0, fetch).timeout = Some(Duration::from_secs(10));
    change(&mut build);
    build.build()
}

fn both(test: impl Fn(Mode)) {
    test(Mode::Bursts(512));
    test(Mode::CrashAfterEachEvent);
}

#[test]
fn a_call_is_handed_out_once_and_its_answer_is_its_output() {
    // F026
    both(|mode| {
        let ir = fetch(|_| {});
        let mut driver = Driver::begin(&start(&ir, value("7")), mode);
        let [dispatch] = &driver.run.dispatches()[..] else { panic!("one call") };
        let request = value(r#"{"asks": 7}"#);
        assert_eq!(dispatch.work, Work::Call { executor: Executor::Http, request });
        assert_eq!(
            (dispatch.attempt, dispatch.due),
            (1, Some(START.saturating_add(Duration::from_secs(10))))
        );
        let again = Given::Settle(dispatch.place.clone(), dispatch.seq, Ok(Value::Null));
        assert!(!driver.settle("fetch", Ok("[1]")));
        assert_eq!(driver.outputs(), value(r#"{"done": [1]}"#));
        assert!(driver.give(&again), "a second answer is dropped");
    });
}

#[test]
fn an_attempt_that_fails_is_followed_by_another_until_there_are_none_left() {
    // F354, F361, F362, F363
    both(|mode| {
        let ir = fetch(|_| {});
        let mut driver = Driver::begin(&start(&ir, value("7")), mode);
        for attempt in 1..=2 {
            let seq = driver.run.dispatches()[0].seq;
            let other = Given::Settle(Place::root(0), seq + 1, Ok(Value::Null));
            assert!(driver.give(&other), "nobody has been asked for that, in attempt {attempt}");
            driver.settle("fetch", broken());
            assert_eq!(driver.state("fetch"), "retrying");
            assert!(driver.give(&Given::Settle(Place::root(0), seq, Ok(Value::Null))), "too late");
            assert!(driver.fire_next());
        }
        let [last] = &driver.run.dispatches()[..] else { panic!("the third attempt") };
        assert_eq!(last.work, Work::Call { executor: Executor::Http, request: value(r#"{"asks": 7}"#) });
        driver.settle("fetch", broken());
        assert_eq!(driver.failure(), ("connection_refused".into(), Some("fetch".into())));
        assert_eq!(
            driver.told().iter().filter(|told| *told == "node.retry_scheduled fetch").count(),
            2,
            "3 calls are 2 retries"
        );
    });
}

#[test]
fn what_no_retry_mends_is_not_tried_again() {
    // F352, F362
    let ir = fetch(|_| {});
    let mut driver = Driver::of(&ir);
    driver.settle("fetch", Err(Failure::fatal("validation_error", "no")));
    assert_eq!(driver.failure().0, "validation_error");
}

#[test]
fn an_attempt_that_takes_too_long_is_given_up_and_counts() {
    // F380
    both(|mode| {
        let ir = fetch(|build| {
            build.at(0, 0).retry = retry(2, 1);
            build.edge_on(0, (0, 1), On::Timeout, None);
        });
        let mut driver = Driver::begin(&start(&ir, value("7")), mode);
        assert!(driver.fire_next());
        assert_eq!(driver.state("fetch"), "retrying");
        assert!(driver.fire_next() && driver.fire_next());
        assert_eq!(driver.states(), [("fetch".into(), "failed"), ("done".into(), "completed")]);
        if mode == Mode::Bursts(512) {
            let told = Recalled::Executor(Executor::Http);
            assert_eq!(driver.recalled.iter().map(|recall| recall.whom).collect::<Vec<_>>(), [told; 2]);
        }
    });
}

#[test]
fn a_call_made_at_most_once_is_never_made_again() {
    let once = |build: &mut Build| build.at(0, 0).at_most_once = true;
    both(|mode| {
        let mut driver = Driver::begin(&start(&fetch(once), value("7")), mode);
        let seq = driver.run.dispatches()[0].seq;
        assert!(!driver.give(&Given::Lost(Place::root(0), seq)));
        assert_eq!(driver.state("fetch"), "uncertain");
        assert!(driver.run.dispatches().is_empty());
        let failure = Failure::fatal("charged", "it was");
        assert!(!driver.give(&Given::Settle(Place::root(0), seq, Err(failure))), "somebody knows");
        assert_eq!(driver.failure().0, "charged");
    });
    let mut driver = Driver::of(&fetch(once));
    let seq = driver.run.dispatches()[0].seq;
    assert!(driver.fire_next());
    assert_eq!(driver.state("fetch"), "uncertain", "a timeout says nothing about the outcome");
    driver.give(&Given::Settle(Place::root(0), seq, Ok(value("1"))));
    assert_eq!(driver.outputs(), value(r#"{"done": 1}"#));
    let mut driver = Driver::of(&fetch(once));
    driver.settle("fetch", broken());
    assert_eq!(driver.failure().0, "connection_refused", "a failure is an outcome");
}

// I-7
#[test]
fn a_call_that_was_lost_is_made_again_as_another_attempt() {
    both(|mode| {
        let mut driver = Driver::begin(&start(&fetch(|_| {}), value("7")), mode);
        let before = driver.run.dispatches()[0].clone();
        assert!(!driver.give(&Given::Lost(Place::root(0), before.seq)));
        let again = driver.run.dispatches()[0].clone();
        assert!(again.seq > before.seq, "it has a name of its own");
        assert_eq!((again.attempt, again.lost, again.due), (2, 1, before.due));
        assert!(driver.give(&Given::Lost(Place::root(0), before.seq)), "once");
        assert!(
            driver.give(&Given::Settle(Place::root(0), before.seq, Ok(value("0")))),
            "nobody waits for it"
        );
        assert!(!driver.give(&Given::Settle(Place::root(0), again.seq, Ok(value("1")))));
        assert_eq!(driver.outputs(), value(r#"{"done": 1}"#));
    });
}

#[test]
fn one_worker_takes_a_task_and_a_pause_holds_it_back() {
    let ir = fetch(|build| {
        let Kind::Call { executor, .. } = &mut build.at(0, 0).kind else { panic!("not a call") };
        *executor = Executor::Task;
    });
    both(|mode| {
        let mut driver = Driver::begin(&start(&ir, value("7")), mode);
        let seq = driver.run.dispatches()[0].seq;
        driver.give(&Given::Pause);
        assert!(driver.give(&Given::Lease(Place::root(0), seq)), "nothing starts");
        driver.give(&Given::Resume);
        assert!(!driver.give(&Given::Lease(Place::root(0), seq)));
        assert_eq!(driver.run.dispatches()[0].worker.as_deref(), Some("w"));
        assert!(driver.give(&Given::Lease(Place::root(0), seq)), "it is taken");
        assert!(!driver.give(&Given::Settle(Place::root(0), seq, Ok(value("1")))));
        assert_eq!(driver.outputs(), value(r#"{"done": 1}"#));
    });
    let once = fetch(|build| {
        let Kind::Call { executor, .. } = &mut build.at(0, 0).kind else { panic!("not a call") };
        *executor = Executor::Task;
        build.at(0, 0).at_most_once = true;
    });
    let mut driver = Driver::of(&once);
    driver.settle("fetch", Err(Failure::transient("lease_expired", "the worker is silent")));
    assert_eq!(driver.state("fetch"), "uncertain", "nobody knows what the worker did");
}

#[test]
fn an_uncertain_call_that_is_said_to_have_failed_fails_or_falls_back() {
    for (code, fallback) in [("timeout", false), ("timeout", true), ("charged", true)] {
        let ir = fetch(|build| {
            build.at(0, 0).at_most_once = true;
            build.at(0, 0).fallback = fallback.then(|| Fallback::Value(Template::Value(value("1"))));
        });
        let mut driver = Driver::of(&ir);
        let seq = driver.run.dispatches()[0].seq;
        driver.give(&Given::Lost(Place::root(0), seq));
        assert!(!driver.give(&Given::Settle(Place::root(0), seq, Err(Failure::fatal(code, "it was")))));
        let status = if fallback { Status::Completed } else { Status::Failed };
        assert_eq!(driver.run.status(), status, "{code}: {:?}", driver.told());
    }
}

#[test]
fn an_answer_to_a_body_that_was_given_up_is_not_taken_for_one_to_its_next_try() {
    let mut build = Build::new();
    let body = build.body(0, true);
    let kind = call(&build, body, Executor::Http);
    build.node(body, "body", kind);
    let sub = build.node(0, "sub", Kind::Composite { body });
    build.at(0, sub).retry = retry(2, 0);
    build.at(0, sub).timeout = Some(Duration::from_secs(1));
    let mut driver = Driver::of(&build.build());
    let before = driver.run.dispatches().remove(0);
    assert!(driver.fire_next() && driver.fire_next());
    let after = driver.run.dispatches().remove(0);
    assert_eq!((before.attempt, &before.place), (after.attempt, &after.place));
    assert!(driver.give(&Given::Settle(before.place, before.seq, Ok(value("1")))), "too late");
    assert!(!driver.give(&Given::Settle(after.place, after.seq, Ok(value("2")))));
    assert_eq!(driver.outputs(), value(r#"{"sub": 2}"#));
}

#[test]
fn a_fallback_takes_the_place_of_a_node_whose_attempts_are_used_up() {
    both(|mode| {
        let ir = fetch(|build| {
            build.at(0, 0).retry = retry(1, 1);
            build.at(0, 0).fallback = Some(Fallback::Value(build.template(0, "{'kept': input}")));
        });
        let mut driver = Driver::begin(&start(&ir, value("7")), mode);
        driver.settle("fetch", broken());
        assert_eq!(driver.outputs(), value(r#"{"done": {"kept": 7}}"#));
        assert!(driver.told().contains(&"node.fell_back fetch".into()));
    });
    both(|mode| {
        let ir = fetch(|build| {
            build.at(0, 0).retry = None;
            let body = build.body(0, true);
            let kind = call(build, body, Executor::Task);
            build.node(body, "body", kind);
            build.at(0, 0).fallback = Some(Fallback::Body(body));
        });
        let mut driver = Driver::begin(&start(&ir, value("7")), mode);
        driver.settle("fetch", broken());
        driver.settle("fetch[fallback]", Ok("8"));
        assert_eq!(driver.outputs(), value(r#"{"done": 8}"#));
        let mut driver = Driver::begin(&start(&ir, value("7")), mode);
        driver.settle("fetch", broken());
        driver.settle("fetch[fallback]", Err(Failure::fatal("no_workers", "none")));
        assert_eq!(driver.failure(), ("no_workers".into(), Some("fetch".into())));
    });
}

#[test]
fn a_fallback_stands_before_error_edges_and_on_error() {
    let ir = fetch(|build| {
        build.at(0, 0).on_error = OnError::Continue;
        build.at(0, 0).retry = None;
        build.edge_on(0, (0, 1), On::Error, None);
        build.at(0, 0).fallback = Some(Fallback::Value(Template::Value(value("1"))));
    });
    let mut driver = Driver::of(&ir);
    driver.settle("fetch", broken());
    assert_eq!(driver.outputs(), value(r#"{"done": 1}"#));
}

#[test]
fn an_output_that_does_not_fit_its_schema_is_a_failure() {
    let ir = fetch(|build| {
        let schema = value(r#"{"type": "object", "required": ["id"]}"#);
        build.at(0, 0).output_schema = Some(crate::ir::Schema::new(&schema).unwrap());
    });
    let mut driver = Driver::of(&ir);
    driver.settle("fetch", Ok(r#"{"name": 1}"#));
    assert_eq!(driver.failure().0, "output_schema");
    let mut driver = Driver::of(&ir);
    driver.settle("fetch", Ok(r#"{"id": 1}"#));
    assert_eq!(driver.run.status(), Status::Completed);
}

/// A child run with this closing, next to another that fails.
fn with_child(parent_close: ParentClose) -> Driver {
    let mut build = Build::new();
    build.node(0, "sub", Kind::Child { workflow: "other@2".into(), parent_close });
    let kind = call(&build, 0, Executor::Http);
    build.node(0, "call", kind);
    Driver::with(&build.build(), "5")
}

#[test]
fn a_child_run_is_started_under_an_id_of_its_own_and_its_end_is_the_nodes() {
    // F025
    let mut driver = with_child(ParentClose::Cancel);
    let before = driver.run.dispatches();
    let Work::Child { run_id, workflow, inputs, .. } = &before[0].work else { panic!("{before:?}") };
    assert_eq!((&**workflow, inputs), ("other@2", &value("5")));
    assert_ne!(*run_id, driver.run.id());
    let again = super::refold(&driver.ir, &driver.history);
    assert_eq!(again.dispatches(), before, "after a restart the same child is asked for");
    driver.settle("sub", Ok("6"));
    driver.settle("call", Ok("7"));
    assert_eq!(driver.outputs(), value(r#"{"sub": 6, "call": 7}"#));
}

#[test]
fn a_child_is_cancelled_with_its_parent_or_left_alone() {
    let mut driver = with_child(ParentClose::Cancel);
    driver.settle("call", Err(Failure::fatal("no", "no")));
    assert_eq!(driver.run.status(), Status::Failed);
    let [recall] = &driver.recalled[..] else { panic!("{:?}", driver.recalled) };
    assert!(matches!(recall.whom, Recalled::Child(_)));
    assert_eq!(driver.run.recalls(), &driver.recalled[..], "and told again after a restart");
    let mut driver = with_child(ParentClose::Abandon);
    driver.settle("call", Err(Failure::fatal("no", "no")));
    assert_eq!((driver.run.status(), driver.recalled.len()), (Status::Failed, 0));
}

#[test]
fn a_failure_asks_for_more_time_than_the_policy_gives() {
    let mut driver = Driver::of(&fetch(|_| {}));
    let mut failure = Failure { class: Class::Recoverable, ..Failure::fatal("rate_limit", "slow down") };
    failure.details = Value::map([("retry_after_ms", Value::Int(90_000))]);
    driver.settle("fetch", Err(failure));
    let Some(EventBody::NodeRetryScheduled { due, .. }) = driver.history.last().map(|event| &event.body)
    else {
        panic!("{:?}", driver.told())
    };
    assert_eq!(START.until(*due), Duration::from_secs(90));
}
