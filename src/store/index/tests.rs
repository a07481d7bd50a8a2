//! The index: what is put comes back, marks and registrations survive, keys expire.

use super::*;
use crate::model::event::Idempotency;
use crate::model::{FrameRef, Partition, RunFilter, RunSummary, Status};
use crate::store::journal::Fence;
use crate::store::log::Sealed;

pub(super) fn row(n: u64, workflow: &str, status: Status, segments: &[u64]) -> ArchiveRow {
    let started_at = Timestamp::from_micros(1_700_000_000_000_000 + n * 1000);
    let run_id = RunId::new(started_at, Partition::new(0), [n as u8; 10]);
    ArchiveRow {
        summary: RunSummary {
            run_id,
            workflow: workflow.into(),
            version: "1".into(),
            status,
            seq: 9,
            epoch: 1,
            started_at,
            ended_at: Some(started_at.saturating_add(Duration::from_secs(1))),
            run_key: None,
        },
        document: [3; 32],
        shard: 1,
        frames: segments.iter().map(|segment| FrameRef { segment: *segment, offset: 4096 }).collect(),
        idempotency: Some(Idempotency { key: [n as u8; 16], fingerprint: [n as u8 + 1; 16] }),
        acknowledged: (Status::Running, 3),
        run_key: None,
        imaged: false,
    }
}

fn query(limit: usize) -> ArchiveQuery {
    ArchiveQuery { before: None, filter: RunFilter::default(), limit, scan_limit: 1000 }
}

pub(super) fn mark(segment: u64) -> SegmentMark {
    let fence = Fence { epoch: 3, nonce: 4 };
    let sealed = Sealed { segment, first: 10 * segment, last: 10 * segment + 9, last_crc: 77, fence };
    SegmentMark { sealed, expires_at: Timestamp::from_micros(5) }
}

fn ids(page: &ArchivePage) -> Vec<RunId> {
    page.rows.iter().map(|row| row.summary.run_id).collect()
}

#[test]
fn rows_come_back_newest_first_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let rows: Vec<_> = (0..25).map(|n| row(n, "w", Status::Completed, &[1])).collect();
    index.put(&rows).unwrap();
    index.put(&rows[..5]).unwrap();
    assert_eq!(Archive::get(&index, rows[7].summary.run_id).unwrap().as_ref(), Some(&rows[7]));
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let page = Archive::list(&index, &ArchiveQuery { before, ..query(10) }).unwrap();
        seen.extend(ids(&page));
        assert_eq!(page.next.is_some(), seen.len() < 25);
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    let expected: Vec<_> = rows.iter().rev().map(|row| row.summary.run_id).collect();
    assert_eq!(seen, expected);
}

#[test]
fn filters_look_at_a_bounded_number_of_rows_and_go_on_where_they_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let rows: Vec<_> = (0..30)
        .map(|n| {
            let status = if n % 10 == 0 { Status::Failed } else { Status::Completed };
            row(n, if n % 2 == 0 { "even" } else { "odd" }, status, &[1])
        })
        .collect();
    index.put(&rows).unwrap();
    let failed = ArchiveQuery {
        filter: RunFilter { statuses: vec![Status::Failed], ..RunFilter::default() },
        scan_limit: 15,
        ..query(10)
    };
    let page = Archive::list(&index, &failed).unwrap();
    assert_eq!(ids(&page), [rows[20].summary.run_id]);
    let page = Archive::list(&index, &ArchiveQuery { before: page.next, ..failed }).unwrap();
    assert_eq!(ids(&page), [rows[10].summary.run_id, rows[0].summary.run_id]);
    let odd = ArchiveQuery {
        filter: RunFilter { workflow: Some("odd".into()), ..RunFilter::default() },
        ..query(100)
    };
    assert_eq!(Archive::list(&index, &odd).unwrap().rows.len(), 15);
}

#[test]
fn a_key_answers_until_it_expires_also_when_its_run_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let first = row(1, "w", Status::Completed, &[1]);
    index.put(std::slice::from_ref(&first)).unwrap();
    let ended = first.summary.ended_at.unwrap();
    let last = ended.saturating_add(Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS - 1));
    let expected = Some((first.summary.run_id, [2; 16]));
    assert_eq!(index.key(&[1; 16], last).unwrap(), expected);
    assert_eq!(index.expire(1, 1).unwrap(), 1);
    assert_eq!(index.key(&[1; 16], last).unwrap(), expected);
    assert_eq!(index.sweep_keys(last, 100).unwrap(), 0);
    let past = last.saturating_add(Duration::from_secs(1));
    assert_eq!(index.key(&[1; 16], past).unwrap(), None);

    // The key is used again: the old entry's end must not take the new one with it.
    let mut again = row(9, "w", Status::Completed, &[2]);
    again.summary.ended_at = Some(past);
    again.idempotency = first.idempotency;
    index.put(std::slice::from_ref(&again)).unwrap();
    let swept = past.saturating_add(Duration::from_secs(5));
    assert_eq!(index.sweep_keys(swept, 100).unwrap(), 1);
    assert_eq!(index.key(&[1; 16], swept).unwrap(), Some((again.summary.run_id, [2; 16])));
}

