//! A disk for tests, in memory, by seed: what was not synced may be lost or torn, syncs may fail and lie on the next try,
//! room may run out.
//!
//! A disk outlives the nodes that use it. [`SimulatedDisk::kill`] is the end of a process: what it wrote is still in the page
//! cache. [`SimulatedDisk::cut_power`] is the end of the machine: of what was not synced each block is kept, lost or torn,
//! and of names changed since their directory was synced a beginning is kept. A thread has at most one such disk; while
//! it has one, the calls of `io::disk`, `io::file` and `io` go there, take simulated time and start no thread.

mod fresh;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

pub(super) use fresh::Fresh;

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

/// What may go wrong, and how long things take. All chances are in a million.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A write fails, with a part of it written.
    pub(crate) write_error: u32,
    /// A sync fails; what it should have made durable never will be, though later ones succeed.
    pub(crate) sync_error: u32,
    /// A preparation finds the disk full.
    pub(crate) full: u32,
    /// An operation takes long.
    pub(crate) stall: u32,
    /// Most milliseconds of an operation.
    pub(crate) latency_ms: u64,
    /// Most milliseconds of one that takes long.
    pub(crate) stall_ms: u64,
    /// Syncs of files report success and do nothing: as if nobody had asked for them.
    pub(crate) sync_lies: bool,
    /// The same for directories.
    pub(crate) names_lie: bool,
}

/// What has been done to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    pub(crate) write_errors: u64,
    pub(crate) sync_errors: u64,
    pub(crate) full: u64,
    pub(crate) blocks_lost: u64,
    pub(crate) blocks_torn: u64,
    pub(crate) names_lost: u64,
    /// Files that got another name to be used again.
    pub(crate) reused: u64,
}

/// Draws that are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A draw below `below`.
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }

    /// Does something happen that happens so often in a million?
    pub(crate) fn chance(&mut self, in_a_million: u32) -> bool {
        in_a_million > 0 && self.draw(1_000_000) < u64::from(in_a_million)
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
        for (at, block) in std::mem::take(&mut self.dirty) {
            self.lost.remove(&at);
            self.durable.insert(at, block);
        }
        self.durable_length = self.length;
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
            // A block that was there already, with the file's end in it, makes the file no longer.
            if let Some(last) = content.durable.keys().next_back()
                && last * BLOCK_BYTES as u64 >= content.durable_length
            {
                content.durable_length = (last + 1) * BLOCK_BYTES as u64;
            }
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

    pub(super) fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut image = self.0.borrow_mut();
        let file = image.found(path)?;
        let content = image.content(file);
        let mut bytes = vec![0; content.length as usize];
        content.read(&mut bytes, 0);
        Ok(bytes)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        let file = image.found(from)?;
        let free =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("free-"));
        image.counts.reused += u64::from(free(from));
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

    pub(super) fn sync_directory(&self, _: &Path) -> io::Result<()> {
        let mut image = self.0.borrow_mut();
        if image.faults.names_lie {
            return Ok(());
        }
        image.durable_names = image.names.clone();
        image.renamed.clear();
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

/// An open file.
#[derive(Debug)]
pub(crate) struct Open {
    disk: SimulatedDisk,
    file: u64,
}

impl Open {
    pub(super) fn length(&self) -> u64 {
        self.disk.0.borrow_mut().content(self.file).length
    }

    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut image = self.disk.0.borrow_mut();
        let content = image.content(self.file);
        if offset + buffer.len() as u64 > content.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(buffer, offset);
        Ok(())
    }

    /// Writes in two steps with time between them, so that a process can end in the middle.
    pub(crate) async fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let half = {
            let mut image = self.disk.0.borrow_mut();
            image.counts.writes += 1;
            image.random.draw(bytes.len() as u64 / SECTOR_BYTES as u64 + 1) as usize * SECTOR_BYTES
        };
        pause(&self.disk).await;
        self.write_some(bytes, offset, half);
        {
            let mut image = self.disk.0.borrow_mut();
            let chance = image.faults.write_error;
            if image.random.chance(chance) {
                image.counts.write_errors += 1;
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        tokio::task::yield_now().await;
        self.disk.0.borrow_mut().content(self.file).write(bytes, offset);
        Ok(())
    }

    /// The first `count` bytes; a block of which only a beginning is written keeps its end.
    fn write_some(&self, bytes: &[u8], offset: u64, count: usize) {
        let mut image = self.disk.0.borrow_mut();
        let content = image.content(self.file);
        let whole = count - count % BLOCK_BYTES;
        content.write(&bytes[..whole], offset);
        if count > whole {
            let mut block = [0; BLOCK_BYTES];
            content.read(&mut block, offset + whole as u64);
            block[..count - whole].copy_from_slice(&bytes[whole..count]);
            content.write(&block, offset + whole as u64);
        }
    }

    pub(crate) async fn sync(&self) -> io::Result<()> {
        pause(&self.disk).await;
        let mut image = self.disk.0.borrow_mut();
        image.counts.syncs += 1;
        let chance = image.faults.sync_error;
        if image.random.chance(chance) {
            image.counts.sync_errors += 1;
            let content = image.content(self.file);
            let dirty = std::mem::take(&mut content.dirty);
            content.lost.extend(dirty);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if !image.faults.sync_lies {
            image.content(self.file).sync();
        }
        Ok(())
    }
}

/// Lets simulated time pass for one operation.
pub(crate) async fn pause(disk: &SimulatedDisk) {
    let latency = disk.latency();
    if latency.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(latency).await;
    }
}
