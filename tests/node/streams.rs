//! Streams of several runs and of workspaces: what each shows, what filters leave of it, and how one goes on after a cut.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use aob::time::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::harness::http::Sse;
use crate::harness::{Client, Node, Options, chain, in_background};

/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(directory: &std::path::Path) -> Options {
    Options::serve(directory).driver()
}

/// Waits for a signal between two functions.
fn waiting(name: &str) -> Value {
    json!({"name": name, "nodes": {
        "first": {"type": "function", "with": {"expr": "1"}},
        "hold": {"type": "wait", "with": {"signal": "go"}},
        "last": {"type": "function", "with": {"expr": "2"}}},
        "edges": [{"from": "first", "to": "hold"}, {"from": "hold", "to": "last"}]})
}

fn start(client: &mut Client, workflow: &str, inputs: &Value) -> String {
    let body = json!({"workflow": workflow, "inputs": inputs});
    let run = client.post("/v1/runs", &body).expect(202).json();
    run["run_id"].as_str().unwrap().to_owned()
}

fn signal(client: &mut Client, run: &str) {
    let answer = client.post(&format!("/v1/runs/{run}/signals/go"), &json!({"payload": {}}));
    assert!(answer.status == 200 || answer.status == 202, "{}", answer.status);
}

fn run_of(event: &Sse) -> String {
    event.id.as_ref().unwrap().rsplit_once(':').unwrap().0.to_owned()
}

/// What came of each run, in the order in which it came.
fn by_run<'a>(events: impl IntoIterator<Item = &'a Sse>) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in events.into_iter().filter(|event| event.id.is_some()) {
        found.entry(run_of(event)).or_default().push(event.data.clone());
    }
    found
}

fn timeline(client: &mut Client, run: &str) -> Vec<Value> {
    let page = client.get(&format!("/v1/runs/{run}/timeline?limit=500")).expect(200).json();
    page["events"].as_array().unwrap().clone()
}

// F032, F185
#[test]
fn a_filter_leaves_what_is_asked_for_and_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &waiting("held")).expect(201);
    let run = start(&mut client, "held", &json!({}));
    let streamed = |query: &str| {
        let path = format!("/v1/runs/{run}/events?{query}");
        let (watcher, (told, begun)) = (node.client(), mpsc::channel());
        let following = in_background(move || {
            watcher.events(&path, &[], |_| {
                let _ = told.send(());
                true
            })
        });
        (following, begun)
    };
    let (of_node, begun) = streamed("node=last,first");
    begun.recv().unwrap();
    let (of_kind, _) = streamed("kind=node.completed&kind=run.*");
    let (loud, _) = streamed("level=error");
    signal(&mut client, &run);
    let all = timeline(&mut client, &run);
    let is_end = |row: &Value| row["type"] == "run.completed";
    let kept = |wanted: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        all.iter().filter(|row| is_end(row) || wanted(row)).cloned().collect()
    };
    let got = |following: std::thread::JoinHandle<Vec<Sse>>| -> Vec<Value> {
        following.join().unwrap().into_iter().map(|event| event.data).collect()
    };
    assert_eq!(got(of_node), kept(&|row| row["node"] == "last" || row["node"] == "first"));
    assert_eq!(
        got(of_kind),
        kept(&|row| row["type"] == "node.completed" || row["type"].as_str().unwrap().starts_with("run."))
    );
    assert_eq!(got(loud), kept(&|_| false), "nothing went wrong");
    for (query, code) in [
        ("kind=node.complete", "invalid_parameter"),
        ("level=loud", "invalid_parameter"),
        ("node=", "invalid_parameter"),
        ("from=here", "invalid_parameter"),
        ("nodes=a", "unknown_parameter"),
        (&*format!("node={}", ["n"; 65].join(",")), "invalid_parameter"),
    ] {
        let refused = client.get(&format!("/v1/runs/{run}/events?{query}")).expect(400).json();
        assert_eq!(refused["code"], code, "{query}: {refused}");
    }
}

