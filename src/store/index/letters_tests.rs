//! Dead letters in the index: there once, until their run is forgotten; what became of them stays.

use super::super::tests::row;
use super::*;
use crate::model::letter::GaveUp;
use crate::model::{Class, Place, Status};
use crate::store::Archive;
use crate::store::archive::ArchiveRow;
use crate::store::index::testing::open;
use crate::time::Timestamp;

fn gave_up(run: &ArchiveRow, seq: Seq, (workflow, code): (&str, &str)) -> Noted {
    let what = GaveUp {
        workflow: workflow.into(),
        version: "1".into(),
        node: "crm".into(),
        code: code.into(),
        message: "the answer has status 503".into(),
        class: Class::Recoverable,
        continued: false,
        call: true,
    };
    let (run_id, at) = (run.summary.run_id, Timestamp::from_micros(seq));
    Noted { run_id, seq, at, place: Place::root(1), what: What::GaveUp(Box::new(what)) }
}

fn all(workspace: &Workspace) -> Query {
    Query {
        workspace: workspace.clone(),
        redriven: false,
        before: None,
        workflow: None,
        code: None,
        limit: 10,
        scan_limit: 100,
    }
}

fn seqs(index: &Index, query: &Query) -> Vec<Seq> {
    index.letters(query).unwrap().letters.iter().map(|letter| letter.id.0.seq).collect()
}

// F370, RELIABILITY 2.5
#[test]
pub(crate) fn what_is_put_again_is_there_once_and_what_became_of_it_stays_until_its_run_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let run = row(1, "w", Status::Failed, &[1]);
    let noted = [4, 6, 8].map(|seq| gave_up(&run, seq, ("w", "http_status")));
    let id = |seq| LetterId(Ticket { run_id: run.summary.run_id, seq });
    index.put_reviews(&noted).unwrap();
    index.put_reviews(&noted).unwrap();
    index.put(std::slice::from_ref(&run)).unwrap();
    let own = Workspace::DEFAULT;
    assert_eq!(seqs(&index, &all(&own)), [8, 6, 4]);
    let theirs: Workspace = "acme".parse().unwrap();
    assert_eq!((seqs(&index, &all(&theirs)), index.letter(&theirs, id(4)).unwrap()), (vec![], None));
    assert_eq!(index.purge(&theirs, &[id(4)]).unwrap(), 0);
    index.redriven(&theirs, id(4), run.summary.run_id).unwrap();

    let again = row(2, "w", Status::Completed, &[1]).summary.run_id;
    index.redriven(&own, id(6), again).unwrap();
    assert_eq!(index.purge(&own, &[id(8), id(8), id(9)]).unwrap(), 1);
    drop(index);
    let index = open(dir.path());
    index.put_reviews(&noted).unwrap();
    assert_eq!(seqs(&index, &all(&own)), [4], "it does not take back what became of them");
    assert_eq!(seqs(&index, &Query { redriven: true, ..all(&own) }), [6]);
    assert_eq!(index.letter(&own, id(6)).unwrap().unwrap().state, State::Redriven(again));
    assert_eq!(index.letter(&own, id(8)).unwrap(), None);
    assert!(Archive::erase(&index, run.summary.run_id).unwrap());
    index.put_reviews(&noted).unwrap();
    assert_eq!((seqs(&index, &all(&own)), index.letter(&own, id(6)).unwrap()), (vec![], None));
}

#[test]
pub(crate) fn pages_go_on_where_they_ended_and_conditions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let kinds = [("w", "a"), ("w", "b"), ("v", "a"), ("w", "a"), ("acme/w", "a")];
    for (n, kind) in (1..).zip(kinds) {
        let run = row(n, "w", Status::Failed, &[1]);
        index.put_reviews(&[gave_up(&run, n, kind)]).unwrap();
    }
    let mut query = Query { limit: 2, ..all(&Workspace::DEFAULT) };
    let first = index.letters(&query).unwrap();
    query.before = first.next;
    assert_eq!(seqs(&index, &query), [2, 1]);
    query.before = index.letters(&query).unwrap().next;
    assert_eq!(seqs(&index, &query), [] as [Seq; 0]);
    let query = Query { workflow: Some("w".into()), code: Some("a".into()), ..all(&Workspace::DEFAULT) };
    assert_eq!(seqs(&index, &query), [4, 1]);
    let page = index.letters(&Query { scan_limit: 2, ..query }).unwrap();
    assert_eq!((page.letters.len(), page.next.map(|id| id.0.seq)), (1, Some(3)), "it says where it ended");
}

#[test]
pub(crate) fn a_run_keeps_so_many_and_a_fork_none_of_those_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let run = row(1, "w", Status::Failed, &[1]);
    let most = u64::from(limits::LETTERS_PER_RUN_MAX);
    let noted: Vec<Noted> = (1..=most + 5).map(|seq| gave_up(&run, seq, ("w", "a"))).collect();
    for part in noted.chunks(300) {
        index.put_reviews(part).unwrap();
    }
    let query = Query { limit: usize::MAX, scan_limit: usize::MAX, ..all(&Workspace::DEFAULT) };
    assert_eq!(seqs(&index, &query).len() as u64, most);
    let forked = Noted { what: What::Forked, ..noted[0].clone() };
    let after = gave_up(&run, most + 9, ("w", "a"));
    index.put_reviews(&[gave_up(&run, most + 7, ("w", "a")), forked, after]).unwrap();
    assert_eq!(seqs(&index, &query), [most + 9]);
}
