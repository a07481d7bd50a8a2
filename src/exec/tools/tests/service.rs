//! Tool servers over streamable HTTP, of both eras: written down from the specification, not from the client's library.

#![expect(clippy::disallowed_types, reason = "a service has a thread of its own")]

use std::sync::atomic::{AtomicBool, Ordering};

use super::http_tools::{answer, service};
use super::manners::{Does, Manner, told};
use super::*;

fn header<'r>(request: &'r str, name: &str) -> Option<&'r str> {
    let head = request.split("\r\n\r\n").next()?;
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// What a server answers to a request.
fn spoken(manner: Manner, events: bool, request: &str) -> String {
    let body = request.split_once("\r\n\r\n").unwrap().1;
    assert!(header(request, "accept").unwrap().contains("text/event-stream"), "{request}");
    if request.starts_with("DELETE") {
        return answer(200, "");
    }
    let message: serde_json::Value = serde_json::from_str(body).unwrap();
    let method = message["method"].as_str().unwrap_or_default();
    if manner.modern {
        assert_eq!(header(request, "mcp-protocol-version"), Some("2026-07-28"), "{request}");
        assert_eq!(header(request, "mcp-method"), Some(method), "{request}");
        assert_eq!(header(request, "mcp-session-id"), None, "{request}");
        if method == "tools/call" {
            assert_eq!(header(request, "mcp-name"), message["params"]["name"].as_str(), "{request}");
        }
    } else if method == "server/discover" {
        // As servers of that era do: no session, no service.
        return "HTTP/1.1 400 X\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\nno session".into();
    } else if method != "initialize" {
        assert_eq!(header(request, "mcp-session-id"), Some("s-1"), "{request}");
        assert_eq!(header(request, "mcp-protocol-version"), Some("2025-11-25"), "{request}");
    }
    let session = if method == "initialize" { "mcp-session-id: s-1\r\n" } else { "" };
    match told(manner, &message) {
        Does::Says(messages) if messages.is_empty() => "HTTP/1.1 202 X\r\ncontent-length: 0\r\n\r\n".into(),
        Does::Says(messages) if events || messages.len() > 1 => {
            let all: String =
                messages.iter().map(|message| format!("event: message\r\ndata: {message}\r\n\r\n")).collect();
            let length = all.len();
            format!(
                "HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n{session}content-length: {length}\r\n\r\n{all}"
            )
        }
        Does::Says(messages) => answer(200, &messages[0]).replacen("\r\n", &format!("\r\n{session}"), 1),
        Does::Dies | Does::Hangs | Does::Floods => String::new(),
    }
}

fn at(url: String) -> Server {
    let headers = [("authorization".to_owned(), "Bearer ${secret:TOKEN}".to_owned())].into();
    Server {
        at: At::Url { url, headers },
        timeout: Duration::from_secs(60),
        max_in_flight: 4,
        calls_per_minute: 0,
    }
}

