//! Where a log ends: torn tails are cut, damage in the middle is refused, files that do not belong are named.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::store::log::frame::frame_bytes;

/// A small generator, so that a failing case can be named by its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The same frames, sound, as if they had been written to this file when it was an older segment.
fn older_life(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (bytes.to_vec(), 0);
    while let Some(found) = frame::decode(&bytes[at..]) {
        let header = frame::Header { segment: 0, ..found.header };
        frame::encode(&mut out[at..at + found.bytes], &header, found.payload).unwrap();
        at += found.bytes;
    }
    out
}

/// Changes a file in place: ext4 syncs files that are cut and written anew, which takes its time.
fn overwrite(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
    let file = fs::File::options().write(true).create(true).truncate(false).open(path)?;
    std::os::unix::fs::FileExt::write_all_at(&file, bytes.as_ref(), 0)?;
    file.set_len(bytes.as_ref().len() as u64)
}

/// Path and bounds of the last frame.
fn last_frame(dir: &Path) -> (PathBuf, usize, usize) {
    let (recovered, found) = read(dir).unwrap();
    let tail = recovered.tail.unwrap();
    let start = found.last().unwrap().1;
    assert_eq!(start.segment, tail.segment);
    (segment::path(dir, tail.segment), start.offset as usize, tail.offset as usize)
}

#[test]
fn a_new_or_empty_directory_is_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("none")] {
        let (recovered, found) = read(&path).unwrap();
        assert_eq!((recovered.next, recovered.fence, found.len()), (1, Fence::default(), 0));
        assert_eq!((recovered.tail, recovered.cut), (None, None));
    }
}

#[test]
fn recovery_twice_is_recovery_once() {
    // A3, I-17
    let (_guard, dir) = written(&[3000; 30], 32 << 10);
    let (first, found) = read(&dir).unwrap();
    let (second, again) = read(&dir).unwrap();
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    assert_eq!(found, again);
    assert_eq!((first.fence.epoch, first.next, first.cut), (1, 32, None));
}

#[test]
fn the_last_frame_cut_at_every_byte_is_dropped_whole_and_reported() {
    // B8, B9
    let (_guard, dir) = written(&[100, 200, 4500], 20 << 10);
    let (path, start, end) = last_frame(&dir);
    let whole = fs::read(&path).unwrap();
    let filled = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(start + 4500 < filled && filled <= end);
    for cut in start..end {
        for tail in 0..3 {
            let mut bytes = whole.clone();
            match tail {
                0 => bytes.truncate(cut),
                1 => bytes[cut..].fill(0),
                _ => bytes[cut..].fill(0xa5),
            }
            overwrite(&path, &bytes).unwrap();
            let (recovered, found) = read(&dir).unwrap();
            let intact = tail == 1 && cut >= filled;
            assert_eq!(found.len(), if intact { 3 } else { 2 }, "cut at {cut}, tail {tail}");
            if !intact && cut >= start + 48 {
                let reported = recovered.cut.unwrap();
                assert_eq!((reported.offset, reported.position), (start as u64, 4), "cut at {cut}");
            }
        }
    }
}

#[test]
fn after_a_torn_tail_the_log_goes_on_under_a_new_epoch() {
    let (_guard, dir) = written(&[100, 200, 5000], 32 << 10);
    let (path, start, _) = last_frame(&dir);
    let whole = fs::read(&path).unwrap();
    for cut in [start, start + 1, start + 100, start + 4096, start + 5000] {
        overwrite(&path, &whole[..cut]).unwrap();
        on_tokio(async {
            let mut log = open(&config(&dir, 32 << 10, FileKind::Plain)).await;
            let fence = log.claim(5).await.unwrap();
            assert_eq!((fence.epoch, log.next()), (2, 5));
            log.append(fence, 5, &batch(30, 10)).await.unwrap();
        });
        let (recovered, found) = read(&dir).unwrap();
        assert_eq!((seqs(&found), recovered.fence.epoch, recovered.cut), (vec![1, 2, 30], 2, None));
        assert_eq!(fs::metadata(&path).unwrap().len(), 32 << 10, "filled up again");
    }
}

#[test]
fn any_flipped_bit_is_refused_or_touches_only_the_last_frame() {
    // B10
    let sizes: Vec<usize> = (0..40).map(|n| n * 331 % 6000).collect();
    let (_guard, dir) = written(&sizes, 32 << 10);
    let (recovered, found) = read(&dir).unwrap();
    let (_, start, end) = last_frame(&dir);
    let tail = recovered.tail.unwrap().segment;
    assert!(tail > 5, "several segments");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut cut, mut harmless) = (0, 0, 0);
    for case in 0..2000 {
        let id = 1 + random.next() % (tail + 1);
        let path = segment::path(&dir, id);
        let whole = fs::read(&path).unwrap();
        let bit = (random.next() % (whole.len() as u64 * 8)) as usize;
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        overwrite(&path, &bytes).unwrap();
        match read(&dir) {
            Err(error) => {
                assert_eq!(error.code(), "journal_corrupt", "case {case}");
                assert!(error.to_string().contains(".seg at byte"), "{error}");
                refused += 1;
            }
            Ok((_, now)) if now == found => harmless += 1,
            Ok((_, now)) => {
                assert_eq!(now, found[..found.len() - 1], "case {case}");
                assert!(id == tail && (start..end).contains(&(bit / 8)), "case {case}");
                cut += 1;
            }
        }
        overwrite(&path, &whole).unwrap();
    }
    assert!(refused > 1000 && harmless > 0, "{refused} refused, {cut} cut, {harmless} harmless");
}

