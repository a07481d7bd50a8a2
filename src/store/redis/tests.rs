//! The journal on real servers: the obligations of every journal, and what servers do to it (RELIABILITY 3.C).

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::journal::Known;
use super::testing::{AOF, Server, free_port};
use super::{Config, Level, RedisJournal};
use crate::io::file::testing::on_tokio;
use crate::store::Error;
use crate::store::conformance::{self, Backend};
use crate::store::journal::{Fence, Journal, Position};

struct OnServer {
    server: RefCell<Server>,
    level: Level,
    requests: Rc<Cell<u64>>,
}

/// Says what it sends.
struct Counted(RedisJournal, Rc<Cell<u64>>);

impl Journal for Counted {
    async fn claim(&mut self, nonce: u64) -> Result<Fence, Error> {
        let fence = self.0.claim(nonce).await;
        self.1.set(self.0.requests());
        fence
    }

    async fn append(&mut self, fence: Fence, position: Position, batch: &[u8]) -> Result<(), Error> {
        let appended = self.0.append(fence, position, batch).await;
        self.1.set(self.0.requests());
        appended
    }

    fn next(&self) -> Position {
        self.0.next()
    }

    fn durable(&self) -> Position {
        self.0.durable()
    }

    async fn read(&mut self, from: Position, bytes_max: usize) -> Result<Vec<(Position, Vec<u8>)>, Error> {
        self.0.read(from, bytes_max).await
    }

    async fn trim(&mut self, before: Position) -> Result<(), Error> {
        self.0.trim(before).await
    }
}

impl Backend for OnServer {
    type Journal = Counted;

    async fn open(&self) -> Counted {
        let config = Config { outage: Duration::from_millis(400), ..self.server.borrow().config(self.level) };
        Counted(RedisJournal::open(&config, Known::default()).await.unwrap(), self.requests.clone())
    }

    fn fail_sync(&self, nth: u64) {
        assert_eq!(nth, 1, "the next one");
        self.away();
    }

    fn syncs(&self) -> u64 {
        self.requests.get()
    }

    async fn crash(&self) {
        self.away();
        self.server.borrow_mut().restart();
    }
}

impl OnServer {
    /// By `kill -9` where the level promises that nothing is lost by it. While a sync of every second is under way, a server holds
    /// its writes back and acknowledges them all the same.
    fn away(&self) {
        let mut server = self.server.borrow_mut();
        if self.level == Level::Everysec { server.stop() } else { server.kill() }
    }
}

fn conforms(settings: &[&str], level: Level) {
    if Server::start(settings).is_none() {
        return;
    }
    on_tokio(conformance::run(|| OnServer {
        server: RefCell::new(Server::start(settings).unwrap()),
        level,
        requests: Rc::default(),
    }));
}

// F052, F065
#[test]
fn the_journal_conforms_on_a_server_that_syncs_always() {
    conforms(&AOF, Level::Aof);
}

// F065
#[test]
fn the_journal_conforms_on_a_server_that_syncs_every_second() {
    conforms(&["--appendonly", "yes", "--appendfsync", "everysec"], Level::Everysec);
}

async fn claimed(config: &Config) -> (RedisJournal, Fence) {
    let mut journal = RedisJournal::open(config, Known::default()).await.unwrap();
    let fence = journal.claim(7).await.unwrap();
    (journal, fence)
}

async fn add(journal: &mut RedisJournal, fence: Fence, batch: &[u8]) -> Result<(), Error> {
    let next = journal.next();
    journal.append(fence, next, batch).await
}

#[test]
fn a_server_that_does_not_give_the_level_is_refused_at_once_and_when_it_comes_back() {
    let Some(server) = Server::start(&["--appendonly", "yes"]) else { return };
    on_tokio(async {
        let refused = RedisJournal::open(&server.config(Level::Aof), Known::default()).await;
        let Err(error) = refused else { panic!("taken") };
        assert_eq!(error.code(), "store_too_weak");
        assert!(error.to_string().contains("appendfsync is everysec, and has to be always"), "{error}");

        server.command(&["CONFIG", "SET", "appendfsync", "always"]);
        let (mut journal, fence) = claimed(&server.config(Level::Aof)).await;
        add(&mut journal, fence, b"one").await.unwrap();
        server.command(&["CONFIG", "SET", "appendfsync", "no"]);
        server.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let error = add(&mut journal, fence, b"two").await.unwrap_err();
        assert!(error.to_string().contains("appendfsync is no"), "{error}");
        assert_eq!(journal.durable(), 1, "never acknowledged with less");
    });
}

