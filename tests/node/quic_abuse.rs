//! Clients over QUIC that mean harm: what they may take is bounded and counted, and others do not notice.

use std::net::UdpSocket;
use std::time::Duration;

use quinn::{Endpoint, TransportConfig, VarInt};
use serde_json::json;

use crate::harness::{Node, Options};
use crate::quic::{Remote, Told, block_on, closed_with, finished, metric, rows, subscribe};

fn handshakes(outcome: &str) -> String {
    format!("aob_quic_handshakes_total{{outcome=\"{outcome}\"}}")
}

// RELIABILITY E9
#[test]
fn streams_that_come_to_nothing_and_datagrams_end_their_connection_and_no_other() {
    const STREAMS: usize = 100_000;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = finished(&mut client, 20);
    let (remote, rows) = (Remote::of(&node), rows(&mut client, &run_id));
    let path = format!("/v1/runs/{run_id}/events");
    block_on(async {
        let (_endpoint, other) = remote.connect().await;
        let mut opened = 0;
        while opened < STREAMS {
            let (_endpoint, connection) = remote.connect().await;
            let mut here = 0;
            while let Ok((mut send, _receive)) = connection.open_bi().await {
                here += 1;
                let _ = send.write(&[0x40]).await;
                let _ = send.reset(VarInt::from_u32(0));
            }
            assert_eq!(closed_with(&connection.closed().await), 4);
            assert!(here > 1_000, "{here}");
            // One thousand, and those that were under way.
            assert!(here < 2_000, "{here}");
            opened += here;
            assert_eq!(Told::whole(&other, &path, json!({})).await.events, rows);
        }
        let (_endpoint, connection) = remote.connect().await;
        while connection.close_reason().is_none() {
            let _ = connection.send_datagram_wait(vec![0; 512].into()).await;
        }
        assert_eq!(closed_with(&connection.closed().await), 4);
        assert_eq!(Told::whole(&other, &path, json!({})).await.events, rows);
    });
    assert!(metric(&mut client, "aob_quic_streams_wasted_total") >= 90_000);
    assert!(metric(&mut client, "aob_quic_client_datagrams_total") > 1_000);
    assert!(metric(&mut client, "aob_quic_closed_total") > 10);
}

/// First datagrams of clients, as they would go to the node.
fn initials(remote: &Remote, count: usize) -> Vec<Vec<u8>> {
    block_on(async {
        let mut initials = Vec::new();
        for _ in 0..count {
            // Its own, or the second datagram of one client would pass for the first of the next.
            let sink = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let config = remote.config(b"aob/1", TransportConfig::default());
            let connecting = endpoint.connect_with(config, sink.local_addr().unwrap(), "localhost").unwrap();
            let mut bytes = vec![0; 2_000];
            let (length, _) = sink.recv_from(&mut bytes).await.unwrap();
            bytes.truncate(length);
            initials.push(bytes);
            drop(connecting);
        }
        initials
    })
}

/// Sends each from an address of its own that never answers: (bytes sent, bytes that came back).
///
/// The next goes when the one before was heard: how many datagrams a socket holds back is the machine's affair.
fn spoof(remote: &Remote, initials: &[Vec<u8>]) -> (usize, usize) {
    let mut came = 0;
    let mut hear = |socket: &UdpSocket, patience_ms| {
        socket.set_read_timeout(Some(Duration::from_millis(patience_ms))).unwrap();
        socket.recv_from(&mut [0; 2_000]).is_ok_and(|(length, _)| {
            came += length;
            true
        })
    };
    let sockets: Vec<_> = initials
        .iter()
        .map(|initial| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.send_to(initial, remote.address).unwrap();
            assert!(hear(&socket, 10_000), "no answer");
            socket
        })
        .collect();
    for (at, socket) in sockets.iter().enumerate() {
        // Long enough for a few repetitions of what is not answered.
        while hear(socket, if at == 0 { 3_000 } else { 20 }) {}
    }
    (initials.iter().map(Vec::len).sum(), came)
}

// RELIABILITY E9
#[test]
fn who_lies_about_his_address_gets_nobody_flooded_and_keeps_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = finished(&mut client, 5);
    let (remote, rows) = (Remote::of(&node), rows(&mut client, &run_id));
    let (sent, came) = spoof(&remote, &initials(&remote, 1));
    assert!(came > 0 && came <= 3 * sent, "{came} for {sent}");
    assert_eq!(metric(&mut node.client(), &handshakes("retried")), 0);
    let (sent, came) = spoof(&remote, &initials(&remote, 200));
    assert!(came > 0 && came <= 3 * sent, "{came} for {sent}");
    let client = &mut node.client();
    assert!(metric(client, &handshakes("retried")) >= 100);
    assert!(metric(client, "aob_quic_connections") <= 65);
    // An honest client proves its address, and comes in.
    block_on(async {
        let (_endpoint, connection) = remote.connect().await;
        let told = Told::whole(&connection, &format!("/v1/runs/{run_id}/events"), json!({})).await;
        assert_eq!(told.events, rows);
    });
}

// RELIABILITY E9
#[test]
fn who_asks_for_nothing_is_closed_and_who_reads_byte_by_byte_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = finished(&mut client, 20);
    let (remote, rows) = (Remote::of(&node), rows(&mut client, &run_id));
    let path = format!("/v1/runs/{run_id}/events");
    block_on(async {
        let (_endpoint, silent) = remote.connect().await;
        let (_endpoint, half) = remote.connect().await;
        let (mut send, _receive) = half.open_bi().await.unwrap();
        send.write_all(&[0x40]).await.unwrap();
        let mut narrow = TransportConfig::default();
        narrow.stream_receive_window(VarInt::from_u32(1)).receive_window(VarInt::from_u32(1));
        let (_endpoint, slow) = remote.connect_with(b"aob/1", narrow).await;
        let (_send, mut receive) = subscribe(&slow, &path, json!({})).await;
        let mut some = [0; 500];
        receive.read_exact(&mut some).await.unwrap();
        let (_endpoint, other) = remote.connect().await;
        assert_eq!(Told::whole(&other, &path, json!({})).await.events, rows);
        assert_eq!(closed_with(&silent.closed().await), 3);
        assert_eq!(closed_with(&half.closed().await), 3);
    });
    assert!(metric(&mut node.client(), "aob_quic_closed_total") >= 2);
}
