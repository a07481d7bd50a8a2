//! No budget is ever overdrawn, whoever asks and whenever; what leaves a window is there again.

#![expect(clippy::disallowed_methods, reason = "callers are on threads of their own")]

use proptest::prelude::*;

use super::*;
use crate::model::Partition;

const MINUTE: Duration = Duration::from_secs(60);

fn caller(seq: Seq) -> Caller {
    let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]);
    Caller { run_id, seq, workflow: "acme/report".into(), role: Some("writer".into()) }
}

fn quote(nanos: u64, tokens: u64) -> Quote {
    Quote { model: "m".into(), cost: Some(Usd::from_nanos(nanos)), tokens }
}

fn limit(scope: Scope, per: Per, nanos: u64) -> Limit {
    Limit {
        scope,
        per,
        usd: Some(Usd::from_nanos(nanos)),
        tokens: None,
        on_breach: OnBreach::Pause,
        allow_unpriced: false,
    }
}

fn at(minutes: u32) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).saturating_add(MINUTE * minutes)
}

fn some(nanos: u64) -> Taken {
    Taken::Some(Usd::from_nanos(nanos), 0)
}

// F404, N6
#[test]
fn a_call_counts_towards_each_budget_that_holds_it_and_is_refused_by_the_first_that_is_short() {
    let ledger = Ledger::new(vec![
        limit(Scope::Node, Per::Total, 1_000),
        limit(Scope::Workspace("acme".into()), Per::Day, 100),
        limit(Scope::Workspace("other".into()), Per::Day, 1),
        limit(Scope::Workflow("acme/report".into()), Per::Total, 60),
        limit(Scope::Agent("writer".into()), Per::Total, 40),
    ]);
    let permit = ledger.reserve(&caller(1), &quote(40, 1), at(0)).unwrap();
    let refused = ledger.reserve(&caller(2), &quote(1, 1), at(0)).unwrap_err();
    assert_eq!((&*refused.failure.code, refused.on_breach), ("budget_exceeded", OnBreach::Pause));
    let said = "$0.000000001, and $0.00 of $0.00000004 are left to agent:writer (budgets, per total)";
    assert!(refused.failure.message.contains(said), "{}", refused.failure.message);
    let critic = Caller { role: None, ..caller(2) };
    let refused = ledger.reserve(&critic, &quote(21, 1), at(0)).unwrap_err();
    assert!(refused.failure.message.contains("workflow:acme/report"), "{}", refused.failure.message);
    let left: Vec<u64> = ledger.standings(at(0)).iter().map(|one| one.left().unwrap().as_nanos()).collect();
    assert_eq!(left, [960, 60, 1, 20, 0], "what was refused reserved nothing anywhere");
    ledger.settle(&permit, some(15), at(0));
    let left: Vec<u64> = ledger.standings(at(0)).iter().map(|one| one.left().unwrap().as_nanos()).collect();
    assert_eq!(left, [985, 85, 1, 45, 25]);
}

#[test]
fn the_same_turn_is_reserved_once_and_settled_once() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Total, 100)]);
    let first = ledger.reserve(&caller(1), &quote(60, 0), at(0)).unwrap();
    let again = ledger.reserve(&caller(1), &quote(60, 0), at(0)).unwrap();
    assert_eq!(ledger.standings(at(0))[0].reserved, Usd::from_nanos(60));
    ledger.settle(&first, Taken::Unknown, at(0));
    ledger.settle(&again, Taken::Unknown, at(0));
    let standing = &ledger.standings(at(0))[0];
    assert_eq!((standing.usd, standing.reserved), (Usd::from_nanos(60), Usd::ZERO));
}

// F384
#[test]
fn an_hour_later_it_may_be_spent_again_and_not_before() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Hour, 100)]);
    let permit = ledger.reserve(&caller(1), &quote(100, 0), at(0)).unwrap();
    ledger.settle(&permit, some(100), at(0));
    for minute in [0, 30, 59, 60] {
        assert!(ledger.reserve(&caller(2), &quote(1, 0), at(minute)).is_err(), "{minute}");
    }
    assert!(ledger.reserve(&caller(2), &quote(100, 0), at(61)).is_ok());
    assert!(ledger.reserve(&caller(3), &quote(1, 0), at(600)).is_err(), "what is reserved leaves no window");
}

// D15
#[test]
fn tokens_have_limits_of_their_own_and_what_has_no_price_is_refused() {
    let mut tokens = limit(Scope::Node, Per::Day, 0);
    (tokens.usd, tokens.tokens) = (None, Some(10));
    let unpriced = Quote { cost: None, ..quote(0, 10) };
    let ledger = Ledger::new(vec![tokens]);
    assert!(ledger.reserve(&caller(1), &Quote { tokens: 11, ..unpriced.clone() }, at(0)).is_err());
    assert!(ledger.reserve(&caller(1), &unpriced, at(0)).is_ok());
    let mut dollars = limit(Scope::Node, Per::Day, 10);
    let ledger = Ledger::new(vec![dollars.clone()]);
    let refused = ledger.reserve(&caller(1), &unpriced, at(0)).unwrap_err();
    assert_eq!(&*refused.failure.code, "unpriced_model");
    dollars.allow_unpriced = true;
    assert!(Ledger::new(vec![dollars]).reserve(&caller(1), &unpriced, at(0)).is_ok());
}

