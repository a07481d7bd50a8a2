//! Threads run where the plan says, and the runner plane really is on io_uring.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{Node, Options};

/// (name, allowed cores) of every thread of a process.
fn threads(pid: u32) -> Vec<(String, String)> {
    let field = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("the field");
        line.split_once(':').expect("a colon").1.trim().to_owned()
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok())
        .map(|status| (field(&status, "Name:"), field(&status, "Cpus_allowed_list:")))
        .collect()
}

fn io_uring_descriptors(pid: u32) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("io_uring")).count()
}

fn allowed_here() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

/// What the runner plane runs on.
fn runner_runtime(report: &serde_json::Value) -> String {
    let planes = report["planes"].as_array().expect("planes");
    let runner = planes.iter().find(|plane| plane["name"] == "runner").expect("a runner plane");
    runner["runtime"].as_str().expect("a runtime").to_owned()
}

// F001, F230, F433
#[test]
fn every_thread_runs_only_on_its_planes_cores() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let report = node.client().get("/v1/node").expect(200).json();
    let threads = threads(node.pid());
    let (mut seen, mut cores) = (BTreeMap::new(), BTreeSet::new());
    let planes = report["planes"].as_array().expect("planes");
    let all =
        planes.iter().flat_map(|plane| plane["threads"].as_array().unwrap().iter().map(move |t| (plane, t)));
    for (plane, thread) in all {
        let (name, plane) = (thread["name"].as_str().unwrap(), plane["name"].as_str().unwrap());
        let Some(core) = thread["core"].as_u64() else { continue };
        let (_, allowed) = threads
            .iter()
            .find(|(task, _)| task.starts_with(name))
            .unwrap_or_else(|| panic!("{name} is not among {threads:?}"));
        assert_eq!(*allowed, core.to_string(), "{name} of {plane}");
        cores.insert(core.to_string());
        *seen.entry(plane.to_owned()).or_insert(0) += 1;
    }
    for plane in ["control", "runner", "fanout"] {
        assert!(seen.contains_key(plane), "no pinned thread of {plane}: {seen:?}");
    }
    // Every other thread is a helper of a plane, on its core, or belongs to none and may run anywhere.
    for (name, allowed) in &threads {
        let of_a_plane =
            ["aob-control", "aob-runner", "aob-fanout"].iter().any(|prefix| name.starts_with(prefix));
        assert!(
            cores.contains(allowed) || (!of_a_plane && *allowed == allowed_here()),
            "{name} runs on {allowed}"
        );
    }
    for queue in report["queues"].as_array().expect("queues") {
        assert!(queue["capacity"].as_u64().unwrap() > 0 && queue["full_policy"].is_string(), "{queue}");
    }
    if runner_runtime(&report) == "glommio" {
        assert!(io_uring_descriptors(node.pid()) >= 1, "the runner plane holds rings");
    } else {
        assert_eq!(io_uring_descriptors(node.pid()), 0);
    }
}

// F229
#[test]
fn without_io_uring_the_node_says_so_once_and_works() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("runner.driver", "tokio"));
    let mut client = node.client();
    assert_eq!(runner_runtime(&client.get("/v1/node").expect(200).json()), "tokio");
    client.post("/v1/workflows", &crate::harness::chain("c", 3)).expect(201);
    let body = serde_json::json!({"workflow": "c", "inputs": {"n": 1}});
    let run = client.post_with("/v1/runs", &[("prefer", "wait=20")], &body).unwrap().expect(200).json();
    assert_eq!(run["outputs"]["n"], 4);
    assert_eq!(io_uring_descriptors(node.pid()), 0);
    let (status, stderr) = node.terminate();
    assert!(status.success(), "{stderr}");
    assert_eq!(stderr.matches("io_uring").count(), 1, "one clear warning: {stderr}");
}

// F241
#[test]
fn several_shards_on_one_core_work_like_many_cores() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("cores.control", "0,0").set("cores.runner", "0,0,0");
    let node = Node::start(&options);
    let mut client = node.client();
    client.post("/v1/workflows", &crate::harness::chain("c", 5)).expect(201);
    for n in 0..64 {
        let body = serde_json::json!({"workflow": "c", "inputs": {"n": n}});
        let run = client.post_with("/v1/runs", &[("prefer", "wait=20")], &body).unwrap().expect(200).json();
        assert_eq!(run["outputs"]["n"], n + 5);
    }
    assert_eq!(client.run_ids().len(), 64);
    drop(node);
    // The shard count is the directory's: fewer cores later host all of its shards.
    let node = Node::start(&Options::serve(directory.path()).set("cores.runner", "1"));
    assert_eq!(node.client().run_ids().len(), 64);
}
