//! At most so many calls at a time, so many waiting; further ones are refused at once (F381).
//!
//! [`Room`] says what becomes of a call, a function of its limits and of what is under way, and how long the line may get;
//! [`Bulkhead`] has a semaphore keep it. Those who wait go in the order in which they came. What must hold: nobody is under
//! way without a place; a place is given back however a call ends, also when whoever waits for one, or for a call, goes away.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::Refusal;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is made.
    Runs,
    /// It waits for one to end.
    Waits,
    /// There is no room, not even to wait.
    Refused,
}

/// How many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Calls under way.
    pub running_max: usize,
    /// Calls that wait.
    pub waiting_max: usize,
}

impl Room {
    /// What becomes of another call.
    pub fn ask(&self, running: usize, waiting: usize) -> Admission {
        // Whoever waits comes first.
        if waiting == 0 && running < self.running_max {
            Admission::Runs
        } else if waiting < self.waiting_max {
            Admission::Waits
        } else {
            Admission::Refused
        }
    }
}

/// Keeps one thing that is slow from taking all there is.
///
/// ```
/// use aob::resilience::{Bulkhead, Refusal};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let pool = Bulkhead::new(1, 0);
/// let inner = pool.call(|| pool.call(|| async { Ok(()) })).await;
/// let refused: Result<(), Box<dyn std::error::Error>> = inner;
/// let refused = refused.unwrap_err().downcast::<Refusal>().unwrap();
/// assert_eq!(*refused, Refusal::Full { running: 1, waiting: 0 });
/// # }
/// ```
#[derive(Debug)]
pub struct Bulkhead {
    room: Room,
    places: Semaphore,
    waiting: AtomicUsize,
    refused: AtomicUsize,
}

impl Bulkhead {
    /// With room for so many calls under way, one at least, and so many that wait.
    pub fn new(running_max: usize, waiting_max: usize) -> Self {
        let running_max = running_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            room: Room { running_max, waiting_max },
            places: Semaphore::new(running_max),
            waiting: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        }
    }

    /// Makes the call when there is room for it.
    ///
    /// # Errors
    /// The call's own, or [`Refusal::Full`].
    pub async fn call<T, E, F>(&self, call: impl FnOnce() -> F) -> Result<T, E>
    where
        E: From<Refusal>,
        F: Future<Output = Result<T, E>>,
    {
        let _place = match self.places.try_acquire() {
            // Free ones are handed to those who wait before they can be taken here.
            Ok(place) => place,
            Err(_) => {
                let _waiting = self.wait()?;
                // Never closed.
                self.places.acquire().await.map_err(|_| self.full())?
            }
        };
        call().await
    }

    /// Calls under way.
    pub fn running(&self) -> usize {
        self.room.running_max.saturating_sub(self.places.available_permits())
    }

    /// Calls that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Calls that were refused.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    fn wait(&self) -> Result<Waiting<'_>, Refusal> {
        let taken = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            match self.room.ask(self.room.running_max, waiting) {
                Admission::Refused => None,
                Admission::Runs | Admission::Waits => Some(waiting + 1),
            }
        });
        match taken {
            Ok(_) => Ok(Waiting(&self.waiting)),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(self.full())
            }
        }
    }

    fn full(&self) -> Refusal {
        Refusal::Full { running: self.running(), waiting: self.waiting() }
    }
}

/// A place in the line.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_comes_first_and_the_line_has_an_end() {
        // F381
        let room = Room { running_max: 2, waiting_max: 1 };
        assert_eq!(room.ask(1, 0), Admission::Runs);
        assert_eq!(room.ask(2, 0), Admission::Waits);
        assert_eq!(room.ask(1, 1), Admission::Refused);
        assert_eq!(Room { waiting_max: 0, ..room }.ask(2, 0), Admission::Refused);
    }
}
