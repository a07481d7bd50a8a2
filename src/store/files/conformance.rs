//! What every place for files owes, shown.

use std::sync::Arc;

use super::{Files, UNFINISHED, read, write};

/// Names and bytes, in order.
fn listed(files: &dyn Files) -> Vec<(String, u64)> {
    let mut listed = files.list().unwrap();
    listed.sort();
    listed
}

/// Bytes of which no two parts are alike.
fn bytes(count: usize) -> Vec<u8> {
    (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).take(count).collect()
}

/// A place that is empty, and how to see it as another process would.
pub(crate) fn suite(files: &Arc<dyn Files>, again: &dyn Fn() -> Arc<dyn Files>) {
    assert_eq!(listed(&**files), []);
    assert!(files.open("a").unwrap().is_none());
    files.remove("a").unwrap();

    // Whole or not at all.
    let long = bytes(300_001);
    let mut begun = files.begin("a").unwrap();
    for piece in long.chunks(70_000) {
        begun.append(piece).unwrap();
    }
    assert!(files.open("a").unwrap().is_none());
    assert!(listed(&**files).iter().all(|(name, _)| name.ends_with(UNFINISHED)));
    begun.finish().unwrap();
    write(&**files, "b", b"").unwrap();
    for files in [files.clone(), again()] {
        assert_eq!(listed(&*files), [(String::from("a"), 300_001), (String::from("b"), 0)]);
        assert_eq!(read(&*files, "a").unwrap().as_ref(), Some(&long));
        assert_eq!(read(&*files, "b").unwrap(), Some(Vec::new()));
        let opened = files.open("a").unwrap().unwrap();
        assert_eq!(opened.length(), 300_001);
        for (at, count) in [(0, 1), (65_535, 2), (65_536, 65_536), (131_071, 140_000), (300_000, 1), (7, 0)] {
            assert_eq!(opened.read(at as u64, count).unwrap(), long[at..at + count], "{at} {count}");
        }
        opened.read(300_000, 2).unwrap_err();
    }

    // In place of another, which is there until then.
    let mut begun = files.begin("a").unwrap();
    begun.append(b"short").unwrap();
    assert_eq!(read(&**files, "a").unwrap().as_ref(), Some(&long));
    begun.finish().unwrap();
    assert_eq!(read(&*again(), "a").unwrap(), Some(b"short".to_vec()));
    let mut begun = files.begin("a").unwrap();
    begun.append(&long).unwrap();
    begun.abandon();
    assert_eq!(read(&**files, "a").unwrap(), Some(b"short".to_vec()));

    // What whoever died left is seen, and goes.
    let mut begun = files.begin("c").unwrap();
    begun.append(&long).unwrap();
    drop(begun);
    let left: Vec<_> = listed(&*again()).into_iter().filter(|(name, _)| name.ends_with(UNFINISHED)).collect();
    assert!(left.len() == 1 && left[0].0.starts_with('c'), "{left:?}");
    files.remove(&left[0].0).unwrap();
    files.remove("b").unwrap();
    assert_eq!(listed(&*again()), [(String::from("a"), 5)]);
}

// F063
#[test]
fn a_directory_does_as_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let files = || -> Arc<dyn Files> { Arc::new(super::DiskFiles::new(dir.path().join("one/two"))) };
    suite(&files(), &files);
    let place = files().place("a");
    assert!(place.starts_with(dir.path()) && place.ends_with("a"), "{place:?}");
}
