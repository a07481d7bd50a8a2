//! Files in keyspaces of a store: their names in one, their bytes in another, in pieces.
//!
//! ```text
//!   files    NAME ──► id, bytes         pieces    id, n ──► the n-th PIECE_BYTES
//! ```
//!
//! Must hold: what [`Files`] owes. A name stands for an id that no other file ever had, so whoever reads a file that is replaced meanwhile
//! never reads parts of both: it reads the old one, or is told that it is [`Gone`](Error::Gone). Before pieces are written or taken away there is an
//! [`UNFINISHED`] name with their id, so that pieces of which nobody knows cannot be left.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Begun, Files, Opened, UNFINISHED};
use crate::io::file::random_bytes;
use crate::store::Error;
use crate::store::keyspaces::{Batch, Keyspace, Keyspaces};

/// Their names.
pub const NAMES: [&str; 2] = ["files", "pieces"];

/// Bytes of a piece; the last one of a file has fewer.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces written, or taken away, at once.
const PIECES_AT_ONCE: usize = 16;

type Id = [u8; 16];

/// Files in keyspaces.
#[derive(Clone)]
pub struct KeyspaceFiles {
    of: Arc<dyn Keyspaces>,
    files: Keyspace,
    pieces: Keyspace,
    /// What they are in, for messages.
    place: PathBuf,
}

/// What stands under a name.
#[derive(Clone, Copy)]
struct Row {
    id: Id,
    bytes: u64,
}

impl Row {
    fn encode(self) -> Vec<u8> {
        [&self.id[..], &self.bytes.to_be_bytes()].concat()
    }

    fn decode(stored: &[u8]) -> Option<Self> {
        let (id, bytes) = stored.split_first_chunk()?;
        Some(Self { id: *id, bytes: u64::from_be_bytes(bytes.try_into().ok()?) })
    }

    /// The key of a piece.
    fn piece(&self, number: u64) -> Vec<u8> {
        [&self.id[..], &number.to_be_bytes()].concat()
    }

    fn pieces(&self) -> u64 {
        self.bytes.div_ceil(PIECE_BYTES as u64)
    }
}

impl std::fmt::Debug for KeyspaceFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeyspaceFiles").field(&self.place).finish()
    }
}

impl KeyspaceFiles {
    /// In keyspaces that are numbered as their [`NAMES`] are; `place` says what they are in.
    pub fn over(of: Arc<dyn Keyspaces>, place: impl AsRef<Path>) -> Self {
        let [files, pieces] = [0, 1].map(|number| Keyspace::new(&of, number));
        Self { of, files, pieces, place: place.as_ref().into() }
    }

    fn row(&self, name: &str) -> Result<Option<Row>, Error> {
        self.files.get(name)?.map(|stored| self.decoded(name, &stored)).transpose()
    }

    fn decoded(&self, name: &str, stored: &[u8]) -> Result<Row, Error> {
        Row::decode(stored).ok_or_else(|| self.corrupt(name, 0, "it does not say where its bytes are"))
    }

    fn corrupt(&self, name: &str, offset: u64, why: &str) -> Error {
        Error::HistoryCorrupt { file: self.place(name), offset, why: why.into() }
    }

    /// Takes away the pieces under an unfinished name, and the name with the last of them.
    fn clear(&self, unfinished: &str, row: Row) -> Result<(), Error> {
        // What was under way when its writer died has more than its row says, without a hole.
        let mut pieces = row.pieces();
        while row.bytes == 0 && self.pieces.contains_key(row.piece(pieces))? {
            pieces += 1;
        }
        // From behind, so that there is no hole when this is not finished either.
        while pieces > 0 {
            let before = pieces.saturating_sub(PIECES_AT_ONCE as u64);
            let mut batch = Batch::default();
            (before..pieces).for_each(|number| batch.remove(&self.pieces, row.piece(number)));
            self.of.commit(batch)?;
            pieces = before;
        }
        let mut batch = Batch::durable();
        batch.remove(&self.files, unfinished);
        self.of.commit(batch)
    }
}

/// The name under which the pieces of a file are, while they come or go.
fn unfinished(name: &str, id: &Id) -> String {
    format!("{name}.{:032x}{UNFINISHED}", u128::from_be_bytes(*id))
}

impl Files for KeyspaceFiles {
    fn list(&self) -> Result<Vec<(String, u64)>, Error> {
        let rows = self.files.iter().map(|row| {
            let (key, stored) = row.into_inner()?;
            let name = String::from_utf8_lossy(&key).into_owned();
            let row = self.decoded(&name, &stored)?;
            Ok((name, row.bytes))
        });
        rows.collect()
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Opened>>, Error> {
        let Some(row) = self.row(name)? else { return Ok(None) };
        Ok(Some(Box::new(KeyspaceFile { of: self.clone(), name: name.into(), row })))
    }

    fn begin(&self, name: &str) -> Result<Box<dyn Begun>, Error> {
        let id: Id = random_bytes().map_err(|source| Error::io("draw random bytes", source))?;
        let row = Row { id, bytes: 0 };
        let unfinished = unfinished(name, &id);
        let mut batch = Batch::durable();
        batch.insert(&self.files, unfinished.as_str(), row.encode());
        self.of.commit(batch)?;
        let (of, name) = (self.clone(), name.to_owned());
        Ok(Box::new(KeyspaceWrite { of, name, unfinished, row, rest: Vec::new() }))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(row) = self.row(name)? else { return Ok(()) };
        if name.ends_with(UNFINISHED) {
            return self.clear(name, row);
        }
        let unfinished = unfinished(name, &row.id);
        let mut batch = Batch::durable();
        batch.remove(&self.files, name);
        batch.insert(&self.files, unfinished.as_str(), row.encode());
        self.of.commit(batch)?;
        self.clear(&unfinished, row)
    }

    fn place(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }
}

#[derive(Debug)]
struct KeyspaceFile {
    of: KeyspaceFiles,
    name: String,
    row: Row,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}: {} bytes", u128::from_be_bytes(self.id), self.bytes)
    }
}

