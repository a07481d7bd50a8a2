//! Files of a simulated disk that are written once, from their beginning to their end.

use std::io;
use std::path::Path;

use super::{BLOCK_BYTES, EIO, ENOSPC, Faults, Open, SimulatedDisk};

impl SimulatedDisk {
    pub(in crate::io::disk) fn create(&self, path: &Path) -> Fresh {
        let mut image = self.0.borrow_mut();
        image.made += 1;
        let file = image.made;
        image.name(None, Some((path, file)));
        Fresh { open: Open { disk: self.clone(), file }, bytes: Vec::new() }
    }
}

/// A file being written from its beginning to its end.
#[derive(Debug)]
pub(in crate::io::disk) struct Fresh {
    open: Open,
    /// All so far: blocks are written anew when they grow.
    bytes: Vec<u8>,
}

impl Fresh {
    pub(in crate::io::disk) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let from = self.bytes.len() / BLOCK_BYTES * BLOCK_BYTES;
        self.bytes.extend_from_slice(bytes);
        let mut image = self.open.disk.0.borrow_mut();
        image.counts.writes += 1;
        let Faults { full, write_error, .. } = image.faults;
        if image.random.chance(full) {
            image.counts.full += 1;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        if image.random.chance(write_error) {
            image.counts.write_errors += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        image.content(self.open.file).write(&self.bytes[from..], from as u64);
        Ok(())
    }

    pub(in crate::io::disk) fn sync(self) -> io::Result<()> {
        let mut image = self.open.disk.0.borrow_mut();
        image.counts.syncs += 1;
        let Faults { sync_error, sync_lies, .. } = image.faults;
        let file = self.open.file;
        if image.random.chance(sync_error) {
            image.counts.sync_errors += 1;
            let content = image.content(file);
            let dirty = std::mem::take(&mut content.dirty);
            content.lost.extend(dirty);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if !sync_lies {
            image.content(file).sync();
        }
        Ok(())
    }
}
