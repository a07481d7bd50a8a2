//! Conditions and content codings: what a client knows already is not sent, what it expects is held, what is large is packed.

use std::io::{Read as _, Write as _};

use serde_json::json;

use super::double::with_node;
use super::{Answer, get, post, raw, request};

const SLOW: &str = r#"{"name":"slow","version":"1","nodes":{"a":{"type":"function"}}}"#;
const JSON: &str = "content-type: application/json";

async fn asked(address: std::net::SocketAddr, line: &str, headers: &[&str]) -> Answer {
    raw(address, vec![request(line, headers, b"")]).await
}

fn gunzipped(bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut whole).unwrap();
    whole
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_is_known_is_not_sent_again() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], SLOW).await;
        let run = post(address, "/v1/runs", &[], r#"{"workflow":"slow"}"#).await.json();
        for path in [format!("/v1/runs/{}", run["run_id"].as_str().unwrap()), "/v1/workflows/slow".into()] {
            let tag = get(address, &path).await.header("etag").unwrap().to_owned();
            for (known, status) in [
                (tag.clone(), 304),
                (format!("W/{tag}"), 304),
                (format!("\"x\", {tag}"), 304),
                (format!("{}-gzip\"", tag.trim_end_matches('"')), 304),
                (String::from("*"), 304),
                (String::from("\"x\", W/\"y\""), 200),
                (String::from("x"), 200),
            ] {
                let header = format!("if-none-match: {known}");
                let answer = asked(address, &format!("GET {path}"), &[&header]).await;
                assert_eq!(answer.status, status, "{known}: {}", answer.text());
                assert_eq!(answer.body.is_empty(), status == 304);
                if status == 304 {
                    let shown = if known == "*" || known.contains(',') { tag.clone() } else { known };
                    assert_eq!(answer.header("etag"), Some(&*shown));
                    assert_eq!(answer.header("vary"), Some("accept-encoding"));
                }
            }
        }
    });
}

#[test]
fn a_run_that_went_on_is_not_steered_by_who_has_not_seen_it() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], SLOW).await;
        let run = post(address, "/v1/runs", &[], r#"{"workflow":"slow"}"#).await.json();
        let path = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
        let mut tag = get(address, &path).await.header("etag").unwrap().to_owned();
        for verb in ["pause", "resume", "signals/other", "cancel"] {
            let route = format!("POST {path}/{verb}");
            for stale in ["\"999\"", "\"none\"", "W/\"2\"", "\"1\", \"999-gzip\""] {
                let refused = asked(address, &route, &[&format!("if-match: {stale}")]).await;
                assert_eq!(
                    (refused.status, &refused.json()["code"]),
                    (412, &json!("precondition_failed")),
                    "{verb} {stale}"
                );
                assert_eq!(get(address, &path).await.header("etag"), Some(&*tag), "nothing was done");
            }
            let broken = asked(address, &route, &["if-match: 3"]).await;
            assert_eq!((broken.status, &broken.json()["code"]), (400, &json!("invalid_precondition")));
            let done = asked(address, &route, &[&format!("if-match: \"1\", {tag}")]).await;
            assert!(matches!(done.status, 200 | 202), "{verb}: {}", done.text());
            done.header("etag").unwrap().clone_into(&mut tag);
        }
        // It has ended: the condition is judged first, then what is asked.
        let ended = format!("POST {path}/terminate");
        assert_eq!(asked(address, &ended, &["if-match: \"1\""]).await.status, 412);
        assert_eq!(
            asked(address, &ended, &[&format!("if-match: {tag}")]).await.json()["code"],
            "run_finished"
        );
        assert_eq!(asked(address, &ended, &["if-match: *"]).await.json()["code"], "run_finished");
    });
}

