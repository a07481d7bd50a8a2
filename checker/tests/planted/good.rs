//! A small history in which nothing is wrong: six runs, two of them patched and decided upon, a kill, two
//! dumps.

use serde_json::{Value, json};

/// Events of one run: type, node, millisecond, further members.
type Events = Vec<(&'static str, &'static str, u64, Value)>;

fn calls() -> Events {
    vec![
        ("run.started", "", 0, json!({"hash": "sha256:calls", "inputs": {"token": "t:1"}, "epoch": 1})),
        ("node.started", "a", 0, json!({"attempt": 1})),
        ("node.waiting", "a", 0, json!({"waiting_for": "call", "due": "2027-01-15T08:01:00.000Z"})),
        ("node.lost", "a", 200, json!({})),
        ("node.completed", "a", 210, json!({"output": {"status": 200, "body": {"answer": "t:a2"}}})),
        ("node.started", "b", 210, json!({"attempt": 1})),
        ("node.waiting", "b", 210, json!({"waiting_for": "call", "due": "2027-01-15T09:00:00.000Z"})),
        ("node.leased", "b", 220, json!({"worker": "w"})),
        ("node.retry_scheduled", "b", 230, json!({"error": {"message": "t:f1"}, "due": at(240)})),
        ("timer.fired", "b", 240, json!({})),
        ("node.started", "b", 240, json!({"attempt": 2})),
        ("node.waiting", "b", 240, json!({"waiting_for": "call", "due": "2027-01-15T09:00:00.000Z"})),
        ("node.leased", "b", 250, json!({"worker": "w"})),
        ("node.completed", "b", 260, json!({"output": {"token": "t:c1"}})),
        ("run.completed", "", 260, json!({"outputs": {}})),
    ]
}

fn waits() -> Events {
    vec![
        ("run.started", "", 10, json!({"hash": "sha256:waits", "inputs": {"token": "t:2"}, "epoch": 1})),
        ("node.started", "pause", 10, json!({"attempt": 1})),
        ("node.waiting", "pause", 10, json!({"waiting_for": "timer", "due": at(60)})),
        ("timer.fired", "pause", 61, json!({})),
        ("node.completed", "pause", 61, json!({"output": null})),
        ("node.started", "answer", 61, json!({"attempt": 1})),
        ("node.waiting", "answer", 61, json!({"waiting_for": "signal", "signal": "go"})),
        ("signal.received", "answer", 70, json!({"signal": "go", "payload": {"token": "t:s1"}})),
        ("node.completed", "answer", 70, json!({"output": {"token": "t:s1"}})),
        ("run.completed", "", 70, json!({"outputs": {}})),
    ]
}

fn cancelled() -> Events {
    vec![
        ("run.started", "", 20, json!({"hash": "sha256:waits", "inputs": {"token": "t:3"}, "epoch": 1})),
        ("node.started", "pause", 20, json!({"attempt": 1})),
        ("node.waiting", "pause", 20, json!({"waiting_for": "timer", "due": at(1_000)})),
        ("run.cancel_requested", "", 80, json!({"reason": "t:x1"})),
        ("run.cancelled", "", 80, json!({"reason": "t:x1"})),
    ]
}

fn open() -> Events {
    vec![
        ("run.started", "", 30, json!({"hash": "sha256:waits", "inputs": {"token": "t:4"}, "epoch": 1})),
        ("node.started", "pause", 30, json!({"attempt": 1})),
        ("node.waiting", "pause", 30, json!({"waiting_for": "timer", "due": "2027-01-15T09:00:00.000Z"})),
    ]
}

/// The graph of `r5` after its patch, as another program says: Python's `json.dumps(_, sort_keys=True)`, SHA-256.
pub(crate) const PATCHED: &str = "sha256:d8656f1709e5a0c3f52d57ad797c313299f43203b2ba288d6d4c592aa87e08f4";

fn operations() -> Value {
    json!([{"op": "add", "path": "/nodes/x", "value": {"type": "function"}},
        {"op": "add", "path": "/edges/after~1x", "value": {"from": "after", "to": "x"}}])
}

