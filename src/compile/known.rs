//! What has been compiled already: expressions by their source, schemas by their text.
//!
//! A document keeps what it was compiled with, and what a patch makes of it compiles only what is new. Nothing depends on it:
//! limits count what a document has, known or not, and whatever is not known is compiled. It is as large as the document's own
//! expressions and schemas, which its documents share, and goes with it.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use crate::expr::Program;
use crate::ir::Schema;

/// Parts of a document that compile to the same whatever document they stand in.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    programs: AHashSet<BySource>,
    /// By their JSON text.
    schemas: AHashMap<Arc<str>, Schema>,
}

#[derive(Clone, Debug)]
struct BySource(Arc<Program>);

impl Borrow<str> for BySource {
    fn borrow(&self) -> &str {
        self.0.source()
    }
}

impl Hash for BySource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.source().hash(state);
    }
}

impl PartialEq for BySource {
    fn eq(&self, other: &Self) -> bool {
        self.0.source() == other.0.source()
    }
}

impl Eq for BySource {}

impl Known {
    /// The program of this source.
    pub(super) fn program(&self, source: &str) -> Option<&Arc<Program>> {
        self.programs.get(source).map(|known| &known.0)
    }

    pub(super) fn add_program(&mut self, program: Arc<Program>) {
        self.programs.insert(BySource(program));
    }

    /// The schema with this text; it is within its bounds.
    pub(super) fn schema(&self, text: &str) -> Option<(&Arc<str>, &Schema)> {
        self.schemas.get_key_value(text)
    }

    pub(super) fn add_schema(&mut self, text: Arc<str>, schema: Schema) {
        self.schemas.insert(text, schema);
    }
}
