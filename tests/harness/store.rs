//! State in Redis, for test runs that ask for it (`AOB_TEST_STORE=redis`): a server of its own for each data directory, on a socket.
//!
//! It stays when nodes on its directory end, also badly, and goes within a second once the directory is gone, or with the test process.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Does this run ask for it?
pub fn is_redis() -> bool {
    std::env::var("AOB_TEST_STORE").is_ok_and(|store| store == "redis")
}

/// Is there a server to be had? Says so where there is none.
pub fn is_there() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!(
            "SKIPPED what needs redis-server: it is not installed (Debian: apt-get install redis-server)"
        );
    }
    found
}

/// What the server of this directory answers.
pub fn ask(data_dir: &Path, words: &[&str]) -> String {
    let url = of(data_dir);
    let socket = url.trim_start_matches("redis+unix://");
    let answer =
        Command::new("redis-cli").args(["-s", socket]).args(words).output().expect("redis-cli is there");
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
}

/// Address of the server of this directory, which runs from then on.
pub fn of(data_dir: &Path) -> String {
    asked(data_dir, false)
}

/// Kills the server of this directory; [`of`] starts it again on what it left. Its address stays.
pub fn kill(data_dir: &Path) {
    asked(data_dir, true);
}

/// A directory, whether its server is to be killed, and who waits for the address.
type Ask = (PathBuf, bool, Sender<String>);

fn asked(data_dir: &Path, kill: bool) -> String {
    static ASKS: OnceLock<Sender<Ask>> = OnceLock::new();
    let asks = ASKS.get_or_init(|| {
        let (sender, asks) = channel();
        // One thread for all: servers end with the thread that started them.
        super::in_background(move || serve(&asks));
        sender
    });
    let (answer, answered) = channel();
    asks.send((data_dir.to_owned(), kill, answer)).unwrap();
    answered.recv().unwrap()
}

struct Server {
    process: Option<Child>,
    dir: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        Self { process: None, dir: tempfile::tempdir().unwrap() }
    }

    fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let dir = &self.dir;
        // It must not outlive a test process that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "redis-server"]);
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.arg("--unixsocket").arg(dir.path().join("redis.sock")).arg("--dir").arg(dir.path());
        let mut process = command.stdout(Stdio::piped()).spawn().expect("redis-server is installed");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("eady to accept connections")));
        super::in_background(move || lines.for_each(drop));
        self.process = Some(process);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.path().join("redis.sock").display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(asks: &Receiver<Ask>) {
    let mut servers: BTreeMap<PathBuf, Server> = BTreeMap::new();
    loop {
        match asks.recv_timeout(Duration::from_secs(1)) {
            Ok((data_dir, kill, answer)) => {
                let server = servers.entry(data_dir).or_insert_with(Server::new);
                if kill {
                    server.kill()
                } else {
                    server.start()
                }
                let _ = answer.send(server.url());
            }
            // A directory that its test has yet to make has a parent.
            Err(RecvTimeoutError::Timeout) => {
                servers.retain(|dir, _| dir.exists() || dir.parent().is_some_and(is_of_a_test));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Not the folder in which everybody makes his own.
fn is_of_a_test(parent: &Path) -> bool {
    parent.exists() && parent != std::env::temp_dir()
}
