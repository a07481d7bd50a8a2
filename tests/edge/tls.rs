//! TLS of the listener: who gets in, who does not, and how certificates are swapped.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::harness::{Node, Options};

const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// Puts a new certificate for `localhost` where the options look for it.
pub(crate) fn certify(directory: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
    std::fs::write(directory.join("node.crt"), made.cert.pem()).unwrap();
    std::fs::write(directory.join("node.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

pub(crate) fn with_tls(data_dir: &Path, files: &Path) -> Options {
    let path = |name: &str| files.join(name).display().to_string();
    Options::serve(data_dir)
        .set("tls.certificate", &path("node.crt"))
        .set("tls.key", &path("node.key"))
        .set("runner.driver", "tokio")
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection of a client that trusts this certificate alone.
fn connect(
    address: &str,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> std::io::Result<Stream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    Ok(StreamOwned::new(client, TcpStream::connect(address)?))
}

/// What such a client gets: its answer to `GET /version`, and the certificate shown.
fn get(
    address: &str,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> std::io::Result<(String, CertificateDer<'static>)> {
    let mut stream = connect(address, trusted, versions, protocols)?;
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let shown = stream.conn.peer_certificates().unwrap()[0].clone().into_owned();
    Ok((answer, shown))
}

// F006, F417
#[test]
fn a_client_gets_in_with_tls_1_2_or_1_3_and_an_end_of_the_connection_that_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certify(directory.path());
    let node = Node::start(&with_tls(&directory.path().join("data"), directory.path()));
    for (versions, protocols) in
        [(&BOTH[..1], &[][..]), (&BOTH[1..], &[][..]), (&BOTH[..], &[&b"http/1.1"[..]])]
    {
        let (answer, _) = get(&node.address, &certificate, versions, protocols).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("aobd"), "{answer}");
    }
}

// F417
#[test]
fn plain_text_old_versions_and_other_protocols_are_refused_and_others_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certify(directory.path());
    let node = Node::start(&with_tls(&directory.path().join("data"), directory.path()));
    // A handshake that never goes on holds up nobody.
    let _silent = TcpStream::connect(&node.address).unwrap();

    let mut plain = TcpStream::connect(&node.address).unwrap();
    plain.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.windows(4).any(|window| window == b"HTTP"), "{answer:?}");

    // A ClientHello that offers TLS 1.1 and nothing newer.
    let mut old = TcpStream::connect(&node.address).unwrap();
    let suites: [u8; 6] = [0x00, 0x04, 0xc0, 0x13, 0x00, 0x2f];
    let mut body = vec![0x03, 0x02];
    body.extend([7_u8; 32]);
    body.push(0);
    body.extend(suites);
    body.extend([1, 0]);
    // signature_algorithms, supported_groups, ec_point_formats: nothing else is wrong with it.
    body.extend([0, 22, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29, 0, 11, 0, 2, 1, 0]);
    let mut hello = vec![0x16, 0x03, 0x01, 0, u8::try_from(body.len() + 4).unwrap(), 1, 0, 0];
    hello.push(u8::try_from(body.len()).unwrap());
    hello.extend(body);
    old.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    let _ = old.read_to_end(&mut answer);
    // 21: an alert, 2: fatal, 70: the protocol's version.
    assert_eq!((answer.first(), answer.get(5..7)), (Some(&21), Some(&[2, 70][..])), "{answer:?}");

    assert!(get(&node.address, &certificate, &BOTH, &[b"spdy/3"]).is_err());
    let stranger = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
    assert!(get(&node.address, stranger.cert.der(), &BOTH, &[]).is_err(), "the client checks, too");
    let (answer, _) = get(&node.address, &certificate, &BOTH, &[]).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (status, _) = node.terminate();
    assert!(status.success());
}

// F432
#[test]
fn a_reload_shows_the_new_certificate_and_a_broken_one_keeps_the_old() {
    let directory = tempfile::tempdir().unwrap();
    let first = certify(directory.path());
    let node = Node::start(&with_tls(&directory.path().join("data"), directory.path()));
    assert_eq!(get(&node.address, &first, &BOTH, &[]).unwrap().1, first);

    std::fs::write(directory.path().join("node.crt"), "no certificate").unwrap();
    node.hang_up();
    assert!(node.says("tls.certificate").contains("node.crt"));
    assert_eq!(get(&node.address, &first, &BOTH, &[]).unwrap().1, first);

    let second = certify(directory.path());
    node.hang_up();
    node.says("reloaded");
    node.says("reloaded");
    assert_eq!(get(&node.address, &second, &BOTH, &[]).unwrap().1, second);
    assert!(get(&node.address, &first, &BOTH, &[]).is_err());
}

// F006
#[test]
fn a_certificate_that_cannot_be_used_keeps_the_node_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    certify(directory.path());
    std::fs::write(directory.path().join("node.key"), "no key").unwrap();
    let (status, stderr) =
        Node::try_start(&with_tls(&directory.path().join("data"), directory.path())).err().expect("refused");
    assert_eq!(status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("tls.key") && stderr.contains("node.key"), "{stderr}");
}

