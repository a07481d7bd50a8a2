//! The log, written and read back, whole and not.

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const CLUSTER: [u8; 16] = [3; 16];

fn open(root: &Path, settings: Settings) -> Arc<Log> {
    let key = Arc::new(SigningKey::open(root).unwrap());
    Log::open((root, CLUSTER), key, settings, NOW).unwrap()
}

fn entry(target: &str, refused: bool) -> Entry {
    let status = if refused { 403 } else { 200 };
    let workspace = Some(String::from("default"));
    Entry { action: "POST /x".into(), target: target.into(), refused, status, workspace, ..Entry::default() }
}

fn put(log: &Log, target: &str) -> u64 {
    let seq = log.note(entry(target, false), NOW).unwrap().unwrap();
    log.flush(seq, NOW).unwrap();
    seq
}

fn verified(root: &Path) -> read::LogReport {
    let key = crate::store::signing::public_of(root);
    read::verify(root, CLUSTER, key.as_ref(), &mut |_| {}).unwrap()
}

// F415, N19
#[test]
fn records_are_numbered_chained_durable_and_listed_in_order() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let log = open(root, Settings::default());
    let seqs: Vec<u64> = (0..5).map(|n| put(&log, &format!("/{n}"))).collect();
    assert_eq!(seqs, [3, 4, 5, 6, 7], "`opened` and a checkpoint come first");
    drop(log);
    let log = open(root, Settings::default());
    assert_eq!(put(&log, "/after"), 10);
    let page = log.page((3, 2), &mut |record| record.workspace.is_some()).unwrap();
    let targets: Vec<_> = page.records.iter().map(|(_, record)| record.target.clone().unwrap()).collect();
    assert_eq!((targets, page.next), (vec![String::from("/1"), String::from("/2")], Some(5)));
    let rest = log.page((5, 100), &mut |record| record.workspace.is_some()).unwrap();
    assert_eq!((rest.records.len(), rest.next), (3, None));
    let report = verified(root);
    assert_eq!((report.findings.len(), report.first, report.last, report.checkpoints), (0, 1, 10, 2));
    assert_eq!(report.head, rest.records[2].0);
}

// N19
#[test]
fn a_byte_flipped_a_record_cut_doubled_or_moved_is_found_and_named() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let log = open(root, Settings::default());
    (0..4).for_each(|n| assert!(put(&log, &format!("/{n}")) > 0));
    drop(log);
    let file = path(root, 1);
    let sound = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = sound.lines().collect();
    let with = |lines: &[&str]| lines.join("\n") + "\n";
    for (what, text, named) in [
        ("flipped", sound.replace("\"/2\"", "\"/7\""), "record 5 is not the one"),
        ("cut", with(&[&lines[..4], &lines[5..]].concat()), "record 5 is expected, and 6"),
        ("doubled", with(&[&lines[..4], &lines[3..]].concat()), "record 5 is expected, and 4"),
        (
            "moved",
            with(&[lines[0], lines[1], lines[2], lines[4], lines[3], lines[5]]),
            "record 4 is expected, and 5",
        ),
        ("no record", sound.replace("{\"seq\":5", "{\"seq\":x"), "record 5 is no record"),
    ] {
        fs::write(&file, text).unwrap();
        let found = verified(root).findings;
        assert!(found.len() == 1 && found[0].contains(named), "{what}: {found:?}");
    }
    // Every byte of it.
    for at in (0..sound.len()).step_by(7) {
        let mut bytes = sound.clone().into_bytes();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let report = verified(root);
        assert!(!report.findings.is_empty() || report.last < 6, "byte {at}");
    }
    // A chain made anew without the key has no sound checkpoint.
    let other = tempfile::tempdir().unwrap();
    let forged = open(other.path(), Settings::default());
    put(&forged, "/0");
    fs::copy(path(other.path(), 1), &file).unwrap();
    assert!(verified(root).findings[0].contains("checkpoint 2 is not signed"));
}

