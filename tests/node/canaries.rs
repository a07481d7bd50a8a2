//! I-24: secrets of agents, planted as canaries, stand nowhere. A model and tools know them, as they must, and say them back in
//! every spelling; then everything that the node has written, said and answered is searched.

#![expect(clippy::disallowed_types, reason = "the threads of a test, not a core of the node")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// By the name of the secret: the key of a provider, a header of its gateway, a header of a tool, the environment of a tool
/// server, a header of the workflow's own call.
const CANARIES: [(&str, &str); 5] = [
    ("PROVIDER", "cnry/prov+8f31c2d7e5=Qx"),
    ("GATE", "cnry-gate-77b1f0c4a9e2d"),
    ("TOOL", "cnry/tool+41d0aa97c3=Zy"),
    ("MCP", "cnry-mcps-5b2e90d1f7c64"),
    ("FLOW", "cnry-flow-c07d1e88ab35f"),
];
/// This is no secret: whoever does not find it has searched nothing.
const MARKER: &str = "marker-everybody-may-see-0142";
const ROLE: &str = "AOB_TEST_CANARY_SERVER";
const TOOL_SERVER: &str = "canaries::a_tool_server_that_another_test_starts";

fn canary(name: &str) -> &'static str {
    CANARIES.iter().find(|(known, _)| *known == name).unwrap().1
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(text: &str) -> String {
    let one = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || byte == b'-' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// As services like to quote it.
fn spelled(secret: &str) -> String {
    let spellings = [
        secret.to_owned(),
        hex(secret),
        hex(secret).to_uppercase(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(format!("x{secret}")),
        STANDARD.encode(format!("xy{secret}z")),
        percent(secret),
    ];
    spellings.join(" ")
}

/// What must be found nowhere. Of base64 the middle, which is the same whatever stands around it; and each half as it is.
fn forbidden(secret: &str) -> Vec<String> {
    let (front, back) = secret.split_at(secret.len() / 2);
    let mut all = vec![front.to_owned(), back.to_owned(), hex(secret), hex(secret).to_uppercase()];
    for shift in 0..3 {
        for text in [STANDARD.encode(format!("{}{secret}", "x".repeat(shift))), percent(secret)] {
            all.push(text.get(4..20).unwrap().to_owned());
        }
    }
    all
}

/// What was sent to whom: the heads and the bodies of requests.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// The secrets that a call to this path has to carry, and no other.
fn own(path: &str) -> &'static [&'static str] {
    match path {
        "/v1/chat/completions" => &["PROVIDER", "GATE"],
        "/flow" => &["FLOW"],
        _ => &["TOOL"],
    }
}

/// A provider of models, and services for tools.
fn outside() -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
    let kept = asked.clone();
    in_background(move || {
        while let Ok((stream, _)) = listener.accept() {
            let kept = kept.clone();
            in_background(move || serve(stream, &kept));
        }
    });
    (address, asked)
}

fn serve(stream: TcpStream, asked: &Asked) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        let body = String::from_utf8(body).unwrap();
        let path = head.split(' ').nth(1)?.to_owned();
        let own = own(&path);
        let (status, kind, said) = match &*path {
            "/v1/chat/completions" => completed(&body),
            path => {
                let mut echo = json!({"head": head, "marker": MARKER});
                echo[canary(own[0])] = spelled(canary(own[0])).into();
                (if path.contains("fails") { 500 } else { 200 }, "application/json", echo.to_string())
            }
        };
        asked.lock().unwrap().push((head, body));
        let quoted = format!("x-echo: {}\r\n", canary(own[0]));
        write!(
            reader.get_mut(),
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{quoted}content-length: {}\r\n\r\n{said}",
            said.len()
        )
        .ok()?;
    }
}

/// Both secrets of the provider, in every spelling.
fn quoted() -> String {
    format!("{} {}", spelled(canary("PROVIDER")), spelled(canary("GATE")))
}

