//! Registered workflows, in memory; a registration is durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::ports::{Outcome, Registration, StorageError, Tags, Workflows};
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

    fn tag(&self, _: &str, _: &str, _: Option<&str>) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn tags(&self, _: &str) -> Result<Tags, StorageError> {
        Ok(Vec::new())
    }

    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Registration>, StorageError> {
        Ok(self.0.values().find(|row| row.hash == *hash).cloned())
    }

    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, StorageError> {
        let after = after.map_or("", |(name, _)| name);
        let rows = self.0.values().filter(|row| row.name.as_str() > after).take(limit);
        Ok(rows.cloned().collect())
    }
}
