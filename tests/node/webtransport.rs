//! WebTransport sessions: whom they let in, a client that moves, and a node that stops under them.

use std::net::UdpSocket;

use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use serde_json::{Value, json};
use web_transport_proto::ConnectRequest;

use crate::harness::{Client, Node, Options};
use crate::quic::{
    Remote, Told, block_on, closed_with, finished, metric, rows, session, start, two_cores, waiting,
};

/// A session at this path, or the status with which it was refused.
async fn open(remote: &Remote, path: &str) -> Result<Session, u16> {
    let (endpoint, connection) = remote.connect_with(b"h3", TransportConfig::default()).await;
    let url = format!("https://{}{path}", remote.address).parse::<url::Url>().unwrap();
    let streams = session(&connection, ConnectRequest::new(url)).await?;
    Ok(Session { endpoint, connection, streams })
}

struct Session {
    endpoint: Endpoint,
    connection: Connection,
    /// Those of the `CONNECT`: while they are open the session is.
    streams: (SendStream, RecvStream),
}

impl Session {
    /// The stream that the server opens.
    async fn events(&self) -> RecvStream {
        loop {
            let mut receive = self.connection.accept_uni().await.unwrap();
            let mut kind = [0; 2];
            receive.read_exact(&mut kind).await.unwrap();
            // 0x54: a stream of the session, which is the stream 0.
            if kind == [0x40, 0x54] {
                receive.read_exact(&mut kind[..1]).await.unwrap();
                assert_eq!(kind[0], 0);
                return receive;
            }
        }
    }

    /// What is said to a `subscribe` on a stream of the client's.
    async fn asked(&self, path: &str, headers: Value) -> Told {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        let body = json!({"version": 1, "path": path, "headers": headers}).to_string();
        let length = u16::try_from(body.len() + 1).unwrap() | 0x4000;
        // 0x41: of the session 0.
        let bytes = [&[0x40, 0x41, 0x00][..], &length.to_be_bytes(), &[0x10], body.as_bytes()].concat();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let mut told = Told::default();
        told.read(&mut receive, usize::MAX).await;
        told
    }
}

// F228 F235
#[test]
fn a_session_is_refused_as_a_request_is_and_a_token_may_be_in_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens.toml").display().to_string();
    let token = |name: &str, workspace: &str| {
        let set = format!("auth.tokens_file={file}");
        let made = std::process::Command::new(crate::harness::AOBD)
            .args([
                "token",
                "new",
                "--name",
                name,
                "--workspace",
                workspace,
                "--role",
                "admin",
                "--set",
                &set,
            ])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let (ours, theirs) = (token("ours", "acme"), token("theirs", "other"));
    let node = Node::start(&Options::serve(&directory.path().join("data")).set("auth.tokens_file", &file));
    let mut client = node.client().bearer(Some(&ours));
    let run_id = finished(&mut client, 3);
    let quic = client.get("/v1/node").expect(200).json()["quic"].clone();
    let text = |name: &str| quic[name].as_str().unwrap().to_owned();
    let remote = Remote { address: text("address").parse().unwrap(), sha256: text("certificate_sha256") };
    let (events, stream) = (format!("/v1/runs/{run_id}/events"), format!("/v1/runs/{run_id}/stream"));
    let rows = rows(&mut client, &run_id);
    block_on(async {
        for (bearer, status) in [(None, 401), (Some("wrong"), 401), (Some(&*theirs), 404)] {
            let over_http = Client::new(&node.address).bearer(bearer).get(&events).status;
            let path = bearer.map_or(stream.clone(), |token| format!("{stream}?access_token={token}"));
            let over_webtransport = open(&remote, &path).await.err();
            assert_eq!((over_http, over_webtransport), (status, Some(status)), "{bearer:?}");
        }
        let ours = format!("access_token={ours}");
        let session = open(&remote, &format!("{stream}?after=2&{ours}")).await.ok().unwrap();
        let mut told = Told::default();
        told.read(&mut session.events().await, usize::MAX).await;
        assert_eq!(told.events, rows[2..]);
        // No word of the token comes back.
        assert_eq!(told.subscribed["path"], format!("{events}?after=2"));
        // What the path says holds for what is asked for in the session; without it each says its own.
        assert_eq!(session.asked(&events, json!({})).await.events, rows);
        let session = open(&remote, "/v1/stream").await.ok().unwrap();
        let refused = session.asked(&events, json!({})).await;
        assert_eq!((&refused.refused["status"], refused.events.len()), (&json!(401), 0));
        let headers = |token: &str| json!({"authorization": format!("Bearer {token}")});
        assert_eq!(session.asked(&events, headers(&theirs)).await.refused["status"], 404);
        let token = ours.strip_prefix("access_token=").unwrap();
        assert_eq!(session.asked(&events, headers(token)).await.events, rows);
    });
}