#[test]
fn damage_in_the_middle_is_refused_with_file_offset_and_position() {
    let (_guard, dir) = written(&[3000; 12], 32 << 10);
    let (_, found) = read(&dir).unwrap();
    for (_, frame) in &found[..found.len() - 1] {
        let path = segment::path(&dir, frame.segment);
        let whole = fs::read(&path).unwrap();
        for damage in [0, 0xff] {
            let mut bytes = whole.clone();
            let start = frame.offset as usize;
            bytes[start..start + frame_bytes(100)].fill(damage);
            overwrite(&path, &bytes).unwrap();
            let error = read(&dir).unwrap_err();
            assert_eq!(error.code(), "journal_corrupt");
            assert!(error.to_string().contains("position"), "{error}");
        }
        overwrite(&path, &whole).unwrap();
    }
}

#[test]
fn missing_swapped_copied_and_foreign_segments_are_refused() {
    // B12
    let (_guard, dir) = written(&[3000; 30], 32 << 10);
    let (recovered, _) = read(&dir).unwrap();
    let tail = recovered.tail.unwrap().segment;
    assert!(tail >= 4);
    let path = |id| segment::path(&dir, id);
    let refused = |what: &str| {
        let error = read(&dir).unwrap_err();
        assert_eq!(error.code(), "journal_corrupt", "{what}: {error}");
        error.to_string()
    };
    let aside = dir.join("aside");
    for id in 1..=tail {
        fs::rename(path(id), &aside).unwrap();
        assert!(refused("missing").contains("missing"), "segment {id}");
        // An empty file in the place of the last segment can not be told from a shorter log.
        for other in (1..=tail + u64::from(id < tail)).filter(|other| *other != id) {
            fs::copy(path(other), path(id)).unwrap();
            refused("copied");
        }
        fs::rename(&aside, path(id)).unwrap();
    }
    for (a, b) in [(1, 2), (2, 3), (1, tail)] {
        for _ in 0..2 {
            fs::rename(path(a), &aside).unwrap();
            fs::rename(path(b), path(a)).unwrap();
            fs::rename(&aside, path(b)).unwrap();
            if read(&dir).is_err() {
                refused("swapped");
            }
        }
    }
    // A copy of a living segment in the place of the prepared one.
    let prepared = fs::read(path(tail + 1)).unwrap();
    fs::copy(path(tail - 1), path(tail + 1)).unwrap();
    refused("duplicated");
    overwrite(path(tail + 1), prepared).unwrap();
    read(&dir).unwrap();

    for identity in [Identity { shard: 3, ..IDENTITY }, Identity { cluster: [1; 16], ..IDENTITY }] {
        let source = Source { dir: &dir, identity, marks: &BTreeMap::new() };
        let error = recover(source, &mut |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("another journal"), "{error}");
    }
}

