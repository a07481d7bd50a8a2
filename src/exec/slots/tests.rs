//! Lines, paces, restarts; and any order of claims, ends and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Admission, Concurrency, Partition, Priority, Rate};
use crate::time::Timestamp;

fn run(number: u32) -> RunId {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.to_be_bytes());
    RunId::new(Timestamp::from_micros(0), Partition::new(0), random)
}

fn flow() -> Arc<str> {
    "acme/flow".into()
}

fn claim(number: u32, concurrency: Option<(&str, u32)>, rate: Option<(&str, u32, u64)>) -> Claim {
    let concurrency = concurrency.map(|(key, max)| Concurrency { key: key.into(), max });
    let rate =
        rate.map(|(key, max, millis)| Rate { key: key.into(), max, per: Duration::from_millis(millis) });
    Claim {
        seq: 2,
        workflow: flow(),
        wanted: Arc::new(Admission { concurrency, rate }),
        priority: Priority::Medium,
        since: Timestamp::from_micros(u64::from(number)),
        parent: None,
    }
}

fn opened() -> Slots {
    let slots = Slots::default();
    slots.open(0);
    slots
}

fn granted(news: &News) -> Vec<RunId> {
    news.grants.iter().map(|grant| grant.run_id).collect()
}

#[test]
fn a_slot_goes_to_who_waits_longest_and_an_urgent_one_overtakes() {
    let slots = opened();
    let ask = |number, priority| {
        let claim = Claim { priority, ..claim(number, Some(("k", 2)), None) };
        granted(&slots.ask(run(number), claim, 0).1)
    };
    assert_eq!(ask(1, Priority::Medium), [run(1)]);
    assert_eq!(ask(2, Priority::Medium), [run(2)]);
    for (number, priority) in [(3, Priority::Low), (4, Priority::Medium), (5, Priority::High)] {
        assert_eq!(ask(number, priority), []);
    }
    let standing = slots.standing(run(3), &flow()).unwrap();
    assert_eq!(
        standing,
        Standing { reason: Reason::Concurrency, ahead: 2, held: 2, holders: vec![run(1), run(2)] }
    );
    assert_eq!(slots.standing(run(1), &flow()), None, "it does not wait");
    for next in [5, 4, 3] {
        let free = [1, 2, 5][usize::from(next != 5) + usize::from(next == 3)];
        assert_eq!(granted(&slots.release(run(free), &flow(), 0)), [run(next)]);
    }
    assert_eq!(slots.counts(), [(flow(), Counts { held: 2, ..Counts::default() })]);
    for last in [3, 4] {
        slots.release(run(last), &flow(), 0);
    }
    assert_eq!(slots.counts(), []);
    assert!(slots.lock(&flow()).flows.is_empty(), "a key that nobody has takes no memory");
}

#[test]
fn low_priority_waits_no_longer_than_its_ageing() {
    let slots = opened();
    let at = |number, priority, seconds: u64| Claim {
        priority,
        since: Timestamp::from_micros(seconds * 1_000_000),
        ..claim(number, Some(("k", 1)), None)
    };
    slots.ask(run(0), at(0, Priority::Medium, 0), 0);
    slots.ask(run(1), at(1, Priority::Low, 0), 0);
    slots.ask(run(2), at(2, Priority::High, 2 * crate::limits::ADMISSION_AGEING_SECONDS - 1), 0);
    slots.ask(run(3), at(3, Priority::High, 2 * crate::limits::ADMISSION_AGEING_SECONDS + 1), 0);
    for (free, next) in [(0, 2), (2, 1), (1, 3)] {
        assert_eq!(granted(&slots.release(run(free), &flow(), 0)), [run(next)]);
    }
}

