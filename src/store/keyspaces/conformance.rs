//! What every back end of keyspaces owes, as one suite: against a map in memory, step by step.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Batch, Bytes, Embedded, Keyspace, Keyspaces};

/// Names of the keyspaces that the suite uses.
pub(crate) const NAMES: [&str; 2] = ["one", "two"];

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    /// Changes of (keyspace, key), in this order, in one batch.
    Commit(Vec<(bool, Vec<u8>, Option<Vec<u8>>)>, bool),
    /// Opened once more.
    Reopen,
    /// Rows between two keys, some from the front and some from the back by turns.
    Range(bool, [Bound<Vec<u8>>; 2], Vec<bool>),
    Prefix(bool, Vec<u8>),
}

/// A key, or the beginning of one.
fn key(least: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0), Just(1), Just(b'['), Just(254), Just(255)];
    proptest::collection::vec(byte, least..4)
}

fn bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![key(0).prop_map(Bound::Included), key(0).prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

fn step() -> impl Strategy<Value = Step> {
    let value = proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 0..40));
    let changes = proptest::collection::vec((any::<bool>(), key(1), value), 0..30);
    prop_oneof![
        4 => (changes, any::<bool>()).prop_map(|(changes, synced)| Step::Commit(changes, synced)),
        1 => Just(Step::Reopen),
        4 => (any::<bool>(), [bound(), bound()], proptest::collection::vec(any::<bool>(), 0..80))
            .prop_map(|(second, bounds, turns)| Step::Range(second, bounds, turns)),
        2 => (any::<bool>(), key(0)).prop_map(|(second, prefix)| Step::Prefix(second, prefix)),
    ]
}

fn copied(row: super::Guard) -> (Vec<u8>, Vec<u8>) {
    let (key, value) = row.into_inner().unwrap();
    (key.to_vec(), value.to_vec())
}

/// Some from the front and some from the back, until both ends meet.
fn by_turns<T>(mut rows: impl DoubleEndedIterator<Item = T>, turns: &[bool]) -> Vec<T> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    for up in turns.iter().copied().chain(std::iter::repeat(true)) {
        match if up { rows.next() } else { rows.next_back() } {
            Some(row) if up => front.push(row),
            Some(row) => back.push(row),
            None => break,
        }
    }
    front.extend(back.into_iter().rev());
    front
}

fn fits(map: &Map, keyspace: &Keyspace, bounds: [Bound<Vec<u8>>; 2], turns: &[bool]) {
    let bytes = |bound: &Bound<Vec<u8>>| bound.as_ref().map(|key| Bytes::from(key.as_slice()));
    let empty = super::is_empty(&(bytes(&bounds[0]), bytes(&bounds[1])));
    let bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>) = bounds.into();
    let found = by_turns(keyspace.range(bounds.clone()), turns);
    let found: Vec<_> = found.into_iter().map(copied).collect();
    let expected: Vec<_> = if empty {
        Vec::new()
    } else {
        map.range(bounds).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    assert_eq!(found, expected);
}

/// Runs the suite; a back end is opened by its number, the same one with what it had.
pub(crate) fn run(cases: u32, open: &dyn Fn(usize) -> Arc<dyn Keyspaces>) {
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) });
    let number = std::cell::Cell::new(0);
    let steps = proptest::collection::vec(step(), 1..30);
    let result = runner.run(&steps, |steps| {
        number.set(number.get() + 1);
        one(&|| open(number.get()), steps);
        Ok(())
    });
    result.unwrap();
    many_and_large(&open(0));
}

