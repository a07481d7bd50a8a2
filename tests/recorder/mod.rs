//! Records what clients, workers and services see of a node while it is broken, for the checker (`checker/`,
//! `docs/formats/client-history.md`). Used by every test that breaks a node from outside.
//!
//! [`World::new`] makes the outside world, [`World::serves`] tells it where the node is, [`World::gone`] that it is not
//! there. Everybody records what they did; [`dump::all`] asks the node for everything in the end; [`World::judge`] checks it.
//! Every choice comes from the seed. How threads interleave does not, so a seed is a workload and not a replay.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "clients, workers and services have threads and a clock of their own"
)]

pub mod changes;
pub mod client;
pub mod dump;
pub mod load;
pub mod service;
pub mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aob_checker::Report;
use aob_checker::record::{FaultKind, Head, Record, VERSION};

/// How far the clocks of node and services may be apart: they are of one machine, and times are shown in milliseconds.
const CLOCK_SLACK_MS: u64 = 250;

/// The promise is a quarter of a second when healthy (RELIABILITY 2.8); here everybody shares the cores with the node.
const TIMER_LATE_MS_MAX: u64 = 3_000;

/// A source of choices: splitmix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed, and whose dice they are.
    pub fn new(seed: u64, whose: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ whose.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    /// 0 to `count - 1`.
    pub fn below(&mut self, count: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (bits ^ (bits >> 31)) % count.max(1)
    }

    /// Once in so many times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// In whose name somebody asks, where the node keeps workspaces apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guest {
    /// Its name.
    pub workspace: String,
    /// What lets it in.
    pub token: String,
    /// What lets those in whose patches wait for a human: every other author.
    pub agent: Option<String>,
}

/// A run that clients know of.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its id.
    pub run: String,
    /// Whose it is.
    pub guest: Option<Guest>,
    /// What it runs.
    pub workflow: &'static str,
}

/// Where the node is.
#[derive(Clone, Debug, Default)]
struct Whereabouts {
    address: Option<String>,
    /// Grows with each start.
    generation: u64,
}

/// Calls that the service has taken and does not answer for now.
#[derive(Debug, Default)]
struct Calls {
    /// Is nobody answered?
    held: bool,
    open: u64,
}

/// Everything outside of the node.
pub struct World {
    /// Where every choice comes from.
    pub seed: u64,
    began: Instant,
    lines: Mutex<String>,
    at: Mutex<Whereabouts>,
    moved: Condvar,
    quiet: AtomicBool,
    stopping: AtomicBool,
    numbers: AtomicU64,
    done: Mutex<u64>,
    did: Condvar,
    known: Mutex<Vec<Known>>,
    calls: Mutex<Calls>,
    called: Condvar,
    /// In whose names; nobody's, when there is none.
    guests: Mutex<Vec<Guest>>,
    /// Where the service listens.
    pub service: Mutex<Option<std::net::SocketAddr>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A world without a node. `durability` is the level that every acknowledgement must name.
    pub fn new(seed: u64, durability: &str) -> Arc<Self> {
        Self::begin(seed, durability, Some(TIMER_LATE_MS_MAX))
    }

    /// As [`new`](Self::new), for a node that is made to stand still: its timers may be late.
    pub fn still(seed: u64, durability: &str) -> Arc<Self> {
        Self::begin(seed, durability, None)
    }

    fn begin(seed: u64, durability: &str, timer_late_ms_max: Option<u64>) -> Arc<Self> {
        let world = Self {
            seed,
            began: Instant::now(),
            lines: Mutex::default(),
            at: Mutex::default(),
            moved: Condvar::new(),
            quiet: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            numbers: AtomicU64::new(0),
            done: Mutex::default(),
            did: Condvar::new(),
            known: Mutex::default(),
            calls: Mutex::default(),
            called: Condvar::new(),
            guests: Mutex::default(),
            service: Mutex::default(),
        };
        let head = Head {
            version: VERSION,
            seed,
            durability: durability.to_owned(),
            clock_slack_ms: CLOCK_SLACK_MS,
            timer_late_ms_max,
        };
        world.record(|_| Record::Head(head));
        Arc::new(world)
    }

    /// Writes one line. The time is taken when it is this line's turn, so times do not go back.
    pub fn record(&self, record: impl FnOnce(u64) -> Record) {
        let mut lines = locked(&self.lines);
        let at_us = self.now_us();
        lines.push_str(&serde_json::to_string(&record(at_us)).expect("a record is JSON"));
        lines.push('\n');
    }

    /// Since the world began.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Time of day.
    pub fn wall_ms() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes what is about to be done to the node, or was found out.
    pub fn fault(&self, what: FaultKind) {
        self.record(|at_us| Record::Fault { at_us, what, from_us: None, wall_ms: Some(Self::wall_ms()) });
    }

    /// Acknowledgements from then on, and until now, may be lost (level `os`, power cut).
    pub fn loss_window(&self, from_us: u64) {
        let what = FaultKind::LossWindow;
        self.record(|at_us| Record::Fault { at_us, what, from_us: Some(from_us), wall_ms: None });
    }

    /// The node serves here: everybody goes on.
    pub fn serves(&self, address: &str) {
        let mut at = locked(&self.at);
        at.address = Some(address.to_owned());
        at.generation += 1;
        self.moved.notify_all();
    }

    /// The node is not there: everybody waits until it is.
    pub fn gone(&self) {
        locked(&self.at).address = None;
    }

