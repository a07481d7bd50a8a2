//! Files in a directory of the file system. It is made with the first of them.
//!
//! Must hold: what [`Files`] owes. A file is written under another name, synced, renamed, and its directory synced.

use std::io;
use std::path::{Path, PathBuf};

use super::{Begun, Error, Files, Opened, UNFINISHED};
use crate::io::disk::{self, NewFile, OpenFile, sync_directory};

/// Files in a directory.
#[derive(Clone, Debug)]
pub struct DiskFiles(PathBuf);

impl DiskFiles {
    /// In this directory.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Its name is durable like those of the files in it, as far up as it may be new.
    fn make(&self) -> io::Result<()> {
        disk::make_directory(&self.0)?;
        self.0.ancestors().skip(1).take(2).try_for_each(sync_directory)
    }
}

/// What was tried, and at which file.
fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("{doing} {}", path.display()), error)
}

impl Files for DiskFiles {
    fn list(&self) -> Result<Vec<(String, u64)>, Error> {
        match disk::list(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(|error| failed("read", &self.0, error)),
        }
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Opened>>, Error> {
        let path = self.place(name);
        let file = match OpenFile::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| failed("open", &path, error))?,
        };
        let length = file.length().map_err(|error| failed("look at", &path, error))?;
        Ok(Some(Box::new(DiskFile { path, file, length })))
    }

    fn begin(&self, name: &str) -> Result<Box<dyn Begun>, Error> {
        self.make().map_err(|error| failed("make", &self.0, error))?;
        let (target, temporary) = (self.place(name), self.place(&format!("{name}{UNFINISHED}")));
        let file = NewFile::create(&temporary).map_err(|error| failed("write", &temporary, error))?;
        Ok(Box::new(DiskWrite { temporary, target, file }))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.place(name);
        match disk::remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_directory(&self.0)),
        }
        .map_err(|error| failed("remove", &path, error))
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[derive(Debug)]
struct DiskFile {
    path: PathBuf,
    file: OpenFile,
    length: u64,
}

impl Opened for DiskFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, at: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut buffer = vec![0; bytes];
        self.file.read_exact_at(&mut buffer, at).map_err(|error| failed("read", &self.path, error))?;
        Ok(buffer)
    }
}

#[derive(Debug)]
struct DiskWrite {
    temporary: PathBuf,
    target: PathBuf,
    file: NewFile,
}

impl Begun for DiskWrite {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.append(bytes).map_err(|error| failed("write", &self.temporary, error))
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        let Self { temporary, target, file } = *self;
        let done = file.sync().and_then(|()| disk::rename(&temporary, &target));
        let done = done.and_then(|()| sync_directory(target.parent().unwrap_or(Path::new("."))));
        done.map_err(|error| {
            let _ = disk::remove(&temporary);
            failed("write", &target, error)
        })
    }

    fn abandon(self: Box<Self>) {
        drop(self.file);
        let _ = disk::remove(&self.temporary);
    }
}
