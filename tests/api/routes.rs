//! What the routes answer when nothing is wrong, and the conflicts that are not the request's fault.

use serde_json::json;

use super::double::with_node;
use super::{get, post, raw, request};
use aob::client::{Client, Streamed};

const QUICK: &str = r#"{"name":"quick","version":"1","inputs":{"type":"object","required":["topic"]},"nodes":{"a":{"type":"function"}}}"#;
const SLOW: &str = r#"{"name":"slow","version":"1","nodes":{"a":{"type":"function"}}}"#;

#[test]
fn a_workflow_is_registered_once_and_another_document_conflicts() {
    with_node(async |address| {
        let first = post(address, "/v1/workflows", &[], QUICK).await;
        assert_eq!(first.status, 201, "{}", first.text());
        assert_eq!((&first.json()["name"], &first.json()["created"]), (&json!("quick"), &json!(true)));
        assert!(first.json()["hash"].as_str().unwrap().starts_with("sha256:"));
        assert_eq!(first.header("location"), Some("/v1/workflows/quick/versions/1"));
        let again = post(address, "/v1/workflows", &[], QUICK).await;
        assert_eq!((again.status, &again.json()["created"]), (200, &json!(false)));
        let other = post(address, "/v1/workflows", &[], &QUICK.replace("topic", "subject")).await;
        assert_eq!((other.status, &other.json()["code"]), (409, &json!("workflow_conflict")));

        let shown = get(address, "/v1/workflows/quick").await;
        assert_eq!((shown.status, &shown.json()["document"]["name"]), (200, &json!("quick")));
        let tag = format!("if-none-match: {}", shown.header("etag").unwrap());
        let known = raw(address, vec![request("GET /v1/workflows/quick/versions/1", &[&tag], b"")]).await;
        assert_eq!(known.status, 304);
        let listed = get(address, "/v1/workflows").await.json();
        assert_eq!(listed["workflows"][0]["name"], "quick");
        assert_eq!(get(address, "/v1/workflows/none").await.status, 404);
    });
}

#[test]
fn a_document_without_a_version_gets_one() {
    with_node(async |address| {
        let versionless = SLOW.replace(r#""version":"1","#, "");
        let answer = post(address, "/v1/workflows", &[], &versionless).await.json();
        assert_eq!(answer["version"], "1");
        let started = post(address, "/v1/runs", &[], r#"{"workflow":"slow"}"#).await.json();
        assert_eq!(started["version"], "1", "{started}");
    });
}

#[test]
fn a_start_is_acknowledged_with_everything_a_client_needs() {
    // F115
    with_node(async |address| {
        post(address, "/v1/workflows", &[], QUICK).await;
        for path in ["/v1/runs", "/runs"] {
            let answer = post(
                address,
                path,
                &["x-request-id: mine"],
                r#"{"workflow":"quick@1","inputs":{"topic":1}}"#,
            )
            .await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            let body = answer.json();
            let run_id = body["run_id"].as_str().unwrap().to_owned();
            assert_eq!(
                (&body["status"], &body["seq"], &body["durability"], &body["epoch"]),
                (&json!("completed"), &json!(4), &json!("fsync"), &json!(1))
            );
            assert_eq!(answer.header("location"), Some(format!("/v1/runs/{run_id}").as_str()));
            assert_eq!(answer.header("x-request-id"), Some("mine"));
            let run = get(address, &format!("/v1/runs/{run_id}")).await;
            assert_eq!((run.header("etag"), &run.json()["outputs"]), (Some("\"4\""), &json!(42)));
            assert_eq!(run.json()["inputs"], json!({"topic": 1}));
        }
    });
}

#[test]
fn wait_answers_with_the_finished_run_or_with_what_there_is() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], QUICK).await;
        post(address, "/v1/workflows", &[], SLOW).await;
        let done =
            post(address, "/v1/runs", &["prefer: wait=5"], r#"{"workflow":"quick","inputs":{"topic":1}}"#)
                .await;
        assert_eq!((done.status, done.header("preference-applied")), (200, Some("wait=5")));
        assert_eq!(done.json()["outputs"], 42);
        let slow = post(address, "/v1/runs", &["prefer: wait=0"], r#"{"workflow":"slow"}"#).await;
        assert_eq!((slow.status, slow.header("preference-applied")), (202, None));
        let path = format!("/v1/runs/{}", slow.json()["run_id"].as_str().unwrap());
        let waiting = tokio::task::spawn_local({
            let path = path.clone();
            async move { raw(address, vec![request(&format!("GET {path}"), &["prefer: wait=60"], b"")]).await }
        });
        let signal = post(address, &format!("{path}/signals/go"), &[], r#"{"payload":{"a":1}}"#).await;
        assert_eq!((signal.status, &signal.json()["status"]), (200, &json!("completed")));
        let ended = waiting.await.unwrap();
        assert_eq!(
            (&ended.json()["status"], &ended.json()["outputs"]),
            (&json!("completed"), &json!({"a": 1}))
        );
    });
}

