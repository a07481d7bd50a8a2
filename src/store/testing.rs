//! What the tests of the store share: both runtimes, events with a recognisable content, copies of directories.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use crate::io::file::{Faults, FileKind};
use crate::model::{EventBody, RunId};
use crate::store::record::{BurstHead, append};
use crate::time::Timestamp;

/// Runs `test` on a glommio executor with direct and with plain files, and on tokio with plain files.
pub(crate) fn on_each_driver<F, Fut>(test: F)
where
    F: Fn(FileKind) -> Fut,
    Fut: Future<Output = ()>,
{
    on_ring(test(FileKind::Direct));
    on_ring(test(FileKind::Plain));
    on_tokio(test(FileKind::Plain));
}

/// On a glommio executor of this thread.
pub(crate) fn on_ring<T>(test: impl Future<Output = T>) -> T {
    Faults::clear();
    glommio::LocalExecutorBuilder::default().make().unwrap().run(test)
}

/// On a tokio current_thread runtime with local tasks.
pub(crate) fn on_tokio<T>(test: impl Future<Output = T>) -> T {
    Faults::clear();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

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
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
