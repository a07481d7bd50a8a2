//! Workflows started by the clock: every due time is started once, whatever falls down and however the clock jumps.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aob::schedule::{Fire, Schedule};
use aob::store::TriggerStore as _;
use aob::store::index::Index;
use aob::store::triggers::{Change, Table};
use aob::time::{Clock as _, SystemClock, Timestamp};
use serde_json::{Value, json};

use crate::harness::{Client, Node, Options};

/// What a thing that takes a second or so may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

fn quick() -> Value {
    json!({"name": "quick", "nodes": {"a": {"type": "function", "with": {"expr": "inputs.n"}}},
        "outputs": {"n": "${ nodes.a.output }"}})
}

fn hold() -> Value {
    json!({"name": "hold", "nodes": {"w": {"type": "wait", "with": {"signal": "go"}}}})
}

fn register(client: &mut Client) {
    client.post("/v1/workflows", &quick()).expect(201);
    client.post("/v1/workflows", &hold()).expect(201);
}

fn show(client: &mut Client, name: &str) -> Value {
    client.get(&format!("/v1/schedules/{name}")).expect(200).json()
}

fn passed(since_us: u64) -> Duration {
    Duration::from_micros(SystemClock.monotonic_us() - since_us)
}

/// Looks at a schedule until it is as wanted; a request goes to the node in between, and nothing else.
fn until(client: &mut Client, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began_us = SystemClock.monotonic_us();
    loop {
        let shown = show(client, name);
        if wanted(&shown) {
            return shown;
        }
        assert!(passed(began_us) < PATIENCE, "{shown:#}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn outcomes<'a>(shown: &'a Value, outcome: &str) -> Vec<&'a Value> {
    let history = shown["history"].as_array().unwrap();
    history.iter().filter(|entry| entry["outcome"] == outcome).collect()
}

/// Every run of a workflow, as (id, run_key).
fn runs(client: &mut Client, workflow: &str) -> Vec<(String, String)> {
    let mut path = format!("/v1/runs?workflow={workflow}&limit=100");
    let mut found = Vec::new();
    loop {
        let page = client.get(&path).expect(200).json();
        for run in page["runs"].as_array().unwrap() {
            let text = |member: &str| run[member].as_str().unwrap_or_default().to_owned();
            found.push((text("run_id"), text("run_key")));
        }
        let Some(cursor) = page["next_cursor"].as_str() else { return found };
        path = format!("/v1/runs?workflow={workflow}&limit=100&cursor={cursor}");
    }
}

fn every_second(name: &str, workflow: &str, overlap: &str) -> Value {
    json!({"name": name, "workflow": workflow, "inputs": {"n": 7}, "cron": "* * * * * *", "overlap": overlap})
}

#[test]
fn a_schedule_starts_runs_that_say_what_started_them() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    let made = client.post("/v1/schedules", &every_second("tick", "quick@1", "allow")).expect(201).json();
    assert_eq!(made["next"].as_array().unwrap().len(), 5, "{made}");
    assert_eq!((&made["catch_up"], &made["timezone"]), (&json!("3600s"), &json!("UTC")));
    client.post("/v1/schedules", &every_second("tick", "quick@1", "allow")).expect(200);
    let other = client.post("/v1/schedules", &every_second("tick", "quick@1", "skip")).expect(409).json();
    assert_eq!(other["code"], "schedule_exists");

    let shown = until(&mut client, "tick", |shown| outcomes(shown, "started").len() >= 3);
    let paused = client.post("/v1/schedules/tick/pause", &json!({})).expect(200).json();
    assert_eq!((&paused["paused"], &paused["next"]), (&json!(true), &json!([])));
    for entry in outcomes(&shown, "started") {
        let run = client.get(&format!("/v1/runs/{}", entry["run_id"].as_str().unwrap())).expect(200).json();
        let key =
            format!("schedule/tick/{}/{}", shown["id"].as_str().unwrap(), entry["due"].as_str().unwrap());
        assert_eq!(run["run_key"], key.as_str(), "{run}");
        assert_eq!(run["inputs"], json!({"n": 7}));
        let found = client.get(&format!("/v1/runs?run_key={}", key.replace(':', "%3A"))).expect(200).json();
        assert_eq!(found["runs"].as_array().unwrap().len(), 1);
    }
    // Triggered although it is paused; the node says which run that was.
    let line = client.post("/v1/schedules/tick/trigger", &json!({})).expect(202);
    assert!(line.header("location").unwrap().contains(line.json()["run_id"].as_str().unwrap()));
    assert!(line.json()["run_key"].as_str().unwrap().contains("/manual/"), "{}", line.json());
    let shown = show(&mut client, "tick");
    assert_eq!(shown["history"][0]["manual"], true, "{shown:#}");
    assert_eq!(shown["history"][0]["run_id"], line.json()["run_id"]);

    let listed = client.get("/v1/schedules?limit=1").expect(200).json();
    assert_eq!((&listed["schedules"][0]["name"], &listed["next_cursor"]), (&json!("tick"), &Value::Null));
    assert_eq!(client.request("DELETE", "/v1/schedules/tick", &[], b"").unwrap().status, 204);
    assert_eq!(client.request("DELETE", "/v1/schedules/tick", &[], b"").unwrap().status, 404);
    for (verb, path) in [("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/trigger")] {
        let path = format!("/v1/schedules/tick{path}");
        let refused = client.request(verb, &path, &[], b"").unwrap().expect(404).json();
        assert_eq!(refused["code"], "schedule_not_found", "{path}");
    }
}

#[test]
fn what_cannot_be_a_schedule_is_refused_with_the_member_that_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    for (member, value, status, code) in [
        ("cron", json!("61 * * * *"), 422, "invalid_schedule"),
        ("cron", json!("0 0 30 2 *"), 422, "invalid_schedule"),
        ("cron", json!(7), 400, "invalid_body"),
        ("timezone", json!("Mars/Olympus"), 422, "invalid_schedule"),
        ("overlap", json!("never"), 422, "invalid_schedule"),
        ("catch_up", json!("1s"), 422, "invalid_schedule"),
        ("jitter", json!("2h"), 422, "invalid_schedule"),
        ("workflow", json!("none"), 404, "workflow_not_found"),
        ("workflow", json!("quick@9"), 404, "workflow_not_found"),
        ("name", json!("a/b"), 422, "invalid_name"),
        ("inputs", json!({"n": "x".repeat(70_000)}), 422, "limit_exceeded"),
        ("cronn", json!("* * * * *"), 400, "unknown_member"),
    ] {
        let mut body = every_second("s", "quick", "skip");
        body[member] = value.clone();
        let refused = client.post("/v1/schedules", &body).expect(status).json();
        assert_eq!(refused["code"], code, "{member} {value}: {refused}");
    }
    assert_eq!(client.get("/v1/schedules").json()["schedules"], json!([]));
    // A start that is refused for good is noted, and the next is tried.
    let mut body = every_second("s", "quick", "allow");
    body["inputs"] = json!({});
    client.post("/v1/schedules", &body).expect(201);
    until(&mut client, "s", |shown| outcomes(shown, "started").len() >= 2);
}

