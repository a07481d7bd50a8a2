//! A hierarchical timing wheel: what is to happen when, as data. It has no clock: time is what the caller says it is.
//!
//! Eight levels of 256 slots cover every due time from 0 to `u64::MAX` microseconds. A slot of level 0 is one
//! microsecond, a slot of level 1 is 256 of them, and so on; the upper levels are the overflow for what is far away
//! (level 4 begins at 71 minutes, level 5 at 12 days, level 7 at 2,283 years). A timer stands in the level of the
//! highest byte in which its due time differs from the time reached so far. When a slot's time has come it is *opened*:
//! its timers go down, one step each, so a timer moves seven times at most.
//!
//! What must hold (RELIABILITY 2.8):
//! - never early, and once;
//! - in due order, and timers of one due time in the order of arming. A timer that is armed when its time has passed is
//!   due at once, behind those that are due at the time reached so far;
//! - time does not go back: an earlier `now` than the latest seen counts as that one;
//! - arming and disarming take constant time, and the work of one call is bounded by the steps it is given: a slot with
//!   a million timers is opened over many calls.
//!
//! It is never full: whoever arms has its own limits. A timer costs one entry of [`slab`], and nothing when it is gone
//! but the memory that was once used.

mod slab;
#[cfg(test)]
mod tests;

use self::slab::{Entry, NONE, Slab};
use crate::time::Timestamp;

/// Bits of a time that one level looks at.
const LEVEL_BITS: u32 = 8;
/// Slots of one level.
const SLOTS: usize = 1 << LEVEL_BITS;
/// Levels: together they look at all 64 bits.
const LEVELS: usize = u64::BITS.div_ceil(LEVEL_BITS) as usize;

/// Names one armed timer, for ever: no two are named alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    armed: u64,
}

/// A list of entries, by index.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE };
}

/// Slots of one level, and which of them have timers.
#[derive(Clone, Debug)]
struct Level {
    occupied: [u64; SLOTS / 64],
    slots: [List; SLOTS],
}

impl Level {
    const EMPTY: Self = Self { occupied: [0; SLOTS / 64], slots: [List::EMPTY; SLOTS] };

    /// The first slot with timers. All of them are ahead, so the lowest number is the earliest.
    fn first_occupied(&self) -> Option<u8> {
        let (word, bits) = self.occupied.iter().enumerate().find(|(_, bits)| **bits != 0)?;
        u8::try_from(word * 64 + bits.trailing_zeros() as usize).ok()
    }

    fn mark(&mut self, slot: u8, occupied: bool) {
        if let Some(word) = self.occupied.get_mut(usize::from(slot) / 64) {
            let bit = 1 << (slot % 64);
            *word = if occupied { *word | bit } else { *word & !bit };
        }
    }
}

/// Where a timer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spot {
    level: u8,
    slot: u8,
}

/// Armed timers.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    levels: Box<[Level; LEVELS]>,
    /// One bit for each level with timers.
    occupied: u8,
    /// All timers due before this are gone, and some that are due at it.
    reached: u64,
    /// The slot whose timers are on their way down. It began at `reached`.
    opening: Option<Spot>,
    /// The latest `now` seen.
    now: u64,
    slab: Slab<T>,
    armed: u64,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self {
            levels: Box::new([Level::EMPTY; LEVELS]),
            occupied: 0,
            reached: 0,
            opening: None,
            now: 0,
            slab: Slab::default(),
            armed: 0,
        }
    }
}

impl<T> Wheel<T> {
    /// Arms a timer.
    pub(crate) fn arm(&mut self, due: Timestamp, value: T) -> Key {
        let at = due.as_micros().max(self.reached);
        let mut spot = spot(at, self.reached);
        // What belongs below the slot being opened waits behind the timers in it, which were armed before.
        if let Some(opening) = self.opening
            && spot.level < opening.level
        {
            spot = opening;
        }
        self.armed += 1;
        let armed = self.armed;
        let index =
            self.slab.insert(Entry { at, armed, previous: NONE, next: NONE, spot, value: Some(value) });
        self.link(index, spot);
        Key { index, armed }
    }

    /// Takes a timer back; `None` when it has fired or was taken back before.
    pub(crate) fn disarm(&mut self, key: Key) -> Option<T> {
        if !self.is_armed(key) {
            return None;
        }
        self.unlink(key.index);
        self.slab.remove(key.index)
    }

    /// Has it neither fired nor been taken back?
    pub(crate) fn is_armed(&self, key: Key) -> bool {
        self.slab.get(key.index).is_some_and(|entry| entry.armed == key.armed && entry.value.is_some())
    }