#[test]
fn large_answers_are_packed_as_the_client_likes() {
    with_node(async |address| {
        let plain = get(address, "/openapi.json").await;
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
        for (accept, coding) in [
            ("gzip", Some("gzip")),
            ("zstd", Some("zstd")),
            ("gzip, zstd;q=0.1", Some("gzip")),
            ("gzip;q=0", None),
            ("br", None),
        ] {
            let header = format!("accept-encoding: {accept}");
            let answer = asked(address, "GET /openapi.json", &[&header]).await;
            assert_eq!(answer.header("content-encoding"), coding, "{accept}");
            let body = match coding {
                Some("gzip") => gunzipped(&answer.body),
                Some(_) => zstd::decode_all(answer.body.as_slice()).unwrap(),
                None => answer.body.clone(),
            };
            assert!(body == plain.body, "{accept}");
            assert!(coding.is_none() || answer.body.len() < plain.body.len() / 2);
            // HEAD says the same and brings nothing.
            let head = asked(address, "HEAD /openapi.json", &[&header]).await;
            assert_eq!(head.header("content-length"), answer.header("content-length"), "{accept}");
            assert_eq!((head.header("content-encoding"), head.body.len()), (coding, 0));
        }
        // Small ones are not, nor are streams; a packed one has a tag of its own.
        let version = asked(address, "GET /version", &["accept-encoding: gzip"]).await;
        assert_eq!((version.header("content-encoding"), version.header("vary")), (None, None));
        let inputs = json!({"text": "x".repeat(4_000)});
        post(address, "/v1/workflows", &[], SLOW).await;
        let run =
            post(address, "/v1/runs", &[], &json!({"workflow": "slow", "inputs": inputs}).to_string()).await;
        let path = format!("/v1/runs/{}", run.json()["run_id"].as_str().unwrap());
        let packed = asked(address, &format!("GET {path}"), &["accept-encoding: gzip"]).await;
        assert_eq!(
            (packed.header("content-encoding"), packed.header("etag")),
            (Some("gzip"), Some("\"2-gzip\""))
        );
        let known = format!("if-none-match: {}", packed.header("etag").unwrap());
        assert_eq!(
            asked(address, &format!("GET {path}"), &[&known, "accept-encoding: gzip"]).await.status,
            304
        );
        let steered = asked(address, &format!("POST {path}/cancel"), &["if-match: \"2-gzip\""]).await;
        assert_eq!(steered.status, 200, "{}", steered.text());
        let stream = asked(address, &format!("GET {path}/events"), &["accept-encoding: gzip"]).await;
        assert_eq!((stream.header("content-encoding"), stream.header("vary")), (None, None));
    });
}

#[test]
fn packed_bodies_are_unpacked_within_the_limit() {
    with_node(async |address| {
        let send = async |coding: &str, body: Vec<u8>| {
            let coding = format!("content-encoding: {coding}");
            raw(address, vec![request("POST /v1/workflows", &[JSON, &coding], &body)]).await
        };
        assert_eq!(send("gzip", gzipped(SLOW.as_bytes())).await.status, 201);
        assert_eq!(send("zstd", zstd::encode_all(SLOW.as_bytes(), 3).unwrap()).await.status, 200);
        assert_eq!(send("identity", SLOW.into()).await.status, 200);
        let bomb = vec![b' '; (4 << 20) + 1];
        for (coding, body, status, code) in [
            ("gzip", gzipped(&bomb), 413, "body_too_large"),
            ("zstd", zstd::encode_all(bomb.as_slice(), 3).unwrap(), 413, "body_too_large"),
            ("gzip", SLOW.into(), 400, "body_broken"),
            ("zstd", SLOW.into(), 400, "body_broken"),
            ("br", SLOW.into(), 415, "unsupported_encoding"),
            ("gzip, gzip", gzipped(&gzipped(SLOW.as_bytes())), 415, "unsupported_encoding"),
        ] {
            let refused = send(coding, body).await;
            assert_eq!(
                (refused.status, &refused.json()["code"]),
                (status, &json!(code)),
                "{}",
                refused.text()
            );
            assert_eq!(refused.header("accept-encoding").is_some(), status == 415);
        }
    });
}
