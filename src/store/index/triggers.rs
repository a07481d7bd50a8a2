//! Schedules, hooks and batches in the index. A row begins with the time at which it wants to be looked at; the agenda has the same
//! time and the row's key.

use super::Index;
use crate::store::Error;
use crate::store::keyspaces::{Batch, Keyspace};
use crate::store::triggers::{Change, Changing, Keyed, Table, TriggerStore};
use crate::time::Timestamp;

/// Nobody has to look at it.
const NEVER: u64 = u64::MAX;

/// Keyspaces of one table.
pub(super) struct Kept {
    pub(super) rows: Keyspace,
    /// Time, key.
    pub(super) agenda: Keyspace,
}

fn slot(at: u64, key: &[u8]) -> Vec<u8> {
    [&at.to_be_bytes()[..], key].concat()
}

/// Time and row of what is kept.
fn split(kept: &[u8]) -> Result<(u64, &[u8]), Error> {
    let (at, row) = kept.split_first_chunk::<8>().ok_or_else(|| super::unreadable("a trigger"))?;
    Ok((u64::from_be_bytes(*at), row))
}

impl Index {
    fn table(&self, table: Table) -> &Kept {
        match table {
            Table::Schedules => &self.schedules,
            Table::Hooks => &self.hooks,
            Table::Batches => &self.batches,
        }
    }
}

impl TriggerStore for Index {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let kept = self.table(table).rows.get(key)?;
        kept.map(|kept| Ok(split(&kept)?.1.to_vec())).transpose()
    }

    fn page(&self, table: Table, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Keyed>, Error> {
        let start = if after < prefix { prefix.to_vec() } else { [after, &[0]].concat() };
        let mut found = Vec::new();
        for guard in self.table(table).rows.range(start..).take(limit) {
            let (key, kept) = guard.into_inner()?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key.to_vec(), split(&kept)?.1.to_vec()));
        }
        Ok(found)
    }

    fn update(&self, table: Table, key: &[u8], change: &mut Changing<'_>) -> Result<(), Error> {
        // A poisoned lock protects nothing but the order of changes.
        let _one_at_a_time = self.triggering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = self.table(table);
        let before = kept.rows.get(key)?;
        let (before_at, row) = match before.as_deref().map(split).transpose()? {
            Some((at, row)) => (at, Some(row)),
            None => (NEVER, None),
        };
        let changed = change(row);
        // When it is looked at may be forgotten: it is looked at sooner then.
        let mut batch = Batch::default().synced(!matches!(changed, Change::Look(_)));
        let at = match changed {
            Change::Keep => return Ok(()),
            Change::Put { row, look_at } => {
                let at = look_at.map_or(NEVER, Timestamp::as_micros);
                batch.insert(&kept.rows, key, slot(at, &row));
                at
            }
            Change::Look(at) => {
                let Some(row) = row else { return Ok(()) };
                batch.insert(&kept.rows, key, slot(at.as_micros(), row));
                at.as_micros()
            }
            Change::Remove => {
                batch.remove(&kept.rows, key);
                NEVER
            }
        };
        if before_at != at && before_at != NEVER {
            batch.remove(&kept.agenda, slot(before_at, key));
        }
        if at != NEVER {
            batch.insert(&kept.agenda, slot(at, key), []);
        }
        self.commit(batch)
    }

    fn agenda(&self, table: Table, limit: usize) -> Result<Vec<(Timestamp, Vec<u8>)>, Error> {
        let rows = self.table(table).agenda.iter().take(limit);
        rows.map(|guard| {
            let key = guard.key()?;
            let (at, key) = split(&key)?;
            Ok((Timestamp::from_micros(at), key.to_vec()))
        })
        .collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::store::index::testing::open;
    use crate::store::triggers::InMemory;

    fn put(store: &dyn TriggerStore, key: &str, row: &str, at: Option<u64>) {
        let look_at = at.map(Timestamp::from_micros);
        let mut change = |_: Option<&[u8]>| Change::Put { row: row.into(), look_at };
        store.update(Table::Schedules, key.as_bytes(), &mut change).unwrap();
    }

    fn agenda(store: &dyn TriggerStore) -> Vec<(u64, String)> {
        let rows = store.agenda(Table::Schedules, 9).unwrap();
        rows.into_iter().map(|(at, key)| (at.as_micros(), String::from_utf8(key).unwrap())).collect()
    }

    fn conforms(store: &dyn TriggerStore) {
        put(store, "w\0b", "1", Some(20));
        put(store, "w\0a", "2", Some(30));
        put(store, "v\0c", "3", None);
        assert_eq!(agenda(store), [(20, "w\0b".into()), (30, "w\0a".into())]);
        put(store, "w\0b", "4", Some(40));
        put(store, "w\0a", "5", Some(30));
        assert_eq!(agenda(store), [(30, "w\0a".into()), (40, "w\0b".into())]);
        let mut look = |_: Option<&[u8]>| Change::Look(Timestamp::from_micros(50));
        for key in ["w\0a", "nothing"] {
            store.update(Table::Schedules, key.as_bytes(), &mut look).unwrap();
        }
        assert_eq!(agenda(store), [(40, "w\0b".into()), (50, "w\0a".into())]);
        assert_eq!(store.get(Table::Schedules, b"w\0a").unwrap().as_deref(), Some(&b"5"[..]));
        put(store, "w\0a", "6", None);
        assert_eq!(agenda(store), [(40, "w\0b".into())]);
        assert_eq!(store.get(Table::Hooks, b"w\0a").unwrap(), None, "tables are apart");
        let page = |after: &str, limit: usize| {
            let rows = store.page(Table::Schedules, b"w\0", after.as_bytes(), limit).unwrap();
            rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
        };
        let mut counted = 0;
        let mut count = |_: Option<&[u8]>| {
            counted = store.page(Table::Schedules, b"w\0", &[], 9).map_or(0, |rows| rows.len());
            Change::Keep
        };
        store.update(Table::Schedules, b"w\0a", &mut count).unwrap();
        assert_eq!(counted, 2, "a change may look at other rows");
        put(store, "wx\0a", "7", None);
        assert_eq!(page("", 1), ["w\0a"]);
        assert_eq!(page("", 9), ["w\0a", "w\0b"]);
        assert_eq!(page("w\0a", 9), ["w\0b"]);
        assert!(page("w\0b", 9).is_empty());
    }

    #[test]
    pub(crate) fn rows_are_changed_as_one_with_their_place_on_the_agenda() {
        conforms(&InMemory::default());
        let dir = tempfile::tempdir().unwrap();
        conforms(&open(dir.path()));
        let index = open(dir.path());
        assert_eq!(agenda(&index), [(40, "w\0b".into())], "it is still there");
        let mut seen = None;
        let mut look = |row: Option<&[u8]>| {
            seen = row.map(<[u8]>::to_vec);
            Change::Remove
        };
        index.update(Table::Schedules, b"w\0b", &mut look).unwrap();
        assert_eq!(seen.as_deref(), Some(&b"4"[..]));
        assert!(agenda(&index).is_empty());
    }
}