fn with(
    spoken: impl Fn(&str) -> String + Send + 'static,
    test: impl AsyncFnOnce(Tools, Value, Arc<std::sync::Mutex<Vec<String>>>),
) {
    let (_directory, secrets) = secrets("TOKEN", "cAnary-web-9");
    let (address, asked) = service(spoken);
    let servers = [("it".into(), at(format!("http://{address}/mcp?a=b")))].into();
    let parts = Parts { servers, secrets, allow: vec![address.to_string()], ..Parts::default() };
    parts.run(async |tools| test(tools, json(r#"["mcp:it/*"]"#), asked).await);
}

// F337, F411, F429
#[test]
fn a_service_of_either_era_lists_and_answers() {
    for (role, events) in [("legacy", false), ("legacy", true), ("modern", false), ("modern", true)] {
        let manner = Manner::of(role);
        with(
            move |request| spoken(manner, events, request),
            async |tools, allowed, asked| {
                assert_eq!(tools.offered(&allowed).await.unwrap().len(), 12, "{role}");
                let say = async |text: &str| {
                    tools.ask(&allowed, "it__echo", &format!(r#"{{"text": "{text}"}}"#)).await.unwrap()
                };
                assert_eq!(say("hello").await, Value::string("hello"), "{role} {events}");
                assert_eq!(say("your cAnary-web-9").await, Value::string("your [redacted]"));
                let failed = tools.fails(&allowed, "it__fail", r#"{"text": "no"}"#).await;
                assert_eq!((&*failed.code, &*failed.message), ("tool_failed", "no"));
                for request in asked.lock().unwrap().iter() {
                    assert!(request.contains("/mcp?a=b HTTP/1.1"), "{request}");
                    assert_eq!(header(request, "authorization"), Some("Bearer cAnary-web-9"), "{request}");
                }
                let sent = |what: &str| asked.lock().unwrap().iter().filter(|it| it.contains(what)).count();
                assert_eq!(sent("tools/list"), 1, "{role}: the list is kept");
                assert_eq!(sent("GET "), 0, "{role}: no stream stands open");
            },
        );
    }
}

// F379, F388
#[test]
fn a_service_that_answers_nonsense_too_much_or_not_at_all_is_told_of_and_no_more() {
    for events in [false, true] {
        nonsense(events);
    }
}

fn nonsense(events: bool) {
    let manner = Manner::of("modern");
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let spoken = move |request: &str| match request {
        // A cut comes in the middle of the secret.
        _ if is_down.load(Ordering::Relaxed) => answer(503, &format!("{}cAnary-web-9", "x".repeat(196))),
        it if it.contains(r#""text":"html""#) => {
            "HTTP/1.1 200 X\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi".into()
        }
        it if it.contains(r#""text":"broken""#) => answer(200, "{broken"),
        it if it.contains(r#""text":"moved""#) => {
            "HTTP/1.1 302 X\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".into()
        }
        it => spoken(manner, events, it),
    };
    with(spoken, async |tools, allowed, asked| {
        tools.offered(&allowed).await.unwrap();
        let fails =
            async |text: &str| tools.fails(&allowed, "it__echo", &format!(r#"{{"text": "{text}"}}"#)).await;
        let ask = async || tools.ask(&allowed, "it__echo", r#"{"text": "x"}"#).await;
        for text in ["html", "broken", "moved"] {
            let failed = fails(text).await;
            assert_eq!(&*failed.code, "tool_unavailable", "{text}: {failed}");
            assert_eq!(ask().await, Ok(Value::string("x")), "after {text}");
        }
        let huge = tools.fails(&allowed, "it__huge", "{}").await;
        assert_eq!(&*huge.code, "tool_result_too_large", "{huge}");
        assert_eq!(ask().await, Ok(Value::string("x")), "after what was too large");
        let sample = tools.fails(&allowed, "it__sample", "{}").await;
        assert!(sample.message.contains("that is refused"), "{sample}");
        down.store(true, Ordering::Relaxed);
        for _ in 0..5 {
            let failed = fails("x").await;
            assert_eq!(&*failed.code, "tool_unavailable", "{failed}");
            assert!(!failed.message.contains("cAn"), "{failed}");
        }
        let before = asked.lock().unwrap().len();
        let open = fails("x").await;
        assert!(open.details.get("last_failure_at").is_some(), "{open:?}");
        assert_eq!(asked.lock().unwrap().len(), before);
    });
}

// F108
#[test]
fn no_tool_server_is_where_no_call_may_go() {
    let (address, asked) = service(|_| answer(200, "{}"));
    for url in [format!("http://{address}/mcp"), "http://169.254.169.254/".into(), "http://[::1]:9/".into()] {
        let (_directory, secrets) = secrets("TOKEN", "cAnary-web-9");
        let servers = [("it".into(), at(url.clone()))].into();
        Parts { servers, secrets, ..Parts::default() }.run(async |tools| {
            let failed = tools.offered(&json(r#"["mcp:it/*"]"#)).await.unwrap_err();
            assert_eq!(&*failed.code, "tool_unavailable", "{url}");
            assert!(failed.message.contains("address_refused"), "{url}: {failed}");
        });
    }
    assert!(asked.lock().unwrap().is_empty());
}
