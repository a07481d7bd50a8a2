//! One frame of the embedded journal: bytes in, bytes out (`docs/formats/journal.md`, "Frame").
//!
//! [`encode`] fills a slice of [`frame_bytes`] bytes; [`decode`] says whether a sound frame starts at a
//! slice's beginning. Soundness is the checksum alone: whether the frame belongs where it stands is for the
//! reader to say, who knows the place.

use crate::store::journal::{Fence, Position};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"aobJ";
/// Version of the format.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 88;
/// Frames start and end at multiples of this: direct I/O asks for it.
pub const ALIGN_BYTES: usize = 4096;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds a batch.
    Batch,
    /// The first frame of an owner; no payload.
    Claim,
}

/// Which journal a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the data directory.
    pub cluster: [u8; 16],
    /// Number of the shard.
    pub shard: u16,
}

/// Everything a frame says about itself but its checksum and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Batch or claim.
    pub kind: Kind,
    /// Whose journal.
    pub identity: Identity,
    /// Segment it was written to.
    pub segment: u64,
    /// Byte offset in that segment.
    pub offset: u32,
    /// Its number in the journal.
    pub position: Position,
    /// The owner.
    pub fence: Fence,
    /// Highest position known to be synced when it was built.
    pub durable: Position,
    /// Lowest segment in use when it was built.
    pub oldest: u64,
    /// Checksum of the frame before; 0 at position 1.
    pub chain: u32,
}

/// A sound frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame<'a> {
    /// What it says about itself.
    pub header: Header,
    /// Its checksum.
    pub crc: u32,
    /// Its payload.
    pub payload: &'a [u8],
    /// Bytes it takes, padding included.
    pub bytes: usize,
}

/// Bytes that a frame with a payload of `length` bytes takes.
pub const fn frame_bytes(length: usize) -> usize {
    (HEADER_BYTES + length).next_multiple_of(ALIGN_BYTES)
}

/// Fills `out`, which must be [`frame_bytes`] of the payload long, and returns the checksum; `None` when it
/// is not.
pub fn encode(out: &mut [u8], header: &Header, payload: &[u8]) -> Option<u32> {
    if out.len() != frame_bytes(payload.len()) {
        return None;
    }
    let kind = match header.kind {
        Kind::Batch => 0,
        Kind::Claim => 1,
    };
    let (head, body) = out.split_first_chunk_mut::<HEADER_BYTES>()?;
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
        at += bytes.len();
    };
    put(&MAGIC);
    put(&[VERSION, kind]);
    put(&header.identity.shard.to_le_bytes());
    put(&[0; 4]);
    put(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    put(&header.identity.cluster);
    put(&header.segment.to_le_bytes());
    put(&header.position.to_le_bytes());
    put(&header.fence.epoch.to_le_bytes());
    put(&header.fence.nonce.to_le_bytes());
    put(&header.durable.to_le_bytes());
    put(&header.oldest.to_le_bytes());
    put(&header.offset.to_le_bytes());
    put(&header.chain.to_le_bytes());
    let (filled, padding) = body.split_at_mut_checked(payload.len())?;
    filled.copy_from_slice(payload);
    padding.fill(0);
    let crc = checksum(out)?;
    out.get_mut(8..12)?.copy_from_slice(&crc.to_le_bytes());
    Some(crc)
}

/// Crc32c of everything but the checksum's own bytes.
fn checksum(frame: &[u8]) -> Option<u32> {
    Some(crc32c::crc32c_append(crc32c::crc32c(frame.get(..8)?), frame.get(12..)?))
}

/// Bytes of the frame that starts here, by its header alone; `None` when none does.
pub fn claimed_bytes(bytes: &[u8]) -> Option<usize> {
    let head = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_le_bytes(*head.get(12..)?.first_chunk()?);
    (head.starts_with(&MAGIC) && head.get(4) == Some(&VERSION))
        .then_some(frame_bytes(usize::try_from(length).ok()?))
}

/// The frame at the beginning of `bytes`, when a sound one starts there.
pub fn decode(bytes: &[u8]) -> Option<Frame<'_>> {
    let total = claimed_bytes(bytes)?;
    let frame = bytes.get(..total)?;
    let crc = u32::from_le_bytes(*frame.get(8..)?.first_chunk()?);
    if checksum(frame)? != crc {
        return None;
    }
    let mut rest = frame.get(16..)?;
    let cluster = take::<16>(&mut rest)?;
    let segment = u64::from_le_bytes(take(&mut rest)?);
    let position = u64::from_le_bytes(take(&mut rest)?);
    let epoch = u64::from_le_bytes(take(&mut rest)?);
    let nonce = u64::from_le_bytes(take(&mut rest)?);
    let durable = u64::from_le_bytes(take(&mut rest)?);
    let oldest = u64::from_le_bytes(take(&mut rest)?);
    let offset = u32::from_le_bytes(take(&mut rest)?);
    let chain = u32::from_le_bytes(take(&mut rest)?);
    let kind = match frame.get(5)? {
        0 => Kind::Batch,
        1 => Kind::Claim,
        _ => return None,
    };
    let shard = u16::from_le_bytes(*frame.get(6..)?.first_chunk()?);
    let length = u32::from_le_bytes(*frame.get(12..)?.first_chunk()?);
    let header = Header {
        kind,
        identity: Identity { cluster, shard },
        segment,
        offset,
        position,
        fence: Fence { epoch, nonce },
        durable,
        oldest,
        chain,
    };
    Some(Frame { header, crc, payload: rest.get(..usize::try_from(length).ok()?)?, bytes: total })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Batch,
            identity: Identity { cluster: [0xc1; 16], shard: 3 },
            segment: 5,
            offset: 8192,
            position: 77,
            fence: Fence { epoch: 4, nonce: 0x0102_0304_0506_0708 },
            durable: 76,
            oldest: 2,
            chain: 0xdead_beef,
        }
    }

    #[test]
    fn the_bytes_of_a_frame_are_pinned() {
        let mut out = vec![0xaa; frame_bytes(3)];
        let crc = encode(&mut out, &header(), &[1, 2, 3]).unwrap();
        let hex: String = out[..HEADER_BYTES + 4].iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = [
            "616f624a",
            "01",
            "00",
            "0300",
            "8cb98d4f",
            "03000000",
            "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
            "0500000000000000",
            "4d00000000000000",
            "0400000000000000",
            "0807060504030201",
            "4c00000000000000",
            "0200000000000000",
            "00200000",
            "efbeadde",
            "010203",
            "00",
        ];
        assert_eq!(hex, golden.concat());
        assert_eq!(crc, 0x4f8d_b98c);
    }

    #[test]
    fn a_frame_comes_back() {
        let payload: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
        let mut out = vec![0; frame_bytes(payload.len())];
        let crc = encode(&mut out, &header(), &payload).unwrap();
        out.extend_from_slice(&[9; 100]);
        let frame = decode(&out).unwrap();
        assert_eq!(
            (frame.header, frame.crc, frame.payload, frame.bytes),
            (header(), crc, &payload[..], 8192)
        );
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_seen() {
        // B8, B10
        let mut out = vec![0; frame_bytes(40)];
        encode(&mut out, &header(), &[7; 40]).unwrap();
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&out).is_none(), "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
        for end in 0..out.len() {
            assert!(decode(&out[..end]).is_none(), "cut at {end}");
        }
        assert!(decode(&out).is_some());
    }
}
