//! The examples that are programs or need a world around them: workers in two languages, and workflows that call a service
//! of the test's.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{AOBD, Client, Node, Options, in_background, root};

/// A client that shows a token.
struct Caller {
    client: Client,
    token: String,
}

impl Caller {
    fn send(&mut self, method: &str, path: &str, kind: &str, body: &str) -> Value {
        let headers = [("authorization", &*self.token), ("content-type", kind), ("prefer", "wait=60")];
        let answer = self.client.request(method, path, &headers, body.as_bytes()).unwrap();
        assert!(answer.status < 300, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        self.send("POST", path, "application/json", &body.to_string())
    }

    fn register(&mut self, file: &str) {
        self.register_with(file, &[]);
    }

    /// Registers an example with something in it replaced.
    fn register_with(&mut self, file: &str, replaced: &[(&str, &str)]) {
        let mut document = std::fs::read_to_string(root().join(file)).unwrap();
        for (text, by) in replaced {
            assert!(document.contains(text), "{file} has {text:?}");
            document = document.replace(text, by);
        }
        self.send("POST", "/v1/workflows", "application/yaml", &document);
    }

    fn start(&mut self, workflow: &str, inputs: &Value) -> String {
        let headers = [("authorization", &*self.token)];
        let body = json!({"workflow": workflow, "inputs": inputs});
        let run = self.client.post_with("/v1/runs", &headers, &body).unwrap().expect(202).json();
        run["run_id"].as_str().unwrap().to_owned()
    }

    fn ended(&mut self, run_id: &str) -> Value {
        self.send("GET", &format!("/v1/runs/{run_id}"), "application/json", "")
    }

    /// Reads the run's events up to one of this type.
    fn until(&self, run_id: &str, kind: &str) {
        let path = format!("/v1/runs/{run_id}/events");
        let events =
            self.client.events(&path, &[("authorization", &self.token)], |event| event.event != kind);
        assert_eq!(events.last().unwrap().event, kind);
    }

    fn count(&mut self, run_id: &str, kind: &str) -> usize {
        let path = format!("/v1/runs/{run_id}/timeline?limit=1000");
        let page = self.send("GET", &path, "application/json", "");
        page["events"].as_array().unwrap().iter().filter(|event| event["type"] == kind).count()
    }
}

/// A worker's process, killed when it is dropped.
struct Worker {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Worker {
    fn start(command: &mut Command) -> Self {
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut worker = Self { child, lines };
        worker.says("asks");
        worker
    }

    fn says(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "it ended without {part:?}");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has a worker do everything that it promises.
fn works(command: &mut Command) {
    let directory = tempfile::tempdir().unwrap();
    let tokens = format!("auth.tokens_file={}", directory.path().join("tokens").display());
    let made = Command::new(AOBD)
        .args(["token", "new", "--set", &tokens, "--name", "test", "--role", "write"])
        .output()
        .unwrap();
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let options = Options::serve(&directory.path().join("data")).set("workers.lease_seconds", "1");
    let (key, file) = tokens.split_once('=').unwrap();
    let node = Node::start(&options.set(key, file));
    let mut caller = Caller { client: node.client(), token: format!("Bearer {token}") };
    command.args(["--url", &format!("http://{}", node.address), "--queue", "thumbnails", "--queue", "naps"]);
    let wrong = Command::new(command.get_program())
        .args(command.get_args())
        .args(["--token", "aob_wrong"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!wrong.status.success(), "a worker whom the node does not know ends");
    let mut worker = Worker::start(command.args(["--token", &token]));

    caller.register("examples/kinds/task.yaml");
    let run_id = caller.start("kind-task", &json!({"image": "cat.png"}));
    let run = caller.ended(&run_id);
    assert!(run["outputs"]["thumbnail"].as_str().is_some_and(|path| path.ends_with("-200.png")), "{run}");

    let task = |queue: &str, payload: Value| json!({"t": {"type": "task", "with": {"queue": queue, "payload": payload}}});
    let narrow =
        json!({"name": "narrow", "nodes": task("thumbnails", json!({"image": "cat.png", "width": 0}))});
    caller.post("/v1/workflows", &narrow);
    let run_id = caller.start("narrow", &json!({}));
    let run = caller.ended(&run_id);
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("bad_input")), "{run}");

