//! The data directory: who may use it, what is in it, of which format (`docs/formats/journal.md`, "Files").
//!
//! Must hold: one process at a time (a lock that the kernel drops with the process, however it dies); a
//! directory of a newer format is refused and not touched; its cluster id never changes. Everything here
//! blocks and runs at start.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::Error;
use super::log::Identity;
use super::log::recovery::hex;
use crate::io::disk::sync_directory;
use crate::io::file::random_bytes;

/// Format of the directory that this binary writes, and the newest it reads.
///
/// 1: finished runs stay in marked segments. 2: history files, and an index that knows them. 3: the index lists runs by slots.
pub const FORMAT: u32 = 3;

/// First line of the format file.
const TITLE: &str = "aob data directory";

/// Bytes of a format file that are looked at.
const FORMAT_FILE_BYTES_MAX: u64 = 4096;

/// A data directory that this process holds. The lock goes with the value.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    cluster: [u8; 16],
    shards: Option<u16>,
    format: u32,
    /// Its state is in a store elsewhere.
    elsewhere: bool,
    _lock: File,
}

/// What a format file says.
struct Said {
    cluster: [u8; 16],
    shards: Option<u16>,
    format: u32,
    elsewhere: bool,
}

impl DataDir {
    /// Opens a directory, made when there is none, and takes its lock.
    ///
    /// # Errors
    /// `Locked`, `Format` (newer, or not ours), or the operating system's.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let failed = |doing: &str, error| Error::io(format!("{doing} {}", root.display()), error);
        fs::create_dir_all(root).map_err(|error| failed("make the data directory", error))?;
        let lock = lock(root)?;
        let path = root.join("FORMAT");
        let Said { cluster, shards, format, elsewhere } = match File::open(&path) {
            Ok(file) => {
                let mut text = String::new();
                let read = file.take(FORMAT_FILE_BYTES_MAX).read_to_string(&mut text);
                read.map_err(|error| Error::io(format!("read {}", path.display()), error))?;
                parse(root, &text)?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let foreign = root.join("shards").exists() || root.join("index").exists();
                if foreign {
                    let found = "no FORMAT file, but data".into();
                    return Err(Error::Format { dir: root.into(), found, known: FORMAT });
                }
                let cluster = random_bytes().map_err(|error| failed("make an id for", error))?;
                let said = Said { cluster, shards: None, format: FORMAT, elsewhere: false };
                write_format(root, &said)?;
                said
            }
            Err(error) => return Err(Error::io(format!("open {}", path.display()), error)),
        };
        Ok(Self { root: root.into(), cluster, shards, format, elsewhere, _lock: lock })
    }

    /// Opens a directory that must be there.
    ///
    /// # Errors
    /// As [`open`](Self::open); `Format` when nothing is there.
    pub fn existing(root: &Path) -> Result<Self, Error> {
        if !root.join("FORMAT").is_file() {
            let found = "no FORMAT file".into();
            return Err(Error::Format { dir: root.into(), found, known: FORMAT });
        }
        Self::open(root)
    }

    /// Format of what is in it.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// From now on only binaries that know this format may open it. Called before the first write of it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn upgrade(&mut self) -> Result<(), Error> {
        if self.format < FORMAT {
            write_format(&self.root, &self.said())?;
            self.format = FORMAT;
        }
        Ok(())
    }

    fn said(&self) -> Said {
        let Self { cluster, shards, format, elsewhere, .. } = *self;
        Said { cluster, shards, format, elsewhere }
    }

    /// Is its state in a store elsewhere? There is neither journal nor index nor history in it then.
    pub fn is_elsewhere(&self) -> bool {
        self.elsewhere
    }

    /// For whoever looks into the directory itself.
    ///
    /// # Errors
    /// `Elsewhere`.
    pub fn here(self) -> Result<Self, Error> {
        if self.elsewhere { Err(Error::Elsewhere { dir: self.root }) } else { Ok(self) }
    }

    /// Writes down that the state of this new directory is elsewhere, with the id and the number of shards that are known there. Durable
    /// on return.
    ///
    /// # Errors
    /// The operating system's.
    pub fn record_elsewhere(&mut self, cluster: [u8; 16], shards: u16) -> Result<(), Error> {
        let said = Said { cluster, shards: Some(shards), format: self.format, elsewhere: true };
        write_format(&self.root, &said)?;
        (self.cluster, self.shards, self.elsewhere) = (cluster, Some(shards), true);
        Ok(())
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its id, which every frame carries.
    pub fn cluster(&self) -> [u8; 16] {
        self.cluster
    }

    /// What leases are sealed with: made once, so that one that was given out before a restart still opens.
    ///
    /// # Errors
    /// The operating system's, or the file is not ours.
    pub fn lease_key(&self) -> Result<[u8; 32], Error> {
        self.drawn("lease.key", "remove it, and leases given out are void")
    }

    /// Which node this directory makes of whoever has it. It must not be copied: two nodes would take each other's lease.
    ///
    /// # Errors
    /// The operating system's, or the file is not ours.
    pub fn node_id(&self) -> Result<[u8; 16], Error> {
        self.drawn("node.id", "remove it, and the node is a new one")
    }

    /// Random bytes that are drawn once and kept in a file, whole or not at all: a crash leaves the other name.
    fn drawn<const N: usize>(&self, name: &str, remedy: &str) -> Result<[u8; N], Error> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.root.join(name);
        let failed = |doing: &str, error| Error::io(format!("{doing} {}", path.display()), error);
        match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| {
                failed("use", std::io::Error::other(format!("it does not hold {N} bytes; {remedy}")))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let bytes: [u8; N] = random_bytes().map_err(|error| failed("make", error))?;
                let unnamed = self.root.join(format!("{name}.new"));
                let _ = fs::remove_file(&unnamed);
                let mut options = File::options();
                let file = options.write(true).create_new(true).mode(0o600).open(&unnamed);
                let mut file = file.map_err(|error| failed("make", error))?;
                file.write_all(&bytes)
                    .and_then(|()| file.sync_all())
                    .map_err(|error| failed("write", error))?;
                fs::rename(&unnamed, &path).map_err(|error| failed("name", error))?;
                sync_directory(&self.root).map_err(|error| failed("write", error))?;
                Ok(bytes)
            }
            Err(error) => Err(failed("read", error)),
        }
    }

    /// Number of shards that last wrote here; `None` in a new directory. When it differs from the one
    /// wanted, the runs of all old shards must be moved before [`record_shards`](Self::record_shards).
    pub fn shards(&self) -> Option<u16> {
        self.shards
    }

    /// Writes down that from now on there are `shards` of them. Durable on return.
    ///
    /// # Errors
    /// The operating system's.
    pub fn record_shards(&mut self, shards: u16) -> Result<(), Error> {
        if self.shards != Some(shards) {
            write_format(&self.root, &Said { shards: Some(shards), ..self.said() })?;
            self.shards = Some(shards);
        }
        Ok(())
    }

    /// Directory of a shard's journal.
    pub fn shard_dir(&self, shard: u16) -> PathBuf {
        shard_dir(&self.root, shard)
    }

    /// Directory of the content store.
    pub fn cas_dir(&self) -> PathBuf {
        self.root.join("cas")
    }

    /// Directory of the index.
    pub fn index_dir(&self) -> PathBuf {
        self.root.join("index")
    }

    /// What a shard's frames carry.
    pub fn identity(&self, shard: u16) -> Identity {
        Identity { cluster: self.cluster, shard }
    }

    /// Shards that have a directory, in order: those to read when the number changes.
    ///
    /// # Errors
    /// The operating system's.
    pub fn shards_on_disk(&self) -> Result<Vec<u16>, Error> {
        let dir = self.root.join("shards");
        let failed = |error| Error::io(format!("read the directory {}", dir.display()), error);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut shards = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            shards.extend(name.to_str().and_then(|name| name.parse::<u16>().ok()));
        }
        shards.sort_unstable();
        Ok(shards)
    }
}

