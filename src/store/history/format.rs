//! Bytes of a history file (`docs/formats/history.md`): header, blocks, tables, runs, trailer.
//!
//! Everything that is read has a checksum and is checked before it is believed; lengths are bounded before memory is taken.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::model::{RetentionClass, RunId};
use crate::store::journal::Fence;
use crate::store::log::Sealed;
use crate::store::log::frame::Identity;

/// First bytes of a file.
pub const MAGIC: [u8; 4] = *b"aobH";
/// First bytes of its trailer.
pub const TRAILER_MAGIC: [u8; 4] = *b"aobT";
/// Version of the format.
pub const VERSION: u8 = 1;
/// Bytes before the first block.
pub const HEADER_BYTES: usize = 40;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 48;
/// Bytes before a part's packed bytes.
pub const PART_HEAD_BYTES: usize = 12;
/// Bytes before a record's payload in a block.
pub const RECORD_HEAD_BYTES: usize = 8;
/// Largest part, unpacked: a segment and its record heads fit.
const PART_BYTES_MAX: usize = 1 << 31;
/// `cargo bench --bench history` prints what each level gives and costs.
const LEVEL: i32 = 3;

thread_local! {
    // Making a context costs more than unpacking a small part; each call begins it anew.
    static PACKER: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// The shard whose journal held the events.
    pub shard: u16,
    /// The segment they were written to.
    pub segment: u64,
    /// How long its runs are kept.
    pub class: RetentionClass,
}

/// A frame in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Offset of the frame in its segment.
    pub offset: u32,
    /// Index of the block.
    pub block: u32,
    /// Where its record begins in the block, unpacked.
    pub at: u32,
}

/// What a file says about itself at its end, runs aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The segment that was moved.
    pub sealed: Sealed,
    /// Where each block begins.
    pub blocks: Vec<u64>,
    /// Frames by offset.
    pub frames: Vec<Place>,
}

/// Where the parts after the blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Where the tables begin: the end of the blocks.
    pub tables: u64,
    /// Where the runs begin.
    pub runs: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// The first bytes of a file.
pub fn header(cluster: [u8; 16], file: FileId) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, file.class.into()]);
    out.extend_from_slice(&file.shard.to_le_bytes());
    out.extend_from_slice(&cluster);
    out.extend_from_slice(&file.segment.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    seal(out)
}

/// Is this the header of that file?
pub fn check_header(bytes: &[u8], identity: Identity, file: FileId) -> Result<(), String> {
    let body = unseal(bytes)?;
    if !body.starts_with(&MAGIC) {
        return Err("it does not begin as a history file".into());
    }
    if body.get(4) != Some(&VERSION) {
        let found = body.get(4).copied().unwrap_or_default();
        return Err(format!("history format {found}; this binary knows {VERSION}"));
    }
    let ours = header(identity.cluster, file);
    if ours.get(..body.len()) == Some(body) {
        return Ok(());
    }
    Err("it belongs to another data directory, shard, segment or class: files were swapped or copied".into())
}

/// Packs a part: checksum, packed length, length, packed bytes.
pub fn pack(part: &[u8]) -> std::io::Result<Vec<u8>> {
    let packed = PACKER.with_borrow_mut(|packer| match packer {
        Some(packer) => packer.compress(part),
        none => none.insert(Compressor::new(LEVEL)?).compress(part),
    })?;
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(std::io::Error::other);
    let mut out = vec![0; 4];
    out.extend_from_slice(&length(&packed)?.to_le_bytes());
    out.extend_from_slice(&length(part)?.to_le_bytes());
    out.extend_from_slice(&packed);
    let crc = crc32c::crc32c(out.get(4..).unwrap_or_default());
    if let Some(place) = out.first_chunk_mut::<4>() {
        *place = crc.to_le_bytes();
    }
    Ok(out)
}