    let nap = json!({"name": "nap", "nodes": task("naps", json!({"ms": "${ inputs.ms }"}))});
    caller.post("/v1/workflows", &nap);
    let run_id = caller.start("nap", &json!({"ms": 3_600_000}));
    caller.until(&run_id, "node.leased");
    caller.post(&format!("/v1/runs/{run_id}/cancel"), &json!({}));
    worker.says("fail:");
    assert_eq!(caller.ended(&run_id)["status"], "cancelled");

    // Two leases and a half, and told to stop at the beginning of it.
    let run_id = caller.start("nap", &json!({"ms": 2_500}));
    caller.until(&run_id, "node.leased");
    let pid = rustix::process::Pid::from_child(&worker.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(worker.child.wait().unwrap().success());
    let run = caller.ended(&run_id);
    assert_eq!(run["outputs"]["t"], json!({"slept_ms": 2_500}), "{run}");
    assert_eq!(caller.count(&run_id, "node.leased"), 1, "heartbeats held the lease");
}

#[test]
fn the_worker_in_python_works_beats_and_stops_when_it_is_done() {
    works(Command::new("python3").arg(root().join("examples/worker.py")));
}

#[test]
fn the_worker_in_rust_works_beats_and_stops_when_it_is_done() {
    // Where the binaries under test lie: the same profile, in the same target directory.
    let profile = std::path::Path::new(AOBD).parent().unwrap();
    let target = profile.parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    // Build scripts that look at these would be run again, and all that depends on them built anew.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&*name);
        }
    }
    build
        .current_dir(root())
        .args(["build", "--quiet", "--offline", "--example", "worker", "--target-dir"])
        .arg(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    // As the tests are built, else the whole library is built once more.
    if cfg!(feature = "failpoints") {
        build.args(["--features", "failpoints"]);
    }
    assert!(build.status().unwrap().success(), "the example is built");
    works(&mut Command::new(profile.join("examples/worker")));
}

/// A request that the test's service got.
#[derive(Debug)]
pub(super) struct Request {
    /// `GET /path?query HTTP/1.1`, then headers.
    head: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let pairs = self.head.iter().filter_map(|line| line.split_once(": "));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// A service: `answer` is given each request and says (status, JSON); afterwards the request comes out of the channel.
pub(super) fn service(
    answer: impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static,
) -> (SocketAddr, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::channel();
    let answer = Arc::new(answer);
    in_background(move || {
        for stream in listener.incoming() {
            let (stream, answer, seen) = (stream.unwrap(), answer.clone(), seen.clone());
            in_background(move || {
                let mut stream = BufReader::new(stream);
                while serve(&mut stream, &*answer, &seen).is_some() {}
            });
        }
    });
    (address, requests)
}

fn serve(
    stream: &mut BufReader<TcpStream>,
    answer: &dyn Fn(&Request) -> (u16, Value),
    seen: &mpsc::Sender<Request>,
) -> Option<()> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let mut request = Request { head, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body).ok()?;
    let (status, body) = answer(&request);
    let body = body.to_string();
    let head = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    seen.send(request).ok()?;
    write!(stream.get_mut(), "HTTP/1.1 {status} -\r\n{head}\r\n\r\n{body}").ok()
}

/// A node that may call this service.
fn node_beside(service: SocketAddr, directory: &std::path::Path) -> (Node, Caller) {
    let options = Options::serve(&directory.join("data"))
        .set("http.allow", &service.to_string())
        .set("secrets.directory", &directory.display().to_string());
    let node = Node::start(&options);
    let caller = Caller { client: node.client(), token: String::from("-") };
    (node, caller)
}

#[test]
fn a_day_is_collected_processed_validated_and_stored_once() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("STORE_TOKEN"), "s3cret-store-token\n").unwrap();
    let posts = AtomicUsize::new(0);
    let (address, requests) = service(move |request| {
        let reading = |sensor: &str, fahrenheit: Value| json!({"sensor": sensor, "fahrenheit": fahrenheit});
        match request.head[0].split(' ').nth(1).unwrap() {
            "/readings?day=monday" => {
                let good = [reading("a", json!(50)), reading("b", json!(68)), reading("a", json!("86"))];
                let bad = [reading("c", Value::Null), reading("c", json!(1e6))];
                let readings: Vec<_> = good.into_iter().chain(bad).collect();
                (200, json!({"readings": readings}))
            }
            "/readings?day=tuesday" => (200, json!({"readings": [reading("a", json!("broken"))]})),
            // The first attempt is turned away after it arrived.
            "/days" if posts.fetch_add(1, Ordering::Relaxed) == 0 => (503, json!({})),
            "/days" => (201, json!({"id": 7})),
            _ => (404, json!({})),
        }
    });
    let (_node, mut caller) = node_beside(address, directory.path());
    caller.register("examples/work/collect_process_validate_store.yaml");
    let inputs = |day: &str| json!({"source": format!("http://{address}/readings"), "store": format!("http://{address}/days"), "day": day});
    let run_id = caller.start("collect_process_validate_store", &inputs("monday"));
    let run = caller.ended(&run_id);
    assert_eq!(run["outputs"]["result"], json!({"stored": true, "id": 7}), "{run}");
    let run_id = caller.start("collect_process_validate_store", &inputs("tuesday"));
    let run = caller.ended(&run_id);
    assert_eq!(run["outputs"]["result"], json!({"stored": false, "good": 0, "readings": 1}), "{run}");

