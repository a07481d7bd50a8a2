//! What every journal must pass: the obligations of `store::journal`, one by one.

use super::journal::{Fence, Journal, Position};

/// A back end under test: something that outlives its journals.
pub(crate) trait Backend {
    /// Its journal.
    type Journal: Journal;
    /// Opens what is there, as after a crash.
    async fn open(&self) -> Self::Journal;
    /// The `nth` sync from now on fails.
    fn fail_sync(&self, nth: u64);
    /// Syncs asked for so far.
    fn syncs(&self) -> u64;
    /// The process died. Called after its journal is dropped.
    async fn crash(&self);
}

/// Runs every case on a fresh back end.
pub(crate) async fn run<B: Backend>(fresh: impl Fn() -> B) {
    claims_grow(&fresh()).await;
    batches_come_back(&fresh()).await;
    repeats_are_acknowledged_not_doubled(&fresh()).await;
    wrong_positions_are_refused(&fresh()).await;
    stale_fences_are_refused(&fresh()).await;
    reading_is_bounded(&fresh()).await;
    trimmed_batches_may_go_and_others_stay(&fresh()).await;
    a_failed_sync_is_final(&fresh()).await;
    sizes_at_the_edges(&fresh()).await;
}

async fn append_all<J: Journal>(journal: &mut J, fence: Fence, batches: &[Vec<u8>]) -> Vec<Position> {
    let mut positions = Vec::new();
    for batch in batches {
        let position = journal.next();
        journal.append(fence, position, batch).await.unwrap();
        assert!(journal.durable() >= position);
        positions.push(position);
    }
    positions
}

fn sample(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|i| vec![i; usize::from(i) * 37 % 300 + 1]).collect()
}

async fn all<J: Journal>(journal: &mut J) -> Vec<Vec<u8>> {
    journal.read(1, usize::MAX).await.unwrap().into_iter().map(|(_, batch)| batch).collect()
}

