//! A copy of a stopped node's data directory, and a data directory from such a copy.
//!
//! The copy is a directory: the files as they are, without free segments, and `MANIFEST` with the length and checksum of each,
//! written last. Nothing is brought back from a copy that is not what its manifest says, and nothing into a directory that
//! holds anything.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::io::disk::sync_directory;
use crate::store::Error;
use crate::store::layout::DataDir;

const MANIFEST: &str = "MANIFEST";
const CHUNK_BYTES: usize = 1 << 20;

/// What a copy holds.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// Version of the manifest.
    version: u32,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Below the directory.
    path: PathBuf,
    bytes: u64,
    crc32c: u32,
}

/// How much was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies the data directory at `from` to `to`, a directory that is empty or not there.
///
/// # Errors
/// A node has it open; `to` holds something; the operating system's.
pub fn backup(from: &Path, to: &Path) -> Result<Copied, Error> {
    let _locked = DataDir::existing(from)?.here()?;
    make_empty(to)?;
    let mut manifest = Manifest { version: 1, files: Vec::new() };
    for path in all_files(from)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name == "LOCK" || name.ends_with(".tmp") || name.starts_with("free-") {
            continue;
        }
        let (bytes, crc32c) = copy(&from.join(&path), &to.join(&path))?;
        manifest.files.push(Entry { path, bytes, crc32c });
    }
    sync_all(to)?;
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    let path = to.join(MANIFEST);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| sync_directory(to)).map_err(|error| failed("write", &path, error))?;
    Ok(manifest.copied())
}

/// Makes a data directory at `to`, which is empty or not there, from the copy at `from`.
///
/// # Errors
/// The copy is not what its manifest says; `to` holds something; the operating system's.
pub fn restore(from: &Path, to: &Path) -> Result<Copied, Error> {
    let path = from.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| failed("read", &path, error))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|error| failed("read", &path, std::io::Error::other(error)))?;
    if manifest.version != 1 {
        let why = format!("manifest version {}; this binary knows 1", manifest.version);
        return Err(failed("use", &path, std::io::Error::other(why)));
    }
    make_empty(to)?;
    // The format last: until it is there, no node takes the directory for whole.
    let (format, others): (Vec<_>, Vec<_>) =
        manifest.files.iter().partition(|entry| entry.path == Path::new("FORMAT"));
    for entry in others.into_iter().chain(format) {
        let plain = entry.path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let source = from.join(&entry.path);
        let why = if plain {
            let found = copy(&source, &to.join(&entry.path))?;
            (found != (entry.bytes, entry.crc32c)).then_some("it is not the file that was backed up")
        } else {
            Some("its name leads out of the directory")
        };
        if let Some(why) = why {
            return Err(failed("restore", &source, std::io::Error::other(why)));
        }
    }
    sync_all(to)?;
    Ok(manifest.copied())
}

impl Manifest {
    fn copied(&self) -> Copied {
        Copied { files: self.files.len(), bytes: self.files.iter().map(|entry| entry.bytes).sum() }
    }
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("{doing} {}", path.display()), error)
}

fn make_empty(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|error| failed("make", dir, error))?;
    let mut entries = fs::read_dir(dir).map_err(|error| failed("read", dir, error))?;
    if entries.next().is_some() {
        return Err(failed("use", dir, std::io::Error::other("it must be empty, or not be there")));
    }
    Ok(())
}

/// All files below a directory, by their names below it.
fn all_files(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let (mut found, mut dirs) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(dir) = dirs.pop() {
        let path = root.join(&dir);
        for entry in fs::read_dir(&path).map_err(|error| failed("read", &path, error))? {
            let entry = entry.map_err(|error| failed("read", &path, error))?;
            let kind = entry.file_type().map_err(|error| failed("look at", &entry.path(), error))?;
            let name = dir.join(entry.file_name());
            if kind.is_dir() {
                dirs.push(name);
            } else if kind.is_file() {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies a file; its length and checksum. Blocks of zeros become holes.
fn copy(from: &Path, to: &Path) -> Result<(u64, u32), Error> {
    use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, error))?;
    }
    let mut source = File::open(from).map_err(|error| failed("open", from, error))?;
    let target = File::create(to).map_err(|error| failed("make", to, error))?;
    let (mut buffer, mut at, mut crc) = (vec![0; CHUNK_BYTES], 0_u64, 0);
    loop {
        let read = source.read(&mut buffer).map_err(|error| failed("read", from, error))?;
        let chunk = buffer.get(..read).unwrap_or_default();
        if chunk.is_empty() {
            break;
        }
        crc = crc32c::crc32c_append(crc, chunk);
        if chunk.iter().any(|byte| *byte != 0) {
            target.write_all_at(chunk, at).map_err(|error| failed("write", to, error))?;
        }
        at += read as u64;
    }
    let mode = source.metadata().map(|metadata| metadata.permissions().mode()).unwrap_or(0o600);
    target
        .set_len(at)
        .and_then(|()| target.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| target.sync_all())
        .map_err(|error| failed("write", to, error))?;
    Ok((at, crc))
}

fn sync_all(root: &Path) -> Result<(), Error> {
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(|error| failed("read", &dir, error))?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
        }
        sync_directory(&dir).map_err(|error| failed("sync", &dir, error))?;
    }
    Ok(())
}
