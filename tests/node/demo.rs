//! The demos: the report equals aggregates computed here by other means, agents are patched and approved on the way; also when they
//! were killed in the middle.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::http::{Client, Sse};
use crate::harness::{Node, Options, root};

fn demo(directory: &std::path::Path) -> Options {
    let mut options = Options::serve(directory);
    options.command = "demo";
    options.arguments.push(String::from("--keep"));
    options
}

fn records() -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("examples/data/earthquakes.ndjson")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Why a record is set aside.
fn reasons(record: &Value) -> Vec<&'static str> {
    let (mag, depth) = (record["mag"].as_f64(), record["depth_km"].as_f64());
    let automatic = record["status"] == "automatic";
    let natural = record["type"] == "earthquake";
    let position = |key: &str, most: f64| record[key].as_f64().is_some_and(|degrees| degrees.abs() <= most);
    let found = [
        (mag.is_none(), "magnitude_missing"),
        (mag.is_some_and(|mag| !(-3.0..=10.0).contains(&mag)), "magnitude_impossible"),
        (record["place"].as_str().is_none_or(str::is_empty), "place_missing"),
        (!position("lat", 90.0) || !position("lon", 180.0), "position_impossible"),
        (depth.is_none(), "depth_missing"),
        (depth.is_some_and(|depth| depth < 0.0) && automatic, "above_sea_level_unreviewed"),
        (depth == Some(0.0) && automatic && natural, "depth_unresolved"),
        (depth.is_some_and(|depth| depth > 5.0) && !natural, "blast_too_deep"),
    ];
    found.into_iter().filter(|(holds, _)| *holds).map(|(_, reason)| reason).collect()
}

fn hundredths(record: &Value) -> i64 {
    // Through the decimal text, not through the float: another way to the same whole number.
    let text = format!("{:.2}", record["mag"].as_f64().unwrap());
    text.replace('.', "").parse().unwrap()
}

fn region(record: &Value) -> String {
    let place = record["place"].as_str().unwrap();
    match place.rsplit(", ").next().unwrap() {
        "CA" => String::from("California"),
        "NV" => String::from("Nevada"),
        "MX" => String::from("Mexico"),
        other => other.to_owned(),
    }
}

fn class(record: &Value) -> String {
    if record["type"] != "earthquake" {
        return record["type"].as_str().unwrap().to_owned();
    }
    let bounds =
        [(200, "micro"), (400, "minor"), (500, "light"), (600, "moderate"), (700, "strong"), (800, "major")];
    let magnitude = hundredths(record);
    bounds.iter().find(|(below, _)| magnitude < *below).map_or("great", |(_, name)| name).to_owned()
}

/// One row of an aggregate, in the order of the report: most first, then by name.
fn rows(kept: &[&Value], name: &str, key: fn(&Value) -> String) -> Vec<Value> {
    let mut groups: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for record in kept {
        groups.entry(key(record)).or_default().push(record);
    }
    let mut rows: Vec<_> = groups
        .into_iter()
        .map(|(group, members)| {
            let magnitudes: Vec<_> = members.iter().map(|record| hundredths(record)).collect();
            let mean = magnitudes.iter().sum::<i64>() as f64 / magnitudes.len() as f64;
            let deepest = members.iter().map(|r| r["depth_km"].as_f64().unwrap()).fold(f64::MIN, f64::max);
            json!({
                name: group,
                "count": members.len(),
                "max_magnitude": *magnitudes.iter().max().unwrap() as f64 / 100.0,
                "mean_magnitude": mean.round() / 100.0,
                "deepest_km": deepest,
                "tsunami_flags": members.iter().filter(|record| record["tsunami"] == 1).count(),
            })
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row["count"].as_u64()));
    rows
}