async fn claims_grow<B: Backend>(backend: &B) {
    let mut epochs = Vec::new();
    for nonce in [7, 7, 9] {
        let mut journal = backend.open().await;
        let stranger = Fence { epoch: 0, nonce: 0 };
        let position = journal.next();
        let refused = journal.append(stranger, position, b"x").await.unwrap_err();
        assert_eq!(refused.code(), "stale_fence", "nothing is appended before a claim");
        let fence = journal.claim(nonce).await.unwrap();
        assert_eq!(fence.nonce, nonce);
        epochs.push(fence.epoch);
        drop(journal);
        backend.crash().await;
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

async fn batches_come_back<B: Backend>(backend: &B) {
    let batches = sample(40);
    let mut journal = backend.open().await;
    let fence = journal.claim(1).await.unwrap();
    let positions = append_all(&mut journal, fence, &batches[..25]).await;
    assert!(positions.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{positions:?}");
    assert_eq!(all(&mut journal).await, batches[..25]);
    drop(journal);
    backend.crash().await;

    let mut journal = backend.open().await;
    assert_eq!(journal.durable() + 1, journal.next());
    let fence = journal.claim(2).await.unwrap();
    append_all(&mut journal, fence, &batches[25..]).await;
    drop(journal);
    backend.crash().await;
    assert_eq!(all(&mut backend.open().await).await, batches);
}

async fn repeats_are_acknowledged_not_doubled<B: Backend>(backend: &B) {
    let mut journal = backend.open().await;
    let fence = journal.claim(1).await.unwrap();
    let positions = append_all(&mut journal, fence, &sample(3)).await;
    let next = journal.next();
    for (position, batch) in positions.iter().zip(sample(3)) {
        journal.append(fence, *position, &batch).await.unwrap();
        let other = journal.append(fence, *position, b"another").await.unwrap_err();
        assert_eq!(other.code(), "different_batch");
    }
    assert_eq!(journal.next(), next);
    assert_eq!(all(&mut journal).await, sample(3));
}

async fn wrong_positions_are_refused<B: Backend>(backend: &B) {
    let mut journal = backend.open().await;
    let fence = journal.claim(1).await.unwrap();
    append_all(&mut journal, fence, &sample(2)).await;
    let next = journal.next();
    for wrong in [0, next + 1, next + 1000, u64::MAX] {
        let refused = journal.append(fence, wrong, b"x").await.unwrap_err();
        assert_eq!(refused.code(), "wrong_position", "{wrong}");
    }
    assert_eq!(journal.next(), next);
    journal.append(fence, next, b"x").await.unwrap();
}

async fn stale_fences_are_refused<B: Backend>(backend: &B) {
    let mut journal = backend.open().await;
    let old = journal.claim(1).await.unwrap();
    append_all(&mut journal, old, &sample(2)).await;
    let new = journal.claim(2).await.unwrap();
    let next = journal.next();
    let twin = Fence { nonce: new.nonce + 1, ..new };
    for stale in [old, twin, Fence { epoch: new.epoch + 1, ..new }, Fence::default()] {
        let refused = journal.append(stale, next, b"late").await.unwrap_err();
        assert_eq!(refused.code(), "stale_fence", "{stale}");
    }
    // Not even what it had appended itself is acknowledged to a former owner.
    assert_eq!(journal.append(old, 2, &sample(1)[0]).await.unwrap_err().code(), "stale_fence");
    journal.append(new, next, b"mine").await.unwrap();
    drop(journal);
    backend.crash().await;
    let mut expected = sample(2);
    expected.push(b"mine".to_vec());
    assert_eq!(all(&mut backend.open().await).await, expected);
}

async fn reading_is_bounded<B: Backend>(backend: &B) {
    let mut journal = backend.open().await;
    let fence = journal.claim(1).await.unwrap();
    let positions = append_all(&mut journal, fence, &vec![vec![1; 100]; 10]).await;
    let page = journal.read(positions[4], 250).await.unwrap();
    assert_eq!(page.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions[4..7]);
    assert_eq!(journal.read(positions[9], 0).await.unwrap().len(), 1, "at least one");
    let next = journal.next();
    assert!(journal.read(next, 1000).await.unwrap().is_empty());
}

async fn trimmed_batches_may_go_and_others_stay<B: Backend>(backend: &B) {
    let mut journal = backend.open().await;
    let fence = journal.claim(1).await.unwrap();
    let positions = append_all(&mut journal, fence, &vec![vec![5; 6000]; 40]).await;
    let before = positions[20];
    journal.trim(before).await.unwrap();
    append_all(&mut journal, fence, &vec![vec![6; 6000]; 20]).await;
    assert_eq!(journal.read(before, usize::MAX).await.unwrap().len(), 40);
    drop(journal);
    backend.crash().await;
    let mut journal = backend.open().await;
    assert_eq!(journal.read(before, usize::MAX).await.unwrap().len(), 40);
    match journal.read(1, usize::MAX).await {
        Ok(found) => assert!(found.len() >= 40),
        Err(error) => assert_eq!(error.code(), "trimmed"),
    }
}

async fn a_failed_sync_is_final<B: Backend>(backend: &B) {
    // B3
    let mut journal = backend.open().await;
    let fence = journal.claim(1).await.unwrap();
    append_all(&mut journal, fence, &sample(3)).await;
    backend.fail_sync(1);
    let (next, durable) = (journal.next(), journal.durable());
    assert_eq!(journal.append(fence, next, b"unknown").await.unwrap_err().code(), "journal_fenced");
    let syncs = backend.syncs();
    for position in [next, next + 1] {
        assert_eq!(journal.append(fence, position, b"later").await.unwrap_err().code(), "journal_fenced");
    }
    assert_eq!(journal.claim(2).await.unwrap_err().code(), "journal_fenced");
    assert_eq!(
        (backend.syncs(), journal.durable()),
        (syncs, durable),
        "no second sync, nothing acknowledged"
    );
    drop(journal);
    backend.crash().await;
    let found = all(&mut backend.open().await).await;
    assert_eq!(found[..3], sample(3));
    assert!(found.len() == 3 || found[3..] == [b"unknown".to_vec()], "whole or not at all");
}

async fn sizes_at_the_edges<B: Backend>(backend: &B) {
    let sizes = [0, 1, 4096 - 89, 4096 - 88, 4096 - 87, 8192 - 88, 8192 - 87, 20_000];
    let batches: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0xee; *size]).collect();
    let mut journal = backend.open().await;
    let fence = journal.claim(1).await.unwrap();
    append_all(&mut journal, fence, &batches).await;
    drop(journal);
    backend.crash().await;
    assert_eq!(all(&mut backend.open().await).await, batches);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::{MemoryDisk, MemoryJournal};
    use crate::store::testing::on_tokio;

    impl Backend for MemoryDisk {
        type Journal = MemoryJournal;

        async fn open(&self) -> MemoryJournal {
            MemoryJournal::open(self)
        }

        fn fail_sync(&self, nth: u64) {
            MemoryDisk::fail_sync(self, nth);
        }

        fn syncs(&self) -> u64 {
            MemoryDisk::syncs(self)
        }

        async fn crash(&self) {
            MemoryDisk::crash(self);
        }
    }

    #[test]
    fn the_journal_in_memory_conforms() {
        on_tokio(run(MemoryDisk::default));
    }

    #[test]
    fn a_frozen_disk_loses_everything_from_the_freeze_on() {
        on_tokio(async {
            let disk = MemoryDisk::default();
            let mut journal = disk.open().await;
            let fence = journal.claim(1).await.unwrap();
            append_all(&mut journal, fence, &sample(4)).await;
            disk.freeze_at_sync(3);
            append_all(&mut journal, fence, &sample(6)).await;
            drop(journal);
            MemoryDisk::crash(&disk);
            assert_eq!(all(&mut disk.open().await).await.len(), 4 + 2);
        });
    }
}
