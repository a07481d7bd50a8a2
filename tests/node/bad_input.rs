//! Hostile documents and requests: each a 4xx that names the place or the limit, memory stays flat, the node goes on.

use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, chain};

/// A document that must be refused: a name, the content type, the text, the status, and what the answer must name.
struct Document {
    what: &'static str,
    yaml: bool,
    text: Vec<u8>,
    names: &'static [&'static str],
}

fn yaml(what: &'static str, text: impl Into<Vec<u8>>, names: &'static [&'static str]) -> Document {
    Document { what, yaml: true, text: text.into(), names }
}

fn json_text(what: &'static str, text: impl Into<Vec<u8>>, names: &'static [&'static str]) -> Document {
    Document { what, yaml: false, text: text.into(), names }
}

fn of(what: &'static str, document: &Value, names: &'static [&'static str]) -> Document {
    json_text(what, document.to_string(), names)
}

fn one(node: &Value) -> Value {
    json!({"name": "w", "nodes": {"a": node}})
}

fn function(expr: &str) -> Value {
    one(&json!({"type": "function", "with": {"expr": expr}}))
}

fn documents() -> Vec<Document> {
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 9].join(", ");
            text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        text
    };
    let blocks = (0..10_000).map(|i| format!("{}k:\n", " ".repeat(i % 200))).collect::<String>();
    let wide = format!("{{\"name\":\"w\",\"nodes\":{{}},\"metadata\":[{}0]}}", "0,".repeat(300_000));
    let two = json!({"type": "function"});
    vec![
        yaml("alias bomb", bomb, &["value_count_max"]),
        yaml("deep flow", "[".repeat(10_000), &["value_depth_max"]),
        yaml("deep blocks", blocks, &["line"]),
        yaml("duplicate key", "name: w\nname: v\nnodes: {a: {type: function}}\n", &["name"]),
        yaml("tabs", "name: w\n\tnodes: {}\n", &["line"]),
        yaml("tag", "name: !!python/object x\nnodes: {}\n", &["tag"]),
        yaml("merge key", "x: &x {type: function}\nname: w\nnodes: {a: {<<: *x}}\n", &["<<"]),
        yaml("two documents", "name: w\n---\nname: v\n", &["document"]),
        yaml("unknown anchor", "name: *nobody\n", &["line"]),
        yaml("number as key", "name: w\nnodes: {1: {type: function}}\n", &["key"]),
        yaml("not a number", "name: w\nnodes: {a: {type: function}}\nmetadata: {x: .nan}\n", &["finite"]),
        yaml("invalid utf-8", b"name: \xff\xfe\n".to_vec(), &["UTF-8"]),
        json_text("deep lists", "[".repeat(10_000), &["value_depth_max"]),
        json_text("deep objects", "{\"a\":".repeat(10_000), &["value_depth_max"]),
        json_text("wide list", wide, &["value_count_max"]),
        json_text(
            "duplicate key",
            r#"{"name":"w","nodes":{"a":{"type":"function"},"a":{"type":"function"}}}"#,
            &["\"a\""],
        ),
        json_text("NaN", r#"{"name":"w","nodes":{"a":{"type":"function"}},"metadata":NaN}"#, &["line"]),
        json_text("1e400", r#"{"name":"w","nodes":{"a":{"type":"function"}},"metadata":1e400}"#, &["range"]),
        json_text("trailing data", r#"{"name":"w"} {}"#, &["line"]),
        json_text("cut", r#"{"name":"w","nodes":"#, &["line"]),
        json_text("invalid utf-8", b"{\"name\":\"\xff\"}".to_vec(), &["UTF-8"]),
        json_text("lone surrogate", r#"{"name":"\ud800"}"#, &["line"]),
        json_text("empty", "", &["empty"]),
        json_text("too big", format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20)), &["document_bytes_max"]),
        of("no nodes", &json!({"name": "w", "nodes": {}}), &["nodes"]),
        of("no name", &json!({"nodes": {"a": {"type": "function"}}}), &["name"]),
        of("unknown kind", &one(&json!({"type": "functoin"})), &["function"]),
        of(
            "a map over nothing",
            &one(&json!({"type": "map", "with": {"each": {"expr": "item"}}})),
            &["/nodes/a/with"],
        ),
        of("unknown key", &json!({"name": "w", "nodse": {}}), &["nodes"]),
        of("unknown setting", &one(&json!({"type": "delay", "with": {"fro": "1s"}})), &["for"]),
        of("bad id", &json!({"name": "w", "nodes": {"a b/c": {"type": "function"}}}), &["a b"]),
        of(
            "long id",
            &json!({"name": "w", "nodes": {("x".repeat(500)): {"type": "function"}}}),
            &["node_id_bytes_max"],
        ),
        of(
            "cycle",
            &json!({"name": "w", "nodes": {"a": two, "b": two},
            "edges": [{"from": "a", "to": "b"}, {"from": "b", "to": "a"}]}),
            &["cycle", "a", "b"],
        ),
        of(
            "self edge",
            &json!({"name": "w", "nodes": {"a": two}, "edges": [{"from": "a", "to": "a"}]}),
            &["a"],
        ),
        of(
            "dangling edge",
            &json!({"name": "w", "nodes": {"a": two}, "edges": [{"from": "a", "to": "z"}]}),
            &["z"],
        ),
        of(
            "join that cannot be",
            &json!({"name": "w", "nodes": {"a": two,
            "j": {"type": "join", "with": {"wait": {"at_least": 3}}}}, "edges": [{"from": "a", "to": "j"}]}),
            &["/nodes/j/with/wait"],
        ),
        of("bad expression", &function("1 +"), &["/nodes/a/with/expr"]),
        of("unknown function", &function("frobnicate(1)"), &["frobnicate"]),
        of("no ancestor", &function("nodes.b.output"), &["b"]),
        of(
            "deep expression",
            &function(&format!("{}1{}", "(".repeat(2_000), ")".repeat(2_000))),
            &["expression"],
        ),
        of("long expression", &function(&"1 + ".repeat(10_000)), &["expression_bytes_max"]),
        of("endless delay", &one(&json!({"type": "delay", "with": {"for": "9999999h"}})), &["duration"]),
        of("wasm", &one(&json!({"type": "function", "with": {"wasm": "x", "export": "y"}})), &["wasm"]),
    ]
}

#[test]
fn every_broken_document_is_refused_with_its_place_and_the_node_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("good", 2)).expect(201);
    let before = node.resident_kib();
    for document in documents() {
        let what = document.what;
        let kind = if document.yaml { "application/yaml" } else { "application/json" };
        let reply = client.request("POST", "/v1/workflows", &[("content-type", kind)], &document.text);
        let reply = reply.unwrap_or_else(|error| panic!("{what}: {error}"));
        let text = String::from_utf8(reply.body.clone()).unwrap();
        assert!((400..500).contains(&reply.status), "{what}: {} {text}", reply.status);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
        let problem = reply.json();
        assert!(problem["code"].is_string() && problem["title"].is_string(), "{what}: {text}");
        for name in document.names {
            assert!(text.contains(&name.replace('"', "\\\"")), "{what}: `{name}` is not in {text}");
        }
        // What validation says of it is the same refusal.
        let reply =
            client.request("POST", "/v1/workflows/validate", &[("content-type", kind)], &document.text);
        assert!(reply.unwrap().status <= 422, "{what}");
    }
    let after = node.resident_kib();
    assert!(after < before + 64 * 1024, "memory stays flat: {before} -> {after} KiB");
    let body = json!({"workflow": "good", "inputs": {"n": 1}});
    client.post_with("/v1/runs", &[("prefer", "wait=10")], &body).unwrap().expect(200);
}

/// A request that must be refused: method, path, headers, body, status, and what the answer must name.
type Request =
    (&'static str, &'static str, &'static [(&'static str, &'static str)], Vec<u8>, u16, &'static str);

fn requests() -> Vec<Request> {
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const NOBODY: &str = "/v1/runs/run_01968d0d000070008000000000000000";
    let deep = format!("{{\"workflow\":\"good\",\"inputs\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let wide = format!("{{\"workflow\":\"good\",\"inputs\":[{}0]}}", "0,".repeat(1_000_000));
    vec![
        ("POST", "/v1/runs", JSON, b"{".to_vec(), 400, "line"),
        ("POST", "/v1/runs", JSON, b"[]".to_vec(), 400, "object"),
        ("POST", "/v1/runs", JSON, b"{}".to_vec(), 400, "workflow"),
        ("POST", "/v1/runs", JSON, br#"{"workflow":"nobody","inputs":{}}"#.to_vec(), 404, "nobody"),
        ("POST", "/v1/runs", JSON, br#"{"workflow":"good","input":{}}"#.to_vec(), 400, "inputs"),
        ("POST", "/v1/runs", JSON, br#"{"workflow":"good","inputs":{"a":1,"a":2}}"#.to_vec(), 400, "twice"),
        ("POST", "/v1/runs", JSON, br#"{"workflow":"good","inputs":NaN}"#.to_vec(), 400, "line"),
        ("POST", "/v1/runs", JSON, b"{\"workflow\":\"\xff\"}".to_vec(), 400, "unicode"),
        ("POST", "/v1/runs", JSON, deep.into_bytes(), 422, "value_depth_max"),
        ("POST", "/v1/runs", JSON, wide.into_bytes(), 422, "value_count_max"),
        ("POST", "/v1/runs", &[("content-type", "text/plain")], b"hello".to_vec(), 415, "application/json"),
        (
            "POST",
            "/v1/runs",
            &[("content-type", "application/json"), ("idempotency-key", "")],
            br#"{"workflow":"good","inputs":{"n":1}}"#.to_vec(),
            400,
            "dempotency",
        ),
        ("GET", "/v1/runs/run_7f3e4a", &[], Vec::new(), 400, "run_7f3e4a"),
        ("GET", NOBODY, &[], Vec::new(), 404, "run_"),
        ("POST", "/v1/runs/run_01968d0d000070008000000000000000/cancel", JSON, b"{}".to_vec(), 404, "run_"),
        ("GET", "/v1/runs?limit=0", &[], Vec::new(), 400, "limit"),
        ("GET", "/v1/runs?limit=100000", &[], Vec::new(), 400, "page_rows_max"),
        ("GET", "/v1/runs?cursor=%00", &[], Vec::new(), 400, "cursor"),
        ("GET", "/v1/runs?status=undead", &[], Vec::new(), 400, "status"),
        ("DELETE", "/v1/runs", &[], Vec::new(), 405, "DELETE"),
        ("GET", "/v1/nowhere", &[], Vec::new(), 404, "/v1/nowhere"),
        ("GET", "/v1/workflows/nobody", &[], Vec::new(), 404, "nobody"),
    ]
}

#[test]
fn every_broken_request_is_refused_with_its_place_and_the_node_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("good", 2)).expect(201);
    for (method, path, headers, body, status, name) in requests() {
        let reply = client.request(method, path, headers, &body);
        let reply = reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert_eq!(
            reply.status,
            status,
            "{method} {path} {:?}: {text}",
            String::from_utf8_lossy(&body[..body.len().min(80)])
        );
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{method} {path}: {text}");
        assert!(text.contains(name), "{method} {path}: `{name}` is not in {text}");
    }
    let body = json!({"workflow": "good", "inputs": {"n": 1}});
    client.post_with("/v1/runs", &[("prefer", "wait=10")], &body).unwrap().expect(200);
}

#[test]
fn a_body_of_64_mib_is_refused_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let before = node.resident_kib();
    let size = 64 << 20;
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    );
    let reply = Client::new(&node.address).raw(head.as_bytes()).unwrap();
    assert_eq!(reply.status, 413);
    assert!(String::from_utf8_lossy(&reply.body).contains("request_body_bytes_max"));
    // And when its length is not told: while reading.
    let mut stream = std::net::TcpStream::connect(&node.address).unwrap();
    let head = "POST /v1/runs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    // The node stops reading and answers; writes may fail from then on.
    for _ in 0..64 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    let after = node.resident_kib();
    assert!(after < before + 32 * 1024, "memory stays flat: {before} -> {after} KiB");
    assert_eq!(node.client().get("/livez").status, 200);
}

#[test]
fn a_head_that_is_too_long_or_never_ends_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "y".repeat(64 << 10));
    if let Ok(reply) = Client::new(&node.address).raw(head.as_bytes()) {
        assert_eq!(reply.status, 431);
    }
    assert_eq!(node.client().get("/livez").status, 200);
}
