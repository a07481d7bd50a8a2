//! The images of unfinished runs in the index, and their tally.

use std::collections::BTreeSet;

use super::{Index, decode, encode, keys};
use crate::model::RunId;
use crate::store::Error;
use crate::store::archive::ArchiveRow;
use crate::store::images::{Image, Seen, Tally};
use crate::store::keyspaces::Batch;

/// Images put or taken away at once where all of them are.
const AT_ONCE: usize = 1_024;

impl Index {
    /// Puts images, all or none, with the tally that they make.
    pub(super) fn put_some_images(&self, shard: u16, images: &[Image]) -> Result<(), Error> {
        let _one_at_a_time = self.tallying.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut batch = Batch::default();
        let mut tally = self.tally(shard)?;
        for image in images {
            let key = keys::image(shard, image.run_id);
            if let Some(before) = self.images.get(key)? {
                tally.remove(image.run_id, &before);
            }
            tally.add(image.run_id, &image.bytes);
            batch.insert(&self.images, key, &*image.bytes);
        }
        batch.insert(&self.tallies, shard.to_be_bytes(), encode(&tally)?);
        self.commit(batch)
    }

    /// In `batch`: these runs of a shard have no images any more.
    fn remove_images(
        &self,
        batch: &mut Batch,
        shard: u16,
        runs: impl Iterator<Item = RunId>,
    ) -> Result<(), Error> {
        let mut tally = self.tally(shard)?;
        for run_id in runs {
            let key = keys::image(shard, run_id);
            if let Some(before) = self.images.get(key)? {
                tally.remove(run_id, &before);
                batch.remove(&self.images, key);
            }
        }
        batch.insert(&self.tallies, shard.to_be_bytes(), encode(&tally)?);
        Ok(())
    }

    /// Shows every image of a shard; what they should add up to.
    pub(super) fn visit_images(&self, shard: u16, visit: &mut Seen<'_>) -> Result<Tally, Error> {
        for guard in self.images.prefix(shard.to_be_bytes()) {
            let (key, bytes) = guard.into_inner()?;
            let Some(run_id) = keys::parse_run(&key) else { continue };
            visit(run_id, &bytes)?;
        }
        self.tally(shard)
    }

    /// Commits a batch of rows; those of runs with images take these away.
    pub(super) fn put_with_images(&self, mut batch: Batch, rows: &[ArchiveRow]) -> Result<(), Error> {
        let _one_at_a_time = self.tallying.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let imaged: BTreeSet<u16> = rows.iter().filter(|row| row.imaged).map(|row| row.shard).collect();
        for shard in imaged {
            let of_shard = rows.iter().filter(|row| row.imaged && row.shard == shard);
            self.remove_images(&mut batch, shard, of_shard.map(|row| row.summary.run_id))?;
        }
        self.commit(batch)
    }

    /// First the tally says what no set adds up to, last what the new one does.
    pub(super) fn put_all_images(
        &self,
        shard: u16,
        images: &mut dyn Iterator<Item = Result<Image, Error>>,
    ) -> Result<(), Error> {
        let _one_at_a_time = self.tallying.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let key = shard.to_be_bytes();
        let mut batch = Batch::durable();
        batch.insert(&self.tallies, key, encode(&Tally::NONE)?);
        self.commit(batch)?;
        loop {
            let mut batch = Batch::default();
            let mut removed = 0;
            for guard in self.images.prefix(key).take(AT_ONCE) {
                batch.remove(&self.images, guard.key()?);
                removed += 1;
            }
            self.commit(batch)?;
            if removed == 0 {
                break;
            }
        }
        let mut tally = Tally::default();
        loop {
            let mut batch = Batch::default();
            let mut put = 0;
            while put < AT_ONCE
                && let Some(image) = images.next()
            {
                let image = image?;
                tally.add(image.run_id, &image.bytes);
                batch.insert(&self.images, keys::image(shard, image.run_id), &*image.bytes);
                put += 1;
            }
            if put == 0 {
                batch.insert(&self.tallies, key, encode(&tally)?);
                return self.commit(batch.synced(true));
            }
            self.commit(batch)?;
        }
    }