// F228 F235
#[test]
fn a_session_whose_client_moves_goes_on_without_a_gap() {
    const MOVES: usize = 24;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&two_cores(Options::serve(directory.path())));
    let mut client = node.client();
    let run_id = waiting(&mut client, MOVES);
    let remote = Remote::of(&node);
    let told = block_on(async {
        let session = open(&remote, &format!("/v1/runs/{run_id}/stream")).await.ok().unwrap();
        let mut receive = session.events().await;
        let mut told = Told::default();
        told.read(&mut receive, 1).await;
        for at in 0..MOVES {
            session.endpoint.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
            let signal = format!("/v1/runs/{run_id}/signals/s{at}");
            assert!(client.post(&signal, &json!({})).status < 300);
            let completed = format!("\"node\":\"w{at}\"");
            let has = |(_, row): &(u64, String)| row.contains("node.completed") && row.contains(&completed);
            while !told.events.iter().any(has) {
                let most = told.events.len() + 1;
                assert!(told.read(&mut receive, most).await, "the stream ended at {at}");
            }
        }
        told.read(&mut receive, usize::MAX).await;
        told
    });
    assert_eq!(told.events, rows(&mut client, &run_id));
    // Each address has one chance in two: that none of so many went to the other core cannot be.
    assert!(metric(&mut client, "aob_quic_forwarded_total") > 0);
    assert_eq!(metric(&mut client, "aob_quic_forwards_dropped_total"), 0);
}

// F228 F235 F306
#[test]
fn a_session_is_told_that_the_node_stops_and_goes_on_with_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let hold = json!({"name": "hold", "nodes": {
        "a": {"type": "wait", "with": {"signal": "go"}},
        "b": {"type": "function", "with": {"expr": "1"}}}, "edges": [{"from": "a", "to": "b"}]});
    let run_id = start(&mut node.client(), &hold);
    let (remote, stream) = (Remote::of(&node), format!("/v1/runs/{run_id}/stream"));
    let mut told = Told::default();
    block_on(async {
        let mut session = open(&remote, &stream).await.ok().unwrap();
        let mut receive = session.events().await;
        told.read(&mut receive, 2).await;
        node.ask_to_end();
        assert!(!told.read(&mut receive, usize::MAX).await);
        let said = session.streams.1.read_to_end(1_000).await.unwrap();
        // DATA of seven bytes: CLOSE_WEBTRANSPORT_SESSION (0x2843) of four, the code 1, `stopping`.
        assert_eq!(said, [0, 7, 0x68, 0x43, 4, 0, 0, 0, 1]);
        // That of HTTP/3: it says no more.
        assert_eq!(closed_with(&session.connection.closed().await), 0x100);
    });
    let (status, said) = node.finish();
    assert!(status.success(), "{status}: {said}");
    let node = Node::start(&Options::serve(directory.path()));
    let (mut client, remote) = (node.client(), Remote::of(&node));
    block_on(async {
        let after = told.events.last().unwrap().0;
        let session = open(&remote, &format!("{stream}?after={after}")).await.ok().unwrap();
        let mut receive = session.events().await;
        assert!(client.post(&format!("/v1/runs/{run_id}/signals/go"), &json!({})).status < 300);
        told.read(&mut receive, usize::MAX).await;
    });
    let rows = rows(&mut client, &run_id);
    assert!(rows.last().unwrap().1.contains("run.completed"));
    assert_eq!(told.events, rows);
}
