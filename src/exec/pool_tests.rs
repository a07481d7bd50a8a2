//! Who goes first, who has what, and what becomes of leases.

use super::*;
use crate::model::Partition;

const LEASE_US: u64 = limits::LEASE_SECONDS_DEFAULT * 1_000_000;

fn room() -> Room {
    ("default".into(), "q".into())
}

fn job(n: u8, priority: Priority) -> Job {
    Job {
        run_id: RunId::new(Timestamp::from_micros(1), Partition::new(0), [n; 10]),
        place: Place::root(0),
        seq: 3,
        path: "a".into(),
        workflow: "w".into(),
        document: [0; 32],
        attempt: 1,
        epoch: 1,
        priority,
        queue: "q".into(),
        payload: Value::Int(i64::from(n)),
        due: None,
        worker: None,
    }
}

fn offered(pool: &Pool, max: usize) -> Vec<i64> {
    let number = |job: &Job| if let Value::Int(number) = job.payload { number } else { -1 };
    pool.offer(&room(), max).iter().map(number).collect()
}

#[test]
fn high_priority_overtakes_and_low_priority_is_not_starved() {
    let pool = Pool::default();
    pool.add(&room(), job(1, Priority::Low), 0);
    pool.add(&room(), job(2, Priority::Medium), 0);
    pool.add(&room(), job(3, Priority::High), 1);
    assert_eq!(offered(&pool, 1), [3]);
    // One of high priority that comes later than both have waited goes behind them.
    pool.add(&room(), job(4, Priority::High), 3 * AGEING_US);
    assert_eq!(offered(&pool, 9), [2, 1, 4]);
}

#[test]
fn a_job_is_in_one_place_only() {
    let pool = Pool::default();
    let job = job(1, Priority::Medium);
    for _ in 0..2 {
        pool.add(&room(), job.clone(), 0);
    }
    assert_eq!(offered(&pool, 9), [1]);
    pool.add(&room(), job.clone(), 0);
    assert_eq!(offered(&pool, 9), [0; 0], "it is on offer");
    pool.leased(&room(), &job, "w".into(), 0);
    pool.add(&room(), job.clone(), 0);
    assert_eq!(offered(&pool, 9), [0; 0], "it is leased");
    pool.settled(&room(), name(&job));
    assert_eq!(pool.depths(), [], "nothing is left of it");
}

#[test]
fn an_offer_that_is_not_taken_comes_again_unless_it_must_not() {
    let pool = Pool::default();
    let job = job(1, Priority::Medium);
    pool.add(&room(), job.clone(), 0);
    let taken = pool.offer(&room(), 1);
    pool.drop_offer(&room(), &taken[0], true, 5);
    assert_eq!(offered(&pool, 1), [1]);
    pool.drop_offer(&room(), &job, false, 5);
    assert_eq!(offered(&pool, 1), [0; 0]);
}

#[test]
fn a_lease_lives_by_heartbeats_and_runs_out_once() {
    let pool = Pool::default();
    let job = job(1, Priority::Medium);
    pool.add(&room(), job.clone(), 0);
    pool.offer(&room(), 1);
    pool.leased(&room(), &job, "w".into(), 0);
    assert_eq!(pool.beat(&room(), name(&job), LEASE_US - 1), Beat::Held);
    assert_eq!(pool.expired(LEASE_US), [], "the heartbeat began it anew");
    let expired = pool.expired(2 * LEASE_US);
    assert_eq!((expired.len(), &*expired[0].worker), (1, "w"));
    assert_eq!(pool.expired(9 * LEASE_US), []);
    assert_eq!(pool.beat(&room(), name(&job), 0), Beat::Unknown);
}

#[test]
fn what_a_worker_had_before_a_restart_it_has_again() {
    let pool = Pool::default();
    let job = Job { worker: Some("w".into()), ..job(1, Priority::Medium) };
    pool.add(&room(), job.clone(), 100);
    assert_eq!(offered(&pool, 1), [0; 0]);
    assert_eq!(pool.beat(&room(), name(&job), 200), Beat::Held);
    assert_eq!(pool.expired(201 + LEASE_US).len(), 1);
}

#[test]
fn what_is_called_back_is_not_given_out_and_its_worker_is_told() {
    let pool = Pool::default();
    let [waiting, leased, offer] = [1, 2, 3].map(|n| job(n, Priority::Medium));
    pool.add(&room(), leased.clone(), 0);
    pool.offer(&room(), 1);
    pool.leased(&room(), &leased, "w".into(), 0);
    pool.add(&room(), offer.clone(), 0);
    pool.offer(&room(), 1);
    pool.add(&room(), waiting.clone(), 0);
    for job in [&waiting, &leased, &offer] {
        pool.recall(name(job));
    }
    assert_eq!(offered(&pool, 9), [0; 0]);
    assert_eq!(pool.beat(&room(), name(&leased), 1), Beat::Cancelled);
    pool.leased(&room(), &offer, "w".into(), 0);
    assert_eq!(pool.beat(&room(), name(&offer), 1), Beat::Cancelled, "its lease was being written down");
    assert_eq!(pool.expired(u64::MAX), [], "nobody is to be told");
    assert_eq!(pool.depths(), []);
}

