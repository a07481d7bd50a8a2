//! A disk for tests, in memory, by seed: what was not synced may be lost or torn, syncs may fail and lie on the next try,
//! room may run out.
//!
//! A disk outlives the nodes that use it. [`SimulatedDisk::kill`] is the end of a process: what it wrote is still in the page
//! cache. [`SimulatedDisk::cut_power`] is the end of the machine: of what was not synced each block is kept, lost or torn,
//! and of names changed since their directory was synced a beginning is kept. A thread has at most one such disk; while
//! it has one, the calls of `io::disk`, `io::file` and `io` go there, take simulated time and start no thread.

pub(crate) mod damage;
mod faults;
mod fresh;
mod open;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

pub(crate) use self::faults::{Counts, Faults, Random};
pub(in crate::io::disk) use self::fresh::Fresh;
pub(crate) use open::{Open, pause};

const BLOCK_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
/// Input/output error, no space left on device.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

type Block = Rc<[u8; BLOCK_BYTES]>;
type Blocks = BTreeMap<u64, Block>;

thread_local! {
    static CURRENT: RefCell<Option<SimulatedDisk>> = const { RefCell::new(None) };
}

/// The disk of this thread.
pub(crate) fn current() -> Option<SimulatedDisk> {
    CURRENT.with_borrow(Clone::clone)
}

/// Gives this thread a disk until the guard is dropped.
pub(crate) fn mount(disk: &SimulatedDisk) -> Mounted {
    CURRENT.set(Some(disk.clone()));
    Mounted(())
}

/// Takes the disk away when it is dropped.
pub(crate) struct Mounted(());

impl Drop for Mounted {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk(Rc<RefCell<Image>>);

#[derive(Debug)]
struct Image {
    random: Random,
    faults: Faults,
    counts: Counts,
    /// As a process sees them.
    names: BTreeMap<PathBuf, u64>,
    /// As they are after a power cut, but for a beginning of `renamed`.
    durable_names: BTreeMap<PathBuf, u64>,
    renamed: Vec<Naming>,
    files: BTreeMap<u64, Content>,
    made: u64,
}

/// A change of names that its directory has not been synced for, whole or not at all.
#[derive(Clone, Debug)]
struct Naming {
    unset: Option<PathBuf>,
    set: Option<(PathBuf, u64)>,
}

impl Naming {
    fn is_within(&self, directory: &Path) -> bool {
        let set = self.set.as_ref().map(|(name, _)| name);
        set.or(self.unset.as_ref()).is_some_and(|name| name.parent() == Some(directory))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        if let Some(name) = &self.unset {
            names.remove(name);
        }
        if let Some((name, file)) = &self.set {
            names.insert(name.clone(), *file);
        }
    }
}

#[derive(Debug, Default)]
struct Content {
    length: u64,
    durable_length: u64,
    durable: Blocks,
    /// Written, not synced.
    dirty: Blocks,
    /// A sync of these failed: they are read from the cache, and no sync will ever write them.
    lost: Blocks,
    /// Was in use before, under another name.
    reused: bool,
}

impl Content {
    fn block(&self, at: u64) -> Option<&Block> {
        self.dirty.get(&at).or_else(|| self.lost.get(&at)).or_else(|| self.durable.get(&at))
    }

    fn read(&self, buffer: &mut [u8], offset: u64) {
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            let (block, from) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
            let count = (BLOCK_BYTES - from).min(buffer.len() - filled);
            match self.block(block) {
                Some(block) => buffer[filled..filled + count].copy_from_slice(&block[from..from + count]),
                None => buffer[filled..filled + count].fill(0),
            }
            filled += count;
        }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        for (index, chunk) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let mut block = [0; BLOCK_BYTES];
            block[..chunk.len()].copy_from_slice(chunk);
            self.dirty.insert(offset / BLOCK_BYTES as u64 + index as u64, Rc::new(block));
        }
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    fn sync(&mut self) {
        let (blocks, length) = (self.dirty.clone(), self.length);
        self.synced(blocks, length);
    }

    /// What was written when a sync was asked for is durable; what came after that is not.
    fn synced(&mut self, blocks: Blocks, length: u64) {
        for (at, block) in blocks {
            if self.dirty.get(&at).is_some_and(|now| Rc::ptr_eq(now, &block)) {
                self.dirty.remove(&at);
            }
            self.lost.remove(&at);
            self.durable.insert(at, block);
        }
        self.durable_length = self.durable_length.max(length);
    }

    /// A sync failed: what was written when it was asked for is read from the cache until it is gone.
    fn unsynced(&mut self, blocks: Blocks) {
        for (at, block) in blocks {
            if self.dirty.get(&at).is_some_and(|now| Rc::ptr_eq(now, &block)) {
                self.dirty.remove(&at);
                self.lost.insert(at, block);
            }
        }
    }
}

impl Image {
    fn name(&mut self, unset: Option<&Path>, set: Option<(&Path, u64)>) {
        let set = set.map(|(name, file)| (name.into(), file));
        let naming = Naming { unset: unset.map(Path::to_path_buf), set };
        naming.apply(&mut self.names);
        self.renamed.push(naming);
    }

    fn found(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }

