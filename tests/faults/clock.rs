//! Clocks that jump and timers at the ends of what there is (RELIABILITY 3.D). libfaketime moves the wall clock of a real
//! node and leaves the monotonic one alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};
use crate::kills::memory_directory;

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Seconds a timer waits.
const NAP_SECONDS: u64 = 3;
/// How late a timer may be on a machine that is busy with other tests.
const LATE_MAX: Duration = Duration::from_secs(8);
const RUNS: usize = 20;
/// Less than any jump.
const MINUTE_MS: i64 = 60_000;

/// A node whose wall clock shows what a file says.
struct Fake {
    directory: tempfile::TempDir,
}

impl Fake {
    fn new(test: &str) -> Option<Self> {
        if !Path::new(LIBRARY).exists() {
            crate::disk::mount::skipped(
                test,
                "libfaketime is not installed (Debian: apt-get install faketime)",
            );
            return None;
        }
        let fake = Self { directory: memory_directory() };
        fake.jump("+0");
        Some(fake)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("now")
    }

    /// The wall clock is off by so much from now on.
    fn jump(&self, offset: &str) {
        let new = self.directory.path().join("then");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn node(&self) -> Node {
        let file = self.file();
        let options = Options::serve(&self.directory.path().join("data"))
            .env("LD_PRELOAD", LIBRARY)
            .env("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_RESET", "1");
        Node::start(&options)
    }
}

fn register(client: &mut Client, length: &str) {
    let document = json!({"name": "nap", "nodes": {"nap": {"type": "delay", "with": {"for": length}}}});
    client.post("/v1/workflows", &document).expect(201);
}

fn starts(client: &mut Client, count: usize) -> Vec<String> {
    let body = json!({"workflow": "nap"});
    let ids = (0..count).map(|_| client.post("/v1/runs", &body).expect(202).json()["run_id"].clone());
    ids.map(|id| id.as_str().unwrap().to_owned()).collect()
}

fn completed(client: &mut Client, run: &str) -> bool {
    client.get(&format!("/v1/runs/{run}")).expect(200).json()["status"] == "completed"
}

/// Waits for a run's end.
fn ends(client: &mut Client, run: &str, within: Duration) {
    let began = Instant::now();
    while began.elapsed() < within {
        let wait = [("prefer", "wait=1")];
        let body = client.request("GET", &format!("/v1/runs/{run}"), &wait, b"").unwrap().json();
        if body["status"] == "completed" {
            return;
        }
    }
    panic!("{run} does not end within {within:?}");
}

/// The wall clock when a run's id was made, in milliseconds.
fn made_at(run: &str) -> i64 {
    i64::from_str_radix(&run["run_".len()..][..12], 16).unwrap()
}

/// Times of a run do not go back, and its timer fired once.
fn sound(client: &mut Client, run: &str) {
    let page = client.get(&format!("/v1/runs/{run}/timeline?limit=100")).expect(200).json();
    let events = page["events"].as_array().unwrap();
    let times: Vec<&str> = events.iter().map(|event| event["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{run}: {times:?}");
    assert_eq!(events.iter().filter(|event| event["type"] == "timer.fired").count(), 1, "{events:?}");
}

// RELIABILITY D1, I-12
#[test]
fn a_wall_clock_that_jumps_makes_no_timer_early_late_or_twice() {
    for (offset, seconds) in [("+1h", 3_600), ("-1h", -3_600), ("+10y", 10 * 365 * 86_400)] {
        let Some(fake) = Fake::new("a wall clock that jumps") else { return };
        let node = fake.node();
        let mut client = node.client();
        register(&mut client, &format!("{NAP_SECONDS}s"));
        let began = Instant::now();
        let mut runs = starts(&mut client, RUNS);
        let started = Instant::now();
        fake.jump(offset);
        // It goes on taking work, under ids of its own, which are made of the wall clock.
        runs.extend(starts(&mut client, 1));
        let (first, last) = (made_at(&runs[0]), made_at(&runs[RUNS]));
        let moved = last.saturating_sub(first);
        assert!((moved - seconds * 1_000).abs() < MINUTE_MS, "{offset}: the wall clock moved by {moved} ms");
        // A run's own times are of the clock that never jumps.
        let shown = |client: &mut Client, run: &str| {
            let body = client.get(&format!("/v1/runs/{run}")).expect(200).json();
            body["started_at"].as_str().unwrap().to_owned()
        };
        let (first, last) = (shown(&mut client, &runs[0]), shown(&mut client, &runs[RUNS]));
        let (from, to): (jiff::Timestamp, jiff::Timestamp) = (first.parse().unwrap(), last.parse().unwrap());
        let passed = to.as_millisecond() - from.as_millisecond();
        assert!((0..MINUTE_MS).contains(&passed), "{offset}: {first}, then {last}");
        let nap = Duration::from_secs(NAP_SECONDS);
        while began.elapsed() < nap - Duration::from_millis(50) {
            let early = runs.iter().any(|run| completed(&mut client, run));
            assert!(!early || began.elapsed() >= nap, "{offset}: early, after {:?}", began.elapsed());
            std::thread::park_timeout(Duration::from_millis(100));
        }
        for run in &runs {
            ends(&mut client, run, LATE_MAX + nap);
            sound(&mut client, run);
        }
        println!("{offset}: {} timers ended {:?} after the last start", runs.len(), started.elapsed());
        let distinct: std::collections::BTreeSet<_> = runs.iter().collect();
        assert_eq!(distinct.len(), runs.len());
    }
}

// RELIABILITY D2, I-12
#[test]
fn a_wall_clock_that_went_back_over_a_restart_is_no_time_passed() {
    let Some(fake) = Fake::new("a wall clock that goes back") else { return };
    let node = fake.node();
    let mut client = node.client();
    register(&mut client, &format!("{NAP_SECONDS}s"));
    let runs = starts(&mut client, RUNS);
    node.kill();
    fake.jump("-1h");
    let node = fake.node();
    let mut client = node.client();
    for run in &runs {
        ends(&mut client, run, Duration::from_secs(NAP_SECONDS) + LATE_MAX);
        sound(&mut client, run);
    }
}

// RELIABILITY D3, I-12
#[test]
fn timers_that_are_overdue_at_the_start_fire_soon_and_in_due_order() {
    const OVERDUE: usize = 1_500;
    let directory = memory_directory();
    let options = Options::serve(directory.path()).set("cores.runner", "1");
    let node = Node::start(&options);
    let mut client = node.client();
    register(&mut client, "1s");
    let runs = starts(&mut client, OVERDUE);
    let last = Instant::now();
    node.kill();
    while last.elapsed() < Duration::from_millis(1_200) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let node = Node::start(&options);
    let (ready, mut client) = (Instant::now(), node.client());
    let mut before = String::new();
    for run in &runs {
        ends(&mut client, run, LATE_MAX);
    }
    println!("{OVERDUE} overdue timers, all seen to have fired {:?} after ready", ready.elapsed());
    for run in &runs {
        sound(&mut client, run);
        let page = client.get(&format!("/v1/runs/{run}/timeline?limit=100")).json();
        let fired = page["events"].as_array().unwrap().iter().find(|event| event["type"] == "timer.fired");
        let at = fired.unwrap()["at"].as_str().unwrap().to_owned();
        assert!(before <= at, "not in due order: {before}, then {at}");
        before = at;
    }
}

// RELIABILITY D4
#[test]
fn timers_of_no_length_and_of_a_thousand_years_fire_or_are_refused() {
    let directory = memory_directory();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let document = |with: Value| json!({"name": "nap", "nodes": {"nap": {"type": "delay", "with": with}}});
    for with in [json!({"for": "0s"}), json!({"for": "1ms"}), json!({"for": 0})] {
        let body = json!({"workflow": document(with.clone())});
        let reply = client.post("/v1/runs", &body);
        if reply.status != 202 {
            assert!(
                (400..500).contains(&reply.status) && with["for"].is_number(),
                "{with}: {}",
                reply.status
            );
            continue;
        }
        let run = reply.json()["run_id"].as_str().unwrap().to_owned();
        ends(&mut client, &run, LATE_MAX);
    }
    // More milliseconds than 32 bits hold.
    let body = json!({"workflow": document(json!({"for": "4294968s"}))});
    let run = client.post("/v1/runs", &body).expect(202).json()["run_id"].as_str().unwrap().to_owned();
    for length in ["1us", "365000d", "31536000000s", "18446744073709551615s", "99999999999999999999s", "-1s"]
    {
        let reply = client.post("/v1/runs", &json!({"workflow": document(json!({"for": length}))}));
        assert!((400..500).contains(&reply.status), "{length}: {}", reply.status);
        assert!(!reply.json()["detail"].as_str().unwrap().is_empty());
    }
    // From an expression, where no document can be refused.
    for length in ["365000d", "18446744073709551615s"] {
        let with = json!({"for": format!("${{ inputs.length == '' ? '1s' : inputs.length }}")});
        let body = json!({"workflow": document(with), "inputs": {"length": length}});
        let reply = client.post("/v1/runs", &body);
        if reply.status == 202 {
            let run = reply.json()["run_id"].as_str().unwrap().to_owned();
            let wait = [("prefer", "wait=10")];
            let body = client.request("GET", &format!("/v1/runs/{run}"), &wait, b"").unwrap().json();
            assert_eq!(body["status"], "failed", "{length}: {body}");
        }
    }
    assert!(!completed(&mut client, &run), "a timer of 49.7 days has fired");
}
