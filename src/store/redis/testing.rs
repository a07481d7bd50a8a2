//! A `redis-server` of a test's own: in a temporary folder, on a socket there, killed with the test.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::{Config, Level, RedisKeyspaces};
use crate::io::file::testing::on_tokio;
use crate::store::journal::Fence;
use crate::store::keyspaces::Keyspaces;

/// Settings with which a server gives `redis-aof`.
pub(crate) const AOF: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

/// A server that can be killed and started again.
pub(crate) struct Server {
    dir: tempfile::TempDir,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// Starts one. `None`, said as skipped, where there is no `redis-server`.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!(
                "SKIPPED what needs redis-server: it is not installed (Debian: apt-get install redis-server)"
            );
            return None;
        }
        let settings = settings.iter().map(|setting| String::from(*setting)).collect();
        let mut server = Self { dir: tempfile::tempdir().unwrap(), settings, process: None };
        server.restart();
        Some(server)
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(crate) fn config(&self, level: Level) -> Config {
        Config { url: self.url(), level, partition: 3, outage: Duration::from_secs(20) }
    }

    /// Keyspaces of a partition, and a thread that talks to the server for them.
    pub(crate) fn keyspaces(
        &self,
        partition: u16,
        names: &[&str],
        fence: Option<Fence>,
    ) -> Arc<dyn Keyspaces> {
        let config = Config { partition, ..self.config(Level::Aof) };
        let (keyspaces, serving) = RedisKeyspaces::new(&config, names, fence);
        std::thread::spawn(move || on_tokio(serving().run()));
        Arc::new(keyspaces)
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// An orderly end: it writes and syncs what it acknowledged.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
            // Its answer is the end of the connection.
            redis::cmd("SHUTDOWN").query::<redis::Value>(&mut connection).unwrap_err();
            process.wait().unwrap();
        }
    }

    /// Starts it on what it left, and waits until it says that it is ready.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.settings)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        loop {
            let Some(Ok(line)) = lines.next() else { panic!("redis-server ended: {said:#?}") };
            if line.contains("eady to accept connections") {
                break;
            }
            said.push(line);
        }
        // It must be able to go on talking.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        self.process = Some(process);
    }

    /// A command by another client.
    pub(crate) fn command(&self, words: &[&str]) -> redis::Value {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
