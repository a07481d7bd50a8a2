//! A `redis-server` of a test's own: in a temporary folder, on a socket there, killed with the test.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Client, Config, Level, RedisKeyspaces, Tag, Tls};
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
        Config {
            urls: vec![self.url()],
            tls: Tls::default(),
            level,
            replicas: Arc::default(),
            tag: Tag::Partition(3),
            outage: Duration::from_secs(20),
        }
    }

    /// Keyspaces of a partition, and a thread that talks to the server for them.
    pub(crate) fn keyspaces(
        &self,
        partition: u16,
        names: &[&str],
        fence: Option<Fence>,
    ) -> Arc<dyn Keyspaces> {
        Arc::new(RedisKeyspaces::over(self.client(Tag::Partition(partition)), names, fence))
    }

    /// A thread that talks to the server, asked by this.
    pub(crate) fn client(&self, tag: Tag) -> Client {
        let (client, serving) = Client::new(&Config { tag, ..self.config(Level::Aof) });
        std::thread::spawn(move || on_tokio(serving().run()));
        client
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
        self.try_command(words).unwrap()
    }

    /// One that it may refuse.
    pub(crate) fn try_command(&self, words: &[&str]) -> Result<redis::Value, redis::RedisError> {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago, from below those that the system gives to whoever asks for any: none of these takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(101));
        let port = 20_000 + (nth % 10_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Servers of a cluster: three primaries, and a replica of each behind them.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) ports: Vec<u16>,
}

impl Cluster {
    /// Starts one of six. `None`, said as skipped, where there is no `redis-server`.
    pub(crate) fn start() -> Option<Self> {
        let mut cluster = Self { servers: Vec::new(), ports: Vec::new() };
        let mut buses = Vec::new();
        for _ in 0..6 {
            let (port, bus) = (free_port(), free_port().to_string());
            let own = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--cluster-port", &bus]
                .map(String::from);
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let timeout = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            let quick = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];
            cluster.servers.push(Server::start(&[&AOF[..], &own, &timeout, &quick].concat())?);
            cluster.ports.push(port);
            buses.push(bus);
        }
        for (port, bus) in cluster.ports.iter().zip(&buses).skip(1) {
            cluster.servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), bus]);
        }
        for (primary, slots) in [("0", "5460"), ("5461", "10922"), ("10923", "16383")].iter().enumerate() {
            cluster.servers[primary].command(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]);
        }
        cluster.until(|said| said.contains("cluster_known_nodes:6"));
        for primary in 0..3 {
            let id = cluster.id(primary);
            // Until it has heard of its primary.
            while cluster.servers[primary + 3].try_command(&["CLUSTER", "REPLICATE", &id]).is_err() {
                std::thread::yield_now();
            }
        }
        cluster.until(|said| said.contains("cluster_state:ok"));
        for primary in 0..3 {
            cluster.servers[primary].until("INFO", "replication", |said| said.contains("connected_slaves:1"));
        }
        Some(cluster)
    }

    /// Waits until all say so of the cluster.
    fn until(&self, is_so: fn(&str) -> bool) {
        self.servers.iter().for_each(|server| server.until("CLUSTER", "INFO", is_so));
    }

    /// What a server is called in its cluster.
    pub(crate) fn id(&self, server: usize) -> String {
        text(self.servers[server].command(&["CLUSTER", "MYID"]))
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("redis://127.0.0.1:{port}")).collect()
    }

    /// The primary that began with the slot of a key.
    pub(crate) fn owner(&self, key: &str) -> usize {
        let redis::Value::Int(slot) = self.servers[0].command(&["CLUSTER", "KEYSLOT", key]) else {
            panic!("no slot")
        };
        [5_460, 10_922].iter().filter(|last| slot > **last).count()
    }
}

pub(crate) fn text(value: redis::Value) -> String {
    redis::from_redis_value(value).unwrap()
}

impl Server {
    /// Waits until it says so.
    pub(crate) fn until(&self, command: &str, what: &str, is_so: impl Fn(&str) -> bool) {
        while !is_so(&text(self.command(&[command, what]))) {
            std::thread::yield_now();
        }
    }
}
