//! Contents as files: `cas/ab/<62 digits>` under the data directory (`docs/formats/cas.md`).
//!
//! A blob is written under another name, synced, given its own name, and its directory synced: after a crash it is there
//! whole or not at all. What a crash left under other names is removed at the start. A full disk refuses the `put`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Blobs, Error, Put, hash};
use crate::io::disk;
use crate::model::{ContentHash, kept};

/// Directory of blobs that have no name yet.
const UNNAMED: &str = "new";
/// New blobs from which on they are synced together: that is two syncs of the whole file system.
const TOGETHER_MIN: usize = 8;

/// A store over files.
#[derive(Debug)]
pub struct FileBlobs {
    root: PathBuf,
    /// Numbers of unnamed files.
    made: AtomicU64,
}

impl FileBlobs {
    /// The store in `root`, made when there is none.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let unnamed = root.join(UNNAMED);
        disk::make_directory(&unnamed).map_err(|error| failed("make", &unnamed, error))?;
        let left = disk::list(&unnamed).or_else(nothing).map_err(|error| failed("list", &unnamed, error))?;
        for (name, _) in left {
            let path = unnamed.join(name);
            disk::remove(&path).map_err(|error| failed("remove", &path, error))?;
        }
        for first in 0..=u8::MAX {
            let directory = root.join(format!("{first:02x}"));
            disk::make_directory(&directory).map_err(|error| failed("make", &directory, error))?;
        }
        disk::sync_directory(root).map_err(|error| failed("sync", root, error))?;
        Ok(Self { root: root.to_path_buf(), made: AtomicU64::new(0) })
    }

    /// The store in `root` as it is, to be read only.
    pub fn existing(root: &Path) -> Self {
        Self { root: root.to_path_buf(), made: AtomicU64::new(0) }
    }

    fn write(&self, bytes: &[u8], path: &Path) -> Result<(), Error> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let unnamed = self.root.join(UNNAMED).join(number.to_string());
        let written = disk::write_synced(&unnamed, bytes)
            .map_err(|error| failed("write", &unnamed, error))
            .and_then(|()| disk::rename(&unnamed, path).map_err(|error| failed("name", path, error)));
        if written.is_err() {
            // Of no use, and gone at the next start in any case.
            let _ = disk::remove(&unnamed);
        }
        written
    }

    /// Blobs of one directory, in order.
    fn within(&self, first: u8) -> Result<Vec<(ContentHash, u64)>, Error> {
        let directory = self.root.join(format!("{first:02x}"));
        let rows =
            disk::list(&directory).or_else(nothing).map_err(|error| failed("list", &directory, error))?;
        let blob = |(name, bytes): (String, u64)| {
            Some((kept::parse_name(&format!("sha256:{first:02x}{name}"))?, bytes))
        };
        let mut blobs: Vec<_> = rows.into_iter().filter_map(blob).collect();
        blobs.sort_unstable();
        Ok(blobs)
    }
}

fn failed(doing: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { doing: format!("{doing} {}", path.display()), source }
}

/// What is not there has nothing in it.
fn nothing<T: Default>(error: io::Error) -> io::Result<T> {
    if error.kind() == io::ErrorKind::NotFound { Ok(T::default()) } else { Err(error) }
}

impl Blobs for FileBlobs {
    fn put(&self, bytes: &[u8]) -> Result<Put, Error> {
        let sha256 = hash(bytes);
        let path = self.place(&sha256);
        let there = disk::read(&path).map(Some).or_else(nothing).ok().flatten();
        let is_new = there.is_none();
        if there.is_none_or(|there| there != bytes) {
            self.write(bytes, &path)?;
        }
        // Also when it was there: who put it may not be done.
        let directory = path.parent().unwrap_or(&self.root);
        disk::sync_directory(directory).map_err(|error| failed("sync", directory, error))?;
        Ok(Put { sha256, is_new })
    }

    fn put_all(&self, all: &[&[u8]]) -> Result<Vec<Put>, Error> {
        let (mut puts, mut files, mut directories) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = BTreeMap::new();
        for bytes in all {
            let sha256 = hash(bytes);
            let path = self.place(&sha256);
            let there = disk::read(&path).map(Some).or_else(nothing).ok().flatten();
            let is_new = there.is_none();
            if there.is_none_or(|there| there != *bytes) && !names.contains_key(&path) {
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                let unnamed = self.root.join(UNNAMED).join(number.to_string());
                names.insert(path.clone(), unnamed.clone());
                files.push((unnamed, *bytes));
            }
            directories.push(path.parent().unwrap_or(&self.root).to_path_buf());
            puts.push(Put { sha256, is_new });
        }
        if files.len() < TOGETHER_MIN {
            return all.iter().map(|bytes| self.put(bytes)).collect();
        }
        let written = disk::write_synced_together(&files)
            .map_err(|error| failed("write blobs in", &self.root, error))
            .and_then(|()| {
                names.iter().try_for_each(|(path, unnamed)| {
                    disk::rename(unnamed, path).map_err(|error| failed("name", path, error))
                })
            });
        if written.is_err() {
            files.iter().for_each(|(unnamed, _)| drop(disk::remove(unnamed)));
        }
        written?;
        disk::sync_directories(&directories).map_err(|error| failed("sync", &self.root, error))?;
        Ok(puts)
    }

    fn get(&self, sha256: &ContentHash) -> Result<Option<Vec<u8>>, Error> {
        let path = self.place(sha256);
        let bytes =
            disk::read(&path).map(Some).or_else(nothing).map_err(|error| failed("read", &path, error))?;
        match bytes {
            Some(bytes) if hash(&bytes) != *sha256 => Err(Error::Corrupt {
                sha256: *sha256,
                file: path,
                why: format!("holds {} bytes with the hash {}", bytes.len(), kept::name(&hash(&bytes))),
            }),
            bytes => Ok(bytes),
        }
    }

    fn stat(&self, sha256: &ContentHash) -> Result<Option<u64>, Error> {
        let path = self.place(sha256);
        disk::length(&path).map(Some).or_else(nothing).map_err(|error| failed("look at", &path, error))
    }

    fn list(&self, after: Option<&ContentHash>, limit: usize) -> Result<Vec<(ContentHash, u64)>, Error> {
        let mut found = Vec::new();
        let first = after.map_or(0, |after| after[0]);
        for directory in first..=u8::MAX {
            if found.len() >= limit {
                break;
            }
            let blobs = self.within(directory)?;
            found.extend(blobs.into_iter().filter(|(sha256, _)| after.is_none_or(|after| sha256 > after)));
        }
        found.truncate(limit);
        Ok(found)
    }

    fn remove(&self, sha256: &ContentHash) -> Result<bool, Error> {
        let path = self.place(sha256);
        match disk::remove(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove", &path, error)),
        }
    }

    fn place(&self, sha256: &ContentHash) -> PathBuf {
        let name = kept::name(sha256);
        let digits = name.split_once(':').map_or("", |(_, digits)| digits);
        let (first, rest) = digits.split_at_checked(2).unwrap_or_default();
        self.root.join(first).join(rest)
    }
}