fn patch(client: &mut Client, media_type: &str, body: &Value) -> crate::harness::http::Response {
    let headers = [("content-type", media_type)];
    client.request("PATCH", "/v1/schedules/s", &headers, body.to_string().as_bytes()).unwrap()
}

#[test]
fn a_schedule_is_changed_where_it_stands_and_checked_as_when_it_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    let mut body = every_second("s", "quick@1", "allow");
    body["inputs"] = json!({"n": 7, "more": {"a": 1, "b": 2}});
    let made = client.post("/v1/schedules", &body).expect(201).json();
    until(&mut client, "s", |shown| outcomes(shown, "started").len() >= 2);
    let merge = "application/merge-patch+json";
    for (body, status, code) in [
        (json!({"cron": "61 * * * *"}), 422, "invalid_schedule"),
        (json!({"cron": null}), 400, "invalid_body"),
        (json!({"timezone": "Mars/Olympus"}), 422, "invalid_schedule"),
        (json!({"workflow": "none"}), 404, "workflow_not_found"),
        (json!({"name": "t"}), 422, "invalid_schedule"),
        (json!({"cronn": "* * * * *"}), 400, "unknown_member"),
        (json!(["cron"]), 400, "invalid_body"),
        (json!({"inputs": {"n": "x".repeat(70_000)}}), 422, "limit_exceeded"),
    ] {
        let refused = patch(&mut client, merge, &body).expect(status).json();
        assert_eq!(refused["code"], code, "{body}: {refused}");
    }
    assert_eq!(
        patch(&mut client, "text/plain", &json!({})).expect(415).json()["code"],
        "unsupported_media_type"
    );
    let change = json!({"cron": "0 0 1 1 *", "jitter": "30s", "workflow": "quick",
        "inputs": {"n": 8, "more": {"a": null}}});
    let changed = patch(&mut client, merge, &change).expect(200).json();
    for (member, value) in [
        ("cron", json!("0 0 1 1 *")),
        ("workflow", json!("quick")),
        ("jitter", json!("30s")),
        ("inputs", json!({"n": 8, "more": {"b": 2}})),
        ("overlap", json!("allow")),
        ("id", made["id"].clone()),
    ] {
        assert_eq!(changed[member], value, "{member}: {changed:#}");
    }
    assert!(outcomes(&changed, "started").len() >= 2, "its history stays");
    // Nothing is due for months; what was decided before may still be started.
    until(&mut client, "s", |shown| shown["considered"].as_str() >= changed["considered"].as_str());
    let back = patch(&mut client, "application/json", &json!({"cron": "* * * * * *", "jitter": null}));
    let back = back.expect(200).json();
    assert_eq!((&back["jitter"], &back["inputs"]), (&json!("0s"), &changed["inputs"]));
    let started = outcomes(&back, "started").len();
    let shown = until(&mut client, "s", |shown| outcomes(shown, "started").len() > started + 1);
    assert!(outcomes(&shown, "missed").is_empty(), "{shown:#}");
    let last = outcomes(&shown, "started")[0]["run_id"].as_str().unwrap().to_owned();
    let run = client.get(&format!("/v1/runs/{last}")).expect(200).json();
    assert_eq!(run["inputs"], changed["inputs"]);
    assert_eq!(patch(&mut client, merge, &json!({"paused": true})).expect(200).json()["paused"], true);
    client.request("DELETE", "/v1/schedules/s", &[], b"").unwrap().expect(204);
    assert_eq!(patch(&mut client, merge, &json!({})).expect(404).json()["code"], "schedule_not_found");
}

