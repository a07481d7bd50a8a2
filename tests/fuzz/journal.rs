//! The journal's bytes: frames, bursts, tokens, and whole directories that somebody has been at.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rkyv::util::AlignedVec;

use crate::model::token::Token;
use crate::model::{EventBody, RunId};
use crate::store::journal::Fence;
use crate::store::log::frame::{self, ALIGN_BYTES, HEADER_BYTES, Header, Identity, Kind};
use crate::store::log::{Source, recover, segment};
use crate::store::record::{BurstHead, Bursts, append};
use crate::time::Timestamp;

const IDENTITY: Identity = Identity { cluster: [0xab; 16], shard: 2 };
const SEGMENT_BYTES: usize = 6 * ALIGN_BYTES;
/// Segments with frames; one more is prepared.
const SEGMENTS: u64 = 4;
const EDITS_MAX: usize = 8;

/// A frame: what was built comes back, what was changed does not.
pub(super) fn frame(bytes: &[u8]) {
    if let Some(found) = frame::decode(bytes) {
        let mut again = vec![0; found.bytes];
        frame::encode(&mut again, &found.header, found.payload).unwrap();
        assert_eq!(frame::decode(&again).unwrap().header, found.header);
    }
    let _ = frame::claimed_bytes(bytes);
    let Some((numbers, payload)) = bytes.split_first_chunk::<48>() else { return };
    let number = |at: usize| u64::from_le_bytes(*numbers[at * 8..].first_chunk().unwrap());
    let header = Header {
        kind: if numbers[47] & 1 == 0 { Kind::Batch } else { Kind::Claim },
        identity: Identity { cluster: *numbers.first_chunk().unwrap(), shard: number(1) as u16 },
        segment: number(0),
        offset: number(1) as u32,
        position: number(2),
        fence: Fence { epoch: number(3), nonce: number(4) },
        durable: number(5),
        oldest: number(3),
        chain: number(4) as u32,
    };
    let mut built = vec![0xee; frame::frame_bytes(payload.len())];
    let crc = frame::encode(&mut built, &header, payload).unwrap();
    let found = frame::decode(&built).unwrap();
    assert_eq!((found.header, found.crc, found.payload), (header, crc, payload));
    let bit = number(2) as usize % (built.len() * 8);
    built[bit / 8] ^= 1 << (bit % 8);
    assert!(frame::decode(&built).is_none(), "bit {bit}");
}

/// Records: what is read can be written and read again.
pub(super) fn burst(bytes: &[u8]) {
    let Ok(bursts) = Bursts::new(bytes) else { return };
    for burst in bursts.map_while(Result::ok) {
        let Ok(events) = burst.events().collect::<Result<Vec<_>, _>>() else { continue };
        assert_eq!(events.len(), burst.count as usize);
        let mut again = Vec::new();
        append(&mut again, burst.head, events.iter().map(|event| &event.body)).unwrap();
        let reread = Bursts::new(&again).unwrap().next().unwrap().unwrap();
        let reread: Vec<_> = reread.events().map(Result::unwrap).collect();
        assert_eq!(format!("{reread:?}"), format!("{events:?}"));
    }
}

/// A token: read in place or refused.
pub(super) fn token(bytes: &[u8]) {
    let mut buffer = AlignedVec::new();
    let mut headed = b"aobT\x01\0\0\0".to_vec();
    headed.extend_from_slice(bytes);
    for bytes in [bytes, &headed] {
        let Ok(token) = Token::access_copied(bytes, &mut buffer) else { continue };
        let _ = (token.run(), token.place(), token.deadline());
        if let Ok(value) = token.value() {
            let _ = value.to_json();
        }
    }
}

/// A journal of several segments and two owners, as bytes of its files, and the seqs in it with their places.
struct Journal {
    files: BTreeMap<u64, Vec<u8>>,
    /// (position, segment, offset, bytes, seq; claims have none), in order.
    frames: Vec<(u64, u64, usize, usize, Option<u64>)>,
}

