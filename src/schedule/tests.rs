//! Due times against a walk through every minute, and what is decided of them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Zoned};
use proptest::prelude::*;

use super::*;
use crate::model::Partition;

const MINUTE_US: u64 = 60_000_000;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn spec(cron: &str, overlap: Overlap) -> Spec {
    Spec {
        name: "s".into(),
        workflow: "w".into(),
        inputs: "{}".into(),
        cron: cron.into(),
        timezone: "UTC".into(),
        overlap,
        catch_up_us: 60 * MINUTE_US,
        jitter_us: 0,
    }
}

fn calendar(schedule: &Schedule) -> Calendar {
    Calendar::parse(&schedule.spec.cron, &schedule.spec.timezone).unwrap()
}

fn run(byte: u8) -> RunId {
    RunId::new(Timestamp::from_micros(0), Partition::new(0), [byte; 10])
}

// ── the calendar ───────────────────────────────────────────────────────────────────────────────────────────

/// A field as text, and the numbers it stands for.
#[derive(Clone, Debug)]
struct Field {
    text: String,
    fits: BTreeSet<i8>,
    /// It begins with a star.
    star: bool,
}

fn field(low: i8, high: i8) -> impl Strategy<Value = Field> {
    let all: BTreeSet<i8> = (low..=high).collect();
    let every = all.clone();
    let stepped = (2..=(high - low) / 2).prop_map(move |step| Field {
        text: format!("*/{step}"),
        fits: (low..=high).step_by(step.unsigned_abs().into()).collect(),
        star: true,
    });
    let list = proptest::collection::btree_set(low..=high, 1..4).prop_map(|fits| Field {
        text: fits.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
        fits,
        star: false,
    });
    let range =
        (low..high).prop_flat_map(move |from| (Just(from), from + 1..=high)).prop_map(|(from, to)| Field {
            text: format!("{from}-{to}"),
            fits: (from..=to).collect(),
            star: false,
        });
    prop_oneof![
        3 => Just(Field { text: "*".into(), fits: every, star: true }),
        2 => stepped,
        4 => list,
        1 => range,
    ]
}

#[derive(Clone, Debug)]
struct Pattern {
    fields: [Field; 5],
}