// F036, N12
#[test]
fn a_set_of_runs_comes_in_one_stream_and_goes_on_after_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("quick", 3)).expect(201);
    client.post("/v1/workflows", &waiting("held")).expect(201);
    let mut runs: Vec<String> = (0..6).map(|n| start(&mut client, "quick", &json!({"n": n}))).collect();
    runs.extend((0..6).map(|_| start(&mut client, "held", &json!({}))));
    let path = format!("/v1/events?run={}", runs.join(","));
    // All there is while the held ones wait.
    let held = &runs[6..];
    let mut waiting_for: Vec<String> = held.to_vec();
    let mut quick = 6;
    let first = node.client().events(&path, &[], |event| {
        if event.event == "node.waiting" {
            waiting_for.retain(|run| *run != run_of(event));
        }
        quick -= usize::from(event.event == "run.completed");
        !(waiting_for.is_empty() && quick == 0)
    });
    node.kill();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let seen = by_run(&first);
    let cursors: Vec<String> =
        runs.iter().map(|run| format!("{run}:{}", seen[run].last().unwrap()["seq"])).collect();
    let path =
        format!("/v1/events?{}", cursors.iter().map(|at| format!("run={at}")).collect::<Vec<_>>().join("&"));
    let (watcher, (told, begun)) = (node.client(), mpsc::channel());
    let following = in_background(move || {
        watcher.events(&path, &[], |event| {
            let _ = told.send(event.event.clone());
            true
        })
    });
    let mut held = held.iter();
    signal(&mut client, held.next().unwrap());
    begun.recv().unwrap();
    for run in held {
        signal(&mut client, run);
    }
    let second = following.join().unwrap();
    let all = by_run(first.iter().chain(&second));
    for run in &runs {
        assert_eq!(all[run], timeline(&mut client, run), "{run}: each once, in order, to its end");
    }
    assert!(second.iter().all(|event| event.id.is_some()), "it ends with the last of its runs");
    let refused = client.get(&format!("/v1/events?run={0},{0}", runs[0])).expect(400).json();
    assert_eq!(refused["code"], "invalid_parameter", "{refused}");
    let unknown = "run_018bcfe568007fffbfffffffffffffff";
    client.get(&format!("/v1/events?run={},{unknown}", runs[0])).expect(404);
    let id = format!("{}:1", runs[0]);
    let pair = format!("/v1/events?run={},{}", runs[0], runs[1]);
    let status = node.client().follow(&pair, &[("last-event-id", &id)], |_| true).unwrap();
    assert_eq!(status, 400, "one place is not that of two runs");
}

/// Follows a feed in the background: what it says, and the end of it. It is live when this returns.
fn feed(
    node: &Node,
    path: &str,
    headers: Vec<(String, String)>,
) -> (mpsc::Receiver<Sse>, std::thread::JoinHandle<()>) {
    let (watcher, path, (told, said)) = (node.client(), path.to_owned(), mpsc::channel());
    let following = in_background(move || {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // Whoever listens has left: so does the stream.
        let _ = watcher.follow(&path, &headers, |event| told.send(event.clone()).is_ok());
    });
    let first = said.recv_timeout(PATIENCE).unwrap();
    assert!(first.event == "live" || first.event == "resync", "{first:?}");
    (said, following)
}

/// Events until so many runs have ended.
fn until_ended(said: &mpsc::Receiver<Sse>, mut runs: usize) -> Vec<Sse> {
    let mut got = Vec::new();
    while runs > 0 {
        let event = said.recv_timeout(PATIENCE).expect("the feed goes on");
        runs -= usize::from(event.event == "run.completed");
        got.push(event);
    }
    got
}

