//! What a node knows that its store once had, in a file of its own: a store that comes back with less is told apart from a new one.
//!
//! One line for each tag: `TAG EPOCH POSITION`. Written now and then and at the end, so it may say less than was acknowledged, never more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::HighWater;
use super::{Known, Tag};
use crate::io::disk;
use crate::store::Error;

/// Its name in a data directory.
pub const NAME: &str = "store.known";

/// What a store had, by tag.
pub type Levels = BTreeMap<String, Known>;

/// Reads it; nothing is known where there is no file.
///
/// # Errors
/// The operating system's, or it is not ours.
pub fn read(data_dir: &Path) -> Result<Levels, Error> {
    let path = data_dir.join(NAME);
    let bytes = match disk::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Levels::new()),
        read => read.map_err(|error| Error::io(format!("read {}", path.display()), error))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let levels = text.lines().map(|line| parse(line).ok_or_else(|| wrong(&path, line)));
    levels.collect()
}

fn parse(line: &str) -> Option<(String, Known)> {
    let mut words = line.split(' ');
    let (tag, epoch, position) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then(|| (tag.to_owned(), Known { epoch, position }))
}

fn wrong(path: &Path, line: &str) -> Error {
    let line: String = line.chars().take(80).collect();
    let error = io::Error::other(format!("\"{line}\" does not say what the store had"));
    Error::io(format!("use {}", path.display()), error)
}

/// Writes it as it rises.
#[derive(Debug)]
pub struct Water {
    path: PathBuf,
    levels: Vec<(Tag, Arc<HighWater>)>,
    written: Levels,
}

impl Water {
    /// In this data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(NAME), levels: Vec::new(), written: Levels::new() }
    }

    /// One more that rises.
    pub fn add(&mut self, tag: Tag, level: Arc<HighWater>) {
        self.levels.push((tag, level));
    }

    /// Writes what has risen. Not synced: what is lost with the machine's power was known to nobody.
    ///
    /// # Errors
    /// The operating system's; what stood there stands there still.
    pub fn write(&mut self) -> Result<(), Error> {
        let levels: Levels =
            self.levels.iter().map(|(tag, level)| (tag.to_string(), level.known())).collect();
        if levels == self.written {
            return Ok(());
        }
        let lines = levels.iter().map(|(tag, known)| format!("{tag} {} {}\n", known.epoch, known.position));
        let (text, unnamed) = (lines.collect::<String>(), self.path.with_extension("known.tmp"));
        let written = disk::NewFile::create(&unnamed).and_then(|mut file| file.append(text.as_bytes()));
        let named = written.and_then(|()| disk::rename(&unnamed, &self.path));
        named.map_err(|error| Error::io(format!("write {}", self.path.display()), error))?;
        self.written = levels;
        Ok(())
    }
}

// RELIABILITY 2.7
#[cfg(test)]
#[test]
fn what_was_known_is_read_again_and_a_strange_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(read(dir.path()).unwrap(), Levels::new());
    let mut water = Water::new(dir.path());
    let level = Arc::new(HighWater::default());
    water.add(Tag::Index, Arc::default());
    water.add(Tag::Partition(3), level.clone());
    for known in [Known { epoch: 4, position: 17 }, Known { epoch: 5, position: 90 }] {
        level.rises(known);
        water.write().unwrap();
        let levels = read(dir.path()).unwrap();
        assert_eq!((levels["3"], levels["index"]), (known, Known::default()));
    }
    for wrong in ["3 4\n", "3 4 5 6\n", "3 4 many\n", "\n"] {
        std::fs::write(dir.path().join(NAME), wrong).unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains(NAME), "{wrong}");
    }
}
