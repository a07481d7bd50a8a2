//! The testing ledger, `docs/testing-ledger.json`: what tests have done in all, written by them when `AOB_LEDGER=1`.
//!
//! Tests of one build add to one record of each kind; a build is the hash of its sources and its simulator. Records of other
//! builds stay and count in the totals; only those of this build can be run again, for another build may tell another story.
//! Seeds that are in a record of this build already are not counted twice. The list of bugs is kept by hand.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Where it stands.
pub(crate) const PATH: &str = "docs/testing-ledger.json";
/// Of the seeds of a simulation one in so many is remembered with the hash of its story.
pub(crate) const SAMPLE_ONE_IN: u64 = 50;
/// What is counted, and summed up in the totals.
const COUNTS: [&str; 8] = [
    "seeds_run",
    "simulated_seconds",
    "kills",
    "cuts",
    "operations_acknowledged",
    "operations_unknown",
    "failpoints_hit",
    "histories_checked",
];

/// Root of the project.
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Is it to be written?
pub(crate) fn is_kept() -> bool {
    std::env::var("AOB_LEDGER").is_ok_and(|kept| kept == "1")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Which build this is: a hash of `src`, of the simulator and of the versions of all libraries.
pub(crate) fn fingerprint() -> String {
    let root = root();
    let mut files = vec![root.join("Cargo.lock")];
    for folder in ["src", "tests/sim"] {
        sources(&root.join(folder), &mut files);
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(std::fs::read(&file).unwrap_or_default());
        hash.update([0]);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The ledger as it stands.
pub(crate) fn read() -> Value {
    let text = std::fs::read_to_string(root().join(PATH)).unwrap_or_else(|_| String::from("{}"));
    serde_json::from_str(&text).expect("the ledger is JSON")
}

/// Adds what a test has done, when the ledger is kept. `counts` are members of [`COUNTS`].
pub(crate) fn add(kind: &str, counts: &[(&str, u64)]) {
    if is_kept() {
        change(|ledger| count(record(ledger, kind, &fingerprint()), counts));
    }
}

/// Adds seeds of a simulation: first and last, and for some of them the hash of their story.
pub(crate) fn add_seeds(
    kind: &str,
    (first, last): (u64, u64),
    simulated_seconds: u64,
    sample: &[(u64, String)],
) {
    if !is_kept() {
        return;
    }
    change(|ledger| {
        let record = record(ledger, kind, &fingerprint());
        let known: Vec<(u64, u64)> = ranges(record);
        let fresh = (first..=last).filter(|seed| !known.iter().any(|(a, b)| (a..=b).contains(&seed))).count();
        let merged: Vec<Value> = merge(known.into_iter().chain([(first, last)]).collect())
            .iter()
            .map(|(a, b)| json!([a, b]))
            .collect();
        record.insert(String::from("seeds"), json!(merged));
        let simulated_seconds = if fresh == 0 { 0 } else { simulated_seconds };
        count(record, &[("seeds_run", fresh as u64), ("simulated_seconds", simulated_seconds)]);
        let stories = record.entry("sample").or_insert_with(|| json!({}));
        if let Value::Object(stories) = stories {
            stories.extend(sample.iter().map(|(seed, story)| (seed.to_string(), json!(story))));
        }
    });
}

/// Seeds of this build whose stories are known.
pub(crate) fn sample(ledger: &Value, kind: &str, fingerprint: &str) -> BTreeMap<u64, String> {
    let records = ledger["records"].as_array().into_iter().flatten();
    let own = records.filter(|record| record["kind"] == kind && record["build"] == fingerprint);
    let stories = own.filter_map(|record| record["sample"].as_object()).flatten();
    stories.filter_map(|(seed, story)| Some((seed.parse().ok()?, story.as_str()?.to_owned()))).collect()
}

fn ranges(record: &Map<String, Value>) -> Vec<(u64, u64)> {
    let pairs = record.get("seeds").and_then(Value::as_array).into_iter().flatten();
    pairs.filter_map(|pair| Some((pair.get(0)?.as_u64()?, pair.get(1)?.as_u64()?))).collect()
}

/// Ranges that touch become one.
fn merge(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn count(record: &mut Map<String, Value>, counts: &[(&str, u64)]) {
    for (name, more) in counts {
        assert!(COUNTS.contains(name), "{name} is not counted");
        let so_far = record.get(*name).and_then(Value::as_u64).unwrap_or(0);
        record.insert((*name).to_owned(), json!(so_far + more));
    }
}

/// The record of this kind and build, a new one when there is none.
fn record<'a>(ledger: &'a mut Value, kind: &str, build: &str) -> &'a mut Map<String, Value> {
    let all = ledger.as_object_mut().expect("an object").entry("records").or_insert_with(|| json!([]));
    let all = all.as_array_mut().expect("a list");
    let own = |record: &Value| record["kind"] == kind && record["build"] == build;
    let at = all.iter().position(own).unwrap_or_else(|| {
        all.push(json!({"kind": kind, "build": build}));
        all.len() - 1
    });
    all[at].as_object_mut().expect("an object")
}

/// Sums of all records.
pub(crate) fn totals(ledger: &Value) -> Value {
    let records = || ledger["records"].as_array().into_iter().flatten();
    let sum = |name: &str| records().filter_map(|record| record[name].as_u64()).sum::<u64>();
    let mut totals: Map<String, Value> =
        COUNTS.iter().map(|name| ((*name).to_owned(), json!(sum(name)))).collect();
    totals.insert(String::from("simulated_hours"), json!(sum("simulated_seconds") / 3_600));
    let bugs = ledger["bugs"].as_array().map_or(0, Vec::len);
    totals.insert(String::from("bugs_found"), json!(bugs));
    Value::Object(totals)
}

/// Reads, changes and writes the ledger. Tests of other processes wait.
fn change(change: impl FnOnce(&mut Value)) {
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(root().join(PATH)).expect("the ledger can be written");
    file.lock().expect("the ledger can be locked");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("the ledger is text");
    let mut ledger: Value =
        if text.is_empty() { json!({"version": 1}) } else { serde_json::from_str(&text).expect("JSON") };
    change(&mut ledger);
    let sums = totals(&ledger);
    ledger["totals"] = sums;
    let written = serde_json::to_string_pretty(&ledger).expect("JSON") + "\n";
    file.rewind().and_then(|()| file.set_len(0)).expect("the ledger can be written");
    file.write_all(written.as_bytes()).expect("the ledger can be written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one_and_only_their_own_build_is_sampled() {
        assert_eq!(merge(vec![(200, 399), (0, 199), (500, 501), (450, 600)]), [(0, 399), (450, 600)]);
        let ledger = json!({"records": [
            {"kind": "simulation", "build": "a", "sample": {"7": "x"}, "seeds_run": 4, "simulated_seconds": 7_300},
            {"kind": "simulation", "build": "b", "sample": {"8": "y"}, "seeds_run": 5},
            {"kind": "kills", "build": "b", "kills": 60},
        ], "bugs": [{}]});
        assert_eq!(sample(&ledger, "simulation", "b"), BTreeMap::from([(8, String::from("y"))]));
        assert!(sample(&ledger, "simulation", "c").is_empty());
        let sums = totals(&ledger);
        assert_eq!(
            (&sums["seeds_run"], &sums["kills"], &sums["bugs_found"]),
            (&json!(9), &json!(60), &json!(1))
        );
        assert_eq!(sums["simulated_hours"], 2);
    }
}