/// Bytes of the part that begins with this head, head included.
pub fn part_bytes(head: &[u8]) -> Option<usize> {
    let packed = u32::from_le_bytes(*head.get(4..)?.first_chunk()?);
    usize::try_from(packed).ok()?.checked_add(PART_HEAD_BYTES)
}

/// Unpacks a part.
pub fn unpack(part: &[u8]) -> Result<Vec<u8>, String> {
    let (head, packed) =
        part.split_first_chunk::<PART_HEAD_BYTES>().ok_or("it ends within the head of a part")?;
    let crc = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    if crc32c::crc32c(part.get(4..).unwrap_or_default()) != crc {
        return Err("the checksum of a part does not fit".into());
    }
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    let length = usize::try_from(length).ok().filter(|length| *length <= PART_BYTES_MAX);
    let length = length.ok_or("a part is too long")?;
    let unpacked = UNPACKER.with_borrow_mut(|unpacker| match unpacker {
        Some(unpacker) => unpacker.decompress(packed, length),
        none => none.insert(Decompressor::new()?).decompress(packed, length),
    });
    let unpacked = unpacked.map_err(|error| error.to_string())?;
    if unpacked.len() == length { Ok(unpacked) } else { Err("a part has another length than it says".into()) }
}

impl Tables {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let Sealed { first, last, last_crc, fence, .. } = self.sealed;
        let mut out = Vec::new();
        for number in [first, last, fence.epoch, fence.nonce] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        for number in [last_crc, count(self.blocks.len()), count(self.frames.len())] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for at in &self.blocks {
            out.extend_from_slice(&at.to_le_bytes());
        }
        for Place { offset, block, at } in &self.frames {
            for number in [offset, block, at] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }

    /// From bytes.
    pub fn decode(bytes: &[u8], segment: u64) -> Option<Self> {
        let mut rest = bytes;
        let mut long = || number::<8>(&mut rest).map(u64::from_le_bytes);
        let (first, last, epoch, nonce) = (long()?, long()?, long()?, long()?);
        let mut short = || number::<4>(&mut rest).map(u32::from_le_bytes);
        let (last_crc, blocks, frames) = (short()?, short()?, short()?);
        let (blocks, frames) = (usize::try_from(blocks).ok()?, usize::try_from(frames).ok()?);
        let wanted = blocks.checked_mul(8)?.checked_add(frames.checked_mul(12)?)?;
        if rest.len() != wanted {
            return None;
        }
        let blocks = (0..blocks).map(|_| number::<8>(&mut rest).map(u64::from_le_bytes));
        let blocks = blocks.collect::<Option<Vec<_>>>()?;
        let frames = (0..frames).map(|_| {
            let mut short = || number::<4>(&mut rest).map(u32::from_le_bytes);
            Some(Place { offset: short()?, block: short()?, at: short()? })
        });
        let frames = frames.collect::<Option<Vec<_>>>()?;
        let sealed = Sealed { segment, first, last, last_crc, fence: Fence { epoch, nonce } };
        Some(Self { sealed, blocks, frames })
    }

    /// Where a frame is.
    pub fn place(&self, offset: u32) -> Option<Place> {
        let at = self.frames.binary_search_by_key(&offset, |place| place.offset).ok()?;
        self.frames.get(at).copied()
    }
}

/// Ids of runs as bytes, in order.
pub fn encode_runs<'a>(runs: impl IntoIterator<Item = &'a RunId>) -> Vec<u8> {
    runs.into_iter().flat_map(|run_id| *run_id.as_bytes()).collect()
}

/// Ids of runs from bytes.
pub fn decode_runs(bytes: &[u8]) -> Option<Vec<RunId>> {
    let (ids, rest) = bytes.as_chunks::<16>();
    rest.is_empty().then(|| ids.iter().map(|id| RunId::from_bytes(*id)).collect())
}