// F036
#[test]
fn a_feed_has_all_of_its_workspace_and_nothing_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let post = |workspace: &str, path: &str, body: &Value| {
        let headers = [("aob-workspace", workspace), ("content-type", "application/json")];
        node.client().request("POST", path, &headers, body.to_string().as_bytes()).unwrap()
    };
    for workspace in ["default", "acme"] {
        for name in ["quick", "other"] {
            post(workspace, "/v1/workflows", &chain(name, 3)).expect(201);
        }
    }
    let of = |workspace: &str| vec![(String::from("aob-workspace"), workspace.to_owned())];
    let (ours, _) = feed(&node, "/v1/events", of("default"));
    let (theirs, _) = feed(&node, "/v1/events", of("acme"));
    let (of_one, _) = feed(&node, "/v1/events?workflow=quick&kind=run.*", of("default"));
    let mut started: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for n in 0..40 {
        let workspace = if n % 2 == 0 { "default" } else { "acme" };
        let name = if n % 4 < 2 { "quick" } else { "other" };
        let body = json!({"workflow": name, "inputs": {"n": n}});
        let run = post(workspace, "/v1/runs", &body).expect(202).json();
        started.entry((workspace, name)).or_default().push(run["run_id"].as_str().unwrap().into());
    }
    let all = by_run(&until_ended(&ours, 20));
    let mine: Vec<&String> =
        started.iter().filter(|(of, _)| of.0 == "default").flat_map(|(_, runs)| runs).collect();
    assert_eq!(all.len(), 20);
    for run in mine {
        assert_eq!(all[run], timeline(&mut client, run), "{run}");
    }
    let got = by_run(&until_ended(&theirs, 20));
    let mut expected: Vec<&String> =
        started.iter().filter(|(of, _)| of.0 == "acme").flat_map(|(_, runs)| runs).collect();
    expected.sort();
    assert_eq!(got.keys().collect::<Vec<_>>(), expected);
    let got = until_ended(&of_one, 10);
    assert!(got.iter().all(|event| event.event.starts_with("run.")));
    let mut expected: Vec<&String> = started[&("default", "quick")].iter().collect();
    expected.sort();
    assert_eq!(by_run(&got).keys().collect::<Vec<_>>(), expected);
}

// F036, N12
#[test]
fn a_feed_goes_on_after_a_cut_and_says_so_when_it_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("quick", 3)).expect(201);
    let mut got = Vec::new();
    let mut last = Vec::new();
    for round in 0..5 {
        // In the header, or where a client cannot set one.
        let path = match last.pop() {
            Some((_, id)) if round % 2 == 0 => format!("/v1/events?after={id}"),
            header => {
                last.extend(header);
                String::from("/v1/events")
            }
        };
        let (said, following) = feed(&node, &path, last);
        start(&mut client, "quick", &json!({"n": 1}));
        // Cut in the middle; what happens meanwhile is told when it comes back.
        got.extend((0..4).map(|_| said.recv().unwrap()));
        drop(said);
        start(&mut client, "quick", &json!({"n": 2}));
        following.join().unwrap();
        let id = got.iter().rev().find_map(|event: &Sse| event.id.clone()).unwrap();
        last = vec![(String::from("last-event-id"), id)];
    }
    let (said, _) = feed(&node, "/v1/events", last.clone());
    let ended = got.iter().filter(|event| event.event == "run.completed").count();
    got.extend(until_ended(&said, 10 - ended));
    let all = by_run(&got);
    assert_eq!(all.len(), 10);
    for (run, events) in &all {
        assert_eq!(*events, timeline(&mut client, run), "{run}: each once and in order");
    }
    node.kill();
    let node = Node::start(&options(directory.path()));
    let said: Vec<String> = {
        let id = last[0].1.clone();
        let events = node.client().events("/v1/events", &[("last-event-id", &id)], |_| true);
        events.into_iter().map(|event| event.event).collect()
    };
    assert_eq!(said, ["resync"], "what this node has not seen it cannot go on from");
}