fn payload(seq: u64, filler: usize) -> Vec<u8> {
    let head = BurstHead {
        run_id: RunId::from_bytes([9; 16]),
        first_seq: seq,
        at: Timestamp::from_micros(1_700_000_000_000_000 + seq),
    };
    let mut out = Vec::new();
    append(&mut out, head, &[EventBody::RunCancelRequested { reason: "x".repeat(filler).into() }]).unwrap();
    out
}

fn journal() -> Journal {
    let mut journal = Journal { files: BTreeMap::new(), frames: Vec::new() };
    let (mut position, mut chain, mut seq) = (1, 0, 1);
    for segment in 1..=SEGMENTS {
        let mut file = vec![0; SEGMENT_BYTES];
        let mut offset = 0;
        // The last segment is not full, and the second owner begins in the third.
        let end = if segment == SEGMENTS { 3 * ALIGN_BYTES } else { SEGMENT_BYTES };
        while offset < end {
            let claims = position == 1 || (segment == 3 && offset == 2 * ALIGN_BYTES);
            let epoch = if segment > 3 || (segment == 3 && offset >= 2 * ALIGN_BYTES) { 2 } else { 1 };
            let wide = seq % 3 == 0 && offset + 2 * ALIGN_BYTES <= end;
            let body = if claims { Vec::new() } else { payload(seq, if wide { 5_000 } else { 50 }) };
            let header = Header {
                kind: if claims { Kind::Claim } else { Kind::Batch },
                identity: IDENTITY,
                segment,
                offset: offset as u32,
                position,
                fence: Fence { epoch, nonce: 77 * epoch },
                durable: position - 1,
                oldest: 1,
                chain,
            };
            let bytes = frame::frame_bytes(body.len());
            chain = frame::encode(&mut file[offset..offset + bytes], &header, &body).unwrap();
            journal.frames.push((position, segment, offset, bytes, (!claims).then_some(seq)));
            (position, offset, seq) = (position + 1, offset + bytes, seq + u64::from(!claims));
        }
        journal.files.insert(segment, file);
    }
    journal.files.insert(SEGMENTS + 1, vec![0; SEGMENT_BYTES]);
    journal
}

/// Where files are made, and what is in them; removed with the thread.
struct Folder {
    path: PathBuf,
    written: BTreeMap<u64, Vec<u8>>,
    original: Journal,
}