#[test]
fn marks_are_there_after_a_crash_with_every_row_put_before() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..10).map(|n| row(n, "w", Status::Failed, &[1, 2])).collect();
    let index = Index::open(dir.path()).unwrap();
    index.put(&rows).unwrap();
    index.mark_segment(1, &mark(2)).unwrap();
    index.mark_segment(1, &mark(1)).unwrap();
    index.mark_segment(300, &mark(1)).unwrap();
    // The process dies here: nothing is closed.
    copy_tree(dir.path(), copy.path());
    let index = Index::open(copy.path()).unwrap();
    assert_eq!(index.marks(1).unwrap(), [mark(1), mark(2)]);
    assert_eq!(index.marks(300).unwrap().len(), 1);
    assert_eq!(Archive::list(&index, &query(100)).unwrap().rows.len(), 10);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn expiring_a_segment_forgets_the_runs_in_it_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let only_one = row(1, "w", Status::Completed, &[1]);
    let both = row(2, "w", Status::Completed, &[1, 2, 2]);
    let only_two = row(3, "w", Status::Completed, &[2]);
    let other_shard = ArchiveRow { shard: 2, ..row(4, "w", Status::Completed, &[1]) };
    index.put(&[only_one.clone(), both.clone(), only_two.clone(), other_shard.clone()]).unwrap();
    index.mark_segment(1, &mark(1)).unwrap();
    let ended = |row: &ArchiveRow| Archive::ended(&index, row.summary.run_id).unwrap();
    assert_eq!(ended(&both), both.summary.ended_at);
    assert_eq!(index.expire(1, 1).unwrap(), 2);
    let left = ids(&Archive::list(&index, &query(10)).unwrap());
    assert_eq!(left, [&other_shard, &only_two].map(|row| row.summary.run_id));
    assert_eq!((ended(&only_one), ended(&both)), (None, both.summary.ended_at), "a frame of it is left");
    assert!(index.marks(1).unwrap().is_empty());
    assert_eq!(index.expire(1, 1).unwrap(), 0);
    assert_eq!(index.expire(1, 2).unwrap(), 1);
    assert_eq!((ended(&both), ended(&only_two)), (None, None));
    assert_eq!(ids(&Archive::list(&index, &query(10)).unwrap()), [other_shard.summary.run_id]);
}

#[test]
fn registering_is_idempotent_and_a_version_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let register = |version, content: u8| index.register("w", version, &[content], [content; 32]);
    let new = |version: &str| Registered { version: version.into(), created: true };
    let known = |version: &str| Registered { version: version.into(), created: false };
    assert_eq!(register(Some("1.0"), 1).unwrap(), new("1.0"));
    assert_eq!(register(Some("1.0"), 1).unwrap(), known("1.0"));
    let conflict = register(Some("1.0"), 2).unwrap_err();
    assert_eq!(conflict.code(), "workflow_conflict");
    assert!(conflict.to_string().contains("1.0"));
    assert_eq!(register(None, 1).unwrap(), known("1.0"));
    assert_eq!(register(None, 2).unwrap(), new("1"));
    assert_eq!(register(None, 3).unwrap(), new("2"));
    assert_eq!(register(Some("7"), 4).unwrap(), new("7"));
    assert_eq!(register(None, 5).unwrap(), new("8"));
    assert_eq!(register(Some("again"), 1).unwrap(), new("again"));
    assert_eq!(index.register("w2", None, &[1], [1; 32]).unwrap(), new("1"), "names do not share versions");
    drop(index);

    let index = Index::open(dir.path()).unwrap();
    let version = |version| Registry::get(&index, "w", version).unwrap().map(|found| found.hash);
    assert_eq!(version(Some("1.0")), Some([1; 32]));
    assert_eq!(version(None), Some([1; 32]), "the one registered last");
    assert_eq!((version(Some("3")), Registry::get(&index, "x", None).unwrap()), (None, None));
    assert_eq!(index.by_hash(&[4; 32]).unwrap(), Some(vec![4]));
    assert_eq!(index.by_hash(&[99; 32]).unwrap(), None);
    let all = Registry::list(&index, None, 100).unwrap();
    let names: Vec<_> = all.iter().map(|found| format!("{}@{}", found.name, found.version)).collect();
    assert_eq!(names, ["w@1.0", "w@1", "w@2", "w@7", "w@8", "w@again", "w2@1"]);
    let rest = Registry::list(&index, Some(("w", "7")), 2).unwrap();
    assert_eq!(rest, all[4..6]);
    assert_eq!(Registry::list(&index, Some(("w", "again")), 9).unwrap(), all[6..]);
}

