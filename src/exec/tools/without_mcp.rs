//! Tool servers of a node that was built without the feature `mcp`: none can be reached, and every call says so.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::Server;
use super::work::Marks;
use crate::exec::Secrets;
use crate::exec::connect::Shared;
use crate::model::agent::ToolSpec;
use crate::model::{Failure, Map, Value};

/// As with the feature.
pub(super) struct Context {
    pub(super) connector: Shared,
    pub(super) secrets: Secrets,
    pub(super) launcher: Option<PathBuf>,
}

/// As with the feature.
pub(super) struct Listed {
    pub(super) spec: ToolSpec,
    pub(super) repeatable: bool,
}

/// As with the feature.
pub(super) struct McpServer {
    name: Arc<str>,
}

impl McpServer {
    pub(super) fn new(name: Arc<str>, _server: Server, context: Rc<Context>) -> Self {
        let Context { connector: _, secrets: _, launcher: _ } = &*context;
        Self { name }
    }

    fn missing(&self) -> Failure {
        let message =
            format!("the tool server {} cannot be used: this node was built without mcp", self.name);
        Failure::fatal("tool_unavailable", message)
    }

    pub(super) async fn list(&self, _called: bool) -> Result<Arc<[Listed]>, Failure> {
        Err(self.missing())
    }

    pub(super) async fn call(
        &self,
        _tool: &Listed,
        _arguments: Map,
        _marks: &Marks,
    ) -> Result<Value, Failure> {
        Err(self.missing())
    }
}
