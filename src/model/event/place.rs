//! Where a node stands in a run. Part of the journal's format, like every event.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Where in a run: the scopes gone through, then the node in the innermost one.
/// `each[3].score` is scopes `[(each, 3)]` and node `score`; item 3 of `each` itself is scopes `[(each, 3)]` too, with
/// the body's only node, which has no name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// (index of the owning node in its scope, number of the pass: item, branch or iteration), outermost first.
    pub scopes: SmallVec<[(u32, u32); 2]>,
    /// Index of the node in the innermost scope.
    pub node: u32,
}

impl Place {
    /// Stands in `node` for a pass as a whole: `each[3]`, not a node in it.
    pub const PASS: u32 = u32::MAX;
    /// Number of the pass through a node's fallback: its bodies are numbered from 0.
    pub const FALLBACK: u32 = u32::MAX;

    /// The pass that holds this node; `None` in the outermost scope.
    pub fn owner(&self) -> Option<Self> {
        (!self.scopes.is_empty()).then(|| Self { scopes: self.scopes.clone(), node: Self::PASS })
    }

    /// Of a pass: the node that it is a pass of, and its number.
    pub fn node_of_pass(&self) -> Option<(Self, u32)> {
        let mut scopes = self.scopes.clone();
        let (node, pass) = scopes.pop()?;
        Some((Self { scopes, node }, pass))
    }

    /// A node of the outermost scope.
    pub fn root(node: u32) -> Self {
        Self { scopes: SmallVec::new(), node }
    }
}
