//! Registered workflows, in memory; a registration is durable.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::node::ROOT;
use crate::api::ports::{Amendment, Notes, Outcome, Registration, StorageError, Tags, Workflows};
use crate::cas::Blobs as _;
use crate::cas::disk::FileBlobs;
use crate::compile::{self, Format};
use crate::model::event::DocumentHash;

/// The simulation's workflows, never changed.
#[derive(Debug, Default)]
pub(super) struct SimulatedRegistry(BTreeMap<String, Registration>);

impl SimulatedRegistry {
    /// With these documents (YAML).
    pub(super) fn of(documents: impl IntoIterator<Item = &'static str>) -> Arc<Self> {
        let rows = documents.into_iter().map(|source| {
            let compiled = compile::compile(source.as_bytes(), Format::Yaml, &compile::Options::default());
            let compiled = compiled.unwrap_or_else(|findings| panic!("{source}: {findings:?}"));
            let row = Registration {
                name: compiled.ir.name.to_string(),
                version: "1".into(),
                hash: compiled.hash,
                canonical: compiled.canonical.as_bytes().to_vec(),
            };
            (row.name.clone(), row)
        });
        Arc::new(Self(rows.collect()))
    }
}

impl Workflows for SimulatedRegistry {
    fn register(
        &self,
        name: &str,
        _: Option<&str>,
        _: &[u8],
        hash: &DocumentHash,
    ) -> Result<Outcome, StorageError> {
        match self.0.get(name) {
            Some(row) if row.hash == *hash => Ok(Outcome::Registered { version: "1".into(), created: false }),
            _ => Err(StorageError("the simulation's workflows do not change".into())),
        }
    }

    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, StorageError> {
        Ok(self.0.get(name).filter(|_| version.is_none_or(|version| version == "1")).cloned())
    }

    fn amend(&self, _: &str, _: &Amendment<'_>) -> Result<(), StorageError> {
        Err(StorageError("the simulation's workflows do not change".into()))
    }

    fn notes(&self, _: &str, _: &[u8]) -> Result<Notes, StorageError> {
        Ok(Vec::new())
    }

    fn tags(&self, _: &str) -> Result<Tags, StorageError> {
        Ok(Vec::new())
    }

    fn keep(&self, _: &str, _: &[u8], _: &DocumentHash) -> Result<(), StorageError> {
        Err(StorageError("the simulation's workflows do not change".into()))
    }

    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Registration>, StorageError> {
        Ok(self.0.values().find(|row| row.hash == *hash).cloned())
    }

    fn patched(&self, hash: &DocumentHash) -> Result<Option<Vec<u8>>, StorageError> {
        let blobs = FileBlobs::existing(&Path::new(ROOT).join("cas"));
        blobs.get(hash).map_err(|error| StorageError(error.to_string()))
    }

    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, StorageError> {
        let after = after.map_or("", |(name, _)| name);
        let rows = self.0.values().filter(|row| row.name.as_str() > after).take(limit);
        Ok(rows.cloned().collect())
    }
}
