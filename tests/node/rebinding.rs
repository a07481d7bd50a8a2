//! Names that change their answers, over the wire: the node asks a name server of the test's, by the system's resolver, in
//! a network of its own where a "public" address and the forbidden ones are all there to be reached.
//!
//! That takes namespaces (`unshare -rmn`); where they are refused the test says so and proves nothing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::harness::{Client, Node, Options, in_background};

/// Set in the process that is in its own network.
const INSIDE: &str = "AOB_TEST_REBINDING_INSIDE";
/// How the set-up says that this system does not allow it.
const NOT_ALLOWED: i32 = 77;
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const NAME_SERVER: &str = "127.0.0.53:53";

// F108, RELIABILITY F9
#[test]
fn a_name_that_is_rebound_over_the_wire_leads_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let resolv = directory.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.53\noptions attempts:1 timeout:5\n").unwrap();
    let script = format!(
        "{{ mount --bind {} /etc/resolv.conf && ip link set lo up && ip addr add {PUBLIC}/32 dev lo \
         && ip addr add {METADATA}/32 dev lo; }} || exit {NOT_ALLOWED}; exec \"$0\" \"$@\"",
        resolv.display()
    );
    let run = Command::new("unshare")
        .args(["-rmn", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "rebinding::inside_its_own_network", "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .output();
    match run {
        Ok(run) if run.status.success() => {
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(said.contains("1 passed"), "{said}");
        }
        Ok(run) if run.status.code() != Some(NOT_ALLOWED) && !run.stdout.is_empty() => {
            let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
            panic!("{}: {said}", run.status);
        }
        refused => eprintln!("skipped: no network of its own to be had here: {refused:?}"),
    }
}

/// What the name server says of a name, question by question; the last goes on.
fn zone() -> BTreeMap<&'static str, Vec<Vec<IpAddr>>> {
    let (public, loopback, metadata) = (PUBLIC.into(), Ipv4Addr::LOCALHOST.into(), METADATA.into());
    BTreeMap::from([
        ("public.example", vec![vec![public]]),
        ("stays.example", vec![vec![public], vec![loopback]]),
        ("redirected.example", vec![vec![public], vec![loopback]]),
        ("redirected-to-metadata.example", vec![vec![public], vec![metadata]]),
        ("retried.example", vec![vec![public], vec![metadata]]),
        ("both.example", vec![vec![public, loopback]]),
        ("metadata.example", vec![vec![metadata]]),
        ("six.example", vec![vec![Ipv6Addr::LOCALHOST.into()]]),
        ("mapped.example", vec![vec![Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()]]),
    ])
}

/// Answers questions for addresses of the zone for ever; counts those for names, by name.
fn name_server(socket: UdpSocket, asked: &[(&'static str, AtomicUsize)]) {
    let zone = zone();
    let mut packet = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        let question = &packet[12..length];
        let (mut name, mut at) = (Vec::new(), 0);
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            name.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
            at = end;
        }
        let name = name.join(".");
        let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
        let question = &question[..at + 5];
        let answers: Vec<IpAddr> = match zone.get(name.as_str()) {
            Some(answers) => {
                let six = answers[0][0].is_ipv6();
                let wanted = if six { 28 } else { 1 };
                if kind == wanted {
                    let (_, count) = asked.iter().find(|(known, _)| *known == name).unwrap();
                    let turn = count.fetch_add(1, Ordering::SeqCst);
                    answers[turn.min(answers.len() - 1)].clone()
                } else {
                    Vec::new()
                }
            }
            None => Vec::new(),
        };
        // No error when the name is there, else that it is not.
        let code = if zone.contains_key(name.as_str()) { 0x80 } else { 0x83 };
        let mut reply = vec![packet[0], packet[1], 0x81, code, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0];
        reply.extend(question);
        for answer in answers {
            let octets = match answer {
                IpAddr::V4(four) => four.octets().to_vec(),
                IpAddr::V6(six) => six.octets().to_vec(),
            };
            reply.extend([0xc0, 12, 0, if octets.len() == 4 { 1 } else { 28 }, 0, 1, 0, 0, 0, 0, 0]);
            reply.push(octets.len() as u8);
            reply.extend(octets);
        }
        let _ = socket.send_to(&reply, from);
    }
}

