//! Artifacts of a run: `GET /v1/runs/{id}/artifacts`, and whoever waits for one (`docs/artifacts.md`).
//!
//! A patch is made when the log has it; its artifact comes later. Nobody is waited for here but by who asks to wait, and that
//! no longer than asked.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::watch;

use super::patches::Ready;
use super::request;
use super::respond::{Body, json, with};
use super::services::{Services, blocking};
use crate::engine::command::{LayersView, Step};
use crate::limits;
use crate::model::{Mode, RunId, Value, Workspace};
use crate::store::Artifacts as Store;
use crate::store::artifacts::{Artifact, Which};
use crate::telemetry::Cell;
use crate::time::Timestamp;
use crate::wire::node::MaterializerInfo;
use crate::wire::problem::Problem;
use crate::wire::{Hash, Shown};

const APPLIED: HeaderName = HeaderName::from_static("preference-applied");

type Answer = Result<Response<Body>, Box<Problem>>;

/// What is counted of artifacts.
#[derive(Debug)]
pub struct ArtifactCells {
    /// Artifacts stored since the start.
    pub made: Cell,
    /// Patches whose documents could not be made again.
    pub unmade: Cell,
    /// Patches of each batch.
    pub sizes: Histogram,
}

impl Default for ArtifactCells {
    fn default() -> Self {
        let sizes = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
        Self { made: Cell::default(), unmade: Cell::default(), sizes: Histogram::new(sizes) }
    }
}

/// What the interface knows of artifacts. One for the whole node.
pub struct Artifacts {
    store: Arc<dyn Store>,
    cells: Arc<ArtifactCells>,
    /// Grows with each batch.
    turns: watch::Sender<u64>,
    /// Each is made at once, and who patches waits for it.
    at_once: bool,
}

impl Artifacts {
    /// Over a store.
    pub fn new(store: Arc<dyn Store>, at_once: bool) -> Arc<Self> {
        Arc::new(Self { store, cells: Arc::default(), turns: watch::Sender::new(0), at_once })
    }

    /// What is counted.
    pub fn cells(&self) -> &ArtifactCells {
        &self.cells
    }

    /// Patches whose artifacts are still to be made.
    pub fn lag(&self) -> u64 {
        self.store.lag()
    }

    /// For `/v1/node`.
    pub(super) fn info(&self) -> MaterializerInfo {
        let (artifacts, unmade) = (self.cells.made.value(), self.cells.unmade.value());
        MaterializerInfo { lag_patches: self.lag(), artifacts, unmade }
    }

    /// Adds what is counted to a scrape.
    pub(super) fn register(&self, registry: &mut Registry) {
        let lag = ConstGauge::new(i64::try_from(self.lag()).unwrap_or(i64::MAX));
        registry.register_collector(Box::new(Counted { lag, cells: self.cells.clone() }));
        let help = "Patches whose artifacts were stored together";
        registry.register("aob_materialize_batch_size", help, self.cells.sizes.clone());
    }

    /// A batch of so many patches is over.
    pub fn batch(&self, patches: usize, made: usize, unmade: usize) {
        self.cells.sizes.observe(patches as f64);
        self.cells.made.add(made as u64);
        self.cells.unmade.add(unmade as u64);
        self.turns.send_modify(|turn| *turn = turn.wrapping_add(1));
    }
}

/// One look at what is counted.
#[derive(Debug)]
struct Counted {
    lag: ConstGauge<i64>,
    cells: Arc<ArtifactCells>,
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (name, help) = ("aob_materializer_lag_patches", "Patches whose artifacts are still to be stored");
        self.lag.encode(encoder.encode_descriptor(name, help, None, self.lag.metric_type())?)?;
        for (name, help, count) in [
            ("aob_artifacts_stored", "Artifacts of patches stored", &self.cells.made),
            ("aob_artifacts_unmade", "Patches whose documents could not be made again", &self.cells.unmade),
        ] {
            let counter = ConstCounter::new(count.value());
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    within: Duration,
    /// The caller said for how many seconds: the answer says so, too.
    preferred: Option<u64>,
}

impl Wait {
    /// Does who sends this patch wait for its artifact? `?wait=materialized`, `Prefer: wait=N`, or where all do.
    pub(super) fn read(services: &Services, head: &Parts) -> Result<Option<Self>, Box<Problem>> {
        let preferred = request::prefer_wait(&head.headers);
        let [asked] = request::parameters(head, ["wait"])?;
        let asked = match asked.as_deref() {
            None => false,
            Some("materialized") => true,
            Some(other) => {
                let other: String = other.chars().take(64).collect();
                let detail = format!("wait {other:?} is not `materialized`");
                return Err(Problem::new(422, "invalid_parameter", detail));
            }
        };
        let at_once = services.artifacts.at_once && !responds_async(&head.headers);
        let seconds = preferred.unwrap_or(limits::ARTIFACT_WAIT_SECONDS);
        let wait = Self { within: Duration::from_secs(seconds), preferred };
        Ok((preferred.is_some() || asked || at_once).then_some(wait))
    }

