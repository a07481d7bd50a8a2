//! What every store of contents owes, as one suite that each back end passes, and what only files can get wrong.

use std::path::Path;
use std::sync::Arc;

use super::disk::FileBlobs;
use super::memory::MemoryBlobs;
use super::{Blobs, hash};
use crate::io::disk::simulated::{self, Faults, SimulatedDisk};

/// Damages the blob, whatever it lies in.
pub(super) type Damage<'a> = &'a dyn Fn(&crate::model::ContentHash);

pub(super) fn suite(blobs: &Arc<dyn Blobs>, damage: Damage<'_>) {
    let absent = hash(b"absent");
    assert_eq!(blobs.get(&absent).unwrap(), None);
    assert_eq!(blobs.stat(&absent).unwrap(), None);
    assert!(!blobs.remove(&absent).unwrap());
    assert_eq!(blobs.list(None, 10).unwrap(), []);

    let contents: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; usize::from(n) * 331]).collect();
    for bytes in &contents {
        let put = blobs.put(bytes).unwrap();
        assert_eq!((put.sha256, put.is_new), (hash(bytes), true));
        assert!(!blobs.put(bytes).unwrap().is_new, "stored once");
        assert_eq!(blobs.get(&put.sha256).unwrap().as_ref(), Some(bytes));
        assert_eq!(blobs.stat(&put.sha256).unwrap(), Some(bytes.len() as u64));
    }
    let mut all: Vec<_> = contents.iter().map(|bytes| (hash(bytes), bytes.len() as u64)).collect();
    all.sort_unstable();
    assert_eq!(blobs.list(None, 100).unwrap(), all);
    for limit in [1, 7, 40] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = blobs.list(after.as_ref(), limit).unwrap();
            let Some((last, _)) = page.last() else { break };
            assert!(page.len() <= limit);
            after = Some(*last);
            listed.extend(page);
        }
        assert_eq!(listed, all, "in pages of {limit}");
    }

    // Several at once: some of them there, some twice.
    let more: Vec<Vec<u8>> = (30..60u8).map(|n| vec![n; usize::from(n) * 331]).collect();
    for few in [2, 30] {
        let mut together: Vec<&[u8]> = more.iter().rev().take(few).map(Vec::as_slice).collect();
        together.extend(more.first().map(Vec::as_slice));
        together.extend(more.last().map(Vec::as_slice));
        let puts = blobs.put_all(&together).unwrap();
        assert_eq!(puts.len(), together.len());
        for (put, bytes) in puts.iter().zip(&together) {
            assert_eq!(put.sha256, hash(bytes));
            assert_eq!(blobs.get(&put.sha256).unwrap().as_deref(), Some(*bytes));
        }
    }
    assert_eq!(blobs.list(None, 100).unwrap().len(), 60);
    for bytes in more.iter().skip(10) {
        assert!(blobs.remove(&hash(bytes)).unwrap());
    }

    // Never given out damaged; and whole again once it is put again.
    let bytes = &contents[3];
    damage(&hash(bytes));
    let error = blobs.get(&hash(bytes)).unwrap_err();
    assert_eq!(error.code(), "blob_corrupt");
    assert!(error.to_string().contains(&blobs.place(&hash(bytes)).display().to_string()), "{error}");
    blobs.put(bytes).unwrap();
    assert_eq!(blobs.get(&hash(bytes)).unwrap().as_ref(), Some(bytes));

    assert!(blobs.remove(&hash(bytes)).unwrap());
    assert_eq!(blobs.get(&hash(bytes)).unwrap(), None);
    assert!(blobs.put(bytes).unwrap().is_new);

    let racing = vec![9; 100_000];
    #[expect(clippy::disallowed_methods, reason = "what is shown here takes threads")]
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (blobs, racing) = (blobs.clone(), racing.clone());
            std::thread::spawn(move || blobs.put(&racing).unwrap().sha256)
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), hash(&racing));
    }
    assert_eq!(blobs.get(&hash(&racing)).unwrap(), Some(racing));
}

// F057, F060
#[test]
fn memory_does_as_it_should() {
    let memory = Arc::new(MemoryBlobs::default());
    let blobs: Arc<dyn Blobs> = memory.clone();
    suite(&blobs, &|sha256| assert!(memory.damage(sha256)));
}

// F057, F060
#[test]
fn files_do_as_they_should() {
    let root = tempfile::tempdir().unwrap();
    let files = Arc::new(FileBlobs::open(root.path()).unwrap());
    let blobs: Arc<dyn Blobs> = files.clone();
    suite(&blobs, &|sha256| {
        let path = files.place(sha256);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(path, bytes).unwrap();
    });
    // A cut file is damaged as well; and what has no name is gone after the next start.
    let path = files.place(&files.put(b"some bytes").unwrap().sha256);
    std::fs::write(&path, b"some").unwrap();
    assert_eq!(files.get(&hash(b"some bytes")).unwrap_err().code(), "blob_corrupt");
    std::fs::write(root.path().join("new/7"), b"left behind").unwrap();
    let before = files.list(None, 100).unwrap();
    let again = FileBlobs::open(root.path()).unwrap();
    assert!(!root.path().join("new/7").exists());
    assert_eq!(again.list(None, 100).unwrap(), before);
}

fn simulated_store(seed: u64) -> (SimulatedDisk, simulated::Mounted, FileBlobs) {
    let disk = SimulatedDisk::new(seed);
    let mounted = simulated::mount(&disk);
    let blobs = FileBlobs::open(Path::new("/data/cas")).unwrap();
    (disk, mounted, blobs)
}

// RELIABILITY I-3
#[test]
fn what_was_put_outlives_the_power_and_what_was_not_is_whole_or_gone() {
    for seed in 0..200 {
        let (disk, _mounted, blobs) = simulated_store(seed);
        disk.set_faults(Faults { write_error: 100_000, sync_error: 100_000, ..Faults::default() });
        let contents: Vec<Vec<u8>> = (1..20u8).map(|n| vec![n; usize::from(n) * 997]).collect();
        let put: Vec<bool> = contents.iter().map(|bytes| blobs.put(bytes).is_ok()).collect();
        disk.cut_power();
        disk.set_faults(Faults::default());
        let blobs = FileBlobs::open(Path::new("/data/cas")).unwrap();
        for (bytes, put) in contents.iter().zip(put) {
            match blobs.get(&hash(bytes)).unwrap() {
                Some(found) => assert_eq!(found, *bytes, "seed {seed}"),
                None => assert!(!put, "seed {seed}: {} bytes were put and are gone", bytes.len()),
            }
            assert!(blobs.put(bytes).is_ok());
        }
    }
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let lost = |faults: Faults| {
        (0..50).any(|seed| {
            let (disk, _mounted, blobs) = simulated_store(seed);
            disk.set_faults(faults);
            let sha256 = blobs.put(&[7; 9_000]).unwrap().sha256;
            disk.cut_power();
            !matches!(blobs.get(&sha256), Ok(Some(_)))
        })
    };
    assert!(lost(Faults { sync_lies: true, ..Faults::default() }), "files");
    assert!(lost(Faults { names_lie: true, ..Faults::default() }), "directories");
}
