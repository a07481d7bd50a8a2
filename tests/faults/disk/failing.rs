//! A disk that reports errors: nothing is acknowledged any more, nothing is synced again, and after a restart the durable
//! beginning is there.

use super::clients::{self, Acks, Start};
use super::mount::{Kind, Mounted, or_skipped, run};
use crate::harness::{Node, in_background};

/// What a node does whose disk fails: refuses, says why, goes on reading.
fn refuses_and_reads(node: &Node, acks: &mut Acks) {
    let mut client = node.client();
    let acknowledged = acks.runs.len();
    let first = acks.start(&mut client);
    assert!(matches!(&first, Start::Refused(503, code) if code == "shard_fenced"), "{first:?}");
    for _ in 0..20 {
        assert!(matches!(acks.start(&mut client), Start::Refused(503, _)));
    }
    assert_eq!(acks.runs.len(), acknowledged);
    // What comes when the journal is gone was not begun: who asks may go elsewhere with it.
    let late = client.post("/v1/runs", &serde_json::json!({"workflow": "chain2", "inputs": {"n": 1}}));
    assert_eq!((late.status, &late.json()["outcome"]), (503, &serde_json::json!("not_applied")));
    assert_eq!(client.get("/readyz").status, 503, "a node that takes nothing is not ready");
    assert_eq!(client.get("/livez").status, 200);
    let run = acks.runs.keys().next().expect("one was acknowledged");
    client.get(&format!("/v1/runs/{run}")).expect(200);
    client.get(&format!("/v1/runs/{run}/timeline")).expect(200);
}

// RELIABILITY B3, B15, I-25
#[test]
fn after_a_sync_that_failed_nothing_is_acknowledged_until_a_restart() {
    for driver in ["auto", "tokio"] {
        let Some(mut disk) = or_skipped("a failed sync", Mounted::image(Kind::Ext4, 300)) else { return };
        let options = clients::options(&disk.data()).set("runner.driver", driver);
        let node = Node::start(&options);
        Acks::register(&node);
        let mut acks = Acks::default();
        assert_eq!(acks.start_some(&mut node.client(), 100), Start::Acknowledged);
        // Others are at it when it happens.
        let address = node.address.clone();
        let other = in_background(move || {
            let mut acks = Acks::default();
            let mut client = crate::harness::Client::new(&address);
            let end = acks.start_some(&mut client, 1_000_000);
            (acks, end)
        });
        let aborted = disk.remount("abort");
        let (others, end) = other.join().unwrap();
        assert!(matches!(end, Start::Refused(503, _)), "{end:?} ({aborted:?})");
        refuses_and_reads(&node, &mut acks);
        node.kill();
        disk.power_on();
        let node = Node::start(&options);
        acks.all_there(&node);
        others.all_there(&node);
        // And it takes new work.
        assert_eq!(acks.start_some(&mut node.client(), 20), Start::Acknowledged);
        println!("{driver}: {} + {} acknowledged, all there", acks.runs.len(), others.runs.len());
    }
}

// RELIABILITY B3
#[test]
fn a_thin_disk_that_runs_out_below_the_file_system_loses_nothing_acknowledged() {
    let test = "a thin disk";
    let Some(below) = or_skipped(test, Mounted::memory(96)) else { return };
    let Some(mut disk) = or_skipped(test, Mounted::image_in(&below.at(), Kind::Ext4, 600)) else { return };
    let options = clients::options(&disk.data()).set("runner.driver", "tokio");
    let node = match Node::try_start(&options) {
        Ok(node) => node,
        Err((_, why)) => panic!("it needs two segments to begin: {why}"),
    };
    Acks::register(&node);
    let mut acks = Acks::default();
    acks.pad(600_000);
    let end = acks.start_some(&mut node.client(), 1_000);
    assert!(matches!(end, Start::Refused(503, _)), "{end:?}");
    assert!(acks.runs.len() > 40, "only {}", acks.runs.len());
    node.kill();
    below.remount("size=900m").unwrap();
    disk.power_on();
    // What the file system makes of it is its affair; what the node acknowledged was synced.
    let node = Node::start(&options);
    acks.all_there(&node);
    println!("{} acknowledged, all there; {}", acks.runs.len(), run("uname", &["-r"]).unwrap().trim());
}
