//! What stood there before `apply` changed it: written, synced and renamed into place before anything is changed, so that whatever happens
//! next can be taken back. Text only: what is no text is not changed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, place};

/// Under the root of the host.
const DIRECTORY: &str = "var/lib/aob-tune";
const NAME: &str = "before.json";
const FORMAT: u32 = 1;

/// A value, or a file, that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// As the host names it.
    pub(super) path: PathBuf,
    /// What stood there before the first change; none: there was no such file.
    pub(super) before: Option<String>,
    /// What was written.
    pub(super) wrote: String,
    /// What stood there afterwards; none: it was given up in between, or refused.
    pub(super) after: Option<String>,
    /// Of a value that another boot does not have: in which it was changed.
    pub(super) boot: Option<String>,
}

/// All of them, in the order in which they were made.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    pub(super) changes: Vec<Change>,
}

/// The record of a host, and the right to change it: nobody else has it meanwhile.
#[derive(Debug)]
pub(super) struct Held {
    directory: PathBuf,
    _lock: File,
}

impl Held {
    /// Waits for nobody.
    ///
    /// # Errors
    /// Somebody else has it; it cannot be made.
    pub(super) fn take(root: &Path) -> Result<Self, Error> {
        let directory = root.join(DIRECTORY);
        fs::create_dir_all(&directory).map_err(|error| Error::io(&directory, error))?;
        let path = directory.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|error| Error::io(&path, error))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::Busy(path))?;
        Ok(Self { directory, _lock: lock })
    }

    /// What was written down; nothing, when nothing was changed.
    pub(super) fn read(&self) -> Result<Record, Error> {
        let path = self.directory.join(NAME);
        let text = match place::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Record { format: FORMAT, changes: Vec::new() });
            }
            Err(error) => return Err(Error::io(&path, error)),
        };
        let record: Record =
            serde_json::from_str(&text).map_err(|error| Error::Record(path.clone(), error.to_string()))?;
        if record.format != FORMAT {
            return Err(Error::Record(path, format!("format {} is not known", record.format)));
        }
        Ok(record)
    }

    /// Writes it down; one without changes is taken away.
    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.directory.join(NAME);
        if record.changes.is_empty() {
            return take_away(&path);
        }
        let text = serde_json::to_string_pretty(record)
            .map_err(|error| Error::Record(path.clone(), error.to_string()))?;
        replace(&path, &text)
    }
}

/// A file has this text, whole, or what it had.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let failed = |error| Error::io(path, error);
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut file = File::create(&beside).map_err(failed)?;
    // Who may read it stays as it was.
    if let Ok(there) = fs::metadata(path) {
        file.set_permissions(there.permissions()).map_err(failed)?;
    }
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// There is no such file, afterwards.
pub(super) fn take_away(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}
