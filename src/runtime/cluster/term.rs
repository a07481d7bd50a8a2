//! When a node may take the lease of a store, and for how long it may count on it. No clock here: whoever calls brings the time, in
//! monotonic microseconds of this machine.
//!
//! Must hold: a lease that is held is taken by nobody else before its holder stopped counting on it, as long as the clocks of both run
//! alike to within a tenth. The holder counts from when its row was surely not there yet, whoever waits counts from after it saw it.

use std::time::Duration;

use crate::store::redis::lease::{NodeId, Row};

/// Who wants it.
#[derive(Debug)]
pub(super) struct Contender {
    me: (NodeId, String),
    lasts: Duration,
    /// Others go first, for as long as a lease is good: since when, once that is known.
    stands_back: Option<Option<u64>>,
    /// The row that stands there, since when it was seen, and when it was seen last.
    seen: Option<(Row, u64, u64)>,
}

/// A part of its time for which clocks that do not run alike are waited for.
const MARGIN: u32 = 10;

impl Contender {
    pub(super) fn new(me: (NodeId, String), lasts: Duration) -> Self {
        Self { me, lasts, stands_back: None, seen: None }
    }

    /// One that has just handed over: what is free it leaves to others at first.
    pub(super) fn standing_back(self) -> Self {
        Self { stands_back: Some(None), ..self }
    }

    /// What to put in place of what stands there at `now_us`, when it may be taken.
    pub(super) fn saw(&mut self, row: Option<&Row>, now_us: u64) -> Option<Row> {
        let Some(row) = row else { return Some(self.mine(0)) };
        // What this directory's node held before is nobody's any more: one process at a time has the directory.
        if !row.is_held || row.node == self.me.0 {
            return (!self.stands_back(now_us)).then(|| self.mine(row.turn));
        }
        let patience = micros(row.lasts + row.lasts / MARGIN);
        let (since, last) = match &self.seen {
            // While nobody looked the holder may have been kept from renewing it, as we from looking.
            Some((before, since, last)) if before == row && now_us.saturating_sub(*last) < patience / 2 => {
                (*since, now_us)
            }
            _ => (now_us, now_us),
        };
        self.seen = Some((row.clone(), since, last));
        (now_us.saturating_sub(since) >= patience).then(|| self.mine(row.turn))
    }

    fn stands_back(&mut self, now_us: u64) -> bool {
        let Some(since) = &mut self.stands_back else { return false };
        now_us.saturating_sub(*since.get_or_insert(now_us)) < micros(self.lasts)
    }

    fn mine(&self, turn: u64) -> Row {
        let (node, address) = self.me.clone();
        Row { node, turn: turn + 1, is_held: true, lasts: self.lasts, address }
    }
}

/// Who has it.
#[derive(Debug)]
pub(super) struct Holder {
    row: Row,
    /// The turn that was asked for last, whatever became of it.
    asked: u64,
    /// Until when it may be counted on.
    pub(super) until_us: u64,
}

impl Holder {
    /// It is there, and was not yet at `before_us`.
    pub(super) fn new(row: Row, before_us: u64) -> Self {
        let until_us = before_us.saturating_add(micros(row.lasts));
        Self { asked: row.turn, row, until_us }
    }

    /// What stands there.
    pub(super) fn row(&self) -> &Row {
        &self.row
    }

    /// What stands there is not what was put last, but it is ours.
    pub(super) fn found(&mut self, row: &Row) {
        self.row = row.clone();
    }

    /// What to put there next; given up when it is not to be held any longer. Never the same twice: one that was asked for before and
    /// got no answer may have been there for long, and others count from when they saw it.
    pub(super) fn next(&mut self, is_held: bool) -> Row {
        self.asked = self.asked.max(self.row.turn).saturating_add(1);
        Row { turn: self.asked, is_held, ..self.row.clone() }
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(10);
    const SECOND: u64 = 1_000_000;

    fn contender(node: u8) -> Contender {
        Contender::new((NodeId([node; 16]), format!("http://{node}")), LASTS)
    }

    fn held(node: u8, turn: u64) -> Row {
        Row { turn, ..contender(node).mine(0) }
    }

    // F083
    #[test]
    fn what_nobody_holds_is_taken_at_once() {
        assert_eq!(contender(1).saw(None, 7), Some(held(1, 1)));
        let given_up = Row { is_held: false, ..held(2, 6) };
        assert_eq!(contender(1).saw(Some(&given_up), 7), Some(held(1, 7)));
        // The same directory: the process that held it is dead.
        assert_eq!(contender(2).saw(Some(&held(2, 6)), 7), Some(held(2, 7)));
    }

    // F213
    #[test]
    fn who_has_handed_over_takes_it_back_only_when_nobody_else_wants_it() {
        let mut contender = contender(1).standing_back();
        let given_up = Row { is_held: false, ..held(1, 6) };
        for second in 0..10 {
            assert_eq!(contender.saw(Some(&given_up), second * SECOND), None, "{second}");
        }
        assert_eq!(contender.saw(Some(&given_up), 10 * SECOND), Some(held(1, 7)));
    }

    // F083, F213
    #[test]
    fn what_somebody_holds_is_taken_when_it_did_not_move_for_longer_than_it_is_good_for() {
        let mut contender = contender(1);
        let see = |contender: &mut Contender, turn, second| {
            contender.saw(Some(&held(2, turn)), second * SECOND).map(|row| row.turn)
        };
        for second in 0..8 {
            assert_eq!(see(&mut contender, 1, second), None);
        }
        // It moves.
        for second in 8..19 {
            assert_eq!(see(&mut contender, 2, second), None, "{second}");
        }
        assert_eq!(see(&mut contender, 2, 19), Some(3));
    }

    // F083
    #[test]
    fn silence_that_nobody_listened_to_does_not_count() {
        let mut contender = contender(1);
        assert_eq!(contender.saw(Some(&held(2, 1)), 0), None);
        // The store was away for an hour, for the holder as well.
        for second in 3_600..3_611 {
            assert_eq!(contender.saw(Some(&held(2, 1)), second * SECOND), None, "{second}");
        }
        assert!(contender.saw(Some(&held(2, 1)), 3_611 * SECOND).is_some());
    }

    // F083
    #[test]
    fn nobody_takes_it_while_its_holder_counts_on_it() {
        // The holder asked at 0 and is paused from then on; it was seen at 0 at the earliest.
        let mut holder = Holder::new(held(2, 1), 0);
        for pace in [1, 3, 4] {
            let mut contender = contender(1);
            let looks = (0..100).map(|look| look * pace * SECOND);
            let taken = looks.into_iter().find(|at| contender.saw(Some(holder.row()), *at).is_some());
            assert!(taken.unwrap() >= holder.until_us, "every {pace} s: {taken:?}");
        }
        assert_eq!(holder.next(true), held(2, 2));
        // No answer: it may be there.
        assert_eq!(holder.next(true), held(2, 3));
        holder.found(&held(2, 2));
        assert!(!holder.next(false).is_held);
        assert_eq!(holder.next(true), held(2, 5));
    }
}
