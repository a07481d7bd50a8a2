//! The pattern library, from the command line to the end of a run: `aob workflow new` makes a document, `aob run start`
//! registers and starts it, and a worker of the test does the work.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::examples::service;
use crate::harness::{Client, Node, Options};

/// A node, and a folder for documents.
struct World {
    folder: tempfile::TempDir,
    node: Node,
    client: Client,
}

/// `aob`, as somebody without settings of their own.
fn aob(folder: &Path, url: &str, line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aob"));
    command.args(line).current_dir(folder).env("AOB_URL", url).env("XDG_CONFIG_HOME", folder.join("config"));
    for name in ["AOB_CONTEXT", "AOB_WORKSPACE", "AOB_TOKEN", "AOB_TOKEN_FILE", "AOB_CA_FILE"] {
        command.env_remove(name);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::serve(&folder.path().join("data")).set("http.allow", "127.0.0.1");
        let node = Node::start(&options);
        let client = node.client();
        Self { folder, node, client }
    }

    fn aob(&self, line: &[&str]) -> String {
        said(&aob(self.folder.path(), &format!("http://{}", self.node.address), line))
    }

    /// Makes a document from a pattern, and starts a run of it.
    fn start(&self, pattern: &str, settings: &[&str], inputs: &Value) -> String {
        let name = format!("{pattern}-{}", settings.len());
        let file = format!("{name}.yaml");
        let mut line =
            vec!["workflow", "new", "--pattern", pattern, "--name", &name, "--to", &file, "--force"];
        line.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        self.aob(&line);
        assert_eq!(self.aob(&["workflow", "validate", &file]), format!("{file}: valid\n"));
        std::fs::write(self.folder.path().join("inputs.json"), inputs.to_string()).unwrap();
        self.aob(&["run", "start", &file, "--inputs", "inputs.json"]).trim().to_owned()
    }

    /// The next job of a queue.
    fn job(&mut self, queue: &str) -> Value {
        let poll = json!({"queues": [queue], "max": 1, "wait_ms": 60_000, "worker": "w"});
        let answer = self.client.post("/v1/workers/poll", &poll).expect(200).json();
        let job = answer["jobs"][0].clone();
        assert_eq!(job["queue"], queue, "a job came: {answer}");
        job
    }

    fn complete(&mut self, job: &Value, output: &Value) {
        let body = json!({"lease": job["lease"], "output": output});
        let said = self.client.post("/v1/workers/complete", &body).expect(200).json();
        assert_eq!(said["results"][0]["status"], "accepted", "{said}");
    }

    /// Takes the next job of a queue, answers it, and gives what it was told.
    fn work(&mut self, queue: &str, output: &Value) -> Value {
        let job = self.job(queue);
        self.complete(&job, output);
        job["input"].clone()
    }

    /// Takes the next job of a queue and fails it; gives which attempt it was.
    fn fail(&mut self, queue: &str, retryable: bool) -> u64 {
        let job = self.job(queue);
        let error = json!({"code": "broken", "message": "no", "retryable": retryable});
        self.client.post("/v1/workers/fail", &json!({"lease": job["lease"], "error": error})).expect(200);
        job["attempt"].as_u64().unwrap()
    }

    fn ended(&mut self, run_id: &str) -> Value {
        let path = format!("/v1/runs/{run_id}");
        self.client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
    }

    /// The outputs of a run that completes.
    fn outputs(&mut self, run_id: &str) -> Value {
        let run = self.ended(run_id);
        assert_eq!(run["status"], "completed", "{run}");
        run["outputs"].clone()
    }

    fn state(&mut self, run_id: &str, node: &str) -> String {
        let graph = self.client.get(&format!("/v1/runs/{run_id}/graph")).expect(200).json();
        graph["nodes"][node]["state"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_sequence_hands_each_steps_result_to_the_next() {
    // F289
    let mut world = World::new();
    let settings = ["steps=fetch,parse,store", "task=Work on ${ inputs.topic }"];
    let run_id = world.start("sequential", &settings, &json!({"topic": "rain"}));
    let told = |given: Value| json!({"task": "Work on rain", "given": given});
    assert_eq!(world.work("fetch", &json!([1])), told(json!({"topic": "rain"})));
    assert_eq!(world.work("parse", &json!([2])), told(json!([1])));
    assert_eq!(world.work("store", &json!("stored")), told(json!([2])));
    assert_eq!(world.outputs(&run_id), json!({"result": "stored"}));
}

#[test]
fn reduce_waits_for_the_last_item_and_sees_all_results_in_order() {
    // F290
    let mut world = World::new();
    let run_id = world.start("map-reduce", &["mapper=look"], &json!({"items": ["a", "b", "c"]}));
    let mut jobs: Vec<Value> = (0..3).map(|_| world.job("look")).collect();
    jobs.sort_by_key(|job| job["input"]["index"].as_u64());
    let items: Vec<&Value> = jobs.iter().map(|job| &job["input"]["item"]).collect();
    assert_eq!(items, ["a", "b", "c"], "all at once");
    for job in jobs.iter().rev() {
        assert_eq!(world.state(&run_id, "reduce"), "pending", "before the last result");
        world.complete(job, &json!({"of": job["input"]["item"]}));
    }
    let seen = world.work("reduce", &json!("abc"));
    assert_eq!(seen, json!({"results": [{"of": "a"}, {"of": "b"}, {"of": "c"}]}));
    assert_eq!(world.outputs(&run_id), json!({"result": "abc"}));
    let run_id = world.start("map-reduce", &[], &json!({"items": []}));
    assert_eq!(world.work("reduce", &json!(0)), json!({"results": []}));
    assert_eq!(world.outputs(&run_id), json!({"result": 0}));
}

#[test]
fn an_approval_leads_to_the_end_it_decides_on() {
    // F291
    let mut world = World::new();
    let run_id = world.start("approval", &["timeout=1s"], &json!({"topic": "rain"}));
    let told = world.work("draft", &json!("a draft"));
    assert_eq!(told, json!({"task": "Make a draft", "inputs": {"topic": "rain"}}));
    let rejected = json!({"draft": "a draft", "feedback": null});
    assert_eq!(world.outputs(&run_id), json!({"approved": false, "result": null, "rejected": rejected}));
    assert_eq!(world.state(&run_id, "finalise"), "skipped");

    let run_id = world.start("approval", &["timeout=1s", "on_timeout=approve"], &json!({}));
    world.work("draft", &json!("a draft"));
    let told = world.work("publish", &json!("published"));
    assert_eq!(told, json!({"draft": "a draft", "feedback": null}));
    assert_eq!(world.outputs(&run_id), json!({"approved": true, "result": "published", "rejected": null}));
    assert_eq!(world.state(&run_id, "rejected"), "skipped");

    let run_id = world.start("approval", &["timeout=1s", "on_timeout=fail", "work=d"], &json!({}));
    world.work("d", &json!("a draft"));
    let run = world.ended(&run_id);
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("review_timeout")),
        "{run}"
    );
}

#[test]
fn a_fallback_is_asked_after_three_failures_and_skipped_after_a_success() {
    // F292
    let mut world = World::new();
    let run_id = world.start("fallback", &["initial=1ms"], &json!({"n": 1}));
    for attempt in 1..=3 {
        assert_eq!(world.fail("primary", true), attempt);
    }
    let told = world.work("fallback", &json!("plan b"));
    assert_eq!(told, json!({"task": "Do this work", "inputs": {"n": 1}}));
    assert_eq!(world.outputs(&run_id), json!({"by": "fallback", "result": "plan b"}));
    assert_eq!(world.state(&run_id, "primary"), "failed");

    let run_id = world.start("fallback", &["initial=1ms"], &json!({}));
    world.fail("primary", true);
    world.work("primary", &json!(null));
    assert_eq!(world.outputs(&run_id), json!({"by": "primary", "result": null}));
    assert_eq!(world.state(&run_id, "fallback"), "skipped");

    let run_id = world.start("fallback", &["initial=1ms", "retries=0"], &json!({}));
    assert_eq!(world.fail("primary", true), 1);
    world.fail("fallback", false);
    assert_eq!(world.ended(&run_id)["status"], "failed");
}

#[test]
fn what_fans_out_comes_together_and_a_loop_ends_when_it_is_done() {
    // F293
    let mut world = World::new();
    let run_id = world.start("fan-out-in", &["branches=a,b", "on_error=continue"], &json!({}));
    world.fail("b", false);
    world.work("a", &json!(1));
    assert_eq!(world.work("combine", &json!(2)), json!({"results": {"a": 1, "b": null}}));
    assert_eq!(world.outputs(&run_id), json!({"result": 2}));

    let run_id = world.start("loop-until", &["rounds=3"], &json!({}));
    for round in 0..2 {
        let answer = json!({"done": round == 1, "round": round});
        let told = world.work("improve", &answer);
        let before = if round == 0 { json!({"done": false}) } else { json!({"done": false, "round": 0}) };
        assert_eq!((&told["round"], &told["before"]), (&json!(round), &before));
    }
    assert_eq!(world.outputs(&run_id), json!({"result": {"done": true, "round": 1}}));
}

#[test]
fn a_saga_undoes_what_was_done_the_last_first() {
    // F293
    let mut world = World::new();
    let settings = ["steps=reserve,pay,ship", "undo_retries=1"];
    let run_id = world.start("saga", &settings, &json!({}));
    world.work("reserve", &json!("r1"));
    world.fail("pay", false);
    assert_eq!(
        world.work("undo_pay", &json!("ok"))["done"],
        Value::Null,
        "it failed, and is undone all the same"
    );
    assert_eq!(world.work("undo_reserve", &json!("ok"))["done"], "r1");
    assert_eq!(world.outputs(&run_id), json!({"committed": false, "result": null}));
    assert_eq!(world.state(&run_id, "undo_ship"), "skipped");

    let run_id = world.start("saga", &settings, &json!({}));
    for step in ["reserve", "pay", "ship"] {
        world.work(step, &json!(step));
    }
    assert_eq!(world.outputs(&run_id), json!({"committed": true, "result": "ship"}));
    assert_eq!(world.state(&run_id, "undo_reserve"), "skipped");
}

#[test]
fn a_poll_asks_until_it_is_told_what_it_waits_for_or_gives_up() {
    // F293
    let asked = AtomicUsize::new(0);
    let (address, requests) = service(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => (200, json!({})),
        1 => (200, json!({"status": "busy"})),
        _ => (200, json!({"status": "done", "n": 7})),
    });
    let mut world = World::new();
    let inputs = json!({"url": format!("http://{address}/exports/7")});
    let run_id = world.start("poll", &["interval=10ms"], &inputs);
    assert_eq!(world.outputs(&run_id), json!({"result": {"status": "done", "n": 7}}));
    assert_eq!(requests.try_iter().count(), 3);

    let run_id = world.start("poll", &["interval=10ms", "rounds=2", "value=gone"], &inputs);
    let run = world.ended(&run_id);
    assert_eq!(
        (&run["status"], &run["error"]["code"]),
        (&json!("failed"), &json!("loop_exhausted")),
        "{run}"
    );
    assert_eq!(requests.try_iter().count(), 2);
}