    let seen: Vec<_> = requests.try_iter().collect();
    let stored: Vec<_> = seen.iter().filter(|request| request.head[0].starts_with("POST /days ")).collect();
    assert_eq!(
        (seen.len(), stored.len()),
        (4, 2),
        "two days read; one stored, at the second attempt: {seen:?}"
    );
    for (at, request) in stored.iter().enumerate() {
        assert_eq!(request.header("authorization"), Some("Bearer s3cret-store-token"));
        assert_eq!(request.header("aob-attempt"), Some(&*(at + 1).to_string()));
        let key = request.header("idempotency-key");
        assert!(key.is_some() && key == stored[0].header("idempotency-key"), "one key: {seen:?}");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let mean = body["mean"].as_f64().unwrap();
        assert!((mean - 20.0).abs() < 1e-9, "{body}");
        assert_eq!((&body["day"], &body["left_out"]), (&json!("monday"), &json!(2)));
        assert_eq!(body["sensors"], json!(["a", "b"]));
    }
}

// F440
#[test]
fn a_monitor_lives_on_signals_and_timers_until_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let checks = AtomicUsize::new(0);
    let (address, requests) = service(move |_| match checks.fetch_add(1, Ordering::Relaxed) {
        1 => (503, json!({"state": "down"})),
        _ => (200, json!({"state": "up"})),
    });
    let (_node, mut caller) = node_beside(address, directory.path());
    // Nobody but the webhook wakes the one within the test; the other has a timer that is quick.
    let file = "examples/work/always_on.yaml";
    caller.register_with(file, &[("timeout: 1m", "timeout: 24h")]);
    caller.register_with(file, &[("timeout: 1m", "timeout: 10ms"), ("name: always_on", "name: by-itself")]);
    let inputs = json!({"url": format!("http://{address}/health")});
    let run_id = caller.start("always_on", &inputs);
    let signal = |caller: &mut Caller, run_id: &str, name: &str, payload: Value| {
        caller.post(&format!("/v1/runs/{run_id}/signals/{name}"), &json!({"payload": payload}))
    };
    for round in 1..=3 {
        let tick = format!("monitor[{}].tick", round - 1);
        let path = format!("/v1/runs/{run_id}/events");
        caller
            .client
            .events(&path, &[], |event| event.event != "node.waiting" || event.data["node"] != *tick);
        if round == 3 {
            // It comes while nobody waits for it, and counts at the end of this round.
            signal(&mut caller, &run_id, "stop", Value::Null);
        }
        signal(&mut caller, &run_id, "tick", json!({"by": format!("webhook {round}")}));
        assert_eq!(requests.recv_timeout(Duration::from_secs(15)).unwrap().head[0], "GET /health HTTP/1.1");
    }
    let run = caller.ended(&run_id);
    let asked_by = ["webhook 1", "webhook 2", "webhook 3"];
    assert_eq!(run["outputs"], json!({"rounds": 3, "down": 1, "asked_by": asked_by}), "{run}");
    assert_eq!(requests.try_iter().count(), 0, "a look for each tick");

    // Without anybody who asks, it looks when the time has come.
    let run_id = caller.start("by-itself", &inputs);
    requests.recv_timeout(Duration::from_secs(15)).unwrap();
    requests.recv_timeout(Duration::from_secs(15)).unwrap();
    signal(&mut caller, &run_id, "stop", Value::Null);
    let run = caller.ended(&run_id);
    assert!(run["outputs"]["rounds"].as_u64() >= Some(2), "{run}");
    assert_eq!(run["outputs"]["asked_by"], json!([]), "{run}");
}
