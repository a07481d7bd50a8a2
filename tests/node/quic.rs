//! Streams over QUIC and WebTransport, read by clients made of the bare libraries and the protocol's document, not of ours.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use web_transport_proto::{ConnectRequest, ConnectResponse, Settings};

use crate::harness::{Client, Node, Options, chain};

/// Takes the one certificate with this hash, as a browser does that was told `serverCertificateHashes`.
#[derive(Debug)]
struct Pinned(String);

impl rustls::client::danger::ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        let hash: String = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
        if hash == self.0 {
            return Ok(rustls::client::danger::ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!("{hash} is shown")))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(String::from("QUIC has no TLS 1.2")))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Runs a test's client.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Takes the one certificate with this hash, and speaks this protocol.
pub(crate) fn pinned(sha256: &str, protocol: &[u8]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(sha256.to_owned())))
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    tls
}

/// A new certificate in these files; its hash.
pub(crate) fn certificate(directory: &std::path::Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
    std::fs::write(directory.join("crt"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("key"), made.signing_key.serialize_pem()).unwrap();
    Sha256::digest(made.cert.der()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a client needs to know of a node.
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    pub(crate) sha256: String,
}

impl Remote {
    pub(crate) fn of(node: &Node) -> Self {
        let quic = node.client().get("/v1/node").expect(200).json()["quic"].clone();
        let text = |name: &str| quic[name].as_str().unwrap().to_owned();
        Self { address: text("address").parse().unwrap(), sha256: text("certificate_sha256") }
    }

    pub(crate) fn config(&self, protocol: &[u8], transport: TransportConfig) -> quinn::ClientConfig {
        let tls = pinned(&self.sha256, protocol);
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        config.transport_config(Arc::new(transport));
        config
    }

    pub(crate) async fn connect_with(
        &self,
        protocol: &[u8],
        transport: TransportConfig,
    ) -> (Endpoint, Connection) {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = self.config(protocol, transport);
        let connection = endpoint.connect_with(config, self.address, "localhost").unwrap().await.unwrap();
        (endpoint, connection)
    }

    pub(crate) async fn connect(&self) -> (Endpoint, Connection) {
        self.connect_with(b"aob/1", TransportConfig::default()).await
    }
}

/// The next frame; `None` when the stream has ended.
async fn frame(receive: &mut RecvStream) -> Option<(u8, Vec<u8>)> {
    let mut length = [0; 8];
    receive.read_exact(&mut length[..1]).await.ok()?;
    let size = 1 << (length[0] >> 6);
    receive.read_exact(&mut length[1..size]).await.unwrap();
    length[0] &= 0x3f;
    let length = length[..size].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    let mut body = vec![0; length];
    receive.read_exact(&mut body).await.unwrap();
    Some((body.remove(0), body))
}

/// Opens a stream and asks.
pub(crate) async fn subscribe(
    connection: &Connection,
    path: &str,
    headers: Value,
) -> (SendStream, RecvStream) {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let body = json!({"version": 1, "path": path, "headers": headers}).to_string();
    let length = u16::try_from(body.len() + 1).unwrap() | 0x4000;
    send.write_all(&length.to_be_bytes()).await.unwrap();
    send.write_all(&[0x10]).await.unwrap();
    send.write_all(body.as_bytes()).await.unwrap();
    (send, receive)
}

/// What a subscription says: (`seq`, JSON) of each event, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) subscribed: Value,
    pub(crate) refused: Value,
    pub(crate) closing: Value,
    pub(crate) events: Vec<(u64, String)>,
}

impl Told {
    /// Reads until this many events are there, or the stream ends. True: there may be more.
    pub(crate) async fn read(&mut self, receive: &mut RecvStream, most: usize) -> bool {
        while self.events.len() < most {
            let Some((kind, body)) = frame(receive).await else { return false };
            match kind {
                0x01 => {
                    let size = 1 << (body[16] >> 6);
                    let seq = body[16..16 + size].iter().fold(0, |seq, byte| seq << 8 | u64::from(*byte));
                    let seq = seq & (u64::MAX >> (66 - 8 * size));
                    self.events.push((seq, String::from_utf8(body[16 + size..].to_vec()).unwrap()));
                }
                0x06 => self.subscribed = serde_json::from_slice(&body).unwrap(),
                0x07 => self.refused = serde_json::from_slice(&body).unwrap(),
                0x03 => self.closing = serde_json::from_slice(&body).unwrap(),
                0x02 | 0x04 | 0x05 => {}
                other => panic!("type {other}"),
            }
        }
        true
    }

    pub(crate) async fn whole(connection: &Connection, path: &str, headers: Value) -> Self {
        let (mut send, mut receive) = subscribe(connection, path, headers).await;
        send.finish().unwrap();
        let mut told = Self::default();
        told.read(&mut receive, usize::MAX).await;
        told
    }
}

/// The rows of a run's timeline, byte for byte.
pub(crate) fn rows(client: &mut Client, run_id: &str) -> Vec<(u64, String)> {
    rows_of(&client.get(&format!("/v1/runs/{run_id}/timeline?limit=1000")).expect(200).body)
}

/// The rows of a page.
pub(crate) fn rows_of(page: &[u8]) -> Vec<(u64, String)> {
    #[derive(serde::Deserialize)]
    struct Page {
        events: Vec<Box<RawValue>>,
    }
    let page: Page = serde_json::from_slice(page).unwrap();
    let seq = |row: &RawValue| serde_json::from_str::<Value>(row.get()).unwrap()["seq"].as_u64().unwrap();
    page.events.iter().map(|row| (seq(row), row.get().to_owned())).collect()
}

pub(crate) fn start(client: &mut Client, workflow: &Value) -> String {
    client.post("/v1/workflows", workflow).expect(201);
    let wish = json!({"workflow": workflow["name"], "inputs": {"n": 1}});
    client.post("/v1/runs", &wish).expect(202).json()["run_id"].as_str().unwrap().to_owned()
}

pub(crate) fn finished(client: &mut Client, length: usize) -> String {
    let run_id = start(client, &chain("flow", length));
    let path = format!("/v1/runs/{run_id}");
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200);
    run_id
}

