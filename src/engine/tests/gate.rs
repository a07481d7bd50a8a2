//! Reviews: what is asked, who is asked next, and what follows when nobody answers.

use std::sync::Arc;
use std::time::Duration;

use super::build::{Build, identity};
use super::{Driver, Given, Mode, START, start, value};
use crate::engine::command::Which;
use crate::ir::{Kind, On, OnTimeout, Review, Template};
use crate::model::event::{Decision, Waiting};
use crate::model::{EventBody, Place, Status};

/// review, and one node behind each kind of edge.
fn review(on_timeout: OnTimeout) -> Arc<crate::ir::Ir> {
    let mut build = Build::new();
    let names = |names: &str| Template::Value(value(names));
    let review = Review {
        reviewers: names(r#"["ops"]"#),
        data: None,
        escalate: vec![
            (Duration::from_secs(10), names(r#""lead""#)),
            (Duration::from_secs(20), names(r#"["boss", "owner"]"#)),
        ],
        on_timeout,
        form: None,
        reason_required: false,
        policy: None,
    };
    build.node(0, "review", Kind::HumanReview(Box::new(review)));
    build.at(0, 0).timeout = Some(Duration::from_secs(30));
    for (id, on) in [
        ("success", On::Success),
        ("approved", On::Approved),
        ("rejected", On::Rejected),
        ("timeout", On::Timeout),
        ("error", On::Error),
    ] {
        let node = build.node(0, id, identity());
        build.edge_on(0, (0, node), on, None);
    }
    build.build()
}

#[test]
fn a_review_asks_others_in_turn_and_then_no_one() {
    // F117
    for mode in [Mode::Bursts(512), Mode::CrashAfterEachEvent] {
        let mut driver = Driver::begin(&start(&review(OnTimeout::Reject), value("[1]")), mode);
        let Some(EventBody::NodeWaiting { waiting: Waiting::Review(asked), .. }) =
            driver.history.last().map(|event| &event.body)
        else {
            panic!("{:?}", driver.told())
        };
        assert_eq!((&*asked.reviewers[0], &asked.data), ("ops", &value("[1]")));
        assert_eq!(asked.escalations[1].to, ["boss", "owner"].map(Arc::<str>::from));
        for seconds in [10, 20] {
            assert!(driver.fire_next());
            assert_eq!(START.until(driver.now), Duration::from_secs(seconds));
            assert_eq!(driver.told().last().unwrap(), "approval.escalated review");
            assert_eq!(driver.run.status(), Status::Running, "a run that waits for a human is not over");
        }
        assert!(driver.fire_next());
        assert_eq!(START.until(driver.now), Duration::from_secs(30));
        assert!(driver.told().contains(&"approval.expired review".into()));
        assert_eq!(driver.run.status(), Status::Completed);
    }
}

#[test]
fn a_gate_lets_through_what_was_approved() {
    // F279
    for (on_timeout, live) in [
        (OnTimeout::Approve, vec!["success", "approved", "timeout"]),
        (OnTimeout::Reject, vec!["rejected", "timeout"]),
        (OnTimeout::Fail, vec!["timeout"]),
    ] {
        let mut driver = Driver::of(&review(on_timeout));
        while driver.fire_next() {}
        let states = driver.states().into_iter().skip(1);
        let came: Vec<_> = states.filter(|(_, state)| *state == "completed").map(|(id, _)| id).collect();
        assert_eq!(came, live, "{on_timeout:?}");
        if on_timeout == OnTimeout::Reject {
            let view = driver.outputs();
            let decided = view.get("rejected").and_then(|output| output.get("approved").cloned());
            assert_eq!(decided, Some(crate::model::Value::Bool(false)));
        }
    }
}

#[test]
fn overdue_escalations_are_not_sent_once_the_time_is_over() {
    let mut driver = Driver::of(&review(OnTimeout::Reject));
    driver.now = START.saturating_add(Duration::from_secs(3_600));
    assert!(driver.fire_next());
    assert!(!driver.told().contains(&"approval.escalated review".into()));
}

fn decided(approved: bool, reviewer: &str) -> Decision {
    Decision { approved, reviewer: reviewer.into(), reason: None, form: value("[5]"), digest: [1; 32] }
}

// F013, F037, F039, F279, RELIABILITY I-11
#[test]
fn a_decision_leads_on_by_its_own_edges_once() {
    for mode in [Mode::Bursts(512), Mode::CrashAfterEachEvent] {
        for (approved, live) in [(true, vec!["success", "approved"]), (false, vec!["rejected"])] {
            let mut driver = Driver::begin(&start(&review(OnTimeout::Fail), value("[1]")), mode);
            let [open] = &driver.run.open_reviews(9)[..] else { panic!("one waits") };
            let (seq, place) = (open.seq, Place::root(0));
            assert_eq!((seq, &*open.node, open.since), (driver.run.seq(), "review", START));
            assert_eq!(driver.run.may_decide(&place, seq, "ops"), Some(Ok(())));
            assert_eq!(driver.run.may_decide(&place, seq, "lead"), Some(Err("ops".into())));
            assert_eq!(driver.run.may_decide(&place, seq + 1, "ops"), None, "of another review");
            assert!(driver.give(&Given::Decide(place.clone(), seq + 1, decided(approved, "ops"))));
            assert!(driver.fire_next(), "an escalation");
            assert_eq!(driver.run.may_decide(&place, seq, "lead"), Some(Ok(())));
            let view = driver.run.ticket(&Which::At("review".into())).unwrap();
            assert_eq!((view.open.seq, view.level, &view.review.data), (seq, 1, &value("[1]")));

            assert!(!driver.give(&Given::Decide(place.clone(), seq, decided(approved, "lead"))));
            assert_eq!(driver.run.status(), Status::Completed);
            assert_eq!(driver.run.ticket(&Which::Asked(seq)).map(|view| view.open), None);
            let states = driver.states().into_iter().skip(1);
            let came: Vec<_> = states.filter(|(_, state)| *state == "completed").map(|(id, _)| id).collect();
            assert_eq!(came, live);
            let output = driver.outputs().get(live[live.len() - 1]).cloned().unwrap();
            assert_eq!(output.get("approved"), Some(&crate::model::Value::Bool(approved)));
            assert_eq!(
                (output.get("reviewer"), output.get("form")),
                (Some(&value(r#""lead""#)), Some(&value("[5]")))
            );
            assert!(driver.give(&Given::Decide(place, seq, decided(!approved, "ops"))), "it is over");
        }
    }
}

#[test]
fn a_decision_after_the_time_is_over_is_none_and_one_in_a_pause_counts() {
    let mut driver = Driver::of(&review(OnTimeout::Reject));
    let (place, seq) = (Place::root(0), driver.run.seq());
    driver.now = START.saturating_add(Duration::from_secs(30));
    assert!(driver.give(&Given::Decide(place.clone(), seq, decided(true, "ops"))));
    assert!(driver.told().contains(&"approval.expired review".into()), "{:?}", driver.told());
    assert_eq!((driver.state("rejected"), driver.state("approved")), ("completed", "skipped"));

    let mut driver = Driver::of(&review(OnTimeout::Reject));
    assert!(!driver.give(&Given::Pause));
    assert!(!driver.give(&Given::Decide(place.clone(), seq, decided(true, "ops"))));
    assert_eq!((driver.state("review"), driver.state("approved")), ("completed", "ready"));
    assert!(!driver.give(&Given::Resume));
    assert_eq!(driver.run.status(), Status::Completed);

    let mut driver = Driver::of(&review(OnTimeout::Reject));
    driver.give(&Given::Cancel);
    assert!(driver.give(&Given::Decide(place, seq, decided(true, "ops"))));
    assert_eq!(driver.run.status(), Status::Cancelled);
}

// F324
#[test]
fn what_a_policy_asks_about_fails_when_it_is_not_approved() {
    let asked = |on_timeout| {
        let mut ir = (*review(on_timeout)).clone();
        let Kind::HumanReview(review) = &mut ir.scopes[0].nodes[0].kind else { panic!("it is the first") };
        review.policy = Some("tag money".into());
        Arc::new(ir)
    };
    for mode in [Mode::Bursts(512), Mode::CrashAfterEachEvent] {
        let mut driver = Driver::begin(&start(&asked(OnTimeout::Reject), value("[1]")), mode);
        let (place, seq) = (Place::root(0), driver.run.open_reviews(9)[0].seq);
        assert_eq!(driver.run.open_reviews(9)[0].policy.as_deref(), Some("tag money"));
        assert!(!driver.give(&Given::Decide(place, seq, decided(false, "ops"))));
        assert_eq!((driver.state("review"), driver.state("error")), ("failed", "completed"));
        for id in ["approved", "success", "rejected", "timeout"] {
            assert_eq!(driver.state(id), "skipped", "{id}");
        }
    }
    let mut driver = Driver::of(&asked(OnTimeout::Reject));
    let (place, seq) = (Place::root(0), driver.run.seq());
    driver.now = START.saturating_add(Duration::from_secs(30));
    assert!(driver.give(&Given::Decide(place, seq, decided(true, "ops"))), "its time is over");
    assert_eq!((driver.state("review"), driver.state("timeout")), ("failed", "completed"));
    assert_eq!((driver.state("approved"), driver.state("rejected")), ("skipped", "skipped"));
}
