//! The wheel against a sorted map, and at the sizes and times it is made for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::Timer;
use crate::model::{Partition, RunId};

/// Bytes that one pending timer of a shard may cost.
const BYTES_PER_TIMER: usize = 96;
/// Bytes that a wheel costs without any.
const BYTES_OF_A_WHEEL: usize = 20 << 10;

const PLENTY: usize = usize::MAX;
const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn pop<T>(wheel: &mut Wheel<T>, now: u64) -> Option<T> {
    wheel.pop_due(at(now), &mut PLENTY.clone())
}

fn pop_all<T>(wheel: &mut Wheel<T>, now: u64) -> Vec<T> {
    std::iter::from_fn(|| pop(wheel, now)).collect()
}

// RELIABILITY 2.8
#[test]
fn timers_fire_in_due_order_never_early_and_once() {
    let mut wheel = Wheel::default();
    wheel.arm(at(20), 'c');
    wheel.arm(at(10), 'a');
    wheel.arm(at(10), 'b');
    let gone = wheel.arm(at(5), 'x');
    assert_eq!(wheel.disarm(gone), Some('x'));
    assert_eq!(wheel.disarm(gone), None, "once");
    assert_eq!(wheel.next_due(), Some(at(10)));
    assert_eq!(pop(&mut wheel, 9), None);
    assert_eq!(pop_all(&mut wheel, 30), ['a', 'b', 'c']);
    assert_eq!((wheel.next_due(), wheel.len()), (None, 0));
}

// RELIABILITY D4
#[test]
fn every_due_time_from_zero_to_the_end_of_time_fires_then_and_not_before() {
    let year = 365 * DAY_US;
    let moments = [0, 1, 255, 256, 65_536, 497 * DAY_US / 10, 1_000 * year, u64::MAX - 1, u64::MAX];
    let mut wheel = Wheel::default();
    for due in moments.iter().rev() {
        wheel.arm(at(*due), *due);
    }
    for due in moments {
        if due > 0 {
            assert_eq!(pop(&mut wheel, due - 1), None, "{due} is early");
        }
        assert!(wheel.next_due().unwrap() <= at(due), "the loop would sleep past {due}");
        assert_eq!(pop(&mut wheel, due), Some(due));
    }
    // At the end of time everything is due, also what is armed then.
    wheel.arm(at(0), 0);
    wheel.arm(at(u64::MAX), 1);
    assert_eq!(pop_all(&mut wheel, u64::MAX), [0, 1]);
}

// RELIABILITY D3
#[test]
fn a_million_timers_of_one_second_fire_in_due_order_with_bounded_work_in_each_call() {
    const COUNT: u64 = 1_000_000;
    const STEPS: usize = 4_096;
    // Some hours ahead, as durable timers are, and spread by a multiplier that visits every microsecond once.
    let second = 5 * 60 * 60 * 1_000_000;
    let mut wheel = Wheel::default();
    pop(&mut wheel, 123_456);
    for n in 0..COUNT {
        wheel.arm(at(second + n * 700_001 % COUNT), second + n * 700_001 % COUNT);
    }
    assert_eq!(pop(&mut wheel, second - 1), None);
    let (mut fired, mut calls) = (0, 0);
    while fired < COUNT {
        let mut steps = STEPS;
        while let Some(due) = wheel.pop_due(at(second + COUNT), &mut steps) {
            assert_eq!(due, second + fired, "in due order, none twice, none lost");
            fired += 1;
        }
        assert!(fired == COUNT || steps == 0, "a call ends early only when everything is done");
        calls += 1;
    }
    // At most one step for each level it goes down, and one to fire.
    assert!(calls <= COUNT as usize * LEVELS / STEPS + 1, "{calls} calls");
    assert_eq!(wheel.next_due(), None);
}

