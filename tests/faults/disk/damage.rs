//! Files of a real node that were damaged while it was down: torn ends, flipped bits, files that are missing, doubled,
//! swapped, of another node. What was synced and is damaged is refused in one line; never a shorter history as if whole.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use aob::store::log::frame::{self, ALIGN_BYTES, Header, Kind};

use super::clients::{self, Acks, Start};
use crate::harness::{Node, Options};
use crate::kills::rounds;
use crate::recorder::Dice;

/// A data directory with runs in it, left by `kill -9`, and a copy of its journal to begin every case with.
struct Left {
    directory: tempfile::TempDir,
    options: Options,
    acks: Acks,
    /// The first segment as it was left.
    bytes: Vec<u8>,
    /// Offsets, headers and bytes of its frames.
    frames: Vec<(usize, Header, usize)>,
}

impl Left {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = clients::options(directory.path());
        let node = Node::start(&options);
        Acks::register(&node);
        let mut acks = Acks::default();
        assert_eq!(acks.start_some(&mut node.client(), 60), Start::Acknowledged);
        acks.all_there(&node);
        node.kill();
        let bytes = fs::read(segment(directory.path(), 1)).unwrap();
        let (mut frames, mut at) = (Vec::new(), 0);
        while let Some(found) = frame::decode(&bytes[at..]) {
            frames.push((at, found.header, found.bytes));
            at += found.bytes;
        }
        assert!(frames.len() > 20, "{} frames", frames.len());
        Self { directory, options, acks, bytes, frames }
    }

    fn path(&self, id: u64) -> PathBuf {
        segment(self.directory.path(), id)
    }

    /// The first segment holds this. The index is as the node left it.
    fn put(&self, bytes: &[u8]) {
        let file = fs::File::options().write(true).open(self.path(1)).unwrap();
        // All but the used beginning are zeros on either side.
        let end = self.frames.last().map_or(0, |(at, _, bytes)| at + bytes) + (1 << 20);
        let end = end.min(bytes.len());
        file.write_all_at(&bytes[..end], 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
    }

    /// Starts a node: `Err` is what it said when it refused.
    fn start(&self) -> Result<Node, String> {
        Node::try_start(&self.options).map_err(|(status, said)| {
            assert!(!status.success(), "{said}");
            said
        })
    }

    /// Starts a node that must refuse in one line, and names it.
    fn refused(&self, case: &str) -> String {
        match self.start() {
            Ok(node) => panic!("{case}: it serves ({} missing)", self.acks.missing(&node).len()),
            Err(said) => {
                let line = said.lines().find(|line| line.contains("corrupt")).map(str::to_owned);
                line.unwrap_or_else(|| panic!("{case}: {said}"))
            }
        }
    }
}

fn segment(directory: &Path, id: u64) -> PathBuf {
    directory.join("shards/000").join(format!("{id:016x}.seg"))
}

// RELIABILITY B8, B9
#[test]
fn a_torn_end_is_cut_and_everything_before_it_is_there() {
    let left = Left::new();
    let (start, header, length) = *left.frames.last().unwrap();
    // What stands before the last write was acknowledged by it.
    let kept = left.frames.iter().filter(|(_, other, _)| other.position <= header.durable).count();
    assert!(kept > 10);
    let mut dice = Dice::new(81, 0);
    for round in 0..rounds(9, 120) {
        let cut = start + dice.below(length as u64) as usize;
        let mut bytes = left.bytes.clone();
        match round % 3 {
            0 => bytes[cut..].fill(0),
            1 => bytes[cut..cut + ALIGN_BYTES].fill(0xa5),
            // An older life of the file: sound frames of another segment.
            _ => {
                let (at, older, count) = left.frames[dice.below(kept as u64) as usize];
                let payload = &left.bytes[at + frame::HEADER_BYTES..at + count];
                let payload = &payload[..payload_length(&left.bytes, at).min(payload.len())];
                let place = start..start + count;
                frame::encode(&mut bytes[place], &Header { segment: 0, ..older }, payload).unwrap();
            }
        }
        left.put(&bytes);
        let node = left.start().unwrap_or_else(|said| panic!("cut at {cut} ({round}): {said}"));
        // Nothing is missing but what the very last write may have held.
        let missing = left.acks.missing(&node);
        assert!(missing.len() <= 1, "cut at {cut} ({round}): {missing:?}");
        node.kill();
        left.put(&left.bytes);
    }
}

fn payload_length(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(*bytes[at + 12..].first_chunk().unwrap()) as usize
}

// RELIABILITY B10
#[test]
fn a_flipped_bit_is_refused_or_harms_nothing() {
    let left = Left::new();
    let known = left.frames.iter().map(|(_, header, _)| header.durable).max().unwrap();
    let within: Vec<_> = left.frames.iter().filter(|(_, header, _)| header.position <= known).collect();
    let mut dice = Dice::new(101, 0);
    let mut refused = 0;
    for round in 0..rounds(24, 400) {
        let (at, header, length) = within[dice.below(within.len() as u64) as usize];
        let bit = dice.below(*length as u64 * 8) as usize;
        let mut bytes = left.bytes.clone();
        bytes[at + bit / 8] ^= 1 << (bit % 8);
        left.put(&bytes);
        let said = left.refused(&format!("bit {bit} of frame {} ({round})", header.position));
        assert!(said.contains(".seg at byte") && said.contains("position"), "{said}");
        refused += 1;
        left.put(&left.bytes);
    }
    let node = left.start().unwrap();
    left.acks.all_there(&node);
    println!("{refused} refused, and mended all is there");
}

