//! Routes of earlier interfaces: another name for a route of `/v1`, and nothing done twice.

use serde_json::json;

use super::double::with_node;
use super::{get, post, raw, request};

const SLOW: &str = r#"{"name":"slow","version":"1","nodes":{"a":{"type":"function"}}}"#;

async fn runs(address: std::net::SocketAddr) -> usize {
    get(address, "/v1/runs").await.json()["runs"].as_array().unwrap().len()
}

#[test]
fn a_run_is_submitted_by_tag() {
    // F420, F111
    with_node(async |address| {
        post(address, "/v1/workflows", &[], SLOW).await;
        let tagged = request(
            "PUT /v1/workflows/slow/tags/main",
            &["content-type: application/json"],
            br#"{"version":"1"}"#,
        );
        assert_eq!(raw(address, vec![tagged]).await.status, 200);
        for (body, status) in [
            (r#"{"tag":"slow@main","inputs":{}}"#, 202),
            (r#"{"tag":"slow","inputs":{}}"#, 202),
            (r#"{"tag":"slow@none","inputs":{}}"#, 404),
            (r#"{"tag":"main","workflow":"slow"}"#, 202),
            (r#"{"tag":"slow","workflow":"slow"}"#, 404),
            (r#"{"tag":1}"#, 400),
            (r#"{"inputs":{}}"#, 400),
        ] {
            let answer = post(address, "/runs", &[], body).await;
            assert_eq!(answer.status, status, "{body}: {}", answer.text());
            if status == 202 {
                assert_eq!(
                    (answer.json()["status"].as_str(), answer.json()["version"].as_str()),
                    (Some("running"), Some("1"))
                );
                assert!(answer.json()["run_id"].is_string());
            }
        }
        assert_eq!(runs(address).await, 3);
    });
}

#[test]
fn an_execution_is_exactly_one_run() {
    // F422
    with_node(async |address| {
        post(address, "/v1/workflows", &[], SLOW).await;
        let body = r#"{"workflow_name":"slow","inputs":{"a":1}}"#;
        let key = ["idempotency-key: k"];
        let first = post(address, "/workflows/execute", &key, body).await;
        assert_eq!((first.status, &first.json()["status"]), (202, &json!("started")), "{}", first.text());
        assert_eq!(runs(address).await, 1);
        let again = post(address, "/workflows/execute", &key, body).await;
        assert_eq!((again.json(), again.header("idempotent-replayed")), (first.json(), Some("true")));
        assert_eq!(runs(address).await, 1);
        assert_eq!(post(address, "/workflows/execute", &[], "{}").await.status, 400);
        let none = post(address, "/workflows/execute", &[], r#"{"workflow_name":"none"}"#).await;
        assert_eq!((none.status, &none.json()["code"]), (404, &json!("workflow_not_found")));
        assert_eq!(get(address, "/workflows/execute").await.header("allow"), Some("POST"));
    });
}

async fn executed(address: std::net::SocketAddr) -> String {
    post(address, "/v1/workflows", &[], SLOW).await;
    let answer =
        post(address, "/workflows/execute", &[], r#"{"workflow_name":"slow","inputs":{"a":1}}"#).await;
    format!("/workflows/{}", answer.json()["execution_id"].as_str().unwrap())
}

#[test]
fn an_execution_is_shown_in_full() {
    // F423
    with_node(async |address| {
        let path = executed(address).await;
        let shown = get(address, &path).await.json();
        let id = path.rsplit('/').next().unwrap();
        assert_eq!((&shown["execution_id"], &shown["run_key"]), (&json!(id), &json!(id)));
        // A run's id does as well.
        let run_id = shown["run_id"].as_str().unwrap();
        assert_eq!(get(address, &format!("/workflows/{run_id}")).await.json(), shown);
        assert_eq!((&shown["status"], &shown["inputs"]), (&json!("running"), &json!({"a": 1})));
        assert_eq!(get(address, "/workflows/nothing").await.status, 400);
        assert_eq!(get(address, "/workflows").await.status, 404);
    });
}

#[test]
fn an_execution_is_paused_and_resumed() {
    // F424 F425
    with_node(async |address| {
        let path = executed(address).await;
        for (verb, said, status) in [("pause", "paused", "paused"), ("resume", "resumed", "running")] {
            let answer = raw(address, vec![request(&format!("POST {path}/{verb}"), &[], b"")]).await;
            assert_eq!((answer.status, &answer.json()["status"]), (202, &json!(said)), "{}", answer.text());
            assert_eq!(get(address, &path).await.json()["status"], status);
        }
        let run = path.replace("/workflows/", "/v1/runs/");
        post(address, &format!("{run}/cancel"), &[], "{}").await;
        assert_eq!(post(address, &format!("{path}/pause"), &[], "{}").await.status, 409);
    });
}

#[test]
fn an_execution_id_stands_for_its_run_wherever_a_run_is_named() {
    // F302
    with_node(async |address| {
        let path = executed(address).await;
        let id = path.rsplit('/').next().unwrap().to_owned();
        let digits = id.strip_prefix("exec_").unwrap();
        assert!(digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        let other = executed(address).await;
        assert_ne!(path, other);
        let run = get(address, &format!("/v1/runs/{id}")).await.json();
        let run_id = run["run_id"].as_str().unwrap();
        for rest in ["", "/graph", "/timeline"] {
            let (by_id, by_alias) = (format!("/v1/runs/{run_id}{rest}"), format!("/v1/runs/{id}{rest}"));
            assert_eq!(get(address, &by_id).await.json(), get(address, &by_alias).await.json(), "{rest}");
        }
        let done = post(address, &format!("/v1/runs/{id}/signals/go"), &[], "{}").await;
        assert_eq!((done.status, &done.json()["run_id"]), (200, &json!(run_id)));
        // Also when it has ended; and a start may name one itself.
        assert_eq!(get(address, &path).await.json()["status"], "completed");
        let own = r#"{"workflow":"slow","run_key":"exec_00000000000a"}"#;
        let own = post(address, "/v1/runs", &[], own).await.json();
        assert_eq!(get(address, "/workflows/exec_00000000000a").await.json()["run_id"], own["run_id"]);
        for (none, status) in
            [("exec_0000000000ff", 404), ("exec_0000000000FF", 400), ("exec_00", 400), ("run_7f3e4a", 400)]
        {
            assert_eq!(get(address, &format!("/workflows/{none}")).await.status, status, "{none}");
        }
        let elsewhere =
            raw(address, vec![request(&format!("GET {path}"), &["aob-workspace: acme"], b"")]).await;
        assert_eq!(elsewhere.status, 404);
    });
}