// RELIABILITY D3, 2.8
#[test]
fn a_hundred_thousand_overdue_at_the_start_fire_in_due_order() {
    const COUNT: u64 = 100_000;
    let now = 1_800_000_000_000_000;
    let mut wheel = Wheel::default();
    // Over the last two months; some are due together.
    let due = |n: u64| now - (n * 7_919 % COUNT) / 2 * (60 * DAY_US / COUNT);
    let mut expected: Vec<_> = (0..COUNT).map(|n| (due(n), n)).collect();
    expected.sort_unstable();
    for n in 0..COUNT {
        wheel.arm(at(due(n)), (due(n), n));
    }
    assert_eq!(pop_all(&mut wheel, now), expected);
}

#[test]
fn a_million_pending_timers_stay_within_the_memory_they_are_given() {
    const COUNT: usize = 1_000_000;
    let run_id = RunId::new(at(0), Partition::new(0), [7; 10]);
    let mut wheel = Wheel::<(RunId, Timer)>::default();
    assert!(wheel.bytes() <= BYTES_OF_A_WHEEL, "{} bytes", wheel.bytes());
    let keys: Vec<_> =
        (0..COUNT as u64).map(|n| wheel.arm(at(n * 31_337), (run_id, Timer::Deadline))).collect();
    let full = wheel.bytes();
    assert!(full <= BYTES_OF_A_WHEEL + COUNT * BYTES_PER_TIMER, "{} bytes a timer", full / COUNT);
    for key in keys {
        assert!(wheel.disarm(key).is_some());
    }
    // What comes later uses the same places.
    for n in 0..COUNT as u64 {
        wheel.arm(at(n), (run_id, Timer::Deadline));
    }
    assert_eq!(wheel.bytes(), full);
}

#[test]
fn the_key_of_a_timer_that_fired_does_not_touch_the_one_in_its_place() {
    let mut wheel = Wheel::default();
    let old = wheel.arm(at(1), 'a');
    assert_eq!(pop(&mut wheel, 1), Some('a'));
    let new = wheel.arm(at(1), 'b');
    assert_eq!(old.index, new.index, "the place is used again");
    assert_eq!(wheel.disarm(old), None);
    assert_eq!(pop(&mut wheel, 1), Some('b'));
}

#[test]
fn time_that_goes_back_is_time_that_stands_still() {
    let mut wheel = Wheel::default();
    assert_eq!(pop(&mut wheel, 1_000), None);
    wheel.arm(at(900), 'a');
    wheel.arm(at(1_001), 'b');
    assert_eq!(pop_all(&mut wheel, 0), ['a']);
    assert_eq!(pop_all(&mut wheel, 1_001), ['b']);
}

#[test]
fn a_slot_that_is_being_opened_takes_what_is_armed_then_in_order() {
    let mut wheel = Wheel::default();
    let keys: Vec<_> = (0..3).map(|n| wheel.arm(at(70_000), n)).collect();
    let mut steps = 2;
    assert_eq!(wheel.pop_due(at(80_000), &mut steps), None);
    assert!(wheel.opening.is_some(), "its timers are on their way");
    assert!(wheel.next_due().unwrap() <= at(80_000), "the loop goes on at once");
    wheel.arm(at(70_000), 3);
    wheel.arm(at(0), 4);
    wheel.disarm(keys[1]);
    // What was late when it was armed is due at the time reached: where the slot begins.
    assert_eq!(pop_all(&mut wheel, 80_000), [4, 0, 2, 3]);
}

/// A sorted map that does what the wheel promises.
#[derive(Default)]
struct Model {
    armed: BTreeMap<(u64, u64), u64>,
    count: u64,
    now: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Arm(u64),
    Disarm(prop::sample::Index),
    /// Time goes on, or back, and so many are taken with so many steps.
    Look {
        now: u64,
        pops: usize,
        steps: usize,
    },
}