impl Pattern {
    fn text(&self) -> String {
        self.fields.iter().map(|field| field.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn fits(&self, civil: DateTime) -> bool {
        let [minute, hour, day, month, weekday] = &self.fields;
        let (by_day, by_weekday) = (
            day.fits.contains(&civil.day()),
            weekday.fits.contains(&civil.date().weekday().to_sunday_zero_offset()),
        );
        // As in every cron: when both say something, either is enough.
        let date = if day.star || weekday.star { by_day && by_weekday } else { by_day || by_weekday };
        minute.fits.contains(&civil.minute())
            && hour.fits.contains(&civil.hour())
            && month.fits.contains(&civil.month())
            && date
    }

    fn is_time_of_day(&self) -> bool {
        self.fields.iter().take(2).all(|field| !field.star && field.fits.len() == 1)
    }
}

fn patterns() -> impl Strategy<Value = Pattern> {
    (field(0, 59), field(0, 23), maybe(1, 31), maybe(1, 12), maybe(0, 6))
        .prop_map(|(a, b, c, d, e)| Pattern { fields: [a, b, c, d, e] })
}

/// Mostly a star: dates that seldom fit say little about the clock.
fn maybe(low: i8, high: i8) -> impl Strategy<Value = Field> {
    let star = Field { text: "*".into(), fits: (low..=high).collect(), star: true };
    prop_oneof![3 => Just(star), 1 => field(low, high)]
}

const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Pacific/Chatham",
    "America/Santiago",
    "Antarctica/Troll",
    "Asia/Gaza",
    "America/Havana",
];

/// Whatever is due in these minutes, found by looking at each.
fn walked(pattern: &Pattern, zone: &TimeZone, from: Timestamp, minutes: u64) -> Vec<Timestamp> {
    let shown = |at: Timestamp| {
        let at = jiff::Timestamp::from_microsecond(i64::try_from(at.as_micros()).unwrap()).unwrap();
        Zoned::new(at, zone.clone())
    };
    let mut found = Vec::new();
    let mut before = shown(from);
    for minute in 1..=minutes {
        let at = from.saturating_add(Duration::from_micros(minute * MINUTE_US));
        let now = shown(at);
        let civil = now.datetime();
        let mut due = pattern.fits(civil);
        if pattern.is_time_of_day() {
            if let AmbiguousOffset::Fold { .. } = zone.to_ambiguous_timestamp(civil).offset() {
                due &= zone.to_ambiguous_timestamp(civil).earlier().unwrap() == now.timestamp();
            }
            // Minutes that the clock left out.
            let mut left_out = before.datetime().checked_add(SignedDuration::from_mins(1)).unwrap();
            while left_out < civil {
                due |= pattern.fits(left_out);
                left_out = left_out.checked_add(SignedDuration::from_mins(1)).unwrap();
            }
        }
        if due {
            found.push(at);
        }
        before = now;
    }
    found
}

fn listed(calendar: &Calendar, from: Timestamp, minutes: u64) -> Vec<Timestamp> {
    let end = from.saturating_add(Duration::from_micros(minutes * MINUTE_US));
    std::iter::successors(calendar.next_after(from), |due| calendar.next_after(*due))
        .take_while(|due| *due <= end)
        .collect()
}

// Day and weekday: either is enough, unless one begins with a star.
#[test]
fn a_day_field_with_a_star_narrows_the_other() {
    let due = |cron: &str| {
        let calendar = Calendar::parse(cron, "UTC").unwrap();
        // 2026-06: the 1st is a Monday.
        listed(&calendar, at("2026-05-31T23:59:00Z"), 30 * 24 * 60).len()
    };
    assert_eq!(due("0 0 1-7 * MON"), 7 + 5 - 1, "either");
    assert_eq!(due("0 0 */2 * MON"), 3, "odd days that are Mondays: the 1st, the 15th, the 29th");
    assert_eq!(due("0 0 1-7 * */7"), 1, "the Sunday among the first seven days");
    assert_eq!(due("0 0 1-7 * *"), 7);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    // A year is due as a walk through its minutes says: in order, none twice, none left out.
    #[test]
    fn a_year_is_due_as_a_walk_through_its_minutes_says(
        pattern in patterns(),
        zone in proptest::sample::select(&ZONES[..]),
        year in 2024..2030_u16,
    ) {
        let from = at(&format!("{year}-01-01T00:00:00Z"));
        let minutes = 366 * 24 * 60;
        let Ok(calendar) = Calendar::parse(&pattern.text(), zone) else { panic!("{}", pattern.text()) };
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        let listed = listed(&calendar, from, minutes);
        prop_assert!(listed.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(listed, walked(&pattern, &zone, from, minutes));
    }

    // A time of day stands where clocks are put forward and back.
    #[test]
    fn a_time_of_day_is_due_once_a_day(
        hour in 0..4_u8,
        minute in 0..60_u8,
        zone in proptest::sample::select(&ZONES[..]),
        year in 2024..2030_u16,
    ) {
        let text = format!("{minute} {hour} * * *");
        let calendar = Calendar::parse(&text, zone).unwrap();
        let zone = TimeZoneDatabase::bundled().get(zone).unwrap();
        let from = at(&format!("{year}-01-01T00:00:00Z"));
        let pattern = Pattern { fields: [
            one(minute.try_into().unwrap()), one(hour.try_into().unwrap()), star(1, 31), star(1, 12), star(0, 6),
        ] };
        let listed = listed(&calendar, from, 365 * 24 * 60);
        prop_assert_eq!(&listed, &walked(&pattern, &zone, from, 365 * 24 * 60));
        prop_assert!((364..=366).contains(&listed.len()), "{} days", listed.len());
    }
}

fn one(number: i8) -> Field {
    Field { text: number.to_string(), fits: [number].into(), star: false }
}

fn star(low: i8, high: i8) -> Field {
    Field { text: "*".into(), fits: (low..=high).collect(), star: true }
}

// RELIABILITY D6
#[test]
fn clocks_that_are_put_forward_and_back() {
    let due = |cron: &str, from: &str, count: usize| {
        let calendar = Calendar::parse(cron, "Europe/Berlin").unwrap();
        let due = std::iter::successors(calendar.next_after(at(from)), |due| calendar.next_after(*due));
        due.take(count).map(|due| due.to_string()[..16].to_owned()).collect::<Vec<_>>()
    };
    // 02:30 is left out on 2026-03-29, and comes twice on 2026-10-25.
    assert_eq!(
        due("30 2 * * *", "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]
    );
    assert_eq!(due("30 2 * * *", "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30", "2026-10-26T01:30"]);
    assert_eq!(
        due("0 * * * *", "2026-10-24T23:30:00Z", 3),
        ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00"]
    );
    assert_eq!(due("*/30 2 * * *", "2026-03-28T12:00:00Z", 1), ["2026-03-30T00:00"]);
    assert_eq!(due("0 0 29 2 *", "2026-01-01T00:00:00Z", 1), ["2028-02-28T23:00"]);
}

#[test]
fn what_is_no_calendar_is_refused_and_what_never_comes_is_found_out_soon() {
    for cron in
        ["", "* * * *", "* * * * * * *", "60 * * * *", "a b c d e", "@daily", "* * * * ü", "*/0 * * * *"]
    {
        let refused = Calendar::parse(cron, "UTC").unwrap_err();
        assert!(matches!(refused, Invalid::Cron(..)), "{cron}: {refused}");
        assert_eq!(refused.member(), "cron");
    }
    let long = format!("{} * * * *", "1,".repeat(100));
    assert!(matches!(Calendar::parse(&long, "UTC"), Err(Invalid::Long(_))));
    for zone in ["", "Mars/Olympus", "../../etc/passwd", "+01:00", &"x".repeat(1_000)] {
        let refused = Calendar::parse("* * * * *", zone).unwrap_err();
        assert_eq!(refused.member(), "timezone", "{zone}");
    }
    let never = Calendar::parse("0 0 30 2 *", "UTC").unwrap();
    assert_eq!(never.next_after(at("2026-01-01T00:00:00Z")), None);
    let every = Calendar::parse("* * * * * *", "UTC").unwrap();
    assert_eq!(every.next_after(Timestamp::MAX), None);
    assert_eq!(every.next_after(Timestamp::from_micros(1)), Some(Timestamp::from_micros(1_000_000)));
}

// ── what is decided ────────────────────────────────────────────────────────────────────────────────────────

/// Decides until there is nothing to do; each start is made at once and given the next number.
fn settle_all(schedule: &mut Schedule, lives: &dyn Fn(RunId) -> bool, now: Timestamp) -> Vec<Timestamp> {
    let calendar = calendar(schedule);
    let mut fired = Vec::new();
    loop {
        match schedule.advance(&calendar, lives, now) {
            Next::Fire(fire) => {
                fired.push(fire.due);
                let run_id = run(u8::try_from(fired.len()).unwrap_or(255));
                assert!(schedule.settle(fire, Outcome::Started { run_id, manual: false }, now));
            }
            Next::More => {}
            Next::At(_) => return fired,
        }
    }
}

fn minute(n: u64) -> Timestamp {
    at("2026-06-01T12:00:00Z").saturating_add(Duration::from_micros(n * MINUTE_US))
}

#[test]
fn what_was_due_is_started_once_whatever_the_clock_does() {
    let mut schedule = Schedule::new(spec("* * * * *", Overlap::Allow), 7, minute(0));
    let calendar = calendar(&schedule);
    let never = |_: RunId| false;
    assert_eq!(schedule.advance(&calendar, never, minute(0)), Next::At(Some(minute(1))));
    assert_eq!(settle_all(&mut schedule, &never, minute(2)), [minute(1), minute(2)]);
    // Back, and to where it was.
    assert_eq!(settle_all(&mut schedule, &never, minute(0)), []);
    assert_eq!(settle_all(&mut schedule, &never, minute(2)), []);
    assert_eq!(settle_all(&mut schedule, &never, minute(3)), [minute(3)]);
    // A second settlement is no second run.
    let fire = Fire { due: minute(3), manual: false };
    assert!(!schedule.settle(fire, Outcome::Started { run_id: run(9), manual: false }, minute(3)));
    assert_eq!(schedule.history.len(), 3);
}

#[test]
fn after_downtime_what_is_within_catch_up_is_made_up_for_and_the_rest_is_noted() {
    let mut schedule = Schedule::new(spec("* * * * *", Overlap::Allow), 7, minute(0));
    schedule.spec.catch_up_us = 10 * MINUTE_US;
    let fired = settle_all(&mut schedule, &|_| false, minute(100));
    assert_eq!(fired, (90..=100).map(minute).collect::<Vec<_>>());
    let missed = &schedule.history[0];
    assert_eq!((missed.due, missed.until, missed.count), (minute(1), minute(89), 89));
    assert_eq!(missed.outcome, Outcome::Missed { more: false });
}

#[test]
fn ten_years_of_seconds_are_missed_in_a_moment() {
    let mut schedule = Schedule::new(spec("* * * * * *", Overlap::Allow), 7, minute(0));
    schedule.spec.catch_up_us = 10_000_000;
    let now = minute(10 * 365 * 24 * 60);
    let fired = settle_all(&mut schedule, &|_| false, now);
    assert_eq!((fired.len(), fired.last()), (11, Some(&now)));
    assert_eq!(schedule.history[0].outcome, Outcome::Missed { more: true });
    assert_eq!(schedule.history[0].count, limits::SCHEDULE_MISSED_COUNTED_MAX);
    let missed_until = schedule.history[schedule.history.len() - 12].until;
    // The last of those is a moment, not a due time: within the second before the first that is made up for.
    let first = fired.first().unwrap();
    assert!(
        missed_until < *first && missed_until.until(*first) <= Duration::from_secs(1),
        "no second is lost"
    );
}

#[test]
fn overlap_is_decided_by_what_lives() {
    let live = RefCell::new(BTreeSet::new());
    let lives = |run_id: RunId| live.borrow().contains(&run_id);
    let mut skip = Schedule::new(spec("* * * * *", Overlap::Skip), 7, minute(0));
    live.borrow_mut().insert(run(1));
    assert_eq!(
        settle_all(&mut skip, &lives, minute(5)),
        [minute(1)],
        "the first lives, the others are skipped"
    );
    let last = skip.history.back().unwrap();
    assert_eq!((last.due, last.until, last.count), (minute(2), minute(5), 4), "{last:?}");
    live.borrow_mut().clear();
    assert_eq!(settle_all(&mut skip, &lives, minute(6)), [minute(6)]);

    live.borrow_mut().insert(run(1));
    let mut other = Schedule::new(spec("* * * * *", Overlap::CancelOther), 7, minute(0));
    assert_eq!(settle_all(&mut other, &lives, minute(2)).len(), 2);
    let mut allow = Schedule::new(spec("* * * * *", Overlap::Allow), 7, minute(0));
    assert_eq!(settle_all(&mut allow, &lives, minute(2)).len(), 2);

    let mut buffer = Schedule::new(spec("* * * * *", Overlap::BufferOne), 7, minute(0));
    assert_eq!(settle_all(&mut buffer, &lives, minute(4)), [minute(1)]);
    assert_eq!(buffer.buffered, Some(minute(2)), "one waits, the later ones are skipped");
    let calendar = calendar(&buffer);
    let look = minute(4).saturating_add(Duration::from_millis(limits::SCHEDULE_LOOK_MILLIS));
    assert_eq!(buffer.advance(&calendar, lives, minute(4)), Next::At(Some(look)));
    live.borrow_mut().clear();
    assert_eq!(
        buffer.advance(&calendar, lives, minute(4)),
        Next::Fire(Fire { due: minute(2), manual: false })
    );
}

#[test]
fn pausing_drops_what_waits_and_resuming_goes_on_from_then() {
    let mut schedule = Schedule::new(spec("* * * * *", Overlap::BufferOne), 7, minute(0));
    assert_eq!(settle_all(&mut schedule, &|_| true, minute(2)), [minute(1)]);
    schedule.pause(minute(2));
    assert_eq!(schedule.buffered, None);
    let calendar = calendar(&schedule);
    assert_eq!(schedule.advance(&calendar, |_| false, minute(9)), Next::At(None));
    assert!(schedule.upcoming(&calendar, minute(9), 3).is_empty());
    schedule.resume(minute(9));
    assert_eq!(schedule.upcoming(&calendar, minute(9), 2), [minute(10), minute(11)]);
    assert_eq!(settle_all(&mut schedule, &|_| false, minute(10)), [minute(10)]);
    // Resuming what goes on changes nothing.
    schedule.resume(minute(50));
    assert_eq!(schedule.considered, minute(10));
}

#[test]
fn jitter_puts_off_each_start_by_the_same_amount_each_time() {
    let mut schedule = Schedule::new(spec("* * * * *", Overlap::Allow), 7, minute(0));
    schedule.spec.jitter_us = 30_000_000;
    let offsets: BTreeSet<u64> =
        (1..50).map(|n| schedule.ready(minute(n)).as_micros() - minute(n).as_micros()).collect();
    assert!(offsets.len() > 40 && offsets.iter().all(|offset| *offset <= 30_000_000), "{offsets:?}");
    let calendar = calendar(&schedule);
    let ready = schedule.ready(minute(1));
    assert_eq!(schedule.advance(&calendar, |_| false, minute(1)), Next::At(Some(ready)));
    assert_eq!(
        schedule.advance(&calendar, |_| false, ready),
        Next::Fire(Fire { due: minute(1), manual: false })
    );
}

#[test]
fn what_is_kept_is_bounded() {
    let mut schedule = Schedule::new(spec("* * * * *", Overlap::Allow), 7, minute(0));
    settle_all(&mut schedule, &|_| true, minute(50));
    settle_all(&mut schedule, &|_| true, minute(100));
    settle_all(&mut schedule, &|_| true, minute(150));
    assert_eq!(schedule.history.len(), limits::SCHEDULE_HISTORY_ROWS_MAX);
    assert_eq!(schedule.runs.len(), limits::SCHEDULE_RUNS_KEPT_MAX);
    let fires: BTreeSet<_> =
        (0..limits::SCHEDULE_RUNS_KEPT_MAX).map(|_| schedule.trigger(minute(1)).unwrap().due).collect();
    assert_eq!(fires.len(), limits::SCHEDULE_RUNS_KEPT_MAX, "each has a name of its own");
    assert_eq!(schedule.trigger(minute(1)), None);
}

#[test]
fn by_another_pattern_nothing_is_due_that_was_before() {
    let mut schedule = Schedule::new(spec("0 * * * *", Overlap::Allow), 1, at("2026-01-01T00:30:00Z"));
    let now = at("2026-01-01T06:10:00Z");
    schedule.change(Spec { inputs: "1".into(), ..schedule.spec.clone() }, false, now);
    assert_eq!(schedule.considered, at("2026-01-01T00:30:00Z"), "other inputs are no other times");
    schedule.change(spec("5 * * * *", Overlap::Skip), false, now);
    assert_eq!((schedule.considered, schedule.spec.overlap), (now, Overlap::Skip));
    let next = schedule.advance(&calendar(&schedule), |_| false, now);
    assert_eq!(next, Next::At(Some(at("2026-01-01T07:05:00Z"))));
    // A clock that went back decides nothing twice.
    schedule.change(spec("6 * * * *", Overlap::Skip), true, at("2026-01-01T05:00:00Z"));
    assert_eq!((schedule.considered, schedule.paused), (now, true));
    schedule.change(schedule.spec.clone(), false, at("2026-01-01T09:00:00Z"));
    assert_eq!((schedule.considered, schedule.paused), (at("2026-01-01T09:00:00Z"), false));
}

#[test]
fn a_trigger_with_a_key_is_decided_once_and_finds_its_run() {
    let mut schedule = Schedule::new(spec("0 0 1 1 *", Overlap::Skip), 1, minute(0));
    let key = |byte: u8| [byte; 16];
    let fire = schedule.trigger_once(key(1), minute(1)).unwrap();
    let asked = Asked { key: key(1), due: fire.due, run_id: None };
    assert_eq!((schedule.triggered(&key(1)), schedule.triggered(&key(2))), (Some(asked), None));
    assert!(schedule.settle(fire, Outcome::Started { run_id: run(9), manual: true }, minute(1)));
    assert_eq!(schedule.triggered(&key(1)), Some(Asked { run_id: Some(run(9)), ..asked }));
    // Another one in the same microsecond is another start.
    let other = schedule.trigger_once(key(2), minute(1)).unwrap();
    assert_ne!(other.due, fire.due);
    // One that was refused is not remembered.
    let failed = Outcome::Failed { code: "workflow_not_found".into(), detail: "".into() };
    assert!(schedule.settle(other, failed, minute(1)));
    assert_eq!(schedule.triggered(&key(2)), None);
}

#[test]
fn keys_of_triggers_are_kept_for_a_day_and_no_more_than_may_be() {
    let mut schedule = Schedule::new(spec("0 0 1 1 *", Overlap::Skip), 1, minute(0));
    let key = |number: usize| (number as u128).to_le_bytes();
    let started = |schedule: &mut Schedule, fire| {
        assert!(schedule.settle(fire, Outcome::Started { run_id: run(1), manual: true }, minute(1)));
    };
    for number in 0..limits::SCHEDULE_KEYS_MAX {
        let fire = schedule.trigger_once(key(number), minute(1)).unwrap();
        started(&mut schedule, fire);
    }
    let before = schedule.clone();
    assert_eq!(schedule.trigger_once(key(5_000), minute(2)), None);
    assert_eq!(schedule, before, "what is refused changes nothing");
    assert!(schedule.trigger(minute(2)).is_some(), "without a key it is decided");
    let day = minute(1).saturating_add(Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS));
    assert!(schedule.triggered(&key(0)).is_some(), "it is remembered until another one comes");
    assert!(schedule.trigger_once(key(5_000), day).is_some());
    assert_eq!(schedule.triggered(&key(0)), None);
    assert!(schedule.triggered(&key(5_000)).is_some());
}

#[test]
fn a_row_from_before_there_were_keys_is_read() {
    let mut schedule = Schedule::new(spec("0 0 1 1 *", Overlap::Skip), 1, minute(0));
    let row = postcard::to_stdvec(&schedule).unwrap();
    // Its last member was not there: the length of an empty list is one byte.
    let old = row.strip_suffix(&[0]).unwrap();
    assert_eq!(postcard::from_bytes::<Schedule>(old).unwrap(), schedule);
    schedule.trigger_once([1; 16], minute(1)).unwrap();
    let row = postcard::to_stdvec(&schedule).unwrap();
    assert_eq!(postcard::from_bytes::<Schedule>(&row).unwrap(), schedule);
}