    /// A time not after the earliest due time, and after the time given to a [`pop_due`](Self::pop_due) that found
    /// nothing and had steps left. It is the due time itself when the earliest slot holds one timer; otherwise it may
    /// be where that slot begins, and a look then brings it closer: seven looks at most.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        if self.opening.is_some() {
            return Some(Timestamp::from_micros(self.reached));
        }
        let spot = self.earliest()?;
        let list = self.list(spot);
        let alone = if list.first == list.last { self.slab.get(list.first) } else { None };
        Some(Timestamp::from_micros(alone.map_or_else(|| start(spot, self.reached), |entry| entry.at)))
    }

    /// Takes the earliest timer whose time has come. Each move of a timer takes one of `steps`; with none left there is
    /// no answer, and the next call goes on.
    pub(crate) fn pop_due(&mut self, now: Timestamp, steps: &mut usize) -> Option<T> {
        self.now = self.now.max(now.as_micros());
        while *steps > 0 {
            if let Some(spot) = self.opening {
                *steps -= 1;
                self.bring_down(spot);
                continue;
            }
            let Some(spot) = self.earliest().filter(|spot| start(*spot, self.reached) <= self.now) else {
                // Nothing begins until then, so every timer stands where it would stand if it were armed then.
                self.reached = self.reached.max(self.now);
                return None;
            };
            *steps -= 1;
            self.reached = start(spot, self.reached);
            if spot.level == 0 {
                let index = self.list(spot).first;
                self.unlink(index);
                return self.slab.remove(index);
            }
            self.opening = Some(spot);
        }
        None
    }

    /// How many are armed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Bytes it holds on to.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        size_of::<[Level; LEVELS]>() + self.slab.bytes()
    }

    /// The first timer of the slot being opened goes down.
    fn bring_down(&mut self, from: Spot) {
        let index = self.list(from).first;
        self.unlink(index);
        let Some(entry) = self.slab.get_mut(index) else { return };
        let to = spot(entry.at, self.reached);
        entry.spot = to;
        self.link(index, to);
    }

    /// The earliest slot. A lower level is before all that is above it.
    fn earliest(&self) -> Option<Spot> {
        let level = u8::try_from(self.occupied.trailing_zeros()).ok()?;
        Some(Spot { level, slot: self.levels.get(usize::from(level))?.first_occupied()? })
    }

    fn list(&self, spot: Spot) -> List {
        let level = self.levels.get(usize::from(spot.level));
        level.and_then(|level| level.slots.get(usize::from(spot.slot))).copied().unwrap_or(List::EMPTY)
    }

    fn set_list(&mut self, spot: Spot, list: List) {
        let Some(level) = self.levels.get_mut(usize::from(spot.level)) else { return };
        if let Some(slot) = level.slots.get_mut(usize::from(spot.slot)) {
            *slot = list;
        }
        level.mark(spot.slot, list.first != NONE);
        let bit = 1 << spot.level;
        self.occupied =
            if level.occupied == [0; SLOTS / 64] { self.occupied & !bit } else { self.occupied | bit };
        if list.first == NONE && self.opening == Some(spot) {
            self.opening = None;
        }
    }

    /// Puts an entry at the end of its slot's list.
    fn link(&mut self, index: u32, spot: Spot) {
        let List { first, last } = self.list(spot);
        if let Some(entry) = self.slab.get_mut(index) {
            entry.previous = last;
            entry.next = NONE;
        }
        match self.slab.get_mut(last) {
            Some(before) => {
                before.next = index;
                self.set_list(spot, List { first, last: index });
            }
            None => self.set_list(spot, List { first: index, last: index }),
        }
    }

    /// Takes an entry out of its slot's list.
    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.slab.get(index) else { return };
        let (previous, next, spot) = (entry.previous, entry.next, entry.spot);
        let mut list = self.list(spot);
        match self.slab.get_mut(previous) {
            Some(before) => before.next = next,
            None => list.first = next,
        }
        match self.slab.get_mut(next) {
            Some(after) => after.previous = previous,
            None => list.last = previous,
        }
        self.set_list(spot, list);
    }
}

/// Where a timer stands that is due `at`, not before `reached`.
fn spot(at: u64, reached: u64) -> Spot {
    let highest = u64::BITS - 1 - ((at ^ reached) | 1).leading_zeros();
    let level = highest / LEVEL_BITS;
    Spot { level: level as u8, slot: (at >> (level * LEVEL_BITS)) as u8 }
}

/// When a slot that is not behind `reached` begins.
fn start(spot: Spot, reached: u64) -> u64 {
    let shift = u32::from(spot.level) * LEVEL_BITS;
    let above = u64::MAX.checked_shl(shift + LEVEL_BITS).unwrap_or(0);
    reached & above | u64::from(spot.slot) << shift
}
