//! The index: what is put comes back, marks and registrations survive, keys expire.

use super::*;
use crate::model::event::Idempotency;
use crate::model::{FrameRef, Partition, RunFilter, RunSummary, Status};
use crate::store::archive::{Registered, Registry};
use crate::store::history::MovedFile;
use crate::store::index::testing::open;
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
        idempotency: Some(Idempotency { key: [n as u8; 16], fingerprint: [(n as u8).wrapping_add(1); 16] }),
        acknowledged: (Status::Running, 3),
        run_key: None,
        class: Some(hour()),
        version: None,
        arm: None,
        imaged: false,
        used: Vec::new(),
    }
}

fn hour() -> RetentionClass {
    RetentionClass::named("1h").unwrap()
}

fn file(segment: u64) -> FileId {
    FileId { shard: 1, segment, class: hour() }
}

/// Segment `n` of shard 1 was moved, with one file.
fn moved(n: u64, ended: &[&ArchiveRow], live: &[&ArchiveRow], forgotten: &[&ArchiveRow]) -> Moved {
    let ids = |rows: &[&ArchiveRow]| rows.iter().map(|row| row.summary.run_id).collect();
    let moved = MovedFile {
        file: file(n),
        bytes: 100 * n,
        ended: ids(ended),
        last_ended: Timestamp::from_micros(1_700_000_100_000_000),
        live: ids(live),
    };
    Moved { shard: 1, sealed: sealed(n), files: vec![moved], forgotten: ids(forgotten) }
}

/// When everything of the tests above is over.
fn over() -> Timestamp {
    Timestamp::from_micros(1_700_010_000_000_000)
}

fn query(limit: usize) -> ArchiveQuery {
    ArchiveQuery { before: None, from: None, filter: RunFilter::default(), limit, scan_limit: 1000 }
}

pub(super) fn sealed(segment: u64) -> Sealed {
    let fence = Fence { epoch: 3, nonce: 4 };
    Sealed { segment, first: 10 * segment, last: 10 * segment + 9, last_crc: 77, fence }
}

fn ids(page: &ArchivePage) -> Vec<RunId> {
    page.rows.iter().map(|row| row.summary.run_id).collect()
}

#[test]
pub(crate) fn rows_come_back_newest_first_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
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
pub(crate) fn filters_look_at_a_bounded_number_of_rows_and_go_on_where_they_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let rows: Vec<_> = (0..30)
        .map(|n| {
            let status = if n % 10 == 0 { Status::Failed } else { Status::Completed };
            row(n, if n % 2 == 0 { "even" } else { "odd" }, status, &[1])
        })
        .collect();
    index.put(&rows).unwrap();
    let failed = ArchiveQuery {
        filter: RunFilter { statuses: vec![Status::Failed], ..RunFilter::default() },
        ..query(10)
    };
    let page = Archive::list(&index, &failed).unwrap();
    assert_eq!(ids(&page), [20, 10, 0].map(|n: usize| rows[n].summary.run_id));
    assert_eq!(page.looked_at, 3, "of thirty");
    let filter = RunFilter { version: Some("2".into()), ..RunFilter::default() };
    let other = ArchiveQuery { filter, scan_limit: 20, ..query(10) };
    let page = Archive::list(&index, &other).unwrap();
    assert_eq!((page.looked_at, page.next), (20, Some(rows[10].summary.run_id)));
    let page = Archive::list(&index, &ArchiveQuery { before: page.next, ..other }).unwrap();
    assert_eq!((page.looked_at, page.next), (10, None));
    let odd = ArchiveQuery {
        filter: RunFilter { workflow: Some("odd".into()), ..RunFilter::default() },
        ..query(100)
    };
    assert_eq!(Archive::list(&index, &odd).unwrap().rows.len(), 15);
}

#[test]
pub(crate) fn a_key_answers_until_it_expires_also_when_its_run_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let first = row(1, "w", Status::Completed, &[1]);
    index.put(std::slice::from_ref(&first)).unwrap();
    let ended = first.summary.ended_at.unwrap();
    let last = ended.saturating_add(Duration::from_secs(limits::IDEMPOTENCY_KEY_SECONDS - 1));
    let (status, seq) = first.acknowledged;
    let summary = RunSummary { status, seq, ended_at: None, ..first.summary.clone() };
    let expected =
        Some(KeyAnswer { run_id: first.summary.run_id, fingerprint: [2; 16], summary: Some(summary) });
    assert_eq!(index.key(&[1; 16], last).unwrap(), expected);
    index.moved(&moved(1, &[&first], &[], &[]), first.summary.started_at).unwrap();
    assert_eq!(index.expire(file(1), over(), 100).unwrap(), Expiry::All(1));
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
    assert_eq!(index.key(&[1; 16], swept).unwrap().unwrap().run_id, again.summary.run_id);
}

