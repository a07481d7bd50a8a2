//! From notes to rows: batches under a clock of their own, ends in between, deliveries in every order.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::api::artifacts::Artifacts as Told;
use crate::cas::memory::MemoryBlobs;
use crate::cas::{Blobs as _, hash};
use crate::compile::{self, Format, patch};
use crate::model::{RunId, Value};
use crate::store::artifacts::{Artifact, Artifacts};
use crate::store::index::Index;
use crate::store::testing::run_id;
use crate::store::{Error, Registry as _};
use crate::time::{Timestamp, simulated};

/// An index that counts what is put, and fails when it is told to.
struct Watched {
    index: Arc<Index>,
    puts: AtomicUsize,
    stuck: AtomicBool,
    unsettled: AtomicBool,
}

fn refused() -> Error {
    Error::Index { why: "told to".into() }
}

impl Artifacts for Watched {
    fn note(&self, due: &[Due]) -> Result<Vec<Due>, Error> {
        self.index.note(due)
    }

    fn noted(&self, which: Which) -> Result<Option<Due>, Error> {
        self.index.noted(which)
    }

    fn waiting(&self, after: Option<Which>, limit: usize) -> Result<Vec<Due>, Error> {
        self.index.waiting(after, limit)
    }

    fn put_artifacts(&self, made: &[Artifact]) -> Result<(), Error> {
        if self.stuck.load(Ordering::Relaxed) {
            return Err(refused());
        }
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.index.put_artifacts(made)
    }

    fn settle(&self, which: &[Which]) -> Result<(), Error> {
        if self.unsettled.load(Ordering::Relaxed) { Err(refused()) } else { self.index.settle(which) }
    }

    fn lag(&self) -> u64 {
        self.index.lag()
    }

    fn artifacts_of(&self, run_id: RunId) -> Result<Vec<Artifact>, Error> {
        self.index.artifacts_of(run_id)
    }

    fn artifact(&self, which: Which) -> Result<Option<Artifact>, Error> {
        self.index.artifact(which)
    }
}

struct Node {
    _dir: tempfile::TempDir,
    watched: Arc<Watched>,
    blobs: Arc<MemoryBlobs>,
    maker: Maker,
    base: compile::Compiled,
}

const BASE: &str = "name: flow\nversion: '1'\nnodes:\n  a:\n    type: function\n    with:\n      expr: '1'\n";

fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let (index, blobs) = (Arc::new(Index::open(dir.path()).unwrap()), Arc::new(MemoryBlobs::default()));
    let base = compile::compile(BASE.as_bytes(), Format::Yaml, &compile::Options::default()).unwrap();
    index.register("flow", Some("1"), base.canonical.as_bytes(), base.hash).unwrap();
    let watched = Arc::new(Watched {
        index: index.clone(),
        puts: AtomicUsize::default(),
        stuck: AtomicBool::default(),
        unsettled: AtomicBool::default(),
    });
    let maker = Maker {
        artifacts: watched.clone(),
        told: Told::new(watched.clone(), false),
        ..Maker::over(&index, blobs.clone())
    };
    Node { _dir: dir, watched, blobs, maker, base }
}

impl Node {
    /// So many patches of a run, each adding a node.
    fn patches(&self, run_id: RunId, count: u32) -> Vec<Due> {
        let (mut document, mut before) = (self.base.document.clone(), self.base.hash);
        (0..count)
            .map(|at| {
                let operations = format!(
                    r#"[{{"op": "add", "path": "/nodes/n{at}", "value": {{"type": "function", "with": {{"expr": "{at}"}}}}}}]"#
                );
                let operations = patch::read(&Value::from_json(operations.as_bytes()).unwrap()).unwrap();
                let after = patch::remake(&document, &operations).unwrap();
                let due = Due {
                    run_id,
                    version: at + 2,
                    workflow: "flow".into(),
                    before,
                    document: after.hash,
                    operations: operations.operations.clone(),
                };
                (document, before) = (after.document, after.hash);
                due
            })
            .collect()
    }

