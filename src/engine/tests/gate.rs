//! Reviews: what is asked, who is asked next, and what follows when nobody answers.

use std::time::Duration;

use super::build::{Build, identity};
use super::{Driver, Mode, START, start, value};
use crate::ir::{Kind, On, OnTimeout, Review, Template};
use crate::model::event::Waiting;
use crate::model::{EventBody, Status};

/// review, and one node behind each kind of edge.
fn review(on_timeout: OnTimeout) -> std::sync::Arc<crate::ir::Ir> {
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
        assert_eq!(asked.escalations[1].to, ["boss".into(), "owner".into()]);
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
