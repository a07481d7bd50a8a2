//! The file system under the journal: the few blocking calls that it makes, in one place.
//!
//! So that everything the journal does to a disk can be had with another disk under it: a test may give its thread a
//! simulated one ([`simulated`]), which loses, tears and refuses what a real one may. Outside tests these are the
//! standard library's calls and nothing else.

#[cfg(test)]
pub(crate) mod simulated;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes zeroed between two syncs of a file being prepared, so that a preparation never floods the disk that
/// commits wait for.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// Names in a directory with the lengths of their files; names that are no text are left out.
///
/// # Errors
/// The operating system's; `NotFound` when there is no such directory.
pub fn list(directory: &Path) -> io::Result<Vec<(String, u64)>> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.list(directory);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str() {
            found.push((name.to_owned(), entry.metadata()?.len()));
        }
    }
    Ok(found)
}

/// Bytes that may still be written to the file system of a directory, by others than root.
///
/// # Errors
/// The operating system's.
pub fn free_bytes(directory: &Path) -> io::Result<u64> {
    #[cfg(test)]
    if simulated::current().is_some() {
        return Ok(u64::MAX);
    }
    let found = rustix::fs::statvfs(directory)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Makes a directory and those above it, where they are missing.
///
/// # Errors
/// The operating system's.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    if simulated::current().is_some() {
        return Ok(());
    }
    fs::create_dir_all(directory)
}

/// Bytes of a file.
///
/// # Errors
/// The operating system's.
pub fn length(path: &Path) -> io::Result<u64> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.length(path);
    }
    Ok(fs::metadata(path)?.len())
}

/// All of a file.
///
/// # Errors
/// The operating system's.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.read(path);
    }
    fs::read(path)
}

/// Makes a file that holds these bytes, and syncs it; its name is not. What stood there is gone.
///
/// # Errors
/// The operating system's; a full disk among them. A file may be left.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.append(bytes)?;
    file.sync()
}

/// Writes files and makes them durable together, by one sync of their file system: far less than one sync each.
///
/// # Errors
/// The operating system's; a full disk among them. Files may be left.
pub fn write_synced_together(files: &[(PathBuf, &[u8])]) -> io::Result<()> {
    #[cfg(test)]
    if simulated::current().is_some() {
        return files.iter().try_for_each(|(path, bytes)| write_synced(path, bytes));
    }
    // Opened before anything is written: then it is this sync that is told of a write that failed.
    let Some(directory) = files.first().and_then(|(path, _)| path.parent()) else { return Ok(()) };
    let directory = File::open(directory)?;
    for (path, bytes) in files {
        io::Write::write_all(&mut File::create(path)?, bytes)?;
    }
    Ok(rustix::fs::syncfs(&directory)?)
}

/// Makes names in directories of one file system durable together.
///
/// # Errors
/// The operating system's.
pub fn sync_directories(directories: &[PathBuf]) -> io::Result<()> {
    #[cfg(test)]
    if simulated::current().is_some() {
        return directories.iter().try_for_each(|directory| sync_directory(directory));
    }
    let Some(first) = directories.first() else { return Ok(()) };
    Ok(rustix::fs::syncfs(File::open(first)?)?)
}

/// Gives a file another name; what had that name is gone.
///
/// # Errors
/// The operating system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.rename(from, to);
    }
    fs::rename(from, to)
}

/// Removes a file.
///
/// # Errors
/// The operating system's.
pub fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.remove(path);
    }
    fs::remove_file(path)
}

/// Makes a file of `bytes` zeros, every block of them written and synced: blocks that were never written cost a commit
/// of the file system's journal each when they are first used.
///
/// # Errors
/// The operating system's; a full disk among them. A file may be left.
pub fn make_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.make_zeros(path, bytes);
    }
    write_zeros(&File::create(path)?, 0, bytes)
}

/// Makes a file at least `bytes` long, with zeros at its end, and syncs all of it.
///
/// # Errors
/// The operating system's; a full disk among them.
pub fn fill_up(path: &Path, bytes: u64) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.fill_up(path, bytes);
    }
    let file = File::options().write(true).open(path)?;
    let length = file.metadata()?.len();
    if length < bytes {
        write_zeros(&file, length, bytes)?;
    }
    file.sync_all()
}

/// Reads bytes `from` to `to` of a file and writes them to where they are, so that the next sync writes them whatever became of
/// the ones before. Nothing is synced.
///
/// # Errors
/// The operating system's.
pub fn write_again(path: &Path, from: u64, to: u64) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.write_again(path, &mut bytes, from);
    }
    let file = File::options().read(true).write(true).open(path)?;
    file.read_exact_at(&mut bytes, from)?;
    file.write_all_at(&bytes, from)
}

/// A file being written from its beginning to its end.
#[derive(Debug)]
pub struct NewFile(Target);

#[derive(Debug)]
enum Target {
    Real(File),
    #[cfg(test)]
    Simulated(simulated::Fresh),
}

impl NewFile {
    /// Makes an empty file; what had its name is gone.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create(path: &Path) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(disk) = simulated::current() {
            return Ok(Self(Target::Simulated(disk.create(path))));
        }
        Ok(Self(Target::Real(File::create(path)?)))
    }

    /// Writes at its end.
    ///
    /// # Errors
    /// The operating system's; a full disk among them.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Target::Real(file) => io::Write::write_all(file, bytes),
            #[cfg(test)]
            Target::Simulated(file) => file.append(bytes),
        }
    }

    /// Makes it durable, under whatever name its directory has been synced with.
    ///
    /// # Errors
    /// The operating system's. The file must be made anew: a second sync may lie.
    pub fn sync(self) -> io::Result<()> {
        match self.0 {
            Target::Real(file) => {
                file.sync_all()?;
                // Read rarely: the page cache belongs to what is.
                Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
            }
            #[cfg(test)]
            Target::Simulated(file) => file.sync(),
        }
    }
}

/// Makes names created, changed or removed in a directory durable.
///
/// # Errors
/// The operating system's.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return disk.sync_directory(directory);
    }
    File::open(directory)?.sync_all()
}

/// Writes zeros to `file` from byte `from` up to `bytes` and syncs them.
///
/// # Errors
/// The operating system's; a full disk among them.
pub(super) fn write_zeros(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_CHUNK_BYTES];
    let mut at = from;
    while at < bytes {
        let length = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..length).unwrap_or(&zeros), at)?;
        at += length as u64;
        file.sync_data()?;
    }
    file.sync_all()?;
    // Direct writes would first have to throw these pages out.
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// A file open for reading. It stays readable under whatever name it gets.
#[derive(Debug)]
pub struct OpenFile(Source);

#[derive(Debug)]
enum Source {
    Real(File),
    #[cfg(test)]
    Simulated(simulated::Open),
}

impl OpenFile {
    /// Opens a file.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(disk) = simulated::current() {
            return Ok(Self(Source::Simulated(disk.open(path)?)));
        }
        Ok(Self(Source::Real(File::open(path)?)))
    }

    /// Bytes of it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn length(&self) -> io::Result<u64> {
        match &self.0 {
            Source::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Source::Simulated(file) => Ok(file.length()),
        }
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The operating system's; `UnexpectedEof` when the file ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Source::Real(file) => file.read_exact_at(buffer, offset),
            #[cfg(test)]
            Source::Simulated(file) => file.read_exact_at(buffer, offset),
        }
    }
}
