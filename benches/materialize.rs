//! How fast the products of patches become durable: a hundred at a time against one by one, and by one thread against two.
//!
//! `cargo bench --bench materialize` prints a line for each way: patches, seconds, patches a second, and what that is to one by
//! one. Stores are on the disk of the target directory, and every batch is synced as in a node. Documents are made again from
//! their operations, as after a restart: what a node has at hand is less work. It measures and asserts nothing about time.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a measurement, not a service"
)]

use std::sync::Arc;
use std::time::Duration;

use aob::cas::disk::FileBlobs;
use aob::compile::{self, Format, patch};
use aob::model::{Partition, RunId, Value};
use aob::runtime::materializer::{Maker, Parts, Settings, parts};
use aob::store::Registry as _;
use aob::store::artifacts::{Artifacts as _, Due};
use aob::store::index::Index;
use aob::time::{Clock as _, SystemClock, Timestamp};

/// The same allocator as the node.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Workflows, so that two threads have work; runs of each; patches of each run.
const WORKFLOWS: u64 = 8;
const RUNS: u64 = 2;
const PATCHES: u32 = 50;

fn main() {
    let one = measure("one by one, 1 thread", 1, 1);
    for (name, batch, threads) in [
        ("batches of 100, 1 thread", 100, 1),
        ("one by one, 2 threads", 1, 2),
        ("batches of 100, 2 threads", 100, 2),
    ] {
        println!("{name}: {:.1} times one by one", measure(name, batch, threads) / one);
    }
}

/// Patches a second.
fn measure(name: &str, batch_patches: usize, threads: usize) -> f64 {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let index = Arc::new(Index::open(&dir.path().join("index")).unwrap());
    let blobs = Arc::new(FileBlobs::open(&dir.path().join("cas")).unwrap());
    let mut all = Vec::new();
    for workflow in 0..WORKFLOWS {
        all.extend(patches(&index, workflow));
    }
    let maker = Maker::over(&index, blobs);
    let settings = Settings { threads, batch_patches, window: Duration::from_secs(5), at_once: false };
    let Parts { intake, workers, stop } = parts(&maker, settings, |problem| panic!("{problem}"));
    intake.take(&all).unwrap();
    let began = SystemClock.monotonic_us();
    let threads: Vec<_> = workers
        .into_iter()
        .map(|worker| std::thread::spawn(move || aob::io::net::block_on(worker.run()).unwrap()))
        .collect();
    while index.lag() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = (SystemClock.monotonic_us() - began) as f64 / 1e6;
    stop.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let rate = all.len() as f64 / took;
    println!("{name}: {} patches in {took:.2} s, {rate:.0} a second", all.len());
    rate
}

/// A workflow of fifty nodes, and patches of its runs.
fn patches(index: &Index, workflow: u64) -> Vec<Due> {
    let name: Arc<str> = format!("flow-{workflow}").into();
    let nodes: String =
        (0..50).map(|at| format!("  b{at}:\n    type: function\n    with:\n      expr: '{at}'\n")).collect();
    let source = format!("name: {name}\nversion: '1'\nnodes:\n{nodes}");
    let base = compile::compile(source.as_bytes(), Format::Yaml, &compile::Options::default()).unwrap();
    index.register(&name, Some("1"), base.canonical.as_bytes(), base.hash).unwrap();
    let mut all = Vec::new();
    for run in 0..RUNS {
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(workflow * RUNS + run).to_be_bytes());
        let run_id = RunId::new(Timestamp::from_micros(1_000_000), Partition::new(0), random);
        let (mut document, mut before) = (base.document.clone(), base.hash);
        for at in 0..PATCHES {
            let operations = format!(
                r#"[{{"op": "add", "path": "/nodes/n{at}", "value": {{"type": "function", "with": {{"expr": "{run} + {at}"}}}}}}]"#
            );
            let patch = patch::read(&Value::from_json(operations.as_bytes()).unwrap()).unwrap();
            let after = patch::remake(&document, &patch).unwrap();
            all.push(Due {
                run_id,
                version: at + 2,
                workflow: name.clone(),
                before,
                document: after.hash,
                operations: patch.operations.clone(),
            });
            (document, before) = (after.document, after.hash);
        }
    }
    all
}