fn moments() -> impl Strategy<Value = u64> {
    // Near, on the borders of slots, far, and the ends.
    let scales = (0_u32..64, 0_u64..600)
        .prop_map(|(shift, near)| (1_u64 << shift).wrapping_add(near).wrapping_sub(300));
    prop_oneof![8 => scales, 2 => 0_u64..2_000, 1 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
}

fn steps() -> impl Strategy<Value = Step> {
    let pops = prop_oneof![0_usize..5, Just(PLENTY)];
    let budget = prop_oneof![1 => 0_usize..20, 2 => Just(PLENTY)];
    prop_oneof![
        4 => moments().prop_map(Step::Arm),
        1 => any::<prop::sample::Index>().prop_map(Step::Disarm),
        2 => (moments(), pops, budget).prop_map(|(now, pops, steps)| Step::Look { now, pops, steps }),
    ]
}

fn look(
    wheel: &mut Wheel<u64>,
    model: &mut Model,
    pops: usize,
    mut steps: usize,
) -> Result<(), TestCaseError> {
    for _ in 0..pops {
        match wheel.pop_due(at(model.now), &mut steps) {
            Some(number) => {
                let ((due, _), first) = model.armed.pop_first().expect("it is armed");
                prop_assert_eq!(number, first, "in due order, then in the order of arming");
                prop_assert!(due <= model.now, "early");
            }
            None if steps == 0 => break,
            None => {
                prop_assert!(model.armed.keys().all(|(due, _)| *due > model.now), "late");
                prop_assert!(wheel.next_due().is_none_or(|next| next > at(model.now)), "the loop spins");
                break;
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("AOB_FULL").is_some() { 20_000 } else { 400 }))]

    #[test]
    fn a_wheel_does_what_a_sorted_map_does(steps in prop::collection::vec(steps(), 1..120)) {
        let (mut wheel, mut model) = (Wheel::default(), Model::default());
        let mut keys = Vec::new();
        for step in steps {
            match step {
                Step::Arm(due) => {
                    model.count += 1;
                    let effective = due.max(wheel.reached);
                    keys.push((wheel.arm(at(due), model.count), (effective, model.count)));
                    model.armed.insert((effective, model.count), model.count);
                }
                Step::Disarm(which) if !keys.is_empty() => {
                    let (key, place) = keys.swap_remove(which.index(keys.len()));
                    prop_assert_eq!(wheel.disarm(key), model.armed.remove(&place));
                }
                Step::Disarm(_) => {}
                Step::Look { now, pops, steps } => {
                    model.now = model.now.max(now);
                    look(&mut wheel, &mut model, pops, steps)?;
                    prop_assert!(wheel.reached <= model.now, "it is not ahead of time");
                }
            }
            let (next, first) = (wheel.next_due(), model.armed.first_key_value());
            prop_assert_eq!(next.is_some(), first.is_some());
            prop_assert!(next.zip(first).is_none_or(|(next, ((due, _), _))| next <= at(*due)), "the loop oversleeps");
            prop_assert_eq!(wheel.len(), model.armed.len());
        }
        model.now = u64::MAX;
        look(&mut wheel, &mut model, PLENTY, PLENTY)?;
        prop_assert_eq!((wheel.len(), wheel.occupied), (0, 0));
    }

    /// A loop that sleeps until `next_due` each time meets a timer at its due time, after seven looks at most.
    #[test]
    fn a_loop_that_sleeps_until_told_meets_every_timer_in_time(dues in prop::collection::vec(moments(), 1..40)) {
        let mut wheel = Wheel::default();
        for due in &dues {
            wheel.arm(at(*due), *due);
        }
        let (mut fired, mut looks) = (Vec::new(), 0);
        while let Some(next) = wheel.next_due() {
            looks += 1;
            let met = pop_all(&mut wheel, next.as_micros());
            prop_assert!(met.iter().all(|due| *due == next.as_micros()), "late");
            fired.extend(met);
        }
        let mut expected = dues.clone();
        expected.sort_unstable();
        prop_assert_eq!(fired, expected);
        prop_assert!(looks <= dues.len() * LEVELS, "{looks} looks for {} timers", dues.len());
    }
}
