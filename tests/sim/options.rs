//! What goes wrong in a simulation, and how much of it: drawn from the seed, each kind switched on or off by itself, so that
//! rare mixes come up too.

use crate::io::disk::simulated::{Faults, Random};

/// When simulations begin, microseconds since the epoch: an ordinary day; before the ends of 32 bits of seconds, signed and
/// unsigned; before a leap second; before the 29 February that 2100 does not have (RELIABILITY D6).
const BEGINNINGS_US: [u64; 5] = [
    1_800_000_000_000_000,
    2_147_483_640_000_000,
    4_294_967_290_000_000,
    1_483_228_795_000_000,
    4_107_542_390_000_000,
];

/// One simulation.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) shards: u16,
    /// Acknowledge before the sync: a power cut may take what was acknowledged, and nothing that left may be without cause.
    pub(super) unsynced: bool,
    /// Starts with an idempotency key, in ten; such runs are kept for as long as their keys.
    pub(super) keyed_in_ten: u64,
    pub(super) clients: u64,
    pub(super) workers: u64,
    /// How long things go wrong.
    pub(super) chaos_ms: u64,
    /// Most milliseconds between two steps of a client.
    pub(super) think_ms: u64,
    /// Of a request, one way, at most.
    pub(super) network_ms: u64,
    pub(super) segment_bytes: u64,
    pub(super) retention_ms: u64,
    pub(super) lease_seconds: u64,
    /// Mean milliseconds of a life of the node; `None`: nobody ends it.
    pub(super) life_ms: Option<u64>,
    /// Of ends, in a million: the power fails.
    pub(super) power_cut: u32,
    /// Most milliseconds until the node is started again.
    pub(super) down_ms: u64,
    /// Most milliseconds that the wall clock jumps while the node is down.
    pub(super) jump_ms: u64,
    pub(super) disk: Faults,
    /// Of ends, in a million: an image of a run is damaged.
    pub(super) image_damage: u32,
    /// Of power cuts, in a million: the disk is damaged too.
    pub(super) damage: u32,
    /// What the wall clock shows at the beginning.
    pub(super) begins_us: u64,
    /// A planted bug (`failpoint::MUTANTS`).
    pub(super) mutant: Option<&'static str>,
    /// What services and workers do wrong, each in a million.
    pub(super) fails: u32,
    pub(super) loses_answer: u32,
    pub(super) hangs: u32,
    pub(super) doubles: u32,
    /// Bytes of a value up to which it stands in events.
    pub(super) inline_max: usize,
    /// How long contents that nothing refers to are kept.
    pub(super) grace_ms: u64,
    /// A worker completes long after its lease is over.
    pub(super) late: u32,
    /// Patches of agents that do nothing but add functions do not wait for a human.
    pub(super) safe_functions: bool,
    /// Most milliseconds of a call or a job.
    pub(super) work_ms: u64,
}

impl Options {
    /// Those of a seed.
    pub(super) fn of(random: &mut Random) -> Self {
        let mut sometimes = |one_in: u64, most: u32| {
            if random.draw(one_in) == 0 { random.draw(u64::from(most)) as u32 + 1 } else { 0 }
        };
        let disk = Faults {
            write_error: sometimes(6, 2_000),
            sync_error: sometimes(6, 2_000),
            full: sometimes(6, 300_000),
            stall: sometimes(3, 20_000),
            read_error: sometimes(6, 20_000),
            ..Faults::default()
        };
        let (fails, loses_answer) = (sometimes(2, 300_000), sometimes(3, 200_000));
        let (hangs, doubles) = (sometimes(4, 50_000), sometimes(3, 300_000));
        let power_cut = sometimes(2, 1_000_000);
        let ends = random.draw(5) > 0;
        // Small segments whose runs may soon be forgotten are used again.
        let recycles = random.draw(5) == 0;
        Self {
            shards: random.draw(3) as u16 + 1,
            unsynced: random.draw(6) == 0,
            keyed_in_ten: if recycles { 0 } else { 7 },
            clients: random.draw(6) + 1,
            workers: random.draw(3) + 1,
            chaos_ms: 5_000 + random.draw(25_000),
            think_ms: 20 + random.draw(600),
            network_ms: random.draw(20),
            segment_bytes: if recycles { 64 << 10 } else { 64 << (10 + random.draw(5)) },
            retention_ms: if recycles { random.draw(2) * 1_000 } else { 7 * 24 * 3_600_000 },
            lease_seconds: 2 + random.draw(10),
            life_ms: ends.then(|| 500 + random.draw(8_000)),
            power_cut,
            down_ms: 1 + random.draw(3_000),
            jump_ms: if random.draw(4) == 0 { random.draw(600_000) } else { 0 },
            image_damage: if random.draw(4) == 0 { random.draw(400_000) as u32 } else { 0 },
            disk: Faults { latency_ms: random.draw(12), stall_ms: 200 + random.draw(3_000), ..disk },
            fails,
            loses_answer,
            hangs,
            doubles,
            work_ms: 1 + random.draw(800),
            inline_max: 64 + random.draw(1_000) as usize,
            grace_ms: 60_000 + random.draw(60_000),
            // Drawn last, so that older seeds keep their world.
            late: if random.draw(3) == 0 { random.draw(300_000) as u32 } else { 0 },
            damage: if random.draw(3) == 0 { random.draw(1_000_000) as u32 } else { 0 },
            begins_us: match random.draw(8) {
                drawn @ 0..4 => BEGINNINGS_US[drawn as usize + 1],
                _ => BEGINNINGS_US[0],
            },
            mutant: None,
            safe_functions: random.draw(4) == 0,
        }
    }
}