#[test]
fn the_same_key_never_starts_a_second_run() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], QUICK).await;
        post(address, "/v1/workflows", &[], SLOW).await;
        let quick = r#"{"workflow":"quick","inputs":{"topic":1,"b":2}}"#;
        // The same meaning, written otherwise.
        let quick_again = r#"{"inputs":{"b":2, "topic":1}, "workflow":"quick", "version":"1"}"#;
        for (body, again, other) in [
            (quick, quick_again, r#"{"workflow":"quick","inputs":{"topic":2}}"#),
            (
                r#"{"workflow":"slow"}"#,
                r#"{"workflow":"slow@1","inputs":{}}"#,
                r#"{"workflow":"slow","inputs":{"x":1}}"#,
            ),
        ] {
            let key = format!("idempotency-key: {}", body.len());
            let first = post(address, "/v1/runs", &[&key], body).await;
            assert_eq!((first.status, first.header("idempotent-replayed")), (202, None));
            let second = post(address, "/v1/runs", &[&key], again).await;
            assert_eq!((second.status, second.header("idempotent-replayed")), (202, Some("true")));
            assert_eq!(second.json(), first.json());
            let reused = post(address, "/v1/runs", &[&key], other).await;
            assert_eq!((reused.status, &reused.json()["code"]), (422, &json!("idempotency_key_reused")));
        }
        assert_eq!(get(address, "/v1/runs").await.json()["runs"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn listings_merge_live_and_finished_runs_in_pages() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], QUICK).await;
        post(address, "/v1/workflows", &[], SLOW).await;
        let mut started = Vec::new();
        for n in 0..7 {
            let body = if n % 2 == 0 {
                r#"{"workflow":"slow"}"#
            } else {
                r#"{"workflow":"quick","inputs":{"topic":1}}"#
            };
            started.push(post(address, "/v1/runs", &[], body).await.json()["run_id"].clone());
        }
        started.sort_by(|a, b| b.as_str().cmp(&a.as_str()));
        let (mut seen, mut path) = (Vec::new(), String::from("/v1/runs?limit=3"));
        loop {
            let page = get(address, &path).await;
            let body = page.json();
            seen.extend(body["runs"].as_array().unwrap().iter().map(|run| run["run_id"].clone()));
            let Some(next) = body["next_cursor"].as_str() else { break };
            assert!(page.header("link").unwrap().contains(next));
            path = format!("/v1/runs?limit=3&cursor={next}");
        }
        assert_eq!(seen, started);
        let running = get(address, "/v1/runs?status=running&workflow=slow").await.json();
        assert_eq!(running["runs"].as_array().unwrap().len(), 4);
        let none = get(address, "/v1/runs?status=failed").await.json();
        assert_eq!((&none["runs"], &none["next_cursor"]), (&json!([]), &json!(null)));
    });
}

#[test]
fn cancel_graph_and_timeline_work_before_and_after_the_end() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], SLOW).await;
        let run = post(address, "/v1/runs", &[], r#"{"workflow":"slow"}"#).await.json();
        let path = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
        let graph = get(address, &format!("{path}/graph")).await.json();
        assert_eq!((&graph["nodes"]["a"]["state"], &graph["version"]), (&json!("waiting"), &json!(1)));
        assert_eq!(graph["document"]["name"], "slow");
        let page = get(address, &format!("{path}/timeline?limit=1")).await.json();
        assert_eq!((&page["events"][0]["type"], &page["next_cursor"]), (&json!("run.started"), &json!("1")));
        let rest = get(address, &format!("{path}/timeline?after=1")).await.json();
        assert_eq!((&rest["events"][0]["seq"], &rest["events"][0]["node"]), (&json!(2), &json!("a")));
        assert_eq!(rest["next_cursor"], json!(null));

        let cancelled = post(address, &format!("{path}/cancel"), &[], r#"{"reason":"enough"}"#).await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
        for verb in ["cancel", "signals/go"] {
            let late = post(address, &format!("{path}/{verb}"), &[], "{}").await;
            assert_eq!((late.status, &late.json()["code"]), (409, &json!("run_finished")), "{}", late.text());
        }
        let graph = get(address, &format!("{path}/graph")).await.json();
        assert_eq!(
            (&graph["nodes"]["a"]["state"], &graph["status"]),
            (&json!("cancelled"), &json!("cancelled"))
        );
        let timeline = get(address, &format!("{path}/timeline?after=3")).await.json();
        assert_eq!(timeline["events"][0]["reason"], "enough");
    });
}

