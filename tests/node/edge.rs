//! `tuning/edge/haproxy.cfg` in front of two nodes on one store: TLS and HTTP/2, a run always to the same node, and what clients see when
//! one of them is killed or handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::harness::{Node, Options, chain, root, store};
use crate::quic::{block_on, certificate, pinned};

/// HAProxy, as the file says; killed when dropped.
struct Edge {
    child: Child,
    socket: std::path::PathBuf,
    /// Where it says what it thinks of its servers.
    stats: std::path::PathBuf,
    sha256: String,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Edge {
    /// In front of these; `None` where there is no HAProxy.
    fn start(directory: &Path, nodes: [&str; 3]) -> Option<Self> {
        let sha256 = certificate(directory);
        let [crt, key] = ["crt", "key"].map(|name| std::fs::read_to_string(directory.join(name)).unwrap());
        std::fs::write(directory.join("edge.pem"), crt + &key).unwrap();
        let socket = directory.join("edge.sock");
        let (stats, more) = (directory.join("stats.sock"), directory.join("stats.cfg"));
        std::fs::write(&more, format!("global\n    stats socket {} level user\n", stats.display())).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-f").arg(root().join("tuning/edge/haproxy.cfg")).arg("-f").arg(more);
        command.env("AOB_EDGE_BIND", format!("unix@{}", socket.display()));
        command.env("AOB_EDGE_CERTIFICATE", directory.join("edge.pem"));
        for (at, node) in nodes.iter().enumerate() {
            command.env(format!("AOB_NODE_{}", at + 1), node);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            println!("SKIPPED what needs haproxy: it is not installed (Debian: apt-get install haproxy)");
            return None;
        };
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "haproxy ended");
            std::thread::yield_now();
        }
        Some(Self { child, socket, stats, sha256 })
    }

    /// Until it knows of each node whether it is there: before, it believes in all of them, and asks some other node in place of one that
    /// is not there.
    fn knows(&self, up: [bool; 3]) {
        loop {
            let mut stats = std::os::unix::net::UnixStream::connect(&self.stats).unwrap();
            stats.write_all(b"show stat nodes 4 -1 typed\n").unwrap();
            let mut said = String::new();
            stats.read_to_string(&mut said).unwrap();
            // A line for each field: `S.3.ID.17.status.1:MDP:str:UP`.
            let says: Vec<&str> = said.lines().filter(|line| line.contains(".status.")).collect();
            assert_eq!(says.len(), up.len(), "{said}");
            if says.iter().zip(up).all(|(line, up)| line.ends_with(if up { ":UP" } else { ":DOWN" })) {
                return;
            }
            std::thread::yield_now();
        }
    }

    async fn client(&self) -> Client {
        let tls = TlsConnector::from(Arc::new(pinned(&self.sha256, b"h2")));
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let stream = tls.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.unwrap();
        tokio::spawn(connection);
        Client(sender)
    }
}

struct Client(SendRequest<Full<Bytes>>);

impl Client {
    /// Status, who answered, and what.
    async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> (u16, String, Vec<u8>) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://localhost{path}"))
            .header("content-type", "application/json")
            .header("prefer", "wait=30")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        let by = answer.headers().get("x-served-by").map(|by| by.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, by.unwrap_or_default(), body.to_vec())
    }

    async fn run(&mut self, n: usize) -> String {
        let start = json!({"workflow": "chain5", "inputs": {"n": n}});
        let (status, _, body) = self.ask("POST", "/v1/runs", Some(&start)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let run: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(run["status"], "completed");
        run["run_id"].as_str().unwrap().to_owned()
    }
}

// F009, F212, F216
#[test]
fn behind_haproxy_runs_stay_with_a_node_and_clients_do_not_see_it_die() {
    if !store::is_there() {
        return;
    }
    let [first, second, edge] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let options = |directory: &Path| {
        let options = Options::serve(directory).set("store.url", &store::of(first.path()));
        options.set("store.lease_seconds", "1")
    };
    let owner = Node::start(&options(first.path()));
    let other = Node::stand_by(&options(second.path()));
    // The third one is not there.
    let Some(edge) = Edge::start(edge.path(), [&owner.address, &other.address, "127.0.0.1:9"]) else {
        return;
    };
    edge.knows([true, true, false]);
    block_on(async {
        let mut client = edge.client().await;
        // Until it has seen both.
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            let (status, by, _) = client.ask("GET", "/readyz", None).await;
            if status == 200 {
                seen.insert(by);
            }
        }
        let (status, ..) = client.ask("POST", "/v1/workflows", Some(&chain("chain5", 5))).await;
        assert_eq!(status, 201);
        let mut runs = Vec::new();
        for n in 0..20 {
            runs.push(client.run(n).await);
        }
        let mut nodes: BTreeMap<String, usize> = BTreeMap::new();
        for run in &runs {
            let mut by = BTreeSet::new();
            for path in ["", "/graph", "/timeline", "/events"] {
                let (status, node, body) = client.ask("GET", &format!("/v1/runs/{run}{path}"), None).await;
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
                by.insert(node);
            }
            assert_eq!(by.len(), 1, "{by:?}");
            *nodes.entry(by.pop_first().unwrap()).or_default() += 1;
        }
        assert_eq!(nodes.len(), 2, "{nodes:?}");

        // Whoever asks now waits for the one that takes over.
        owner.kill();
        for run in &runs {
            let (status, _, body) = client.ask("GET", &format!("/v1/runs/{run}"), None).await;
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        }
        for n in 0..20 {
            client.run(n).await;
        }
    });
}
