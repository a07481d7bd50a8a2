//! The node under systemd, which is played by the test: a socket that hears notifications, listeners that are passed on. What is
//! shipped for the real one is looked at in `units`.

#![allow(clippy::disallowed_methods, reason = "how long systemd hears nothing is what is measured")]

mod sockets;
#[cfg(feature = "failpoints")]
mod stalls;
mod units;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::harness::{Node, Options, in_background};

/// Whatever is waited for comes within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hears what the node says.
struct Manager {
    path: String,
    heard: Receiver<(Instant, String)>,
}

impl Manager {
    fn new(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (said, heard) = channel();
        in_background(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count) = socket.recv(&mut bytes) {
                let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
                if said.send((Instant::now(), text)).is_err() {
                    break;
                }
            }
        });
        Self { path: path.display().to_string(), heard }
    }

    fn watches(&self, options: Options) -> Options {
        options.env("NOTIFY_SOCKET", &self.path)
    }

    /// The next notification.
    fn next(&self) -> (Instant, String) {
        self.heard.recv_timeout(PATIENCE).expect("the node says something")
    }

    /// The next one with this line; what came before it.
    fn until(&self, line: &str) -> (Vec<String>, String) {
        let mut before = Vec::new();
        loop {
            let (_, text) = self.next();
            if text.lines().any(|one| one == line) {
                return (before, text);
            }
            before.push(text);
        }
    }
}

fn plain(directory: &Path) -> Options {
    Options::serve(&directory.join("data")).set("quic.enabled", "false")
}

// F432
#[test]
fn the_life_of_the_node_is_told_from_its_start_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::new(directory.path());
    let file = directory.path().join("aob.toml");
    std::fs::write(&file, "").unwrap();
    let mut options = manager.watches(plain(directory.path()));
    options.arguments.extend([String::from("--config"), file.display().to_string()]);
    let node = Node::start(&options);
    let (before, ready) = manager.until("READY=1");
    assert!(ready.contains(&format!("STATUS=serves at {}\n", node.address)), "{ready}");
    assert!(before.iter().any(|text| text.contains("EXTEND_TIMEOUT_USEC=120000000\n")), "{before:?}");
    node.client().get("/readyz").expect(200);
    for (text, said) in [("", "reloaded"), ("[log]\nlevel = \"loud\"\n", "nothing is reloaded")] {
        std::fs::write(&file, text).unwrap();
        node.hang_up();
        let (_, reloading) = manager.until("RELOADING=1");
        let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(since.parse::<u64>().unwrap() > 0);
        let (between, ready) = manager.until("READY=1");
        assert!(between.is_empty() && ready.contains(said), "{between:?} {ready}");
    }
    let (status, _) = node.terminate();
    assert!(status.success());
    let (_, stopping) = manager.until("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=70000000\n"), "drain_seconds and six stages: {stopping}");
    // Nobody asked for a watchdog.
    assert!(manager.heard.try_iter().all(|(_, text)| !text.contains("WATCHDOG")));
}

#[test]
fn without_systemd_nothing_attends_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let manager = Manager::new(directory.path());
    let attends = |options: &Options| {
        let node = Node::start(options);
        let threads = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
        let mut names =
            threads.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        names.any(|name| name.trim() == "aob-systemd")
    };
    assert!(!attends(&plain(directory.path())));
    assert!(attends(&manager.watches(plain(directory.path()))));
}