// F417
#[test]
fn a_handshake_counts_as_a_connection_and_is_cut_when_it_takes_too_long() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certify(directory.path());
    let options = with_tls(&directory.path().join("data"), directory.path())
        .set("cores.control", "1")
        .set("limits.connections_per_core_max", "1");
    let node = Node::start(&options);
    let mut silent = TcpStream::connect(&node.address).unwrap();
    // There is room for this one only when the silent one is gone.
    let (answer, _) = get(&node.address, &certificate, &BOTH, &[]).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    silent.set_nonblocking(true).unwrap();
    match silent.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {}
        open => panic!("the silent connection is open still: {open:?}"),
    }
}

/// One request, and its answer to the end of the connection.
fn ask(stream: &mut Stream, request: &str, body: &str) -> String {
    let close = if request.contains("/events") { "" } else { "connection: close\r\n" };
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{close}");
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    stream.write_all(format!("{head}{length}\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

// F008, F417
#[test]
fn a_stream_goes_on_inside_tls_on_the_core_that_feeds_it() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certify(directory.path());
    let node = Node::start(&with_tls(&directory.path().join("data"), directory.path()));
    let open = || connect(&node.address, &certificate, &BOTH, &[]).unwrap();
    let document = r#"{"name": "w", "nodes": {"a": {"type": "wait", "with": {"signal": "go"}}}}"#;
    assert!(ask(&mut open(), "POST /v1/workflows", document).starts_with("HTTP/1.1 201"));
    let started = ask(&mut open(), "POST /v1/runs", r#"{"workflow": "w"}"#);
    let run_id = &started[started.find("run_").unwrap()..][..36];

    let mut stream = open();
    let path = format!("/v1/runs/{run_id}/events");
    // Read slowly, in small pieces: the session that came along has to fit its bytes.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("event: node.waiting") {
        let mut piece = [0; 7];
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&told));
        told.extend_from_slice(&piece[..length]);
    }
    let signal = format!("POST /v1/runs/{run_id}/signals/go");
    let answer = ask(&mut open(), &signal, r#"{"payload": {}}"#);
    assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    // To the end, which is told: nothing is cut off unnoticed.
    stream.read_to_end(&mut told).unwrap();
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("HTTP/1.1 200 OK\r\n") && told.contains("event: run.completed"), "{told}");
    assert!(told.contains("x-request-id: ") && told.contains("transfer-encoding: chunked"), "{told}");
    assert!(told.ends_with("0\r\n\r\n"), "{told}");

    // A second request on the connection of a stream is not answered.
    let mut stream = open();
    let both = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\nGET /version HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(both.as_bytes()).unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert_eq!(told.matches("HTTP/1.1 200").count(), 1, "{told}");
    assert!(told.contains("event: run.completed"), "{told}");
}
