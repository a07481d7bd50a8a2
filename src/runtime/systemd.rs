//! What the node tells systemd (systemd/aobd.service), and what systemd learns from its silence.
//!
//! Owns every notification but none of their consequences. Without `NOTIFY_SOCKET` nothing is sent and no thread is started. With it
//! one thread, `aob-systemd`, attends from the start to the end: while the node comes up it asks for more time for as long as recovery
//! moves; afterwards it feeds the watchdog, three times in each `WATCHDOG_USEC`.
//!
//! Must hold: while the node serves, the watchdog is not fed once a shard, or a core of the control or the fanout plane, has stood still for
//! [`limits::FED_WHILE_STILL_SECONDS_MAX`]. A notification that does not arrive is nobody's business here: systemd does to the node what
//! it does to the silent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use sd_notify::NotifyState;

use super::shutdown::{Life, Phase};
use super::thread::{Plane, SpawnError, ThreadInfo, Threads};
use crate::io::net::within;
use crate::limits;
use crate::telemetry::ShardCells;
use crate::time::{Clock as _, SystemClock};

pub use crate::io::passed::hand_on as hand_on_listeners;

/// How long a step of the start may take without a sign of life. `TimeoutStartSec=` is the same for the first one.
const STEP: Duration = Duration::from_secs(120);
/// Between two times that more time is asked for.
const ASKS_EVERY: Duration = Duration::from_secs(1);
/// Between looks at who moves, at most.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

/// Whoever started the node and watches it. A copy is the same one.
#[derive(Clone, Debug)]
pub(super) struct Supervisor(Option<Arc<Supervised>>);

#[derive(Debug)]
struct Supervised {
    /// After how long a silence the node is taken for dead, when it is.
    watchdog: Option<Duration>,
    life: Life,
    /// There once recovery begins.
    shards: OnceLock<Vec<Arc<ShardCells>>>,
    ended: AtomicBool,
    end: tokio::sync::Notify,
}

impl Supervisor {
    /// systemd, where it wants to hear of the node; otherwise nobody.
    pub(super) fn from_environment(life: &Life) -> Self {
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty());
        Self(is_there.then(|| {
            Arc::new(Supervised {
                watchdog: sd_notify::watchdog_enabled(),
                life: life.clone(),
                shards: OnceLock::new(),
                ended: AtomicBool::new(false),
                end: tokio::sync::Notify::new(),
            })
        }))
    }

    /// Starts the thread, where there is somebody to tell.
    pub(super) fn attend(&self, mut threads: Threads) -> Result<Threads, SpawnError> {
        if let Some(supervised) = self.0.clone() {
            let infos = threads.infos();
            threads.spawn(Plane::Side, "aob-systemd", None, move || attend(supervised, infos))?;
        }
        Ok(threads)
    }

    /// What so many shards count; they are brought back, and watched from now on.
    pub(super) fn sees(&self, count: usize) -> Vec<Arc<ShardCells>> {
        let shards: Vec<Arc<ShardCells>> = (0..count).map(|_| Arc::default()).collect();
        if let Some(supervised) = &self.0 {
            let _ = supervised.shards.set(shards.clone());
        }
        shards
    }

    /// Another node owns the store: requests are taken, and passed on to it.
    pub(super) fn stands_by(&self, address: SocketAddr) {
        self.tell(&[NotifyState::Ready], &format!("stands by at {address}: another node owns the store"));
    }

    /// It serves.
    pub(super) fn serves(&self, address: SocketAddr) {
        self.tell(&[NotifyState::Ready], &serving(address));
    }

    /// It reads its files again.
    pub(super) fn reloads(&self) {
        // systemd from 253 on wants to know when that began, to tell it from an older one.
        if let Ok(since) = NotifyState::monotonic_usec_now() {
            self.tell(&[NotifyState::Reloading, since], "reloads");
        }
    }

    /// It has read them; what there was to say of it.
    pub(super) fn reloaded(&self, address: SocketAddr, problems: &[String]) {
        let said = problems.first().map_or("reloaded", String::as_str);
        self.tell(&[NotifyState::Ready], &format!("{}; {said}", serving(address)));
    }

    /// It ends, within `limit`, whatever `TimeoutStopSec=` was thought for.
    pub(super) fn stops(&self, limit: Duration) {
        self.tell(&[NotifyState::Stopping, more_time(limit)], "ends: requests under way are answered");
    }

    /// It leaves the store to another node and begins again in the same process: for systemd it goes on.
    pub(super) fn begins_again(&self) {
        self.tell(&[], "leaves the store to another node");
    }

    /// Ends the thread.
    pub(super) fn leave(&self) {
        if let Some(supervised) = &self.0 {
            supervised.ended.store(true, Ordering::Release);
            supervised.end.notify_one();
        }
    }

    fn tell(&self, states: &[NotifyState<'_>], status: &str) {
        if self.0.is_some() {
            send(states, Some(status));
        }
    }
}

fn serving(address: SocketAddr) -> String {
    format!("serves at {address}")
}

fn more_time(limit: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(limit.as_micros()).unwrap_or(u32::MAX))
}

fn send(states: &[NotifyState<'_>], status: Option<&str>) {
    // A notification has a line for each of its parts.
    let status = status.map(|status| status.replace('\n', " "));
    let status = status.as_deref().map(NotifyState::Status);
    let all: Vec<_> = states.iter().cloned().chain(status).collect();
    let _ = sd_notify::notify(&all);
}

/// What there is to say at a look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Due {
    feed: bool,
    ask: bool,
}

