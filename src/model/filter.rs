//! Which runs a listing shows. Shards and the index judge by the same function, so a page is the same wherever a run is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RunId, RunSummary, Status, Workspace};
use crate::limits;
use crate::time::Timestamp;

/// What a run must be like. Nothing said is no condition. Rows of batches hold one: a field that is added is another format of theirs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFilter {
    /// In this workspace. Whoever writes a filter down knows it.
    #[serde(skip)]
    pub workspace: Workspace,
    /// Of this workflow, named as inside the node.
    pub workflow: Option<Arc<str>>,
    /// Of this version of it.
    pub version: Option<Arc<str>>,
    /// With this business key.
    pub run_key: Option<Arc<str>>,
    /// In one of these; none is any.
    pub statuses: Vec<Status>,
    /// Started then or later.
    pub started_after: Option<Timestamp>,
    /// Started earlier.
    pub started_before: Option<Timestamp>,
}

/// What is judged of a run.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Name of its workflow, as inside the node.
    pub workflow: &'a str,
    /// And its version.
    pub version: &'a str,
    /// Its business key.
    pub run_key: Option<&'a str>,
    /// Its status.
    pub status: Status,
    /// Its start.
    pub started_at: Timestamp,
}

impl RunFilter {
    /// Is it one of them?
    pub fn fits(&self, run: Facts<'_>) -> bool {
        self.workspace.owns(run.workflow)
            && self.workflow.as_deref().is_none_or(|name| name == run.workflow)
            && self.version.as_deref().is_none_or(|version| version == run.version)
            && (self.run_key.is_none() || self.run_key.as_deref() == run.run_key)
            && (self.statuses.is_empty() || self.statuses.contains(&run.status))
            && self.started_after.is_none_or(|from| from <= run.started_at)
            && self.started_before.is_none_or(|end| run.started_at < end)
    }

    /// Is this run, in one line, one of them?
    pub fn fits_summary(&self, run: &RunSummary) -> bool {
        self.fits(Facts {
            workflow: &run.workflow,
            version: &run.version,
            run_key: run.run_key.as_deref(),
            status: run.status,
            started_at: run.started_at,
        })
    }

    /// Ids from the first on and before the second hold all runs within the times asked for. An id is made shortly before
    /// its run starts, on another core, so there is some slack on both sides.
    pub fn ids(&self) -> (Option<RunId>, Option<RunId>) {
        let slack = limits::LIST_CLOCK_SLACK_SECONDS * 1_000;
        let from = self.started_after.map(|at| at.as_millis().saturating_sub(slack));
        let end = self.started_before.map(|at| at.as_millis().saturating_add(slack));
        (from.map(RunId::first_of), end.map(RunId::first_of))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            workflow: "acme/pay",
            version: "2",
            run_key: Some("k"),
            status: Status::Failed,
            started_at: Timestamp::from_micros(1_700_000_000_000_000),
        }
    }

    #[test]
    fn every_condition_counts_and_none_is_no_condition() {
        let workspace: Workspace = "acme".parse().unwrap();
        let any = RunFilter { workspace, ..RunFilter::default() };
        let at = facts().started_at;
        let later = Timestamp::from_micros(at.as_micros() + 1);
        assert!(any.fits(facts()));
        assert!(!RunFilter::default().fits(facts()), "another workspace");
        for (filter, fits) in [
            (RunFilter { workflow: Some("acme/pay".into()), ..any.clone() }, true),
            (RunFilter { workflow: Some("acme/ship".into()), ..any.clone() }, false),
            (RunFilter { version: Some("2".into()), ..any.clone() }, true),
            (RunFilter { version: Some("3".into()), ..any.clone() }, false),
            (RunFilter { run_key: Some("k".into()), ..any.clone() }, true),
            (RunFilter { run_key: Some("l".into()), ..any.clone() }, false),
            (RunFilter { statuses: vec![Status::Running, Status::Failed], ..any.clone() }, true),
            (RunFilter { statuses: vec![Status::Running], ..any.clone() }, false),
            (RunFilter { started_after: Some(at), ..any.clone() }, true),
            (RunFilter { started_after: Some(later), ..any.clone() }, false),
            (RunFilter { started_before: Some(later), ..any.clone() }, true),
            (RunFilter { started_before: Some(at), ..any.clone() }, false),
        ] {
            assert_eq!(filter.fits(facts()), fits, "{filter:?}");
        }
    }

    #[test]
    fn the_ids_of_a_span_hold_the_runs_of_it() {
        let at = facts().started_at;
        let filter = RunFilter { started_after: Some(at), started_before: Some(at), ..RunFilter::default() };
        let (Some(from), Some(end)) = filter.ids() else { panic!("no bounds") };
        let made = RunId::new(at, super::super::Partition::new(3), [9; 10]);
        assert!(from < made && made < end);
        assert_eq!(end.created_millis() - from.created_millis(), 2_000 * limits::LIST_CLOCK_SLACK_SECONDS);
        assert_eq!(RunFilter::default().ids(), (None, None));
    }
}
