//! Files of the journal: direct through the ring, or plain through a helper thread.
//!
//! A [`LogFile`] writes whole buffers at aligned offsets and syncs; both await without holding the core up.
//! *Direct* is glommio's `DmaFile` (`O_DIRECT`, io_uring) and works only on a glommio thread. *Plain* is an
//! ordinary file whose calls run, one after another, on a [`Helper`] thread; it works on every runtime and
//! is used where io_uring is refused.
//!
//! A write that ends short is continued until everything is written; it never reports success before. **A
//! failed sync must not be repeated** (the next one would succeed and mean nothing): the caller fences.
//! Running out of descriptors is an error here, except in the first open of a thread, where glommio reads
//! sysfs and panics: so open files at start.

#[cfg(test)]
mod faults;
#[cfg(test)]
pub(crate) mod testing;

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// One value handed from one task or thread to another; it works on every runtime.
pub use tokio::sync::oneshot;

use super::Driver;
#[cfg(test)]
use super::disk::simulated;

#[cfg(test)]
pub(crate) use faults::Faults;

/// Offsets and lengths of writes are multiples of this.
pub const ALIGN_BYTES: usize = 4096;

/// How a journal file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `O_DIRECT` through io_uring.
    Direct,
    /// Through the page cache, on a helper thread.
    Plain,
}

impl From<Driver> for FileKind {
    fn from(driver: Driver) -> Self {
        match driver {
            Driver::Ring => Self::Direct,
            Driver::Tokio => Self::Plain,
        }
    }
}

/// When what is written to a journal file is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Once it is written, where the file is [direct](FileKind::Direct): one call to the ring, not two, and one sleep (`O_DSYNC`).
    Durable,
    /// Once it is synced.
    Cached,
}

/// A thread that makes blocking calls for a core, in order. It inherits the core's pinning and ends with its
/// last handle.
#[derive(Clone, Debug)]
pub struct Helper {
    jobs: std::sync::mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Helper {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, received) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        #[cfg(test)]
        if simulated::current().is_some() {
            return Ok(Self { jobs });
        }
        std::thread::Builder::new().name(name.into()).spawn(move || {
            while let Ok(job) = received.recv() {
                job();
            }
        })?;
        Ok(Self { jobs })
    }

    /// Runs `job` on the thread, after those given before.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        #[cfg(test)]
        if let Some(disk) = simulated::current() {
            simulated::pause(&disk).await;
            return Ok(job());
        }
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move || drop(sender.send(job())));
        self.jobs.send(job).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())
    }
}

/// Runs one blocking job on a thread of its own. It begins at once, also when nobody awaits it.
///
/// # Errors
/// The thread can not be started, or the job panicked.
pub fn in_background<T: Send + 'static>(
    name: String,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> impl Future<Output = io::Result<T>> + 'static {
    let (sender, receiver) = oneshot::channel();
    let job = move || drop(sender.send(job()));
    #[cfg(test)]
    let (job, disk) = match simulated::current() {
        Some(disk) => (None, Some((disk, job))),
        None => (Some(job), None),
    };
    #[cfg(not(test))]
    let job = Some(job);
    let started = job.map_or(Ok(()), |job| std::thread::Builder::new().name(name).spawn(job).map(drop));
    async move {
        #[cfg(test)]
        if let Some((disk, job)) = disk {
            simulated::pause(&disk).await;
            job();
        }
        started?;
        receiver.await.map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("a helper thread of the journal is gone")
}

/// Bytes on their way to a file, of a length that the file takes.
#[derive(Debug)]
pub enum WriteBuffer {
    /// Aligned memory of the ring.
    Direct(glommio::io::DmaBuffer),
    /// Ordinary memory.
    Plain(Vec<u8>),
}

impl WriteBuffer {
    /// To be filled; what is in it at first has no meaning.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Direct(buffer) => buffer.as_bytes_mut(),
            Self::Plain(buffer) => buffer,
        }
    }
}

/// An open file of the journal.
#[derive(Debug)]
pub struct LogFile {
    inner: Inner,
    path: PathBuf,
    #[cfg(test)]
    faults: Faults,
}

#[derive(Debug)]
enum Inner {
    Direct(glommio::io::DmaFile, Writes),
    Plain {
        file: Arc<File>,
        helper: Helper,
    },
    #[cfg(test)]
    Simulated(simulated::Open),
}

