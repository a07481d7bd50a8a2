//! A store that fails under a running node, and one that hangs: reads are refused at once while its breaker is open, work that needs
//! no read goes on, and when it is mended everything is there. The disk is broken with its own means: a directory, or a pipe, stands where a
//! content was.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Client, Node, Options, in_background};

fn options(directory: &Path) -> Options {
    Options::serve(directory).driver().set("limits.inline_value_bytes_max", "1024")
}

/// A run that is over, and whose output is a content of the store: its id, and the content's name.
fn ended(client: &mut Client, node: &Node) -> (String, String) {
    let big = json!({"type": "function", "with": {"expr": "inputs.big"}});
    client.post("/v1/workflows", &json!({"name": "big", "nodes": {"big": big}})).expect(201);
    let body = json!({"workflow": "big", "inputs": {"big": "x".repeat(5_000)}});
    let run = client.post_with("/v1/runs", &[("prefer", "wait=30")], &body).unwrap().json();
    assert_eq!(run["status"], "completed", "{run} {}", node.address);
    let digest = Sha256::digest(json!("x".repeat(5_000)).to_string());
    let name = digest.iter().fold(String::from("sha256:"), |name, byte| format!("{name}{byte:02x}"));
    (run["run_id"].as_str().unwrap().to_owned(), name)
}

/// The file of a content.
fn place(directory: &Path, name: &str) -> PathBuf {
    let digits = name.trim_start_matches("sha256:");
    directory.join("cas").join(&digits[..2]).join(&digits[2..])
}

/// Reads until the store answers again.
fn mended(client: &mut Client, path: &str) -> Vec<u8> {
    for _ in 0..6_000 {
        let answer = client.get(path);
        if answer.status == 200 {
            return answer.body;
        }
        assert_eq!(answer.status, 503, "{}", answer.json());
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    panic!("it is never used again");
}

/// What everybody is told while the store is left alone.
fn told_everywhere(client: &mut Client) {
    let shown = client.get("/v1/breakers").expect(200).json()["breakers"][0].clone();
    assert_eq!((&shown["service"], &shown["state"]), (&json!("store"), &json!("open")), "{shown}");
    let metrics = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    assert!(metrics.contains("aob_breaker_state{workspace=\"\",service=\"store\"} 2"), "{metrics}");
    let ready = client.get("/readyz").expect(200);
    assert!(String::from_utf8(ready.body).unwrap().contains("store_unavailable"));
}

// F434
#[test]
fn while_the_store_fails_reads_are_refused_at_once_and_afterwards_everything_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let (run_id, name) = ended(&mut client, &node);
    let content = format!("/v1/cas/{name}");
    let whole = client.get(&content).expect(200).body;
    assert_eq!(client.get("/v1/breakers").expect(200).json()["breakers"], json!([]));

    let file = place(directory.path(), &name);
    let aside = directory.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    for _ in 0..5 {
        let failed = client.get(&content).expect(503);
        assert_eq!(failed.json()["code"], "storage_failed");
        assert!(failed.header("retry-after").is_some());
    }
    for path in [content.clone(), "/v1/runs?limit=1".into(), format!("/v1/runs/{run_id}/cost")] {
        let refused = client.get(&path).expect(503);
        let (wait, problem) = (refused.header("retry-after").map(str::to_owned), refused.json());
        assert_eq!((&problem["code"], &problem["retryable"]), (&json!("store_unavailable"), &json!(true)));
        assert!(matches!(wait.as_deref(), Some("1" | "2")), "{wait:?}");
    }
    told_everywhere(&mut client);
    // What needs no read goes on.
    let body = json!({"workflow": "big", "inputs": {"big": 7}});
    let meanwhile = client.post_with("/v1/runs", &[("prefer", "wait=30")], &body).unwrap().json();
    assert_eq!(meanwhile["status"], "completed", "{meanwhile}");

    std::fs::remove_dir(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    assert_eq!(mended(&mut client, &content), whole);
    // The second success closes it.
    client.get(&content).expect(200);
    let shown = client.get("/v1/breakers").expect(200).json()["breakers"][0].clone();
    assert_eq!((&shown["state"], &shown["opened"]), (&json!("closed"), &json!(1)), "{shown}");
    assert_eq!(client.get("/readyz").expect(200).body, b"ok\n");
    let listed = client.get("/v1/runs?limit=10").expect(200).json();
    let ids: Vec<&Value> = listed["runs"].as_array().unwrap().iter().map(|run| &run["run_id"]).collect();
    assert_eq!(ids, [&meanwhile["run_id"], &json!(run_id)]);
}

// F434: ten seconds for each read that hangs.
#[test]
fn while_the_store_hangs_reads_are_answered_and_soon_at_once() {
    if std::env::var_os("AOB_FULL").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&options(directory.path()));
    let mut client = node.client();
    let (_, name) = ended(&mut client, &node);
    let content = format!("/v1/cas/{name}");
    let file = place(directory.path(), &name);
    let aside = directory.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    let readers: Vec<_> = (0..5)
        .map(|_| {
            let (address, content) = (node.address.clone(), content.clone());
            in_background(move || Client::new(&address).get(&content).expect(503).json())
        })
        .collect();
    for reader in readers {
        let problem = reader.join().unwrap();
        assert_eq!(problem["code"], "store_unavailable", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("store_read_seconds_max"), "{problem}");
    }
    let refused = client.get(&content).expect(503).json();
    assert!(!refused["detail"].as_str().unwrap().contains("store_read_seconds_max"), "at once: {refused}");
    told_everywhere(&mut client);
    // Whoever hangs is let go, and finds nothing that is the content.
    drop(std::fs::OpenOptions::new().write(true).open(&file).unwrap());
    std::fs::remove_file(&file).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    assert!(!mended(&mut client, &content).is_empty());
}
