//! What starts and steers runs from outside or by the clock, as it is written down: schedules, hooks and batches.
//!
//! Rows are bytes to the store; it keeps them by table and key, and in the order of the time at which each wants to be
//! looked at again. A change is read, made and synced as one: nobody sees or overwrites half of it. How many rows there
//! may be is for the caller to say.

use std::collections::BTreeMap;

use super::Error;
use crate::time::Timestamp;

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Schedules, by workspace and name.
    Schedules,
    /// Hooks, by workspace and id.
    Hooks,
    /// Batches, by workspace and id, the newest first.
    Batches,
}

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is.
    Keep,
    /// It is this.
    Put {
        /// What it holds.
        row: Vec<u8>,
        /// When it wants to be looked at.
        look_at: Option<Timestamp>,
    },
    /// It stays, and wants to be looked at then. A crash may undo it.
    Look(Timestamp),
    /// It is gone.
    Remove,
}

/// A row with its key.
pub type Keyed = (Vec<u8>, Vec<u8>);

/// Says what becomes of a row.
pub type Changing<'a> = dyn FnMut(Option<&[u8]>) -> Change + 'a;

/// The rows. Everything blocks.
pub trait TriggerStore: Send + Sync {
    /// One row.
    ///
    /// # Errors
    /// The storage failed.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// At most `limit` rows whose keys begin with `prefix` and come after `after`, by key.
    ///
    /// # Errors
    /// The storage failed.
    fn page(&self, table: Table, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Keyed>, Error>;

    /// Reads a row and makes of it what `change` says, durably, while no other row is changed.
    ///
    /// # Errors
    /// The storage failed; whether it was changed is unknown then.
    fn update(&self, table: Table, key: &[u8], change: &mut Changing<'_>) -> Result<(), Error>;

    /// The first rows of a table to be looked at, each with the time at which it wants that.
    ///
    /// # Errors
    /// The storage failed.
    fn agenda(&self, table: Table, limit: usize) -> Result<Vec<(Timestamp, Vec<u8>)>, Error>;
}

/// Rows and when each wants to be looked at.
type Rows = BTreeMap<Vec<u8>, (Option<Timestamp>, Vec<u8>)>;

/// The reference: rows in memory, gone with the process.
#[derive(Debug, Default)]
#[expect(clippy::disallowed_types, reason = "what tests have in place of an index; no plane uses it")]
pub struct InMemory {
    rows: std::sync::Mutex<[Rows; 3]>,
    /// Of whoever changes a row. Who reads does not need it: a change may read other rows.
    turn: std::sync::Mutex<()>,
}

impl InMemory {
    fn with<T>(&self, table: Table, work: impl FnOnce(&mut Rows) -> T) -> Result<T, Error> {
        let mut tables = self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let [schedules, hooks, batches] = &mut *tables;
        Ok(work(match table {
            Table::Schedules => schedules,
            Table::Hooks => hooks,
            Table::Batches => batches,
        }))
    }
}

impl TriggerStore for InMemory {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with(table, |rows| rows.get(key).map(|(_, row)| row.clone()))
    }

    fn page(&self, table: Table, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Keyed>, Error> {
        self.with(table, |rows| {
            let fits = rows.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_slice() > after);
            fits.take(limit).map(|(key, (_, row))| (key.clone(), row.clone())).collect()
        })
    }

    fn update(&self, table: Table, key: &[u8], change: &mut Changing<'_>) -> Result<(), Error> {
        let _one_at_a_time = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = self.get(table, key)?;
        let changed = change(before.as_deref());
        self.with(table, |rows| match changed {
            Change::Keep => {}
            Change::Put { row, look_at } => drop(rows.insert(key.to_vec(), (look_at, row))),
            Change::Look(at) => {
                if let Some((look_at, _)) = rows.get_mut(key) {
                    *look_at = Some(at);
                }
            }
            Change::Remove => drop(rows.remove(key)),
        })
    }

    fn agenda(&self, table: Table, limit: usize) -> Result<Vec<(Timestamp, Vec<u8>)>, Error> {
        self.with(table, |rows| {
            let mut all: Vec<_> =
                rows.iter().filter_map(|(key, (at, _))| Some(((*at)?, key.clone()))).collect();
            all.sort_unstable();
            all.truncate(limit);
            all
        })
    }
}