// F381
#[test]
fn a_queue_gives_out_no_more_than_its_limit() {
    let pool = Pool::new(Workers { queue_limits: BTreeMap::from([("q".into(), 2)]), ..Workers::default() });
    let jobs = [1, 2, 3].map(|n| job(n, Priority::Medium));
    jobs.iter().for_each(|job| pool.add(&room(), job.clone(), 0));
    assert_eq!(offered(&pool, 9), [1, 2]);
    assert_eq!(
        pool.depths()[0],
        Depth { workspace: "default".into(), queue: "q".into(), waiting: 1, leased: 2, max: Some(2) }
    );
    pool.leased(&room(), &jobs[0], "w".into(), 0);
    assert_eq!(offered(&pool, 9), [0; 0]);
    pool.settled(&room(), name(&jobs[0]));
    assert_eq!(offered(&pool, 9), [3]);
}

fn room_of(workspace: &str) -> Room {
    (workspace.into(), "q".into())
}

fn in_turn(pool: &Pool, whose: &Whose, max: usize) -> Vec<String> {
    pool.offer_in_turn(whose, &"q".into(), max)
        .iter()
        .map(|((workspace, _), _)| workspace.to_string())
        .collect()
}

fn numbered(n: u32) -> Job {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&n.to_be_bytes());
    let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), random);
    Job { run_id, ..job(0, Priority::Medium) }
}

// F261, F381
#[test]
fn a_single_job_does_not_wait_behind_a_hundred_thousand_of_another_workspace() {
    let pool = Pool::default();
    for n in 0..100_000 {
        pool.add(&room_of("big"), numbered(n), 0);
    }
    assert_eq!(in_turn(&pool, &Whose::All, 10), ["big"; 10]);
    pool.add(&room_of("small"), numbered(200_000), 1);
    let next = in_turn(&pool, &Whose::All, 2);
    assert!(next.contains(&"small".to_owned()), "{next:?}");
    assert_eq!(in_turn(&pool, &Whose::All, 3), ["big"; 3], "nothing is held back for who has nothing");
}

// F381
#[test]
fn turns_follow_weights_and_keep_to_the_limits_of_queues() {
    let pool = Pool::new(Workers {
        queue_limits: BTreeMap::from([("q".into(), 4)]),
        weights: BTreeMap::from([("a".into(), 2)]),
        ..Workers::default()
    });
    for n in 0..30 {
        pool.add(&room_of(["a", "b", "c"][n as usize % 3]), numbered(n), 0);
    }
    let first = pool.offer_in_turn(&Whose::All, &"q".into(), 6);
    let count = |name: &str| first.iter().filter(|((workspace, _), _)| &**workspace == name).count();
    assert!(count("a") > count("b") && count("b") > 0 && count("c") > 0, "{first:?}");
    // The limit is for each workspace; who has reached it is passed over.
    assert_eq!(in_turn(&pool, &Whose::All, 99).len(), 6);
    assert_eq!(in_turn(&pool, &Whose::All, 1), [""; 0]);
    let (room, done) = &first[0];
    pool.leased(room, done, "w".into(), 0);
    pool.settled(room, name(done));
    assert_eq!(in_turn(&pool, &Whose::All, 9), [room.0.to_string()]);
    assert_eq!(in_turn(&pool, &Whose::These(vec!["b".into()]), 9), [""; 0]);
}

#[test]
fn what_is_called_back_or_runs_out_is_no_longer_anybodys_turn() {
    let pool = Pool::default();
    let (one, two) = (numbered(1), numbered(2));
    pool.add(&room_of("a"), one.clone(), 0);
    pool.add(&room_of("b"), two.clone(), 0);
    pool.recall(name(&one));
    assert_eq!(in_turn(&pool, &Whose::All, 9), ["b"]);
    pool.leased(&room_of("b"), &two, "w".into(), 0);
    assert_eq!(pool.expired(u64::MAX).len(), 1);
    assert_eq!(in_turn(&pool, &Whose::All, 9), [""; 0]);
    assert_eq!(pool.depths(), []);
    let news = pool.news_of_all(&"q".into());
    pool.expired(0);
    pool.add(&room_of("a"), one, 0);
    let mut told = std::pin::pin!(news.notified());
    let waker = std::task::Waker::noop();
    let ready = told.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready();
    assert!(ready, "who waits for all workspaces is told");
}