/// Directory of a shard's history files under `root`.
pub fn history_dir(root: &Path, shard: u16) -> PathBuf {
    root.join("history").join(format!("{shard:03}"))
}

/// Directory of a shard's journal under a data directory.
pub fn shard_dir(root: &Path, shard: u16) -> PathBuf {
    root.join("shards").join(format!("{shard:03}"))
}

/// The process that has the directory at `root`, and the id of its node; `None` where nobody has it.
///
/// # Errors
/// The operating system's.
pub fn held_by(root: &Path) -> Result<Option<(i32, [u8; 16])>, Error> {
    let failed = |name: &str, error| Error::io(format!("read {}", root.join(name).display()), error);
    let pid = match lock(root) {
        Ok(_) => return Ok(None),
        Err(Error::Locked { pid, .. }) => pid.parse::<i32>().ok().filter(|pid| *pid > 0),
        Err(error) => return Err(error),
    };
    let pid = pid.ok_or_else(|| failed("LOCK", std::io::Error::other("it names no process")))?;
    let id = fs::read(root.join("node.id")).map_err(|error| failed("node.id", error))?;
    let id =
        id.try_into().map_err(|_| failed("node.id", std::io::Error::other("it does not hold 16 bytes")))?;
    Ok(Some((pid, id)))
}

fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("LOCK");
    let failed = |error| Error::io(format!("lock {}", path.display()), error);
    let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut pid);
            return Err(Error::Locked { dir: root.into(), pid: pid.trim().into() });
        }
        Err(error) => return Err(failed(error.into())),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(failed)?;
    Ok(file)
}

