//! Reviews, webhooks and deliveries in the index: told once, bounded, and gone with their run.

use super::super::tests::row;
use super::*;
use crate::model::approval::{Noted, Request, State, Verdict, What};
use crate::model::{Place, Seq, Status};
use crate::store::Archive;
use crate::store::archive::ArchiveRow;
use crate::store::index::testing::open;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

fn noted(run: &ArchiveRow, seq: Seq, what: What) -> Noted {
    Noted { run_id: run.summary.run_id, seq, at: at(seq), place: Place::root(1), what }
}

fn asked(run: &ArchiveRow) -> Noted {
    let request = Request {
        workflow: "w".into(),
        node: "review".into(),
        reviewers: vec!["ops".into()],
        escalations: Vec::new(),
        due: None,
    };
    noted(run, 4, What::Asked(Box::new(request)))
}

fn decided(run: &ArchiveRow) -> Noted {
    let verdict = Verdict { approved: true, reviewer: "ops".into(), reason: None };
    noted(run, 6, What::Decided(Box::new(verdict)))
}

fn hook(n: u8) -> Webhook {
    Webhook {
        id: WebhookId([n; 16]),
        workspace: "default".into(),
        url: "http://x/".into(),
        events: vec![0, 2],
        reviewer: None,
        created_at: at(0),
        delivered: 0,
        delivered_at: None,
    }
}

fn over(index: &Index) -> usize {
    let query = Query {
        workspace: Workspace::DEFAULT,
        state: State::Approved,
        before: None,
        workflow: None,
        reviewer: None,
        limit: 10,
        scan_limit: 10,
    };
    Approvals::over(index, &query).unwrap().rows.len()
}

// RELIABILITY 2.5
#[test]
pub(crate) fn what_happened_to_a_review_is_told_once_until_its_run_is_erased_and_then_never() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let run = row(1, "w", Status::Completed, &[1]);
    assert!(index.add(&hook(1)).unwrap() && index.add(&hook(2)).unwrap());
    let all = [asked(&run), decided(&run)];
    assert!(index.put_reviews(&all).unwrap());
    assert!(!index.put_reviews(&all).unwrap(), "a replay changes nothing");
    index.put(std::slice::from_ref(&run)).unwrap();
    assert_eq!(over(&index), 1);
    assert_eq!(index.spread(at(9), 1).unwrap().len(), 1);
    assert_eq!(index.spread(at(9), 10).unwrap().len(), 1);
    assert_eq!(index.spread(at(9), 10).unwrap().len(), 0);
    let (due, next) = Approvals::due(&index, at(9), 10).unwrap();
    assert_eq!((due.len(), next), (4, None), "two events for each of two");
    drop(index);
    let index = open(dir.path());
    let (due, _) = Approvals::due(&index, at(9), 3).unwrap();
    assert_eq!(due.len(), 3, "it outlives the process");
    let first = due[0].0.id;
    index.attempted(first, &Attempted::Arrived, at(10)).unwrap();
    assert_eq!(index.webhook(&Workspace::DEFAULT, first.webhook).unwrap().unwrap().delivered, 1);
    let other = due[1].0.id;
    index.attempted(other, &Attempted::Failed("500".into(), Some(at(50))), at(10)).unwrap();
    assert_eq!(Approvals::due(&index, at(20), 10).unwrap().1, Some(at(50)));
    assert!(Archive::erase(&index, run.summary.run_id).unwrap());
    assert_eq!((over(&index), Approvals::due(&index, at(99), 10).unwrap().0.len()), (0, 0));
    assert!(!index.put_reviews(&all).unwrap(), "it does not come back from a segment that is left");
    assert_eq!((over(&index), index.spread(at(99), 10).unwrap().len()), (0, 0));
}

#[test]
pub(crate) fn webhooks_are_bounded_and_what_was_given_up_is_tried_again_or_goes_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    for n in 0..limits::WEBHOOKS_PER_WORKSPACE_MAX {
        assert!(index.add(&hook(n as u8)).unwrap());
    }
    assert!(!index.add(&hook(200)).unwrap(), "no more than it may have");
    for n in 1..limits::WEBHOOKS_PER_WORKSPACE_MAX {
        assert!(index.remove(&Workspace::DEFAULT, WebhookId([n as u8; 16])).unwrap());
    }
    let id = WebhookId([0; 16]);
    for n in 0..3 {
        let run = row(n, "w", Status::Completed, &[1]);
        index.put_reviews(&[asked(&run)]).unwrap();
    }
    index.spread(at(5), 10).unwrap();
    let (due, _) = Approvals::due(&index, at(5), 10).unwrap();
    for (delivery, _) in &due {
        index.attempted(delivery.id, &Attempted::Failed("500".into(), None), at(6)).unwrap();
    }
    assert_eq!(index.deliveries(Which::Dead(id), 10).unwrap().len(), 3);
    assert_eq!(Approvals::due(&index, at(99), 10).unwrap(), (Vec::new(), None), "nobody tries again");
    assert_eq!(index.redrive(id, at(7)).unwrap(), 3);
    let (due, _) = Approvals::due(&index, at(7), 10).unwrap();
    assert!(due.len() == 3 && due.iter().all(|(delivery, _)| delivery.attempts == 0));
    assert!(index.remove(&Workspace::DEFAULT, id).unwrap());
    assert!(!index.remove(&Workspace::DEFAULT, id).unwrap());
    assert_eq!(
        (
            Approvals::due(&index, at(99), 10).unwrap().0.len(),
            index.deliveries(Which::Of(id), 9).unwrap().len()
        ),
        (0, 0)
    );
}

#[test]
pub(crate) fn notices_stand_in_line_across_restarts_and_those_of_an_erased_run_leave_it() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let runs = [1, 2, 3].map(|n| row(n, "w", Status::Completed, &[1]));
    let told = |index: &Index, limit| {
        let rows = index.spread(at(9), limit).unwrap();
        rows.iter().map(|row| row.ticket.run_id).collect::<Vec<_>>()
    };
    let ids = runs.each_ref().map(|run| run.summary.run_id);
    // The last one's is asked first: a queue goes by what happened first, not by ids.
    index.put_reviews(&[asked(&runs[2]), asked(&runs[0])]).unwrap();
    assert_eq!(told(&index, 1), [ids[2]]);
    drop(index);
    let index = open(dir.path());
    index.put_reviews(&[asked(&runs[1]), decided(&runs[0])]).unwrap();
    index.put(std::slice::from_ref(&runs[0])).unwrap();
    assert!(Archive::erase(&index, ids[0]).unwrap());
    assert_eq!(told(&index, 10), [ids[1]], "an erased run is not told of");
    assert_eq!(told(&index, 10), []);
    index.put_reviews(&[decided(&runs[2])]).unwrap();
    assert_eq!(told(&index, 10), [ids[2]]);
}