/// The whole report.
fn expected() -> Value {
    let records = records();
    assert_eq!(records.len(), 1_707);
    let set_aside: Vec<_> = records.iter().filter(|record| !reasons(record).is_empty()).collect();
    let kept: Vec<_> = records.iter().filter(|record| reasons(record).is_empty()).collect();
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for reason in set_aside.iter().flat_map(|record| reasons(record)) {
        *by_reason.entry(reason).or_default() += 1;
    }
    let regions = rows(&kept, "region", region);
    let flagged: Vec<_> = kept.iter().filter(|record| record["tsunami"] == 1).collect();
    let strongest =
        kept.iter().min_by_key(|record| (-hundredths(record), record["time_ms"].as_i64().unwrap())).unwrap();
    let natural = kept.iter().filter(|record| record["type"] == "earthquake").count();
    let magnitude = |record: &Value| hundredths(record) as f64 / 100.0;
    json!({
        "totals": {
            "records": records.len(), "kept": kept.len(), "set_aside": set_aside.len(), "earthquakes": natural,
            "blasts": kept.len() - natural, "regions": regions.len(), "tsunami_flags": flagged.len(),
        },
        "set_aside": {
            "records": set_aside.len(),
            "by_reason": by_reason.iter().map(|(reason, count)| json!({"reason": reason, "count": count})).collect::<Vec<_>>(),
            "ids": set_aside.iter().map(|record| record["id"].clone()).collect::<Vec<_>>(),
        },
        "by_class": rows(&kept, "class", class),
        "by_region": regions.iter().take(10).collect::<Vec<_>>(),
        "strongest": {
            "id": strongest["id"], "time_ms": strongest["time_ms"], "place": strongest["place"],
            "region": region(strongest), "class": class(strongest), "magnitude": magnitude(strongest),
            "depth_km": strongest["depth_km"].as_f64().unwrap(),
        },
        "tsunami": flagged.iter().map(|record| json!({
            "id": record["id"], "time_ms": record["time_ms"], "place": record["place"], "magnitude": magnitude(record),
        })).collect::<Vec<_>>(),
    })
}

/// The same, whether a number was written `10` or `10.0`.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        other => other.clone(),
    }
}

/// What the demo's sink kept, by key; and the keys of all calls that reached it.
fn sink(directory: &std::path::Path) -> (Vec<(String, Value)>, Vec<String>) {
    let directory = directory.join("demo-sink");
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let kept = files.filter(|path| path.extension().is_some_and(|end| end == "json")).map(|path| {
        let key = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (key, serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap())
    });
    let calls = std::fs::read_to_string(directory.join("calls")).unwrap_or_default();
    (kept.collect(), calls.lines().map(str::to_owned).collect())
}

/// Waits for the demo's run on a node that is up.
fn report(node: &Node) -> (String, Value) {
    let mut client = node.client();
    let runs = loop {
        // The demo starts its run a moment after the node is ready.
        let runs = client.get("/v1/runs?workflow=seismic-triage").expect(200).json();
        if !runs["runs"][0].is_null() {
            break runs;
        }
    };
    let ids: BTreeSet<_> =
        runs["runs"].as_array().unwrap().iter().map(|run| run["run_id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "one run, however often the demo is started: {runs}");
    let run_id = runs["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/runs/{run_id}");
    let run = client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json();
    assert_eq!(run["status"], "completed", "{run}");
    (run_id, run["outputs"]["report"].clone())
}

fn until(node: &Node, text: &str) -> String {
    loop {
        let line = node.line().unwrap_or_else(|| panic!("the demo ended without saying `{text}`"));
        if line.contains(text) {
            return line;
        }
    }
}

// F023, F024, F263, F265
#[test]
fn the_report_equals_the_aggregates_computed_by_other_means() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&demo(directory.path()));
    until(&node, "Report");
    let said = until(&node, "stored:");
    let (_, report) = report(&node);
    assert_eq!(plain(&report), plain(&expected()));
    let (kept, calls) = sink(directory.path());
    assert_eq!((kept.len(), calls.len()), (1, 1), "the report left the node once: {calls:?}");
    assert_eq!(plain(&kept[0].1), plain(&expected()));
    assert!(said.contains("by one call") && said.ends_with(&kept[0].0), "{said}");
}

/// Kills the demo when its run has done this, starts it again, and gives back in which state the run was, and
/// how often the sink was called.
fn killed_at(wanted: impl Fn(&Sse) -> bool) -> (Value, usize) {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&demo(directory.path()));
    let run_id = {
        let mut client = node.client();
        // The run is there a moment after the node is ready.
        loop {
            let runs = client.get("/v1/runs?workflow=seismic-triage").expect(200).json();
            if let Some(run_id) = runs["runs"][0]["run_id"].as_str() {
                break run_id.to_owned();
            }
        }
    };
    let path = format!("/v1/runs/{run_id}/events");
    let events = node.client().events(&path, &[], |event| !wanted(event));
    assert!(events.last().is_some_and(&wanted), "it never came to that");
    let status = node.client().get(&format!("/v1/runs/{run_id}")).expect(200).json()["status"].clone();
    node.kill();
    let node = Node::start(&demo(directory.path()));
    let (resumed, report) = report(&node);
    assert_eq!(resumed, run_id);
    assert_eq!(plain(&report), plain(&expected()));
    let (kept, calls) = sink(directory.path());
    assert_eq!(kept.len(), 1, "one effect for the one key: {calls:?}");
    assert_eq!(plain(&kept[0].1), plain(&expected()));
    assert!(!calls.is_empty() && calls.iter().all(|key| *key == kept[0].0), "{calls:?}");
    (status, calls.len())
}