fn one(open: &dyn Fn() -> Arc<dyn Keyspaces>, steps: Vec<Step>) {
    let mut keyspaces = open();
    let mut maps = [Map::new(), Map::new()];
    for step in steps {
        let of = |second: bool| Keyspace::new(&keyspaces, usize::from(second));
        match step {
            Step::Commit(changes, synced) => {
                let mut batch = Batch::default().synced(synced);
                for (second, key, value) in changes {
                    let map = &mut maps[usize::from(second)];
                    match value {
                        Some(value) => {
                            batch.insert(&of(second), key.as_slice(), value.as_slice());
                            map.insert(key, value);
                        }
                        None => {
                            batch.remove(&of(second), key.as_slice());
                            map.remove(&key);
                        }
                    }
                }
                keyspaces.commit(batch).unwrap();
            }
            Step::Reopen => {
                keyspaces.sync().unwrap();
                drop(keyspaces);
                keyspaces = open();
            }
            Step::Range(second, bounds, turns) => {
                fits(&maps[usize::from(second)], &of(second), bounds, &turns)
            }
            Step::Prefix(second, prefix) => {
                let found: Vec<_> = of(second).prefix(&prefix).map(copied).collect();
                let begin = |(key, _): &(&Vec<u8>, &Vec<u8>)| key.starts_with(&prefix);
                let expected = maps[usize::from(second)].iter().filter(begin);
                assert_eq!(
                    found,
                    expected.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
                );
            }
        }
    }
    for (number, map) in maps.iter().enumerate() {
        let keyspace = Keyspace::new(&keyspaces, number);
        fits(map, &keyspace, [Bound::Unbounded, Bound::Unbounded], &[]);
        for (key, value) in map {
            assert_eq!(keyspace.get(key).unwrap().as_deref(), Some(value.as_slice()));
        }
        assert_eq!(keyspace.get(b"nothing").unwrap(), None);
        let keys: Vec<&[u8]> = map.keys().rev().map(Vec::as_slice).chain([&b"nothing"[..]]).collect();
        let all: Vec<_> = keyspace.get_all(&keys).unwrap();
        assert_eq!(
            all.iter().map(Option::as_deref).collect::<Vec<_>>(),
            keys.iter().map(|key| map.get(*key).map(Vec::as_slice)).collect::<Vec<_>>()
        );
        let ends = [keyspace.first_key_value(), keyspace.last_key_value()]
            .map(|row| row.map(copied).map(|row| row.0));
        assert_eq!(
            ends,
            [map.first_key_value(), map.last_key_value()].map(|row| row.map(|row| row.0.clone()))
        );
    }
}

/// More than a page, and rows of which a page has one.
fn many_and_large(keyspaces: &Arc<dyn Keyspaces>) {
    let keyspace = Keyspace::new(keyspaces, 0);
    let mut batch = Batch::durable();
    let value = |n: u32| if n % 100 == 7 { vec![n as u8; 700 << 10] } else { n.to_le_bytes().to_vec() };
    (0..3_000_u32).for_each(|n| batch.insert(&keyspace, n.to_be_bytes(), value(n)));
    keyspaces.commit(batch).unwrap();
    let keys: Vec<[u8; 4]> = (0..3_000).map(u32::to_be_bytes).filter(|key| key[3] % 100 != 7).collect();
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; 4]>::as_slice).collect();
    assert!(keyspace.get_all(&keys).unwrap().iter().all(Option::is_some));
    for turns in [vec![true], vec![false; 3_000], [true, true, false].repeat(1_000)] {
        let rows = by_turns(keyspace.iter(), &turns);
        assert_eq!(rows.len(), 3_000);
        for (n, row) in (0..).zip(rows) {
            let (key, found) = row.into_inner().unwrap();
            assert_eq!((&*key, &*found), (&u32::to_be_bytes(n)[..], value(n).as_slice()));
        }
    }
    let mut batch = Batch::default();
    keyspace.iter().for_each(|row| batch.remove(&keyspace, Bytes::clone(&row.key().unwrap())));
    keyspaces.commit(batch).unwrap();
    assert!(keyspace.first_key_value().is_none());
}

// F052
#[test]
fn the_embedded_database_conforms() {
    let dir = tempfile::tempdir().unwrap();
    run(24, &|number| Arc::new(Embedded::open(&dir.path().join(number.to_string()), &NAMES).unwrap()));
}