#[test]
fn keys_and_workflows_do_not_meet() {
    let slots = opened();
    for (number, key) in [(1, "a"), (2, "b")] {
        assert_eq!(granted(&slots.ask(run(number), claim(number, Some((key, 1)), None), 0).1), [run(number)]);
    }
    let other = Claim { workflow: "flow".into(), ..claim(3, Some(("a", 1)), None) };
    assert_eq!(granted(&slots.ask(run(3), other, 0).1), [run(3)]);
    assert_eq!(granted(&slots.ask(run(4), claim(4, Some(("a", 1)), None), 0).1), []);
}

#[test]
fn nobody_is_admitted_before_all_claims_are_in_and_holders_count() {
    let slots = Slots::default();
    slots.restore(run(9), claim(9, Some(("k", 2)), None), true);
    for number in [3, 1, 2] {
        slots.restore(run(number), claim(number, Some(("k", 2)), None), false);
    }
    assert_eq!(granted(&slots.ask(run(0), claim(0, Some(("k", 2)), None), 0).1), []);
    assert_eq!(granted(&slots.open(0)), [run(0)], "one slot is left, for who has waited longest");
    assert_eq!(
        slots.ask(run(1), claim(1, Some(("k", 2)), None), 0),
        (false, News::default()),
        "it asked before"
    );
    assert_eq!(granted(&slots.release(run(9), &flow(), 0)), [run(1)]);
}

#[test]
fn a_child_is_looked_at_before_it_stands_in_line() {
    let slots = Slots::default();
    let child = |number| Claim { parent: Some(run(100)), ..claim(number, Some(("k", 1)), None) };
    slots.restore(run(1), child(1), false);
    slots.open(0);
    assert_eq!(slots.ask(run(1), child(1), 0), (true, News::default()));
    assert_eq!(
        granted(&slots.ask(run(2), claim(2, Some(("k", 1)), None), 0).1),
        [run(2)],
        "nobody holds it up"
    );
    assert_eq!(slots.looked_at(run(1), &flow(), 0), News::default());
    assert_eq!(slots.standing(run(1), &flow()).unwrap().held, 1);
    assert_eq!(granted(&slots.release(run(2), &flow(), 0)), [run(1)]);
    // One that ended while it was looked at is not in line.
    slots.ask(run(3), child(3), 0);
    slots.release(run(3), &flow(), 0);
    assert_eq!(slots.looked_at(run(3), &flow(), 0), News::default());
    assert_eq!(slots.counts(), [(flow(), Counts { held: 1, ..Counts::default() })]);
}

#[test]
fn a_rate_lets_so_many_begin_at_once_and_then_one_at_a_time() {
    let slots = opened();
    let (max, per_ms, step_us) = (4, 1_000, 250_000);
    let mut news = News::default();
    for number in 0..10 {
        let one = slots.ask(run(number), claim(number, None, Some(("k", max, per_ms))), 0).1;
        news.grants.extend(one.grants);
        news.looks.extend(one.looks);
    }
    assert_eq!(granted(&news), [0, 1, 2, 3].map(run));
    let mut look = match news.looks.as_slice() {
        [look] => look.clone(),
        looks => panic!("{looks:?}"),
    };
    assert_eq!(
        slots.standing(run(9), &flow()).unwrap(),
        Standing { reason: Reason::Rate, ahead: 5, held: 0, holders: vec![] }
    );
    for number in 4..10 {
        assert_eq!(look.at_us, step_us * u64::from(number - 3));
        let early = slots.look(&look, look.at_us - 1);
        assert_eq!(granted(&early), [], "not a moment early");
        let news = slots.look(&look, look.at_us);
        assert_eq!(granted(&news), [run(number)]);
        match news.looks.as_slice() {
            [next] => look = next.clone(),
            _ => assert_eq!(number, 9),
        }
    }
    // Its time is over two steps later; the next change in the room forgets it.
    (0..10).for_each(|number| drop(slots.release(run(number), &flow(), 0)));
    assert!(!slots.lock(&flow()).fading.is_empty());
    slots.release(run(0), &flow(), 60_000_000);
    assert!(slots.lock(&flow()).flows.is_empty() && slots.lock(&flow()).fading.is_empty());
}

