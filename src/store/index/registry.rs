//! Registered workflows in the index: documents by hash, versions in the order of their registration, tags.

use std::sync::Arc;

use super::{Index, VersionRow, decode, encode, keys};
use crate::model::Workspace;
use crate::model::event::DocumentHash;
use crate::store::Error;
use crate::store::archive::{Amendment, Notes, Registered, Registration, Registry, Tags};
use crate::store::keyspaces::Batch;

impl Registry for Index {
    fn register(
        &self,
        name: &str,
        version: Option<&str>,
        canonical: &[u8],
        hash: DocumentHash,
    ) -> Result<Registered, Error> {
        if name.contains('\0') || version.is_some_and(|version| version.contains('\0')) {
            return Err(Error::Index { why: "a name holds a zero byte".into() });
        }
        // A poisoned lock protects nothing but the order of registrations.
        let _one_at_a_time = self.registering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = match version {
            Some(version) => self.versions.get(keys::named(name, version.as_bytes()))?,
            None => self.by_document.get(keys::named(name, &hash))?,
        };
        if let Some(order) = known {
            let row: Option<VersionRow> = self.row_of(&self.workflows, &keys::named(name, &order))?;
            let row = row.ok_or_else(|| Error::Index { why: format!("{name} has lost a version") })?;
            if row.hash == hash {
                return Ok(Registered { version: row.version, created: false });
            }
            return Err(Error::Conflict { name: name.into(), version: row.version.to_string() });
        }
        let highest: u64 = self.row_of(&self.numbers, name.as_bytes())?.unwrap_or(0);
        let number = version.map_or(Some(highest.saturating_add(1)), |version| version.parse().ok());
        let version: Arc<str> =
            version.map_or_else(|| highest.saturating_add(1).to_string().into(), Into::into);
        let last = self.workflows.prefix(keys::named(name, &[])).next_back();
        let last = last.map(|guard| guard.key()).transpose()?;
        let order = last.and_then(|key| keys::order(&key)).unwrap_or(0).saturating_add(1).to_be_bytes();
        let mut batch = Batch::durable();
        batch.insert(&self.documents, hash, canonical);
        batch.insert(
            &self.workflows,
            keys::named(name, &order),
            encode(&VersionRow { version: version.clone(), hash })?,
        );
        batch.insert(&self.versions, keys::named(name, version.as_bytes()), order);
        if self.by_document.get(keys::named(name, &hash))?.is_none() {
            batch.insert(&self.by_document, keys::named(name, &hash), order);
            batch.insert(&self.document_names, keys::document_name(&hash, name), []);
        }
        if let Some(number) = number.filter(|number| *number > highest) {
            batch.insert(&self.numbers, name.as_bytes(), encode(&number)?);
        }
        self.commit(batch)?;
        Ok(Registered { version, created: true })
    }

    fn get(&self, name: &str, version: Option<&str>) -> Result<Option<Registration>, Error> {
        let row: Option<VersionRow> = match version {
            Some(version) => match self.versions.get(keys::named(name, version.as_bytes()))? {
                Some(order) => self.row_of(&self.workflows, &keys::named(name, &order))?,
                None => None,
            },
            None => {
                let last = self.workflows.prefix(keys::named(name, &[])).next_back();
                last.map(|guard| decode(&guard.value()?)).transpose()?
            }
        };
        Ok(row.map(|row| Registration { name: name.into(), version: row.version, hash: row.hash }))
    }

    fn amend(&self, name: &str, amendment: &Amendment<'_>) -> Result<(), Error> {
        let _one_at_a_time = self.registering.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut batch = Batch::durable();
        for (key, value) in &amendment.notes {
            match value {
                Some(value) => batch.insert(&self.notes, keys::named(name, key), value.as_slice()),
                None => batch.remove(&self.notes, keys::named(name, key)),
            }
        }
        for (hash, canonical) in &amendment.documents {
            batch.insert(&self.documents, **hash, *canonical);
            batch.insert(&self.document_names, keys::document_name(hash, name), []);
        }
        for (tag, version) in &amendment.tags {
            match version {
                Some(version) => {
                    batch.insert(&self.tags, keys::named(name, tag.as_bytes()), version.as_bytes())
                }
                None => batch.remove(&self.tags, keys::named(name, tag.as_bytes())),
            }
        }
        self.commit(batch)
    }

    fn notes(&self, name: &str, prefix: &[u8]) -> Result<Notes, Error> {
        let rows = self.notes.prefix(keys::named(name, prefix));
        rows.map(|guard| {
            let (key, value) = guard.into_inner()?;
            Ok((key.get(name.len() + 1..).unwrap_or_default().to_vec(), value.to_vec()))
        })
        .collect()
    }

    fn tags(&self, name: &str) -> Result<Tags, Error> {
        let text = |bytes: &[u8]| Arc::<str>::from(String::from_utf8_lossy(bytes));
        let rows = self.tags.prefix(keys::named(name, &[]));
        rows.map(|guard| {
            let (key, version) = guard.into_inner()?;
            Ok((text(key.get(name.len() + 1..).unwrap_or_default()), text(&version)))
        })
        .collect()
    }

    fn is_registered(&self, hash: &DocumentHash, workspace: &Workspace) -> Result<bool, Error> {
        Ok(self.document_names.prefix(keys::content(hash, Some(workspace))).next().is_some())
    }

    fn keep(&self, name: &str, canonical: &[u8], hash: &DocumentHash) -> Result<(), Error> {
        let mut batch = Batch::durable();
        batch.insert(&self.documents, *hash, canonical);
        batch.insert(&self.document_names, keys::document_name(hash, name), []);
        self.commit(batch)
    }

    fn by_hash(&self, hash: &DocumentHash) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.documents.get(hash)?.map(|bytes| bytes.to_vec()))
    }

    fn list(&self, after: Option<(&str, &str)>, limit: usize) -> Result<Vec<Registration>, Error> {
        let mut start = Vec::new();
        if let Some((name, version)) = after {
            let order = self.versions.get(keys::named(name, version.as_bytes()))?;
            // The first key after this one; of an unknown version, the first of the next name.
            start = order.map_or_else(|| keys::named(name, &[0xff; 9]), |order| keys::named(name, &order));
            start.push(0);
        }
        let rows = self.workflows.range(start..).take(limit);
        rows.map(|guard| {
            let (key, value) = guard.into_inner()?;
            let row: VersionRow = decode(&value)?;
            Ok(Registration { name: keys::name(&key).into(), version: row.version, hash: row.hash })
        })
        .collect()
    }
}