#[test]
fn patterns_are_listed_and_made_without_a_node() {
    // F293
    let folder = tempfile::tempdir().unwrap();
    let alone = |line: &str| aob(folder.path(), "http://127.0.0.1:1", &line.split(' ').collect::<Vec<_>>());
    let listed = said(&alone("workflow patterns"));
    for name in
        ["sequential", "map-reduce", "approval", "fallback", "fan-out-in", "loop-until", "poll", "saga"]
    {
        assert_eq!(
            listed.lines().filter(|line| line.starts_with(&format!("{name} "))).count(),
            1,
            "{listed}"
        );
    }
    assert!(said(&alone("workflow patterns fallback")).contains("retries "));
    let all: Value = serde_json::from_str(&said(&alone("workflow patterns -o json"))).unwrap();
    assert_eq!(all["patterns"][3]["parameters"][2]["default"], "2", "{all}");
    let text = said(&alone("workflow new --pattern sequential --set steps=a,b"));
    assert!(text.starts_with("# Steps in a row"), "{text}");
    let document: Value = serde_json::from_str(&said(&alone("workflow new --pattern saga -o json"))).unwrap();
    assert_eq!(document["name"], "saga");

    for (line, code, part) in [
        ("workflow new --pattern sagas", 2, "saga"),
        ("workflow new --pattern saga --set step=a", 2, "it has steps, undo_retries, task"),
        ("workflow new --pattern saga --name a/b", 2, "no name of a workflow"),
        ("workflow new --pattern saga --set task=${x}", 1, "pattern saga:"),
        ("workflow new --pattern saga --file w.yaml", 0, "w.yaml: written"),
        ("workflow new --pattern poll --to w.yaml", 1, "w.yaml: is there already (--force overwrites it)"),
        ("workflow new --pattern poll --to w.yaml --force", 0, "w.yaml: written"),
    ] {
        let output = alone(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains(part)), (Some(code), true), "{line}: {said}");
    }
    let written = std::fs::read_to_string(folder.path().join("w.yaml")).unwrap();
    assert!(written.contains("metadata: {pattern: poll}"), "{written}");
}