#[test]
fn after_a_restart_a_key_counts_as_used_up() {
    let slots = Slots::default();
    slots.restarted();
    slots.restore(run(0), claim(0, None, Some(("before", 4, 1_000))), false);
    let news = slots.open(7_000_000);
    assert_eq!((granted(&news), news.looks[0].at_us), (vec![], 7_250_000), "who waited before waits too");
    let (_, news) = slots.ask(run(1), claim(1, None, Some(("k", 4, 1_000))), 7_000_000);
    assert_eq!(granted(&news), []);
    assert_eq!(news.looks[0].at_us, 7_250_000, "one step after the start");
    let (_, news) = slots.ask(run(2), claim(2, None, Some(("other", 4, 1_000))), 8_000_000);
    assert_eq!(granted(&news), [run(2)], "as many as time has passed for");
}

#[test]
fn the_slot_comes_first_and_the_rate_is_for_those_who_have_one() {
    let slots = opened();
    let both = |number| claim(number, Some(("k", 1)), Some(("r", 1, 1_000)));
    assert_eq!(granted(&slots.ask(run(1), both(1), 0).1), [run(1)]);
    assert_eq!(slots.ask(run(2), both(2), 0).1, News::default());
    assert_eq!(slots.standing(run(2), &flow()).unwrap().reason, Reason::Concurrency);
    let news = slots.release(run(1), &flow(), 400_000);
    assert_eq!((granted(&news), news.looks[0].at_us), (vec![], 1_000_000));
    assert_eq!(
        slots.standing(run(2), &flow()).unwrap(),
        Standing { reason: Reason::Rate, ahead: 0, held: 1, holders: vec![run(2)] }
    );
    // It gives up: the slot is free, and whoever comes next waits for the same turn.
    slots.release(run(2), &flow(), 500_000);
    slots.ask(run(3), both(3), 600_000);
    assert_eq!(granted(&slots.look(&news.looks[0], 1_000_000)), [run(3)]);
}

