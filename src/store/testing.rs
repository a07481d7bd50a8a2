//! What the tests of the store share: events with a recognisable content, copies of
//! directories.

use std::path::Path;
use std::sync::Arc;

pub(crate) use crate::io::file::testing::{on_each_driver, on_tokio};
use crate::model::{EventBody, RunId};
use crate::store::keyspaces::{Embedded, Keyspaces};
use crate::store::record::{BurstHead, append};
use crate::time::Timestamp;

/// A run's id, the `n`th.
pub(crate) fn run_id(n: u64) -> RunId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    RunId::from_bytes(bytes)
}

/// A payload of one burst: event `n` of run 1, with some `filler`.
pub(crate) fn batch(n: u64, filler: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let head = BurstHead { run_id: run_id(1), first_seq: n, at: Timestamp::from_micros(n) };
    let reason: Arc<str> = "x".repeat(filler).into();
    append(&mut out, head, &[EventBody::RunCancelRequested { reason }]).unwrap();
    out
}

/// Copies a directory as a crash would leave it: every file as it is now.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().ends_with(".tmp") {
            continue;
        }
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            // A free file may just have become the next segment: then the copy is from before that.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                assert!(entry.file_name().to_str().unwrap().starts_with("free-"), "{entry:?}");
            }
            copied => drop(copied.unwrap()),
        }
    }
}

/// Runs a test on new keyspaces of these names, once in each back end that is here.
pub(crate) fn in_each_back_end(names: &[&str], test: &dyn Fn(Arc<dyn Keyspaces>)) {
    let dir = tempfile::tempdir().unwrap();
    test(Arc::new(Embedded::open(dir.path(), names).unwrap()));
    #[cfg(feature = "redis")]
    {
        use crate::store::redis::testing::{AOF, Server};
        if let Some(server) = Server::start(&AOF) {
            test(server.keyspaces(0, names, None));
        }
    }
}
