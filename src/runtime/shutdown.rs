//! The life of the process: phases that anyone may watch, and the stages of an orderly end.
//!
//! Starting -> StandingBy (where others share the store) -> Recovering -> Serving -> Draining -> Stopped. Only forward. `kill -9` at any moment keeps every promise;
//! an orderly end only saves the next start some work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Checks, directory, port.
    Starting,
    /// Another node owns the store.
    StandingBy,
    /// Shards are folded from their logs.
    Recovering,
    /// Everything is accepted.
    Serving,
    /// Nothing new is accepted.
    Draining,
    /// All threads have ended.
    Stopped,
}

impl Phase {
    /// As in `/v1/node`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::StandingBy => "standing_by",
            Self::Recovering => "recovering",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// The phase, shared: read by readiness, `/v1/node` and tests alike.
#[derive(Clone, Debug, Default)]
pub struct Life {
    phase: Arc<AtomicU8>,
    drain: Arc<tokio::sync::Notify>,
    asked: Arc<AtomicBool>,
}

impl Life {
    /// Where it is now.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::StandingBy,
            2 => Phase::Recovering,
            3 => Phase::Serving,
            4 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Goes on to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// Asks for an orderly end.
    pub fn ask_to_end(&self) {
        self.asked.store(true, Ordering::Release);
        self.drain.notify_waiters();
    }

    /// Completes when an orderly end was asked for.
    pub async fn asked_to_end(&self) {
        let notified = self.drain.notified();
        tokio::pin!(notified);
        // Enabled before the look, so that an ask between the two is not missed.
        notified.as_mut().enable();
        if !self.asked.load(Ordering::Acquire) {
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let life = Life::default();
        assert_eq!(life.phase(), Phase::Starting);
        life.enter(Phase::Serving);
        life.enter(Phase::Recovering);
        assert_eq!(life.phase(), Phase::Serving);
        life.enter(Phase::Stopped);
        assert_eq!(life.phase().as_str(), "stopped");
    }
}
