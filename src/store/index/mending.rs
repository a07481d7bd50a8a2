//! The database's own journal, looked over before the database reads it.
//!
//! A batch is a start, items and an end with their checksum. What follows the last whole batch is cut off here: the database
//! does the same with most of what a crash can leave, but takes others for damage and does not open, and one (the head of an
//! item before the zeros that the file was made of) for a bug of its own. Nothing that was acknowledged is in a write that
//! was never finished. Where an end stands behind the cut, a write *was* finished: one that was not synced when the power went,
//! or one that the disk has damaged since. Nobody can tell these apart, so the bytes are kept beside the journal
//! ([`kept`]), and whoever opens the index says so ([`Cut`]).
//!
//! Whoever opens the index holds the lock of its data directory. The format is fjall's, version 3, without compression.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::io::disk::sync_directory;
use crate::store::Error;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Ends every batch; the file `version` begins with it, too.
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Tag, checksum, trailer.
const END_BYTES: usize = 13;
/// A value, that it is gone, or that it was written once and is gone.
const KIND_MAX: u8 = 2;
const READ_BYTES: usize = 256 << 10;
/// What the names of kept pieces have behind the journal's number.
const KEPT: &str = "cut-";

/// What was cut off a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which.
    pub file: PathBuf,
    /// Behind its last whole batch.
    pub at: u64,
    /// To the last byte that was written.
    pub bytes: u64,
    /// Ends of batches among them.
    pub finished: u64,
    /// Where they are, when there was an end.
    pub kept: Option<PathBuf>,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, at, bytes, finished, kept } = self;
        write!(f, "{}: {bytes} bytes from {at} on were cut off: ", file.display())?;
        match kept {
            None => write!(f, "a write that was never finished"),
            Some(kept) => write!(
                f,
                "they cannot be read, and {finished} writes end in them; without a power cut the disk is damaged and \
                 something is lost. They are kept in {}",
                kept.display()
            ),
        }
    }
}

/// Cuts what cannot be read off the journals of the database in `dir`. One of another format, or none, stays as it is.
pub(super) fn mend(dir: &Path) -> Result<Vec<Cut>, Error> {
    let failed = |error| Error::io(format!("look over the index in {}", dir.display()), error);
    match fs::read(dir.join("version")) {
        Ok(version) if version.starts_with(&TRAILER) => {}
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    }
    let cuts = with_extension(dir, |extension| extension == "jnl").and_then(|journals| {
        let cuts = journals.iter().map(|journal| mend_one(dir, journal));
        Ok(cuts.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    });
    cuts.map_err(failed)
}

/// What was cut off the journals of the index in `dir` and kept; whoever has dealt with it removes it.
///
/// # Errors
/// The operating system's.
pub fn kept(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    with_extension(dir, |extension| extension.starts_with(KEPT))
        .map_err(|error| Error::io(format!("list {}", dir.display()), error))
}

fn with_extension(dir: &Path, fits: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().and_then(|extension| extension.to_str()).is_some_and(&fits) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn mend_one(dir: &Path, journal: &Path) -> io::Result<Option<Cut>> {
    let file = OpenOptions::new().read(true).write(true).open(journal)?;
    let mut batches = Batches { source: BufReader::with_capacity(READ_BYTES, &file), at: 0 };
    let mut at = 0;
    while batches.next_is_whole()? {
        at = batches.at;
    }
    let Rest { bytes, finished } = rest(&file, at)?;
    if bytes == 0 {
        return Ok(None);
    }
    let kept = if finished > 0 {
        let kept = journal.with_extension(format!("{KEPT}{at}"));
        let mut piece = File::create(&kept)?;
        (&file).seek(SeekFrom::Start(at))?;
        io::copy(&mut (&file).take(bytes), &mut piece)?;
        piece.sync_all()?;
        sync_directory(dir)?;
        Some(kept)
    } else {
        None
    };
    file.set_len(at)?;
    file.sync_all()?;
    Ok(Some(Cut { file: journal.into(), at, bytes, finished, kept }))
}

/// Reads batches, one after the other.
struct Batches<R> {
    source: R,
    at: u64,
}

/// Why a batch is not whole.
enum Broken {
    Here,
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Here,
            _ => Self::Io(error),
        }
    }
}

