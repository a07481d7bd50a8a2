//! Where the events of a shard stand, and who writes them next: a directory of segments, or a partition in Redis.
//!
//! Must hold: what recovery reads is what the committer goes on from. A partition in Redis is claimed before it is read, segments after they
//! were read; both before anything is written.

use std::collections::BTreeMap;

use crate::io::spawn_local;
use crate::model::FrameRef;
use crate::store::Error;
use crate::store::journal::{Fence, Journal as _};
use crate::store::log::{self, CommitHandle, Committer, Cut, Log, Recovered, Sealed, Sink};
use crate::store::record::Burst;
#[cfg(feature = "redis")]
use crate::store::record::Bursts;
#[cfg(feature = "redis")]
use crate::store::redis::RedisLog;

/// Is shown every burst with its frame, in order.
pub(crate) type Visit<'a> = dyn FnMut(FrameRef, Burst<'_>) -> Result<(), Error> + 'a;

/// The journal of a shard, before it is written.
pub(crate) enum Origin {
    /// In files, and what was found there when it was read last.
    Files(Box<log::Config>, Option<Box<Recovered>>),
    /// In Redis.
    #[cfg(feature = "redis")]
    Redis(Box<RedisLog>),
}

impl Origin {
    /// In files, to be read.
    pub(crate) fn files(config: log::Config) -> Self {
        Self::Files(Box::new(config), None)
    }

    /// Reads all that is there but what lies in marked segments. May be done again.
    ///
    /// # Errors
    /// Damage; the store's; the visitor's.
    pub(crate) fn read(&mut self, marks: &BTreeMap<u64, Sealed>, visit: &mut Visit<'_>) -> Result<(), Error> {
        match self {
            Self::Files(config, recovered) => {
                let source = log::Source { dir: &config.dir, identity: config.identity, marks };
                *recovered = Some(Box::new(log::recover(source, visit)?));
                Ok(())
            }
            #[cfg(feature = "redis")]
            Self::Redis(log) => {
                let mut visit =
                    |frame, payload: &[u8]| Bursts::new(payload)?.try_for_each(|burst| visit(frame, burst?));
                let mut read = Ok(0);
                let ran = crate::io::net::block_on(async { read = log.read(marks, &mut visit).await });
                ran.map_err(|source| Error::io("wait for the store", source))?;
                read.map(drop)
            }
        }
    }

    /// Was nothing ever there? A journal that was given back to its end was not always empty.
    pub(crate) fn is_new(&self) -> bool {
        match self {
            Self::Files(_, recovered) => {
                recovered.as_ref().is_none_or(|found| found.frames == 0 && found.sealed.is_empty())
            }
            #[cfg(feature = "redis")]
            Self::Redis(log) => log.next_position() == 1,
        }
    }

    /// The first segment that is there.
    pub(crate) fn first_segment(&self) -> u64 {
        match self {
            Self::Files(_, recovered) => recovered.as_ref().map_or(0, |found| found.first_segment()),
            #[cfg(feature = "redis")]
            Self::Redis(log) => log.first_segment(),
        }
    }

    /// What was cut off its end, when something was.
    pub(crate) fn cut(&self) -> Option<Cut> {
        match self {
            Self::Files(_, recovered) => recovered.as_ref()?.cut,
            #[cfg(feature = "redis")]
            Self::Redis(..) => None,
        }
    }

    /// Starts what writes it, on this thread's driver. It is claimed then: nothing of an older owner can be appended.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn start(self) -> Result<(CommitHandle, Fence), Error> {
        match self {
            Self::Files(config, recovered) => {
                let unread = || Error::Fenced { cause: "it was not read".into() };
                let mut log = Log::open(*config, *recovered.ok_or_else(unread)?).await?;
                let fence = log.claim(nonce()?).await?;
                Ok((commit(log)?, fence))
            }
            #[cfg(feature = "redis")]
            Self::Redis(log) => {
                let handle = commit(*log)?;
                let fence = handle.fence();
                Ok((handle, fence))
            }
        }
    }
}

/// What tells an owner from others of the same epoch.
pub(crate) fn nonce() -> Result<u64, Error> {
    let drawn = crate::io::file::random_bytes();
    drawn.map(u64::from_le_bytes).map_err(|source| Error::io("draw random bytes", source))
}

fn commit<S: Sink + 'static>(sink: S) -> Result<CommitHandle, Error> {
    let (handle, committer) = Committer::start(sink)?;
    // How it ended is in the handle: the shard sees the failure there.
    spawn_local(async move {
        let _ = committer.run().await;
    });
    Ok(handle)
}
