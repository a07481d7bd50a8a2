//! `aobd fsck` looks images over: what is damaged is said, and whether anything is lost with it.

use std::path::Path;
use std::process::Command;

use aob::model::RunId;
use aob::store::Archive as _;
use aob::store::images::Image;
use aob::store::index::Index;
use serde_json::{Value, json};

use crate::harness::{AOBD, Node, Options};

fn fsck(directory: &Path) -> (i32, Value) {
    let out = Command::new(AOBD).args(["fsck", "--json", "--data-dir"]).arg(directory).output().unwrap();
    let report = serde_json::from_slice(&out.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code().unwrap(), report)
}

fn images(index: &Index) -> Vec<Image> {
    let mut found = Vec::new();
    let seen = &mut |run_id: RunId, bytes: &[u8]| {
        found.push(Image { run_id, bytes: bytes.into() });
        Ok(())
    };
    index.images(0, seen).unwrap();
    found
}

// RELIABILITY B11
#[test]
fn a_damaged_image_is_told_with_what_is_lost_by_it() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        Options::serve(directory.path()).set("cores.runner", "1").set("storage.free_bytes_min", "0");
    let node = Node::start(&options);
    let mut client = node.client();
    let waits = json!({"name": "waits", "nodes": {"a": {"type": "wait", "with": {"signal": "go"}}}});
    client.post("/v1/workflows", &waits).expect(201);
    for _ in 0..5 {
        client.post("/v1/runs", &json!({"workflow": "waits"})).expect(202);
    }
    assert!(node.terminate().0.success());
    let (code, report) = fsck(directory.path());
    assert_eq!((code, &report["images"], &report["warnings"]), (0, &json!(5), &json!([])), "{report}");
    assert_eq!(report["problems"], json!([]), "{report}");

    let place = directory.path().join("index");
    let index = Index::open(&place).unwrap();
    let whole = images(&index);
    let damaged: Vec<u8> =
        whole[2].bytes.iter().rev().enumerate().map(|(n, b)| b ^ u8::from(n == 3)).collect();
    let damaged: Vec<u8> = damaged.into_iter().rev().collect();
    index.put_images(0, &[Image { run_id: whole[2].run_id, bytes: damaged.into() }]).unwrap();
    drop(index);
    let (code, report) = fsck(directory.path());
    let warning = &report["warnings"][0];
    assert_eq!((code, &warning["code"], &report["problems"]), (0, &json!("image_unusable"), &json!([])));
    let (what, lost) = (warning["what"].as_str().unwrap(), warning["lost"].as_str().unwrap());
    assert!(what.contains(&whole[2].run_id.to_string()) && what.contains("checksum"), "{what}");
    assert!(lost.starts_with("nothing; history and journal hold its events 1 to "), "{lost}");
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{report}");

    // The image of another run, under an id of which there is no event.
    let index = Index::open(&place).unwrap();
    let nobody = RunId::from_bytes([0x11; 16]);
    let bytes = whole[0].bytes.clone();
    index.put_images(0, &[whole[2].clone(), Image { run_id: nobody, bytes }]).unwrap();
    drop(index);
    let (code, report) = fsck(directory.path());
    assert_eq!((code, report["problems"].as_array().unwrap().len()), (1, 1), "{report}");
    let problem = report["problems"][0]["what"].as_str().unwrap();
    assert!(problem.contains(&nobody.to_string()) && problem.contains("none"), "{problem}");

    // The node goes on from events, and makes new images.
    let node = Node::start(&options);
    let listed = node.client().get("/v1/runs?status=running&limit=100").expect(200).json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 5, "{listed}");
    assert!(node.terminate().0.success());
    let (code, report) = fsck(directory.path());
    assert_eq!((code, &report["images"], &report["warnings"]), (0, &json!(5), &json!([])), "{report}");
}
