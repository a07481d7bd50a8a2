//! The files of a log: names, listing, preparation. Everything here blocks.
//!
//! Must hold: a segment appears under its name only when every block of it was written and synced; a name
//! that is durable stays until the next step is. A preparation that fails removes what it had begun, so that
//! a full disk gets its room back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::frame::{ALIGN_BYTES, claimed_bytes};
use crate::io::disk::{self, OpenFile, sync_directory};
use crate::store::Error;

/// Segments kept for use again; more are deleted.
pub const FREE_SEGMENTS_MAX: usize = 4;
/// They are kept only while the disk has room for this many more.
const PLENTY_SEGMENTS: u64 = 16;

/// Where segment `id` is.
pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.seg"))
}

/// Where segment `id` goes when it is given back.
pub fn free_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("free-{id:016x}.seg"))
}

/// What a log's directory holds.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Segments: number to length of the file.
    pub segments: BTreeMap<u64, u64>,
    /// Given back, to be used again.
    pub free: Vec<PathBuf>,
    /// Half prepared.
    pub leftovers: Vec<PathBuf>,
}

/// Looks at `dir`; one that does not exist holds nothing. Names that are not ours are left alone.
///
/// # Errors
/// The directory can not be read.
pub fn list(dir: &Path) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    let fail = |error| Error::io(format!("read the directory {}", dir.display()), error);
    let entries = match disk::list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
        entries => entries.map_err(fail)?,
    };
    for (name, length) in entries {
        if name.ends_with(".tmp") {
            listing.leftovers.push(dir.join(name));
        } else if let Some(stem) = name.strip_suffix(".seg") {
            match stem.strip_prefix("free-") {
                Some(id) if number(id).is_some() => listing.free.push(dir.join(&name)),
                None if let Some(id) = number(stem) => {
                    listing.segments.insert(id, length);
                }
                _ => {}
            }
        }
    }
    listing.free.sort();
    Ok(listing)
}

fn number(hex: &str) -> Option<u64> {
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok()).flatten()
}

/// Makes segment `id` of `bytes`: from `recycled` when it has that size, else of zeros.
///
/// # Errors
/// The operating system's; a full disk among them.
pub fn prepare(dir: &Path, id: u64, bytes: u64, recycled: Option<&Path>) -> io::Result<()> {
    let target = path(dir, id);
    if let Some(old) = recycled {
        if disk::length(old)? == bytes {
            disk::rename(old, &target)?;
            return sync_directory(dir);
        }
        disk::remove(old)?;
    }
    let temporary = target.with_extension("tmp");
    let made = disk::make_zeros(&temporary, bytes);
    if let Err(error) = made.and_then(|()| disk::rename(&temporary, &target)) {
        let _ = disk::remove(&temporary);
        return Err(error);
    }
    sync_directory(dir)
}

/// Does the disk have so much room that a segment is better kept than removed?
pub fn has_plenty(dir: &Path, segment_bytes: u64) -> bool {
    disk::free_bytes(dir).is_ok_and(|free| free >= segment_bytes.saturating_mul(PLENTY_SEGMENTS))
}

/// Gives segment `id` back: under its free name when `keep`, deleted otherwise.
///
/// # Errors
/// The operating system's.
pub fn retire(dir: &Path, id: u64, keep: bool) -> io::Result<()> {
    if keep {
        disk::rename(&path(dir, id), &free_path(dir, id))?;
    } else {
        disk::remove(&path(dir, id))?;
    }
    // In order, one by one: a directory that comes back after a crash must not have a hole.
    sync_directory(dir)
}

/// Reads what claims to be the frame at `offset` into `buffer`: all of it when the file is long enough, at
/// least its first bytes otherwise. Nothing is verified.
///
/// # Errors
/// The operating system's.
pub fn read_frame(file: &OpenFile, offset: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    let length = file.length()?.saturating_sub(offset);
    let available = usize::try_from(length).unwrap_or(usize::MAX);
    buffer.resize(available.min(ALIGN_BYTES), 0);
    file.read_exact_at(buffer, offset)?;
    let read = buffer.len();
    if let Some(wanted) = claimed_bytes(buffer).filter(|wanted| (read + 1..=available).contains(wanted)) {
        buffer.resize(wanted, 0);
        let rest = buffer.get_mut(read..).unwrap_or_default();
        file.read_exact_at(rest, offset + read as u64)?;
    }
    Ok(())
}