#[test]
fn a_stream_joins_replay_and_live_and_ends_with_the_run() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], SLOW).await;
        let run = post(address, "/v1/runs", &[], r#"{"workflow":"slow"}"#).await.json();
        let run_id = run["run_id"].as_str().unwrap().to_owned();
        let path = format!("/v1/runs/{run_id}");
        let client = Client::new(&format!("http://{address}")).unwrap();
        let mut events = client.events(&run_id, 0);
        let mut seen = Vec::new();
        while let Some(Streamed::Event(event)) = events.next().await.unwrap() {
            seen.push(event.event.clone());
            match seen.len() {
                // The replay is through: what follows can only come live.
                2 => assert_eq!(post(address, &format!("{path}/signals/note"), &[], "{}").await.status, 202),
                3 => assert_eq!(post(address, &format!("{path}/signals/go"), &[], "{}").await.status, 200),
                _ => {}
            }
        }
        let expected = [
            "run.started",
            "node.started",
            "signal.received",
            "signal.received",
            "node.completed",
            "run.completed",
        ];
        assert_eq!(seen, expected);

        // The finished run, from the middle, by the header.
        let id = format!("last-event-id: {run_id}:4");
        let rest = raw(address, vec![request(&format!("GET {path}/events"), &[&id], b"")]).await;
        assert_eq!((rest.status, rest.header("content-type")), (200, Some("text/event-stream")));
        let text = String::from_utf8(rest.body.clone()).unwrap();
        assert!(text.starts_with("retry: 2000\n\n"), "{text}");
        let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
        assert_eq!(ids, [format!("{run_id}:5"), format!("{run_id}:6")]);
        let ahead = get(address, &format!("{path}/events?after=99")).await;
        assert!(String::from_utf8_lossy(&ahead.body).contains("event: resync\n"), "{}", ahead.text());
    });
}

#[test]
fn the_node_tells_about_itself() {
    with_node(async |address| {
        for path in ["/livez", "/healthz", "/readyz"] {
            assert_eq!(get(address, path).await.status, 200, "{path}");
        }
        let node = get(address, "/v1/node").await.json();
        assert_eq!((&node["durability"], &node["queues"][0]["name"]), (&json!("fsync"), &json!("shard-0")));
        assert_eq!(get(address, "/version").await.json()["name"], "aobd");
        let metrics = String::from_utf8(get(address, "/metrics").await.body).unwrap();
        for line in [
            "aob_runs_started_total 3",
            "aob_runs_finished_total{workflow=\"w\",status=\"completed\"} 2",
            "aob_runs_active 0",
            "aob_queue_depth{queue=\"shard-0\"} 0",
            "aob_stream_subscribers 0",
            "aob_build_info{version=",
            "# EOF",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
    });
}

#[test]
fn one_connection_serves_many_requests_in_order() {
    with_node(async |address| {
        post(address, "/v1/workflows", &[], QUICK).await;
        let body = r#"{"workflow":"quick","inputs":{"topic":1}}"#;
        let keep = format!(
            "POST /v1/runs HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let last = request("GET /version", &[], b"");
        let answer = raw(address, vec![keep.repeat(20).into_bytes(), last]).await;
        assert_eq!(answer.text().matches("HTTP/1.1 202 Accepted").count(), 20);
        assert!(answer.text().ends_with(&format!("\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"))));
    });
}

#[test]
fn the_schema_of_documents_is_served() {
    with_node(async |address| {
        let answer = get(address, "/v1/schema/workflow.json").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/schema+json")));
        let committed: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/workflow.schema.json")).unwrap();
        assert!(answer.json() == committed, "another schema is served than committed");
        let posted = post(address, "/v1/schema/workflow.json", &[], "{}").await;
        assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
        assert_eq!(get(address, "/v1/schema").await.status, 404);
    });
}