// RELIABILITY B12
#[test]
fn files_that_do_not_belong_are_refused() {
    let (left, other) = (Left::new(), Left::new());
    let aside = left.directory.path().join("aside");
    // Missing: the second one, prepared, is there.
    fs::rename(left.path(1), &aside).unwrap();
    left.refused("the first segment is missing");
    // Another node's.
    fs::copy(other.path(1), left.path(1)).unwrap();
    assert!(left.refused("of another node").contains("another journal"));
    // The same twice.
    fs::copy(&aside, left.path(1)).unwrap();
    let prepared = left.directory.path().join("prepared");
    fs::rename(left.path(2), &prepared).unwrap();
    fs::copy(&aside, left.path(2)).unwrap();
    left.refused("doubled");
    // In each other's place.
    fs::copy(&prepared, left.path(1)).unwrap();
    left.refused("swapped");
    fs::rename(&aside, left.path(1)).unwrap();
    fs::rename(&prepared, left.path(2)).unwrap();
    let node = left.start().unwrap();
    left.acks.all_there(&node);
    // A claim of each start stands in the journal by now.
    let kinds = left.frames.iter().filter(|(_, header, _)| header.kind == Kind::Claim).count();
    assert_eq!(kinds, 1);
}

// RELIABILITY B16
#[test]
fn a_second_node_on_the_same_directory_is_refused_until_the_first_is_dead() {
    let directory = tempfile::tempdir().unwrap();
    let options = clients::options(directory.path());
    let first = Node::start(&options);
    Acks::register(&first);
    let mut acks = Acks::default();
    for _ in 0..3 {
        let Err((status, said)) = Node::try_start(&options) else { panic!("two nodes on one directory") };
        assert!(!status.success() && said.contains(&first.pid().to_string()), "{said}");
        assert_eq!(acks.start_some(&mut first.client(), 10), Start::Acknowledged);
    }
    first.kill();
    let second = Node::start(&options);
    acks.all_there(&second);
}

/// The journal of the index of a node that was killed, and the end of what was written to it.
fn index_journal(left: &Left) -> (PathBuf, Vec<u8>, usize) {
    let path = left.directory.path().join("index/0.jnl");
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (path, bytes, end)
}

// RELIABILITY B4: as a disk leaves it that became full in the middle of the head of a row, with zeros behind it.
#[test]
fn a_torn_write_of_the_index_is_cut_and_the_node_starts() {
    let left = Left::new();
    let (path, bytes, end) = index_journal(&left);
    // A batch of one item: its value is 93 bytes long, and takes none on the disk, where the rest is zeros.
    let torn =
        [&[1, 1, 0, 0, 0][..], &[9; 8], &[2, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 16, 0, 93, 0, 0, 0]].concat();
    assert!(bytes.len() > end + 4096, "zeros are behind it");
    fs::File::options().write(true).open(&path).unwrap().write_all_at(&torn, end as u64).unwrap();
    let node = left.start().unwrap();
    left.acks.all_there(&node);
    let said = node.kill();
    let line =
        said.lines().find(|line| line.contains("the index was mended")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains(&format!("from {end} on")) && line.contains("never finished"), "{line}");
    let node = left.start().unwrap();
    left.acks.all_there(&node);
    assert!(!node.kill().contains("mended"));
}

// RELIABILITY B9, B11: what was finished and cannot be read is kept, and told until somebody has removed it. Everything
// that the journal has comes back.
#[test]
fn a_damaged_write_of_the_index_is_told_and_what_follows_is_kept() {
    let left = Left::new();
    let (path, bytes, end) = index_journal(&left);
    let file = fs::File::options().write(true).open(&path).unwrap();
    // Within the last batch, before its end.
    file.write_all_at(&[bytes[end - 20] ^ 1], end as u64 - 20).unwrap();
    drop(file);
    for start in ["first", "second"] {
        let node = left.start().unwrap();
        left.acks.all_there(&node);
        let said = node.kill();
        assert!(said.contains("holds what could not be read of the index"), "{start}: {said}");
        assert_eq!(said.contains("1 writes end in them"), start == "first", "{said}");
    }
    let pieces = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let pieces: Vec<_> = pieces.filter(|path| path.to_string_lossy().contains(".cut-")).collect();
    assert_eq!(pieces.len(), 1, "{pieces:?}");
    let piece = fs::read(&pieces[0]).unwrap();
    assert_eq!(piece[..piece.len() - 20], bytes[end - piece.len()..end - 20]);
    fs::remove_file(&pieces[0]).unwrap();
    let node = left.start().unwrap();
    left.acks.all_there(&node);
    assert!(!node.kill().contains("could not be read"));
}
