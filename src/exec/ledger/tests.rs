//! No budget is ever overdrawn, whoever asks and whenever; what leaves a window is there again.

#![expect(clippy::disallowed_methods, reason = "callers are on threads of their own")]

use proptest::prelude::*;

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::model::Partition;
use crate::model::budget::OnBreach;

const MINUTE: Duration = Duration::from_secs(60);

fn whose() -> Whose {
    Whose { workflow: "acme/report".into(), role: Some("writer".into()) }
}

/// As it is told.
fn said(refused: &Refused) -> Failure {
    match refused {
        Refused::Full(failure) => failure.clone(),
        Refused::Over(over) => over.failure(),
    }
}

fn caller(seq: Seq) -> Caller {
    let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]);
    Caller { run_id, seq, whose: whose() }
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
        warn_at_permille: 800,
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
    let permit = ledger.reserve(&caller(1), &quote(40, 1), at(0)).unwrap().unwrap();
    let refused = ledger.reserve(&caller(2), &quote(1, 1), at(0)).unwrap_err();
    let Refused::Over(over) = &*refused else { panic!("{refused:?}") };
    assert_eq!((&*over.failure().code, over.by.on_breach), ("budget_exceeded", OnBreach::Pause));
    let told = "$0.000000001, and $0.00 of $0.00000004 are left to agent:writer (usd in [[budgets]] with scope = \"agent:writer\"";
    assert!(over.failure().message.contains(told), "{}", over.failure().message);
    let critic = Caller { whose: Whose { role: None, ..whose() }, ..caller(2) };
    let refused = ledger.reserve(&critic, &quote(21, 1), at(0)).unwrap_err();
    assert!(said(&refused).message.contains("workflow:acme/report"), "{refused:?}");
    let left: Vec<u64> = ledger.standings(at(0)).iter().map(|one| one.left().unwrap().as_nanos()).collect();
    assert_eq!(left, [960, 60, 1, 20, 0], "what was refused reserved nothing anywhere");
    ledger.settle(&permit, some(15), at(0));
    let left: Vec<u64> = ledger.standings(at(0)).iter().map(|one| one.left().unwrap().as_nanos()).collect();
    assert_eq!(left, [985, 85, 1, 45, 25]);
}

#[test]
fn the_same_turn_is_reserved_once_and_settled_once() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Total, 100)]);
    let first = ledger.reserve(&caller(1), &quote(60, 0), at(0)).unwrap().unwrap();
    let again = ledger.reserve(&caller(1), &quote(60, 0), at(0)).unwrap().unwrap();
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
    let permit = ledger.reserve(&caller(1), &quote(100, 0), at(0)).unwrap().unwrap();
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
    assert_eq!(&*said(&refused).code, "unpriced_model");
    dollars.allow_unpriced = true;
    assert!(Ledger::new(vec![dollars]).reserve(&caller(1), &unpriced, at(0)).is_ok());
}

#[test]
fn what_was_spent_before_a_restart_counts_for_those_whose_it_was() {
    let ledger = Ledger::new(vec![
        limit(Scope::Workspace("acme".into()), Per::Hour, 100),
        limit(Scope::Workspace("other".into()), Per::Hour, 100),
    ]);
    ledger.restore(&whose(), &[Per::Hour, Per::Day], (Usd::from_nanos(70), 9), at(0));
    let standings = ledger.standings(at(1));
    assert_eq!((standings[0].usd, standings[0].tokens), (Usd::from_nanos(70), 9));
    assert_eq!(standings[1].usd, Usd::ZERO);
}

#[test]
fn what_was_spent_leaves_the_window_as_if_it_had_been_spent_then_and_only_windows_are_given_it() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Hour, 100), limit(Scope::Node, Per::Total, 100)]);
    for (minute, nanos) in [(0, 40), (30, 30), (50, 20)] {
        ledger.restore(&whose(), &[Per::Hour, Per::Day], (Usd::from_nanos(nanos), 0), at(minute));
    }
    let spent =
        |minute| ledger.standings(at(minute)).iter().map(|one| one.usd.as_nanos()).collect::<Vec<_>>();
    assert_eq!((spent(60), spent(61), spent(91)), (vec![90, 0], vec![50, 0], vec![20, 0]));
}

