//! No room on the disk: a segment that is there is filled, then starts are refused; reads and streams go on; nothing that was
//! acknowledged is lost. What was refused needs a restart, also when room comes back; so does an index that found none.

use super::clients::{self, Acks, Start};
use super::mount::{Kind, Mounted, or_skipped};
use crate::harness::{Node, chain, in_background};

/// Takes all the room there is.
fn fill(disk: &Mounted) {
    let mut file = std::fs::File::create(disk.at().join("filler")).unwrap();
    let block = vec![0x5a_u8; 256 << 10];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
}

// RELIABILITY B4, B5
#[test]
fn on_a_full_disk_starts_are_refused_and_everything_else_goes_on() {
    for driver in ["auto", "tokio"] {
        let Some(disk) = or_skipped("a full disk", Mounted::memory(160)) else { return };
        let options = clients::options(&disk.data()).set("runner.driver", driver);
        let node = Node::start(&options);
        Acks::register(&node);
        let mut acks = Acks::default();
        acks.pad(300_000);
        assert_eq!(acks.start_some(&mut node.client(), 20), Start::Acknowledged);
        fill(&disk);
        let end = acks.start_some(&mut node.client(), 2_000);
        assert!(matches!(&end, Start::Refused(503, code) if code == "shard_fenced"), "{end:?}");
        let mut client = node.client();
        let why = client.get("/readyz");
        assert_eq!(why.status, 503);
        // Two segments were there; all of both was used.
        assert!(acks.runs.len() > 60, "only {} were acknowledged", acks.runs.len());
        // Reads and streams go on.
        let run = acks.runs.keys().next().unwrap().clone();
        client.get(&format!("/v1/runs/{run}")).expect(200);
        let path = format!("/v1/runs/{run}/events");
        let events = client.events(&path, &[], |event| event.event != "run.completed");
        assert_eq!(events.last().unwrap().event, "run.completed");
        // Room comes back: today only a restart makes use of it.
        std::fs::remove_file(disk.at().join("filler")).unwrap();
        acks.pad(0);
        assert!(matches!(acks.start(&mut client), Start::Refused(503, _)));
        let (_, said) = node.terminate();
        assert!(said.contains("disk_full"), "{said}");
        let node = Node::start(&options);
        acks.all_there(&node);
        assert_eq!(acks.start_some(&mut node.client(), 50), Start::Acknowledged);
        println!("{driver}: {} acknowledged, all there", acks.runs.len());
    }
}

// RELIABILITY B5
#[test]
fn an_index_without_room_takes_nothing_more_until_a_restart_and_forgets_nothing() {
    let Some(disk) = or_skipped("an index without room", Mounted::memory(200)) else { return };
    let options = clients::options(&disk.data());
    let node = Node::start(&options);
    Acks::register(&node);
    let mut acks = Acks::default();
    assert_eq!(acks.start_some(&mut node.client(), 50), Start::Acknowledged);
    // The journal has its two segments; the index finds no room for its rows.
    fill(&disk);
    let address = node.address.clone();
    let more = in_background(move || {
        let mut acks = Acks::default();
        acks.start_some(&mut crate::harness::Client::new(&address), 3_000);
        acks
    });
    let more = more.join().unwrap();
    assert!(more.runs.len() > 1_000, "only {}", more.runs.len());
    node.client().post("/v1/workflows", &chain("later", 2)).expect(503);
    std::fs::remove_file(disk.at().join("filler")).unwrap();
    more.all_there(&node);
    // With room again, too: what the database has of the write that failed is in doubt until it is opened again.
    let mut client = node.client();
    client.post("/v1/workflows", &chain("later", 2)).expect(503);
    let why = String::from_utf8_lossy(&client.get("/readyz").expect(503).body).into_owned();
    assert!(why.contains("the index has failed") && why.contains("disk_full"), "{why}");
    let said = node.kill();
    assert!(said.contains("takes no writes until a restart: disk_full"), "{said:.2000}");
    let node = Node::start(&options);
    acks.all_there(&node);
    more.all_there(&node);
    let mut client = node.client();
    client.get("/readyz").expect(200);
    client.post("/v1/workflows", &chain("later", 2)).expect(201);
}

/// Text that does not pack.
fn noise(seed: i64, bytes: usize) -> String {
    let mut state = seed.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}

// RELIABILITY B4: refused before it is full.
#[test]
fn a_disk_that_fills_is_told_in_time_and_used_again_when_there_is_room() {
    let Some(disk) = or_skipped("a disk that fills", Mounted::image(Kind::Ext4, 420)) else { return };
    let options = clients::options(&disk.data()).set("storage.free_bytes_min", &(100_u64 << 20).to_string());
    let filler = disk.at().join("filler");
    std::fs::write(&filler, vec![0x5a_u8; 60 << 20]).unwrap();
    let node = Node::start(&options);
    Acks::register(&node);
    let mut client = node.client();
    let mut acks = Acks::default();
    let mut refusals = 0;
    for n in 0..3_000 {
        acks.pad_with(noise(n, 300_000));
        match acks.start(&mut client) {
            Start::Acknowledged => {}
            Start::Refused(503, code) if code == "disk_low" => refusals += 1,
            other => panic!("after {} runs: {other:?}", acks.runs.len()),
        }
        if refusals == 200 {
            break;
        }
    }
    assert_eq!(refusals, 200, "{} runs were taken", acks.runs.len());
    assert!(acks.runs.len() > 200, "{}", acks.runs.len());
    client.get("/readyz").expect(200);
    acks.all_there(&node);
    std::fs::remove_file(&filler).unwrap();
    acks.pad_with(String::new());
    loop {
        match acks.start(&mut client) {
            Start::Acknowledged => break,
            Start::Refused(503, code) if code == "disk_low" => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acks.start_some(&mut client, 50), Start::Acknowledged);
    let said = node.kill();
    assert!(said.contains("no new work is taken") && said.contains("new work is taken again"), "{said}");
    assert!(!said.contains("disk_full"), "{said}");
    let node = Node::start(&options);
    acks.all_there(&node);
    println!("{} acknowledged, all there", acks.runs.len());
}
