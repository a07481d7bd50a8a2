//! The graphs of a record: its document is compiled, those that patches made of it are derived from the operations in its
//! events. What comes out with another hash than the events say is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::compile::{self, Compiled};
use crate::engine::Graphs;
use crate::ir::Ir;
use crate::model::event::{DocumentHash, RunStarted};
use crate::model::patch::{Change, Layer};

/// One document, and what patches made of it so far.
#[derive(Debug)]
pub struct Documents {
    base: DocumentHash,
    known: BTreeMap<DocumentHash, Arc<Compiled>>,
    /// As registered, when that is not what the document says.
    named: Option<(Arc<str>, Arc<str>)>,
    /// Why the last one could not be had.
    pub(super) trouble: Option<String>,
}

impl Documents {
    /// Of a canonical document.
    ///
    /// # Errors
    /// It does not compile; in words.
    pub fn new(canonical: &[u8]) -> Result<Self, String> {
        let compiled = compile::compile_canonical(canonical).map_err(|error| error.to_string())?;
        Ok(Self::of(compiled))
    }

    /// Of a document that is compiled.
    pub fn of(compiled: Compiled) -> Self {
        let base = compiled.hash;
        Self { base, known: BTreeMap::from([(base, Arc::new(compiled))]), named: None, trouble: None }
    }

    /// With a canonical document that a patch made, where the record has that and no operations.
    ///
    /// # Errors
    /// It does not compile, or is another; in words.
    pub fn with_made(mut self, hash: DocumentHash, canonical: &[u8]) -> Result<Self, String> {
        let compiled = compile::compile_canonical(canonical).map_err(|error| error.to_string())?;
        if compiled.hash != hash {
            return Err("a document of the record is not what its name says".into());
        }
        self.known.insert(hash, Arc::new(compiled));
        Ok(self)
    }

    /// With the name and version that a run knows it by.
    #[must_use]
    pub fn named(mut self, started: &RunStarted) -> Self {
        self.named = Some((started.workflow.clone(), started.version.clone()));
        self
    }

    /// The document that all began with.
    pub fn base(&self) -> Option<&Arc<Compiled>> {
        self.known.get(&self.base)
    }

    fn ir(&self, compiled: &Compiled) -> Arc<Ir> {
        match &self.named {
            None => compiled.ir.clone(),
            Some((name, version)) => {
                Arc::new(Ir { name: name.clone(), version: version.clone(), ..(*compiled.ir).clone() })
            }
        }
    }

    fn derive(
        &mut self,
        before: &DocumentHash,
        change: &Change,
        document: &DocumentHash,
    ) -> Result<(), String> {
        if self.known.contains_key(document) {
            return Ok(());
        }
        if !change.is_kept() {
            return Err("neither the patch nor the document that it made is in the record".into());
        }
        let before = self.known.get(before).ok_or("the document before the patch is missing")?;
        let patch = compile::patch::read(change.operations()).map_err(|refusal| refusal.to_string())?;
        let made = compile::patch::remake(&before.document, &patch).map_err(|refusal| refusal.to_string())?;
        if made.hash != *document {
            return Err("the patch gives another document than the record says".into());
        }
        self.known.insert(*document, Arc::new(made));
        Ok(())
    }
}

impl Graphs for Documents {
    fn of(&mut self, document: &DocumentHash) -> Option<Arc<Ir>> {
        let compiled = self.known.get(document);
        if compiled.is_none() {
            self.trouble = Some("the record brings another document than its events name".into());
        }
        compiled.map(|compiled| self.ir(compiled))
    }

    fn after(
        &mut self,
        base: &DocumentHash,
        layers: &[Arc<Layer>],
        change: &Change,
        document: &DocumentHash,
    ) -> Option<Arc<Ir>> {
        let mut before = *base;
        for layer in layers {
            if let Err(why) = self.derive(&before, &layer.change, &layer.document) {
                self.trouble = Some(why);
                return None;
            }
            before = layer.document;
        }
        if let Err(why) = self.derive(&before, change, document) {
            self.trouble = Some(why);
            return None;
        }
        self.of(document)
    }
}
