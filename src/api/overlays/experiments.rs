//! What became of the runs of each patch set: counted anew from the index for every report, so a restart changes nothing.
//!
//! Only runs that are over count, the newest [`limits::EXPERIMENT_RUNS_MAX`] of those that are still kept. Memory: a histogram
//! for each arm, of which there are no more than sets that ever were in these runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use hdrhistogram::Histogram;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::super::ports::Ending;
use super::super::respond::json;
use super::super::services::{Services, blocking};
use super::super::{admission, request, start};
use super::Answer;
use crate::limits;
use crate::model::workspace::shown;
use crate::model::{RunFilter, Status};

#[derive(Serialize)]
struct Report<'a> {
    workflow: &'a str,
    /// False: there are more runs than are counted.
    complete: bool,
    arms: Vec<ArmShape<'a>>,
}

#[derive(Serialize)]
struct ArmShape<'a> {
    /// Left out for the runs of no set.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_set: Option<&'a str>,
    /// Its share of starts now; left out when there is no such set any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    runs: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
    /// Of those that completed or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    success_rate: Option<f64>,
    /// Of those that completed, from start to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<Latency>,
    cost: &'static str,
}

#[derive(Serialize)]
struct Latency {
    p50: u64,
    p99: u64,
}

/// One arm, as it is counted.
#[derive(Default)]
struct Arm {
    ended: [u64; 3],
    took: Option<Histogram<u64>>,
}

impl Arm {
    fn count(&mut self, ending: &Ending) {
        let [completed, failed, cancelled] = &mut self.ended;
        match ending.status {
            Status::Completed => {
                *completed += 1;
                if self.took.is_none() {
                    self.took = Histogram::new(3).ok();
                }
                if let Some(took) = &mut self.took {
                    // It grows as it has to; a value is at most a few hundred days.
                    let _ = took.record(ending.took_us);
                }
            }
            Status::Failed => *failed += 1,
            _ => *cancelled += 1,
        }
    }

    fn shape<'a>(&self, patch_set: Option<&'a str>, weight: Option<u32>) -> ArmShape<'a> {
        let [completed, failed, cancelled] = self.ended;
        let decided = completed + failed;
        let rate = || completed as f64 / decided as f64;
        let latency = |took: &Histogram<u64>| Latency {
            p50: took.value_at_quantile(0.5),
            p99: took.value_at_quantile(0.99),
        };
        ArmShape {
            patch_set,
            weight,
            runs: decided + cancelled,
            completed,
            failed,
            cancelled,
            success_rate: (decided > 0).then(rate),
            latency_us: self.took.as_ref().map(latency),
            cost: "no priced calls",
        }
    }
}

/// `GET /v1/workflows/{name}/experiments`
pub(in crate::api) async fn experiments(services: &Services, head: &Parts, name: &str) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let [] = request::parameters(head, [])?;
    let workspace = admission::workspace(head).clone();
    let entry = start::find(services, &workspace, name, None).await?;
    let (catalog, runs) = (services.catalog.clone(), services.runs.clone());
    blocking(move || {
        let overlays = catalog.overlays(&entry.name)?;
        let filter = RunFilter { workspace, workflow: Some(entry.name.clone()), ..RunFilter::default() };
        let mut arms: BTreeMap<Option<Arc<str>>, Arm> = BTreeMap::new();
        arms.extend(overlays.sets.iter().map(|set| (Some(set.name.clone()), Arm::default())));
        let complete = runs.endings(&filter, &mut |ending| {
            let most = limits::PATCH_SETS_PER_WORKFLOW_MAX * 4;
            if arms.len() < most || arms.contains_key(&ending.arm) {
                arms.entry(ending.arm.clone()).or_default().count(&ending);
            }
        })?;
        let arms = arms.iter().map(|(set, arm)| {
            let weight = set.as_deref().and_then(|set| overlays.set(set)).map(|set| set.weight);
            arm.shape(set.as_deref(), weight)
        });
        let report = Report { workflow: shown(&entry.name), complete, arms: arms.collect() };
        Ok(json(StatusCode::OK, &report))
    })
    .await?
}