fn parse(root: &Path, text: &str) -> Result<Said, Error> {
    let refused = |found: &str| Error::Format { dir: root.into(), found: found.into(), known: FORMAT };
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(refused("that is not ours"));
    }
    let (mut format, mut cluster, mut shards, mut elsewhere) = (None, None, None, false);
    for line in lines {
        match line.split_once(' ') {
            Some(("format", value)) => format = Some(value),
            Some(("cluster", value)) => {
                cluster = u128::from_str_radix(value, 16).ok().filter(|_| value.len() == 32);
            }
            Some(("shards", value)) => shards = value.parse().ok(),
            Some(("store", _)) => elsewhere = true,
            _ => {}
        }
    }
    let format = format.ok_or_else(|| refused("without a number"))?;
    if let Some(number) = format.parse::<u32>().ok().filter(|number| (1..=FORMAT).contains(number)) {
        let cluster = cluster.ok_or_else(|| refused("without a cluster id"))?;
        Ok(Said { cluster: cluster.to_be_bytes(), shards, format: number, elsewhere })
    } else {
        Err(refused(format))
    }
}

fn write_format(root: &Path, said: &Said) -> Result<(), Error> {
    let mut text = format!("{TITLE}\nformat {FORMAT}\ncluster {}\n", hex(&said.cluster));
    if let Some(shards) = said.shards {
        text.push_str(&format!("shards {shards}\n"));
    }
    if said.elsewhere {
        text.push_str("store redis\n");
    }
    let (temporary, path) = (root.join("FORMAT.tmp"), root.join("FORMAT"));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_directory(root)
    };
    write().map_err(|error| Error::io(format!("write {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_id_and_shards() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = DataDir::open(root.path()).unwrap();
        let cluster = dir.cluster();
        assert_eq!((dir.shards(), dir.shards_on_disk().unwrap()), (None, vec![]));
        dir.record_shards(3).unwrap();
        fs::create_dir_all(dir.shard_dir(2)).unwrap();
        drop(dir);
        let dir = DataDir::open(root.path()).unwrap();
        assert_eq!((dir.cluster(), dir.shards(), dir.shards_on_disk().unwrap()), (cluster, Some(3), vec![2]));
        assert_ne!(cluster, [0; 16]);
    }

    #[test]
    fn a_directory_whose_state_is_elsewhere_says_so() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = DataDir::open(root.path()).unwrap();
        assert!(!dir.is_elsewhere());
        dir.record_elsewhere([7; 16], 4).unwrap();
        drop(dir);
        let dir = DataDir::open(root.path()).unwrap();
        assert_eq!((dir.cluster(), dir.shards(), dir.is_elsewhere()), ([7; 16], Some(4), true));
        assert_eq!(dir.here().unwrap_err().code(), "data_dir_elsewhere");
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        // B16
        let root = tempfile::tempdir().unwrap();
        let held = DataDir::open(root.path()).unwrap();
        let id = held.node_id().unwrap();
        assert_eq!(held_by(root.path()).unwrap(), Some((std::process::id() as i32, id)));
        let error = DataDir::open(root.path()).unwrap_err();
        assert_eq!(error.code(), "data_dir_locked");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(held);
        assert_eq!(held_by(root.path()).unwrap(), None);
        assert_eq!(DataDir::open(root.path()).unwrap().node_id().unwrap(), id);
    }

    #[test]
    fn another_process_is_refused_and_the_lock_of_a_killed_one_is_free() {
        // B16
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::open(root.path()).unwrap());
        let lock = root.path().join("LOCK");
        let mut other = std::process::Command::new("flock")
            .arg("--no-fork")
            .arg(&lock)
            .args(["sh", "-c", "echo held; exec sleep 60"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 4];
        other.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
        assert_eq!(DataDir::open(root.path()).unwrap_err().code(), "data_dir_locked");
        other.kill().unwrap();
        other.wait().unwrap();
        DataDir::open(root.path()).unwrap();
    }

    #[test]
    fn a_newer_or_foreign_format_is_refused_in_one_line() {
        // A10
        let root = tempfile::tempdir().unwrap();
        for text in [
            "aob data directory\nformat 3\ncluster 00\n",
            "something else\n",
            "aob data directory\nformat 1\n",
            "",
        ] {
            fs::write(root.path().join("FORMAT"), text).unwrap();
            let error = DataDir::open(root.path()).unwrap_err();
            assert_eq!(error.code(), "data_dir_format", "{text}");
            assert!(!error.to_string().contains('\n'));
            assert_eq!(fs::read_to_string(root.path().join("FORMAT")).unwrap(), text);
        }
    }

    #[test]
    fn data_without_a_format_file_is_not_taken_for_a_new_directory() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("shards")).unwrap();
        assert_eq!(DataDir::open(root.path()).unwrap_err().code(), "data_dir_format");
    }
}
