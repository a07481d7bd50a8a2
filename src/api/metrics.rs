//! `/metrics`: the cells of all shards, merged when somebody looks. Nothing is counted here.

mod models;
mod quic;
mod streams;

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::ports::ContentCells;
use super::services::Services;
use super::triggers::BatchCells;
use super::{allowances, breakers};
use crate::exec::ledger::Standing;
use crate::exec::pool::Depth;
use crate::exec::{Breakers, Counts as Calls, Models, Pool, Slots, tools};
use crate::limits;
use crate::model::workspace::shown;
use crate::model::{Lack, Workspace};
use crate::queue::Stats;
use crate::telemetry::{self, ShardCells};
use crate::time::Clock as _;
use crate::wire::node::StorageInfo;

/// The text of one scrape.
pub(super) fn scrape(services: &Services) -> String {
    let mut registry = Registry::default();
    registry.register(
        "aob_build",
        "Which binary this is",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry.register_collector(Box::new(Merged {
        cells: services.cells.clone(),
        queues: services.queues.clone(),
        subscribers: services.subscribers.clone(),
        untaken: services.door.untaken.clone(),
        quic_cells: services.quic_cells.clone(),
        pool: services.executors.pool.clone(),
        slots: services.executors.slots.clone(),
        budgets: services.executors.ledger.standings(services.clock.now()),
        calls: services.executors.http.counts().clone(),
        breakers: services.executors.http.breakers().clone(),
        models: services.executors.models.clone(),
        tools: services.executors.tools.counts().clone(),
        contents: services.contents.cells().clone(),
        batches: services.triggers.batch_cells.clone(),
        storage: services.node.info().storage,
    }));
    services.artifacts.register(&mut registry);
    let mut out = String::new();
    // Writing to a String fails only when a metric of ours is malformed; what was written still helps.
    let _ = text::encode(&mut out, &registry);
    out
}

#[derive(Debug)]
struct Merged {
    cells: Vec<Arc<ShardCells>>,
    queues: Vec<Arc<Stats>>,
    subscribers: Vec<Arc<telemetry::StreamCells>>,
    untaken: Arc<telemetry::UntakenCells>,
    quic_cells: Vec<Arc<telemetry::QuicCells>>,
    pool: Arc<Pool>,
    slots: Arc<Slots>,
    /// As many as the configuration has.
    budgets: Vec<Standing>,
    calls: Arc<Calls>,
    breakers: Arc<Breakers>,
    models: Models,
    tools: Arc<tools::Counts>,
    contents: Arc<ContentCells>,
    batches: Arc<BatchCells>,
    storage: StorageInfo,
}

type Read = fn(&ShardCells) -> u64;

const COUNTERS: [(&str, &str, Read); 10] = [
    ("aob_runs_started", "Runs started", |cells| cells.runs_started.value()),
    ("aob_nodes_started", "Attempts of nodes begun", |cells| cells.nodes_started.value()),
    ("aob_nodes_completed", "Nodes completed", |cells| cells.nodes_completed.value()),
    ("aob_nodes_failed", "Nodes failed", |cells| cells.nodes_failed.value()),
    ("aob_journal_events", "Events appended", |cells| cells.events.value()),
    ("aob_journal_batches", "Batches made durable", |cells| cells.batches.value()),
    ("aob_journal_bytes", "Bytes of durable batches, padding included", |cells| cells.batch_bytes.value()),
    ("aob_journal_sync_microseconds", "Time spent waiting for the disk", |cells| cells.sync_us.value()),
    ("aob_stale_dropped", "Tokens, timers and replies that came too late", |cells| {
        cells.stale_dropped.value()
    }),
    ("aob_watchdog_wakes", "Wakes the watchdog had to give", |cells| cells.watchdog_wakes.value()),
];

impl Collector for Merged {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for (name, help, read) in COUNTERS {
            let counter = ConstCounter::new(self.cells.iter().map(|cells| read(cells)).sum::<u64>());
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let active = ConstGauge::new(level(self.cells.iter().map(|cells| cells.runs_active.value()).sum()));
        let metric =
            encoder.encode_descriptor("aob_runs_active", "Unfinished runs", None, active.metric_type())?;
        active.encode(metric)?;
        streams::encode(&self.subscribers, &self.untaken, &mut encoder)?;
        quic::encode(&self.quic_cells, &mut encoder)?;
        self.finished(&mut encoder)?;
        self.jobs(&mut encoder)?;
        self.claims(&mut encoder)?;
        allowances::encode(&self.budgets, &mut encoder)?;
        self.calls(&mut encoder)?;
        breakers::encode(&self.breakers, &mut encoder)?;
        models::encode(&self.models, &mut encoder)?;
        self.tools(&mut encoder)?;
        self.contents(&mut encoder)?;
        self.batches(&mut encoder)?;
        self.storage(&mut encoder)?;
        self.room(&mut encoder)?;
        self.queues(&mut encoder)
    }
}

impl Merged {
    fn finished(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut all = std::collections::BTreeMap::<Arc<str>, [u64; 3]>::new();
        for (name, counts) in self.cells.iter().flat_map(|cells| cells.finished.snapshot()) {
            let sum = all.entry(name).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        let kind = ConstCounter::new(0u64).metric_type();
        let mut metric = encoder.encode_descriptor("aob_runs_finished", "Runs finished", None, kind)?;
        for (workflow, counts) in &all {
            for (status, count) in ["completed", "failed", "cancelled"].into_iter().zip(counts) {
                let labels = [("workflow", &**workflow), ("status", status)];
                let counter = ConstCounter::new(*count);
                counter.encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// Names of queues come from documents: only so many are told apart, the rest is one.
    fn jobs(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let kind = ConstGauge::new(0i64).metric_type();
        let mut metric = encoder.encode_descriptor("aob_jobs", "Jobs of external workers", None, kind)?;
        let depths = self.pool.depths();
        let (told, rest) = depths.split_at(depths.len().min(limits::METRIC_QUEUES_MAX));
        let sum = |read: fn(&Depth) -> usize| rest.iter().map(read).sum::<usize>();
        let rest = [("*", "*", sum(|depth| depth.waiting), sum(|depth| depth.leased))];
        let rest = rest.into_iter().filter(|_| depths.len() > told.len());
        let told = told.iter().map(|d| (&*d.workspace, &*d.queue, d.waiting, d.leased));
        for (workspace, queue, waiting, leased) in told.chain(rest) {
            for (state, count) in [("waiting", waiting), ("leased", leased)] {
                let labels = [("workspace", workspace), ("queue", queue), ("state", state)];
                ConstGauge::new(level(count as u64)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// Runs under `limits.concurrency` or `limits.rate`. As with queues, only so many workflows are told apart.
    fn claims(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let kind = ConstGauge::new(0i64).metric_type();
        let help = "Runs that had to be admitted under a key";
        let mut metric = encoder.encode_descriptor("aob_runs_keyed", help, None, kind)?;
        let counts = self.slots.counts();
        let (told, rest) = counts.split_at(counts.len().min(limits::METRIC_WORKFLOWS_MAX));
        let rest = rest.iter().map(|(_, counts)| counts.clone()).reduce(|sum, counts| sum.and(&counts));
        let rest = rest.map(|sum| (String::from("*"), "*", sum));
        let told = told.iter().map(|(name, counts)| {
            let workspace = Workspace::of(name);
            (workspace.name().to_owned(), shown(name), counts.clone())
        });
        for (workspace, workflow, counts) in told.chain(rest) {
            let states = [
                ("held", counts.held),
                ("waiting_concurrency", counts.waiting_concurrency),
                ("waiting_rate", counts.waiting_rate),
            ];
            for (state, count) in states {
                let labels = [("workspace", &*workspace), ("workflow", workflow), ("state", state)];
                ConstGauge::new(level(count as u64)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn calls(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let kind = ConstCounter::new(0u64).metric_type();
        let mut metric =
            encoder.encode_descriptor("aob_http_calls", "Attempts of http nodes that ended", None, kind)?;
        let Calls { succeeded, failed, given_up, micros } = &*self.calls;
        for (outcome, cell) in [("succeeded", succeeded), ("failed", failed), ("given_up", given_up)] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(cell.value()).encode(metric.encode_family(&labels)?)?;
        }
        let counter = ConstCounter::new(micros.value());
        let help = "Time that attempts of http nodes took";
        counter.encode(encoder.encode_descriptor("aob_http_call_microseconds", help, None, kind)?)
    }

    /// Calls of agents' tools.
    fn tools(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let kind = ConstCounter::new(0u64).metric_type();
        let help = "Calls of agents' tools that ended";
        let mut metric = encoder.encode_descriptor("aob_tool_calls", help, None, kind)?;
        let all = self.tools.snapshot();
        for (tool, cells) in all.iter() {
            for (outcome, cell) in tools::OUTCOMES.into_iter().zip(&cells.outcomes) {
                let labels = [("tool", &**tool), ("outcome", outcome)];
                ConstCounter::new(cell.value()).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Time that calls of agents' tools took";
        let name = "aob_tool_call_duration_seconds";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (tool, cells) in all.iter() {
            let counts = cells.buckets.each_ref().map(telemetry::Cell::value);
            let buckets: Vec<(f64, u64)> = tools::BUCKETS.into_iter().zip(counts).collect();
            #[expect(clippy::cast_precision_loss, reason = "a sum of times for a graph")]
            let sum = cells.micros.value() as f64 / 1e6;
            let labels = [("tool", &**tool)];
            let mut family = metric.encode_family(&labels)?;
            family.encode_histogram::<[(&str, &str); 0]>(sum, counts.iter().sum(), &buckets, None)?;
        }
        Ok(())
    }

    fn contents(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let ContentCells { blobs, bytes, shared, collected, damaged } = &*self.contents;
        for (name, help, cell) in [
            ("aob_contents", "Contents in the content store", blobs),
            ("aob_contents_bytes", "Bytes of those", bytes),
        ] {
            let gauge = ConstGauge::new(level(cell.value()));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, cell) in [
            ("aob_contents_shared", "Contents that were there already when they were to be stored", shared),
            ("aob_contents_collected", "Contents removed because nothing refers to them", collected),
            ("aob_contents_damaged", "Reads that met a damaged content", damaged),
        ] {
            let counter = ConstCounter::new(cell.value());
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }

    fn batches(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let BatchCells { done, skipped, failed, held_up } = &*self.batches;
        let kind = ConstCounter::new(0u64).metric_type();
        let help = "Runs that batches dealt with";
        let mut metric = encoder.encode_descriptor("aob_batch_runs", help, None, kind)?;
        for (outcome, cell) in [("done", done), ("skipped", skipped), ("failed", failed)] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(cell.value()).encode(metric.encode_family(&labels)?)?;
        }
        let counter = ConstCounter::new(held_up.value());
        let help = "Tries of batches at runs that have to be made again";
        counter.encode(encoder.encode_descriptor("aob_batch_held_up", help, None, kind)?)
    }

    fn storage(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let StorageInfo { journal_bytes, journal_free_bytes, history_bytes, index_bytes, .. } = &self.storage;
        let kind = ConstGauge::new(0i64).metric_type();
        let mut metric = encoder.encode_descriptor("aob_storage_bytes", "Bytes on disk", None, kind)?;
        let rows = [("journal", journal_bytes), ("journal_free", journal_free_bytes), ("index", index_bytes)];
        for (kind, bytes) in rows {
            ConstGauge::new(level(*bytes)).encode(metric.encode_family(&[("kind", kind), ("class", "")])?)?;
        }
        for (class, bytes) in history_bytes {
            let labels = [("kind", "history"), ("class", class.as_str())];
            ConstGauge::new(level(*bytes)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Is there room for new work, and what was done to have it?
    fn room(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let StorageInfo { free_bytes, unmoved_bytes, dropped_runs, dropped_files, no_room, .. } =
            &self.storage;
        for (name, help, bytes) in [
            ("aob_storage_free_bytes", "Bytes free on the file system of the data directory", free_bytes),
            (
                "aob_journal_unmoved_bytes",
                "Bytes of segments that wait to be moved to history",
                unmoved_bytes,
            ),
        ] {
            let gauge = ConstGauge::new(level(*bytes));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let kind = ConstGauge::new(0i64).metric_type();
        let help = "1 while no new work is taken for this reason";
        let mut metric = encoder.encode_descriptor("aob_new_work_refused", help, None, kind)?;
        for lack in Lack::ALL {
            let refused = no_room.as_ref().is_some_and(|told| told.code == lack.code());
            let labels = [("reason", lack.code())];
            ConstGauge::new(i64::from(refused)).encode(metric.encode_family(&labels)?)?;
        }
        for (name, help, count) in [
            ("aob_history_dropped_runs", "Finished runs forgotten before their time", dropped_runs),
            ("aob_history_dropped_files", "History files removed before their time", dropped_files),
        ] {
            let counter = ConstCounter::new(*count);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }

    fn queues(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let kind = ConstGauge::new(0i64).metric_type();
        let mut metric = encoder.encode_descriptor("aob_queue_depth", "Items waiting", None, kind)?;
        for queue in &self.queues {
            let labels = [("queue", queue.name())];
            ConstGauge::new(level(queue.depth() as u64)).encode(metric.encode_family(&labels)?)?;
        }
        let kind = ConstCounter::new(0u64).metric_type();
        let mut metric =
            encoder.encode_descriptor("aob_queue_refused", "Items a full queue gave back", None, kind)?;
        for queue in &self.queues {
            let labels = [("queue", queue.name())];
            ConstCounter::new(queue.refused()).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn level(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
