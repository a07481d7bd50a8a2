//! What a full disk, a killed process and a power cut leave of the database's journal, and what comes of it.

use super::*;
use crate::model::Status;
use crate::store::Archive;
use crate::store::archive::Registry as _;
use crate::store::index::Index;
use crate::store::index::tests::row;

/// An index with some rows, then closed; its journal, and where its last batch begins.
fn closed(dir: &Path) -> (PathBuf, u64) {
    let journal = dir.join("0.jnl");
    {
        let index = Index::open(dir).unwrap();
        index.put(&[row(1, "w", Status::Completed, &[1]), row(2, "w", Status::Failed, &[1])]).unwrap();
        index.register("w", Some("1"), b"{}", [7; 32]).unwrap();
    }
    let last = whole(&journal);
    Index::open(dir).unwrap().put(&[row(3, "w", Status::Completed, &[1])]).unwrap();
    assert!(whole(&journal) > last);
    (journal, last)
}

/// Bytes of whole batches.
fn whole(journal: &Path) -> u64 {
    let mut batches = Batches { source: File::open(journal).unwrap(), at: 0 };
    let mut at = 0;
    while batches.next_is_whole().unwrap() {
        at = batches.at;
    }
    at
}

fn is_there(index: &Index, n: u64) -> bool {
    Archive::get(index, row(n, "w", Status::Completed, &[1]).summary.run_id).unwrap().is_some()
}

/// Everything up to the last batch is there, and what is written from now on stays.
fn goes_on(dir: &Path, what: &str) -> Vec<Cut> {
    let index = Index::open(dir).unwrap();
    assert!(is_there(&index, 1) && is_there(&index, 2), "{what}");
    assert!(!is_there(&index, 3), "{what}: a write that was never finished");
    assert!(index.by_hash(&[7; 32]).unwrap().is_some(), "{what}");
    let cuts = index.cuts().to_vec();
    index.put(&[row(4, "w", Status::Completed, &[1])]).unwrap();
    index.register("v", Some("1"), b"[]", [8; 32]).unwrap();
    drop(index);
    let index = Index::open(dir).unwrap();
    assert!([1, 2, 4].iter().all(|n| is_there(&index, *n)), "{what}");
    assert!(index.by_hash(&[8; 32]).unwrap().is_some(), "{what}");
    assert!(index.cuts().is_empty(), "{what}: once");
    cuts
}

// RELIABILITY B4: a full disk takes a part of a write; behind it are the zeros that the file was made of. Wherever the
// write is torn, what was written before is there.
#[test]
fn a_write_that_was_torn_by_a_full_disk_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, last) = closed(dir.path());
    let (bytes, end) = (fs::read(&journal).unwrap(), whole(&journal));
    let end = usize::try_from(end).unwrap();
    let last = usize::try_from(last).unwrap();
    // Every place in the heads, of the batch and of its first item; then some.
    let places = (last + 1..last + 60).chain((last + 60..end).step_by(37)).chain(end - 14..end);
    for at in places {
        for zeros in [0, 10_000] {
            let mut torn = bytes[..at].to_vec();
            torn.resize(at + zeros, 0);
            fs::write(&journal, &torn).unwrap();
            assert_eq!(mend(dir.path()).unwrap().len(), 1, "torn at {at}");
            assert_eq!(fs::read(&journal).unwrap(), bytes[..last], "torn at {at}");
        }
    }
    assert!(kept(dir.path()).unwrap().is_empty());
    let mut torn = bytes[..end - 1].to_vec();
    torn.resize(1 << 20, 0);
    fs::write(&journal, &torn).unwrap();
    let cuts = goes_on(dir.path(), "torn");
    assert_eq!((cuts[0].at, cuts[0].finished, &cuts[0].kept), (last as u64, 0, &None));
}