/// What the model says.
fn completed(body: &str) -> (u16, &'static str, String) {
    let key = canary("PROVIDER");
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
    let message = |message: Value, stop: &str| {
        // A cut comes in the middle of these.
        let long = format!("{}{key}", "x".repeat(120));
        json!({"id": format!("id-{key}"), "model": long, "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": stop}]})
        .to_string()
    };
    let json = "application/json";
    match () {
        () if body.contains("case-refused") => {
            let error =
                json!({"message": format!("no such key: {}", quoted()), "code": key, "type": quoted()});
            (401, json, json!({"error": error}).to_string())
        }
        () if body.contains("case-cut") => {
            let error = json!({"message": format!("{}{key}", "x".repeat(394)), "code": format!("{}{key}", "x".repeat(394))});
            (401, json, json!({"error": error}).to_string())
        }
        () if body.contains("case-broken") => (200, "text/html", format!("<html>{}</html>", quoted())),
        () if body.contains("case-repeat") => {
            let text = format!("Your keys are {}, and {MARKER}.", quoted());
            let mut said = String::new();
            for piece in text.as_bytes().chunks(5) {
                let delta = json!({"content": std::str::from_utf8(piece).unwrap()});
                let piece = json!({"id": "r", "model": "m", "choices": [{"index": 0, "delta": delta}]});
                said.push_str(&format!("data: {piece}\n\n"));
            }
            let end = json!({"id": "r", "model": "m", "usage": usage, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
            (200, "text/event-stream", format!("{said}data: {end}\n\ndata: [DONE]\n\n"))
        }
        () if body.contains("case-tools") && !body.contains("\"tool\"") => {
            let calls: Vec<Value> = ["echo", "fails", "it__say", "it__fail", key]
                .iter()
                .enumerate()
                .map(|(at, name)| {
                    let arguments = json!({"text": format!("{MARKER} {}", quoted())}).to_string();
                    json!({"id": format!("call_{at}{key}"), "type": "function", "function": {"name": name, "arguments": arguments}})
                })
                .collect();
            (
                200,
                json,
                message(json!({"role": "assistant", "content": quoted(), "tool_calls": calls}), "tool_calls"),
            )
        }
        () => (
            200,
            json,
            message(json!({"role": "assistant", "content": format!("{MARKER} {}", quoted())}), "stop"),
        ),
    }
}

/// Not a test of its own: the tool server, when the environment says so. It says what it was started with wherever it can.
#[test]
fn a_tool_server_that_another_test_starts() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let said = spelled(&std::env::var("TOKEN").unwrap());
    let mut out = std::io::stdout();
    // The harness has begun a line.
    writeln!(out).unwrap();
    eprintln!("{MARKER} started with {said}");
    eprintln!("{}{said}", "x".repeat(500));
    for line in std::io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line.unwrap()) else { continue };
        let schema =
            json!({"type": "object", "properties": {"text": {"type": "string", "description": said}}});
        let tool = |name: &str| json!({"name": name, "description": said, "inputSchema": schema});
        let text = |is_error: bool| json!({"content": [{"type": "text", "text": format!("{MARKER} {said}")}], "isError": is_error});
        let result = match message["method"].as_str() {
            Some("initialize") => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": said, "version": said}, "instructions": said}),
            Some("tools/list") => {
                json!({"tools": [tool("say"), tool("fail"), tool(&std::env::var("TOKEN").unwrap())]})
            }
            Some("tools/call") => text(message["params"]["name"] == "fail"),
            _ if message["id"].is_null() => continue,
            _ => {
                let error = json!({"code": -32601, "message": said, "data": {said.clone(): said}});
                writeln!(out, "{}", json!({"jsonrpc": "2.0", "id": message["id"], "error": error})).unwrap();
                continue;
            }
        };
        writeln!(out, "{}", json!({"jsonrpc": "2.0", "id": message["id"], "result": result})).unwrap();
    }
    std::process::exit(0);
}

fn options(directory: &Path, secrets: &Path, service: SocketAddr) -> Options {
    let own = std::env::current_exe().unwrap();
    let command = json!([own, "--exact", TOOL_SERVER, "--nocapture", "--test-threads=1"]);
    let provider = format!(
        r#"{{kind = "openai", base_url = "http://{service}", credential = "PROVIDER", headers = {{x-gate = "a ${{secret:GATE}}"}}}}"#
    );
    Options::serve(directory)
        .set("http.allow", "127.0.0.1")
        .set("secrets.directory", secrets.to_str().unwrap())
        .set("models.providers.p", &provider)
        .set(
            "models.names.big",
            r#"{provider = "p", model = "big-1", context_tokens = 100000, max_output_tokens = 1000}"#,
        )
        .set("models.default", "big")
        .set("mcp.servers.it.command", &command.to_string())
        .set("mcp.servers.it.env.TOKEN", "${secret:MCP}")
        .set(&format!("mcp.servers.it.env.{ROLE}"), "1")
        .set("mcp.servers.it.env.RUST_MIN_STACK", "4000000")
}