    /// Where the node is, waiting for one that is later than `known`; a broken connection may have been no end, so nobody
    /// waits longer than a tenth of a second for that. `None` when the world ends.
    pub fn node(&self, known: u64) -> Option<(String, u64)> {
        let mut at = locked(&self.at);
        let patience = Duration::from_millis(100);
        loop {
            if self.stopping.load(Ordering::Acquire) {
                return None;
            }
            if at.generation > known
                && let Some(address) = &at.address
            {
                return Some((address.clone(), at.generation));
            }
            let (again, timed_out) =
                self.moved.wait_timeout(at, patience).unwrap_or_else(PoisonError::into_inner);
            at = again;
            if timed_out.timed_out()
                && let Some(address) = &at.address
            {
                return Some((address.clone(), at.generation));
            }
        }
    }

    /// Everybody stops after what they are at.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let _at = locked(&self.at);
        self.moved.notify_all();
    }

    /// Clients ask for nothing more; workers and services go on.
    pub fn quieten(&self) {
        self.quiet.store(true, Ordering::Release);
    }

    /// Shall clients stop?
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire) || self.is_stopping()
    }

    /// Shall everybody stop?
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Everybody asks in the name of one of these from now on; nobody may have begun.
    pub fn invite(&self, guests: Vec<Guest>) {
        *locked(&self.guests) = guests;
    }

    /// All names in which the node is asked.
    pub fn guests(&self) -> Vec<Option<Guest>> {
        let guests = locked(&self.guests);
        if guests.is_empty() { vec![None] } else { guests.iter().cloned().map(Some).collect() }
    }

    /// In whose name this one asks.
    pub fn guest(&self, number: u64) -> Option<Guest> {
        let guests = self.guests();
        guests.get(usize::try_from(number).unwrap_or(0) % guests.len()).cloned().flatten()
    }

    /// A number that nothing else has.
    pub fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A token that stands nowhere else.
    pub fn token(&self, what: &str) -> String {
        format!("t:{what}-{}-{}", self.seed, self.number())
    }

    /// One more thing was answered, by the node or by the world.
    pub fn progress(&self) {
        *locked(&self.done) += 1;
        self.did.notify_all();
    }

    /// Waits until `count` more things were answered, or for so long. Returns whether they were.
    pub fn wait_for_progress(&self, count: u64, limit: Duration) -> bool {
        let done = locked(&self.done);
        let until = *done + count;
        let waited = self.did.wait_timeout_while(done, limit, |done| *done < until);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// From now on the service takes calls and does not answer them.
    pub fn hold_calls(&self) {
        locked(&self.calls).held = true;
    }

    /// It answers again, those who wait first.
    pub fn let_calls_go(&self) {
        locked(&self.calls).held = false;
        self.called.notify_all();
    }

    /// Waits until so many calls are held, or for so long. Returns whether they are.
    pub fn wait_for_open_calls(&self, count: u64, limit: Duration) -> bool {
        let waited = self.called.wait_timeout_while(locked(&self.calls), limit, |calls| calls.open < count);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The service has taken a call: waits while calls are held.
    fn hold(&self) {
        let mut calls = locked(&self.calls);
        if calls.held {
            calls.open += 1;
            self.called.notify_all();
            calls = self.called.wait_while(calls, |calls| calls.held).unwrap_or_else(PoisonError::into_inner);
            calls.open -= 1;
        }
    }

    /// Everybody may ask for this run from now on.
    pub fn knows(&self, known: Known) {
        locked(&self.known).push(known);
    }

    /// One of the newest runs that clients know of.
    pub fn some_run(&self, dice: &mut Dice, fits: impl Fn(&Known) -> bool) -> Option<Known> {
        let known = locked(&self.known);
        let newest: Vec<&Known> = known.iter().rev().filter(|known| fits(known)).take(12).collect();
        let at = usize::try_from(dice.below(newest.len() as u64)).ok()?;
        newest.get(at).map(|known| (*known).clone())
    }

    /// As [`some_run`](Self::some_run), of this one's workspace; of another's, now and then.
    pub fn some_run_for(
        &self,
        guest: &Option<Guest>,
        dice: &mut Dice,
        fits: impl Fn(&Known) -> bool,
    ) -> Option<Known> {
        let trespass = self.guests().len() > 1 && dice.one_in(5);
        let home = |guest: &Option<Guest>| guest.as_ref().map(|guest| guest.workspace.clone());
        self.some_run(dice, |known| (home(&known.guest) == home(guest)) != trespass && fits(known))
    }

    /// The whole history so far.
    pub fn history(&self) -> String {
        locked(&self.lines).clone()
    }

    /// Checks the history. It is kept in a file when something is wrong, and what is wrong is said.
    pub fn checked(&self) -> (Report, String) {
        let history = self.history();
        let report =
            aob_checker::check(&history).unwrap_or_else(|error| panic!("the recorder's own: {error}"));
        (report, history)
    }

    /// Checks the history, and fails when anything is broken.
    pub fn judge(&self) -> Report {
        let (report, history) = self.checked();
        if !report.is_good() {
            let path =
                std::env::temp_dir().join(format!("aob-history-{}-{}.ndjson", self.seed, std::process::id()));
            std::fs::write(&path, &history).expect("a file can be written");
            panic!("seed {}, {}:\n{}", self.seed, path.display(), report.shown(&history, 8));
        }
        report
    }
}
