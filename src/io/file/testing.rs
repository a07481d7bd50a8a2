//! Both runtimes for tests, and what every kind of file must do.

use std::future::Future;

use super::*;

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
    crate::io::DRIVER.set(Driver::Ring);
    let result = glommio::LocalExecutorBuilder::default().make().unwrap().run(test);
    crate::io::DRIVER.set(Driver::Tokio);
    result
}

/// On a tokio current_thread runtime with local tasks.
pub(crate) fn on_tokio<T>(test: impl Future<Output = T>) -> T {
    Faults::clear();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

#[test]
fn what_is_written_and_synced_is_in_the_file() {
    on_each_driver(|kind| async move {
        written_and_synced(kind, Writes::Durable).await;
        written_and_synced(kind, Writes::Cached).await;
    });
}

async fn written_and_synced(kind: FileKind, writes: Writes) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    crate::io::disk::make_zeros(&path, 64 << 10).unwrap();
    let helper = Helper::start("test").unwrap();
    let file = LogFile::open(&path, kind, writes, &helper).await.unwrap();
    let mut memory = None;
    for (byte, pages, offset) in [(1, 1, 4096), (2, 3, 16384), (3, 2, 40960)] {
        let mut buffer = file.buffer(pages * ALIGN_BYTES, memory.take());
        buffer.as_mut_slice().fill(byte);
        memory = file.write_at(buffer, offset).await.unwrap();
        file.fdatasync().await.unwrap();
    }
    file.close().await.unwrap();
    let mut expected = vec![0; 64 << 10];
    expected[4096..8192].fill(1);
    expected[16384..28672].fill(2);
    expected[40960..49152].fill(3);
    assert!(std::fs::read(&path).unwrap() == expected);
}

#[test]
fn a_file_that_is_not_there_is_an_error_and_no_panic() {
    on_each_driver(|kind| async move {
        let dir = tempfile::tempdir().unwrap();
        let helper = Helper::start("test").unwrap();
        let error =
            LogFile::open(&dir.path().join("none"), kind, Writes::Durable, &helper).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn a_helper_runs_jobs_in_order_and_ends_with_its_handles() {
    on_tokio(async {
        let helper = Helper::start("test").unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        for n in 0..10 {
            let sender = sender.clone();
            helper.run(move || sender.send(n).unwrap()).await.unwrap();
        }
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
        let failed = in_background("test".into(), || -> io::Result<()> { Err(io::Error::other("no")) });
        assert_eq!(failed.await.unwrap_err().to_string(), "no");
    });
}