/// Who has moved since when, and what was said of it when.
#[derive(Debug, Default)]
struct Attendance {
    /// A heartbeat, and since when it has been that.
    beats: Vec<(u64, u64)>,
    /// All of them and the phase, and since when nothing of that has changed.
    progress: (u64, u64),
    fed_us: Option<u64>,
    asked_us: Option<u64>,
}

impl Attendance {
    /// Looks at everybody's heartbeat.
    fn look(&mut self, now_us: u64, phase: Phase, beats: &[u64], feed_every: Option<Duration>) -> Due {
        let progress = beats.iter().fold(phase as u64, |sum, beat| sum.wrapping_add(*beat));
        if progress != self.progress.0 || self.asked_us.is_none() {
            self.progress = (progress, now_us);
        }
        self.beats.resize(beats.len(), (u64::MAX, now_us));
        for (known, beat) in self.beats.iter_mut().zip(beats) {
            if known.0 != *beat {
                *known = (*beat, now_us);
            }
        }
        let is_alive = match phase {
            Phase::Starting | Phase::Recovering => passed(self.progress.1, now_us) < STEP,
            Phase::Serving => {
                let still_max = Duration::from_secs(limits::FED_WHILE_STILL_SECONDS_MAX);
                self.beats.iter().all(|(_, since_us)| passed(*since_us, now_us) < still_max)
            }
            // Whoever stands by has no shards; the stages of an end have their own time each (node.rs).
            Phase::StandingBy | Phase::Draining | Phase::Stopped => true,
        };
        let is_due = |last_us: Option<u64>, every| last_us.is_none_or(|last| passed(last, now_us) >= every);
        let feed = is_alive && feed_every.is_some_and(|every| is_due(self.fed_us, every));
        let is_coming_up = matches!(phase, Phase::Starting | Phase::Recovering);
        let has_moved = self.asked_us.is_none_or(|asked_us| self.progress.1 > asked_us);
        let ask = is_coming_up && has_moved && is_due(self.asked_us, ASKS_EVERY);
        self.fed_us = if feed { Some(now_us) } else { self.fed_us };
        self.asked_us = if ask { Some(now_us) } else { self.asked_us };
        Due { feed, ask }
    }
}

fn passed(since_us: u64, now_us: u64) -> Duration {
    Duration::from_micros(now_us.saturating_sub(since_us))
}

/// Tells systemd what there is to tell until the node has ended.
async fn attend(supervised: Arc<Supervised>, threads: Arc<ArcSwap<Vec<ThreadInfo>>>) {
    let feed_every = supervised.watchdog.map(|watchdog| watchdog / 3);
    let looks_every = feed_every.map_or(LOOKS_EVERY, |every| (every / 2).min(LOOKS_EVERY));
    let mut attendance = Attendance::default();
    let mut beats = Vec::new();
    while !supervised.ended.load(Ordering::Acquire) {
        beats.clear();
        let shards = supervised.shards.get().into_iter().flatten();
        beats.extend(shards.map(|cells| cells.heartbeat_us.value()));
        beats.extend(threads.load().iter().filter_map(|thread| Some(thread.pulse.as_ref()?.value())));
        let phase = supervised.life.phase();
        let due = attendance.look(SystemClock.monotonic_us(), phase, &beats, feed_every);
        if due.ask {
            let doing = if phase == Phase::Recovering { "recovers" } else { "starts" };
            send(&[more_time(STEP)], Some(doing));
        }
        if due.feed {
            send(&[NotifyState::Watchdog], None);
        }
        let _ = within(looks_every, supervised.end.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;
    const EVERY: Option<Duration> = Some(Duration::from_secs(1));

    #[test]
    fn the_watchdog_is_fed_while_everybody_moves_and_not_while_one_stands_still() {
        let mut attendance = Attendance::default();
        let mut at =
            |second: u64, beats: &[u64]| attendance.look(second * SECOND, Phase::Serving, beats, EVERY).feed;
        assert!((1..10).all(|second| at(second, &[second, second])));
        assert!(at(10, &[10, 9]), "it may have been about to move");
        assert!((11..60).all(|second| !at(second, &[second, 9])));
        assert!(at(60, &[60, 60]), "it moves again");
        assert!((63..90).all(|second| !at(second, &[60, second])));
    }

    #[test]
    fn the_watchdog_is_fed_as_often_as_was_said_and_not_at_all_without_one() {
        let mut attendance = Attendance::default();
        let mut fed = |every| {
            let looks = (0..100).map(|tenth| tenth * SECOND / 10);
            looks.filter(|now| attendance.look(*now, Phase::Serving, &[*now], every).feed).count()
        };
        assert_eq!(fed(None), 0);
        assert_eq!(fed(EVERY), 10);
    }

    #[test]
    fn more_time_is_asked_for_while_recovery_moves() {
        let mut attendance = Attendance::default();
        let mut at =
            |second: u64, beat: u64| attendance.look(second * SECOND, Phase::Recovering, &[beat], EVERY);
        assert!(at(1, 0).ask, "the first step");
        assert!((2..100).all(|second| at(second, second) == Due { feed: true, ask: true }));
        assert!((100..150).all(|second| at(second, 99) == Due { feed: true, ask: false }));
        assert!((220..300).all(|second| at(second, 99) == Due { feed: false, ask: false }));
        assert!(at(300, 100).ask);
        assert!(!attendance.look(400 * SECOND, Phase::Serving, &[101], EVERY).ask, "it is up");
    }
}
