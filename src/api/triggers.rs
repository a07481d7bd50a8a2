//! What schedules, hooks and batches have in common: their rows, the key their secrets are sealed with, what hooks may be sent.
//!
//! One for the node, shared by all control cores. A row begins with the number of its format; what cannot be read is an
//! error of the storage. Keys begin with the workspace, so that nobody lists or finds another's.

use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::services::blocking;
use crate::auth::rate::{Allowances, Policy};
use crate::limits;
use crate::model::Workspace;
use crate::store::TriggerStore;
use crate::store::triggers::{Change, Table};
use crate::telemetry::Cell;
use crate::wire::problem::Problem;

type Refused = Box<Problem>;

/// Of rows.
const FORMAT: u8 = 1;

/// See the module.
pub struct Triggers {
    store: Arc<dyn TriggerStore>,
    seal: Option<LessSafeKey>,
    /// What may be sent to each hook.
    pub(super) allowances: Allowances,
    /// Wakes whoever drives batches.
    pub(super) batches: tokio::sync::Notify,
    /// What batches did since the node started.
    pub(super) batch_cells: Arc<BatchCells>,
}

/// Runs that batches dealt with, by what came of it.
#[derive(Debug, Default)]
pub(super) struct BatchCells {
    pub done: Cell,
    pub skipped: Cell,
    pub failed: Cell,
    /// Tries that met a trouble that passes, so that a batch waited.
    pub held_up: Cell,
}

impl std::fmt::Debug for Triggers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Triggers")
    }
}

impl Triggers {
    /// Over these rows; secrets in them are sealed with a key made of `key`, which outlives restarts.
    pub fn new(store: Arc<dyn TriggerStore>, key: [u8; 32]) -> Arc<Self> {
        let key = derived(&key);
        let seal = UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new);
        let policy =
            Policy { per_second: limits::HOOK_REQUESTS_PER_SECOND, burst: limits::HOOK_REQUESTS_BURST };
        Arc::new(Self {
            store,
            seal,
            allowances: Allowances::new(policy),
            batches: tokio::sync::Notify::new(),
            batch_cells: Arc::default(),
        })
    }

    /// Bytes that nobody reads without the key, and that are of no use to another than `owner`.
    pub(super) fn seal(&self, owner: &[u8], nonce: [u8; NONCE_LEN], secret: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = secret.to_vec();
        let key = self.seal.as_ref()?;
        let within = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(within, Aad::from(owner), &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    /// What was sealed for `owner`; `None` when the key is another one, or it was not.
    pub(super) fn open(&self, owner: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut opened = sealed.to_vec();
        let within = Nonce::assume_unique_for_key(*nonce);
        let opened = self.seal.as_ref()?.open_in_place(within, Aad::from(owner), &mut opened).ok()?;
        Some(opened.to_vec())
    }
}

/// A key of its own, so that leases and secrets are not sealed with the same.
fn derived(key: &[u8; 32]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mac = Hmac::<sha2::Sha256>::new_from_slice(key).ok().map(|mut mac| {
        mac.update(b"aob hook secrets\0");
        <[u8; 32]>::from(mac.finalize().into_bytes())
    });
    mac.unwrap_or(*key)
}

/// The key of something with a name in a workspace. Neither holds a zero byte.
pub(super) fn key(workspace: &Workspace, name: &str) -> Vec<u8> {
    [workspace.name().as_bytes(), &[0], name.as_bytes()].concat()
}

/// The workspace of such a key.
pub(super) fn workspace_of(key: &[u8]) -> Option<Workspace> {
    let name = key.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// A row as it is kept.
pub(super) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    // The parts are plain: it cannot fail.
    let mut bytes = vec![FORMAT];
    bytes.extend(postcard::to_stdvec(row).unwrap_or_default());
    bytes
}

/// A row that was kept.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    let row = bytes.strip_prefix(&[FORMAT]).and_then(|row| postcard::from_bytes(row).ok());
    row.ok_or_else(|| {
        Problem::unavailable("storage_failed", "a row of a schedule, hook or batch cannot be read")
    })
}

fn failed(error: &crate::store::Error) -> Refused {
    Problem::unavailable("storage_failed", error.to_string())
}

/// One row, read.
pub(super) async fn get<T: DeserializeOwned>(
    triggers: &Arc<Triggers>,
    table: Table,
    key: Vec<u8>,
) -> Result<Option<T>, Refused> {
    let store = triggers.store.clone();
    let row = blocking(move || store.get(table, &key)).await?.map_err(|error| failed(&error))?;
    row.as_deref().map(decode).transpose()
}

