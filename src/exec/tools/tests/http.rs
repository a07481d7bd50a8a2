//! HTTP tools: what a service sees, what a model is told, and who is not called.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "a service has a thread of its own")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use super::*;

/// Answers every request alike; keeps what was asked.
pub(super) fn service(
    answer: impl Fn(&str) -> String + Send + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            while let Some(request) = read_request(&mut stream) {
                kept.lock().unwrap().push(request.clone());
                let answer = answer(&request);
                if answer.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (address, asked)
}

fn read_request(stream: &mut std::net::TcpStream) -> Option<String> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let lower = head.to_ascii_lowercase();
    let length = lower
        .split_once("content-length: ")
        .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

pub(super) fn answer(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn weather(http: &str, more: &str) -> Value {
    json(&format!(
        r#"[{{"name": "weather", "description": "d", "http": {http}, "parameters": {{"type": "object",
            "properties": {{"city": {{"type": "string"}}, "days": {{}}}}, "required": ["city"]}}{more}}}]"#
    ))
}

// F337, F411
#[test]
fn a_service_is_asked_as_the_document_says_and_no_secret_comes_back() {
    let (_directory, secrets) = secrets("KEY", "cAnary-4711");
    let (address, asked) = service(|_| answer(200, r#"{"you sent": "cAnary-4711", "t": 7}"#));
    let parts = Parts { allow: vec![address.to_string()], secrets, ..Parts::default() };
    parts.run(async |tools| {
        let allowed = weather(
            &format!(
                r#"{{"url": "http://{address}/v1/{{city}}", "headers": {{"x-key": "${{secret:KEY}}"}}}}"#
            ),
            "",
        );
        assert_eq!(&*tools.offered(&allowed).await.unwrap()[0].name, "weather");
        let value =
            tools.ask(&allowed, "weather", r#"{"city": "Bad Ems/..", "days": [1, 2]}"#).await.unwrap();
        assert_eq!(value.to_json(), r#"{"body":{"t":7,"you sent":"[redacted]"},"status":200}"#);
        let seen = asked.lock().unwrap()[0].clone();
        assert!(seen.starts_with("GET /v1/Bad%20Ems%2F..?days=1&days=2 HTTP/1.1"), "{seen}");
        assert!(seen.contains("x-key: cAnary-4711") && seen.contains("idempotency-key: "), "{seen}");
        // The same call has the same key, another one another.
        tools.ask(&allowed, "weather", r#"{"city": "Bad Ems/..", "days": [1, 2]}"#).await.unwrap();
        let other = ToolCall { id: "call_2".into(), ..asks("weather", r#"{"city": "x"}"#) };
        tools.call(&name(), &allowed, &other).await.outcome.unwrap();
        let keys: Vec<String> = asked
            .lock()
            .unwrap()
            .iter()
            .map(|request| {
                request.split("idempotency-key: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned()
            })
            .collect();
        assert!(keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
        let wrong = tools.fails(&allowed, "weather", r#"{"city": 7}"#).await;
        assert_eq!(&*wrong.code, "tool_arguments_invalid");
        let cells = tools.counts().snapshot();
        assert_eq!(cells["weather"].outcomes[0].value(), 3);
        assert_eq!(asked.lock().unwrap().len(), 3);
    });
}

// F108
#[test]
fn no_tool_reaches_what_no_call_may() {
    let (address, asked) = service(|_| answer(200, "{}"));
    Parts::default().run(async |tools| {
        let rebound = format!("http://{}/{{city}}", address);
        for url in
            [&*rebound, "http://169.254.169.254/{city}", "http://[::1]:1/{city}", "http://0x7f.1/{city}"]
        {
            let allowed = weather(&format!(r#"{{"url": "{url}"}}"#), "");
            let failure = tools.fails(&allowed, "weather", r#"{"city": "latest"}"#).await;
            assert_eq!(&*failure.code, "tool_failed", "{url}: {failure}");
            assert_eq!(
                failure.details.get("cause").and_then(Value::as_str),
                Some("address_refused"),
                "{url}"
            );
        }
        assert!(asked.lock().unwrap().is_empty());
    });
}

// F379, F383, F388
#[test]
fn what_services_say_is_told_in_the_words_for_tools() {
    let (address, asked) = service(|request| match request {
        it if it.contains("/limited") => {
            "HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
        it if it.contains("/missing") => answer(404, r#"{"why": "no such city"}"#),
        it if it.contains("/down") => answer(503, "{}"),
        it if it.contains("/large") => answer(200, &format!("\"{}\"", "x".repeat(3 << 20))),
        it if it.contains("/cut") => String::new(),
        _ => answer(200, "{}"),
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let allow = vec![address.to_string(), closed.to_string()];
    Parts { allow, http_calls_per_minute: 20, ..Parts::default() }.run(async |tools| {
        let allowed = weather(&format!(r#"{{"method": "POST", "url": "http://{address}/{{city}}"}}"#), "");
        let fails =
            async |city: &str| tools.fails(&allowed, "weather", &format!(r#"{{"city": "{city}"}}"#)).await;
        let limited = fails("limited").await;
        assert_eq!(
            (&*limited.code, limited.retry_after()),
            ("tool_rate_limited", Some(Duration::from_secs(7)))
        );
        let missing = fails("missing").await;
        assert_eq!((&*missing.code, missing.retryable()), ("tool_failed", false));
        assert!(missing.details.to_json().contains("no such city"), "{missing:?}");
        assert_eq!(&*fails("large").await.code, "tool_result_too_large");
        // A POST that may not be repeated, and nobody knows.
        assert_eq!(&*fails("cut").await.code, "outcome_unknown");
        let lost = CallName { lost: true, ..name() };
        let lost = tools.call(&lost, &allowed, &asks("weather", r#"{"city": "x"}"#)).await;
        assert_eq!(&*lost.outcome.unwrap_err().code, "outcome_unknown");
        // Down five times: then left alone.
        for _ in 0..5 {
            assert_eq!(&*fails("down").await.code, "tool_unavailable");
        }
        let before = asked.lock().unwrap().len();
        let open = fails("fine").await;
        assert_eq!(&*open.code, "tool_unavailable");
        assert!(open.retry_after().is_some() && open.details.get("last_failure_at").is_some(), "{open:?}");
        assert_eq!(asked.lock().unwrap().len(), before, "nobody was asked");
        // Another host has a pace and a breaker of its own: nobody listens there.
        let allowed = weather(&format!(r#"{{"url": "http://{closed}/{{city}}"}}"#), "");
        let refused = tools.fails(&allowed, "weather", r#"{"city": "x"}"#).await;
        assert_eq!((&*refused.code, refused.retryable()), ("tool_unavailable", true));
    });
}

// F383
#[test]
fn a_host_gets_so_many_calls_a_minute() {
    let (address, asked) = service(|_| answer(200, "{}"));
    let allow = vec![address.to_string()];
    Parts { allow, http_calls_per_minute: 3, ..Parts::default() }.run(async |tools| {
        let allowed = weather(&format!(r#"{{"url": "http://{address}/{{city}}"}}"#), r#", "timeout": "5s""#);
        for _ in 0..3 {
            tools.ask(&allowed, "weather", r#"{"city": "x"}"#).await.unwrap();
        }
        let refused = tools.fails(&allowed, "weather", r#"{"city": "x"}"#).await;
        assert_eq!((&*refused.code, asked.lock().unwrap().len()), ("tool_rate_limited", 3));
        assert!(refused.retry_after().unwrap() <= Duration::from_secs(20), "{refused:?}");
    });
}
