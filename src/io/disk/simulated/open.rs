//! An open file of a simulated disk: writes that a process may die in the middle of, syncs that cover what was written when
//! they were asked for.

use std::io;

use super::{BLOCK_BYTES, EIO, Faults, SECTOR_BYTES, SimulatedDisk};

/// An open file.
#[derive(Debug)]
pub(crate) struct Open {
    pub(super) disk: SimulatedDisk,
    pub(super) file: u64,
}

impl Open {
    pub(in crate::io::disk) fn length(&self) -> u64 {
        self.disk.0.borrow_mut().content(self.file).length
    }

    pub(in crate::io::disk) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut image = self.disk.0.borrow_mut();
        let content = image.content(self.file);
        if offset + buffer.len() as u64 > content.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(buffer, offset);
        image.read_fault()?;
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
        // What is written while it is under way is none of its business.
        let (blocks, length) = {
            let mut image = self.disk.0.borrow_mut();
            let content = image.content(self.file);
            (content.dirty.clone(), content.length)
        };
        pause(&self.disk).await;
        let mut image = self.disk.0.borrow_mut();
        image.counts.syncs += 1;
        let chance = image.faults.sync_error;
        if image.random.chance(chance) {
            image.counts.sync_errors += 1;
            image.content(self.file).unsynced(blocks);
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let Faults { sync_lies, reused_lie, .. } = image.faults;
        let content = image.content(self.file);
        let lies = sync_lies || (reused_lie && content.reused);
        if !lies {
            content.synced(blocks, length);
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
