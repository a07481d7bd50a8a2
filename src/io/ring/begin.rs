//! Starting an executor that may miss its own start.
//!
//! glommio can park before it has looked at its first task, and before that task runs nothing can wake it: there is no
//! read on its ring yet that a [`Nudge`](super::Nudge) could complete. So `main` waits in a box that more than one
//! executor may open: when the first has not done so in time, another is started, and whoever is first runs it. One
//! that comes too late finds the box empty and ends; one that never comes costs a thread that sleeps, and a ring.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

/// Executors started for one `main` at most.
pub(super) const ATTEMPTS: usize = 3;

/// What is heard from an executor.
#[derive(Clone, Copy, Debug)]
enum Heard {
    /// It runs `main`.
    Began(usize),
    /// It ended before it looked for `main`.
    Ended(usize),
}

/// Runs once, on the first executor that takes it.
pub(super) struct Main<G> {
    main: Arc<ArrayQueue<G>>,
    heard: Sender<Heard>,
    hears: Receiver<Heard>,
}

/// One executor's right to take `main`.
pub(super) struct Claim<G> {
    main: Arc<ArrayQueue<G>>,
    heard: Sender<Heard>,
    number: usize,
    open: bool,
}

impl<G> Main<G> {
    pub(super) fn new(main: G) -> Self {
        let (heard, hears) = channel();
        let only = ArrayQueue::new(1);
        // There is room for one.
        let _ = only.push(main);
        Self { main: Arc::new(only), heard, hears }
    }

    /// Starts executors until one has begun; gives back the one that did. `failed` says why one ended instead.
    pub(super) fn begin<T, E>(
        self,
        limit: Duration,
        mut start: impl FnMut(Claim<G>) -> Result<T, E>,
        failed: impl FnOnce(Option<T>) -> E,
    ) -> Result<T, E> {
        let mut started = Vec::with_capacity(ATTEMPTS);
        for number in 0..ATTEMPTS {
            let (main, heard) = (self.main.clone(), self.heard.clone());
            started.push(start(Claim { main, heard, number, open: true })?);
            match self.hears.recv_timeout(limit) {
                Ok(Heard::Began(number)) if number < started.len() => return Ok(started.swap_remove(number)),
                Ok(Heard::Began(number) | Heard::Ended(number)) => {
                    return Err(failed((number < started.len()).then(|| started.swap_remove(number))));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        Err(failed(None))
    }
}

impl<G> Claim<G> {
    /// `main`, when nobody has taken it.
    pub(super) fn take(mut self) -> Option<G> {
        self.open = false;
        let main = self.main.pop()?;
        let _ = self.heard.send(Heard::Began(self.number));
        Some(main)
    }
}

impl<G> Drop for Claim<G> {
    fn drop(&mut self) {
        if self.open {
            let _ = self.heard.send(Heard::Ended(self.number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn an_executor_that_sleeps_through_its_start_is_replaced() {
        let mut asleep = Vec::new();
        let mut number = 0;
        let (ran, runs) = channel();
        let began = Main::new(move || ran.send(()).unwrap()).begin(
            SHORT,
            |claim| {
                number += 1;
                if number == 1 {
                    asleep.push(claim);
                } else {
                    claim.take().unwrap()();
                }
                Ok::<_, ()>(number)
            },
            |_| (),
        );
        assert_eq!(began, Ok(2));
        assert!(asleep.pop().unwrap().take().is_none(), "who wakes up too late runs nothing");
        assert_eq!(runs.iter().count(), 1, "once");
    }

    #[test]
    fn one_that_was_only_slow_is_the_one_that_runs() {
        let mut claims = Vec::new();
        let began = Main::new(()).begin(
            SHORT,
            |claim| {
                claims.push(claim);
                if claims.len() == 2 {
                    claims.remove(0).take().unwrap();
                }
                Ok::<_, ()>(claims.len())
            },
            |_| (),
        );
        assert_eq!(began, Ok(1), "the first");
    }

    #[test]
    fn an_executor_that_ends_instead_is_reported_at_once() {
        let ended = Main::new(()).begin(LONG, |claim| Ok::<_, Option<u8>>((drop(claim), 7).1), |which| which);
        assert_eq!(ended, Err(Some(7)));
    }

    #[test]
    fn when_none_begins_there_is_an_end_to_it() {
        let mut claims = Vec::new();
        let start = |claim| {
            claims.push(claim);
            Ok::<_, &str>(())
        };
        let ended = Main::new(()).begin(SHORT, start, |_| "none");
        assert_eq!((ended, claims.len()), (Err("none"), ATTEMPTS));
    }
}
