//! Who a request is from: its token, looked up by hash.
//!
//! A token is 256 random bits, so its SHA-256 tells nothing about it and needs no salt. The presented one is hashed and the
//! hash looked up: what the time of the look-up tells is about a hash that the caller cannot choose.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Error, file};
use crate::model::Workspace;

/// What a token may do; each may also do what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// GET.
    Read,
    /// POST, PUT, DELETE.
    Write,
    /// The whole node: metrics, administration, every workspace.
    Admin,
}

impl Role {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Read, Self::Write, Self::Admin].into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| format!("no role {text:?}; there are read, write and admin"))
    }
}

/// Whoever a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token; none where no tokens are needed.
    pub token: Option<Arc<str>>,
    /// Where it is, unless it chooses another.
    pub workspace: Workspace,
    /// What it may do.
    pub role: Role,
    /// Whom it answers reviews as; by its name when it does not say.
    pub reviewer: Option<Arc<str>>,
}

impl Caller {
    /// Everybody, on a node without tokens.
    pub const ANYONE: Self =
        Self { token: None, workspace: Workspace::DEFAULT, role: Role::Admin, reviewer: None };
}

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

pub(super) fn hash(token: &[u8]) -> TokenHash {
    Sha256::digest(token).into()
}

/// All tokens of the node.
#[derive(Debug)]
pub struct Tokens {
    current: ArcSwap<BTreeMap<TokenHash, Arc<Caller>>>,
    /// Of the process itself: in no file, gone with it.
    own: ArcSwapOption<(TokenHash, Arc<Caller>)>,
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { current: ArcSwap::from_pointee(read(path)?), own: ArcSwapOption::empty() })
    }

    /// Of the workspace `default`; each token is its own name.
    #[cfg(test)]
    pub(crate) fn of(callers: &[(&str, Role)]) -> Self {
        let rows = callers.iter().map(|(name, role)| {
            let caller = Caller { token: Some((*name).into()), role: *role, ..Caller::ANYONE };
            (hash(name.as_bytes()), Arc::new(caller))
        });
        Self { current: ArcSwap::from_pointee(rows.collect()), own: ArcSwapOption::empty() }
    }

    /// Reads the file again; requests to come are judged by it.
    ///
    /// # Errors
    /// As for [`open`](Self::open); then everything stays as it was.
    pub fn reload(&self, path: &Path) -> Result<(), Error> {
        self.current.store(Arc::new(read(path)?));
        Ok(())
    }

    /// Whose token this is.
    pub fn find(&self, token: &[u8]) -> Option<Arc<Caller>> {
        let hash = hash(token);
        let own = self.own.load();
        let own = own.as_deref().filter(|(own, _)| *own == hash).map(|(_, caller)| caller);
        own.or(self.current.load().get(&hash)).cloned()
    }

    /// A token for what runs in this process (`aobd dev`, `aobd demo`): it may write in the workspace `default`, and
    /// stands in no file. There is one; a further one takes its place.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn issue(&self, name: &str) -> std::io::Result<String> {
        let token = file::random()?;
        let caller = Caller {
            token: Some(name.into()),
            workspace: Workspace::DEFAULT,
            role: Role::Write,
            reviewer: None,
        };
        self.own.store(Some(Arc::new((hash(token.as_bytes()), Arc::new(caller)))));
        Ok(token)
    }
}

fn read(path: &Path) -> Result<BTreeMap<TokenHash, Arc<Caller>>, Error> {
    let rows = file::list(path)?.into_iter();
    Ok(rows.map(|row| (row.hash, Arc::new(row.caller))).collect())
}