#[test]
fn frames_of_one_write_that_was_never_synced_may_go_in_any_order() {
    // Level `os`, or several frames in one write: later frames may survive earlier ones.
    let dir = tempfile::tempdir().unwrap();
    on_tokio(async {
        let config = Config { durability: Durability::Os, ..config(dir.path(), 64 << 10, FileKind::Plain) };
        let (handle, _) = start(&config).await;
        for n in 1..=5 {
            handle.submit(batch(n, 10)).unwrap();
        }
        handle.wait(6).await.unwrap();
    });
    let (_, found) = read(dir.path()).unwrap();
    assert_eq!(seqs(&found), [1, 2, 3, 4, 5]);
    let path = segment::path(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    let hole = found[2].1.offset as usize;
    bytes[hole..hole + 4096].fill(0);
    overwrite(&path, &bytes).unwrap();
    let (recovered, found) = read(dir.path()).unwrap();
    assert_eq!(seqs(&found), [1, 2]);
    let cut = recovered.cut.unwrap();
    assert_eq!((cut.position, cut.offset, cut.dropped), (4, hole as u64, 2));

    // The orphans after the hole never come back, wherever the next owner's frames end.
    for more in 1..=4_u64 {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        on_tokio(async {
            let mut log = open(&config(copy.path(), 64 << 10, FileKind::Plain)).await;
            let fence = log.claim(1).await.unwrap();
            for n in 1..more {
                let position = log.next();
                log.append(fence, position, &batch(100 + n, 10)).await.unwrap();
            }
        });
        let (_, found) = read(copy.path()).unwrap();
        assert_eq!(seqs(&found), [1, 2].into_iter().chain((1..more).map(|n| 100 + n)).collect::<Vec<_>>());
    }
}

#[test]
fn a_log_that_was_cut_inside_its_first_claim_is_empty() {
    let (_guard, dir) = written(&[], 32 << 10);
    let path = segment::path(&dir, 1);
    let bytes = fs::read(&path).unwrap();
    for cut in [0, 1, 87, 4095] {
        overwrite(&path, &bytes[..cut]).unwrap();
        let (recovered, _) = read(&dir).unwrap();
        assert_eq!((recovered.next, recovered.fence.epoch, recovered.tail), (1, 0, None));
        on_tokio(async {
            let mut log = open(&config(&dir, 32 << 10, FileKind::Plain)).await;
            assert_eq!(log.claim(1).await.unwrap().epoch, 1);
        });
        assert_eq!(read(&dir).unwrap().0.next, 2);
    }
}

#[test]
fn marked_segments_are_not_read_and_the_chain_still_holds() {
    let (_guard, dir) = written(&[3000; 30], 32 << 10);
    let (recovered, found) = read(&dir).unwrap();
    for count in 1..=recovered.sealed.len() {
        let marks: BTreeMap<u64, Sealed> =
            recovered.sealed[..count].iter().map(|sealed| (sealed.segment, *sealed)).collect();
        let mut seen = Vec::new();
        let source = Source { dir: &dir, identity: IDENTITY, marks: &marks };
        let again = recover(source, &mut |frame, burst| {
            seen.push((burst.head.first_seq, frame));
            Ok(())
        });
        let again = again.unwrap();
        let last = recovered.sealed[count - 1].segment;
        assert_eq!(seen, found.iter().filter(|(_, frame)| frame.segment > last).copied().collect::<Vec<_>>());
        assert_eq!(
            (again.next, again.chain, again.sealed),
            (recovered.next, recovered.chain, recovered.sealed.clone())
        );
    }
    // A mark that does not fit the log is not believed.
    let wrong = Sealed { last_crc: 1, ..recovered.sealed[0] };
    let marks = BTreeMap::from([(1, wrong)]);
    let source = Source { dir: &dir, identity: IDENTITY, marks: &marks };
    assert!(recover(source, &mut |_, _| Ok(())).is_err());
}

#[test]
fn a_full_last_segment_is_sealed_under_its_own_owner_by_the_next_claim() {
    let (_guard, dir) = written(&[3000; 7], 32 << 10);
    assert_eq!(read(&dir).unwrap().0.tail.unwrap().offset, 32 << 10);
    let sealed = on_tokio(async {
        let mut log = open(&config(&dir, 32 << 10, FileKind::Plain)).await;
        log.claim(8).await.unwrap();
        let sealed: Vec<_> = log.sealed().copied().collect();
        log.close().await;
        sealed
    });
    let (recovered, found) = read(&dir).unwrap();
    assert_eq!((recovered.sealed.clone(), found.len()), (sealed, 7));
    assert_eq!((recovered.sealed[0].fence.epoch, recovered.fence.epoch, recovered.next), (1, 2, 10));
}

#[test]
fn a_visitor_stops_recovery_with_its_own_error() {
    let (_guard, dir) = written(&[10; 3], 32 << 10);
    let source = Source { dir: &dir, identity: IDENTITY, marks: &BTreeMap::new() };
    let error = recover(source, &mut |_, _| Err(Error::Gone { segment: 77 })).unwrap_err();
    assert!(matches!(error, Error::Gone { segment: 77 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever was appended, and wherever the tail was torn: what comes back is a prefix with everything
    /// before the tear.
    #[test]
    fn what_comes_back_is_a_prefix_with_everything_acknowledged(
        sizes in prop::collection::vec(0usize..9000, 1..40),
        at in any::<prop::sample::Index>(),
        filling in 0u8..4,
    ) {
        let (_guard, dir) = written(&sizes, 32 << 10);
        let (recovered, found) = read(&dir).unwrap();
        let tail = recovered.tail.unwrap();
        let path = segment::path(&dir, tail.segment);
        let mut bytes = fs::read(&path).unwrap();
        // The tear lies in the last frame: everything before it had been synced, and a later frame says so.
        let last = found.iter().rfind(|(_, frame)| frame.segment == tail.segment);
        let start = last.map_or(0, |(_, frame)| frame.offset as usize);
        let cut = start + at.index(bytes.len() - start);
        match filling {
            0 => bytes.truncate(cut),
            1 => bytes[cut..].fill(0),
            2 => bytes[cut..].fill(0x61),
            _ => {
                // Frames of an older life of the file, as in a recycled one.
                let old = older_life(&fs::read(segment::path(&dir, 1)).unwrap());
                let length = bytes.len();
                bytes[cut..].copy_from_slice(&old[cut..length]);
            }
        }
        {
            overwrite(&path, &bytes).unwrap();
            let kept = found.iter().filter(|(_, frame)| {
                frame.segment < tail.segment || (frame.offset as usize) < start
            }).count();
            let (_, now) = read(&dir).unwrap();
            prop_assert!(now.len() >= kept);
            prop_assert_eq!(&now[..], &found[..now.len()]);
        }
    }
}