// F004, F010, F086, F114
#[test]
fn killed_in_the_middle_and_started_again_it_ends_with_the_same_report() {
    let killed = killed_at(|event| event.event == "node.completed");
    assert_eq!(killed, (json!("running"), 1), "killed in the middle, stored at the end");
}

// F026
#[test]
fn killed_while_it_stores_it_stores_once() {
    // The call may have arrived already, or not yet.
    let (_, calls) = killed_at(|event| event.event == "node.waiting" && event.data["node"] == "store");
    assert!(calls <= 2, "{calls} calls");
}

fn agents(directory: &std::path::Path) -> Options {
    let mut options = Options::serve(directory);
    options.command = "demo";
    options.arguments.push(String::from("--agents"));
    options
}

/// The events of the one run of the research that this node knows.
fn research(client: &mut Client) -> (String, Vec<Value>) {
    let runs = client.get("/v1/runs?workflow=research_and_report").expect(200).json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs}");
    let run_id = runs["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let page = client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).json();
    (run_id, page["events"].as_array().unwrap().clone())
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["type"] == kind).count()
}

#[test]
fn agents_are_patched_and_approved_on_the_way_and_the_demo_says_what_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&agents(directory.path()));
    let mut said = Vec::new();
    while let Some(line) = node.line() {
        said.push(line);
    }
    let (status, wrong) = node.finish();
    let said = said.join("\n");
    assert!(status.success(), "{said}\n{wrong}");
    let places: Vec<usize> = [
        "it may cost $",
        "patched while it runs",
        "+ node check (human_review)",
        "answered in",
        "has to approve",
        "approves by itself",
        "approved by demo",
        "Report",
        "one patch, one decision; $0.00",
    ]
    .iter()
    .map(|part| said.find(part).unwrap_or_else(|| panic!("no {part:?} in\n{said}")))
    .collect();
    assert!(places.is_sorted(), "{places:?}\n{said}");

    // Another process finds it all in what the demo left behind, and needs no model for that.
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let (run_id, events) = research(&mut client);
    let run = client.get(&format!("/v1/runs/{run_id}")).expect(200).json();
    let report = run["outputs"]["report_generation"]["final_report"].as_str().unwrap();
    assert!(said.contains(report.lines().next().unwrap()), "{run}");
    assert_eq!((count(&events, "model.answered"), count(&events, "patch.created")), (3, 1));
    let at = |kind: &str, node: &str| {
        events.iter().position(|event| event["type"] == kind && (node.is_empty() || event["node"] == node))
    };
    assert!(at("patch.created", "") < at("node.completed", "research"), "the research was under way");
    assert!(at("approval.decided", "check") < at("node.started", "report_generation"));
    // What it says it cost is what the log says.
    let dollars = events.iter().filter_map(|event| event["cost_usd"].as_str()).map(|cost| {
        let whole: f64 = cost.parse().unwrap();
        (whole * 1e9).round() as u64
    });
    let dollars = dollars.sum::<u64>() as f64 / 1e9;
    assert!(said.contains(&format!("${dollars} in all")), "{dollars}\n{said}");
    let document = std::fs::read_to_string(root().join("examples/seeds/research_and_report.yaml")).unwrap();
    let source = client.get("/v1/workflows/research_and_report").expect(200).json();
    assert!(document.contains("agent_role: researcher") && source["version"] == "1.0", "{source}");
}

#[test]
fn agents_killed_in_the_middle_go_on_with_one_patch_and_one_decision() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&agents(directory.path()));
    until(&node, "patched while it runs");
    node.kill();
    let node = Node::start(&agents(directory.path()));
    until(&node, "in all");
    let (status, wrong) = node.finish();
    assert!(status.success(), "{wrong}");
    let node = Node::start(&Options::serve(directory.path()));
    let (_, events) = research(&mut node.client());
    for (kind, times) in [("patch.created", 1), ("approval.decided", 1), ("model.answered", 3)] {
        assert_eq!(count(&events, kind), times, "{kind}: {events:?}");
    }
}
