//! Reviews in the index: a row for each ticket, found by its run, and listed by how it ended.
//!
//! Keyspace `reviews` has, under a run's id, `r` and the ticket's number the row, `p` and a place the number of the review asked
//! there last, `n` and the number of each notice: what is known of a run is one range. `review_lists` has workspace, 0, state, run, number.

use super::{Index, decode, encode};
use crate::model::approval::{Noted, Row, State, What};
use crate::model::{Place, RunId, Seq, Ticket, Workspace};
use crate::store::Error;
use crate::store::approvals::{Page, Query};
use crate::store::keyspaces::{Batch, Gaps};

const ROW: u8 = b'r';
const PLACE: u8 = b'p';

fn row_key(ticket: Ticket) -> Vec<u8> {
    [&ticket.run_id.as_bytes()[..], &[ROW], &ticket.seq.to_be_bytes()].concat()
}

fn place_key(run_id: RunId, place: &Place) -> Result<Vec<u8>, Error> {
    Ok([&run_id.as_bytes()[..], &[PLACE], &encode(place)?].concat())
}

fn list_prefix(workspace: &Workspace, state: State) -> Vec<u8> {
    let state = match state {
        State::Pending => 0,
        State::Approved => 1,
        State::Rejected => 2,
        State::Expired => 3,
    };
    [workspace.name().as_bytes(), &[0, state]].concat()
}

fn list_key(workspace: &Workspace, state: State, ticket: Ticket) -> Vec<u8> {
    [&list_prefix(workspace, state)[..], ticket.run_id.as_bytes(), &ticket.seq.to_be_bytes()].concat()
}

fn parse_ticket(key: &[u8]) -> Option<Ticket> {
    let (run_id, seq) = key.last_chunk::<24>()?.split_first_chunk::<16>()?;
    Some(Ticket { run_id: RunId::from_bytes(*run_id), seq: Seq::from_be_bytes(*seq.first_chunk()?) })
}

impl Index {
    pub(super) fn put_noted(&self, noted: &[Noted]) -> Result<bool, Error> {
        let _one_at_a_time = self.forgetting();
        let mut any = false;
        for one in noted {
            // Each in a batch of its own: the next one may be about the same review.
            any |= self.put_one(one)?;
        }
        self.put_letters(noted)?;
        Ok(any)
    }

    fn put_one(&self, noted: &Noted) -> Result<bool, Error> {
        let run_id = noted.run_id;
        if matches!(noted.what, What::GaveUp(_) | What::Forked) {
            return Ok(false);
        }
        // A run that is forgotten may be read once more from a segment that has not been moved.
        if self.tombstone(run_id)?.is_some() {
            return Ok(false);
        }
        let place = place_key(run_id, &noted.place)?;
        let seq = match &noted.what {
            What::Asked(_) => Some(noted.seq),
            _ => self.reviews.get(&place)?.map(|bytes| decode(&bytes)).transpose()?,
        };
        let Some(seq) = seq else { return Ok(false) };
        let ticket = Ticket { run_id, seq };
        let before = self.reviews.get(row_key(ticket))?.map(|bytes| decode(&bytes)).transpose()?;
        let Some(row) = Row::after(before, noted) else { return Ok(false) };
        let mut batch = Batch::default();
        batch.insert(&self.reviews, row_key(ticket), encode(&row)?);
        if matches!(noted.what, What::Asked(_)) {
            batch.insert(&self.reviews, place, encode(&seq)?);
        }
        if row.state != State::Pending {
            let workspace = Workspace::of(&row.request.workflow);
            batch.insert(&self.review_lists, list_key(&workspace, row.state, ticket), []);
        }
        self.put_notice(&mut batch, &row)?;
        self.commit(batch)?;
        Ok(true)
    }

    /// Takes all that is known of a run's reviews away in `batch`, and what is on its way about them.
    pub(super) fn drop_reviews(
        &self,
        (batch, gaps): (&mut Batch, &mut Gaps),
        run_id: RunId,
    ) -> Result<(), Error> {
        for (key, value) in gaps.rows(&self.reviews, run_id.as_bytes())? {
            match key.get(16) {
                Some(&ROW) => {
                    let row: Row = decode(&value)?;
                    let workspace = Workspace::of(&row.request.workflow);
                    batch.remove(&self.review_lists, list_key(&workspace, row.state, row.ticket));
                }
                Some(&PLACE) => {}
                // Notices go with the deliveries.
                _ => continue,
            }
            batch.remove(&self.reviews, key);
        }
        self.drop_deliveries((batch, gaps), run_id)
    }

    pub(super) fn over_page(&self, query: &Query) -> Result<Page, Error> {
        let prefix = list_prefix(&query.workspace, query.state);
        let after_all = [&prefix[..], &[0xff; 25]].concat();
        let end = query.before.map_or(after_all, |before| list_key(&query.workspace, query.state, before));
        let mut page = Page::default();
        for (looked_at, guard) in (1..).zip(self.review_lists.range(prefix..end).rev()) {
            let Some(ticket) = parse_ticket(&guard.key()?) else { continue };
            let row: Option<Row> = self.reviews.get(row_key(ticket))?.map(|row| decode(&row)).transpose()?;
            let fits = |row: &Row| {
                query.workflow.as_ref().is_none_or(|name| *name == row.request.workflow)
                    && query.reviewer.as_deref().is_none_or(|reviewer| row.asks(reviewer))
            };
            page.rows.extend(row.filter(fits));
            if page.rows.len() >= query.limit || looked_at >= query.scan_limit {
                page.next = Some(ticket);
                break;
            }
        }
        Ok(page)
    }
}
