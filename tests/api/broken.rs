//! Broken requests: each is a 4xx problem document that names the code, the place or the limit, and the node goes on.

use std::net::SocketAddr;

use serde_json::Value as Json;

use super::double::with_node;
use super::{Answer, get, post, raw, request};
use aob::limits;

const JSON: &str = "content-type: application/json";
const RUN: &str = "/v1/runs/run_018bcfe568007fffbfffffffffffffff";

/// One broken request and what it must be answered with.
struct Case {
    what: &'static str,
    pieces: Vec<Vec<u8>>,
    status: u16,
    code: &'static str,
    /// Must stand in the body: a limit's name, a pointer, a suggestion.
    names: &'static str,
}

fn start(
    what: &'static str,
    body: impl AsRef<[u8]>,
    (status, code, names): (u16, &'static str, &'static str),
) -> Case {
    let pieces = vec![request("POST /v1/runs", &[JSON], body.as_ref())];
    Case { what, pieces, status, code, names }
}

fn plain(
    what: &'static str,
    line: &str,
    headers: &[&str],
    (status, code, names): (u16, &'static str, &'static str),
) -> Case {
    Case { what, pieces: vec![request(line, headers, b"")], status, code, names }
}

fn bodies() -> Vec<Case> {
    let nested =
        |depth: usize| format!(r#"{{"workflow":"w","inputs":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let wide = format!(r#"{{"workflow":"w","inputs":[{}0]}}"#, "0,".repeat(limits::VALUE_COUNT_MAX));
    let long_key =
        format!(r#"{{"workflow":"w","inputs":{{"{}":1}}}}"#, "k".repeat(limits::KEY_BYTES_MAX + 1));
    vec![
        start("no JSON at all", "hello", (400, "malformed_json", "\"line\":1")),
        start("half a document", r#"{"workflow":"w","#, (400, "malformed_json", "\"column\"")),
        start("more after the document", r#"{"workflow":"w"} {}"#, (400, "malformed_json", "\"line\":1")),
        start("NaN", r#"{"workflow":"w","inputs":{"a":NaN}}"#, (400, "malformed_json", "/inputs")),
        start("a number too large", r#"{"workflow":"w","inputs":1e999}"#, (400, "malformed_json", "/inputs")),
        start(
            "a key twice in the inputs",
            r#"{"workflow":"w","inputs":{"a":1,"a":2}}"#,
            (400, "invalid_body", "stands twice"),
        ),
        start("a member twice", r#"{"workflow":"w","workflow":"v"}"#, (400, "invalid_body", "/workflow")),
        start("10,000 deep", nested(10_000), (422, "limit_exceeded", "value_depth_max")),
        start(
            "one level too deep",
            nested(limits::VALUE_DEPTH_MAX + 2),
            (422, "limit_exceeded", "value_depth_max"),
        ),
        start("200,001 values", wide, (422, "limit_exceeded", "value_count_max")),
        start("a long key", long_key, (422, "limit_exceeded", "key_bytes_max")),
        start(
            "invalid UTF-8",
            b"{\"workflow\":\"w\",\"inputs\":\"\xff\xfe\"}",
            (400, "malformed_json", "/inputs"),
        ),
        start(
            "a lone surrogate",
            r#"{"workflow":"w","inputs":"\ud800"}"#,
            (400, "malformed_json", "/inputs"),
        ),
        start("an unknown member", r#"{"workflo":"w"}"#, (400, "unknown_member", "did you mean")),
        start("a list", "[]", (400, "invalid_body", "a JSON object")),
        start("no workflow", "{}", (400, "invalid_body", "is missing")),
        start("a workflow that is a number", r#"{"workflow":7}"#, (400, "invalid_body", "/workflow")),
        start("two versions", r#"{"workflow":"w@1","version":"2"}"#, (422, "version_mismatch", "version")),
        start("an unknown workflow", r#"{"workflow":"none"}"#, (404, "workflow_not_found", "none")),
        start(
            "a long name",
            format!(r#"{{"workflow":"{}"}}"#, "w".repeat(129)),
            (422, "limit_exceeded", "name_bytes_max"),
        ),
        start("inputs that do not fit", r#"{"workflow":"w","inputs":{}}"#, (422, "invalid_inputs", "topic")),
        start("an empty body", "", (400, "malformed_json", "\"line\"")),
    ]
}

fn heads(live: &str) -> Vec<Case> {
    let announced = format!("content-length: {}", 64 << 20);
    let long_key = format!("idempotency-key: {}", "k".repeat(256));
    let huge = format!("x-huge: {}", "h".repeat(limits::REQUEST_HEAD_BYTES_MAX));
    let far_too_huge = huge.repeat(5);
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let mut chunked = vec![request("POST /v1/runs", &[JSON, "transfer-encoding: chunked"], b"")];
    chunked.extend(std::iter::repeat_n(chunk, 64));
    vec![
        Case {
            what: "64 MiB announced",
            pieces: vec![request("POST /v1/runs", &[JSON, &announced], b"")],
            status: 413,
            code: "body_too_large",
            names: "request_body_bytes_max",
        },
        Case {
            what: "64 MiB in chunks",
            pieces: chunked,
            status: 413,
            code: "body_too_large",
            names: "request_body_bytes_max",
        },
        plain("no content type", "POST /v1/runs", &[], (415, "unsupported_media_type", "application/json")),
        plain(
            "a form",
            "POST /v1/runs",
            &["content-type: application/x-www-form-urlencoded"],
            (415, "unsupported_media_type", "form"),
        ),
        plain(
            "a body packed in a way not known",
            "POST /v1/workflows",
            &[JSON, "content-encoding: br"],
            (415, "unsupported_encoding", "Content-Encoding"),
        ),
        plain("a method nobody serves", "DELETE /v1/runs", &[], (405, "method_not_allowed", "POST")),
        plain("a method not served here", "POST /v1/node", &[], (405, "method_not_allowed", "GET")),
        plain("a path nobody serves", "GET /v1/nothing", &[], (404, "route_not_found", "/v1/nothing")),
        plain(
            "a path too long",
            "GET /v1/runs/a/b/c/d/e/f/g",
            &[],
            (404, "route_not_found", "nothing is served"),
        ),
        plain(
            "an id that is none",
            "GET /v1/runs/run_7",
            &[],
            (400, "invalid_run_id", "32 hexadecimal digits"),
        ),
        plain("a run there is not", &format!("GET {RUN}"), &[], (404, "run_not_found", "run_018b")),
        plain(
            "events of a run there is not",
            &format!("GET {RUN}/events"),
            &[],
            (404, "run_not_found", "run_018b"),
        ),
        plain(
            "another run's event id",
            &format!("GET {live}/events"),
            &["last-event-id: run_x:3"],
            (400, "invalid_cursor", "Last-Event-ID"),
        ),
        plain(
            "events as JSON",
            &format!("GET {live}/events"),
            &["accept: application/json"],
            (406, "not_acceptable", "text/event-stream"),
        ),
        plain(
            "a run as HTML",
            &format!("GET {live}"),
            &["accept: text/html, image/*"],
            (406, "not_acceptable", "application/json"),
        ),
        plain(
            "a long key",
            "POST /v1/runs",
            &[JSON, &long_key],
            (400, "invalid_idempotency_key", "idempotency_key_bytes_max"),
        ),
        plain(
            "an empty key",
            "POST /v1/runs",
            &[JSON, "idempotency-key: "],
            (400, "invalid_idempotency_key", "visible ASCII"),
        ),
        plain(
            "a key with a space",
            "POST /v1/runs",
            &[JSON, "idempotency-key: a b"],
            (400, "invalid_idempotency_key", "visible ASCII"),
        ),
        plain("a huge header", "GET /v1/runs", &[&huge], (431, "head_too_large", "request_head_bytes_max")),
        plain(
            "a hundred headers too many",
            "GET /v1/runs",
            &["x: y"; 101],
            (431, "head_too_large", "100 headers"),
        ),
        plain(
            "80 KiB of head",
            "GET /v1/runs",
            &[&far_too_huge],
            (431, "head_too_large", "request_head_bytes_max"),
        ),
        plain("a line that is no request", "\u{1}\u{2}", &[], (400, "malformed_request", "HTTP/1.1")),
        plain("a bad cursor", "GET /v1/runs?cursor=zzz", &[], (400, "invalid_cursor", "next_cursor")),
        plain("a bad status", "GET /v1/runs?status=done", &[], (400, "invalid_parameter", "completed")),
        plain(
            "a page too large",
            "GET /v1/runs?limit=1001",
            &[],
            (400, "invalid_parameter", "page_rows_max"),
        ),
        plain("an unknown parameter", "GET /v1/runs?limt=1", &[], (400, "unknown_parameter", "did you mean")),
        plain(
            "a broken escape",
            "GET /v1/runs?status=%zz",
            &[],
            (400, "invalid_parameter", "percent-encoded"),
        ),
        plain(
            "a timeline from nowhere",
            &format!("GET {live}/timeline?after=x"),
            &[],
            (400, "invalid_cursor", "event number"),
        ),
        plain(
            "a signal without a name",
            &format!("POST {RUN}/signals/%ff"),
            &[],
            (400, "invalid_path", "UTF-8"),
        ),
        plain(
            "a signal for nobody",
            &format!("POST {RUN}/signals/go"),
            &[],
            (404, "run_not_found", "run_018b"),
        ),
    ]
}

fn documents() -> Vec<Case> {
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(limits::DOCUMENT_BYTES_MAX));
    let post = |what, path: &str, body: &str, (status, code, names)| Case {
        what,
        pieces: vec![request(&format!("POST {path}"), &[JSON], body.as_bytes())],
        status,
        code,
        names,
    };
    vec![
        post("a document that is none", "/v1/workflows", "[", (422, "workflow_invalid", "\"errors\":[")),
        post(
            "a document without a name",
            "/v1/workflows",
            r#"{"nodes":{"a":{"type":"function"}}}"#,
            (422, "workflow_invalid", "name"),
        ),
        post(
            "a kind that is not here",
            "/v1/workflows",
            r#"{"name":"x","nodes":{"a":{"type":"function","with":{"wasm":"x","export":"y"}}}}"#,
            (422, "workflow_unavailable", "/nodes/a"),
        ),
        post(
            "a document too large",
            "/v1/workflows",
            &large,
            (413, "document_too_large", "document_bytes_max"),
        ),
        post(
            "a document to validate",
            "/v1/workflows/validate",
            "{",
            (422, "workflow_invalid", "\"valid\":false"),
        ),
    ]
}

fn check(case: &Case, answer: &Answer) {
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, case.status, "{}: {}", case.what, answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", case.what);
    let problem: Json = answer.json();
    assert_eq!(problem["code"], case.code, "{}: {body}", case.what);
    assert_eq!(problem["type"], format!("/problems/{}", case.code.replace('_', "-")), "{}", case.what);
    assert_eq!(problem["status"], case.status, "{}", case.what);
    assert!(body.contains(case.names), "{}: {:?} is not in {body}", case.what, case.names);
    assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"), "{}", case.what);
    // What cannot even be parsed has no path.
    let parsed = answer.header("x-request-id").is_some();
    assert_eq!(problem["instance"].is_string(), parsed, "{}", case.what);
}

async fn register(address: SocketAddr) {
    let document = r#"{"name":"w","version":"1","inputs":{"type":"object","required":["topic"]},"nodes":{"a":{"type":"function"}}}"#;
    assert_eq!(post(address, "/v1/workflows", &[], document).await.status, 201);
}

#[test]
fn every_broken_request_is_a_problem_that_names_what_is_wrong() {
    with_node(async |address| {
        register(address).await;
        let body = r#"{"workflow":"w","inputs":{"topic":"x"}}"#;
        let started = post(address, "/v1/runs", &[], body).await.json();
        // Whose run it is is asked first, so what is wrong with a request about a run takes one.
        let live = format!("/v1/runs/{}", started["run_id"].as_str().unwrap());
        let cases: Vec<Case> = [bodies(), heads(&live), documents()].into_iter().flatten().collect();
        assert!(cases.len() >= 50, "{}", cases.len());
        for case in cases {
            let answer = raw(address, case.pieces.clone()).await;
            check(&case, &answer);
            assert_eq!(get(address, "/livez").await.status, 200, "after {}", case.what);
        }
    });
}

#[test]
fn values_at_the_edge_of_a_limit_are_taken() {
    with_node(async |address| {
        register(address).await;
        let depth = limits::VALUE_DEPTH_MAX - 1;
        let deep =
            format!(r#"{{"workflow":"w","inputs":{{"topic":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth));
        let key = format!("idempotency-key: {}", "k".repeat(limits::IDEMPOTENCY_KEY_BYTES_MAX));
        assert_eq!(post(address, "/v1/runs", &[&key], &deep).await.status, 202);
        let full = limits::REQUEST_BODY_BYTES_MAX - r#"{"workflow":"w","inputs":{"topic":""}}"#.len();
        let full = format!(r#"{{"workflow":"w","inputs":{{"topic":"{}"}}}}"#, "x".repeat(full));
        assert_eq!(post(address, "/v1/runs", &[], &full).await.status, 202);
        assert_eq!(get(address, "/v1/runs?limit=1000").await.status, 200);
    });
}

#[test]
fn a_method_that_is_not_served_says_which_are() {
    with_node(async |address| {
        let answer = raw(address, vec![request("PUT /v1/runs", &[], b"")]).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, POST")));
    });
}

#[test]
fn a_head_that_does_not_arrive_is_answered_in_time() {
    with_node(async |address| {
        let answer = raw(address, vec![b"GET /livez HTTP/1.1\r\nhost:".to_vec()]).await;
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert_eq!(answer.json()["limit"], "request_head_seconds_max");
    });
}