#[test]
fn a_room_full_of_keys_makes_further_keys_wait() {
    let slots = opened();
    let most = crate::limits::RATE_KEYS_MAX / LOCKS;
    for number in 0..=u32::try_from(most).unwrap() {
        let key = format!("k{number}");
        let (_, news) = slots.ask(run(number), claim(number, None, Some((&key, 1, 1_000))), 0);
        assert_eq!(granted(&news).len(), usize::from((number as usize) < most), "{number}");
        if let [look] = news.looks.as_slice() {
            assert_eq!(look.at_us, 1_000_000, "when the time of others is over");
            assert_eq!(granted(&slots.look(look, 1_000_000)), [run(number)]);
        }
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happening {
    Ask { key: u8, max: u8, rated: bool, priority: u8 },
    End(u8),
    Look,
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        5 => (0..3_u8, any::<bool>(), 0..3_u8)
            .prop_map(|(key, rated, priority)| Happening::Ask { key, max: key + 1, rated, priority }),
        4 => any::<u8>().prop_map(Happening::End),
        2 => Just(Happening::Look),
        1 => Just(Happening::Restart),
    ]
}

/// The runs of a node as their histories tell of them, beside the book.
struct Model {
    slots: Slots,
    now_us: u64,
    waiting: BTreeMap<RunId, Claim>,
    admitted: BTreeMap<RunId, Claim>,
    looks: Vec<Look>,
    /// When runs were admitted under the rate.
    turns: Vec<u64>,
    asked: u32,
}

impl Model {
    fn take(&mut self, news: News) {
        for grant in news.grants {
            let claim = self.waiting.remove(&grant.run_id).expect("who is admitted waits, and once");
            assert_eq!(claim.seq, grant.seq);
            if claim.wanted.rate.is_some() {
                self.turns.push(self.now_us);
            }
            self.admitted.insert(grant.run_id, claim);
        }
        self.looks.extend(news.looks);
        self.check();
    }

    fn check(&self) {
        let mut held: BTreeMap<&Concurrency, u32> = BTreeMap::new();
        for concurrency in self.admitted.values().filter_map(|claim| claim.wanted.concurrency.as_ref()) {
            *held.entry(concurrency).or_default() += 1;
        }
        assert!(held.iter().all(|(concurrency, held)| *held <= concurrency.max), "{held:?}");
        // max in no time, and one for each step after.
        for (at, first) in self.turns.iter().enumerate() {
            for (count, last) in self.turns[at..].iter().enumerate() {
                assert!(count as u64 <= 2 + (last - first) / 100_000, "{:?}", self.turns);
            }
        }
        let counts = self.slots.counts().pop().unwrap_or_default().1;
        let waiting = counts.waiting_concurrency + counts.waiting_rate;
        assert_eq!((counts.held, waiting), (self.admitted.len(), self.waiting.len()));
    }

    fn happens(&mut self, what: &Happening) {
        self.now_us += 7_000;
        match what {
            Happening::Ask { key, max, rated, priority } => {
                self.asked += 1;
                let rate = rated.then_some(("r", 3, 300));
                let name = key.to_string();
                let concurrency = (!rated || *key < 2).then_some((&*name, u32::from(*max)));
                let claim = Claim {
                    priority: Priority::ALL[usize::from(*priority)],
                    ..claim(self.asked, concurrency, rate)
                };
                self.waiting.insert(run(self.asked), claim.clone());
                let (_, news) = self.slots.ask(run(self.asked), claim, self.now_us);
                self.take(news);
            }
            Happening::End(which) => {
                let all: BTreeSet<RunId> = self.admitted.keys().chain(self.waiting.keys()).copied().collect();
                let Some(run_id) = all.iter().nth(usize::from(*which) % all.len().max(1)) else { return };
                self.end(*run_id);
            }
            Happening::Look => self.look(),
            Happening::Restart => {
                self.slots = Slots::default();
                self.slots.restarted();
                self.looks.clear();
                for (run_id, claim) in &self.admitted {
                    self.slots.restore(*run_id, claim.clone(), true);
                }
                for (run_id, claim) in &self.waiting {
                    self.slots.restore(*run_id, claim.clone(), false);
                }
                let news = self.slots.open(self.now_us);
                self.take(news);
            }
        }
    }

    fn end(&mut self, run_id: RunId) {
        self.waiting.remove(&run_id);
        self.admitted.remove(&run_id);
        let news = self.slots.release(run_id, &flow(), self.now_us);
        self.take(news);
    }

    fn look(&mut self) {
        let Some(first) = self.looks.iter().map(|look| look.at_us).min() else { return };
        self.now_us = self.now_us.max(first);
        let (due, later) =
            std::mem::take(&mut self.looks).into_iter().partition(|look| look.at_us <= self.now_us);
        self.looks = later;
        for look in Vec::<Look>::from_iter(due) {
            let news = self.slots.look(&look, self.now_us);
            self.take(news);
        }
    }
}

impl PartialOrd for Concurrency {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Concurrency {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.key, self.max).cmp(&(&other.key, other.max))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: no key has more than its max, no rate is exceeded across restarts, and who
    /// waits is admitted once those before it have ended.
    #[test]
    fn never_too_many_and_everybody_in_the_end(script in proptest::collection::vec(happening(), 1..120)) {
        let slots = opened();
        let mut model = Model {
            slots, now_us: 0, waiting: BTreeMap::new(), admitted: BTreeMap::new(), looks: Vec::new(),
            turns: Vec::new(), asked: 0,
        };
        for what in &script {
            model.happens(what);
        }
        for _ in 0..2_000 {
            match model.admitted.keys().next().copied() {
                Some(run_id) => model.end(run_id),
                None if model.waiting.is_empty() => break,
                None => model.look(),
            }
        }
        prop_assert!(model.waiting.is_empty(), "{:?} wait for ever", model.waiting.keys());
    }
}