/// One patch waits and is not wanted, one waits and is made.
fn held() -> Events {
    let held =
        |id: &str, token: &str| json!({"patch_id": id, "justification": token, "operations": operations()});
    let decided = |id: &str, approved: bool, token: &str| json!({"patch_id": id, "approved": approved, "reason": token});
    vec![
        ("run.started", "", 50, json!({"hash": "sha256:reviewed", "inputs": {"token": "t:6"}, "epoch": 1})),
        ("node.started", "ask", 50, json!({"attempt": 1})),
        ("node.waiting", "ask", 50, json!({"waiting_for": "human"})),
        ("patch.held", "", 51, held("p1", "t:h1")),
        ("patch.decided", "", 52, decided("p1", false, "t:n1")),
        ("patch.held", "", 53, held("p2", "t:h2")),
        ("patch.decided", "", 54, decided("p2", true, "t:y2")),
        ("patch.created", "", 54, held("p2", "t:h2")),
        ("patch.applied", "", 54, json!({"version": 2, "hash": PATCHED})),
        ("run.cancel_requested", "", 55, json!({"reason": "t:x6"})),
        ("run.cancelled", "", 55, json!({"reason": "t:x6"})),
    ]
}

fn reviewed() -> Events {
    let operations = operations();
    vec![
        ("run.started", "", 40, json!({"hash": "sha256:reviewed", "inputs": {"token": "t:5"}, "epoch": 1})),
        ("node.started", "ask", 40, json!({"attempt": 1})),
        ("node.waiting", "ask", 40, json!({"waiting_for": "human"})),
        ("patch.created", "", 41, json!({"justification": "t:p1", "operations": operations})),
        ("patch.applied", "", 41, json!({"version": 2, "hash": PATCHED})),
        ("approval.decided", "ask", 42, json!({"approved": true, "reason": "t:d1"})),
        ("node.completed", "ask", 42, json!({"output": {"approved": true}})),
        ("node.started", "after", 42, json!({"attempt": 1})),
        ("node.completed", "after", 42, json!({"output": 1})),
        ("node.started", "x", 42, json!({"attempt": 1})),
        ("node.completed", "x", 42, json!({"output": 1})),
        ("run.completed", "", 42, json!({"outputs": {}})),
    ]
}

/// So many milliseconds after the beginning, as the node writes it.
pub(crate) fn at(milliseconds: u64) -> String {
    format!("2027-01-15T08:00:{:02}.{:03}Z", milliseconds / 1_000, milliseconds % 1_000)
}

/// An event as the node shows it.
fn event(index: usize, (kind, node, ms, more): &(&str, &str, u64, Value)) -> Value {
    let mut event = json!({"seq": index + 1, "type": kind, "at": at(*ms)});
    if !node.is_empty() {
        event["node"] = json!(node);
    }
    for (member, value) in more.as_object().into_iter().flatten() {
        event[member] = value.clone();
    }
    event
}

/// All runs: id, events, status.
fn runs() -> Vec<(&'static str, Vec<Value>, &'static str)> {
    let events = |events: Events| events.iter().enumerate().map(|(i, e)| event(i, e)).collect();
    vec![
        ("r1", events(calls()), "completed"),
        ("r2", events(waits()), "completed"),
        ("r3", events(cancelled()), "cancelled"),
        ("r4", events(open()), "running"),
        ("r5", events(reviewed()), "completed"),
        ("r6", events(held()), "cancelled"),
    ]
}

fn dump(lines: &mut Vec<Value>, dump: u64, at_us: u64) {
    lines.push(json!({"kind": "dump", "at_us": at_us, "dump": dump, "still": dump > 1}));
    for (id, events, status) in runs() {
        let body = json!({"run_id": id, "status": status, "seq": events.len(), "outputs": {}});
        let mut run = json!({"kind": "run", "dump": dump, "run": id, "body": body, "listed": true});
        if status == "running" {
            run["waits"] = json!(["timer"]);
        }
        lines.push(run);
        lines.extend(
            events.iter().map(|event| json!({"kind": "row", "dump": dump, "run": id, "event": event})),
        );
    }
}

fn acknowledged(at_us: u64, op: u64, run: &str, (seq, status): (u64, &str)) -> Value {
    json!({"kind": "ok", "at_us": at_us, "op": op, "run": run, "seq": seq, "status": status,
        "durability": "fsync", "epoch": 1})
}

fn started(at_us: u64, op: u64, run: &str) -> Value {
    let mut ok = acknowledged(at_us, op, run, (3, "running"));
    ok["body"] = json!({"run_id": run, "status": "running", "seq": 3});
    ok
}

fn invoke(at_us: u64, op: u64, process: &str, more: Value) -> Value {
    let mut line = json!({"kind": "invoke", "at_us": at_us, "op": op, "process": process});
    for (member, value) in more.as_object().into_iter().flatten() {
        line[member] = value.clone();
    }
    line
}

/// So many milliseconds after the beginning, which is 2027-01-15T08:00:00Z.
pub(crate) fn wall_ms(milliseconds: u64) -> u64 {
    1_800_000_000_000 + milliseconds
}