#[test]
fn marks_are_there_after_a_crash_with_every_row_put_before() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..10).map(|n| row(n, "w", Status::Failed, &[1, 2])).collect();
    let index = open(dir.path());
    index.put(&rows).unwrap();
    for n in [2, 1] {
        index.moved(&moved(n, &[], &[], &[]), over()).unwrap();
    }
    index.moved(&Moved { shard: 300, ..moved(1, &[], &[], &[]) }, over()).unwrap();
    // The process dies here: nothing is closed.
    copy_tree(dir.path(), copy.path());
    let index = Index::open(copy.path()).unwrap();
    let marks = [1, 2].map(|n| SegmentMark { sealed: sealed(n), moved: true });
    assert_eq!(index.marks(1).unwrap(), marks);
    assert_eq!(
        index.files(1).unwrap().iter().map(|row| (row.file, row.bytes)).collect::<Vec<_>>(),
        [(file(1), 100), (file(2), 200)]
    );
    index.unmark(1, 2).unwrap();
    assert_eq!(index.marks(1).unwrap(), marks[1..]);
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

fn known(index: &Index, run_id: RunId) -> Known {
    index.known(&[run_id]).unwrap()[0]
}

// F086
#[test]
pub(crate) fn a_file_that_is_over_takes_its_runs_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let one = row(1, "w", Status::Completed, &[1]);
    let both = row(2, "w", Status::Completed, &[1, 2, 2]);
    let two = row(3, "w", Status::Completed, &[2]);
    let week = ArchiveRow { class: RetentionClass::named("7d"), ..row(4, "w", Status::Completed, &[1]) };
    let shard = ArchiveRow { shard: 2, ..row(5, "w", Status::Completed, &[1]) };
    let all = [one.clone(), both.clone(), two.clone(), week.clone(), shard.clone()];
    index.put(&all).unwrap();
    let start = one.summary.started_at;
    index.moved(&moved(1, &[&one, &both], &[], &[]), start).unwrap();
    index.moved(&moved(2, &[&both, &two], &[], &[]), start).unwrap();
    assert_eq!(index.due(start, 10).unwrap(), []);
    assert_eq!(index.due(over(), 10).unwrap(), [file(1), file(2)]);
    assert_eq!(index.due(over(), 1).unwrap(), [file(1)]);
    let ended = |row: &ArchiveRow| Archive::ended(&index, row.summary.run_id).unwrap();
    // The later file goes first: the beginning of `both` is still there.
    assert_eq!(index.expire(file(2), over(), 1).unwrap(), Expiry::Some(1));
    assert_eq!(index.expire(file(2), over(), 1).unwrap(), Expiry::All(1));
    assert_eq!((ended(&two), ended(&both)), (None, both.summary.ended_at), "events of it are left");
    index.put(&all[1..2]).unwrap();
    assert_eq!(Archive::get(&index, both.summary.run_id).unwrap(), None, "it does not come back");
    assert_eq!(known(&index, both.summary.run_id), Known::Forgotten);
    assert_eq!(index.expire(file(1), over(), 100).unwrap(), Expiry::All(1));
    assert_eq!((ended(&one), ended(&both)), (None, None));
    let left = ids(&Archive::list(&index, &query(10)).unwrap());
    assert_eq!(left, [&shard, &week].map(|row| row.summary.run_id));
    assert_eq!((index.files(1).unwrap(), index.due(over(), 10).unwrap()), (vec![], vec![]));
}

#[test]
pub(crate) fn a_file_stays_for_as_long_as_a_run_in_it_lives_and_its_class_says() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let mut long = row(1, "w", Status::Completed, &[1, 2]);
    index.moved(&moved(1, &[], &[&long], &[]), over()).unwrap();
    assert_eq!(known(&index, long.summary.run_id), Known::Live(hour()));
    let hours = |n: u64| over().saturating_add(Duration::from_secs(3600 * n));
    assert_eq!(index.due(hours(0), 9).unwrap(), []);
    assert_eq!(index.due(hours(1), 9).unwrap(), [file(1)]);
    assert_eq!(index.expire(file(1), hours(1), 9).unwrap(), Expiry::Later(hours(2)));
    // It ends, under a document that says another class by now: its later events go where the first ones are.
    long.summary.ended_at = Some(hours(1));
    long.class = RetentionClass::named("7d");
    index.put(std::slice::from_ref(&long)).unwrap();
    assert_eq!(known(&index, long.summary.run_id), Known::Ended(hours(1), Some(hour())));
    index.moved(&Moved { files: vec![], ..moved(2, &[], &[], &[]) }, hours(1)).unwrap();
    let last = Timestamp::from_micros(hours(2).as_micros() - 1);
    assert_eq!(index.expire(file(1), last, 9).unwrap(), Expiry::Later(hours(2)));
    assert_eq!(index.expire(file(1), hours(2), 9).unwrap(), Expiry::All(1));
    for keyspace in [&index.open_members, &index.spanning, &index.file_expiry, &index.file_runs] {
        assert_eq!(keyspace.iter().count(), 0);
    }
}

