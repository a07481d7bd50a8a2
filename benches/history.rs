//! Lists and finds finished runs among many, straight in the index: time and rows looked at. Packs their events into history
//! files and reads timelines back: bytes, speed by level of compression, time of one timeline (`cargo bench --bench history`).
//!
//! `AOB_BENCH_RUNS` says how many are listed; a million by default.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "it measures, and fails loudly"
)]

use std::time::{Duration, Instant};

use aob::compile::{self, Format};
use aob::engine::command::Start;
use aob::engine::{self, Input, Outcome, Run};
use aob::model::{Event, FrameRef, Partition, RetentionClass, RunFilter, RunId, RunSummary, Status, Value};
use aob::store::archive::{ArchiveQuery, ArchiveRow};
use aob::store::history::{FileId, History, HistoryWriter, Query};
use aob::store::index::Index;
use aob::store::log::Sealed;
use aob::store::record::{BurstHead, Bursts, append};
use aob::store::{Archive, Fence};
use aob::time::Timestamp;

const WORKFLOWS: u64 = 50;
/// Runs in one history file, and in each of its frames.
const RUNS_PACKED: u64 = 40_000;
const RUNS_PER_FRAME: u64 = 100;
const CHAIN: &str = r#"
aob: "1"
name: chain
nodes:
  a: {type: function, with: {expr: "inputs.n"}}
  b: {type: function, needs: [a], with: {expr: "input + 1"}}
  c: {type: function, needs: [b], with: {expr: "input + 1"}}
  d: {type: function, needs: [c], with: {expr: "input + 1"}}
  e: {type: function, needs: [d], with: {expr: "input + 1"}}
"#;

fn row(n: u64) -> ArchiveRow {
    let started_at = Timestamp::from_micros(1_700_000_000_000_000 + n * 1_000);
    let run_id = RunId::new(started_at, Partition::new((n % 64) as u16), [n as u8; 10]);
    let status = if n.is_multiple_of(1_000) { Status::Failed } else { Status::Completed };
    ArchiveRow {
        summary: RunSummary {
            run_id,
            workflow: format!("workflow-{}", n % WORKFLOWS).into(),
            version: "1".into(),
            status,
            seq: 9,
            epoch: 1,
            started_at,
            ended_at: Some(started_at),
            run_key: None,
        },
        document: [3; 32],
        shard: (n % 2) as u16,
        frames: vec![FrameRef { segment: n / 20_000 + 1, offset: 4096 }],
        idempotency: None,
        acknowledged: (Status::Running, 3),
        run_key: None,
        class: RetentionClass::named("7d"),
        version: Some(1),
        arm: None,
        imaged: false,
        used: Vec::new(),
    }
}

/// p50 and p99 of some calls, and the most rows one of them looked at.
fn measure(name: &str, count: usize, mut call: impl FnMut(usize) -> usize) {
    let mut times = Vec::with_capacity(count);
    let mut most = 0;
    for n in 0..count {
        let begin = Instant::now();
        most = most.max(call(n));
        times.push(begin.elapsed());
    }
    times.sort();
    let at = |part: usize| times[(count * part / 100).min(count - 1)];
    println!("{name:<44} p50 {:>9.1?}  p99 {:>9.1?}  at most {most} rows or events", at(50), at(99));
}