fn workflow(service: SocketAddr) -> Value {
    let tool = |name: &str| {
        json!({"name": name, "description": "It says.", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
            "http": {"url": format!("http://{service}/{name}"), "headers": {"x-tool": "t ${secret:TOOL}"}}})
    };
    json!({
        "name": "canaries",
        "agents": {"r": {"model": "big", "capture": "full", "tools": ["mcp:it/*", tool("echo"), tool("fails")]}},
        "nodes": {
            "go": {"type": "wait", "with": {"signal": "go"}},
            "flow": {"type": "http", "needs": ["go"], "with": {"url": format!("http://{service}/flow"), "headers": {"x-flow": "${secret:FLOW}"}}},
            "ask": {"type": "agent", "needs": ["flow"], "with": {"role": "r", "task": format!("{MARKER} ${{ inputs.case }}")}},
        }
    })
}

/// Starts a run while somebody watches it; gives what the watcher was told.
fn watched(node: &Node, client: &mut Client, case: &str) -> (String, Value, String) {
    let body = json!({"workflow": "canaries", "inputs": {"case": case}});
    let run_id = client.post("/v1/runs", &body).expect(202).json()["run_id"].as_str().unwrap().to_owned();
    let (path, watcher) = (format!("/v1/runs/{run_id}/events"), node.client());
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let watching = in_background(move || {
        let events = watcher.events(&path, &[], |event| {
            if event.event == "node.waiting" {
                let _ = tell.try_send(());
            }
            !matches!(&*event.event, "run.completed" | "run.failed")
        });
        // Pieces of an answer go together: a half in each would be the whole.
        let pieces = events.iter().filter_map(|event| event.data["text"].as_str());
        let pieces: String = pieces.collect();
        events.iter().fold(pieces, |all, event| all + &format!("{event:?}\n"))
    });
    told.recv().unwrap();
    client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({})).expect(202);
    let streamed = watching.join().unwrap();
    (run_id.clone(), client.get(&format!("/v1/runs/{run_id}")).expect(200).json(), streamed)
}

/// Everything that was found, by where it was.
#[derive(Default)]
struct Found(BTreeMap<String, String>);

impl Found {
    fn add(&mut self, place: &str, bytes: &[u8]) {
        self.0.insert(place.to_owned(), String::from_utf8_lossy(bytes).into_owned());
    }

    /// Files as they are, and what is packed in them.
    fn files(&mut self, path: &Path) {
        if path.is_dir() {
            std::fs::read_dir(path).unwrap().for_each(|entry| self.files(&entry.unwrap().path()));
            return;
        }
        let bytes = std::fs::read(path).unwrap();
        let zeros = [0; 4096];
        let written: Vec<u8> =
            bytes.chunks(4096).filter(|part| !zeros.starts_with(part)).flatten().copied().collect();
        let name = path.display().to_string();
        for (number, (at, _)) in
            written.windows(4).enumerate().filter(|(_, four)| *four == [0x28, 0xb5, 0x2f, 0xfd]).enumerate()
        {
            let mut unpacked = Vec::new();
            if let Ok(mut decoder) = zstd::stream::read::Decoder::new(&written[at..]) {
                // What is no packed part after all ends with an error, and what came before it counts.
                let _ = decoder.read_to_end(&mut unpacked);
            }
            self.add(&format!("{name} packed {number}"), &unpacked);
        }
        self.add(&name, &written);
    }
}

