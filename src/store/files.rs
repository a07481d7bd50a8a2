//! Files by name, each written once from its beginning to its end: what history is kept in, wherever that is.
//!
//! Must hold: a file is there whole or not at all, and durable when [`Begun::finish`] has returned; so is the absence of one that was
//! [`removed`](Files::remove). One that was not finished is listed under its name and [`UNFINISHED`], until it is removed. Everything blocks.

mod disk;
mod keyspaces;

use std::fmt;
use std::path::PathBuf;

pub use disk::DiskFiles;
pub use keyspaces::{KeyspaceFiles, NAMES};

use super::Error;

/// What the name of a file ends with that is not finished.
pub const UNFINISHED: &str = ".tmp";

/// Files of one place. The module says what is owed.
pub trait Files: fmt::Debug + Send + Sync {
    /// Their names and bytes, those that are not finished among them; in no order.
    fn list(&self) -> Result<Vec<(String, u64)>, Error>;

    /// A file, to be read; `None`: there is none.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Opened>>, Error>;

    /// Begins a file. What has its name stays until it is finished.
    fn begin(&self, name: &str) -> Result<Box<dyn Begun>, Error>;

    /// Removes a file, finished or not. One that is not there is as it should be.
    fn remove(&self, name: &str) -> Result<(), Error>;

    /// Where it is, for messages.
    fn place(&self, name: &str) -> PathBuf;
}

/// A file that is read.
pub trait Opened: fmt::Debug {
    /// Its bytes.
    fn length(&self) -> u64;

    /// So many bytes from there on, which are within it.
    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>, Error>;
}

/// A file that is written.
pub trait Begun: fmt::Debug {
    /// Writes at its end.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error>;

    /// Makes it durable, in place of what had its name. Nothing of it is left after an error.
    fn finish(self: Box<Self>) -> Result<(), Error>;

    /// Gives up. The room is free again, or is with [`UNFINISHED`] files.
    fn abandon(self: Box<Self>);
}

/// All of a file; `None`: there is none.
///
/// # Errors
/// The store's, here and below.
pub fn read(files: &dyn Files, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let Some(opened) = files.open(name)? else { return Ok(None) };
    let bytes = usize::try_from(opened.length()).unwrap_or(usize::MAX);
    opened.read(0, bytes).map(Some)
}

/// Makes a file of these bytes.
///
/// # Errors
/// As [`read`].
pub fn write(files: &dyn Files, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let mut begun = files.begin(name)?;
    match begun.append(bytes) {
        Ok(()) => begun.finish(),
        Err(error) => {
            begun.abandon();
            Err(error)
        }
    }
}

#[cfg(test)]
mod conformance;
