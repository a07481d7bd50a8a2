//! Entries of the wheel, by index. Freed places are used again, the last one first.
//!
//! It grows by chunks, so that growing never copies what is there: with a million timers that would hold a shard up for
//! longer than a turn may take. Chunks stay. An index that stands for nothing gives `None`.

use super::Spot;

/// The index of no entry.
pub(super) const NONE: u32 = u32::MAX;

/// Entries of one chunk.
pub(super) const CHUNK: usize = 4_096;

/// One timer, and the neighbours in its slot's list.
#[derive(Debug)]
pub(super) struct Entry<T> {
    /// When it fires.
    pub(super) at: u64,
    /// How many were armed before it, and itself.
    pub(super) armed: u64,
    /// Before it in the list.
    pub(super) previous: u32,
    /// After it in the list; of a free place: the next free one.
    pub(super) next: u32,
    /// Which list.
    pub(super) spot: Spot,
    /// `None` in a free place.
    pub(super) value: Option<T>,
}

/// All entries.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Entry<T>>>,
    free: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE }
    }
}

impl<T> Slab<T> {
    /// Finds a place for `entry`.
    pub(super) fn insert(&mut self, entry: Entry<T>) -> u32 {
        let index = self.free;
        if let Some(place) = self.get_mut(index) {
            let next = place.next;
            *place = entry;
            self.free = next;
            return index;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let Some(chunk) = self.chunks.last_mut() else { return NONE };
        chunk.push(entry);
        // A process has no memory for as many entries as an index can tell apart.
        u32::try_from(before + chunk.len() - 1).unwrap_or(NONE)
    }

    /// The entry in a place.
    pub(super) fn get(&self, index: u32) -> Option<&Entry<T>> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let free = self.free;
        let place = self.get_mut(index)?;
        let value = place.value.take()?;
        place.next = free;
        self.free = index;
        Some(value)
    }

    /// Places that are taken.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.chunks.iter().flatten().filter(|entry| entry.value.is_some()).count()
    }

    /// Bytes of all places.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(Vec::capacity).sum();
        entries * size_of::<Entry<T>>() + self.chunks.capacity() * size_of::<Vec<Entry<T>>>()
    }
}
