//! The one door: what is refused before anything is connected to, and what a service sees of a call.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "a service has a thread of its own")]

#[path = "http_tests/breakers.rs"]
mod breakers;
#[path = "http_tests/tls.rs"]
mod tls;

use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use super::super::hostile::HOSTILE;
use super::*;
use crate::exec::Rule;
use crate::model::Partition;
use crate::time::Timestamp;

/// Answers each request with the next of `answers`, on as many connections as come; keeps what was asked.
struct Service {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

fn service(answers: Vec<String>) -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        'connections: while let Ok((mut stream, _)) = listener.accept() {
            loop {
                let Some(request) = read_request(&mut stream) else { continue 'connections };
                kept.lock().unwrap().push(request);
                let Some(answer) = answers.next() else { return };
                if answer.is_empty() {
                    // It takes the request and says nothing.
                    continue 'connections;
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    Service { address, asked }
}

fn read_request(stream: &mut std::net::TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head
        .to_ascii_lowercase()
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn to(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

impl Service {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn call(request: &str) -> Call {
    Call {
        run_id: RunId::new(Timestamp::from_micros(1), Partition::new(0), [1; 10]),
        place: Place::root(0),
        path: "a".into(),
        seq: 3,
        attempt: 2,
        epoch: 7,
        lost: false,
        workflow: "w".into(),
        request: Value::from_json(request.as_bytes()).unwrap(),
        due: None,
        unguarded: false,
    }
}

fn settings(allow: &[&str]) -> Settings {
    let allow = allow.iter().map(|rule| Rule::parse(rule).unwrap()).collect();
    Settings { allow, calls_max: 64, calls_per_host_max: 8, ..Settings::default() }
}

fn run<F: Future<Output = ()>>(parts: (Settings, Secrets, Lookup), test: impl FnOnce(Http) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (http, jobs) = Http::new();
        let (settings, secrets, lookup) = parts;
        tokio::task::spawn_local(serve_with(settings, secrets, jobs, lookup));
        test(http).await;
    });
}

fn never() -> Lookup {
    Box::new(|host, _| Box::pin(async move { panic!("looked up {host}") }))
}

fn as_at(host: &'static str, address: SocketAddr) -> Lookup {
    Box::new(move |name, _| {
        Box::pin(async move {
            assert_eq!(name, host);
            Ok(vec![address])
        })
    })
}

async fn refused(http: &Http, request: &str) -> String {
    let failure = http.call(call(request)).await.unwrap_err();
    assert!(!failure.retryable(), "{request}: {failure:?}");
    failure.code.to_string()
}

// F108, RELIABILITY F9
#[test]
fn no_spelling_of_a_closed_address_is_connected_to() {
    // Somebody who would answer, if anybody came.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    run((settings(&[]), Secrets::default(), never()), async |http| {
        for url in HOSTILE {
            let url = url.replacen("/", &format!(":{port}/"), 3).replacen(&format!(":{port}/"), "/", 2);
            let request = Value::map([("url", Value::string(url.as_str()))]).to_json();
            assert_eq!(refused(&http, &request).await, "address_refused", "{url}");
        }
        for url in [
            "http://user@example.com/",
            "http://127.0.0.1:80@example.com/",
            "http://a:b@[::1]/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "ftp://127.0.0.1/",
            "//127.0.0.1/",
            "http://",
            "http:///",
            "http://[::1",
            "127.0.0.1",
            "http://1.2.3.4.5/",
            "http://256.256.256.256/",
            "http://exa mple.com/",
            "http://a<b>c/",
            "http://x:0/",
            "http://x:99999/",
            "javascript:alert(1)",
            "data:text/plain,x",
            "unix:/run/x.sock",
        ] {
            let request = Value::map([("url", Value::string(url))]).to_json();
            assert_eq!(refused(&http, &request).await, "http_request_invalid", "{url}");
        }
    });
    assert!(listener.accept().is_err(), "nobody came");
}

#[test]
fn names_are_judged_by_every_address_they_have() {
    let closed: [&[&str]; 5] = [
        &["127.0.0.1:80"],
        &["93.184.216.34:80", "10.0.0.1:80"],
        &["[::1]:80"],
        &["[::ffff:169.254.169.254]:80"],
        &["93.184.216.34:80", "[fe80::1]:80"],
    ];
    for addresses in closed {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let lookup: Lookup = Box::new(move |_, _| {
            let addresses = addresses.clone();
            Box::pin(async move { Ok(addresses) })
        });
        run((settings(&[]), Secrets::default(), lookup), async |http| {
            assert_eq!(refused(&http, r#"{"url": "http://innocent.example/"}"#).await, "address_refused");
        });
    }
}

#[test]
fn a_name_that_changes_its_answer_gains_nothing() {
    // The first answer is a place that may be reached, the second one that may not: it is asked for once a connection.
    let service = service(vec![to(302, "/again"), ok("{}")]);
    let (open, asked) = (service.address, Rc::new(Cell::new(0)));
    let count = asked.clone();
    let lookup: Lookup = Box::new(move |_, _| {
        count.set(count.get() + 1);
        let answer = if count.get() == 1 { open } else { SocketAddr::from(([10, 0, 0, 1], 80)) };
        Box::pin(async move { Ok(vec![answer]) })
    });
    let allow = [open.to_string()];
    run((settings(&[&allow[0]]), Secrets::default(), lookup), async |http| {
        let request = format!(r#"{{"url": "http://rebind.example:{}/"}}"#, open.port());
        // The redirect needs a connection; the one that was used was not kept, so the name is looked up and judged again.
        assert_eq!(refused(&http, &request).await, "address_refused");
    });
    assert_eq!((asked.get(), service.asked().len()), (2, 1));
}

#[test]
fn redirects_are_judged_like_any_call() {
    for (location, code) in [
        ("http://127.0.0.2/", "address_refused"),
        ("http://169.254.169.254/latest/", "address_refused"),
        ("//[::1]/", "address_refused"),
        ("file:///etc/passwd", "http_request_invalid"),
        ("http://u:p@127.0.0.1/", "http_request_invalid"),
        ("http://[", "redirect_refused"),
    ] {
        let service = service(vec![to(302, location)]);
        let allow = service.address.to_string();
        run((settings(&[&allow]), Secrets::default(), never()), async |http| {
            let request = format!(r#"{{"url": "{}"}}"#, service.url("/"));
            assert_eq!(refused(&http, &request).await, code, "{location}");
        });
    }
    let service = service((0..9).map(|_| to(307, "/round")).collect());
    let allow = service.address.to_string();
    run((settings(&[&allow]), Secrets::default(), never()), async |http| {
        assert_eq!(
            refused(&http, &format!(r#"{{"url": "{}"}}"#, service.url("/"))).await,
            "too_many_redirects"
        );
    });
    assert_eq!(service.asked().len(), 1 + limits::HTTP_REDIRECTS_MAX as usize);
}

#[test]
fn what_is_confidential_stays_with_its_place() {
    let other = service(vec![ok("{}")]);
    let first = service(vec![to(302, &other.url("/there"))]);
    let allow = [first.address.to_string(), other.address.to_string()];
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("KEY"), "the-secret-value").unwrap();
    let secrets = Secrets { directory: Some(directory.path().to_owned()), credentials: None };
    run((settings(&[&allow[0], &allow[1]]), secrets, never()), async |http| {
        let request = format!(
            r#"{{"url": "{}", "headers": {{"x-key": "${{secret:KEY}}", "authorization": "a", "x-plain": "p"}},
               "secrets": [{{"at": "/headers/x-key", "name": "KEY"}}]}}"#,
            first.url("/")
        );
        http.call(call(&request)).await.unwrap();
    });
    assert!(first.asked()[0].contains("x-key: the-secret-value"), "{:?}", first.asked());
    let there = &other.asked()[0];
    assert!(!there.contains("the-secret-value") && !there.contains("authorization"), "{there}");
    assert!(there.contains("x-plain: p") && there.starts_with("GET /there "), "{there}");
}

// F026, F411
#[test]
fn a_service_sees_who_calls_and_secrets_do_not_come_back() {
    let service = service(vec![
        ok(r#"{"you": "said the-secret-value", "hex": "7468652d7365637265742d76616c7565"}"#),
        ok("[1]"),
    ]);
    let allow = service.address.to_string();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("KEY"), "the-secret-value\n").unwrap();
    let secrets = Secrets { directory: Some(directory.path().to_owned()), credentials: None };
    run((settings(&["localhost"]), secrets, as_at("localhost", service.address)), async |http| {
        let request = r#"{"method": "post", "url": "http://localhost/x?a=1", "query": {"q": "ö &", "k": "${secret:KEY}"},
            "headers": {"x-data": "${secret:KEY}"}, "body": {"n": [1, "${secret:KEY}"]},
            "secrets": [{"at": "/query/k", "name": "KEY"}, {"at": "/body/n/1", "name": "KEY"}]}"#;
        let url = format!("http://localhost:{}/x?a=1", service.address.port());
        let request = request.replace("http://localhost/x?a=1", &url);
        let answer = http.call(call(&request)).await.unwrap();
        let said = answer.get("body").unwrap().to_json();
        assert_eq!(said, r#"{"hex":"[redacted]","you":"said [redacted]"}"#);
        // The connection is kept, and used again.
        let answer = http.call(call(&format!(r#"{{"url": "{url}"}}"#))).await.unwrap();
        assert_eq!(answer.get("status"), Some(&Value::Int(200)));
    });
    let _ = allow;
    let asked = service.asked();
    let first = &asked[0];
    assert!(first.starts_with("POST /x?a=1&k=the-secret-value&q=%C3%B6+%26 HTTP/1.1"), "{first}");
    assert!(first.contains("x-data: ${secret:KEY}"), "what came with data is data: {first}");
    assert!(first.ends_with(r#"{"n":[1,"the-secret-value"]}"#), "{first}");
    let key = idempotency_key(call("{}").run_id, &Place::root(0));
    for header in [
        format!("idempotency-key: {key}"),
        "aob-attempt: 2".into(),
        "aob-epoch: 7".into(),
        format!("traceparent: {}", traceparent(call("{}").run_id, 3)),
        "content-type: application/json".into(),
        format!("host: localhost:{}", service.address.port()),
    ] {
        assert!(first.contains(&format!("\r\n{header}\r\n")), "{header} is not in {first}");
    }
}

#[test]
fn only_what_is_listed_is_reached_when_there_is_a_list() {
    let service = service(vec![ok("{}")]);
    let own = service.address.to_string();
    let mut settings = settings(&[]);
    settings.only = vec![Rule::parse("api.example.com:443").unwrap()];
    run((settings, Secrets::default(), never()), async |http| {
        assert_eq!(refused(&http, r#"{"url": "http://1.1.1.1/"}"#).await, "address_refused");
        assert_eq!(refused(&http, &format!(r#"{{"url": "http://{own}/"}}"#)).await, "address_refused");
    });
}

#[test]
fn statuses_and_broken_answers_are_failures_with_a_class() {
    let large = "x".repeat(limits::HTTP_ANSWER_BYTES_MAX + 1);
    let cases = [
        ("HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_owned(), "http_status", true),
        ("HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_owned(), "rate_limit", true),
        ("HTTP/1.1 404 X\r\ncontent-length: 2\r\n\r\nno".to_owned(), "http_status", false),
        (ok("{"), "answer_invalid", false),
        (ok(&large), "answer_too_large", false),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\nx".to_owned(),
            "answer_invalid",
            false,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_owned(), "", true),
        (String::new(), "connection_lost", true),
    ];
    for (answer, code, retryable) in cases.into_iter().filter(|(_, code, _)| !code.is_empty()) {
        let service = service(vec![answer.clone()]);
        let own = service.address.to_string();
        run((settings(&[&own]), Secrets::default(), never()), async |http| {
            let failure =
                http.call(call(&format!(r#"{{"url": "{}"}}"#, service.url("/")))).await.unwrap_err();
            assert_eq!((&*failure.code, failure.retryable()), (code, retryable), "{failure:?}");
            if answer.contains("retry-after") {
                assert_eq!(failure.details.get("retry_after_ms"), Some(&Value::Int(7_000)));
            }
        });
    }
}

#[test]
fn what_must_not_be_repeated_is_not_when_nobody_knows_its_effect() {
    let unkeyed = r#""method": "POST", "headers": {"Idempotency-Key": null}"#;
    let service = service(vec![String::new(), String::new(), ok("{}")]);
    let own = service.address.to_string();
    run((settings(&[&own]), Secrets::default(), never()), async |http| {
        let url = service.url("/");
        let failure = http.call(call(&format!(r#"{{"url": "{url}", {unkeyed}}}"#))).await.unwrap_err();
        assert_eq!((&*failure.code, failure.retryable()), ("outcome_unknown", false));
        let keyed = http.call(call(&format!(r#"{{"url": "{url}", "method": "POST"}}"#))).await.unwrap_err();
        assert_eq!((&*keyed.code, keyed.retryable()), ("connection_lost", true));
        let lost = Call { lost: true, ..call(&format!(r#"{{"url": "{url}", {unkeyed}}}"#)) };
        assert_eq!(&*http.call(lost).await.unwrap_err().code, "outcome_unknown");
    });
    assert_eq!(service.asked().len(), 2, "what was lost is not sent");
    assert!(!service.asked()[0].to_ascii_lowercase().contains("idempotency-key"));
    run((settings(&[]), Secrets::default(), never()), async |http| {
        let request = r#"{"url": "http://1.1.1.1/", "headers": {"host": "x"}}"#;
        assert_eq!(refused(&http, request).await, "http_request_invalid");
        let request = r#"{"url": "http://1.1.1.1/", "headers": {"x": "a\r\nb: c"}}"#;
        assert_eq!(refused(&http, request).await, "http_request_invalid");
    });
}

#[test]
fn a_call_that_is_given_up_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    let (read, seen) = oneshot::channel();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut stream).unwrap();
        read.send(()).unwrap();
        // The end of the connection, not an answer, ends this.
        stream.read(&mut [0]).map_or(0, |read| read)
    });
    run((settings(&[&own.to_string()]), Secrets::default(), never()), async |http| {
        tokio::select! {
            answer = http.call(call(&format!(r#"{{"url": "http://{own}/"}}"#))) => panic!("{answer:?}"),
            _ = seen => {}
        }
        // Given up; the executor's thread is this one.
        while !peer.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(peer.join().unwrap(), 0);
}