    /// Waits for an artifact. The answer to the patch says that it is there (201), or not (202).
    pub(super) async fn answered(
        self,
        services: &Services,
        which: Which,
        mut response: Response<Body>,
    ) -> Response<Body> {
        if !self.wait(services, which).await {
            return response;
        }
        *response.status_mut() = StatusCode::CREATED;
        match self.preferred {
            Some(seconds) => with(response, APPLIED, format!("wait={seconds}")),
            None => response,
        }
    }

    /// The patch was made, whatever comes of this: a store that cannot be read is a wait in vain.
    async fn wait(self, services: &Services, which: Which) -> bool {
        let mut turns = services.artifacts.turns.subscribe();
        let there = async {
            loop {
                turns.mark_unchanged();
                let artifacts = services.artifacts.clone();
                if let Ok(Ok(Some(_))) = blocking(move || artifacts.store.artifact(which)).await {
                    return true;
                }
                if turns.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(self.within, there).await.unwrap_or(false)
    }
}

/// `Prefer: respond-async` (RFC 7240): not to be kept waiting.
fn responds_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case("respond-async"))
}

#[derive(Serialize)]
struct List {
    run_id: Shown<RunId>,
    artifacts: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    version: u32,
    hash: String,
    bytes: u64,
    materialised_at: Shown<Timestamp>,
}

impl From<Artifact> for Row {
    fn from(artifact: Artifact) -> Self {
        Self {
            version: artifact.version,
            hash: Hash(&artifact.document).to_string(),
            bytes: artifact.bytes,
            materialised_at: Shown(artifact.materialised_at),
        }
    }
}

/// `GET /v1/runs/{id}/artifacts`
pub(super) async fn list(services: &Services, head: &Parts, run_id: RunId) -> Answer {
    request::require_accept(&head.headers, "application/json")?;
    let artifacts = services.artifacts.clone();
    let found = blocking(move || artifacts.store.artifacts_of(run_id)).await?;
    let found = found.map_err(|error| Problem::unavailable("storage_failed", error.to_string()))?;
    if found.is_empty() {
        // It may be erased.
        services.locate(run_id).await?;
    }
    let list = List { run_id: Shown(run_id), artifacts: found.into_iter().map(Row::from).collect() };
    Ok(json(StatusCode::OK, &list))
}

/// What is known of a run's changes, each with operations, kept or found out: what looks at them need not care for the mode.
pub(super) async fn with_operations(
    services: &Services,
    mut view: LayersView,
) -> Result<LayersView, Box<Problem>> {
    if view.layers.iter().all(|layer| layer.change.is_kept()) {
        return Ok(view);
    }
    let catalog = services.catalog.clone();
    let view = blocking(move || {
        view.layers = catalog.with_operations(&view.base, &view.layers)?;
        Ok::<_, super::catalog::Error>(view)
    });
    Ok(view.await??)
}

/// Of a run in fast mode the log keeps the document by its hash, and no operations: it is durable before the shard is asked.
pub(super) async fn kept(
    services: &Services,
    view: &LayersView,
    mut ready: Ready,
) -> Result<Ready, Box<Problem>> {
    // One that waits has made nothing, and is put on the graph of that moment later: its operations are needed.
    if view.mode != Mode::Fast || matches!(ready.command.step, Step::Hold(_)) {
        return Ok(ready);
    }
    let run_id = view.summary.run_id;
    let (contents, entry) = (services.contents.clone(), ready.entry.clone());
    let workspace = Workspace::of(&view.summary.workflow);
    blocking(move || {
        let document = (&entry.compiled.hash, &*entry.compiled.canonical);
        contents.keep_document((run_id, &workspace), document)
    })
    .await??;
    ready.command.change = ready.command.change.with_operations(Value::Null);
    Ok(ready)
}
