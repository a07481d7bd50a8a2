//! How many agents of a role have a turn under way at once, and the line of those that wait for it (F382).
//!
//! A line for each workspace, workflow and role that says `max_concurrency`, and one for each workspace and role when the node does
//! (`agents.max_concurrency`). A turn holds its places while models answer and tools run, and not between turns. First come, first
//! served, so whoever has had a turn stands behind those who have waited. A turn that is given up, because its run was
//! cancelled or its time is over, leaves the line by being dropped. All of it is of the process: after a restart turns stand
//! in line again as they are handed out.
//!
//! When full: over [`limits::AGENTS_WAITING_MAX`] in a line a turn is refused with `overloaded`, to be tried again.

#![expect(clippy::disallowed_types, reason = "a lookup for each turn of an agent whose role has a limit")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Models;
use crate::limits;
use crate::model::{Class, Failure, RunId, Seq, Value};

/// An attempt.
type Name = (RunId, Seq);
/// Workspace, workflow (none for the node's own limit), role, and how many there may be.
type Key = (Arc<str>, Option<Arc<str>>, Arc<str>, usize);

/// What a turn waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InLine {
    /// Which setting says so.
    pub limit: &'static str,
    /// How many there may be.
    pub max: usize,
}

/// The lines of a node.
#[derive(Debug, Default)]
pub(super) struct Lines {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    lines: BTreeMap<Key, Weak<Semaphore>>,
    waiting: BTreeMap<Name, (Key, InLine)>,
}

/// Whose turn it is.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Which attempt.
    pub name: (RunId, Seq),
    /// The name of its workspace.
    pub workspace: Arc<str>,
    /// Its workflow.
    pub workflow: Arc<str>,
    /// Its role; empty without one.
    pub role: Arc<str>,
    /// How many its role may have at once (`max_concurrency`).
    pub max: Option<usize>,
}

/// Places in lines, until they are dropped.
#[derive(Debug)]
pub struct Places {
    _held: Vec<OwnedSemaphorePermit>,
}

/// Is in the book for as long as it waits.
struct Waiting<'a> {
    lines: &'a Lines,
    name: Name,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lines.lock().waiting.remove(&self.name);
    }
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, key: &Key) -> Arc<Semaphore> {
        let mut book = self.lock();
        if let Some(line) = book.lines.get(key).and_then(Weak::upgrade) {
            return line;
        }
        // Lines that nobody stands in are no lines.
        book.lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Semaphore::new(key.3.min(Semaphore::MAX_PERMITS)));
        book.lines.insert(key.clone(), Arc::downgrade(&line));
        line
    }

    async fn place(
        &self,
        name: Name,
        key: Key,
        limit: &'static str,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        let line = self.line(&key);
        if let Ok(permit) = line.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let max = key.3;
        {
            let mut book = self.lock();
            let most = limits::AGENTS_WAITING_MAX;
            if book.waiting.values().filter(|(other, _)| *other == key).count() >= most {
                let message = format!(
                    "{most} turns of the role {:?} wait (limit agents_waiting_max); {max} may be under way ({limit})",
                    key.2
                );
                let details = Value::map([("limit", Value::string(limit))]);
                let failure = Failure::fatal("overloaded", message);
                return Err(Failure { class: Class::Recoverable, details, ..failure });
            }
            book.waiting.insert(name, (key, InLine { limit, max }));
        }
        let _waiting = Waiting { lines: self, name };
        let gone = |_| Failure::transient("executor_stopped", "the node is stopping");
        line.acquire_owned().await.map_err(gone)
    }
}

impl Models {
    /// Places for a turn, once it is its turn. At once, when nothing is said of how many there may be.
    ///
    /// # Errors
    /// `overloaded`: too many wait.
    pub async fn stand_in_line(&self, turn: Turn) -> Result<Places, Failure> {
        let Turn { name, workspace, workflow, role, max } = turn;
        let (lines, mut held) = (&self.catalog.lines, Vec::new());
        // Always in this order, so that nobody waits for what somebody holds who waits for him.
        if let Some(max) = self.catalog.agents_max {
            let key = (workspace.clone(), None, role.clone(), max);
            held.push(lines.place(name, key, "agents.max_concurrency").await?);
        }
        if let Some(max) = max {
            let key = (workspace, Some(workflow), role, max);
            held.push(lines.place(name, key, "max_concurrency").await?);
        }
        Ok(Places { _held: held })
    }

    /// For what the turn of an attempt stands in line; `None`: it does not.
    pub fn in_line(&self, name: (RunId, Seq)) -> Option<InLine> {
        self.catalog.lines.lock().waiting.get(&name).map(|(_, in_line)| *in_line)
    }

    /// Turns that wait.
    pub fn waiting(&self) -> usize {
        self.catalog.lines.lock().waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::super::settings::Settings;
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    fn turn(seq: Seq, role: &str, max: Option<usize>) -> Turn {
        let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]);
        let role = role.into();
        Turn { name: (run_id, seq), workspace: "default".into(), workflow: "w".into(), role, max }
    }

    fn polled<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    // F382
    #[test]
    fn so_many_turns_of_a_role_are_under_way_and_the_next_stands_in_line() {
        let (models, _jobs) = Models::new(&Settings { agents_max: Some(3), ..Settings::default() });
        let Poll::Ready(Ok(first)) = polled(Box::pin(models.stand_in_line(turn(1, "a", Some(1)))).as_mut())
        else {
            panic!("there is room")
        };
        let (mut second, mut third) = (
            Box::pin(models.stand_in_line(turn(2, "a", Some(1)))),
            Box::pin(models.stand_in_line(turn(3, "a", Some(1)))),
        );
        assert!(polled(second.as_mut()).is_pending() && polled(third.as_mut()).is_pending());
        let in_line = |seq| models.in_line(turn(seq, "a", None).name);
        assert_eq!(in_line(2), Some(InLine { limit: "max_concurrency", max: 1 }));
        assert_eq!((in_line(1), models.waiting()), (None, 2));
        // Another role has a line of its own; the node's limit is one for all workflows.
        let other = polled(Box::pin(models.stand_in_line(turn(4, "b", Some(1)))).as_mut());
        assert!(matches!(other, Poll::Ready(Ok(_))));
        let mut fourth = Box::pin(models.stand_in_line(turn(5, "a", None)));
        assert!(polled(fourth.as_mut()).is_pending(), "three have a place or stand in the other line");
        assert_eq!(in_line(5), Some(InLine { limit: "agents.max_concurrency", max: 3 }));
        // Who is given up leaves the line; the next one is who came next.
        drop(second);
        assert_eq!(in_line(2), None);
        drop(first);
        assert!(matches!(polled(third.as_mut()), Poll::Ready(Ok(_))));
        assert!(matches!(polled(fourth.as_mut()), Poll::Ready(Ok(_))));
        drop((third, fourth));
        assert_eq!(models.waiting(), 0);
    }
}