#[test]
fn concurrent_registrations_of_one_document_make_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let created = std::thread::scope(|scope| {
        let tasks: Vec<_> =
            (0..4).map(|_| scope.spawn(|| index.register("w", None, &[1], [1; 32]).unwrap())).collect();
        tasks.into_iter().map(|task| task.join().unwrap()).filter(|registered| registered.created).count()
    });
    assert_eq!((created, Registry::list(&index, None, 10).unwrap().len()), (1, 1));
}

fn keyed(n: u64, workflow: &str, run_key: &str) -> ArchiveRow {
    ArchiveRow { run_key: Some(run_key.into()), ..row(n, workflow, Status::Completed, &[1]) }
}

#[test]
fn runs_are_found_by_their_business_key_and_by_the_time_of_their_start() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let rows = [
        keyed(1, "a", "k"),
        keyed(2, "b", "k"),
        keyed(3, "a", "kk"),
        keyed(4, "acme/a", "k"),
        keyed(5, "a", "k"),
    ];
    index.put(&rows).unwrap();
    let of =
        |filter: RunFilter, limit| Archive::list(&index, &ArchiveQuery { filter, ..query(limit) }).unwrap();
    let by_key = RunFilter { run_key: Some("k".into()), ..RunFilter::default() };
    let numbers = |page: &ArchivePage| -> Vec<u8> {
        page.rows.iter().map(|row| row.idempotency.as_ref().unwrap().key[0]).collect()
    };
    let page = of(by_key.clone(), 10);
    assert_eq!(numbers(&page), [5, 2, 1]);
    assert_eq!(page.rows[0].summary.run_key.as_deref(), Some("k"));
    let first = of(by_key.clone(), 2);
    assert_eq!((numbers(&first), first.next), (vec![5, 2], Some(rows[1].summary.run_id)));
    let second = ArchiveQuery { before: first.next, filter: by_key.clone(), ..query(2) };
    assert_eq!(numbers(&Archive::list(&index, &second).unwrap()), [1]);
    assert_eq!(numbers(&of(RunFilter { workflow: Some("a".into()), ..by_key.clone() }, 10)), [5, 1]);
    let acme = RunFilter { workspace: "acme".parse().unwrap(), ..by_key.clone() };
    assert_eq!(numbers(&of(acme, 10)), [4]);
    let at = rows[1].summary.started_at;
    assert_eq!(numbers(&of(RunFilter { started_after: Some(at), ..RunFilter::default() }, 10)), [5, 3, 2]);
    assert_eq!(numbers(&of(RunFilter { started_before: Some(at), ..by_key.clone() }, 10)), [1]);
    // What lies outside the span, but for some slack, is not even looked at.
    let far = Timestamp::from_micros(at.as_micros() + 3_600_000_000);
    let narrow = ArchiveQuery {
        filter: RunFilter { started_after: Some(far), ..RunFilter::default() },
        scan_limit: 0,
        ..query(10)
    };
    assert_eq!(Archive::list(&index, &narrow).unwrap().next, None);

    index.expire(1, 1).unwrap();
    assert!(of(by_key, 10).rows.is_empty());
    assert_eq!(index.run_keys.iter().count(), 0, "nothing is left behind");
}

#[test]
fn a_row_from_before_there_were_business_keys_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let row = row(1, "a", Status::Completed, &[1]);
    let mut bytes = encode(&row).unwrap();
    assert_eq!(bytes.pop(), Some(0), "the key is the last thing of a row");
    index.runs.insert(*row.summary.run_id.as_bytes(), bytes).unwrap();
    assert_eq!(Archive::get(&index, row.summary.run_id).unwrap(), Some(row));
}

// F060: what a forgotten run referred to is free to go.
#[test]
fn a_run_that_is_forgotten_refers_to_nothing() {
    use crate::store::references::References as _;
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let rows: Vec<_> = (0..2).map(|n| row(n, "w", Status::Completed, &[n + 1])).collect();
    index.put(&rows).unwrap();
    let content = [7; 32];
    for row in &rows {
        index.refer(row.summary.run_id, &Workspace::DEFAULT, &[content, [8; 32]]).unwrap();
    }
    assert_eq!(index.expire(1, 1).unwrap(), 1);
    assert_eq!(index.referrers(&content, None, 9).unwrap(), [rows[1].summary.run_id]);
    assert_eq!(index.referring(None, 9).unwrap(), [rows[1].summary.run_id]);
}