fn answers(found: &mut Found, node: &Node, client: &mut Client, runs: &[String]) {
    for run_id in runs {
        for path in [
            "",
            "/timeline?limit=1000",
            "/graph",
            "/cost",
            "/state",
            "/bundle",
            "/audit",
            "/patches",
            "/artifacts",
        ] {
            let answer = client.get(&format!("/v1/runs/{run_id}{path}"));
            assert!(answer.status < 500, "{path}: {}", answer.status);
            found.add(&format!("GET {run_id}{path}"), &answer.body);
        }
        for command in [["run", "explain", run_id.as_str()], ["run", "cost", run_id.as_str()]] {
            let (_, said, wrong) = super::replay::aob(Some(node), &command);
            found.add(&format!("aob {command:?}"), format!("{said}{wrong}").as_bytes());
        }
    }
    let today = "from=2020-01-01&to=2099-12-31";
    let mut paths: Vec<String> =
        ["/metrics", "/v1/node", "/v1/runs", "/v1/dlq", "/v1/breakers", "/v1/audit", "/v1/approvals"]
            .map(String::from)
            .into();
    paths.extend([
        "/v1/workflows".into(),
        "/v1/workflows/canaries".into(),
        format!("/v1/usage?{today}&by=model"),
    ]);
    let letters = client.get("/v1/dlq").expect(200).json();
    for letter in letters["letters"].as_array().unwrap() {
        paths.push(format!("/v1/dlq/{}", letter["id"].as_str().unwrap()));
    }
    for path in paths {
        let answer = client.get(&path);
        assert!(answer.status < 500, "{path}: {}", answer.status);
        found.add(&format!("GET {path}"), &answer.body);
    }
}

// F411, F412, F409, I-24
#[test]
fn no_secret_of_an_agent_stands_in_anything_that_the_node_writes_says_or_answers() {
    let (directory, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, secret) in CANARIES {
        std::fs::write(secrets.path().join(name), secret).unwrap();
    }
    let (service, asked) = outside();
    let node = Node::start(&options(directory.path(), secrets.path(), service));
    let mut client = node.client();
    client.post("/v1/workflows", &workflow(service)).expect(201);
    let (mut found, mut runs) = (Found::default(), Vec::new());
    for (case, status) in [
        ("case-fine", "completed"),
        ("case-repeat", "completed"),
        ("case-tools", "completed"),
        ("case-refused", "failed"),
        ("case-cut", "failed"),
        ("case-broken", "failed"),
    ] {
        let (run_id, run, streamed) = watched(&node, &mut client, case);
        assert_eq!(run["status"], status, "{case}: {run}");
        found.add(&format!("stream of {case}"), streamed.as_bytes());
        runs.push(run_id);
    }
    answers(&mut found, &node, &mut client, &runs);
    node.ask_to_end();
    let mut out = String::new();
    while let Some(line) = node.line() {
        out.push_str(&line);
    }
    found.add("stdout", out.as_bytes());
    found.add("stderr", node.finish().1.as_bytes());
    found.files(directory.path());
    // It was sent, in its place and nowhere else: no prompt holds one.
    for (at, (head, body)) in asked.lock().unwrap().iter().enumerate() {
        let mut rest = head.clone();
        for name in own(head.split(' ').nth(1).unwrap()) {
            assert!(head.contains(canary(name)), "{name}: {head}");
            rest = rest.replace(canary(name), "");
        }
        found.add(&format!("head sent {at}"), rest.as_bytes());
        found.add(&format!("body sent {at}"), body.as_bytes());
    }
    for place in
        ["stream of case-repeat", "stderr", &format!("GET {}/timeline?limit=1000", runs[2]), "body sent 1"]
    {
        assert!(found.0[place].contains(MARKER), "nothing is in {place}: {}", found.0[place]);
    }
    let in_files = found.0.iter().filter(|(place, text)| place.starts_with('/') && text.contains(MARKER));
    assert!(in_files.count() > 0, "the journal cannot be read");
    let redacted = found.0.values().filter(|text| text.contains("[redacted]")).count();
    assert!(redacted > 10, "{redacted} places say that something was left out");
    for (name, secret) in CANARIES {
        for spelling in forbidden(secret) {
            for (place, text) in &found.0 {
                let at = text.find(&spelling);
                let shown = at.map(|at| {
                    String::from_utf8_lossy(
                        &text.as_bytes()[at.saturating_sub(80)..(at + 80).min(text.len())],
                    )
                    .into_owned()
                });
                assert_eq!(shown, None, "{name} as {spelling} stands in {place}");
            }
        }
    }
}
