//! Rows of many prefixes, of which most have none: a stretch without rows is looked over once, however many prefixes lie in it.
//!
//! To a store that is far away each look is a question. Prefixes in ascending order need the fewest; in any order the rows are the same. What
//! is written into a stretch after it was looked over is not seen.

use std::collections::BTreeMap;

use super::{Bytes, Keyspace, Number, behind};
use crate::store::Error;

/// Stretches without rows, the last one found in each keyspace.
#[derive(Debug, Default)]
pub struct Gaps(BTreeMap<Number, Gap>);

/// No key is at or behind `from` and before `next`.
#[derive(Debug)]
struct Gap {
    from: Vec<u8>,
    /// The first key behind it; `None`: there is none.
    next: Option<Bytes>,
}

impl Gap {
    fn holds(&self, prefix: &[u8]) -> bool {
        let before_next = |next: &Bytes| **next > *prefix && !next.starts_with(prefix);
        self.from.as_slice() <= prefix && self.next.as_ref().is_none_or(before_next)
    }
}

impl Gaps {
    /// The rows whose keys begin so, in order. The prefix is not empty.
    ///
    /// # Errors
    /// The back end's.
    pub fn rows(&mut self, keyspace: &Keyspace, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, Error> {
        if self.0.get(&keyspace.number).is_some_and(|gap| gap.holds(prefix)) {
            return Ok(Vec::new());
        }
        let (mut rows, mut next) = (Vec::new(), None);
        for guard in keyspace.range(prefix..) {
            let (key, value) = guard.into_inner()?;
            if !key.starts_with(prefix) {
                next = Some(key);
                break;
            }
            rows.push((key, value));
        }
        let from = if rows.is_empty() { Some(prefix.to_vec()) } else { behind(prefix) };
        match from {
            Some(from) => self.0.insert(keyspace.number, Gap { from, next }),
            None => self.0.remove(&keyspace.number),
        };
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::super::{Batch, Bounds, Embedded, Keyspaces, Rows};
    use super::*;

    /// Counts questions for rows.
    struct Counting(Arc<dyn Keyspaces>, AtomicUsize);

    impl Keyspaces for Counting {
        fn get(&self, keyspace: Number, key: &[u8]) -> Result<Option<Bytes>, Error> {
            self.0.get(keyspace, key)
        }
        fn rows(&self, keyspace: Number, bounds: Bounds) -> Rows {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.rows(keyspace, bounds)
        }
        fn commit(&self, batch: Batch) -> Result<(), Error> {
            self.0.commit(batch)
        }
        fn sync(&self) -> Result<(), Error> {
            self.0.sync()
        }
        fn fenced(&self) -> Option<Arc<str>> {
            self.0.fenced()
        }
    }

    fn opened(directory: &std::path::Path) -> (Arc<Counting>, Keyspace) {
        let embedded = Embedded::open(directory, &["one"]).unwrap();
        let counting = Arc::new(Counting(Arc::new(embedded), AtomicUsize::new(0)));
        let keyspaces: Arc<dyn Keyspaces> = counting.clone();
        (counting, Keyspace::new(&keyspaces, 0))
    }

    #[test]
    fn a_stretch_without_rows_is_one_question() {
        let directory = tempfile::tempdir().unwrap();
        let (counting, keyspace) = opened(directory.path());
        keyspace.insert([5, 0], []).unwrap();
        keyspace.insert([5, 9], []).unwrap();
        let mut gaps = Gaps::default();
        let found: Vec<usize> =
            (0..=255_u8).map(|first| gaps.rows(&keyspace, &[first]).unwrap().len()).collect();
        assert_eq!(found.iter().sum::<usize>(), 2);
        assert_eq!(counting.1.load(Ordering::Relaxed), 2, "before it, and from it on");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is there and in whatever order it is asked for.
        #[test]
        fn rows_are_those_of_the_prefix(
            keys in proptest::collection::btree_set(proptest::collection::vec(0..4_u8, 1..4), 0..20),
            prefixes in proptest::collection::vec(proptest::collection::vec(prop_oneof![0..4_u8, Just(255)], 1..4), 1..40),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let (_, keyspace) = opened(directory.path());
            for key in &keys {
                keyspace.insert(key.clone(), []).unwrap();
            }
            let mut gaps = Gaps::default();
            for prefix in prefixes {
                let found: Vec<Vec<u8>> = gaps.rows(&keyspace, &prefix).unwrap().iter().map(|(key, _)| key.to_vec()).collect();
                let expected: Vec<Vec<u8>> = keys.iter().filter(|key| key.starts_with(&prefix)).cloned().collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
