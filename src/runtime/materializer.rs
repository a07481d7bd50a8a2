//! The materialiser: documents that patches made, into the content store and the index, away from every shard
//! (docs/adr/0026).
//!
//! A patch comes here only once its events are synced, with the rows of finished runs and behind the index thread's own note of
//! it ([`Intake::take`]); the notes are what is to be done, the queues say no more than that there is something. A queue that
//! is full drops what it is told, and its thread reads the notes instead. So nobody ever waits for a materialiser, and one that
//! was killed goes on from the notes at the next start. A workflow's patches are one thread's ([`partition`]).

mod batch;
mod make;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use self::batch::{Batch, Policy, partition};
pub use self::make::Maker;
use crate::limits;
use crate::queue::{FullPolicy, Receiver, Sender, Stats, bounded};
use crate::store::artifacts::{Due, Which};
use crate::time::{Clock, SystemClock};

/// Notes read at once by a thread that looks for what it was not told.
const NOTES_PER_LOOK: usize = 256;
/// How long the stores are left alone after an error.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a thread sleeps at most; it wakes for what it is told.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What the materialiser is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `materializer.threads`
    pub threads: usize,
    /// `materializer.batch_patches`
    pub batch_patches: usize,
    /// `materializer.window_ms`
    pub window: Duration,
    /// `materializer.mode` is `sync`: each patch is made at once, and its author waits for it.
    pub at_once: bool,
}

impl Settings {
    fn policy(&self) -> Policy {
        match self.at_once {
            true => Policy { patches: 1, window: Duration::ZERO },
            false => Policy { patches: self.batch_patches, window: self.window },
        }
    }
}

/// The way in, for the index thread.
#[derive(Clone)]
pub struct Intake {
    maker: Maker,
    doors: Vec<(Sender<Which>, Arc<AtomicBool>)>,
}

/// One thread's work.
pub struct Worker {
    maker: Maker,
    batch: Batch,
    jobs: Receiver<Which>,
    /// There are notes that it was not told of.
    missed: Arc<AtomicBool>,
    /// Which of so many threads.
    place: (usize, usize),
    stop: Arc<AtomicBool>,
    report: fn(String),
}

/// Threads to be started, the way in, and what stops them.
pub struct Parts {
    /// Told of patches.
    pub intake: Intake,
    /// One for each thread.
    pub workers: Vec<Worker>,
    /// Ends them.
    pub stop: Stop,
}

/// Tells the threads to make what they have at hand, and end.
pub struct Stop {
    stop: Arc<AtomicBool>,
    wake: Vec<Arc<Stats>>,
}

impl Stop {
    /// Now.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for queue in &self.wake {
            queue.wake();
        }
    }
}

/// Makes the queues.
pub fn parts(maker: &Maker, settings: Settings, report: fn(String)) -> Parts {
    let stop = Arc::new(AtomicBool::new(false));
    let threads = settings.threads.max(1);
    let (mut doors, mut workers) = (Vec::new(), Vec::new());
    for at in 0..threads {
        let name = format!("materializer {at}");
        let (sender, jobs) = bounded(name, limits::MATERIALIZER_QUEUE_MAX, FullPolicy::DropAndResync);
        // What an earlier life of the node left.
        let missed = Arc::new(AtomicBool::new(true));
        doors.push((sender, missed.clone()));
        workers.push(Worker {
            maker: maker.clone(),
            batch: Batch::new(settings.policy()),
            jobs,
            missed,
            place: (at, threads),
            stop: stop.clone(),
            report,
        });
    }
    let wake = doors.iter().map(|(sender, _)| sender.stats().clone()).collect();
    Parts { intake: Intake { maker: maker.clone(), doors }, workers, stop: Stop { stop, wake } }
}

impl Intake {
    /// What can be seen of the queues.
    pub(crate) fn stats(&self) -> impl Iterator<Item = Arc<Stats>> {
        self.doors.iter().map(|(sender, _)| sender.stats().clone())
    }

    /// Notes patches whose events are durable, and tells the threads. Blocks; never for a thread of the materialiser.
    ///
    /// # Errors
    /// They could not be noted: to be tried again.
    pub fn take(&self, patches: &[Due]) -> Result<(), crate::store::Error> {
        for due in self.maker.artifacts.note(patches)? {
            let at = partition(&due.workflow) % self.doors.len().max(1);
            let Some((sender, missed)) = self.doors.get(at) else { continue };
            if sender.send(due.which()).is_err() {
                missed.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

impl Worker {
    /// Works until told to stop.
    pub async fn run(mut self) {
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            self.fill(&SystemClock);
            let waits = self.batch.waits(SystemClock.monotonic_us());
            if waits.is_some_and(|waits| stopping || waits.is_zero()) {
                self.flush(stopping).await;
                continue;
            }
            if stopping {
                return;
            }
            if self.missed.swap(false, Ordering::AcqRel) {
                self.make_missed().await;
                continue;
            }
            self.wait(waits.unwrap_or(LOOK_EVERY)).await;
        }
    }

    /// Takes what it was told into the batch.
    fn fill(&mut self, clock: &impl Clock) {
        while !self.batch.is_full()
            && let Some(which) = self.jobs.try_recv()
        {
            self.batch.push(which, clock.monotonic_us());
        }
    }

    /// Makes the batch; what fails is tried again, unless the node ends: then the notes stay.
    async fn flush(&mut self, stopping: bool) {
        let batch = self.batch.take();
        loop {
            match self.maker.make(&batch, SystemClock.now()) {
                Ok(unmade) => return unmade.into_iter().for_each(self.report),
                Err(why) => (self.report)(format!("artifacts cannot be stored, trying again: {why}")),
            }
            if stopping || self.stop.load(Ordering::Acquire) {
                return;
            }
            crate::io::sleep(AGAIN_AFTER).await;
        }
    }

    /// Reads all notes and makes what is its own. They are old, or many: nothing of it waits for more.
    async fn make_missed(&mut self) {
        let (own, threads) = self.place;
        let mut after = None;
        while !self.stop.load(Ordering::Acquire) {
            let page = match self.maker.artifacts.waiting(after, NOTES_PER_LOOK) {
                Ok(page) => page,
                Err(error) => {
                    (self.report)(format!("what is to be stored cannot be read, trying again: {error}"));
                    crate::io::sleep(AGAIN_AFTER).await;
                    continue;
                }
            };
            let Some(last) = page.last() else { break };
            after = Some(last.which());
            let mine = page.iter().filter(|due| partition(&due.workflow) % threads == own);
            let mine: Vec<Which> = mine.map(Due::which).collect();
            for which in mine {
                self.batch.push(which, SystemClock.monotonic_us());
                if self.batch.is_full() {
                    self.flush(false).await;
                }
            }
        }
        if !self.batch.is_empty() {
            self.flush(false).await;
        }
    }

    /// Waits for a job, the end of the window, or the end of the node.
    async fn wait(&mut self, at_most: Duration) {
        let mut sleep = pin!(crate::io::sleep(at_most));
        let mut polled = false;
        poll_fn(|context| {
            let ready = self.jobs.poll_ready(context).is_ready()
                || sleep.as_mut().poll(context).is_ready()
                || self.stop.load(Ordering::Acquire)
                // Woken without a job: the flags are to be looked at.
                || polled;
            polled = true;
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
