//! The images of unfinished runs in the index, and their tally.

use fjall::{OwnedWriteBatch, PersistMode};

use super::{Index, decode, encode, keys};
use crate::model::RunId;
use crate::store::Error;
use crate::store::images::{Image, Seen, Tally};

/// Images taken away at once.
const REMOVED_AT_ONCE: usize = 8_192;

impl Index {
    /// Puts images, all or none, with the tally that they make.
    pub(super) fn put_some_images(&self, shard: u16, images: &[Image]) -> Result<(), Error> {
        let _one_at_a_time = self.tallying.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut batch = self.db.batch();
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
        Ok(batch.commit()?)
    }

    /// In `batch`: these runs of a shard have no images any more.
    pub(super) fn remove_images(
        &self,
        batch: &mut OwnedWriteBatch,
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
            let Some(run_id) = keys::parse_member(&key) else { continue };
            visit(run_id, &bytes)?;
        }
        self.tally(shard)
    }

    /// Marks first: with images and without marks everything is read, which is slow and right.
    pub(super) fn forget_images(&self, shard: u16) -> Result<(), Error> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncAll));
        for guard in self.marks.prefix(shard.to_be_bytes()) {
            batch.remove(&self.marks, guard.key()?);
        }
        batch.commit()?;
        loop {
            let mut batch = self.db.batch();
            let mut left = 0;
            for guard in self.images.prefix(shard.to_be_bytes()).take(REMOVED_AT_ONCE) {
                batch.remove(&self.images, guard.key()?);
                left += 1;
            }
            if left == 0 {
                batch.insert(&self.tallies, shard.to_be_bytes(), encode(&Tally::default())?);
                return Ok(batch.durability(Some(PersistMode::SyncAll)).commit()?);
            }
            batch.commit()?;
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
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::model::Status;
    use crate::store::Archive as _;
    use crate::store::archive::SegmentMark;
    use crate::store::index::tests::{mark, row};
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
    fn the_latest_image_of_each_run_survives_with_a_tally_that_fits() {
        let dir = tempfile::tempdir().unwrap();
        {
            let index = Index::open(dir.path()).unwrap();
            index.put_images(1, &[image(1, b"one"), image(2, b"two")]).unwrap();
            index.put_images(2, &[image(3, b"other shard")]).unwrap();
            index.put_images(1, &[image(2, b"two, later"), image(4, b"four")]).unwrap();
            index.mark_segment(1, &mark(1)).unwrap();
        }
        let index = Index::open(dir.path()).unwrap();
        let (found, counted, tally) = all(&index, 1);
        assert_eq!(found, [image(1, b"one"), image(2, b"two, later"), image(4, b"four")]);
        assert_eq!(counted, tally);
        assert_eq!(all(&index, 2).0.len(), 1);
    }

    #[test]
    fn the_row_of_a_run_takes_its_image_away() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
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
    fn an_image_that_changed_or_went_missing_does_not_fit_the_tally() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
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
    fn what_is_dropped_is_gone_with_the_marks_of_its_shard_only() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        index.put_images(1, &[image(1, b"one")]).unwrap();
        index.put_images(2, &[image(2, b"two")]).unwrap();
        let of_other = SegmentMark { expires_at: Timestamp::MAX, ..mark(9) };
        index.mark_segment(1, &mark(1)).unwrap();
        index.mark_segment(2, &of_other).unwrap();
        index.drop_images(1).unwrap();
        assert_eq!(all(&index, 1), (Vec::new(), Tally::default(), Tally::default()));
        assert_eq!(index.marks(1).unwrap(), []);
        assert_eq!(all(&index, 2).0.len(), 1);
        assert_eq!(index.marks(2).unwrap(), [of_other]);
    }
}