#[test]
fn overlap_is_as_the_schedule_says() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    register(&mut client);
    for overlap in ["skip", "cancel_other", "buffer_one"] {
        let name = overlap.replace('_', "-");
        client.post("/v1/schedules", &every_second(&name, "hold", overlap)).expect(201);
    }
    let skipped = until(&mut client, "skip", |shown| {
        outcomes(shown, "skipped").iter().any(|entry| entry["count"].as_u64() >= Some(2))
    });
    assert_eq!(outcomes(&skipped, "started").len(), 1, "{skipped:#}");
    assert_eq!(skipped["running"].as_array().unwrap().len(), 1);

    let cancelled = until(&mut client, "cancel-other", |shown| outcomes(shown, "started").len() >= 3);
    for entry in outcomes(&cancelled, "started").iter().skip(1) {
        let path = format!("/v1/runs/{}", entry["run_id"].as_str().unwrap());
        let ended = client.request("GET", &path, &[("prefer", "wait=30")], b"").unwrap().expect(200).json();
        assert_eq!(ended["status"], "cancelled", "{ended}");
    }

    let buffered = until(&mut client, "buffer-one", |shown| shown["buffered"].is_string());
    let (due, first) = (&buffered["buffered"], &outcomes(&buffered, "started")[0]["run_id"]);
    client.post(&format!("/v1/runs/{}/signals/go", first.as_str().unwrap()), &json!({})).expect(200);
    let after = until(&mut client, "buffer-one", |shown| outcomes(shown, "started").len() >= 2);
    assert!(outcomes(&after, "started").iter().any(|entry| entry["due"] == *due), "{after:#}");
}

