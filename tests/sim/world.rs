//! What all parts of a simulation share, and its course.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedSender;

use super::archive::SimulatedArchive;
use super::check::History;
use super::options::Options;
use super::outside::Ledger;
use super::registry::SimulatedRegistry;
use super::{agents, bills, check, client, clock, forks, held, operator, outside, workflows};
use crate::api::Catalog;
use crate::failpoint;
use crate::io::disk::simulated::{self, Random, SimulatedDisk};
use crate::store::artifacts::MemoryArtifacts;

/// What must come up in a test run over all seeds, so that nobody believes in a test that tests nothing.
pub(super) const SOMETIMES: [&str; 58] = [
    "a record was decided again",
    "a patch was kept as its document",
    "a run came back from an image",
    "a damaged checkpoint was dropped",
    "a run completed",
    "a run did not write everything down",
    "a run was cancelled",
    "a start was answered again by its key",
    "an outcome was unknown to a client",
    "the node was killed",
    "the power failed",
    "a sync failed",
    "a write failed",
    "the disk was full",
    "a written block was lost",
    "a written block was torn",
    "index rows were lost",
    "a shard was fenced",
    "a call was made again after a crash",
    "a service lost its answer",
    "a worker completed twice",
    "a lease expired",
    "a segment was used again",
    "a segment was moved to history",
    "all slots were taken",
    "a business key was in use",
    "a value was kept by reference",
    "a read failed",
    "damage was refused",
    "a worker completed too late",
    "a poisoned run failed",
    "time went over an end of 32 bits",
    "a graph was patched",
    "a patch was taken back",
    "a patch was taken back with one that builds on it",
    "two patches met",
    "an update was taken",
    "what a client was unsure of was done, and its key said so",
    "a patch was held",
    "a held patch was approved",
    "a held patch was rejected",
    "a held patch was decided before",
    "a run was forked",
    "a run that was over was forked",
    "a fork was asked for again",
    "a fork began in the state of its source",
    "a model was asked again after a crash",
    "a model refused for now",
    "the answer of a model was lost",
    "a model answered a node that was gone",
    "an agent used a tool",
    "an agent patched its run",
    "an agent was corrected",
    "an agent went down its ladder",
    "a budget was reached",
    "a budget paused a run",
    "a run was forked in the middle of a turn",
    "an agent's bill was checked",
];

/// Everything outside and around the node.
pub(super) struct World {
    pub(super) options: Options,
    pub(super) random: RefCell<Random>,
    pub(super) disk: SimulatedDisk,
    pub(super) archive: Arc<SimulatedArchive>,
    pub(super) artifacts: Arc<MemoryArtifacts>,
    pub(super) catalog: Arc<Catalog>,
    /// Where the node that runs takes connections.
    pub(super) door: RefCell<Option<UnboundedSender<DuplexStream>>>,
    pub(super) ledger: RefCell<Ledger>,
    pub(super) account: RefCell<agents::Account>,
    pub(super) history: RefCell<History>,
    /// Nothing goes wrong any more.
    pub(super) calm: Cell<bool>,
    /// A file of the journal is gone that the node does not need, unless its images are damaged, too: one fault at a time.
    pub(super) file_lost: Cell<bool>,
    seen: RefCell<BTreeMap<&'static str, u64>>,
    trace: RefCell<Sha256>,
    aloud: bool,
}

/// What came of a seed.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) trace: String,
    pub(super) simulated_us: u64,
    pub(super) seen: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64, aloud: bool, change: fn(&mut Options)) -> Self {
        let mut random = Random::new(seed);
        let mut options = Options::of(&mut random);
        change(&mut options);
        let disk = SimulatedDisk::new(random.draw(u64::MAX));
        thread_local! {
            // A cache over what never changes.
            static CATALOG: Arc<Catalog> = filled();
        }
        Self {
            options,
            random: RefCell::new(random),
            disk,
            archive: Arc::default(),
            artifacts: Arc::default(),
            catalog: CATALOG.with(Arc::clone),
            door: RefCell::default(),
            ledger: RefCell::default(),
            account: RefCell::default(),
            history: RefCell::default(),
            calm: Cell::new(false),
            file_lost: Cell::new(false),
            seen: RefCell::default(),
            trace: RefCell::default(),
            aloud,
        }
    }

    /// A draw below `below`.
    pub(super) fn draw(&self, below: u64) -> u64 {
        self.random.borrow_mut().draw(below)
    }

    /// Does something go wrong that does so often in a million? Never when it is calm.
    pub(super) fn chance(&self, in_a_million: u32) -> bool {
        !self.calm.get() && self.random.borrow_mut().chance(in_a_million)
    }

    /// May a power cut have taken what was acknowledged?
    pub(super) fn may_forget(&self) -> bool {
        self.options.unsynced
    }

    /// Notes something that must come up now and then.
    pub(super) fn sometimes(&self, name: &'static str) {
        self.sometimes_so_often(name, 1);
    }

    pub(super) fn sometimes_so_often(&self, name: &'static str, count: u64) {
        debug_assert!(SOMETIMES.contains(&name), "{name}");
        if count > 0 {
            *self.seen.borrow_mut().entry(name).or_default() += count;
        }
    }

    /// One line of the story; two runs of a seed tell the same.
    pub(super) fn tell(&self, line: std::fmt::Arguments<'_>) {
        let line = format!("{:>12} {line}\n", clock::passed_us());
        if self.aloud {
            print!("{line}");
        }
        self.trace.borrow_mut().update(line.as_bytes());
    }
}