impl LogFile {
    /// Opens an existing file for writing. `helper` serves plain files.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn open(path: &Path, kind: FileKind, writes: Writes, helper: &Helper) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(disk) = simulated::current() {
            let inner = Inner::Simulated(disk.open(path)?);
            return Ok(Self { inner, path: path.to_path_buf(), faults: Faults });
        }
        let inner = match kind {
            FileKind::Direct => {
                let mut options = glommio::io::OpenOptions::new();
                options.read(true).write(true);
                if writes == Writes::Durable {
                    options.custom_flags(rustix::fs::OFlags::DSYNC.bits().cast_signed());
                }
                Inner::Direct(options.dma_open(path).await.map_err(io::Error::from)?, writes)
            }
            FileKind::Plain => {
                let owned = path.to_path_buf();
                let open = move || File::options().read(true).write(true).open(owned);
                Inner::Plain { file: Arc::new(helper.run(open).await??), helper: helper.clone() }
            }
        };
        Ok(Self {
            inner,
            path: path.to_path_buf(),
            #[cfg(test)]
            faults: Faults,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A buffer of `bytes` (a multiple of [`ALIGN_BYTES`]) for one write; `reuse` gives its memory back
    /// where that is possible.
    pub fn buffer(&self, bytes: usize, reuse: Option<WriteBuffer>) -> WriteBuffer {
        match (&self.inner, reuse) {
            // The ring's allocator keeps its own registered memory; a buffer cannot grow.
            (Inner::Direct(file, _), _) => WriteBuffer::Direct(file.alloc_dma_buffer(bytes)),
            (Inner::Plain { .. }, Some(WriteBuffer::Plain(mut buffer))) => {
                buffer.resize(bytes, 0);
                WriteBuffer::Plain(buffer)
            }
            (Inner::Plain { .. }, _) => WriteBuffer::Plain(vec![0; bytes]),
            #[cfg(test)]
            (Inner::Simulated(_), _) => WriteBuffer::Plain(vec![0; bytes]),
        }
    }

    /// Writes all of `buffer` at `offset`, and gives its memory back for the next one.
    ///
    /// # Errors
    /// Not everything was written. What is on the disk is unknown.
    pub async fn write_at(&self, buffer: WriteBuffer, offset: u64) -> io::Result<Option<WriteBuffer>> {
        #[cfg(test)]
        self.faults.on_write()?;
        match (&self.inner, buffer) {
            (Inner::Direct(file, _), WriteBuffer::Direct(buffer)) => {
                write_direct(file, buffer, offset).await?;
                Ok(None)
            }
            (Inner::Plain { file, helper }, WriteBuffer::Plain(buffer)) => {
                let file = file.clone();
                let write = move || file.write_all_at(&buffer, offset).map(|()| buffer);
                Ok(Some(WriteBuffer::Plain(helper.run(write).await??)))
            }
            #[cfg(test)]
            (Inner::Simulated(file), WriteBuffer::Plain(buffer)) => {
                file.write_at(&buffer, offset).await?;
                Ok(None)
            }
            _ => Err(io::Error::other("a buffer of another kind of file")),
        }
    }

    /// Makes everything durable that was written through this and has completed; there is nothing to do where it is already.
    /// Never call it again after it failed.
    ///
    /// # Errors
    /// The sync failed: what was written since the last one may be lost.
    pub async fn fdatasync(&self) -> io::Result<()> {
        #[cfg(test)]
        self.faults.on_sync()?;
        match &self.inner {
            Inner::Direct(_, Writes::Durable) => Ok(()),
            Inner::Direct(file, Writes::Cached) => file.fdatasync().await.map_err(io::Error::from),
            Inner::Plain { file, helper } => {
                let file = file.clone();
                helper.run(move || file.sync_data()).await?
            }
            #[cfg(test)]
            Inner::Simulated(file) => file.sync().await,
        }
    }

    /// Closes it. Nothing is synced.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn close(self) -> io::Result<()> {
        match self.inner {
            Inner::Direct(file, _) => file.close().await.map_err(io::Error::from),
            Inner::Plain { file, helper } => helper.run(move || drop(file)).await,
            #[cfg(test)]
            Inner::Simulated(_) => Ok(()),
        }
    }
}

async fn write_direct(
    file: &glommio::io::DmaFile,
    buffer: glommio::io::DmaBuffer,
    offset: u64,
) -> io::Result<()> {
    let mut buffer = Rc::new(buffer);
    let mut offset = offset;
    loop {
        let length = buffer.len();
        let written = file.write_rc_at(buffer.clone(), offset).await.map_err(io::Error::from)?;
        if written >= length {
            return Ok(());
        }
        // B13: a short write goes on at the last aligned byte, in a buffer of its own.
        let done = written - written % ALIGN_BYTES;
        if done == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut rest = file.alloc_dma_buffer(length - done);
        if let Some(left) = buffer.as_bytes().get(done..) {
            rest.as_bytes_mut().copy_from_slice(left);
        }
        buffer = Rc::new(rest);
        offset += done as u64;
    }
}

/// `N` unpredictable bytes. Blocking, but only before the machine has gathered its first randomness.
///
/// # Errors
/// The operating system's.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    #[cfg(test)]
    if let Some(disk) = simulated::current() {
        return Ok(disk.random_bytes());
    }
    let mut bytes = [0; N];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}