// RELIABILITY B1
#[test]
fn half_a_record_at_the_end_is_dropped_and_whole_ones_that_do_not_fit_are_set_aside() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    put(&open(root, Settings::default()), "/0");
    let file = path(root, 1);
    let sound = fs::read(&file).unwrap();
    fs::write(&file, [&sound[..], b"0123 {\"seq\":"].concat()).unwrap();
    put(&open(root, Settings::default()), "/1");
    let report = verified(root);
    assert_eq!((report.findings.len(), report.set_aside.len(), report.last), (0, 0, 6));
    let text = fs::read_to_string(&file).unwrap().replace("\"/1\"", "\"/2\"");
    fs::write(&file, text).unwrap();
    let log = open(root, Settings::default());
    let page = log.page((5, 10), &mut |_| true).unwrap();
    assert_eq!(page.records[0].1.action, "set_aside");
    assert!(page.records[0].1.detail.as_deref().unwrap().contains("record 6 is not the one"));
    let report = verified(root);
    assert_eq!((report.findings.len(), report.set_aside.len()), (0, 1));
}

#[test]
fn the_oldest_file_goes_when_there_is_too_much_and_a_signed_anchor_says_where_the_rest_begins() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let settings = Settings { bytes_max: limits::AUDIT_FILE_BYTES, ..Settings::default() };
    let log = open(root, settings);
    let filler = "x".repeat(4_000);
    let mut last = 0;
    while read::files(root).unwrap().first() == Some(&1) {
        for _ in 0..500 {
            last = log.note(entry(&filler, false), NOW).unwrap().unwrap();
        }
        log.flush(last, NOW).unwrap();
    }
    let report = verified(root);
    assert!(report.findings.is_empty() && report.first > 1 && report.last >= last, "{report:?}");
    drop(log);
    put(&open(root, settings), "/after");
    assert!(verified(root).findings.is_empty());
    // An anchor that says something else.
    let anchor = root.join(DIRECTORY).join(ANCHOR);
    let text = fs::read_to_string(&anchor).unwrap();
    fs::write(
        &anchor,
        text.replace(&format!("\"first\":{}", report.first), &format!("\"first\":{}", report.first + 1)),
    )
    .unwrap();
    assert!(verified(root).findings[0].contains("anchor"));
}

#[test]
fn too_many_refusals_are_counted_and_the_next_record_says_how_many() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), Settings::default());
    let most = limits::AUDIT_REFUSALS_PER_SECOND_MAX;
    let taken = (0..most + 30).filter(|_| log.note(entry("/", true), NOW).unwrap().is_some()).count() as u64;
    assert_eq!(taken, most);
    let seq = put(&log, "/next");
    let page = log.page((seq - 1, 1), &mut |_| true).unwrap();
    assert_eq!(page.records[0].1.unrecorded, Some(30));
    let later = Timestamp::from_micros(NOW.as_micros() + 1_000_000);
    assert!(log.note(entry("/", true), later).unwrap().is_some());
}

#[test]
fn a_write_that_fails_is_final_and_says_so() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), Settings::default());
    log.writer.lock().unwrap().file = File::open(path(root.path(), 1)).unwrap();
    let seq = log.note(entry("/", false), NOW).unwrap().unwrap();
    assert_eq!(log.flush(seq, NOW).unwrap_err().code(), "audit_failed");
    assert!(log.failure().is_some() && log.note(entry("/", false), NOW).is_err());
}

#[test]
fn many_threads_share_a_sync_and_none_loses_its_record() {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path(), Settings::default());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = &log;
            scope.spawn(move || (0..20).for_each(|n| assert!(put(log, &format!("/{thread}/{n}")) > 0)));
        }
    });
    let page = log.page((0, 1_000), &mut |record| record.target.is_some()).unwrap();
    assert_eq!(page.records.len(), 160);
    assert!(verified(root.path()).findings.is_empty());
}