    /// Does a read fail now, and how?
    fn read_fault(&mut self) -> io::Result<()> {
        let chance = self.faults.read_error;
        if !self.random.chance(chance) {
            return Ok(());
        }
        self.counts.read_errors += 1;
        match self.random.draw(2) {
            0 => Err(io::Error::from_raw_os_error(EIO)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Files that no name leads to any more.
    fn forget(&mut self) {
        let (names, durable, renamed) = (&self.names, &self.durable_names, &self.renamed);
        let named = |file: &u64| {
            names.values().chain(durable.values()).any(|named| named == file)
                || renamed.iter().any(|naming| naming.set.as_ref().is_some_and(|(_, set)| set == file))
        };
        self.files.retain(|file, _| named(file));
    }
}

impl SimulatedDisk {
    /// An empty one.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Image {
            random: Random::new(seed),
            faults: Faults::default(),
            counts: Counts::default(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            files: BTreeMap::new(),
            made: 0,
        })))
    }

    /// From now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.borrow().counts
    }

    /// Unpredictable to the node, the same for the same seed.
    pub(crate) fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut image = self.0.borrow_mut();
        std::array::from_fn(|_| image.random.draw(256) as u8)
    }

    /// How long the next operation takes.
    pub(crate) fn latency(&self) -> Duration {
        let mut image = self.0.borrow_mut();
        let Faults { stall, latency_ms, stall_ms, .. } = image.faults;
        let most = if image.random.chance(stall) { stall_ms } else { latency_ms };
        Duration::from_millis(image.random.draw(most + 1))
    }

    /// The process has ended; files of no name are gone with it.
    pub(crate) fn kill(&self) {
        self.0.borrow_mut().forget();
    }

    /// The power has failed.
    pub(crate) fn cut_power(&self) {
        let mut image = self.0.borrow_mut();
        let renamed = std::mem::take(&mut image.renamed);
        let kept = image.random.draw(renamed.len() as u64 + 1) as usize;
        image.counts.names_lost += (renamed.len() - kept) as u64;
        for naming in renamed.iter().take(kept) {
            naming.apply(&mut image.durable_names);
        }
        image.names = image.durable_names.clone();
        let files: Vec<u64> = image.files.keys().copied().collect();
        for file in files {
            let content = image.content(file);
            let dirty = std::mem::take(&mut content.dirty);
            content.lost.clear();
            for (at, block) in dirty {
                image.settle(file, at, &block);
            }
            let content = image.content(file);
            let written =
                content.durable.keys().next_back().map_or(0, |last| (last + 1) * BLOCK_BYTES as u64);
            // A file ends where it was written up to, wherever its last block does.
            content.durable_length = content.durable_length.max(written).min(content.length);
            content.length = content.durable_length;
        }
        image.forget();
    }

    pub(super) fn list(&self, directory: &Path) -> io::Result<Vec<(String, u64)>> {
        let image = self.0.borrow();
        let own = image.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        let rows = own.filter_map(|(path, file)| {
            Some((
                path.file_name()?.to_str()?.to_owned(),
                image.files.get(file).map_or(0, |file| file.length),
            ))
        });
        Ok(rows.collect())
    }

    pub(super) fn length(&self, path: &Path) -> io::Result<u64> {
        let mut image = self.0.borrow_mut();
        let file = image.found(path)?;
        Ok(image.content(file).length)
    }

    /// All of a file, whatever goes wrong.
    pub(crate) fn peek(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut image = self.0.borrow_mut();
        let file = image.found(path)?;
        let content = image.content(file);
        let mut bytes = vec![0; content.length as usize];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.borrow_mut().read_fault()?;
        self.peek(path)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        let file = image.found(from)?;
        let free =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("free-"));
        image.counts.reused += u64::from(free(from));
        image.content(file).reused |= free(from);
        image.name(Some(from), Some((to, file)));
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        image.found(path)?;
        image.name(Some(path), None);
        Ok(())
    }

    pub(super) fn make_zeros(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        image.made += 1;
        let file = image.made;
        image.name(None, Some((path, file)));
        let full = image.faults.full;
        if image.random.chance(full) {
            image.counts.full += 1;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        // Zeros need no blocks: what was never written reads as zeros.
        let content = image.content(file);
        (content.length, content.durable_length) = (bytes, bytes);
        Ok(())
    }

    pub(super) fn fill_up(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        let file = image.found(path)?;
        let content = image.content(file);
        content.length = content.length.max(bytes);
        content.sync();
        Ok(())
    }

    pub(super) fn write_again(&self, path: &Path, bytes: &mut [u8], from: u64) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        let file = image.found(path)?;
        let content = image.content(file);
        content.read(bytes, from);
        content.write(bytes, from);
        Ok(())
    }

    pub(super) fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        if image.faults.names_lie {
            return Ok(());
        }
        for naming in std::mem::take(&mut image.renamed) {
            if naming.is_within(directory) {
                naming.apply(&mut image.durable_names);
            } else {
                image.renamed.push(naming);
            }
        }
        Ok(())
    }

    /// Opens a file for reading and writing.
    pub(crate) fn open(&self, path: &Path) -> io::Result<Open> {
        let file = self.0.borrow().found(path)?;
        Ok(Open { disk: self.clone(), file })
    }
}

impl Image {
    /// What a power cut leaves of a block that was written and not synced.
    fn settle(&mut self, file: u64, at: u64, block: &Block) {
        let fate = self.random.draw(3);
        if fate == 0 {
            self.counts.blocks_lost += 1;
            return;
        }
        let mut left = self.content(file).durable.get(&at).map_or([0; BLOCK_BYTES], |block| **block);
        let sectors = if fate == 1 { u64::MAX } else { self.random.draw(1 << (BLOCK_BYTES / SECTOR_BYTES)) };
        self.counts.blocks_torn += u64::from(fate == 2);
        for sector in (0..BLOCK_BYTES / SECTOR_BYTES).filter(|sector| sectors >> sector & 1 == 1) {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            left[range.clone()].copy_from_slice(&block[range]);
        }
        self.content(file).durable.insert(at, Rc::new(left));
    }
}