    fn rows(&self, run_id: RunId) -> Vec<Artifact> {
        self.watched.artifacts_of(run_id).unwrap()
    }

    fn puts(&self) -> usize {
        self.watched.puts.load(Ordering::Relaxed)
    }

    /// Are all of these there, whole?
    fn assert_made(&self, patches: &[Due]) {
        for due in patches {
            let row = self.watched.artifact(due.which()).unwrap().unwrap();
            let bytes = self.blobs.get(&due.document).unwrap().unwrap();
            assert_eq!((row.document, row.bytes), (due.document, bytes.len() as u64));
            assert_eq!(hash(&bytes), due.document);
        }
        assert_eq!(self.watched.lag(), 0);
    }
}

fn which(patches: &[Due]) -> Vec<Which> {
    patches.iter().map(Due::which).collect()
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros)
}

thread_local! {
    static START: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

fn passed_us() -> u64 {
    START.get().map_or(0, |start| u64::try_from(start.elapsed().as_micros()).unwrap())
}

/// Runs `test` under a clock that goes on when everybody waits.
fn virtually<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), async {
        START.set(Some(tokio::time::Instant::now()));
        simulated::set(Some(|| (passed_us(), passed_us())));
        test().await;
        simulated::set(None);
    });
}

fn start(maker: &Maker) -> (Intake, Stop) {
    let settings =
        Settings { threads: 1, batch_patches: 100, window: Duration::from_secs(5), at_once: false };
    let Parts { intake, workers, stop } = parts(maker, settings, |_| {});
    for worker in workers {
        crate::io::spawn_local(worker.run());
    }
    (intake, stop)
}

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        crate::io::sleep(Duration::from_millis(1)).await;
    }
    panic!("it did not come to it");
}

// F123
#[test]
fn the_hundredth_patch_is_stored_at_once_and_a_lone_one_after_five_seconds() {
    virtually(|| async {
        let node = node();
        let (intake, stop) = start(&node.maker);
        crate::io::yield_now().await;
        let patches = node.patches(run_id(1), 101);
        let (lone, began) = (&patches[..1], passed_us());
        intake.take(lone).unwrap();
        until(|| node.watched.lag() == 0).await;
        let waited = passed_us() - began;
        assert!((5_000_000..5_010_000).contains(&waited), "{waited}");
        let began = passed_us();
        intake.take(&patches[1..]).unwrap();
        assert_eq!(node.watched.lag(), 100);
        until(|| node.watched.lag() == 0).await;
        assert!(passed_us() - began < 10_000);
        assert_eq!(node.puts(), 2);
        stop.stop();
    });
}

// F124, F125: one transaction with all hundred versions, the last of which has all hundred layers.
#[test]
fn a_hundred_patches_of_one_workflow_are_one_transaction() {
    let node = node();
    let patches: Vec<Due> =
        (1..5).flat_map(|run| node.patches(run_id(run), 25)).chain(node.patches(run_id(9), 100)).collect();
    let (some, hundred) = patches.split_at(100);
    node.watched.note(&patches).unwrap();
    assert_eq!(node.maker.make(&which(hundred), at(7)), Ok(Vec::new()));
    assert_eq!((node.puts(), node.rows(run_id(9)).len()), (1, 100));
    let last = node.blobs.get(&hundred[99].document).unwrap().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(document["nodes"].as_object().unwrap().len(), 101);
    assert_eq!(node.maker.make(&which(some), at(8)), Ok(Vec::new()));
    assert_eq!(node.puts(), 2);
    node.assert_made(&patches);
}