fn fault(at_us: u64, what: &str, ms: u64) -> Value {
    json!({"kind": "fault", "at_us": at_us, "what": what, "wall_ms": wall_ms(ms)})
}

fn call(at_us: u64, ms: u64, more: Value) -> Value {
    let mut line = json!({"kind": "call", "at_us": at_us, "wall_ms": wall_ms(ms), "service": "shop", "key": "ka",
        "run": "r1", "node": "a", "attempt": 1, "epoch": 1, "honours": true, "effect": true});
    for (member, value) in more.as_object().into_iter().flatten() {
        line[member] = value.clone();
    }
    line
}

fn starts(lines: &mut Vec<Value>) {
    let key = json!({"what": "start", "key": "k1", "token": "t:1"});
    lines.push(invoke(10, 1, "c1", key.clone()));
    lines.push(invoke(11, 2, "c2", key.clone()));
    lines.push(started(20, 1, "r1"));
    let mut replayed = started(21, 2, "r1");
    replayed["replayed"] = json!(true);
    lines.push(replayed);
    for (op, run) in [(3, "r2"), (4, "r3"), (5, "r4")] {
        lines.push(invoke(20 + op, op, "c1", json!({"what": "start", "token": format!("t:{}", op - 1)})));
        lines.push(started(20 + op, op, run));
    }
    lines.push(invoke(30, 6, "c2", json!({"what": "start", "key": "k1", "token": "t:other"})));
    lines.push(json!({"kind": "fail", "at_us": 31, "op": 6, "code": "idempotency_key_reused"}));
}

fn steers(lines: &mut Vec<Value>) {
    lines.push(json!({"kind": "open", "at_us": 40, "stream": 1, "process": "c3", "run": "r2", "after": 0}));
    let streamed = runs().remove(1).1;
    let delivered = |stream: u64, seq: usize| json!({"kind": "event", "at_us": 50 + stream, "stream": stream, "seq": seq, "event": streamed[seq - 1]});
    lines.extend((1..=4).map(|seq| delivered(1, seq)));
    lines.push(json!({"kind": "close", "at_us": 52, "stream": 1}));
    lines.push(json!({"kind": "open", "at_us": 52, "stream": 2, "process": "c3", "run": "r2", "after": 4}));
    lines.extend((5..=8).map(|seq| delivered(2, seq)));
    lines.push(json!({"kind": "resync", "at_us": 53, "stream": 2}));
    lines.push(invoke(60, 7, "c1", json!({"what": "signal", "run": "r2", "token": "t:s1"})));
    lines.push(acknowledged(61, 7, "r2", (10, "completed")));
    lines.push(invoke(62, 8, "c1", json!({"what": "cancel", "run": "r3", "token": "t:x1"})));
    lines.push(acknowledged(63, 8, "r3", (5, "cancelled")));
    lines.push(invoke(64, 9, "c2", json!({"what": "read", "run": "r2", "min_seq": 10})));
    lines.push(acknowledged(65, 9, "r2", (10, "completed")));
    lines.push(invoke(66, 10, "c1", json!({"what": "signal", "run": "r4", "token": "t:s2"})));
    lines.push(json!({"kind": "fail", "at_us": 67, "op": 10, "code": "limit_reached"}));
    lines.push(invoke(68, 11, "c1", json!({"what": "signal", "run": "r4", "token": "t:s3"})));
    lines.push(fault(69, "kill", 180));
    lines.push(json!({"kind": "unknown", "at_us": 70, "op": 11}));
}

fn works(lines: &mut Vec<Value>) {
    lines.push(fault(80, "restart", 199));
    lines.push(call(81, 201, json!({"attempt": 2, "epoch": 2, "effect": false, "answer": "t:a2"})));
    lines.push(invoke(90, 12, "w", json!({"what": "poll"})));
    lines.push(json!({"kind": "ok", "at_us": 91, "op": 12}));
    let job = json!({"service": "worker", "key": "kb", "node": "b", "epoch": 2, "honours": false});
    lines.push(call(91, 221, job.clone()));
    lines.push(invoke(92, 13, "w", json!({"what": "fail", "run": "r1", "node": "b", "token": "t:f1"})));
    lines.push(json!({"kind": "ok", "at_us": 93, "op": 13, "run": "r1"}));
    let mut again = call(94, 251, job);
    again["attempt"] = json!(2);
    lines.push(again);
    lines.push(invoke(95, 14, "w", json!({"what": "complete", "run": "r1", "node": "b", "token": "t:c1"})));
    lines.push(json!({"kind": "ok", "at_us": 96, "op": 14, "run": "r1"}));
    lines.push(invoke(97, 15, "c1", json!({"what": "read", "run": "r1"})));
    lines.push(acknowledged(98, 15, "r1", (15, "completed")));
    lines.push(invoke(99, 16, "c1", json!({"what": "read", "run": "r1"})));
    lines.push(acknowledged(100, 16, "r1", (15, "completed")));
}

