//! The canonical document: nodes and edges keyed by id (WORKFLOW.md).