#[test]
pub(crate) fn an_erased_run_is_gone_at_once_and_named_until_its_events_are() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let both = ArchiveRow { run_key: Some("order 7".into()), ..row(2, "w", Status::Completed, &[1, 2]) };
    index.put(std::slice::from_ref(&both)).unwrap();
    let run_id = both.summary.run_id;
    index.moved(&moved(1, &[&both], &[], &[]), over()).unwrap();
    assert!(index.erase(run_id).unwrap());
    assert!(!index.erase(run_id).unwrap());
    assert_eq!((Archive::get(&index, run_id).unwrap(), known(&index, run_id)), (None, Known::Forgotten));
    assert!(Archive::list(&index, &query(9)).unwrap().rows.is_empty());
    let answer = index.key(&[2; 16], both.summary.started_at).unwrap().unwrap();
    assert_eq!((answer.run_id, answer.summary.unwrap().run_key), (run_id, None));
    let erasure = index.erasure().unwrap().unwrap();
    assert_eq!(erasure, Erasure { file: file(1), runs: vec![run_id] });
    index.erased(&erasure, Some((50, 4))).unwrap();
    assert_eq!(index.erasure().unwrap(), None);
    assert_eq!(index.files(1).unwrap()[0].bytes, 50);
    assert_eq!(known(&index, run_id), Known::Forgotten, "segment 2 is still a journal's");
    index.moved(&moved(2, &[], &[], &[&both]), over()).unwrap();
    assert_eq!(known(&index, run_id), Known::Nothing);
}

#[test]
pub(crate) fn registering_is_idempotent_and_a_version_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
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

    let index = open(dir.path());
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
pub(crate) fn concurrent_registrations_of_one_document_make_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
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
pub(crate) fn runs_are_found_by_their_business_key_and_by_the_time_of_their_start() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
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

    let rows: Vec<_> = rows.iter().collect();
    index.moved(&moved(1, &rows, &[], &[]), at).unwrap();
    index.expire(file(1), over(), 100).unwrap();
    assert!(of(by_key, 10).rows.is_empty());
    for keyspace in [&index.run_keys, &index.lists, &index.file_runs, &index.files] {
        assert_eq!(keyspace.iter().count(), 0, "nothing is left behind");
    }
}

#[test]
pub(crate) fn a_row_from_before_there_were_business_keys_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let row = ArchiveRow { class: None, ..row(1, "a", Status::Completed, &[1]) };
    let mut bytes = encode(&row).unwrap();
    bytes.truncate(bytes.len() - 3);
    assert_eq!(encode(&row).unwrap()[bytes.len()..], [0; 3], "the key, the class, the graph's version");
    index.runs.insert(*row.summary.run_id.as_bytes(), bytes).unwrap();
    assert_eq!(Archive::get(&index, row.summary.run_id).unwrap(), Some(row));
}

// F060: what a forgotten run referred to is free to go.
#[test]
pub(crate) fn a_run_that_is_forgotten_refers_to_nothing() {
    use crate::model::Workspace;
    use crate::store::references::References as _;
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let rows: Vec<_> = (0..2).map(|n| row(n, "w", Status::Completed, &[n + 1])).collect();
    index.put(&rows).unwrap();
    let content = [7; 32];
    for row in &rows {
        index.refer(row.summary.run_id, &Workspace::DEFAULT, &[content, [8; 32]]).unwrap();
    }
    index.moved(&moved(1, &[&rows[0]], &[], &[]), Timestamp::default()).unwrap();
    index.expire(file(1), over(), 100).unwrap();
    assert_eq!(index.referrers(&content, None, 9).unwrap(), [rows[1].summary.run_id]);
    assert_eq!(index.referring(None, 9).unwrap(), [rows[1].summary.run_id]);
}

// F086
#[test]
pub(crate) fn a_file_goes_before_its_time_unless_a_run_in_it_may_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let ended = row(1, "w", Status::Completed, &[1, 2]);
    let late = row(2, "w", Status::Completed, &[1, 2]);
    index.put(std::slice::from_ref(&ended)).unwrap();
    let now = ended.summary.ended_at.unwrap();
    index.moved(&moved(1, &[&ended], &[&late], &[]), now).unwrap();
    let before = index.files(1).unwrap();
    assert!(matches!(index.expire_early(file(1), 9).unwrap(), Expiry::Later(_)));
    assert_eq!(index.files(1).unwrap(), before, "nothing is changed");
    assert_eq!(Archive::get(&index, ended.summary.run_id).unwrap(), Some(ended.clone()));
    index.put(std::slice::from_ref(&late)).unwrap();
    assert!(before[0].expires_at > now, "its time has not come");
    assert_eq!(index.expire_early(file(1), 1).unwrap(), Expiry::Some(1));
    assert_eq!(index.expire_early(file(1), 9).unwrap(), Expiry::All(1));
    assert_eq!(index.files(1).unwrap(), []);
    for run in [&ended, &late] {
        let run_id = run.summary.run_id;
        assert_eq!(Archive::get(&index, run_id).unwrap(), None);
        // Their other events are still in the journal: nobody may take them for runs that go on.
        assert_eq!(known(&index, run_id), Known::Forgotten);
    }
}
