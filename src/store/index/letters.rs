//! Dead letters in the index: a row for each, found by its run, and listed by what became of it.
//!
//! Keyspace `letters` has, under a run's id and `r`, the number of the event and the row, and under the id and `n` how many there
//! are. `letter_lists` has workspace, 0, state, run, number; what was purged is in no list.

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, decode, encode};
use crate::limits;
use crate::model::approval::{Noted, What};
use crate::model::letter::{Letter, LetterId, State};
use crate::model::{RunId, Seq, Ticket, Workspace};
use crate::store::Error;
use crate::store::keyspaces::{Batch, Gaps};
use crate::store::letters::{Letters, Page, Query};

const ROW: u8 = b'r';
const COUNT: u8 = b'n';

fn row_key(LetterId(Ticket { run_id, seq }): LetterId) -> Vec<u8> {
    [&run_id.as_bytes()[..], &[ROW], &seq.to_be_bytes()].concat()
}

fn count_key(run_id: RunId) -> Vec<u8> {
    [&run_id.as_bytes()[..], &[COUNT]].concat()
}

fn list_prefix(workspace: &str, redriven: bool) -> Vec<u8> {
    [workspace.as_bytes(), &[0, u8::from(redriven)]].concat()
}

/// Where a letter is listed, if it is.
fn list_key(letter: &Letter) -> Option<Vec<u8>> {
    let redriven = match letter.state {
        State::Dead => false,
        State::Redriven(_) => true,
        State::Purged => return None,
    };
    let prefix = list_prefix(Workspace::of(&letter.what.workflow).name(), redriven);
    let Ticket { run_id, seq } = letter.id.0;
    Some([&prefix[..], run_id.as_bytes(), &seq.to_be_bytes()].concat())
}

fn parse_id(key: &[u8]) -> Option<LetterId> {
    let (run_id, seq) = key.last_chunk::<24>()?.split_first_chunk::<16>()?;
    let seq = Seq::from_be_bytes(*seq.first_chunk()?);
    Some(LetterId(Ticket { run_id: RunId::from_bytes(*run_id), seq }))
}

impl Index {
    /// Puts the letters among what happened, in one batch. Whoever calls has `forgetting`.
    pub(super) fn put_letters(&self, noted: &[Noted]) -> Result<(), Error> {
        let mut new = BTreeMap::<LetterId, Letter>::new();
        for one in noted {
            match &one.what {
                What::GaveUp(what) => {
                    let id = LetterId(Ticket { run_id: one.run_id, seq: one.seq });
                    let what = (**what).clone();
                    let letter =
                        Letter { id, place: one.place.clone(), at: one.at, what, state: State::Dead };
                    new.insert(id, letter);
                }
                What::Forked => {
                    // What came before is another run's, and so are its letters.
                    new.retain(|id, _| id.0.run_id != one.run_id);
                    self.take_letters(one.run_id)?;
                }
                _ => {}
            }
        }
        let (mut batch, mut counts) = (Batch::default(), BTreeMap::<RunId, u32>::new());
        for (id, letter) in new {
            let run_id = id.0.run_id;
            // A run that is forgotten may be read once more from a segment that has not been moved.
            if self.letters.contains_key(row_key(id))? || self.tombstone(run_id)?.is_some() {
                continue;
            }
            let count = match counts.get(&run_id) {
                Some(count) => *count,
                None => self.row_of(&self.letters, &count_key(run_id))?.unwrap_or_default(),
            };
            if count >= limits::LETTERS_PER_RUN_MAX {
                continue;
            }
            counts.insert(run_id, count + 1);
            batch.insert(&self.letters, row_key(id), encode(&letter)?);
            if let Some(key) = list_key(&letter) {
                batch.insert(&self.letter_lists, key, []);
            }
        }
        if counts.is_empty() {
            return Ok(());
        }
        for (run_id, count) in counts {
            batch.insert(&self.letters, count_key(run_id), encode(&count)?);
        }
        self.commit(batch)
    }