/// Rows of a workspace after one with this name, read, by name.
pub(super) async fn page<T: DeserializeOwned>(
    triggers: &Arc<Triggers>,
    table: Table,
    (workspace, after): (&Workspace, &str),
    limit: usize,
) -> Result<Vec<T>, Refused> {
    let (store, prefix) = (triggers.store.clone(), key(workspace, ""));
    let after = if after.is_empty() { Vec::new() } else { key(workspace, after) };
    let rows = blocking(move || store.page(table, &prefix, &after, limit)).await?;
    rows.map_err(|error| failed(&error))?.iter().map(|(_, row)| decode(row)).collect()
}

/// Rows of a workspace, up to `most`. Blocks.
pub(super) fn all(
    triggers: &Triggers,
    table: Table,
    workspace: &Workspace,
    most: usize,
) -> Result<Vec<Vec<u8>>, Refused> {
    let rows = triggers.store.page(table, &key(workspace, ""), &[], most);
    Ok(rows.map_err(|error| failed(&error))?.into_iter().map(|(_, row)| row).collect())
}

/// Rows of a workspace, counted up to `most`.
pub(super) fn count(
    triggers: &Triggers,
    table: Table,
    workspace: &Workspace,
    most: usize,
) -> Result<usize, Refused> {
    Ok(all(triggers, table, workspace, most)?.len())
}

/// The first rows to be looked at.
pub(super) async fn agenda(
    triggers: &Arc<Triggers>,
    table: Table,
    limit: usize,
) -> Result<Vec<(crate::time::Timestamp, Vec<u8>)>, Refused> {
    let store = triggers.store.clone();
    blocking(move || store.agenda(table, limit)).await?.map_err(|error| failed(&error))
}

/// The page after a page.
pub(super) fn linked(
    response: http::Response<super::respond::Body>,
    (path, limit): (&str, usize),
    next: Option<&str>,
) -> http::Response<super::respond::Body> {
    let Some(next) = next else { return response };
    let link = format!("<{path}?cursor={next}&limit={limit}>; rel=\"next\"");
    super::respond::with(response, http::header::LINK, link)
}

/// Changes a row, durably, and gives back what `change` says of it besides.
pub(super) async fn update<T: Send + 'static>(
    triggers: &Arc<Triggers>,
    table: Table,
    key: Vec<u8>,
    change: impl FnOnce(Option<&[u8]>) -> Result<(Change, T), Refused> + Send + 'static,
) -> Result<T, Refused> {
    let store = triggers.store.clone();
    blocking(move || {
        let (mut change, mut came) = (Some(change), None);
        let done = store.update(table, &key, &mut |row| match change.take().map(|change| change(row)) {
            Some(Ok((change, more))) => {
                came = Some(Ok(more));
                change
            }
            Some(Err(problem)) => {
                came = Some(Err(problem));
                Change::Keep
            }
            None => Change::Keep,
        });
        done.map_err(|error| failed(&error))?;
        came.unwrap_or_else(|| Err(Problem::new(500, "internal", "a change was not made")))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::triggers::InMemory;

    fn triggers(key: u8) -> Arc<Triggers> {
        Triggers::new(Arc::new(InMemory::default()), [key; 32])
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_for_its_owner_only() {
        let sealed = triggers(1).seal(b"hook_1", [9; NONCE_LEN], b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(triggers(1).open(b"hook_1", &sealed).as_deref(), Some(&b"secret"[..]));
        assert_eq!(triggers(2).open(b"hook_1", &sealed), None);
        assert_eq!(triggers(1).open(b"hook_2", &sealed), None);
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert_eq!(triggers(1).open(b"hook_1", &other), None, "{at}");
        }
        assert_eq!(triggers(1).open(b"hook_1", b"short"), None);
    }

    #[test]
    fn a_row_of_another_format_is_refused() {
        assert_eq!(decode::<u64>(&encode(&7_u64)).unwrap(), 7);
        for bytes in [&b""[..], &[2, 7], &[1]] {
            assert_eq!(decode::<u64>(bytes).unwrap_err().code, "storage_failed");
        }
        assert_eq!(workspace_of(&key(&"acme".parse().unwrap(), "n")), Some("acme".parse().unwrap()));
    }
}
