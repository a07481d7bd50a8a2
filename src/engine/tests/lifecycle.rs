//! Pause, resume, cancel, terminate.

use std::time::Duration;

use super::build::{Build, call, delay, identity, retry};
use super::{Driver, Given, Mode, start, value};
use crate::engine::{Permit, Raise, Timer, Verb};
use crate::ir::{Executor, Ir};
use crate::limits;
use crate::model::money::Usd;
use crate::model::{Failure, Status};

/// call -> after; nap (5 s) -> later.
fn ir() -> std::sync::Arc<Ir> {
    let mut build = Build::new();
    let kind = call(&build, 0, Executor::Http);
    let call = build.node(0, "call", kind);
    let after = build.node(0, "after", identity());
    let nap = build.node(0, "nap", delay(5));
    let later = build.node(0, "later", identity());
    build.edge(0, call, after);
    build.edge(0, nap, later);
    build.at(0, call).retry = retry(2, 1);
    build.build()
}

fn both(test: impl Fn(Driver)) {
    for mode in [Mode::Bursts(512), Mode::CrashAfterEachEvent] {
        test(Driver::begin(&start(&ir(), value("1")), mode));
    }
}

/// What a driver is given to do this.
fn given(verb: Verb) -> Given {
    match verb {
        Verb::Pause => Given::Pause,
        Verb::Resume => Given::Resume,
        Verb::Cancel => Given::Cancel,
        Verb::Terminate => Given::Terminate,
        Verb::Raise => {
            let (by, reason) = ("ada".into(), "go on".into());
            Given::Raise(Raise { usd: Usd::ZERO, tokens: 1, by, reason, resume: false, key: None })
        }
    }
}

#[test]
fn the_table_of_transitions_holds() {
    // F294, F299
    use Status::{Cancelled, Completed, Failed, Paused, Running};
    const VERBS: [Verb; 5] = [Verb::Pause, Verb::Resume, Verb::Cancel, Verb::Terminate, Verb::Raise];
    let (go, already, illegal) = (Permit::Go, Permit::Already, Permit::Illegal);
    type Row = (&'static [Given], Status, [Permit; 5]);
    let rows: [Row; 8] = [
        (&[], Running, [go, illegal(Running), go, go, go]),
        (&[Given::Pause], Paused, [already, go, go, go, go]),
        (&[Given::Pause, Given::Resume], Running, [go, illegal(Running), go, go, go]),
        (&[Given::Cancel], Running, [illegal(Running), illegal(Running), already, go, illegal(Running)]),
        (
            &[Given::Pause, Given::Cancel],
            Paused,
            [illegal(Paused), illegal(Paused), already, go, illegal(Paused)],
        ),
        (&[Given::Terminate], Cancelled, [illegal(Cancelled); 5]),
        (&[Given::Cancel, Given::Terminate], Cancelled, [illegal(Cancelled); 5]),
        (&[Given::Pause, Given::Terminate], Cancelled, [illegal(Cancelled); 5]),
    ];
    for (path, status, permits) in rows {
        for (verb, permit) in VERBS.into_iter().zip(permits) {
            let mut driver = Driver::with(&ir(), "1");
            path.iter().for_each(|given| assert!(!driver.give(given)));
            assert_eq!(driver.run.status(), status, "{path:?}");
            assert_eq!(driver.run.may(verb), permit, "{verb:?} after {path:?}");
            assert_eq!(driver.give(&given(verb)), permit != Permit::Go, "{verb:?} after {path:?}");
        }
    }
    let mut driver = Driver::with(&ir(), "1");
    driver.settle("call", Err(Failure::fatal("no", "no")));
    assert_eq!(driver.run.status(), Failed);
    VERBS.into_iter().for_each(|verb| assert_eq!(driver.run.may(verb), illegal(Failed)));
    let mut driver = Driver::with(&ir(), "1");
    driver.settle("call", Ok("1"));
    assert!(driver.fire_next());
    assert_eq!(driver.run.status(), Completed);
    VERBS.into_iter().for_each(|verb| assert_eq!(driver.run.may(verb), illegal(Completed)));
}

#[test]
fn a_paused_run_settles_what_is_under_way_and_starts_nothing() {
    // F044, F298
    both(|mut driver| {
        driver.give(&Given::Pause);
        driver.settle("call", Ok("2"));
        assert!(driver.fire_next());
        let states = [("call", "completed"), ("after", "ready"), ("nap", "completed"), ("later", "ready")];
        for (id, state) in states {
            assert_eq!(driver.state(id), state, "{id}");
        }
        assert_eq!(driver.run.status(), Status::Paused);
        assert!(!driver.run.is_ready());
        driver.give(&Given::Resume);
        assert_eq!(driver.outputs(), value(r#"{"after": 2, "later": null}"#));
    });
}

#[test]
fn a_paused_run_is_not_over_before_it_is_resumed() {
    both(|mut driver| {
        driver.settle("call", Ok("2"));
        driver.give(&Given::Pause);
        assert!(driver.fire_next());
        driver.give(&Given::Resume);
        assert_eq!(driver.run.status(), Status::Completed);
    });
}

#[test]
fn a_retry_that_is_due_waits_for_the_end_of_a_pause() {
    both(|mut driver| {
        driver.give(&Given::Pause);
        driver.settle("call", Err(Failure::transient("connection_reset", "gone")));
        assert!(driver.fire_next());
        assert_eq!(driver.state("call"), "ready");
        driver.give(&Given::Resume);
        driver.settle("call", Ok("2"));
        assert_eq!(driver.state("after"), "completed");
    });
}

#[test]
fn a_cancelled_run_waits_for_attempts_under_way_and_ignores_what_they_bring() {
    both(|mut driver| {
        let seq = driver.run.dispatches()[0].seq;
        driver.give(&Given::Cancel);
        assert_eq!(driver.run.status(), Status::Running);
        assert!(driver.run.dispatches().is_empty(), "nothing is handed out again");
        assert!(!driver.give(&Given::Settle(crate::model::Place::root(0), seq, Ok(value("2")))));
        assert_eq!(driver.run.status(), Status::Cancelled);
        assert_eq!(driver.state("call"), "completed");
        assert_eq!(driver.state("after"), "cancelled");
    });
    both(|mut driver| {
        let seq = driver.run.dispatches()[0].seq;
        driver.give(&Given::Cancel);
        let failure = Failure::transient("connection_reset", "gone");
        driver.give(&Given::Settle(crate::model::Place::root(0), seq, Err(failure)));
        assert_eq!(driver.run.status(), Status::Cancelled, "it does not fail any more: {:?}", driver.told());
    });
}

#[test]
fn a_cancelled_run_does_not_wait_for_ever() {
    both(|mut driver| {
        driver.give(&Given::Cancel);
        assert!(driver.give(&Given::Timer(Timer::Grace)), "not yet");
        driver.now = driver.now.saturating_add(Duration::from_secs(limits::CANCEL_GRACE_SECONDS_MAX));
        assert!(!driver.give(&Given::Timer(Timer::Grace)));
        assert_eq!(driver.run.status(), Status::Cancelled);
    });
}

#[test]
fn a_terminated_run_waits_for_nobody() {
    let mut driver = Driver::with(&ir(), "1");
    driver.give(&Given::Terminate);
    assert_eq!(driver.told().last().unwrap(), "run.cancelled");
    let crate::model::EventBody::RunCancelled { reason } = &driver.history.last().unwrap().body else {
        panic!("{:?}", driver.told())
    };
    assert_eq!(&**reason, "terminated");
    assert_eq!(driver.recalled.len(), 1, "its attempt is called back");
}