impl Opened for KeyspaceFile {
    fn length(&self) -> u64 {
        self.row.bytes
    }

    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let end = at.checked_add(bytes as u64).filter(|end| *end <= self.row.bytes);
        let Some(end) = end else { return Err(self.of.corrupt(&self.name, at, "it ends before")) };
        let mut read = Vec::with_capacity(bytes);
        let size = PIECE_BYTES as u64;
        for number in at / size..end.div_ceil(size) {
            let Some(piece) = self.of.pieces.get(self.row.piece(number))? else {
                return Err(self.missing(number * size));
            };
            let from = at.saturating_sub(number * size) as usize;
            let to = (end - number * size).min(size) as usize;
            let Some(part) = piece.get(from..to) else {
                return Err(self.of.corrupt(&self.name, number * size, "a piece is too short"));
            };
            read.extend_from_slice(part);
        }
        Ok(read)
    }
}

impl KeyspaceFile {
    /// Was it removed, or replaced, or did it lose a piece?
    fn missing(&self, offset: u64) -> Error {
        match self.of.row(&self.name) {
            Ok(Some(row)) if row.id == self.row.id => {
                self.of.corrupt(&self.name, offset, "a piece is missing")
            }
            Ok(_) => {
                let segment = super::super::history::parse_name(&self.name).map_or(0, |(segment, _)| segment);
                Error::Gone { segment }
            }
            Err(error) => error,
        }
    }
}

#[derive(Debug)]
struct KeyspaceWrite {
    of: KeyspaceFiles,
    name: String,
    unfinished: String,
    /// Its bytes are those in whole pieces.
    row: Row,
    /// What is behind them.
    rest: Vec<u8>,
}

impl KeyspaceWrite {
    /// Writes pieces: whole ones, or all that is left.
    fn write(&mut self, all: bool) -> Result<(), Error> {
        let whole = if all { self.rest.len() } else { self.rest.len() / PIECE_BYTES * PIECE_BYTES };
        let rest = self.rest.split_off(whole);
        for pieces in self.rest.chunks(PIECES_AT_ONCE * PIECE_BYTES) {
            let mut batch = Batch::default();
            for piece in pieces.chunks(PIECE_BYTES) {
                batch.insert(&self.of.pieces, self.row.piece(self.row.pieces()), piece);
                self.row.bytes += piece.len() as u64;
            }
            self.of.of.commit(batch)?;
        }
        self.rest = rest;
        Ok(())
    }

    fn named(&mut self) -> Result<(), Error> {
        self.write(true)?;
        let before = self.of.row(&self.name)?;
        let mut batch = Batch::durable();
        batch.remove(&self.of.files, self.unfinished.as_str());
        batch.insert(&self.of.files, self.name.as_str(), self.row.encode());
        let before = before.map(|row| (unfinished(&self.name, &row.id), row));
        if let Some((name, row)) = &before {
            batch.insert(&self.of.files, name.as_str(), row.encode());
        }
        self.of.of.commit(batch)?;
        if let Some((name, row)) = before {
            // It has no name any more: what cannot be taken away now is found unfinished.
            let _ = self.of.clear(&name, row);
        }
        Ok(())
    }
}

impl Begun for KeyspaceWrite {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.rest.extend_from_slice(bytes);
        if self.rest.len() >= PIECES_AT_ONCE * PIECE_BYTES { self.write(false) } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let named = self.named();
        if named.is_err() {
            self.abandon();
        }
        named
    }

    fn abandon(self: Box<Self>) {
        // What cannot be taken away now is found unfinished.
        let _ = self.of.clear(&self.unfinished, self.row);
    }
}

// F063, F065
#[cfg(test)]
#[test]
fn keyspaces_do_as_they_should() {
    crate::store::testing::in_each_back_end(&NAMES, &|keyspaces| {
        let again = || -> Arc<dyn Files> { Arc::new(KeyspaceFiles::over(keyspaces.clone(), "a store")) };
        let files = again();
        super::conformance::suite(&files, &again);
        let pieces = Keyspace::new(&keyspaces, 1);
        assert_eq!(pieces.iter().count(), 1, "nothing is left of what was replaced, abandoned or removed");

        // A reader that goes on after its file went.
        super::write(&*files, "0000000000000007-1d.hist", &[7; 200_000]).unwrap();
        let open = files.open("0000000000000007-1d.hist").unwrap().unwrap();
        super::write(&*files, "0000000000000007-1d.hist", &[8; 200_000]).unwrap();
        assert_eq!(open.read(0, 10).unwrap_err().code(), "history_gone");
        let open = files.open("0000000000000007-1d.hist").unwrap().unwrap();
        let second = pieces.iter().nth(2).unwrap().key().unwrap();
        pieces.remove(second).unwrap();
        assert_eq!(open.read(0, 200_000).unwrap_err().code(), "history_corrupt");
        files.remove("0000000000000007-1d.hist").unwrap();
        assert_eq!(pieces.iter().count(), 1);
    });
}
