//! What may go wrong with the simulated disk, what has, and the draws that decide it.

/// What may go wrong, and how long things take. All chances are in a million.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A write fails, with a part of it written.
    pub(crate) write_error: u32,
    /// A sync fails; what it should have made durable never will be, though later ones succeed.
    pub(crate) sync_error: u32,
    /// A preparation finds the disk full.
    pub(crate) full: u32,
    /// An operation takes long.
    pub(crate) stall: u32,
    /// Most milliseconds of an operation.
    pub(crate) latency_ms: u64,
    /// Most milliseconds of one that takes long.
    pub(crate) stall_ms: u64,
    /// Syncs of files report success and do nothing: as if nobody had asked for them.
    pub(crate) sync_lies: bool,
    /// The same for directories.
    pub(crate) names_lie: bool,
    /// The same for files that are used again: their blocks were written before, which is where a power cut that only
    /// forgets new blocks sees nothing.
    pub(crate) reused_lie: bool,
    /// A read fails, or ends short.
    pub(crate) read_error: u32,
}

/// What has been done to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    pub(crate) write_errors: u64,
    pub(crate) sync_errors: u64,
    pub(crate) read_errors: u64,
    pub(crate) full: u64,
    pub(crate) blocks_lost: u64,
    pub(crate) blocks_torn: u64,
    pub(crate) names_lost: u64,
    /// Files that got another name to be used again.
    pub(crate) reused: u64,
}

/// Draws that are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A draw below `below`.
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below.max(1)
    }

    /// Does something happen that happens so often in a million?
    pub(crate) fn chance(&mut self, in_a_million: u32) -> bool {
        in_a_million > 0 && self.draw(1_000_000) < u64::from(in_a_million)
    }
}