    fn take_letters(&self, run_id: RunId) -> Result<(), Error> {
        let mut batch = Batch::default();
        if self.drop_letters((&mut batch, &mut Gaps::default()), run_id)? {
            self.commit(batch)
        } else {
            Ok(())
        }
    }

    /// Takes the letters of a run away in `batch`; were there any?
    pub(super) fn drop_letters(
        &self,
        (batch, gaps): (&mut Batch, &mut Gaps),
        run_id: RunId,
    ) -> Result<bool, Error> {
        let mut any = false;
        for (key, value) in gaps.rows(&self.letters, run_id.as_bytes())? {
            if key.get(16) == Some(&ROW)
                && let Some(listed) = list_key(&decode(&value)?)
            {
                batch.remove(&self.letter_lists, listed);
            }
            batch.remove(&self.letters, key);
            any = true;
        }
        Ok(any)
    }

    fn own_letter(&self, workspace: &Workspace, id: LetterId) -> Result<Option<Letter>, Error> {
        let letter: Option<Letter> = self.row_of(&self.letters, &row_key(id))?;
        let own = |letter: &Letter| {
            letter.state != State::Purged && Workspace::of(&letter.what.workflow).name() == workspace.name()
        };
        Ok(letter.filter(own))
    }

    /// A letter that is there becomes this, in `batch`.
    fn change_letter(&self, batch: &mut Batch, letter: &Letter, state: State) -> Result<(), Error> {
        if let Some(key) = list_key(letter) {
            batch.remove(&self.letter_lists, key);
        }
        let letter = Letter { state, ..letter.clone() };
        batch.insert(&self.letters, row_key(letter.id), encode(&letter)?);
        if let Some(key) = list_key(&letter) {
            batch.insert(&self.letter_lists, key, []);
        }
        Ok(())
    }
}

impl Letters for Index {
    fn letters(&self, query: &Query) -> Result<Page, Error> {
        let prefix = list_prefix(query.workspace.name(), query.redriven);
        let end = match query.before {
            None => [&prefix[..], &[0xff; 25]].concat(),
            Some(LetterId(Ticket { run_id, seq })) => {
                [&prefix[..], run_id.as_bytes(), &seq.to_be_bytes()].concat()
            }
        };
        let mut page = Page::default();
        for (looked_at, guard) in (1..).zip(self.letter_lists.range(prefix..end).rev()) {
            let Some(id) = parse_id(&guard.key()?) else { continue };
            let fits = |letter: &Letter| {
                query.workflow.as_ref().is_none_or(|name| *name == letter.what.workflow)
                    && query.code.as_ref().is_none_or(|code| *code == letter.what.code)
            };
            page.letters.extend(self.own_letter(&query.workspace, id)?.filter(fits));
            if page.letters.len() >= query.limit || looked_at >= query.scan_limit {
                page.next = Some(id);
                break;
            }
        }
        Ok(page)
    }

    fn letter(&self, workspace: &Workspace, id: LetterId) -> Result<Option<Letter>, Error> {
        self.own_letter(workspace, id)
    }

    fn redriven(&self, workspace: &Workspace, id: LetterId, as_run: RunId) -> Result<(), Error> {
        let _one_at_a_time = self.forgetting();
        let Some(letter) = self.own_letter(workspace, id)? else { return Ok(()) };
        let mut batch = Batch::durable();
        self.change_letter(&mut batch, &letter, State::Redriven(as_run))?;
        self.commit(batch)
    }

    fn purge(&self, workspace: &Workspace, ids: &[LetterId]) -> Result<usize, Error> {
        let _one_at_a_time = self.forgetting();
        let mut batch = Batch::durable();
        let mut purged = 0;
        for id in ids.iter().collect::<BTreeSet<_>>() {
            if let Some(letter) = self.own_letter(workspace, *id)? {
                self.change_letter(&mut batch, &letter, State::Purged)?;
                purged += 1;
            }
        }
        if purged > 0 {
            self.commit(batch)?;
        }
        Ok(purged)
    }
}

#[cfg(test)]
#[path = "letters_tests.rs"]
pub(super) mod tests;
