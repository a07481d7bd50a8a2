//! A short fuzzer without feedback, for machines without libFuzzer: seeds, changed at random, for a number of rounds or
//! for `AOB_FUZZ_SECONDS` each.

use super::{TARGETS, seeds, target};
use crate::io::disk::simulated::Random;

#[expect(clippy::disallowed_methods, reason = "how long the test itself takes")]
fn began() -> std::time::Instant {
    std::time::Instant::now()
}

/// Changed seeds for each target in an ordinary test run.
const ROUNDS: u64 = 1_500;

/// Texts that mean something somewhere.
const WORDS: [&[u8]; 24] = [
    b"${",
    b"}",
    b"$${",
    b"{\"a\":",
    b"null",
    b"\\ud800",
    b"1e999",
    b"-0",
    b"18446744073709551615",
    b"run_",
    b"%00",
    b"&a [*a]",
    b"!!str",
    b"<<: ",
    b"- ",
    b"\"\"",
    b"\xff\xfe",
    b"nodes:",
    b"type: loop",
    b"9223372036854775807",
    b".map(x, ",
    b"timestamp(",
    b"duration(",
    b"\r\n",
];

fn change(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| seeds[random.draw(seeds.len() as u64) as usize].clone();
    let mut bytes = pick(random);
    for _ in 0..=random.draw(6) {
        let at = random.draw(bytes.len() as u64 + 1) as usize;
        match random.draw(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.draw(8),
            1 if at < bytes.len() => bytes[at] = random.draw(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + random.draw(32) as usize).min(bytes.len()))),
            4 => {
                let word = WORDS[random.draw(WORDS.len() as u64) as usize];
                drop(bytes.splice(at..at, word.iter().copied()));
            }
            5 => {
                let other = pick(random);
                let from = random.draw(other.len() as u64 + 1) as usize;
                drop(bytes.splice(at.., other[from..].iter().copied()));
            }
            6 => {
                let end = (at + random.draw(64) as usize).min(bytes.len());
                let again = bytes[at..end].repeat(1 + random.draw(8) as usize);
                drop(bytes.splice(at..at, again));
            }
            _ => {
                let new: Vec<u8> = (0..random.draw(16)).map(|_| random.draw(256) as u8).collect();
                drop(bytes.splice(at..at, new));
            }
        }
    }
    bytes.truncate(64 << 10);
    bytes
}

/// Runs a target, and says with which bytes it panicked.
fn tried(name: &'static str, bytes: &[u8]) {
    let outcome = std::panic::catch_unwind(|| target(name)(bytes));
    if outcome.is_err() {
        panic!("target {name} with {:?}", String::from_utf8_lossy(bytes));
    }
}

fn some(name: &'static str) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for seed in &seeds {
        tried(name, seed);
    }
    let seconds: Option<u64> = std::env::var("AOB_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let seed = std::env::var("AOB_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (mut random, began, mut rounds) = (Random::new(seed), began(), 0);
    while seconds.map_or(rounds < ROUNDS, |most| began.elapsed().as_secs() < most) {
        tried(name, &change(&mut random, &seeds));
        rounds += 1;
    }
    println!("{name}: {} seeds, {rounds} changed ones", seeds.len());
}

macro_rules! each {
    ($($name:ident)*) => { $(#[test] fn $name() { some(stringify!($name)); })* };
}

each! { recovery frame burst bundle token document_json document_yaml expression template bodies parameters names stream }

#[test]
fn every_target_is_run() {
    assert_eq!(TARGETS.len(), 13, "a new target needs a line in `each!` above");
}