// F036: one token's streams are counted, over all transports, and given back when they end.
#[test]
fn a_token_has_so_many_streams_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens.toml");
    let set = format!("auth.tokens_file={}", file.display());
    let [one, other] = ["one", "other"].map(|name| {
        let made = std::process::Command::new(crate::harness::AOBD)
            .args(["token", "new", "--name", name, "--workspace", "acme", "--role", "admin", "--set", &set])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    });
    let options = Options::serve(&directory.path().join("data"))
        .set("auth.tokens_file", &file.display().to_string())
        .set("limits.streams_per_token", "1");
    let node = Node::start(&options);
    let mut client = Client::new(&node.address).bearer(Some(&one));
    let accept = [("accept", "text/event-stream")];
    let bearer = vec![("authorization".to_owned(), format!("Bearer {one}"))];
    let (said, following) = feed(&node, "/v1/events", bearer);
    let refused = client.request("GET", "/v1/events", &accept, b"").unwrap().expect(429).json();
    assert_eq!((&refused["code"], &refused["limit"]), (&json!("limit_reached"), &json!("streams_per_token")));
    client.post("/v1/workflows", &chain("short", 1)).expect(201);
    let run = start(&mut client, "short", &json!({"n": 1}));
    let events = format!("/v1/runs/{run}/events");
    Client::new(&node.address)
        .bearer(Some(&other))
        .request("GET", &events, &accept, b"")
        .unwrap()
        .expect(200);
    until_ended(&said, 1);
    drop(said);
    // The next event finds nobody, and the stream's place is free.
    start(&mut client, "short", &json!({"n": 1}));
    following.join().unwrap();
    let began_us = SystemClock.monotonic_us();
    while client.request("GET", &events, &accept, b"").unwrap().status != 200 {
        assert!(SystemClock.monotonic_us() - began_us < 30_000_000, "the place was not given back");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// What came of each run is what stands in its timeline, and `live` was said once.
fn matches_timelines(client: &mut Client, runs: &[String], got: &[Sse]) {
    let all = by_run(got);
    assert_eq!(all.len(), runs.len(), "of these runs and no other");
    for run in runs {
        assert_eq!(all[run], timeline(client, run), "{run}: each once, in order");
    }
    assert_eq!(got.iter().filter(|event| event.event == "live").count(), 1);
}

/// Reads a feed until enough was said: the last number of each run, and whether it is live.
fn from_start(
    node: &Node,
    path: &str,
    workspace: &str,
    done: impl Fn(&BTreeMap<String, u64>, bool) -> bool,
) -> Vec<Sse> {
    let (mut last, mut live): (BTreeMap<String, u64>, bool) = (BTreeMap::new(), false);
    node.client().events(path, &[("aob-workspace", workspace)], |event| {
        assert!(!["resync", "slow_consumer"].contains(&&*event.event), "{event:?}");
        live |= event.event == "live";
        if event.id.is_some() {
            last.insert(run_of(event), event.seq());
        }
        !done(&last, live)
    })
}

/// Has a reader seen all that so many runs have, of which so many have ended?
fn is_all(client: &mut Client, last: &BTreeMap<String, u64>, runs: usize, ended: usize) -> bool {
    let mut page = |status: &str| {
        let path = format!("/v1/runs?limit=500&status={status}");
        client.get(&path).expect(200).json()["runs"].as_array().unwrap().clone()
    };
    let over = page("completed");
    let listed = [page("pending"), page("running"), over.clone()].concat();
    let told = |run: &Value| last.get(run["run_id"].as_str().unwrap()).copied() == run["seq"].as_u64();
    listed.len() == runs && over.len() == ended && listed.iter().all(told)
}

// F036, N12
#[test]
fn a_feed_from_the_start_has_all_runs_of_its_workspace_beside_load() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&crate::quic::two_cores(options(directory.path())));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("quick", 3)).expect(201);
    client.post("/v1/workflows", &waiting("held")).expect(201);
    let mut runs: Vec<String> = (0..240).map(|n| start(&mut client, "quick", &json!({"n": n}))).collect();
    let held: Vec<String> = (0..60).map(|_| start(&mut client, "held", &json!({}))).collect();
    runs.extend(held.iter().cloned());
    let elsewhere = |path: &str, body: &Value| {
        let headers = [("aob-workspace", "acme"), ("content-type", "application/json")];
        node.client().request("POST", path, &headers, body.to_string().as_bytes()).unwrap()
    };
    elsewhere("/v1/workflows", &chain("quick", 3)).expect(201);
    elsewhere("/v1/runs", &json!({"workflow": "quick", "inputs": {"n": 1}})).expect(202);
    // Beside the walk runs start, and those that waited go on.
    let (told, begun) = mpsc::channel();
    let mut others = node.client();
    let load = in_background(move || {
        begun.recv().unwrap();
        let mut more = Vec::new();
        for (n, run) in held[..30].iter().enumerate() {
            more.extend((0..3).map(|_| start(&mut others, "quick", &json!({"n": n}))));
            signal(&mut others, run);
        }
        more
    });
    let walked = from_start(&node, "/v1/events?from=start", "default", |last, live| {
        let _ = told.send(());
        live && last.len() >= 390 && is_all(&mut node.client(), last, 390, 360)
    });
    let is_first = |event: &&Sse| event.id.is_some() && event.seq() == 1;
    let first: Vec<String> = walked.iter().filter(is_first).map(run_of).collect();
    let old: Vec<&String> = first.iter().filter(|run| runs.contains(run)).collect();
    assert!(old.is_sorted() && old.len() == 300, "what was there comes in the order of ids");
    runs.extend(load.join().unwrap());
    matches_timelines(&mut client, &runs, &walked);
    let theirs = from_start(&node, "/v1/events?from=start", "acme", |last, live| live && last.len() == 1);
    assert_eq!(by_run(&theirs).len(), 1, "the other workspace has its one run, on a core of its own");
    let path = "/v1/events?from=start&workflow=held&kind=run.completed";
    let ends = from_start(&node, path, "default", |_, live| live);
    assert_eq!(ends.iter().filter(|event| event.event == "run.completed").count(), 30);
    assert_eq!(ends.len(), 31, "and live");
}