impl Trailer {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&TRAILER_MAGIC);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        for number in [self.tables, self.runs, self.bytes, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&[0; 4]);
        seal(out)
    }

    /// From bytes; `length` is the file's.
    pub fn decode(bytes: &[u8], length: u64) -> Result<Self, String> {
        let body = unseal(bytes)?;
        if !body.starts_with(&TRAILER_MAGIC) {
            return Err("it does not end as a history file".into());
        }
        let mut rest = body.get(8..).unwrap_or_default();
        let mut long = || number::<8>(&mut rest).map(u64::from_le_bytes).ok_or("it ends too early");
        let trailer = Self { tables: long()?, runs: long()?, bytes: long()? };
        let begin = HEADER_BYTES as u64;
        let end = length.saturating_sub(TRAILER_BYTES as u64);
        let in_order = begin <= trailer.tables && trailer.tables <= trailer.runs && trailer.runs <= end;
        if trailer.bytes != length || !in_order {
            return Err(format!("it is {length} bytes long and was written with {}", trailer.bytes));
        }
        Ok(trailer)
    }
}

/// Puts the checksum behind.
fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn unseal(bytes: &[u8]) -> Result<&[u8], String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is too short")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err("the checksum does not fit".into());
    }
    Ok(body)
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> FileId {
        FileId { shard: 3, segment: 5, class: RetentionClass::named("7d").unwrap() }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn tables() -> Tables {
        let fence = Fence { epoch: 4, nonce: 6 };
        let sealed = Sealed { segment: 5, first: 10, last: 12, last_crc: 0xdead_beef, fence };
        let frames = vec![Place { offset: 0, block: 0, at: 0 }, Place { offset: 8192, block: 1, at: 16 }];
        Tables { sealed, blocks: vec![40, 140], frames }
    }

    #[test]
    fn the_bytes_of_header_tables_and_trailer_are_pinned() {
        let header = header([0xc1; 16], file());
        let golden = [
            "616f6248",
            "01",
            "09",
            "0300",
            "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
            "0500000000000000",
            "00000000",
        ];
        assert_eq!(hex(&header[..36]), golden.concat());
        assert_eq!(header.len(), HEADER_BYTES);
        let identity = Identity { cluster: [0xc1; 16], shard: 3 };
        assert_eq!(check_header(&header, identity, file()), Ok(()));
        assert!(check_header(&header, identity, FileId { shard: 4, ..file() }).is_err());

        let bytes = tables().encode();
        let golden = [
            "0a00000000000000",
            "0c00000000000000",
            "0400000000000000",
            "0600000000000000",
            "efbeadde",
            "02000000",
            "02000000",
            "2800000000000000",
            "8c00000000000000",
            "000000000000000000000000",
            "002000000100000010000000",
        ];
        assert_eq!(hex(&bytes), golden.concat());
        assert_eq!(Tables::decode(&bytes, 5), Some(tables()));
        assert_eq!(Tables::decode(&bytes[1..], 5), None);
        assert_eq!(tables().place(8192).map(|place| place.at), Some(16));

        let trailer = Trailer { tables: 200, runs: 300, bytes: 400 };
        let bytes = trailer.encode();
        let golden = [
            "616f6254",
            "01000000",
            "c800000000000000",
            "2c01000000000000",
            "9001000000000000",
            "0000000000000000",
            "00000000",
        ];
        assert_eq!(hex(&bytes[..44]), golden.concat());
        assert_eq!((bytes.len(), Trailer::decode(&bytes, 400)), (TRAILER_BYTES, Ok(trailer)));
        assert!(Trailer::decode(&bytes, 401).is_err());
    }

    #[test]
    fn a_part_as_the_first_version_packed_it_is_read() {
        // zstd frames of any version are read by later ones; what is written may change with the library.
        let part = pack(b"history history history").unwrap();
        assert_eq!(part_bytes(&part), Some(part.len()));
        assert_eq!(unpack(&part).unwrap(), b"history history history");
        assert!(unpack(&part[..part.len() - 1]).is_err());
    }
}