/// The service at the public address: sends on, fails once, or answers. Every connection brings one call.
fn public_service(listener: TcpListener, port: u16) -> Receiver<String> {
    let (sent, calls) = channel();
    in_background(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
            let first = match path.strip_prefix("/to/") {
                Some(name) => format!("302 Found\r\nlocation: http://{name}:{port}/"),
                None if path == "/busy" => String::from("503 Service Unavailable"),
                None => String::from("200 OK"),
            };
            let _ = sent.send(format!("{host}{path}"));
            let _ = write!(
                reader.get_mut(),
                "HTTP/1.1 {first}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            );
        }
    });
    calls
}

/// The end of a run that makes one call.
fn outcome(client: &mut Client, url: &str) -> Value {
    let flow = json!({"name": "call", "nodes": {"a": {"type": "http", "retry": {"max_attempts": 2, "initial": "1ms"},
        "with": {"url": url}}}});
    client.post("/v1/workflows", &flow);
    let run = client.post("/v1/runs", &json!({"workflow": "call", "inputs": {}})).expect(202).json();
    let path = format!("/v1/runs/{}", run["run_id"].as_str().unwrap());
    client.request("GET", &path, &[("prefer", "wait=60")], b"").unwrap().expect(200).json()
}

#[test]
#[ignore = "run by the test above, in a network of its own"]
fn inside_its_own_network() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let asked: Arc<Vec<_>> = Arc::new(zone().into_keys().map(|name| (name, AtomicUsize::new(0))).collect());
    let server = UdpSocket::bind(NAME_SERVER).unwrap();
    let counts = asked.clone();
    in_background(move || name_server(server, &counts));
    let public = TcpListener::bind((PUBLIC, 0)).unwrap();
    let port = public.local_addr().unwrap().port();
    // Those that nobody may reach listen at the same port.
    let victims: Vec<TcpListener> =
        [IpAddr::from(Ipv4Addr::LOCALHOST), METADATA.into(), Ipv6Addr::LOCALHOST.into()]
            .map(|address| TcpListener::bind((address, port)).unwrap())
            .into();
    victims.iter().for_each(|victim| victim.set_nonblocking(true).unwrap());
    let calls = public_service(public, port);
    // They are there: whoever is let in gets in.
    drop(TcpStream::connect((METADATA, port)).unwrap());
    assert!(victims[1].accept().is_ok());

    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()).set("runner.driver", "tokio"));
    let mut client = node.client();
    let count = |name: &str| asked.iter().find(|(known, _)| *known == name).unwrap().1.load(Ordering::SeqCst);
    for (name, path, code, seen, questions) in [
        ("public.example", "/", None, &["public.example/"][..], 1),
        // The name has changed its answer when the connection is made; it goes where it was checked to go.
        ("stays.example", "/", None, &["stays.example/"], 1),
        (
            "redirected.example",
            "/to/redirected.example",
            Some("address_refused"),
            &["redirected.example/to/redirected.example"],
            2,
        ),
        (
            "redirected-to-metadata.example",
            "/to/redirected-to-metadata.example",
            Some("address_refused"),
            &["redirected-to-metadata.example/to/redirected-to-metadata.example"],
            2,
        ),
        ("retried.example", "/busy", Some("address_refused"), &["retried.example/busy"], 2),
        ("both.example", "/", Some("address_refused"), &[], 1),
        ("metadata.example", "/", Some("address_refused"), &[], 1),
        ("six.example", "/", Some("address_refused"), &[], 1),
        ("mapped.example", "/", Some("address_refused"), &[], 1),
    ] {
        let run = outcome(&mut client, &format!("http://{name}:{port}{path}"));
        assert_eq!(run["error"]["code"].as_str(), code, "{name}: {run}");
        let arrived: Vec<String> = calls.try_iter().collect();
        let seen: Vec<String> =
            seen.iter().map(|seen| seen.replacen(".example", &format!(".example:{port}"), 1)).collect();
        assert_eq!((arrived, count(name)), (seen, questions), "{name}");
    }
    for victim in &victims {
        assert!(victim.accept().is_err(), "somebody came to {:?}", victim.local_addr());
    }
}