// F036, F228, N12
#[test]
fn a_feed_from_the_start_has_all_runs_after_kill_9_and_over_quic() {
    let directory = tempfile::tempdir().unwrap();
    let options = crate::quic::two_cores(options(directory.path()));
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &chain("quick", 3)).expect(201);
    client.post("/v1/workflows", &waiting("held")).expect(201);
    let mut runs: Vec<String> = (0..120).map(|n| start(&mut client, "quick", &json!({"n": n}))).collect();
    for run in &runs {
        timeline_of_ended(&mut client, run);
    }
    runs.extend((0..30).map(|_| start(&mut client, "held", &json!({}))));
    node.kill();
    let node = Node::start(&options);
    let mut client = node.client();
    let is_there = |last: &BTreeMap<String, u64>| is_all(&mut node.client(), last, 150, 120);
    let again = from_start(&node, "/v1/events?from=start", "default", |last, live| live && is_there(last));
    matches_timelines(&mut client, &runs, &again);
    // The same over QUIC, where it goes on live.
    let quic = crate::quic::Remote::of(&node);
    let mut got = crate::quic::block_on(async {
        let (_endpoint, connection) = quic.connect().await;
        let path = "/v1/events?from=start";
        let (_send, mut receive) = crate::quic::subscribe(&connection, path, json!({})).await;
        let mut told = crate::quic::Told::default();
        assert!(told.read(&mut receive, again.len() - 1).await, "{told:?}");
        runs.push(start(&mut client, "quick", &json!({"n": 1})));
        let more = timeline_of_ended(&mut client, &runs[150]).len();
        let all = told.events.len() + more;
        assert!(told.read(&mut receive, all).await);
        told.events
    });
    let mut expected: Vec<(u64, String)> =
        runs.iter().flat_map(|run| crate::quic::rows(&mut client, run)).collect();
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
    let id = format!("{}:1", runs[0]);
    for (path, header) in [
        (format!("/v1/events?from=start&after={id}"), ("accept", "text/event-stream")),
        (String::from("/v1/events?from=start"), ("last-event-id", &*id)),
    ] {
        let headers = [("accept", "text/event-stream"), header];
        let refused = client.request("GET", &path, &headers, b"").unwrap().expect(400).json();
        assert_eq!(refused["code"], "invalid_cursor", "{refused}");
    }
}

/// The timeline of a run, once it has ended.
fn timeline_of_ended(client: &mut Client, run: &str) -> Vec<Value> {
    let path = format!("/v1/runs/{run}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200);
    timeline(client, run)
}
