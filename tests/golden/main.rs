//! Histories that must not change: journals written long ago, and the timeline of every example.
//!
//! Files are beside, in `journal-v1/` and `timelines/`. The latter are rewritten by `AOB_GOLDEN_BLESS=1 cargo test --test
//! golden`; the former never.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test takes apart what it built, and fails loudly"
)]

mod journal;
mod timelines;

use std::path::{Path, PathBuf};

use aob::engine::Run;
use aob::model::Event;
use aob::wire::event::Row;
use aob::wire::run::{Full, Line};
use aob::wire::{Hash, Shown, to_json};
use serde_json::{Value as Json, json};

/// Where the files of these tests are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Text, one JSON value a line.
fn lines(path: &Path) -> Vec<Json> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An event as clients see it.
fn row(run: &Run, event: &Event) -> String {
    let node = event.body.place().map(|place| run.ir().path(place));
    let row = Row { seq: event.seq, at: event.at, node: node.as_deref(), body: &event.body };
    String::from_utf8(to_json(&row)).unwrap()
}

/// A run as clients see it, with its outermost nodes.
fn shown(run: &Run) -> Json {
    let view = run.view();
    let full = Full {
        policy: None,
        line: Line::new(&view.summary, "fsync"),
        hash: Hash(&view.document).to_string(),
        layered: view.layered.as_deref().map(Into::into),
        inputs: &view.inputs,
        outputs: view.outputs.as_ref(),
        error: Full::error(view.failure.as_ref()),
        failed_node: view.failed_node.as_deref(),
        current_nodes: &view.current_nodes,
        deadline: view.deadline.map(Shown),
        parent: view.parent.map(Shown),
        forked: None,
        waiting: None,
        approvals: Vec::new(),
        pauses: Vec::new(),
    };
    let nodes = run.graph().nodes.into_iter();
    let nodes = nodes.map(|node| json!([node.path, node.state, node.attempts, node.waiting_for, node.items]));
    let full: Json = serde_json::from_slice(&to_json(&full)).unwrap();
    json!({"run": full, "nodes": nodes.collect::<Vec<_>>(), "signals_kept": run.signals_kept()})
}