fn changes(lines: &mut Vec<Value>) {
    let asks = [("start", "t:5", 3), ("patch", "t:p1", 5), ("decide", "t:d1", 12)];
    for (op, (what, token, seq)) in (80..).zip(asks) {
        lines.push(invoke(102, op, "c4", json!({"what": what, "run": "r5", "token": token})));
        lines.push(acknowledged(102, op, "r5", (seq, "running")));
    }
    // The same again, under its key.
    let at = lines.len() - 4;
    lines[at]["key"] = json!("k2");
    lines.push(invoke(102, 91, "c4", json!({"what": "patch", "run": "r5", "key": "k2", "token": "t:p1"})));
    let mut again = acknowledged(102, 91, "r5", (5, "running"));
    again["replayed"] = json!(true);
    lines.push(again);
    let decided = |id: &str, state: &str| json!({"patch_id": id, "state": state});
    let asks = [
        ("start", "t:6", 3, json!({})),
        ("patch", "t:h1", 4, decided("p1", "held")),
        ("decline", "t:n1", 5, decided("p1", "rejected")),
        ("patch", "t:h2", 6, decided("p2", "held")),
        ("approve", "t:y2", 9, decided("p2", "applied")),
        // The same again leaves nothing.
        ("approve", "t:y3", 9, decided("p2", "applied")),
        ("cancel", "t:x6", 11, json!({})),
    ];
    for (op, (what, token, seq, body)) in (84..).zip(asks) {
        lines.push(invoke(102, op, "c5", json!({"what": what, "run": "r6", "token": token})));
        let status = if what == "cancel" { "cancelled" } else { "running" };
        let mut ok = acknowledged(102, op, "r6", (seq, status));
        ok["body"] = body;
        lines.push(ok);
    }
    // What would change nothing leaves nothing, and names no patch.
    lines.push(invoke(103, 92, "c4", json!({"what": "patch", "run": "r5", "token": "t:p2"})));
    let mut unchanged = acknowledged(103, 92, "r5", (12, "completed"));
    unchanged["body"] = json!({"graph_version": 2, "hash": PATCHED});
    lines.push(unchanged);
    // The same verdict again.
    lines.push(invoke(103, 83, "c4", json!({"what": "decide", "run": "r5", "token": "t:d2"})));
    let mut again = acknowledged(104, 83, "r5", (12, "completed"));
    again["replayed"] = json!(true);
    lines.push(again);
}

/// The whole of it.
pub(crate) fn history() -> Vec<Value> {
    let mut lines = vec![
        json!({"kind": "head", "version": 1, "seed": 7, "durability": "fsync", "clock_slack_ms": 0, "timer_late_ms_max": 100}),
    ];
    let chain = |nodes: Value, edges: Value| json!({"nodes": nodes, "edges": edges});
    let documents = [
        ("calls", json!({"a": {"type": "http"}, "b": {"type": "task"}}), json!([{"from": "a", "to": "b"}])),
        (
            "waits",
            json!({"pause": {"type": "delay"}, "answer": {}}),
            json!({"pause/answer": {"from": "pause", "to": "answer"}}),
        ),
    ];
    for (name, nodes, edges) in documents {
        let document = chain(nodes, edges);
        lines.push(json!({"kind": "document", "hash": format!("sha256:{name}"), "document": document}));
    }
    let ask = json!({"type": "human_review", "with": {"reviewers": ["ops"]}});
    let reviewed = json!({"name": "reviewed", "limits": {"nodes": 3}, "nodes": {"ask": ask, "after": {"type": "function"}},
        "edges": {"ask/after": {"from": "ask", "to": "after", "on": "approved"}}});
    lines.push(json!({"kind": "document", "hash": "sha256:reviewed", "document": reviewed}));
    starts(&mut lines);
    lines.push(call(35, 5, json!({"answer": "t:a1"})));
    steers(&mut lines);
    works(&mut lines);
    changes(&mut lines);
    lines.push(fault(110, "heal", 900));
    dump(&mut lines, 1, 111);
    lines.push(fault(112, "kill", 1_000));
    lines.push(fault(113, "restart", 1_100));
    dump(&mut lines, 2, 114);
    lines
}
