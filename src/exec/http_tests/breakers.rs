//! Services that are left alone: one call tries them out, and the others wait for what comes of it.

use std::sync::atomic::AtomicU64;

use super::*;
use crate::time::simulated;

const SECOND: u64 = 1_000_000;

thread_local! {
    static NOW_US: AtomicU64 = const { AtomicU64::new(0) };
}

fn hands() -> (u64, u64) {
    let now_us = NOW_US.with(|now| now.load(Ordering::Relaxed));
    (now_us, now_us)
}

fn later(seconds: u64) {
    NOW_US.with(|now| now.fetch_add(seconds * SECOND, Ordering::Relaxed));
}

fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")
}

async fn code(http: &Http, request: &str) -> String {
    http.call(call(request)).await.map_or_else(|failure| failure.code.to_string(), |_| "ok".into())
}

// F364, F365, F366, F367, F368
#[test]
fn one_call_tries_a_service_out_and_the_others_wait_for_what_comes_of_it() {
    simulated::set(Some(hands));
    let answers = [500, 500, 500, 500, 200, 200, 200].map(status).to_vec();
    let service = service(answers);
    let mut settings = settings(&[&service.address.to_string()]);
    settings.breaker.config.failure_threshold = 3;
    let request = format!(r#"{{"url": "{}", "service": "crm"}}"#, service.url("/a"));
    let other = format!(r#"{{"url": "{}"}}"#, service.url("/b"));
    run((settings, Secrets::default(), never()), async |http| {
        for _ in 0..3 {
            assert_eq!(code(&http, &request).await, "http_status");
        }
        assert_eq!(code(&http, &request).await, "circuit_breaker_open");
        let unguarded = Call { unguarded: true, ..call(&request) };
        assert_eq!(&*http.call(unguarded).await.unwrap_err().code, "http_status", "it is made all the same");
        assert_eq!(code(&http, &other).await, "ok", "by its address it is another service");
        assert_eq!(service.asked().len(), 5);
        later(60);
        let asked = [code(&http, &request), code(&http, &request)];
        let [first, second] = asked;
        assert_eq!(
            tokio::join!(first, second),
            ("ok".into(), "ok".into()),
            "the second waited for the first"
        );
        let standings = http.breakers().standings(None);
        let [standing] = &standings[..] else { panic!("{standings:?}") };
        assert_eq!((&*standing.key.1, standing.transitions), ("crm", [1, 1, 1]));
    });
    simulated::set(None);
}

#[test]
fn whoever_waited_is_refused_when_the_service_does_not_work_yet() {
    simulated::set(Some(hands));
    let service = service([503, 503].map(status).to_vec());
    let mut settings = settings(&[&service.address.to_string()]);
    settings.breaker.config.failure_threshold = 1;
    let request = format!(r#"{{"url": "{}"}}"#, service.url("/a"));
    run((settings, Secrets::default(), never()), async |http| {
        assert_eq!(code(&http, &request).await, "http_status");
        later(60);
        let (tried, waited) = tokio::join!(code(&http, &request), http.call(call(&request)));
        let refused = waited.unwrap_err();
        assert_eq!((&*tried, &*refused.code), ("http_status", "circuit_breaker_open"));
        assert_eq!(refused.retry_after(), Some(std::time::Duration::from_secs(60)));
        assert_eq!(service.asked().len(), 2);
    });
    simulated::set(None);
}

// F364, F373: who has too much to do is waited for as told; he is not left alone, and who is tried out is not given up.
#[test]
fn a_service_that_sheds_load_is_not_left_alone_and_a_date_says_when_to_come_back() {
    simulated::set(Some(hands));
    let busy = |status: u16, after: &str| {
        format!("HTTP/1.1 {status} X\r\nretry-after: {after}\r\ncontent-length: 0\r\n\r\n")
    };
    let mut answers = vec![busy(529, "2"), busy(503, "Thu, 01 Jan 1970 00:00:09 GMT"), status(529)];
    answers.extend((0..7).map(|_| busy(429, "1")));
    answers.extend([status(500), status(500), status(500), busy(503, "3"), status(200), status(200)]);
    let service = service(answers);
    let mut settings = settings(&[&service.address.to_string()]);
    settings.breaker.config.failure_threshold = 3;
    let request = format!(r#"{{"url": "{}", "service": "crm"}}"#, service.url("/a"));
    let start = NOW_US.with(|now| now.load(Ordering::Relaxed));
    run((settings, Secrets::default(), never()), async |http| {
        let mut waits = Vec::new();
        for _ in 0..10 {
            let failure = http.call(call(&request)).await.unwrap_err();
            assert!(matches!(&*failure.code, "http_status" | "rate_limit"), "{failure}");
            waits.push(failure.retry_after().map(|after| after.as_secs()));
        }
        let date = 9_u64.saturating_sub(start / SECOND);
        assert_eq!(waits[..4], [Some(2), Some(date), None, Some(1)]);
        assert_eq!(http.breakers().standings(None), [], "who never failed has no breaker");
        for _ in 0..3 {
            assert_eq!(code(&http, &request).await, "http_status");
        }
        assert_eq!(code(&http, &request).await, "circuit_breaker_open");
        later(60);
        assert_eq!(code(&http, &request).await, "http_status", "it is tried out, and has too much to do");
        later(3);
        assert_eq!(code(&http, &request).await, "ok");
        assert_eq!(code(&http, &request).await, "ok");
        let standings = http.breakers().standings(None);
        assert_eq!(standings[0].transitions, [1, 1, 1], "opened once");
    });
    simulated::set(None);
}
