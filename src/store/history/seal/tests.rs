//! Seals: written, read, chained, cut.

use super::*;
use crate::store::files::DiskFiles;
use crate::store::record::{BurstHead, Bursts, append};
use crate::store::testing::run_id;

const IDENTITY: Identity = Identity { cluster: [4; 16], shard: 3 };

fn parts(segment: u64, runs: u64, bursts: u64) -> Parts {
    let mut parts = Parts::default();
    for burst in 0..bursts {
        let mut payload = Vec::new();
        for run in 0..runs {
            let events = [crate::model::EventBody::RunResumed, crate::model::EventBody::RunResumed];
            let head = BurstHead { run_id: run_id(run), first_seq: 2 * burst + 1, at: Timestamp::default() };
            append(&mut payload, head, &events).unwrap();
        }
        for burst in Bursts::new(&payload).unwrap() {
            parts.add(segment, RetentionClass::of(std::time::Duration::from_secs(60)), &burst.unwrap());
        }
    }
    parts
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[9; 32]).unwrap()
}

// N19
#[test]
fn a_seal_is_read_as_it_was_written_and_names_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, now) = (&DiskFiles::new(dir.path().into()), Timestamp::from_micros(77));
    for segment in [4, 7] {
        write(dir, (IDENTITY, segment), &parts(segment, 3, 2), (now, &key())).unwrap();
    }
    write(dir, (IDENTITY, 9), &Parts::default(), (now, &key())).unwrap();
    assert_eq!(list(dir).unwrap(), [4, 7], "nothing was in 9");
    let (first, second) = (read(dir, 4).unwrap().unwrap(), read(dir, 7).unwrap().unwrap());
    assert_eq!((first.identity, first.segment, first.at, first.previous), (IDENTITY, 4, now, None));
    assert_eq!(first.parts, Some(parts(4, 3, 2)));
    assert_eq!(second.previous, Some((4, first.digest)));
    assert!(first.signed && first.whole && second.signed && second.whole);
    assert_eq!(first.key, key().public());
    let part = &first.parts.unwrap().0[&run_id(1)];
    assert_eq!((part.first, part.last, part.tags.len()), (1, 4, 2));
    assert_ne!(part.digest, second.parts.unwrap().0[&run_id(1)].digest, "a segment's part fits nowhere else");
    assert!(read(dir, 5).unwrap().is_none());
}

// N19
#[test]
fn no_byte_of_a_seal_can_be_changed_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &DiskFiles::new(dir.path().into());
    write(dir, (IDENTITY, 4), &parts(4, 2, 2), (Timestamp::default(), &key())).unwrap();
    let sound = std::fs::read(dir.place(&name(4))).unwrap();
    assert_eq!(&sound[..5], b"aobS\x01");
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 0x10;
        std::fs::write(dir.place(&name(4)), &changed).unwrap();
        let seen = match read(dir, 4) {
            Err(Error::HistoryCorrupt { .. }) => true,
            Ok(Some(seal)) => !seal.signed || !seal.whole,
            other => panic!("byte {at}: {other:?}"),
        };
        assert!(seen, "byte {at}");
    }
    // Cut anywhere: too short for a head, or a body that is not whole. Cut to its head it is whole, and speaks for nothing.
    for length in 0..sound.len() {
        std::fs::write(dir.place(&name(4)), &sound[..length]).unwrap();
        match read(dir, 4) {
            Err(_) => assert!(length < HEAD_BYTES, "{length}"),
            Ok(seal) => {
                let seal = seal.unwrap();
                assert_eq!((seal.whole, seal.parts.is_none()), (length == HEAD_BYTES, true), "{length}");
            }
        }
    }
}

#[test]
fn the_seal_of_what_is_forgotten_is_cut_to_its_head_and_the_chain_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &DiskFiles::new(dir.path().into());
    for segment in [1, 2] {
        write(dir, (IDENTITY, segment), &parts(segment, 2, 1), (Timestamp::default(), &key())).unwrap();
    }
    let class = RetentionClass::of(std::time::Duration::from_secs(60));
    std::fs::write(dir.place(&super::super::name(1, class)), b"").unwrap();
    file_gone(dir, 1).unwrap();
    assert!(read(dir, 1).unwrap().unwrap().parts.is_some(), "a file of it is left");
    std::fs::remove_file(dir.place(&super::super::name(1, class))).unwrap();
    let digest = read(dir, 1).unwrap().unwrap().digest;
    file_gone(dir, 1).unwrap();
    file_gone(dir, 8).unwrap();
    let cut = read(dir, 1).unwrap().unwrap();
    assert!(cut.parts.is_none() && cut.signed && cut.whole && cut.digest == digest);
    assert_eq!(read(dir, 2).unwrap().unwrap().previous, Some((1, digest)));
}