// RELIABILITY C1
#[test]
fn kills_of_the_server_lose_nothing_and_double_nothing() {
    let Some(mut server) = Server::start(&AOF) else { return };
    let config = server.config(Level::Aof);
    let appended = Arc::new(AtomicUsize::new(0));
    let count = 600_usize;
    let (seen, ended) = (appended.clone(), appended.clone());
    let killer = std::thread::spawn(move || {
        for round in 1..=5 {
            while seen.load(Ordering::Relaxed) < round * 100 {
                std::thread::yield_now();
            }
            server.restart();
        }
        while seen.load(Ordering::Relaxed) < count {
            std::thread::yield_now();
        }
        server
    });
    on_tokio(async {
        let (mut journal, fence) = claimed(&config).await;
        for n in 0..count {
            add(&mut journal, fence, format!("batch {n}").as_bytes()).await.unwrap();
            ended.fetch_add(1, Ordering::Relaxed);
        }
        let found = journal.read(1, usize::MAX).await.unwrap();
        assert_eq!(found.len(), count);
        for (n, (position, batch)) in found.into_iter().enumerate() {
            assert_eq!((position, batch), (n as u64 + 1, format!("batch {n}").into_bytes()));
        }
    });
    drop(killer.join().unwrap());
}

// RELIABILITY C12
#[test]
fn a_server_that_was_emptied_is_never_taken_for_a_new_one() {
    let Some(server) = Server::start(&AOF) else { return };
    on_tokio(async {
        let config = server.config(Level::Aof);
        let (mut journal, fence) = claimed(&config).await;
        for _ in 0..3 {
            add(&mut journal, fence, b"x").await.unwrap();
        }
        let known = journal.known();
        assert_eq!(known, Known { epoch: 1, position: 3 });
        server.command(&["FLUSHALL"]);
        assert_eq!(add(&mut journal, fence, b"y").await.unwrap_err().code(), "store_regressed");
        assert_eq!(add(&mut journal, fence, b"y").await.unwrap_err().code(), "journal_fenced");
        assert_eq!(journal.claim(8).await.unwrap_err().code(), "journal_fenced");
        let Err(error) = RedisJournal::open(&config, known).await else { panic!("taken") };
        assert_eq!(error.code(), "store_regressed");
        assert!(
            error.to_string().contains("it has position 0 of epoch 0, and had position 3 of epoch 1"),
            "{error}"
        );
    });
}