// RELIABILITY 2.8, I-12: killed at every moment between a due time and its run, over and over.
#[test]
fn killed_at_any_moment_every_due_time_is_started_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let mut made = None;
    for round in 0..10_u64 {
        let node = Node::start(&options);
        let mut client = node.client();
        if made.is_none() {
            register(&mut client);
            made = Some(
                client.post("/v1/schedules", &every_second("tick", "quick", "allow")).expect(201).json(),
            );
        }
        // Until one more was started; then it dies around the next second, a bit later each time.
        let started = |shown: &Value| shown["history"][0]["due"].as_str().unwrap_or_default().to_owned();
        let before = started(&show(&mut client, "tick"));
        until(&mut client, "tick", |shown| started(shown) > before);
        let into = Duration::from_micros(SystemClock.now().as_micros() % 1_000_000);
        std::thread::park_timeout(
            Duration::from_secs(1).saturating_sub(into) + Duration::from_millis(round * 2),
        );
        node.kill();
    }
    let node = Node::start(&options);
    let mut client = node.client();
    until(&mut client, "tick", |shown| outcomes(shown, "started").len() > 1);
    let shown = client.post("/v1/schedules/tick/pause", &json!({})).expect(200).json();
    let shown = until(&mut client, "tick", |now| now["considered"] == shown["considered"]);
    // Keys name due times: each second from the first to the last has one, and only one.
    let all = runs(&mut client, "quick");
    let due: BTreeSet<&str> = all.iter().map(|(_, key)| key.rsplit('/').next().unwrap()).collect();
    assert_eq!(due.len(), all.len(), "a due time was started twice: {all:?}");
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let (first, last) = (at(due.first().unwrap()), at(due.last().unwrap()));
    assert_eq!(due.len() as i64, last - first + 1, "a due time was lost: {due:?}\n{shown:#}");
    assert!(first - at(made.unwrap()["created_at"].as_str().unwrap()) <= 1);
    println!("{} starts over 10 kills, each once", all.len());
}

/// Changes what is written down of a schedule while no node runs.
fn rewrite(data_dir: &Path, name: &str, change: impl Fn(&mut Schedule)) {
    let index = Index::open(&data_dir.join("index")).unwrap();
    let key = format!("default\0{name}");
    let mut found = false;
    let mut change = |row: Option<&[u8]>| {
        let (format, row) = row.unwrap().split_first().unwrap();
        let mut schedule: Schedule = postcard::from_bytes(row).unwrap();
        change(&mut schedule);
        found = true;
        let row = [&[*format][..], &postcard::to_stdvec(&schedule).unwrap()].concat();
        Change::Put { row, look_at: Some(Timestamp::from_micros(0)) }
    };
    index.update(Table::Schedules, key.as_bytes(), &mut change).unwrap();
    assert!(found);
}

// RELIABILITY 2.8: what lies on the disk when the node falls down right after a decision, and right after a start.
#[test]
fn a_decision_that_is_found_after_a_crash_is_carried_out_once() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    let node = Node::start(&options);
    let mut client = node.client();
    register(&mut client);
    let yearly = json!({"name": "yearly", "workflow": "hold", "cron": "0 0 1 1 *", "overlap": "skip", "catch_up": "10s"});
    client.post("/v1/schedules", &yearly).expect(201);
    let first = client.post("/v1/schedules/yearly/trigger", &json!({})).expect(202).json();
    node.kill();
    // The start was made and not noted; another one was only decided, long ago, and would be too late and overlap by now.
    let long_ago = Fire { due: Timestamp::from_micros(1_700_000_000_000_000), manual: false };
    rewrite(directory.path(), "yearly", |schedule| {
        let started = schedule.history.pop_back().unwrap();
        schedule.runs.clear();
        schedule.decided = vec![Fire { due: started.due, manual: true }, long_ago];
    });
    for _ in 0..2 {
        let node = Node::start(&options);
        let mut client = node.client();
        let shown = until(&mut client, "yearly", |shown| outcomes(shown, "started").len() == 2);
        assert_eq!(shown["history"][1]["run_id"], first["run_id"], "{shown:#}");
        assert_eq!(shown["history"][0]["due"], "2023-11-14T22:13:20.000Z");
        assert_eq!(runs(&mut client, "hold").len(), 2);
        node.kill();
        // Again, as if the notes had been lost.
        rewrite(directory.path(), "yearly", |schedule| {
            let noted: Vec<_> = schedule.history.drain(..).collect();
            schedule.decided = vec![Fire { due: noted[0].due, manual: true }, long_ago];
        });
    }
}

/// A node whose wall clock is off by what a file says.
struct Fake(tempfile::TempDir);

impl Fake {
    fn file(&self) -> PathBuf {
        self.0.path().join("now")
    }

