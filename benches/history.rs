//! Lists and finds finished runs among many, straight in the index: time and rows looked at (`cargo bench --bench history`).
//!
//! `AOB_BENCH_RUNS` says how many; a million by default.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "it measures, and fails loudly"
)]

use std::time::{Duration, Instant};

use aob::model::{FrameRef, Partition, RetentionClass, RunFilter, RunId, RunSummary, Status};
use aob::store::Archive;
use aob::store::archive::{ArchiveQuery, ArchiveRow};
use aob::store::index::Index;
use aob::time::Timestamp;

const WORKFLOWS: u64 = 50;

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
        imaged: false,
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
    println!("{name:<44} p50 {:>9.1?}  p99 {:>9.1?}  rows looked at {most}", at(50), at(99));
}

fn main() {
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
        let query = ArchiveQuery { before, filter, limit: 50, scan_limit: 100_000 };
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