/// A run that waits for the signals `s0`, `s1`, ... one after the other.
pub(crate) fn waiting(client: &mut Client, length: usize) -> String {
    let node = |i: usize| json!({"type": "wait", "with": {"signal": format!("s{i}")}});
    let nodes: serde_json::Map<_, _> = (0..length).map(|i| (format!("w{i}"), node(i))).collect();
    let edges: Vec<_> =
        (1..length).map(|i| json!({"from": format!("w{}", i - 1), "to": format!("w{i}")})).collect();
    start(client, &json!({"name": "waiting", "nodes": nodes, "edges": edges}))
}

/// A number of `/metrics`.
pub(crate) fn metric(client: &mut Client, name: &str) -> u64 {
    let text = String::from_utf8(client.get("/metrics").expect(200).body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Two fanout threads on one core.
pub(crate) fn two_cores(options: Options) -> Options {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = line.split([',', '-']).next().unwrap();
    options.set("cores.fanout", &format!("{first},{first}"))
}

pub(crate) fn closed_with(error: &ConnectionError) -> u64 {
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

// F228 F235 F240
#[test]
fn events_over_quic_are_the_rows_of_the_timeline_and_a_cut_stream_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&two_cores(Options::serve(directory.path())));
    let mut client = node.client();
    let run_id = finished(&mut client, 60);
    let rows = rows(&mut client, &run_id);
    let (remote, path) = (Remote::of(&node), format!("/v1/runs/{run_id}/events"));
    block_on(async {
        let (_endpoint, connection) = remote.connect().await;
        let told = Told::whole(&connection, &path, json!({})).await;
        assert_eq!(told.subscribed["version"], 1);
        assert_eq!(told.subscribed["path"], path.as_str());
        assert_eq!(told.events, rows);
        // Cut again and again: by resetting, by stopping, by losing the connection.
        let mut events = Vec::new();
        for round in 0_usize.. {
            let (endpoint, connection) = remote.connect().await;
            let after = events.last().map_or(0, |(seq, _)| *seq);
            let path = format!("{path}?after={after}");
            let (mut send, mut receive) = subscribe(&connection, &path, json!({})).await;
            let mut told = Told::default();
            let more = told.read(&mut receive, 1 + round * 7 % 13).await;
            events.append(&mut told.events);
            match round % 3 {
                0 => send.reset(VarInt::from_u32(0)).unwrap(),
                1 => receive.stop(VarInt::from_u32(0)).unwrap(),
                _ => endpoint.close(VarInt::from_u32(0), b""),
            }
            if !more {
                break;
            }
        }
        assert_eq!(events, rows);
    });
    assert!(node.terminate().0.success());
}

// F228
#[test]
fn a_webtransport_session_of_a_run_has_its_events_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = finished(&mut client, 20);
    let rows = rows(&mut client, &run_id);
    let remote = Remote::of(&node);
    block_on(async {
        let (_endpoint, connection) = remote.connect_with(b"h3", TransportConfig::default()).await;
        let url = format!("https://{}/v1/runs/{run_id}/stream?after=3", remote.address);
        let _session =
            session(&connection, ConnectRequest::new(url.parse::<url::Url>().unwrap())).await.unwrap();
        let mut receive = loop {
            let mut receive = connection.accept_uni().await.unwrap();
            let mut kind = [0; 2];
            receive.read_exact(&mut kind).await.unwrap();
            // 0x54: a stream of the session, which is the stream 0.
            if kind == [0x40, 0x54] {
                receive.read_exact(&mut kind[..1]).await.unwrap();
                assert_eq!(kind[0], 0);
                break receive;
            }
        };
        let mut told = Told::default();
        assert!(!told.read(&mut receive, usize::MAX).await);
        assert_eq!(told.events, rows[3..]);
        // What a page asks for on a stream of its own: 0x41 and the session.
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let body = json!({"version": 1, "path": format!("/v1/runs/{run_id}/events")}).to_string();
        let length = u16::try_from(body.len() + 1).unwrap() | 0x4000;
        let bytes = [&[0x40, 0x41, 0x00][..], &length.to_be_bytes(), &[0x10], body.as_bytes()].concat();
        send.write_all(&bytes).await.unwrap();
        let mut told = Told::default();
        told.read(&mut receive, usize::MAX).await;
        assert_eq!(told.events, rows);
    });
    let refused = |path: &str, origin: Option<&str>| {
        block_on(async {
            let (_endpoint, connection) = remote.connect_with(b"h3", TransportConfig::default()).await;
            let url = format!("https://{}{path}", remote.address).parse::<url::Url>().unwrap();
            let mut request = ConnectRequest::new(url);
            if let Some(origin) = origin {
                request = request.with_header("origin".parse().unwrap(), origin.parse().unwrap());
            }
            session(&connection, request).await.err()
        })
    };
    let own = format!("https://{}", remote.address);
    assert_eq!(refused("/v1/stream", None), None);
    assert_eq!(refused("/v1/stream", Some(&own)), None);
    assert_eq!(refused("/v1/stream", Some("https://evil.example")), Some(403));
    assert_eq!(refused("/v1/runs/run_018bcfe568007fffbfffffffffffffff/stream", None), Some(404));
    assert_eq!(refused("/v1/elsewhere", None), Some(404));
}