fn filled() -> Arc<Catalog> {
    let catalog = Catalog::new(SimulatedRegistry::of(workflows::DOCUMENTS));
    for name in workflows::NAMES {
        assert!(catalog.load(name, None).unwrap().is_some(), "{name}");
    }
    catalog
}

thread_local! {
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the panics of this thread: those of the node's tasks end where their runtime catches them.
fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

/// Nothing of the node or around it may panic.
pub(super) fn no_panics() {
    assert_eq!(PANICS.get(), 0, "a task has panicked");
}

/// Runs one seed. Panics when something does not hold, with the seed in the message.
pub(super) fn run(seed: u64, aloud: bool) -> Outcome {
    run_with(seed, aloud, |_| {})
}

/// The same with other options.
pub(super) fn run_with(seed: u64, aloud: bool, change: fn(&mut Options)) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let world = Rc::new(World::new(seed, aloud, change));
    count_panics();
    PANICS.set(0);
    let mounted = simulated::mount(&world.disk);
    failpoint::plant(world.options.mutant);
    let told = Told(seed);
    let simulated_us = tokio::task::LocalSet::new().block_on(&runtime, async {
        let clocks = clock::Simulated::begin(world.options.begins_us);
        course(&world).await;
        let passed_us = clock::passed_us();
        drop(clocks);
        passed_us
    });
    std::mem::forget(told);
    drop(mounted);
    failpoint::plant(None);
    let counts = world.disk.counts();
    for (name, count) in [
        ("a sync failed", counts.sync_errors),
        ("a write failed", counts.write_errors),
        ("the disk was full", counts.full),
        ("a written block was lost", counts.blocks_lost),
        ("a written block was torn", counts.blocks_torn),
        ("a segment was used again", counts.reused),
        ("a read failed", counts.read_errors),
        ("a segment was moved to history", world.archive.moves()),
    ] {
        world.sometimes_so_often(name, count);
    }
    let trace = world.trace.borrow_mut().finalize_reset();
    Outcome {
        trace: trace.iter().map(|byte| format!("{byte:02x}")).collect(),
        simulated_us,
        seen: world.seen.take(),
    }
}

/// Says which seed it was when a check panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("to see it again: AOB_SIM_SEED={} cargo test --lib sim::one -- --nocapture", self.0);
    }
}

async fn course(world: &Rc<World>) {
    world.tell(format_args!("{:?}", world.options));
    world.disk.set_faults(world.options.disk);
    let operator = operator::start(world);
    outside::start_services(world);
    outside::start_workers(world);
    agents::start(world);
    for number in 0..world.options.clients {
        tokio::task::spawn_local(client::run(world.clone(), number));
    }
    clock::sleep_ms(world.options.chaos_ms).await;
    world.tell(format_args!("calm"));
    world.calm.set(true);
    let faults = world.options.disk;
    world.disk.set_faults(simulated::Faults {
        latency_ms: faults.latency_ms,
        sync_lies: faults.sync_lies,
        names_lie: faults.names_lie,
        reused_lie: faults.reused_lie,
        ..Default::default()
    });
    operator.calm().await;
    let first = check::settle(world).await;
    operator.cut_power().await;
    let second = check::settle(world).await;
    if !world.may_forget() {
        check::unchanged(&first, &second);
    }
    check::all(world, &second);
    bills::told(world, &second).await;
    forks::states(world, &second).await;
    held::states(world, &second).await;
    let half = |us: u64| (us / 1_000_000) >> 31;
    if half(clock::wall_us()) != half(world.options.begins_us) {
        world.sometimes("time went over an end of 32 bits");
    }
    operator.end().await;
    no_panics();
}
