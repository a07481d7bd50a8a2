//! Dead letters: whichever is asked for is there.

use aob::model::letter::{GaveUp, Letter, LetterId, State};
use aob::model::{Class, Partition, Place, RunId, Ticket, Workspace};
use aob::store::Error;
use aob::store::letters::{Letters, Page, Query};
use aob::time::Timestamp;

/// All of them.
pub(super) struct Any;

fn letter(id: LetterId) -> Letter {
    let what = GaveUp {
        workflow: "greet".into(),
        version: "1".into(),
        node: "crm".into(),
        code: "http_status".into(),
        message: "the answer has status 503".into(),
        class: Class::Recoverable,
        continued: false,
        call: true,
    };
    Letter { id, place: Place::root(0), at: Timestamp::from_micros(7), what, state: State::Dead }
}

impl Letters for Any {
    fn letters(&self, _: &Query) -> Result<Page, Error> {
        let run_id = RunId::new(Timestamp::from_micros(1), Partition::new(0), [0; 10]);
        let id = LetterId(Ticket { run_id, seq: 7 });
        Ok(Page { letters: vec![letter(id)], next: Some(id) })
    }

    fn letter(&self, _: &Workspace, id: LetterId) -> Result<Option<Letter>, Error> {
        Ok(Some(letter(id)))
    }

    fn redriven(&self, _: &Workspace, _: LetterId, _: RunId) -> Result<(), Error> {
        Ok(())
    }

    fn purge(&self, _: &Workspace, ids: &[LetterId]) -> Result<usize, Error> {
        Ok(ids.len())
    }
}