impl Folder {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let thread = format!("{:?}", std::thread::current().id());
        let digits: String = thread.chars().filter(char::is_ascii_digit).collect();
        let path = parent.join(format!("aob-fuzz-{}-{digits}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self { path, written: BTreeMap::new(), original: journal() }
    }

    /// Makes the folder hold `files`, touching only what differs.
    fn hold(&mut self, files: &BTreeMap<u64, Vec<u8>>) {
        let gone: Vec<u64> = self.written.keys().filter(|id| !files.contains_key(id)).copied().collect();
        for id in gone {
            std::fs::remove_file(segment::path(&self.path, id)).unwrap();
            self.written.remove(&id);
        }
        for (id, bytes) in files {
            if self.written.get(id) != Some(bytes) {
                std::fs::write(segment::path(&self.path, *id), bytes).unwrap();
                self.written.insert(*id, bytes.clone());
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

thread_local! {
    static FOLDER: RefCell<Folder> = RefCell::new(Folder::new());
}

/// One change to the files. True when it forges: it makes a frame sound that nobody wrote so.
fn edit(files: &mut BTreeMap<u64, Vec<u8>>, [op, which, at_low, at_high, value, other]: [u8; 6]) -> bool {
    let id = 1 + u64::from(which) % (SEGMENTS + 1);
    let other_id = 1 + u64::from(other) % (SEGMENTS + 1);
    let at = usize::from(u16::from_le_bytes([at_low, at_high])) % SEGMENT_BYTES;
    let block = at - at % ALIGN_BYTES;
    let copied = files.get(&other_id).cloned().unwrap_or_default();
    if op % 10 == 6 {
        files.remove(&id);
        return false;
    }
    let Some(file) = files.get_mut(&id) else { return false };
    match op % 10 {
        0 if at < file.len() => file[at] ^= 1 << (value % 8),
        1 if at < file.len() => file[at] = value,
        2 => file.iter_mut().skip(at).for_each(|byte| *byte = 0),
        3 => file.iter_mut().skip(at).take(512).for_each(|byte| *byte = value),
        4 => {
            let from = ALIGN_BYTES * (usize::from(value) % (SEGMENT_BYTES / ALIGN_BYTES));
            if let (Some(source), true) =
                (copied.get(from..from + ALIGN_BYTES), block + ALIGN_BYTES <= file.len())
            {
                file[block..block + ALIGN_BYTES].copy_from_slice(source);
            }
        }
        5 => file.truncate(at),
        7 => *file = copied,
        8 => {
            let first = std::mem::replace(file, copied);
            files.insert(other_id, first);
        }
        9 => return seal(file, block, value),
        _ => {}
    }
    false
}

/// Gives the frame at `block` the checksum of what it holds, with another number in its header.
fn seal(file: &mut [u8], block: usize, value: u8) -> bool {
    let Some(head) = file.get_mut(block..block + HEADER_BYTES) else { return false };
    let at = 12 + usize::from(value) % (HEADER_BYTES - 12);
    head[at] ^= value;
    let Some(total) = frame::claimed_bytes(&file[block..]) else { return false };
    let Some(whole) = file.get_mut(block..block + total) else { return false };
    let crc = crc32c::crc32c_append(crc32c::crc32c(&whole[..8]), &whole[12..]);
    whole[8..12].copy_from_slice(&crc.to_le_bytes());
    true
}

fn read(dir: &Path) -> Result<Vec<u64>, crate::store::Error> {
    let mut found = Vec::new();
    let marks = BTreeMap::new();
    let recovered = recover(Source { dir, identity: IDENTITY, marks: &marks }, &mut |_, burst| {
        found.push(burst.head.first_seq);
        burst.events().try_for_each(|event| event.map(drop))
    })?;
    assert!(recovered.next > found.len() as u64, "{recovered:?}");
    Ok(found)
}

/// A journal after up to eight changes: refused, or what was written, and never less than what an undamaged frame says
/// to have been synced (RELIABILITY B8-B10, B12).
pub(super) fn recovery(bytes: &[u8]) {
    FOLDER.with_borrow_mut(|folder| {
        let mut files = folder.original.files.clone();
        let mut forged = false;
        for change in bytes.chunks_exact(6).take(EDITS_MAX) {
            forged |= edit(&mut files, *change.first_chunk().unwrap());
        }
        folder.hold(&files);
        let (first, second) = (read(&folder.path), read(&folder.path));
        assert_eq!(format!("{first:?}"), format!("{second:?}"), "recovery twice is not recovery once");
        let (Ok(found), false) = (first, forged) else { return };
        let original = &folder.original;
        let written: Vec<u64> = original.frames.iter().filter_map(|frame| frame.4).collect();
        assert_eq!(found, written[..found.len()], "not what was written");
        let intact = |&(_, segment, offset, bytes, _): &(u64, u64, usize, usize, Option<u64>)| {
            let range = offset..offset + bytes;
            files.get(&segment).and_then(|file| file.get(range.clone()))
                == original.files[&segment].get(range)
        };
        let last = original.frames.iter().rposition(intact).map_or(0, |at| at + 1);
        let synced: BTreeSet<u64> = original.frames[..last].iter().filter_map(|frame| frame.4).collect();
        assert!(
            found.len() >= synced.len(),
            "a shorter log was taken for whole: {found:?}, but frame {last} is undamaged"
        );
    });
}