// F125, F126
#[test]
fn a_batch_that_ends_badly_is_there_whole_or_not_at_all_and_comes_again() {
    let node = node();
    let patches = node.patches(run_id(1), 10);
    node.watched.note(&patches).unwrap();
    node.watched.stuck.store(true, Ordering::Relaxed);
    assert!(node.maker.make(&which(&patches), at(1)).is_err());
    assert_eq!((node.rows(run_id(1)).len(), node.watched.lag()), (0, 10));
    // The rows are there, the position is not.
    node.watched.stuck.store(false, Ordering::Relaxed);
    node.watched.unsettled.store(true, Ordering::Relaxed);
    assert!(node.maker.make(&which(&patches), at(2)).is_err());
    let rows = node.rows(run_id(1));
    assert_eq!((rows.len(), node.watched.lag()), (10, 10));
    node.watched.unsettled.store(false, Ordering::Relaxed);
    node.maker.catalog.forget_patched();
    // The next life finds the notes.
    virtually(|| async {
        let (_, stop) = start(&node.maker);
        until(|| node.watched.lag() == 0).await;
        stop.stop();
    });
    assert_eq!(node.rows(run_id(1)), rows, "delivered twice, stored once");
    node.assert_made(&patches);
}

// F131
#[test]
fn versions_come_in_any_order_and_more_than_once() {
    let node = node();
    let patches = node.patches(run_id(1), 6);
    node.watched.note(&patches).unwrap();
    // The latest first, made from operations of patches that have not come yet.
    for batch in [&patches[5..], &patches[2..4], &patches[5..], &patches[..3], &patches[..]] {
        node.maker.catalog.forget_patched();
        assert_eq!(node.maker.make(&which(batch), at(1)), Ok(Vec::new()));
    }
    node.assert_made(&patches);
    let versions: Vec<u32> = node.rows(run_id(1)).iter().map(|row| row.version).collect();
    assert_eq!(versions, [2, 3, 4, 5, 6, 7]);
}

#[test]
fn what_cannot_be_made_again_is_said_once_and_holds_nothing_up() {
    let node = node();
    let mut patches = node.patches(run_id(1), 3);
    patches[1].document = [7; 32];
    patches[2].before = [7; 32];
    node.watched.note(&patches).unwrap();
    let said = node.maker.make(&which(&patches), at(1)).unwrap();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("version 3") && said[0].contains("comes out as"), "{said:?}");
    assert_eq!((node.rows(run_id(1)).len(), node.watched.lag()), (1, 0));
    assert_eq!(node.maker.told.cells().unmade.value(), 2);
}

// F119: a materialiser that stands still keeps nobody waiting; what its queue had no room for is read from the index.
#[test]
fn a_materialiser_that_stands_still_is_never_waited_for_and_catches_up() {
    virtually(|| async {
        let node = node();
        node.watched.stuck.store(true, Ordering::Relaxed);
        let (intake, stop) = start(&node.maker);
        let runs = 1 + u8::try_from(limits::MATERIALIZER_QUEUE_MAX / 1_000).unwrap();
        let mut some = Vec::new();
        for due in node.patches(run_id(1), 1) {
            for run in 1..=runs {
                some.extend((0..1_000).map(|at| Due {
                    run_id: run_id(run.into()),
                    version: 2 + at,
                    ..due.clone()
                }));
            }
        }
        let began = passed_us();
        for patches in some.chunks(100) {
            intake.take(patches).unwrap();
            crate::io::yield_now().await;
        }
        assert_eq!(passed_us(), began, "nobody waited");
        let refused: u64 = intake.stats().map(|queue| queue.refused()).sum();
        assert!(refused > 0, "the queue was never full");
        until(|| passed_us() > began + 1_000_000).await;
        assert_eq!((node.puts(), node.watched.lag()), (0, some.len() as u64));
        node.watched.stuck.store(false, Ordering::Relaxed);
        until(|| node.watched.lag() == 0).await;
        assert_eq!(node.rows(run_id(u64::from(runs))).len(), 1_000);
        stop.stop();
    });
}