fn main() {
    packed();
    let runs: u64 = std::env::var("AOB_BENCH_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let directory = tempfile::tempdir().unwrap();
    let index = Index::open(directory.path()).unwrap();
    let begin = Instant::now();
    for chunk in (0..runs).collect::<Vec<_>>().chunks(8_192) {
        index.put(&chunk.iter().map(|n| row(*n)).collect::<Vec<_>>()).unwrap();
    }
    let took = begin.elapsed();
    let each = took.checked_div(u32::try_from(runs).unwrap()).unwrap_or(Duration::ZERO);
    println!("{runs} rows put in {took:.1?}, {each:.1?} each");
    let list = |filter: RunFilter, before: Option<RunId>| {
        let query = ArchiveQuery { before, from: None, filter, limit: 50, scan_limit: 100_000 };
        let page = index.list(&query).unwrap();
        assert_eq!(page.rows.len(), 50);
        page.looked_at
    };
    // Pages from all over the time.
    let before = |n: usize| Some(row(runs / 2 + (n as u64 * 7_919) % (runs / 2)).summary.run_id);
    let failed = || vec![Status::Failed];
    let workflow = |n: usize| Some(format!("workflow-{}", n as u64 % WORKFLOWS).into());
    measure("newest, no filter", 2_000, |_| list(RunFilter::default(), None));
    measure("a page in the middle, no filter", 2_000, |n| list(RunFilter::default(), before(n)));
    measure("one workflow in fifty", 2_000, |n| {
        list(RunFilter { workflow: workflow(n), ..RunFilter::default() }, before(n))
    });
    measure("failed, one run in a thousand", 2_000, |n| {
        list(RunFilter { statuses: failed(), ..RunFilter::default() }, before(n))
    });
    measure("one run", 2_000, |n| {
        index.get(row((n as u64 * 7_919) % runs).summary.run_id).unwrap().unwrap();
        1
    });
}

/// The events of runs of a chain of five, as a frame holds them.
fn frame(first: u64) -> Vec<u8> {
    let compiled = compile::compile(CHAIN.as_bytes(), Format::Yaml, &compile::Options::default()).unwrap();
    let mut payload = Vec::new();
    for n in first..first + RUNS_PER_FRAME {
        let summary = row(n).summary;
        let (run_id, at) = (summary.run_id, summary.started_at);
        let start = Start {
            run_id,
            ir: compiled.ir.clone(),
            inputs: Value::from_json(format!("{{\"n\": {n}}}").as_bytes()).unwrap(),
            seed: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            idempotency: None,
            run_key: None,
            mode: None,
            layered: None,
            deadline: None,
            parent: None,
        };
        let begun = Run::begin(&start, at, 1);
        let event = Event { seq: 1, at, body: begun.clone() };
        let mut run = Run::from_started(run_id, compiled.ir.clone(), &event).unwrap();
        let mut outcome = Outcome::default();
        engine::advance(&mut run, Input::Continue, at, 1_000, &mut outcome).unwrap();
        assert_eq!(run.status(), Status::Completed);
        let events = std::iter::once(&begun).chain(&outcome.events);
        append(&mut payload, BurstHead { run_id, first_seq: 1, at }, events).unwrap();
    }
    payload
}

/// What compression gives and costs, on blocks of the size that history files have.
fn levels(frames: &[Vec<u8>]) {
    let whole = frames.concat();
    for level in [1, 3, 6, 9] {
        let begin = Instant::now();
        let packed: usize =
            whole.chunks(128 << 10).map(|block| zstd::bulk::compress(block, level).unwrap().len()).sum();
        let megabytes = whole.len() as f64 / 1e6;
        let speed = megabytes / begin.elapsed().as_secs_f64();
        let ratio = whole.len() as f64 / packed as f64;
        println!("level {level}: {megabytes:.1} MB to 1/{ratio:.1}, {speed:.0} MB/s");
    }
}

fn packed() {
    let directory = tempfile::tempdir().unwrap();
    let history = History::new(directory.path(), [4; 16]);
    let frames: Vec<_> = (0..RUNS_PACKED / RUNS_PER_FRAME).map(|n| frame(n * RUNS_PER_FRAME)).collect();
    levels(&frames);
    let file = FileId { shard: 0, segment: 1, class: RetentionClass::named("7d").unwrap() };
    let sealed =
        Sealed { segment: 1, first: 1, last: frames.len() as u64, last_crc: 0, fence: Fence::default() };
    let begin = Instant::now();
    let mut writer = HistoryWriter::create(&history, file, sealed).unwrap();
    for (n, frame) in frames.iter().enumerate() {
        for burst in Bursts::new(frame).unwrap() {
            let burst = burst.unwrap();
            writer.burst(n as u32 * 4_096, burst.head.run_id, burst.bytes).unwrap();
        }
    }
    let written = writer.finish().unwrap();
    let bytes: usize = frames.iter().map(Vec::len).sum();
    println!(
        "{} runs, {} bytes of events each, packed into {} bytes each in {:.1?}",
        written.runs,
        bytes as u64 / RUNS_PACKED,
        written.bytes / RUNS_PACKED,
        begin.elapsed()
    );
    measure("a timeline of twelve events from a file", 2_000, |n| {
        let n = (n as u64 * 7_919) % RUNS_PACKED;
        let frames = [FrameRef { segment: 1, offset: (n / RUNS_PER_FRAME) as u32 * 4_096 }];
        let run_id = row(n).summary.run_id;
        let query =
            Query { run_id, shard: 0, frames: &frames, class: Some(file.class), after: 0, limit: 1_000 };
        history.events(&query).unwrap().len()
    });
}
