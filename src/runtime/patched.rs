//! The graph of a run as its patches left it, from its history.
//!
//! Blocking. Memory: the operations of its patches, bounded as those of any run.

use std::sync::Arc;

use crate::api::Catalog;
use crate::api::catalog::Error;
use crate::ir::Ir;
use crate::model::event::DocumentHash;
use crate::model::patch::{Change, Layer};
use crate::model::{Event, EventBody};

/// What the events of a run say about its graph, as they come.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Hash of the document that it began with.
    pub(super) base: DocumentHash,
    /// Its changes, in order.
    pub(super) layers: Vec<Arc<Layer>>,
    proposed: Option<Change>,
}

impl Layers {
    pub(super) fn event(&mut self, event: &Event) {
        match &event.body {
            EventBody::RunStarted(started) => self.base = started.document,
            EventBody::PatchCreated(proposal) => self.proposed = Some(Change::Patch(proposal.clone())),
            EventBody::PatchRevoked(revocation) => {
                self.proposed = Some(Change::Revoked(revocation.clone()));
            }
            EventBody::PatchApplied(patched) => {
                let change = self.proposed.take();
                self.layers.extend(
                    change.map(|change| Arc::new(Layer { change, at: event.at, document: patched.document })),
                );
            }
            _ => {}
        }
    }

    /// The graph, every node in the place that it had from its first event on.
    ///
    /// # Errors
    /// A document is not to be had.
    pub(super) fn graph(&self, catalog: &Catalog) -> Result<Arc<Ir>, Error> {
        let mut ir = catalog.with_layers(&self.base, &[])?.compiled.ir.clone();
        for (at, layer) in self.layers.iter().enumerate() {
            let before = self.layers.get(..at).unwrap_or_default();
            let next = catalog.after(&self.base, before, &layer.change, &layer.document)?;
            ir = Arc::new(next.compiled.ir.aligned(&ir));
        }
        Ok(ir)
    }
}
