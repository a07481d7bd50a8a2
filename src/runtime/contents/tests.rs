//! What is kept stays as long as something refers to it, and what nothing refers to goes after its time.

use super::*;
use crate::cas::memory::MemoryBlobs;
use crate::compile::{self, Format};
use crate::store::index::Index;
use crate::store::testing::run_id;

const GRACE_US: u64 = 1_000_000;

struct Node {
    _dir: tempfile::TempDir,
    blobs: Arc<MemoryBlobs>,
    index: Arc<Index>,
    contents: Arc<StoredContents>,
}

fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let (blobs, index) = (Arc::new(MemoryBlobs::default()), Arc::new(Index::open(dir.path()).unwrap()));
    let stores = Stores {
        blobs: blobs.clone(),
        references: index.clone(),
        archive: index.clone(),
        registry: Some(index.clone()),
    };
    let settings = Settings { inline_max: 100, grace: Duration::from_micros(GRACE_US) };
    let contents = StoredContents::new(stores, settings);
    Node { _dir: dir, blobs, index, contents }
}

fn value() -> Value {
    Value::string("x".repeat(1_000))
}

fn sha256() -> ContentHash {
    hash(value().to_json().as_bytes())
}

/// One turn of the collector, where no shard has any run.
fn turn(contents: &StoredContents, now_us: u64) {
    for run_id in contents.unarchived().unwrap() {
        contents.nowhere(run_id, now_us).unwrap();
    }
    contents.sweep(now_us).unwrap();
}

// F060
#[test]
fn one_object_for_two_runs_and_each_workspace_sees_its_own() {
    let Node { contents, blobs, .. } = node();
    let acme: Workspace = "acme".parse().unwrap();
    contents.keep(run_id(1), &Workspace::DEFAULT, vec![value()]).unwrap();
    let kept = contents.keep(run_id(2), &Workspace::DEFAULT, vec![value()]).unwrap();
    assert_eq!(kept.value(&sha256()), Some(&value()));
    assert_eq!(blobs.list(None, 10).unwrap().len(), 1);
    assert_eq!(contents.references(&sha256(), &Workspace::DEFAULT).unwrap(), 2);
    assert_eq!(contents.references(&sha256(), &acme).unwrap(), 0);
    let cells = contents.cells();
    assert_eq!((cells.blobs.value(), cells.shared.value()), (1, 1));
    let whole = Found::Whole(value().to_json().into_bytes());
    assert_eq!(contents.read(&sha256(), &Workspace::DEFAULT).unwrap(), whole);
    assert_eq!(contents.read(&sha256(), &acme).unwrap(), Found::Unknown);
    contents.keep(run_id(3), &acme, vec![value()]).unwrap();
    assert_eq!(contents.read(&sha256(), &acme).unwrap(), whole);
    blobs.damage(&sha256());
    assert!(matches!(contents.read(&sha256(), &acme).unwrap(), Found::Damaged(_)));
    assert_eq!(contents.cells().damaged.value(), 1);
    blobs.remove(&sha256()).unwrap();
    assert!(matches!(contents.read(&sha256(), &acme).unwrap(), Found::Missing(_)));
}

// F060
#[test]
fn what_nothing_refers_to_goes_after_the_time_of_grace_and_not_before() {
    let Node { contents, blobs, index, .. } = node();
    contents.keep(run_id(1), &Workspace::DEFAULT, vec![value()]).unwrap();
    index.forget(run_id(1)).unwrap();
    let there = || blobs.stat(&sha256()).unwrap().is_some();
    turn(&contents, 5);
    turn(&contents, 4 + GRACE_US);
    assert!(there());
    // Referred to again, and let go again: the time begins anew.
    contents.keep(run_id(2), &Workspace::DEFAULT, vec![value()]).unwrap();
    turn(&contents, 9 + GRACE_US);
    index.forget(run_id(2)).unwrap();
    turn(&contents, 10 + GRACE_US);
    turn(&contents, 9 + 2 * GRACE_US);
    assert!(there());
    turn(&contents, 10 + 2 * GRACE_US);
    assert!(!there());
    assert_eq!(contents.cells().collected.value(), 1);
    turn(&contents, 11 + 2 * GRACE_US);
    assert_eq!(contents.cells().blobs.value(), 0);
}

#[test]
fn a_run_that_never_came_to_be_refers_to_nothing_after_the_time_of_grace() {
    let Node { contents, blobs, .. } = node();
    contents.keep(run_id(1), &Workspace::DEFAULT, vec![value()]).unwrap();
    let refers = || contents.references(&sha256(), &Workspace::DEFAULT).unwrap() > 0;
    turn(&contents, 1);
    // It is tried again meanwhile: it has its time from then on.
    contents.keep(run_id(1), &Workspace::DEFAULT, vec![value()]).unwrap();
    turn(&contents, 2);
    turn(&contents, 1 + GRACE_US);
    assert!(refers());
    // A turn that comes to the end of all runs, and one that begins anew.
    turn(&contents, 2 + GRACE_US);
    turn(&contents, 3 + GRACE_US);
    assert!(!refers());
    turn(&contents, 4 + GRACE_US);
    turn(&contents, 4 + 2 * GRACE_US);
    assert_eq!(blobs.list(None, 1).unwrap(), []);
}

// F058
#[test]
fn a_document_is_found_by_its_hash_where_it_is_registered() {
    let Node { contents, index, .. } = node();
    let source = b"aob: \"1\"\nname: w\nnodes: {a: {type: function}}\n";
    let compiled = compile::compile(source, Format::Yaml, &compile::Options::default()).unwrap();
    let canonical = compiled.canonical.as_bytes();
    index.register("acme/w", None, canonical, compiled.hash).unwrap();
    let acme: Workspace = "acme".parse().unwrap();
    assert_eq!(contents.read(&compiled.hash, &acme).unwrap(), Found::Whole(canonical.to_vec()));
    assert_eq!(contents.read(&compiled.hash, &Workspace::DEFAULT).unwrap(), Found::Unknown);
}