/// Opens a session; the status when it is refused.
pub(crate) async fn session(
    connection: &Connection,
    request: ConnectRequest,
) -> Result<(SendStream, RecvStream), u16> {
    let mut control = connection.open_uni().await.unwrap();
    let (mut settings, mut out) = (Settings::default(), BytesMut::new());
    settings.enable_webtransport(1);
    settings.encode(&mut out);
    control.write_all(&out).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut out = BytesMut::new();
    request.encode(&mut out).unwrap();
    send.write_all(&out).await.unwrap();
    // The control stream must not end before the connection.
    tokio::spawn(async move {
        let _ = control.stopped().await;
    });
    match ConnectResponse::read(&mut receive).await {
        Ok(response) if response.status == 200 => Ok((send, receive)),
        Ok(response) => Err(response.status.as_u16()),
        Err(web_transport_proto::ConnectError::WrongStatus(Some(status))) => Err(status.as_u16()),
        // The library reads refusals of requests as errors.
        Err(web_transport_proto::ConnectError::ErrorStatus(status)) => Err(status.as_u16()),
        Err(other) => panic!("{other}"),
    }
}

// F235: the kernel gives a client with another address to another core, and its own core has its datagrams all the same.
#[test]
fn a_client_whose_address_changes_goes_on_without_a_gap() {
    const MOVES: usize = 24;
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&two_cores(Options::serve(directory.path())));
    let mut client = node.client();
    let run_id = waiting(&mut client, MOVES);
    let remote = Remote::of(&node);
    let told = block_on(async {
        let (endpoint, connection) = remote.connect().await;
        let (_send, mut receive) =
            subscribe(&connection, &format!("/v1/runs/{run_id}/events"), json!({})).await;
        let mut told = Told::default();
        told.read(&mut receive, 1).await;
        for at in 0..MOVES {
            endpoint.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
            let signal = format!("/v1/runs/{run_id}/signals/s{at}");
            assert!(client.post(&signal, &json!({})).status < 300);
            let completed = format!("\"node\":\"w{at}\"");
            while !told
                .events
                .iter()
                .any(|(_, row)| row.contains("node.completed") && row.contains(&completed))
            {
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

// F235
#[test]
fn a_node_that_stops_ends_streams_and_says_why_it_closes() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let mut client = node.client();
    let run_id = waiting(&mut client, 1);
    let remote = Remote::of(&node);
    block_on(async {
        let (_endpoint, connection) = remote.connect().await;
        let path = format!("/v1/runs/{run_id}/events");
        let (_send, mut receive) = subscribe(&connection, &path, json!({})).await;
        let mut told = Told::default();
        assert!(told.read(&mut receive, 2).await);
        node.ask_to_end();
        assert!(!told.read(&mut receive, usize::MAX).await);
        assert_eq!(closed_with(&connection.closed().await), 1);
    });
    assert!(node.finish().0.success());
}

// F235
#[test]
fn what_cannot_be_had_is_refused_as_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens.toml");
    let set = format!("auth.tokens_file={}", file.display());
    let made = std::process::Command::new(crate::harness::AOBD)
        .args(["token", "new", "--name", "reader", "--workspace", "acme", "--role", "admin", "--set", &set])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let options =
        Options::serve(&directory.path().join("data")).set("auth.tokens_file", &file.display().to_string());
    let node = Node::start(&options);
    let quic =
        Client::new(&node.address).bearer(Some(&token)).get("/v1/node").expect(200).json()["quic"].clone();
    let text = |name: &str| quic[name].as_str().unwrap().to_owned();
    let remote = Remote { address: text("address").parse().unwrap(), sha256: text("certificate_sha256") };
    let mut client = Client::new(&node.address).bearer(Some(&token));
    let run_id = finished(&mut client, 3);
    let path = format!("/v1/runs/{run_id}/events");
    let bearer = json!({"authorization": format!("Bearer {token}")});
    block_on(async {
        let (_endpoint, connection) = remote.connect().await;
        let refused = async |path: &str, headers: Value| {
            let told = Told::whole(&connection, path, headers).await;
            assert!(told.events.is_empty());
            (told.refused["status"].as_u64().unwrap(), told.refused["code"].as_str().unwrap().to_owned())
        };
        assert_eq!(refused(&path, json!({})).await.0, 401);
        assert_eq!(
            refused(&path, json!({"authorization": "Bearer wrong"})).await,
            (401, "unauthenticated".into())
        );
        let missing = "/v1/runs/run_018bcfe568007fffbfffffffffffffff/events";
        assert_eq!(refused(missing, bearer.clone()).await.0, 404);
        assert_eq!(refused("/v1/runs", bearer.clone()).await.0, 404);
        assert_eq!(refused("no path", bearer.clone()).await, (400, "invalid_subscribe".into()));
        let told = Told::whole(&connection, &path, bearer).await;
        assert_eq!(told.events, rows(&mut client, &run_id));
    });
}

// F006 F235
#[test]
fn a_certificate_from_files_is_shown_and_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let first = certificate(directory.path());
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options::serve(&file("data"))
        .set("quic.listen", &address.to_string())
        .set("tls.certificate", &file("crt").display().to_string())
        .set("tls.key", &file("key").display().to_string());
    let node = Node::start(&options);
    let connects = |sha256: &str| {
        block_on(async {
            let remote = Remote { address, sha256: sha256.to_owned() };
            let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let config = remote.config(b"aob/1", TransportConfig::default());
            endpoint.connect_with(config, address, "localhost").unwrap().await.is_ok()
        })
    };
    assert!(connects(&first));
    let second = certificate(directory.path());
    node.hang_up();
    node.says("reloaded");
    assert!(!connects(&first) && connects(&second));
}