impl<R: Read> Batches<R> {
    fn next_is_whole(&mut self) -> io::Result<bool> {
        match self.batch() {
            Ok(()) => Ok(true),
            Err(Broken::Here) => Ok(false),
            Err(Broken::Io(error)) => Err(error),
        }
    }

    fn batch(&mut self) -> Result<(), Broken> {
        let [tag] = self.bytes()?;
        let items = u32::from_le_bytes(self.bytes()?);
        let _number: [u8; 8] = self.bytes()?;
        if tag != START {
            return Err(Broken::Here);
        }
        let mut checksum = Xxh3::new();
        for _ in 0..items {
            self.item(&mut checksum)?;
        }
        let [tag] = self.bytes()?;
        let expected = u64::from_le_bytes(self.bytes()?);
        let trailer: [u8; 4] = self.bytes()?;
        let whole = tag == END && expected == checksum.digest() && trailer == TRAILER;
        if whole { Ok(()) } else { Err(Broken::Here) }
    }

    fn item(&mut self, checksum: &mut Xxh3) -> Result<(), Broken> {
        let [tag] = self.bytes()?;
        checksum.update(&[tag]);
        match tag {
            CLEAR => {
                let keyspace: [u8; 8] = self.bytes()?;
                checksum.update(&keyspace);
                Ok(())
            }
            ITEM => {
                let head: [u8; 20] = self.bytes()?;
                checksum.update(&head);
                let [kind, compression, .., k0, k1, v0, v1, v2, v3, d0, d1, d2, d3] = head;
                let (value, on_disk) = ([v0, v1, v2, v3], [d0, d1, d2, d3]);
                if kind > KIND_MAX || compression != 0 || value != on_disk {
                    return Err(Broken::Here);
                }
                let bytes = u64::from(u16::from_le_bytes([k0, k1])) + u64::from(u32::from_le_bytes(value));
                self.pass(bytes, checksum)
            }
            _ => Err(Broken::Here),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// Key and value.
    fn pass(&mut self, bytes: u64, checksum: &mut Xxh3) -> Result<(), Broken> {
        let mut left = bytes;
        let mut buffer = [0; 4096];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let Some(part) = buffer.get_mut(..most) else { break };
            self.source.read_exact(part)?;
            checksum.update(part);
            left -= most as u64;
        }
        self.at += bytes;
        Ok(())
    }
}

/// What stands behind the last whole batch.
struct Rest {
    /// To the last that is not zero: journals are made of zeros.
    bytes: u64,
    finished: u64,
}

fn rest(mut file: &File, from: u64) -> io::Result<Rest> {
    file.seek(SeekFrom::Start(from))?;
    let zeros = vec![0; READ_BYTES];
    let mut rest = Rest { bytes: 0, finished: 0 };
    // Ends of batches may stand across two parts: the last bytes of one are looked at again with the next.
    let (mut part, mut at) = (Vec::with_capacity(READ_BYTES + END_BYTES), 0);
    loop {
        let again = part.len();
        if file.take(READ_BYTES as u64).read_to_end(&mut part)? == 0 {
            return Ok(rest);
        }
        if !zeros.starts_with(part.get(again..).unwrap_or_default()) {
            let last = part.iter().rposition(|byte| *byte != 0).unwrap_or_default();
            rest.bytes = at + last as u64 + 1;
            let is_end = |bytes: &&[u8]| bytes.first() == Some(&END) && bytes.ends_with(&TRAILER);
            rest.finished += part.windows(END_BYTES).filter(is_end).count() as u64;
        }
        let passed = part.len().saturating_sub(END_BYTES - 1);
        at += passed as u64;
        part.drain(..passed);
    }
}

#[cfg(test)]
mod tests;
