//! What a run remembers of requests with a key: one effect, bounded, the same for equal histories, and gone with a fork.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::build::{Build, wait};
use super::*;
use crate::engine::IMAGE_VERSION;
use crate::ir::Kind;
use crate::limits;
use crate::model::event::{Done, Forked, Idempotency, Remembered};

const DAY: Duration = Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS);

fn key(number: u32) -> Idempotency {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&number.to_le_bytes());
    Idempotency { key, fingerprint: [7; 16] }
}

/// A run that waits for `go`, answered by the node behind.
fn waiting() -> Driver {
    let mut b = Build::new();
    let Kind::Wait { signal, timeout, accepts, .. } = wait("go", None) else { unreachable!() };
    let go = b.node(0, "go", Kind::Wait { signal, timeout, accepts, reply: Some(1) });
    let stay = b.node(0, "stay", wait("never", None));
    b.edge(0, go, stay);
    Driver::of(&b.build())
}

fn signal(driver: &mut Driver, name: &str, key: &Idempotency) -> bool {
    let stale = driver.input(Input::Signal { name, payload: &Value::Int(1), key: Some(key) });
    driver.go_on();
    stale
}

fn imaged(run: &Run) -> Run {
    Run::from_image_with(&run.to_image().unwrap(), run.ir().clone()).unwrap()
}

#[test]
fn a_signal_with_a_key_is_remembered_right_behind_it_with_who_took_it_and_who_answers() {
    let mut driver = waiting();
    let (before, plain) = (driver.run.seq(), driver.run.to_image().unwrap());
    assert!(!signal(&mut driver, "go", &key(1)));
    let told: Vec<_> = driver.history.iter().skip(before as usize).map(|event| &event.body).collect();
    assert_eq!(told[0].type_name(), "signal.received");
    let EventBody::RequestRemembered(request) = told[1] else { panic!("{told:?}") };
    let taken = Some((Place::root(0), Place::root(1)));
    assert_eq!(request.done, Done::Signal { seq: before + 1, taken });
    let known = driver.run.remembered(&key(1).key).unwrap();
    assert_eq!((known.seq, known.at, &known.request), (before + 2, driver.now, request));
    assert_eq!(driver.run.remembered(&key(2).key), None);
    // One that is kept is remembered as well, and all of it comes back from bytes.
    assert!(!signal(&mut driver, "later", &key(2)));
    let kept = driver.run.remembered(&key(2).key).unwrap();
    assert_eq!(kept.request.done, Done::Signal { seq: kept.seq - 1, taken: None });
    assert_eq!(imaged(&driver.run), driver.run);
    assert_eq!(driver.rebuilt(), driver.run);
    // A run without keys has the image that it always had.
    assert_eq!((IMAGE_VERSION, waiting().run.to_image().unwrap()), (3, plain));
}

#[test]
fn what_is_dropped_is_not_remembered() {
    let mut driver = waiting();
    driver.input(Input::Cancel { reason: "enough" });
    assert!(signal(&mut driver, "go", &key(1)));
    assert_eq!(driver.run.remembered(&key(1).key), None);
    driver.go_on();
    assert!(signal(&mut driver, "go", &key(1)));
}

#[test]
fn a_run_that_remembers_all_it_may_refuses_another_key_until_the_oldest_is_a_day_old() {
    let mut driver = waiting();
    let done = Done::Signal { seq: 1, taken: None };
    for number in 0..limits::KEYS_PER_RUN_MAX as u32 {
        assert_eq!(driver.run.keys_full(driver.now), None);
        let event = driver.run.remember(key(number), done.clone());
        apply(&mut driver.run, &event, driver.now).unwrap();
        driver.now = driver.now.saturating_add(Duration::from_millis(1));
    }
    assert_eq!(driver.run.keys_full(driver.now), Some(limits::KEYS_PER_RUN_MAX));
    let event = driver.run.remember(key(9_999), done);
    let before = driver.run.clone();
    apply(&mut driver.run, &event, driver.now).unwrap_err();
    assert_eq!(driver.run, before, "what is refused changes nothing");
    let day = START.saturating_add(DAY);
    assert_eq!(
        driver.run.keys_full(Timestamp::from_micros(day.as_micros() - 1)),
        Some(limits::KEYS_PER_RUN_MAX)
    );
    assert!(driver.run.remembered(&key(0).key).is_some(), "it is remembered until another one comes");
    apply(&mut driver.run, &event, day).unwrap();
    assert_eq!(driver.run.remembered(&key(0).key), None);
    assert!(driver.run.remembered(&key(1).key).is_some());
    assert_eq!(imaged(&driver.run), driver.run);
}

#[test]
fn a_memory_that_could_not_be_is_refused() {
    let mut driver = waiting();
    signal(&mut driver, "go", &key(1));
    let before = driver.run.clone();
    let again = driver.run.remember(key(1), Done::Signal { seq: 1, taken: None });
    let request = Remembered {
        idempotency: key(2),
        status: crate::model::Status::Paused,
        done: Done::Signal { seq: 1, taken: None },
    };
    for event in [again, EventBody::RequestRemembered(Arc::new(request))] {
        apply(&mut driver.run, &event, driver.now).unwrap_err();
        assert_eq!(driver.run, before);
    }
    // Bytes of an image that end within it are no image.
    let image = before.to_image().unwrap();
    let short = image.get(..image.len() - 1).unwrap();
    assert!(Run::from_image_with(short, before.ir().clone()).is_err());
}

#[test]
fn a_fork_remembers_nothing() {
    let mut driver = waiting();
    signal(&mut driver, "go", &key(1));
    let forked = Forked {
        run_id: run_id(),
        seq: driver.run.seq(),
        since: driver.now,
        replay: false,
        inputs: None,
        deadline: None,
        idempotency: None,
        epoch: 1,
    };
    let event = EventBody::RunForked(Box::new(forked));
    apply(&mut driver.run, &event, driver.now).unwrap();
    assert_eq!(driver.run.remembered(&key(1).key), None);
}

proptest! {
    /// Against a list that is kept by hand: what is remembered, what is refused, and never more than there may be.
    #[test]
    fn any_history_is_remembered_as_a_list_of_a_day_would(
        asked in proptest::collection::vec((0_u32..40, 0_u64..7_200), 1..200)
    ) {
        let mut run = waiting().run;
        let mut list: VecDeque<(Timestamp, u32)> = VecDeque::new();
        let mut now = START;
        for (number, seconds) in asked {
            now = now.saturating_add(Duration::from_secs(seconds));
            let event = run.remember(key(number), Done::Signal { seq: 1, taken: None });
            let old = list.iter().take_while(|(at, _)| at.saturating_add(DAY) <= now).count();
            let fits = list.iter().skip(old).all(|(_, known)| *known != number);
            let before = run.clone();
            prop_assert_eq!(apply(&mut run, &event, now).is_ok(), fits);
            if fits {
                list.drain(..old);
                list.push_back((now, number));
            } else {
                prop_assert_eq!(&run, &before);
            }
            for known in 0..40 {
                let remembered = run.remembered(&key(known).key).map(|known| known.at);
                let listed = list.iter().rev().find(|(_, number)| *number == known).map(|(at, _)| *at);
                prop_assert_eq!(remembered, listed);
            }
            prop_assert_eq!(&imaged(&run), &run);
        }
    }
}
