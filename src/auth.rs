//! Who may come in, and as whom: TLS of the listener, tokens, what a token may do, and in which workspace.
//!
//! Everything here is read from files at the start and again on SIGHUP, and swapped as a whole: a request sees the old
//! state or the new one, never half of each. A new file that cannot be used changes nothing; the error says why. Nothing
//! here is written by a running node.

pub mod development;
pub mod file;
pub mod holding;
pub mod quic;
pub mod rate;
pub mod streams;
pub mod tiers;
pub mod tls;
pub mod tokens;

pub use crate::wire::origin::Origins;
pub use holding::Holding;
pub use tokens::{Caller, Role};

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::audit;
use crate::telemetry::UntakenCells;

/// Which files say who may come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `tls.certificate` and `tls.key`; plain HTTP without.
    pub tls: Option<tls::Files>,
    /// `auth.tokens_file`; everybody may do everything without.
    pub tokens_file: Option<PathBuf>,
    /// `limits.requests_per_second`; nobody is counted without.
    pub rate: Option<rate::Policy>,
    /// `policy.patches`.
    pub holding: Holding,
    /// `rate.*`; starts are not counted without.
    pub tiers: Option<tiers::Plan>,
    /// `http.origins`.
    pub origins: Origins,
    /// `limits.streams_per_token`; streams are not counted without.
    pub streams: Option<usize>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {}: {problem}", path.display())]
pub struct Error {
    /// The key that names the file.
    pub key: &'static str,
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// The door of the node, shared by all control cores.
#[derive(Debug, Default)]
pub struct Door {
    /// Present when the listener speaks TLS.
    pub tls: Option<tls::Tls>,
    /// Present when requests need a token.
    pub tokens: Option<tokens::Tokens>,
    /// Present when requests are counted.
    pub allowances: Option<rate::Allowances>,
    /// Whose patches wait for a human.
    pub holding: Arc<Holding>,
    /// Present when starts are counted.
    pub tiers: Option<tiers::Tiers>,
    /// Pages of other sites that may open streams.
    pub origins: Origins,
    /// Present when the streams of a token are counted.
    pub streams: Option<streams::Streams>,
    /// Answers over HTTP/2 that nobody takes.
    pub untaken: Arc<UntakenCells>,
    /// What is recorded of requests; set once, when the data directory is open.
    pub audit: OnceLock<Arc<audit::Log>>,
}

impl Door {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let tls = settings.tls.as_ref().map(tls::Tls::open).transpose()?;
        let tokens = settings.tokens_file.as_deref().map(tokens::Tokens::open).transpose()?;
        let allowances = settings.rate.map(rate::Allowances::new);
        let holding = Arc::new(settings.holding.clone());
        let tiers = settings.tiers.clone().map(tiers::Tiers::new);
        let origins = settings.origins.clone();
        let streams = settings.streams.map(streams::Streams::new);
        Ok(Self { tls, tokens, allowances, holding, tiers, origins, streams, ..Self::default() })
    }

    /// Reads the files again, each by itself: one that cannot be used leaves what was there before.
    pub fn reload(&self, settings: &Settings) -> Vec<Error> {
        let tls = self.tls.as_ref().zip(settings.tls.as_ref());
        let tls = tls.and_then(|(tls, files)| tls.reload(files).err());
        let tokens = self.tokens.as_ref().zip(settings.tokens_file.as_deref());
        let tokens = tokens.and_then(|(tokens, path)| tokens.reload(path).err());
        tls.into_iter().chain(tokens).collect()
    }
}
