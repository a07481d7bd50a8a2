//! Summaries of a timeline that a model made (F340), where the node has a model for that (`models.summaries`).
//!
//! Where a summary was made it takes the place of the rule's; where it was not, the rule's stays and one is asked for, and
//! nobody waits for it. Whatever the model said, no more than fifteen words of it are told, and nothing that looks like a key.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::services::Services;
use crate::exec::models::summaries::{Event, Summaries};
use crate::model::{RunId, Seq, Workspace};
use crate::wire::summary;

/// What was told of a run's events, and who is asked for more.
#[derive(Debug)]
pub(super) struct Told {
    summaries: Arc<Summaries>,
    run_id: RunId,
    /// A name of the run's workspace, for credentials.
    workflow: Arc<str>,
}

impl Told {
    /// Of a run of this workflow; `None`: this node has no model for summaries.
    pub(super) fn of(services: &Services, run_id: RunId, workflow: &str) -> Option<Self> {
        let summaries = services.executors.summaries.clone()?;
        let workflow = Workspace::of(workflow).qualified("summaries").unwrap_or_default().into();
        Some(Self { summaries, run_id, workflow })
    }

    /// What the model said of the event with this row; `None`: nothing yet, and it is asked.
    pub(super) fn summary(&self, seq: Seq, row: &RawValue) -> Option<String> {
        let (run_id, workflow) = (self.run_id, &self.workflow);
        let said = self.summaries.find(run_id, seq);
        if said.is_none() {
            let event = || Event { run_id, seq, workflow: workflow.clone(), data: row.get().to_owned() };
            self.summaries.want(run_id, seq, event);
        }
        said.map(|said| summary::said(&said))
    }
}