#[test]
fn what_was_spent_before_a_restart_counts_for_those_whose_it_was() {
    let ledger = Ledger::new(vec![
        limit(Scope::Workspace("acme".into()), Per::Hour, 100),
        limit(Scope::Workspace("other".into()), Per::Hour, 100),
    ]);
    ledger.restore(&caller(1), (Usd::from_nanos(70), 9), at(0));
    let standings = ledger.standings(at(1));
    assert_eq!((standings[0].usd, standings[0].tokens), (Usd::from_nanos(70), 9));
    assert_eq!(standings[1].usd, Usd::ZERO);
}

#[test]
fn there_are_only_so_many_calls_at_a_time() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Total, 1)]);
    for seq in 0..limits::LEDGER_OPEN_MAX as u64 {
        let _permit = ledger.reserve(&caller(seq), &quote(0, 0), at(0)).unwrap();
    }
    let refused = ledger.reserve(&caller(u64::MAX), &quote(0, 0), at(0)).unwrap_err();
    assert!(refused.failure.retryable() && refused.failure.message.contains("ledger_open_max"));
    assert!(Ledger::default().reserve(&caller(1), &quote(u64::MAX, 0), at(0)).is_ok(), "nothing is limited");
}

/// What happens: (a call is begun, or the oldest under way is settled; how much; how many seconds pass before).
fn happenings() -> impl Strategy<Value = Vec<(bool, u64, u32)>> {
    prop::collection::vec((any::<bool>(), 0_u64..60, 0_u32..900), 1..120)
}

proptest! {
    // N6, F384: over any hour, whatever the order.
    #[test]
    fn no_stretch_of_an_hour_takes_more_than_the_limit(happenings in happenings()) {
        let ledger = Ledger::new(vec![limit(Scope::Node, Per::Hour, 100)]);
        let (mut now, mut open, mut spent) = (at(0), VecDeque::new(), Vec::<(Timestamp, u64)>::new());
        for (seq, (begins, nanos, seconds)) in (0..).zip(happenings) {
            now = now.saturating_add(Duration::from_secs(u64::from(seconds)));
            let in_window = |spent: &[(Timestamp, u64)], more: Duration| {
                let fresh = spent.iter().filter(|(then, _)| then.until(now) < Duration::from_secs(3_600) + more);
                fresh.map(|(_, nanos)| nanos).sum::<u64>()
            };
            let reserved: u64 = open.iter().map(|(_, nanos)| nanos).sum();
            if begins {
                let asked = ledger.reserve(&caller(seq), &quote(nanos, 0), now);
                let (least, most) = (in_window(&spent, Duration::ZERO), in_window(&spent, MINUTE));
                match asked {
                    Ok(permit) => {
                        prop_assert!(least + reserved + nanos <= 100);
                        open.push_back((permit, nanos));
                    }
                    Err(_) => prop_assert!(most + reserved + nanos > 100, "there was room"),
                }
            } else if let Some((permit, reserved)) = open.pop_front() {
                let taken = nanos.min(reserved);
                ledger.settle(&permit, some(taken), now);
                spent.push((now, taken));
            }
            let standing = &ledger.standings(now)[0];
            prop_assert!(standing.usd.plus(standing.reserved) <= Usd::from_nanos(100));
            let reserved: u64 = open.iter().map(|(_, nanos)| nanos).sum();
            prop_assert_eq!(standing.reserved, Usd::from_nanos(reserved));
        }
    }
}

#[test]
fn many_at_once_take_no_more_than_there_is() {
    let ledger = Arc::new(Ledger::new(vec![
        limit(Scope::Node, Per::Total, 1_000),
        limit(Scope::Agent("writer".into()), Per::Day, 1_500),
    ]));
    let threads: Vec<_> = (0..8_u64)
        .map(|thread| {
            let ledger = ledger.clone();
            std::thread::spawn(move || {
                let mut taken = 0;
                for round in 0..500 {
                    let caller = caller(thread * 1_000 + round);
                    if let Ok(permit) = ledger.reserve(&caller, &quote(7, 0), at(0)) {
                        let nanos = if round % 3 == 0 { 0 } else { 1 + round % 7 };
                        ledger.settle(&permit, some(nanos), at(0));
                        taken += nanos;
                    }
                }
                taken
            })
        })
        .collect();
    let taken: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    for standing in ledger.standings(at(0)) {
        assert_eq!((standing.usd, standing.reserved), (Usd::from_nanos(taken), Usd::ZERO));
    }
    assert!((994..=1_000).contains(&taken), "{taken}: nearly all, and never more");
}