    fn tally(&self, shard: u16) -> Result<Tally, Error> {
        Ok(self
            .tallies
            .get(shard.to_be_bytes())?
            .map(|bytes| decode(&bytes))
            .transpose()?
            .unwrap_or_default())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::model::Status;
    use crate::store::Archive as _;
    use crate::store::index::testing::open;
    use crate::store::index::tests::row;
    use crate::time::Timestamp;

    fn image(byte: u8, bytes: &[u8]) -> Image {
        let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), [byte; 10]);
        Image { run_id, bytes: bytes.into() }
    }

    fn all(index: &Index, shard: u16) -> (Vec<Image>, Tally, Tally) {
        let (mut found, mut counted) = (Vec::new(), Tally::default());
        let tally = index.images(shard, &mut |run_id, bytes| {
            counted.add(run_id, bytes);
            found.push(Image { run_id, bytes: bytes.into() });
            Ok(())
        });
        (found, counted, tally.unwrap())
    }

    // RELIABILITY 2.7, F303
    #[test]
    pub(crate) fn the_latest_image_of_each_run_survives_with_a_tally_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        {
            let index = open(dir.path());
            index.put_images(1, &[image(1, b"one"), image(2, b"two")]).unwrap();
            index.put_images(2, &[image(3, b"other shard")]).unwrap();
            index.put_images(1, &[image(2, b"two, later"), image(4, b"four")]).unwrap();
        }
        let index = open(dir.path());
        let (found, counted, tally) = all(&index, 1);
        assert_eq!(found, [image(1, b"one"), image(2, b"two, later"), image(4, b"four")]);
        assert_eq!(counted, tally);
        assert_eq!(all(&index, 2).0.len(), 1);
    }

    #[test]
    pub(crate) fn the_row_of_a_run_takes_its_image_away() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        let mut ended = row(7, "w", Status::Completed, &[1]);
        let of_ended = Image { run_id: ended.summary.run_id, bytes: (*b"live").into() };
        index.put_images(1, &[image(1, b"one"), of_ended]).unwrap();
        ended.imaged = true;
        // Twice, as after a crash.
        index.put(std::slice::from_ref(&ended)).unwrap();
        index.put(&[ended]).unwrap();
        let (found, counted, tally) = all(&index, 1);
        assert_eq!(found, [image(1, b"one")]);
        assert_eq!(counted, tally);
    }

    // RELIABILITY B11
    #[test]
    pub(crate) fn an_image_that_changed_or_went_missing_does_not_fit_the_tally() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        index.put_images(1, &[image(1, b"one"), image(2, b"two")]).unwrap();
        index.images.insert(keys::image(1, image(1, b"").run_id), b"onf").unwrap();
        let (_, counted, tally) = all(&index, 1);
        assert_ne!(counted, tally);
        index.images.insert(keys::image(1, image(1, b"").run_id), b"one").unwrap();
        let (_, counted, tally) = all(&index, 1);
        assert_eq!(counted, tally);
        index.images.remove(keys::image(1, image(1, b"").run_id)).unwrap();
        let (_, counted, tally) = all(&index, 1);
        assert_ne!(counted, tally);
    }

    #[test]
    pub(crate) fn a_new_set_stands_in_place_of_a_damaged_one_and_half_of_it_never_adds_up() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(dir.path());
        index.put_images(1, &[image(1, b"one"), image(2, b"two")]).unwrap();
        index.put_images(2, &[image(2, b"two")]).unwrap();
        index.images.remove(keys::image(1, image(1, b"").run_id)).unwrap();
        let many = u64::try_from(AT_ONCE).unwrap() + 7;
        let new = |n: u64| {
            let run_id = RunId::new(Timestamp::from_micros(1_000 * n), Partition::new(0), [9; 10]);
            Image { run_id, bytes: n.to_be_bytes()[..].into() }
        };
        let mut seen = 0;
        let images = (0..many).map(|n| {
            if n % 500 == 0 {
                let (_, counted, tally) = all(&index, 1);
                assert_ne!(counted, tally, "after {n}");
                seen += 1;
            }
            Ok(new(n))
        });
        index.replace_images(1, &mut { images }).unwrap();
        assert!(seen > 2);
        let (found, counted, tally) = all(&index, 1);
        assert_eq!((found.len() as u64, counted), (many, tally));
        assert_eq!(all(&index, 2).0.len(), 1);
        index.replace_images(1, &mut std::iter::empty()).unwrap();
        assert_eq!(all(&index, 1), (Vec::new(), Tally::default(), Tally::default()));
    }
}
