//! The simulator: a whole node in one thread, on simulated time, over a simulated disk, with everything that goes wrong
//! drawn from a seed.
//!
//! What runs is the node's own code: its interface over HTTP, gate, errands, pool of jobs, shards, journal, index thread,
//! recovery. What is simulated is outside: the disk (`io::disk::simulated`), time, clients, workers, the services that `http`
//! nodes call, and the operator who starts the node again after it was killed or lost its power. First everything goes wrong
//! that the seed chooses (safety), then nothing does any more, and every run that was acknowledged must come to its end
//! (liveness). After that the power is cut once more, and everything must still be as it was seen.
//!
//! `AOB_SIM_SEED=N cargo test --lib sim::one -- --nocapture` runs one seed and tells its story.

mod agents;
mod archive;
mod bills;
mod check;
mod client;
mod clock;
mod damage;
mod forks;
mod held;
#[path = "../ledger/mod.rs"]
mod ledger;
mod net;
mod node;
mod operator;
mod options;
mod outside;
mod patches;
mod registry;
mod signals;
mod workflows;
mod world;

use std::collections::BTreeMap;

use self::options::Options;
use self::world::{Outcome, run, run_with};

/// Seeds of an ordinary test run, in two minutes. `AOB_FULL=1` runs twenty times as many.
const SEEDS: u64 = 200;

/// Seeds within which everything that must come up now and then has done so: the full mode looks, and whoever asks for as many.
const SOMETIMES_SEEDS: u64 = 1_000;

/// Each simulation is a thread's own; so many run side by side.
const THREADS: usize = 2;

/// What the simulator's records are called in the ledger.
const LEDGER: &str = "simulation";

/// Seeds within which a planted bug must be found. Every change of the node gives a seed another story, and the rarest of these
/// bugs shows in one of a few hundred.
const PLANTED_SEEDS: u64 = 1_500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// One seed twice: nothing may depend on anything but the seed.
fn twice(seed: u64) -> Outcome {
    let (first, second) = (run(seed, false), run(seed, false));
    assert_eq!(first.trace, second.trace, "seed {seed} is not the same twice");
    first
}

/// What some seeds have given, all together.
#[derive(Default)]
struct Sum {
    seen: BTreeMap<&'static str, u64>,
    simulated_us: u64,
    /// Stories of some seeds.
    sample: BTreeMap<u64, String>,
    broken: Vec<u64>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.simulated_us += 2 * outcome.simulated_us;
        for (name, count) in outcome.seen {
            *self.seen.entry(name).or_default() += count;
        }
        if seed.is_multiple_of(ledger::SAMPLE_ONE_IN) {
            self.sample.insert(seed, outcome.trace);
        }
    }

    fn merge(&mut self, other: Self) {
        self.simulated_us += other.simulated_us;
        self.sample.extend(other.sample);
        self.broken.extend(other.broken);
        for (name, count) in other.seen {
            *self.seen.entry(name).or_default() += count;
        }
    }
}

/// Runs seeds on several threads, each seed whole on one of them.
fn seeds(from: u64, to: u64) -> Sum {
    let next = std::sync::atomic::AtomicU64::new(from);
    let work = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= to {
                return sum;
            }
            match std::panic::catch_unwind(|| twice(seed)) {
                Ok(outcome) => sum.add(seed, outcome),
                Err(_) => sum.broken.push(seed),
            }
            // Ten stories are enough to begin with.
            if sum.broken.len() >= 10 {
                return sum;
            }
        }
    };
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| sum.merge(thread.join().unwrap()));
    });
    sum
}