// RELIABILITY C4
#[test]
fn a_server_without_memory_refuses_whole_batches_and_goes_on_when_it_has_some() {
    let Some(server) = Server::start(&[&AOF[..], &["--maxmemory", "6mb"]].concat()) else { return };
    on_tokio(async {
        let (mut journal, fence) = claimed(&server.config(Level::Aof)).await;
        let batch = vec![7; 256 << 10];
        let error = loop {
            match add(&mut journal, fence, &batch).await {
                Ok(()) => assert!(journal.durable() < 100, "it has room for 24 at most"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), "store_refused");
        assert!(error.to_string().contains("OOM"), "{error}");
        let durable = journal.durable();
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        add(&mut journal, fence, &batch).await.unwrap();
        assert_eq!(journal.durable(), durable + 1);
        assert_eq!(journal.read(1, usize::MAX).await.unwrap().len() as u64, durable + 1);
    });
}

// RELIABILITY C5, C7
#[test]
fn a_forgotten_script_is_loaded_again_and_a_primary_that_became_a_replica_is_waited_for() {
    let Some(server) = Server::start(&AOF) else { return };
    on_tokio(async {
        let config = Config { outage: Duration::from_millis(300), ..server.config(Level::Aof) };
        let (mut journal, fence) = claimed(&config).await;
        server.command(&["SCRIPT", "FLUSH"]);
        add(&mut journal, fence, b"one").await.unwrap();
        server.command(&["REPLICAOF", "127.0.0.1", "1"]);
        let error = add(&mut journal, fence, b"two").await.unwrap_err();
        assert_eq!(error.code(), "store_unreachable", "{error}");
        server.command(&["REPLICAOF", "NO", "ONE"]);
        add(&mut journal, fence, b"two").await.unwrap();
        assert_eq!(journal.read(1, usize::MAX).await.unwrap(), [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    });
}

// F065
#[test]
fn at_level_replicated_nothing_is_acknowledged_without_the_replica() {
    let port = free_port().to_string();
    let primary = [&AOF[..], &["--bind", "127.0.0.1", "--port", &port, "--repl-diskless-sync-delay", "0"]];
    let Some(primary) = Server::start(&primary.concat()) else { return };
    on_tokio(async {
        let config = primary.config(Level::Replicated(1));
        let Err(error) = RedisJournal::open(&config, Known::default()).await else { panic!("taken") };
        assert!(error.to_string().contains("0 replicas are connected to it, 1 are needed"), "{error}");

        let mut replica = Server::start(&["--replicaof", "127.0.0.1", &port]).unwrap();
        let mut journal = loop {
            match RedisJournal::open(&config, Known::default()).await {
                Ok(journal) => break journal,
                Err(error) => assert_eq!(error.code(), "store_unreachable", "{error}"),
            }
            tokio::task::yield_now().await;
        };
        let fence = journal.claim(7).await.unwrap();
        let length = |server: &Server| server.command(&["XLEN", "aob:{3}:log"]);
        add(&mut journal, fence, b"one").await.unwrap();
        assert_eq!(length(&replica), redis::Value::Int(1), "it is there before it is acknowledged");

        replica.kill();
        let acknowledged = Cell::new(false);
        let back = async {
            while length(&primary) != redis::Value::Int(2) {
                tokio::task::yield_now().await;
            }
            assert!(!acknowledged.get(), "only the primary has it");
            replica.restart();
        };
        let second = async {
            add(&mut journal, fence, b"two").await.unwrap();
            acknowledged.set(true);
        };
        tokio::join!(second, back);
        assert_eq!(length(&replica), redis::Value::Int(2));

        // What the primary has and no replica: nobody knows whether it will be there after a failover.
        let hasty = Config { outage: Duration::from_millis(500), ..config };
        let (mut journal, fence) = claimed(&hasty).await;
        replica.kill();
        let error = add(&mut journal, fence, b"three").await.unwrap_err();
        assert_eq!(error.code(), "journal_fenced", "{error}");
        assert_eq!(journal.durable(), 2);
    });
}

/// Between a journal and its server: whole requests pass, and the `nth` answer from now on does not; its connection is cut.
fn swallowing(server: &Server, nth: Arc<AtomicUsize>) -> std::path::PathBuf {
    let (behind, before) = (server.socket(), server.socket().with_extension("before"));
    let listener = UnixListener::bind(&before).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&behind).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let (mut from, mut to, nth) = (server, client, nth.clone());
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(bytes @ 1..) = from.read(&mut buffer) {
                    let left =
                        nth.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                    if left == Ok(1) || to.write_all(&buffer[..bytes]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    before
}

// RELIABILITY C2
#[test]
fn an_answer_that_is_lost_is_asked_for_again_and_nothing_stands_there_twice() {
    let Some(server) = Server::start(&AOF) else { return };
    let nth = Arc::new(AtomicUsize::new(0));
    let before = swallowing(&server, nth.clone());
    on_tokio(async {
        let config =
            Config { urls: vec![format!("redis+unix://{}", before.display())], ..server.config(Level::Aof) };
        let (mut journal, fence) = claimed(&config).await;
        for n in 1..=20_u64 {
            nth.store(usize::from(n % 2 == 0), Ordering::SeqCst);
            add(&mut journal, fence, &n.to_le_bytes()).await.unwrap();
            assert_eq!(journal.durable(), n);
        }
        assert_eq!(nth.load(Ordering::SeqCst), 0, "answers were lost");
        let found = journal.read(1, usize::MAX).await.unwrap();
        assert!(found.iter().zip(1..).all(|((_, batch), n)| *batch == u64::to_le_bytes(n)), "{found:?}");
        assert_eq!(found.len(), 20);
    });
}

#[test]
fn what_somebody_else_wrote_is_damage_and_said_with_its_key() {
    let Some(server) = Server::start(&AOF) else { return };
    on_tokio(async {
        let config = server.config(Level::Aof);
        let (mut journal, fence) = claimed(&config).await;
        for n in 0..5 {
            add(&mut journal, fence, &[n; 10]).await.unwrap();
        }
        server.command(&["XDEL", "aob:{3}:log", "3-0"]);
        let error = journal.read(1, usize::MAX).await.unwrap_err();
        assert_eq!(error.to_string(), "the store is damaged at aob:{3}:log: a gap at position 3");
        server.command(&["HSET", "aob:{3}:state", "last", "many"]);
        let Err(error) = RedisJournal::open(&config, Known::default()).await else { panic!("taken") };
        assert_eq!(error.code(), "store_damaged", "{error}");
    });
}

#[test]
fn a_user_with_a_password_and_resp3_are_taken_and_no_message_has_the_password() {
    let Some(server) = Server::start(&AOF) else { return };
    on_tokio(async {
        server.command(&[
            "ACL",
            "SETUSER",
            "node",
            "on",
            ">hush",
            "~aob:*",
            "+@read",
            "+@write",
            "+@scripting",
            "+@connection",
            "+info",
            "+config|get",
            "+wait",
        ]);
        let url = |user: &str, password: &str| {
            format!("redis+unix://{}?user={user}&pass={password}&protocol=resp3", server.socket().display())
        };
        let config = Config { urls: vec![url("node", "hush")], ..server.config(Level::Aof) };
        let (mut journal, fence) = claimed(&config).await;
        add(&mut journal, fence, b"one").await.unwrap();
        assert_eq!(journal.read(1, 1).await.unwrap().len(), 1);

        let wrong = Config { urls: vec![url("node", "hushed")], ..config.clone() };
        let Err(error) = RedisJournal::open(&wrong, Known::default()).await else { panic!("taken") };
        assert_eq!(error.code(), "store_refused");
        assert!(!error.to_string().contains("hush"), "{error}");
        // It may not even look at another partition's keys than ours.
        server.command(&["ACL", "SETUSER", "node", "resetkeys", "~other:*"]);
        let error = add(&mut journal, fence, b"two").await.unwrap_err();
        assert_eq!(error.code(), "store_refused");
        assert!(error.to_string().contains("NOPERM") || error.to_string().contains("permission"), "{error}");
    });
}
