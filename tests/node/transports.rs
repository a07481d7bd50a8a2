//! One scenario over every transport, read by our own client: streams that are cut at random places beside other load come to
//! exactly the rows of the timeline. (HTTP/2 has its own in `transports_http2`; `quic` and `sockets` read with the bare libraries, `tests/streams` with somebody else's.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use aob::client::{self, Streamed, Transport};
use serde_json::json;

use crate::harness::{Node, Options, chain, in_background};
use crate::quic::{block_on, rows, two_cores};

/// Streams over each transport; `AOB_FULL=1` reads more.
const STREAMS: u64 = 20;
const STREAMS_FULL: u64 = 1_000;

/// Numbers that look drawn, the same in every run (splitmix64).
pub(crate) struct Drawn(pub(crate) u64);

impl Drawn {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Streams over each transport in this run of the tests.
pub(crate) fn many() -> u64 {
    if std::env::var_os("AOB_FULL").is_some() { STREAMS_FULL } else { STREAMS }
}

/// Runs that nobody reads, one after the other for as long as it lasts.
pub(crate) struct Load(Arc<AtomicBool>, JoinHandle<()>);

impl Load {
    pub(crate) fn of(node: &Node, workflow: &'static str) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (mut client, over) = (node.client(), done.clone());
        let posting = in_background(move || {
            while !over.load(Ordering::Relaxed) {
                client.post("/v1/runs", &json!({"workflow": workflow, "inputs": {"n": 0}})).expect(202);
            }
        });
        Self(done, posting)
    }

    pub(crate) fn end(self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().unwrap();
    }
}

/// The data of all events, read over this transport, with cuts and moves between them.
async fn read(url: &str, (transport, run): (Transport, &str), drawn: &mut Drawn) -> (Vec<String>, u64) {
    let mut events = client::Client::new(url).unwrap().events_over(transport, run, 0);
    let (mut got, mut cuts, mut left) = (Vec::new(), 0, 1 + drawn.below(12));
    while let Some(streamed) = Box::pin(events.next()).await.unwrap() {
        let Streamed::Event(event) = streamed else { continue };
        got.push(event.data);
        left -= 1;
        if left == 0 {
            left = 1 + drawn.below(12);
            cuts += 1;
            // A connection over QUIC outlives a change of its client's address.
            if drawn.below(3) > 0 || !events.rebind().unwrap() {
                events.cut();
            }
        }
    }
    assert_eq!((events.repeated(), events.missed()), (0, 0), "{transport:?}");
    (got, cuts)
}

// F008 F033 F036 F228 F235 N11 N12, RELIABILITY I-13 I-14
#[test]
fn streams_cut_at_random_come_to_the_timeline_over_every_transport() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&two_cores(Options::serve(directory.path())));
    let mut client = node.client();
    client.post("/v1/workflows", &chain("cut", 12)).expect(201);
    let load = Load::of(&node, "cut");
    let url = format!("http://{}", node.address);
    let streams = many();
    for transport in [Transport::Sse, Transport::WebSocket, Transport::Quic, Transport::WebTransport] {
        let (mut drawn, mut cuts) = (Drawn(7), 0);
        for _ in 0..streams {
            let started =
                client.post("/v1/runs", &json!({"workflow": "cut", "inputs": {"n": 1}})).expect(202);
            let run = started.json()["run_id"].as_str().unwrap().to_owned();
            let (got, cut) = block_on(read(&url, (transport, &run), &mut drawn));
            let expected: Vec<String> = rows(&mut client, &run).into_iter().map(|(_, row)| row).collect();
            assert_eq!(got, expected, "{transport:?} {run}");
            cuts += cut;
        }
        println!("{transport:?}: {streams} streams, {cuts} cuts and moves");
        assert!(cuts >= streams, "{transport:?} was hardly cut");
    }
    load.end();
}