// RELIABILITY 4, I-1..I-8, B1, B3, B10, B12, B14, D5, D6, F1, F2
#[test]
fn whatever_goes_wrong_nothing_that_was_acknowledged_is_lost_doubled_or_changed() {
    let count = number("AOB_SIM_SEEDS").unwrap_or(if std::env::var_os("AOB_FULL").is_some() {
        20 * SEEDS
    } else {
        SEEDS
    });
    let first = number("AOB_SIM_FIRST").unwrap_or(0);
    let began = clock::real();
    let sum = seeds(first, first + count);
    let took = began.elapsed().as_secs_f64();
    println!("{count} seeds from {first}, {:.1} simulated h in {took:.1} s", sum.simulated_us as f64 / 3.6e9);
    for (name, count) in &sum.seen {
        println!("  sometimes {name}: {count}");
    }
    assert!(sum.broken.is_empty(), "these seeds broke: {:?}", sum.broken);
    let sample: Vec<(u64, String)> = sum.sample.into_iter().collect();
    ledger::add_seeds(LEDGER, (first, first + count - 1), sum.simulated_us / 1_000_000, &sample);
    if count >= SOMETIMES_SEEDS {
        for name in world::SOMETIMES {
            assert!(sum.seen.contains_key(name), "in {count} seeds never: {name}");
        }
    }
}

/// Stories that are not what the ledger says they were.
fn changed(sample: &BTreeMap<u64, String>, most: usize) -> Vec<u64> {
    let differs = |(seed, story): &(&u64, &String)| run(**seed, false).trace != **story;
    sample.iter().take(most).filter(differs).map(|(seed, _)| *seed).collect()
}

// RELIABILITY 4.1: what is on record can be seen again.
#[test]
fn the_recorded_seeds_of_this_build_tell_the_recorded_stories() {
    let ledger = ledger::read();
    let sample = ledger::sample(&ledger, LEDGER, &ledger::fingerprint());
    if sample.is_empty() {
        println!(
            "no seed of this build is on record: {} of other builds count in the totals and are not run again",
            ledger["totals"]["seeds_run"]
        );
    }
    assert_eq!(changed(&sample, 50), Vec::<u64>::new(), "these seeds tell another story now");
    let wrong = BTreeMap::from([(3, run(3, false).trace), (4, String::from("another story"))]);
    assert_eq!(changed(&wrong, 50), [4]);
}

/// The first seed of some that finds what was planted.
fn found_out(plant: fn(&mut Options)) -> Option<u64> {
    (0..PLANTED_SEEDS).find(|seed| std::panic::catch_unwind(|| run_with(*seed, false, plant)).is_err())
}

// RELIABILITY 4: a harness that cannot fail proves nothing.
#[test]
fn a_node_that_does_not_sync_is_found_out() {
    assert!(found_out(|options| options.disk.sync_lies = true).is_some(), "files");
    assert!(found_out(|options| options.disk.names_lie = true).is_some(), "directories");
    assert!(found_out(|options| options.disk.reused_lie = true).is_some(), "files that are used again");
}

#[test]
fn a_node_that_acknowledges_before_the_sync_is_found_out() {
    assert!(found_out(|options| options.mutant = Some("acknowledge_before_sync")).is_some());
}

#[test]
fn a_node_that_syncs_again_after_a_failure_is_found_out() {
    let seed = found_out(|options| options.mutant = Some("sync_again_after_failure"));
    println!("found by seed {seed:?}");
    assert!(seed.is_some());
}

#[test]
fn a_node_that_takes_the_answer_of_an_attempt_that_is_over_is_found_out() {
    assert!(found_out(|options| options.mutant = Some("take_answer_of_old_attempt")).is_some());
}

// RELIABILITY 2.10, I-18: no call of a model before its cost is reserved, durably.
#[test]
fn a_node_that_calls_models_before_they_are_paid_for_is_found_out() {
    let seed = found_out(|options| options.mutant = Some("call_before_reserved"));
    println!("found by seed {seed:?}");
    assert!(seed.is_some());
}

#[test]
fn one() {
    let Some(seed) = number("AOB_SIM_SEED") else { return };
    let outcome = run(seed, true);
    println!("seed {seed}: {outcome:#?}");
}