    fn jump(&self, offset: &str) {
        let new = self.0.path().join("then");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn node(&self) -> Node {
        let file = self.file();
        let options = Options::serve(&self.0.path().join("data"))
            .env("LD_PRELOAD", LIBRARY)
            .env("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_RESET", "1");
        Node::start(&options)
    }
}

// RELIABILITY D1, D2
#[test]
fn a_clock_that_jumps_forward_is_caught_up_with_and_one_that_jumps_back_starts_nothing_again() {
    if !Path::new(LIBRARY).exists() {
        println!("skipped: libfaketime is not installed (Debian: apt-get install faketime)");
        return;
    }
    let fake = Fake(tempfile::tempdir().unwrap());
    fake.jump("+0");
    let node = fake.node();
    let mut client = node.client();
    register(&mut client);
    let mut body = json!({"name": "hourly", "workflow": "quick", "inputs": {"n": 1}, "cron": "0 * * * *",
        "timezone": "Europe/Berlin", "overlap": "allow", "catch_up": "150m"});
    client.post("/v1/schedules", &body).expect(201);
    body["name"] = "paused".into();
    body["paused"] = true.into();
    client.post("/v1/schedules", &body).expect(201);
    // Ten hours on: the last two or three are made up for, the others are noted.
    fake.jump("+10h");
    let accounted = |shown: &Value| {
        let missed: u64 = outcomes(shown, "missed").iter().filter_map(|row| row["count"].as_u64()).sum();
        missed + outcomes(shown, "started").len() as u64
    };
    let shown = until(&mut client, "hourly", |shown| accounted(shown) >= 10);
    let missed = outcomes(&shown, "missed");
    assert_eq!(missed.len(), 1, "{shown:#}");
    let started = outcomes(&shown, "started").len() as u64;
    assert!((2..=3).contains(&started) && missed[0]["count"].as_u64() == Some(10 - started), "{shown:#}");
    // Nine hours back, in the same life and after a restart: nothing is started again.
    fake.jump("+1h");
    let again = show(&mut client, "hourly");
    assert_eq!(again["considered"], shown["considered"]);
    node.kill();
    let node = fake.node();
    let mut client = node.client();
    // The same hours come once more, and one more.
    fake.jump("+10h");
    fake.jump("+11h");
    let later = until(&mut client, "hourly", |now| outcomes(now, "started").len() as u64 > started);
    assert_eq!(outcomes(&later, "started").len() as u64, started + 1, "{later:#}");
    let keys: BTreeSet<String> = runs(&mut client, "quick").into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys.len() as u64, started + 1);
    assert_eq!(runs(&mut client, "quick").len(), keys.len());
    assert_eq!(show(&mut client, "paused")["history"], json!([]));
    // Whoever resumes does not get what was due meanwhile.
    let resumed = client.post("/v1/schedules/paused/resume", &json!({})).expect(200).json();
    assert_eq!((&resumed["paused"], &resumed["history"]), (&json!(false), &json!([])));
}

// F171: what is in another workspace is not there.
#[test]
fn a_schedule_is_seen_and_started_in_its_own_workspace() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let acme = [("aob-workspace", "acme")];
    client.post_with("/v1/workflows", &acme, &quick()).unwrap().expect(201);
    client.post("/v1/schedules", &every_second("tick", "quick", "allow")).expect(404);
    client.post_with("/v1/schedules", &acme, &every_second("tick", "quick", "allow")).unwrap().expect(201);
    assert_eq!(client.get("/v1/schedules").expect(200).json()["schedules"], json!([]));
    for (verb, path) in
        [("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/trigger")]
    {
        client.request(verb, &format!("/v1/schedules/tick{path}"), &[], b"").unwrap().expect(404);
    }
    let began_us = SystemClock.monotonic_us();
    loop {
        let own = client.request("GET", "/v1/schedules/tick", &acme, b"").unwrap().expect(200).json();
        if let Some(entry) = outcomes(&own, "started").first() {
            let path = format!("/v1/runs/{}", entry["run_id"].as_str().unwrap());
            client.request("GET", &path, &acme, b"").unwrap().expect(200);
            client.get(&path).expect(404);
            break;
        }
        assert!(passed(began_us) < PATIENCE, "{own:#}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