// F403
#[test]
fn a_budget_warns_once_in_a_window_and_says_how_it_stands() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Hour, 100), limit(Scope::Node, Per::Total, 1_000)]);
    let warned = |seq, nanos, minute| {
        let permit = ledger.reserve(&caller(seq), &quote(nanos, 0), at(minute)).unwrap().unwrap();
        ledger.settle(&permit, some(nanos), at(minute));
        permit.warned
    };
    assert_eq!(warned(1, 79, 0), []);
    let told = warned(2, 1, 1);
    assert_eq!((&*told[0].scope, &*told[0].per, told.len()), ("node", "hour", 1));
    assert_eq!(told[0].usd, Some((Usd::from_nanos(20), Usd::from_nanos(100))));
    assert_eq!(warned(3, 5, 2), [], "it has warned");
    assert!(ledger.standings(at(2))[0].warned && !ledger.standings(at(70))[0].warned);
    assert_eq!(warned(4, 90, 75).len(), 1, "in another hour it warns again");
    let mut more = limit(Scope::Node, Per::Hour, 110);
    assert_eq!(ledger.govern(vec![more.clone()]), []);
    let permit = ledger.reserve(&caller(5), &quote(1, 0), at(76)).unwrap().unwrap();
    assert_eq!(permit.warned.len(), 1, "of another amount, too");
    ledger.settle(&permit, Taken::Nothing, at(76));
    assert_eq!(warned(6, 1, 76).len(), 1, "that call was not made");
    more.warn_at_permille = 1_000;
    ledger.govern(vec![more]);
    assert_eq!(ledger.restored(at(76)), []);
}

// F404
#[test]
fn other_budgets_take_over_what_counts_and_what_is_under_way() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Hour, 100), limit(Scope::Node, Per::Day, 100)]);
    let spent = ledger.reserve(&caller(1), &quote(60, 0), at(0)).unwrap().unwrap();
    ledger.settle(&spent, some(50), at(0));
    let open = ledger.reserve(&caller(2), &quote(30, 0), at(0)).unwrap().unwrap();
    let fresh = limit(Scope::Agent("writer".into()), Per::Total, 9);
    assert_eq!(ledger.govern(vec![fresh.clone(), limit(Scope::Node, Per::Hour, 90)]), [fresh]);
    assert!(ledger.reserve(&caller(3), &quote(9, 0), at(0)).is_ok_and(|permit| permit.is_some()));
    assert!(ledger.reserve(&caller(4), &quote(1, 0), at(0)).is_err(), "80 of 90 count, and 9 are reserved");
    ledger.settle(&open, some(20), at(0));
    let all = ledger.standings(at(0));
    let told: Vec<_> = all.iter().map(|one| (one.usd.as_nanos(), one.reserved.as_nanos())).collect();
    assert_eq!(told, [(0, 9), (70, 9)], "what was under way before counts where it was reserved");
}

#[test]
fn there_are_only_so_many_calls_at_a_time() {
    let ledger = Ledger::new(vec![limit(Scope::Node, Per::Total, 1)]);
    for seq in 0..limits::LEDGER_OPEN_MAX as u64 {
        let _permit = ledger.reserve(&caller(seq), &quote(0, 0), at(0)).unwrap();
    }
    let refused = ledger.reserve(&caller(u64::MAX), &quote(0, 0), at(0)).unwrap_err();
    assert!(said(&refused).retryable() && said(&refused).message.contains("ledger_open_max"));
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
                        let permit = permit.unwrap();
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
                    if let Ok(Some(permit)) = ledger.reserve(&caller, &quote(7, 0), at(0)) {
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
