//! A whole shard, looked over.

use super::super::tests::{CLUSTER, log_of_two_runs, move_all};
use super::*;
use crate::store::layout::{history_dir, shard_dir};
use crate::store::signing::SigningKey;

fn report(root: &Path, key: &SigningKey) -> Report {
    let mut report = Report::default();
    History::new(root, CLUSTER).verify(0, Some(&key.public()), &mut report).unwrap();
    report
}

fn codes(report: &Report) -> Vec<&'static str> {
    report.findings.iter().map(|finding| finding.code).collect()
}

// N19, F415
#[test]
fn a_sound_shard_has_no_finding_and_each_kind_of_tampering_one() {
    let root = tempfile::tempdir().unwrap();
    let key = SigningKey::from_seed(&[5; 32]).unwrap();
    log_of_two_runs(root.path(), 10);
    let dir = history_dir(root.path(), 0);
    let before = report(root.path(), &key);
    assert_eq!((codes(&before), before.seals, before.journal_bursts), (vec![], 0, 20));
    let moved = move_all(root.path(), &key) as u64;
    // The rest of the journal says that it begins with what was moved: a node tells it when it gives segments back.
    std::fs::remove_dir_all(shard_dir(root.path(), 0)).unwrap();
    let sound = report(root.path(), &key);
    assert_eq!(codes(&sound), [""; 0], "{sound:?}");
    assert_eq!((sound.seals, sound.parts, sound.unsealed_files), (moved, 2 * moved, 0));
    let first = seal::list(&*History::new(root.path(), CLUSTER).files(0)).unwrap()[0];
    let file = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
        path.extension().is_some_and(|end| end == "hist")
            && path.to_string_lossy().contains(&format!("{first:016x}"))
    });
    let file = file.unwrap();

    // One byte, somewhere in the events.
    let bytes = std::fs::read(&file).unwrap();
    let mut changed = bytes.clone();
    changed[bytes.len() / 3] ^= 1;
    std::fs::write(&file, &changed).unwrap();
    let found = report(root.path(), &key);
    assert_eq!(codes(&found), ["history_corrupt"]);
    assert!(found.findings[0].what.contains(file.file_name().unwrap().to_str().unwrap()), "{found:?}");
    std::fs::write(&file, &bytes).unwrap();

    // A seal that is gone, and one that somebody else has signed.
    let path = dir.join(seal::name(first + 1));
    let seal = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let found = report(root.path(), &key);
    assert!(
        codes(&found).iter().all(|code| *code == "seal_missing") && !found.findings.is_empty(),
        "{found:?}"
    );
    std::fs::write(&path, &seal).unwrap();
    let other = SigningKey::from_seed(&[6; 32]).unwrap();
    assert!(codes(&report(root.path(), &other)).contains(&"seal_forged"));

    // A file that has gone with its time is no finding.
    std::fs::remove_file(&file).unwrap();
    let found = report(root.path(), &key);
    assert_eq!((codes(&found), found.forgotten), (vec![], 2));
}
