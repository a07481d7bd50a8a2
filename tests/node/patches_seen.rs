//! What patches did to a graph, for people: differences as JSON, text and pictures, and whose each node is.

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Client, Node, Options};
use crate::patches::{add, email, ended, signal, start, walk};

fn text(client: &mut Client, path: &str, kind: &str) -> String {
    let answer = client.request("GET", path, &[("accept", kind)], b"").unwrap().expect(200);
    assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}");
    said(&answer)
}

fn said(answer: &Response) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

fn layers(blame: &Value, what: &str) -> Vec<(String, String)> {
    let text = |row: &Value, member: &str| row[member].as_str().unwrap().to_owned();
    blame[what].as_array().unwrap().iter().map(|row| (text(row, "id"), text(row, "layer"))).collect()
}

// N1, F191, F094
#[test]
fn a_difference_is_told_in_three_forms() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let made = client.post(&format!("/v1/runs/{run}/patches"), &email()).expect(202).json();
    let first = made["patch_id"].as_str().unwrap().to_owned();
    let change = json!({"base_version": 2, "operations": [
        {"op": "replace", "path": "/nodes/email/with/queue", "value": "<b>&post"},
        {"op": "remove", "path": "/edges/process~1email"},
        {"op": "add", "path": "/edges/-", "value": {"from": "fetch", "to": "email"}}]});
    client.post(&format!("/v1/runs/{run}/patches"), &change).expect(202);
    let place = format!("/v1/runs/{run}/patches/{first}/diff");
    assert_eq!(text(&mut client, &place, "text/plain"), "+ node email (task)\n+ edge process -> email\n");
    let diff = client.get(&place).expect(200).json();
    assert_eq!((&diff["from"]["version"], &diff["to"]["version"]), (&json!(1), &json!(2)));
    assert_eq!(diff["to"]["hash"], made["hash"]);
    assert_eq!(diff["nodes"], json!([{"id": "email", "type": "task", "what": "added"}]));
    let between = format!("/v1/runs/{run}/graph/diff?from=2&to=3");
    let told = text(&mut client, &between, "text/plain");
    assert_eq!(
        told,
        "~ node email: with.queue \"mail\" -> \"<b>&post\"\n+ edge fetch -> email\n- edge process -> email\n"
    );
    let picture =
        client.request("GET", &between, &[("accept", "text/html, image/*")], b"").unwrap().expect(200);
    assert_eq!(picture.header("content-type"), Some("image/svg+xml"));
    assert!(picture.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    let picture = said(&picture);
    assert!(!picture.contains("<b>") && picture.contains("&lt;b&gt;&amp;post"), "{picture}");
    for class in ["call changed\"", "class=\" added\"", "class=\" removed\""] {
        assert!(picture.contains(class), "{class}: {picture}");
    }
    // The whole way, backwards too; and what is not there is said.
    let back = text(&mut client, &format!("/v1/runs/{run}/graph/diff?from=3&to=1"), "text/plain");
    assert_eq!(back, "- node email (task)\n- edge fetch -> email\n");
    assert_eq!(text(&mut client, &format!("/v1/runs/{run}/graph/diff?from=3"), "text/plain"), "");
    for (query, status, code) in [
        ("?to=4", 404, "version_not_found"),
        ("?from=0", 400, "invalid_parameter"),
        ("?from=x", 400, "invalid_parameter"),
    ] {
        let refused = client.get(&format!("/v1/runs/{run}/graph/diff{query}")).expect(status).json();
        assert_eq!(refused["code"], code);
    }
    let refused = client.request("GET", &between, &[("accept", "text/html")], b"").unwrap();
    assert_eq!(refused.status, 406);
    // A finished run tells the same.
    let revoke = format!("/v1/runs/{run}/patches/{first}/revoke");
    client.post(&revoke, &json!({"cascade": true})).expect(202);
    signal(&mut client, &run);
    ended(&mut client, &run);
    assert_eq!(text(&mut client, &between, "text/plain"), told);
    assert_eq!(text(&mut client, &place, "text/plain"), "+ node email (task)\n+ edge process -> email\n");
}

// N1: who added this node, on which evidence
#[test]
fn every_node_is_somebodys() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let patches = format!("/v1/runs/{run}/patches");
    let mut first = email();
    first["justification"] = "the customer wants a copy".into();
    let first = client.post(&patches, &first).expect(202).json()["patch_id"].clone();
    let change = json!({"base_version": 2, "operations": [
        {"op": "replace", "path": "/nodes/email/with/queue", "value": "post"}]});
    let second = client.post(&patches, &change).expect(202).json()["patch_id"].clone();
    client.post(&patches, &add("after", "process")).expect(202);
    let place = format!("/v1/runs/{run}/blame");
    let told = client.get(&place).expect(200).json();
    let nodes = layers(&told, "nodes");
    let of = |nodes: &[(String, String)], id: &str| {
        nodes.iter().find(|(own, _)| own == id).map(|(_, layer)| layer.clone()).unwrap()
    };
    assert_eq!(nodes.len(), 4);
    assert_eq!((of(&nodes, "fetch"), of(&nodes, "email")), ("base".into(), second.as_str().unwrap().into()));
    assert_eq!(of(&layers(&told, "edges"), "process/email"), first.as_str().unwrap());
    assert_eq!(of(&layers(&told, "edges"), "fetch/process"), "base");
    // Without the later patch it is the earlier one's again, with its reasons.
    let revoke = format!("{patches}/{}/revoke", second.as_str().unwrap());
    client.post(&revoke, &json!({})).expect(202);
    let told = client.get(&place).expect(200).json();
    let row = told["nodes"].as_array().unwrap().iter().find(|row| row["id"] == "email").unwrap();
    assert_eq!((&row["layer"], &row["version"]), (&first, &json!(2)), "{told}");
    assert_eq!(
        (&row["justification"], &row["author"]),
        (&json!("the customer wants a copy"), &json!("anyone"))
    );
}

// F190, F191
#[test]
fn the_command_line_shows_patches() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run = start(&mut client, &walk());
    let made = client.post(&format!("/v1/runs/{run}/patches"), &email()).expect(202).json();
    let patch = made["patch_id"].as_str().unwrap();
    let frob = json!({"operations": [{"op": "frob", "path": "/nodes/x"}]});
    client.post(&format!("/v1/runs/{run}/patches"), &frob).expect(422);
    let run_aob = |arguments: &[&str]| {
        let url = format!("http://{}", node.address);
        let made = std::process::Command::new(env!("CARGO_BIN_EXE_aob"))
            .args(["--url", &url, "--output", "table"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(made.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap()
    };
    let shown = run_aob(&["patch", "show", patch]);
    for part in ["state          applied", "operations     {", "changes        + node email (task)"] {
        assert!(shown.contains(part), "{shown}");
    }
    let list = run_aob(&["patch", "list", &run]);
    assert!(list.contains("applied") && list.contains("rejected"), "{list}");
    assert_eq!(run_aob(&["patch", "diff", patch]), "+ node email (task)\n+ edge process -> email\n");
    assert_eq!(run_aob(&["patch", "diff", &run, "--from", "2"]), "nothing differs\n");
    let blame = run_aob(&["patch", "blame", &run]);
    assert!(blame.contains("node") && blame.contains("fetch/process") && blame.contains(patch), "{blame}");
    let file = directory.path().join("patch.svg");
    run_aob(&["patch", "diff", patch, "--svg", file.to_str().unwrap()]);
    let picture = std::fs::read_to_string(file).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("call added"), "{picture}");
}