// RELIABILITY B4: the head of an item is torn between its two lengths, of which the second is zero then.
#[test]
fn an_item_whose_second_length_was_torn_off_does_not_keep_the_index_from_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, last) = closed(dir.path());
    let mut bytes = fs::read(&journal).unwrap();
    // Start: 13 bytes. Item: tag, kind, compression, keyspace, length of the key, of the value; then that on the disk.
    let torn = usize::try_from(last).unwrap() + 13 + 1 + 1 + 1 + 8 + 2 + 4;
    assert_ne!(bytes[torn - 4], 0);
    assert_eq!(bytes[torn - 4], bytes[torn]);
    bytes[torn..].fill(0);
    bytes.resize(torn + 100_000, 0);
    fs::write(&journal, &bytes).unwrap();
    goes_on(dir.path(), "torn between lengths");
}

// RELIABILITY B3, B11: a block that did not get to the disk, or was damaged there, before writes that did.
#[test]
fn finished_writes_behind_a_broken_one_are_kept_beside_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, last) = closed(dir.path());
    Index::open(dir.path()).unwrap().put(&[row(5, "w", Status::Completed, &[1])]).unwrap();
    let (bytes, end) = (fs::read(&journal).unwrap(), whole(&journal));
    let (last_at, end_at) = (usize::try_from(last).unwrap(), usize::try_from(end).unwrap());
    for broken in [last_at, last_at + 3, last_at + 40, last_at + 200] {
        let mut damaged = bytes.clone();
        damaged[broken] ^= 0x40;
        fs::write(&journal, &damaged).unwrap();
        let cuts = mend(dir.path()).unwrap();
        let piece = dir.path().join(format!("0.cut-{last}"));
        assert_eq!(kept(dir.path()).unwrap(), std::slice::from_ref(&piece), "at {broken}");
        assert_eq!(fs::read(&piece).unwrap(), damaged[last_at..end_at], "at {broken}");
        let cut = Cut { file: journal.clone(), at: last, bytes: end - last, finished: 2, kept: Some(piece) };
        assert_eq!(cuts, [cut], "at {broken}");
    }
    goes_on(dir.path(), "damaged");
    assert_eq!(kept(dir.path()).unwrap().len(), 1, "until somebody removes it");
}

// The database's format is read here as the database writes it: long values, removals, many items, several journals.
#[test]
fn what_the_database_wrote_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let long = "long".repeat(5_000);
    for n in 0..40 {
        index.put(&[row(n, "w", Status::Completed, &[1]), row(n + 40, &long, Status::Failed, &[2])]).unwrap();
        index.register("w", Some(&n.to_string()), long.as_bytes(), [n as u8; 32]).unwrap();
        assert!(index.erase(row(n, "w", Status::Completed, &[1]).summary.run_id).unwrap());
    }
    drop(index);
    let journal = dir.path().join("0.jnl");
    let written = rest(&File::open(&journal).unwrap(), 0).unwrap();
    assert_eq!(written.bytes, whole(&journal));
    assert!(written.finished >= 120, "{}", written.finished);
    assert!(mend(dir.path()).unwrap().is_empty());
    assert!(Index::open(dir.path()).unwrap().cuts().is_empty());
}

#[test]
fn ends_are_counted_across_the_parts_that_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.jnl");
    let end = [&[END][..], &[9; 8], &TRAILER].concat();
    for before in READ_BYTES - 2 * END_BYTES..READ_BYTES + 2 {
        let bytes = [&vec![1; before][..], &end, &vec![0; READ_BYTES], &end, &[0; 77]].concat();
        fs::write(&path, &bytes).unwrap();
        let rest = rest(&File::open(&path).unwrap(), 0).unwrap();
        assert_eq!((rest.bytes, rest.finished), (bytes.len() as u64 - 77, 2), "{before}");
    }
}

#[test]
fn journals_of_another_format_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = closed(dir.path());
    fs::write(dir.path().join("version"), b"FJL\x04").unwrap();
    fs::write(&journal, b"another format").unwrap();
    assert!(mend(dir.path()).unwrap().is_empty());
    assert_eq!(fs::read(&journal).unwrap(), b"another format");
    assert!(mend(&dir.path().join("nothing")).unwrap().is_empty());
}
