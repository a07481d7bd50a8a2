//! Servers that others have taken the place of: a cluster of six, a primary and its replica; and servers that speak TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::journal::Known;
use super::testing::{AOF, Cluster, Server, free_port};
use super::{Config, Level, RedisJournal, Tls};
use crate::io::file::testing::on_tokio;
use crate::store::journal::{Fence, Journal};

async fn claimed(config: &Config) -> (RedisJournal, Fence) {
    let mut journal = RedisJournal::open(config, Known::default()).await.unwrap();
    let fence = journal.claim(7).await.unwrap();
    (journal, fence)
}

/// Appends the next batch, which says its position.
async fn add(journal: &mut RedisJournal, fence: Fence) {
    let next = journal.next();
    journal.append(fence, next, &next.to_be_bytes()).await.unwrap();
}

/// All that it appended is there, once, in order.
async fn check(journal: &mut RedisJournal) {
    let found = journal.read(1, usize::MAX).await.unwrap();
    assert_eq!(found.len() as u64, journal.durable());
    assert!(
        found.iter().zip(1_u64..).all(|((at, batch), n)| *at == n && **batch == n.to_be_bytes()),
        "{found:?}"
    );
}

// RELIABILITY C7: MOVED, ASK, TRYAGAIN
#[test]
fn a_partition_is_followed_to_wherever_its_slot_goes() {
    let Some(cluster) = Cluster::start() else { return };
    let from = cluster.owner("{3}");
    let to = (from + 1) % 3;
    let (old, new) = (&cluster.servers[from], &cluster.servers[to]);
    let redis::Value::Int(slot) = old.command(&["CLUSTER", "KEYSLOT", "{3}"]) else { panic!("no slot") };
    let slot = slot.to_string();
    let set = |server: &Server, how: &str, id: &str| server.command(&["CLUSTER", "SETSLOT", &slot, how, id]);
    let port = cluster.ports[to].to_string();
    let migrate = |key: &str| old.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
    // The first address has another slot.
    let mut urls = cluster.urls();
    urls.rotate_left(to);
    let config = Config { urls, ..old.config(Level::Aof) };
    std::thread::scope(|scope| {
        on_tokio(async {
            let (mut journal, fence) = claimed(&config).await;
            add(&mut journal, fence).await;
            set(new, "IMPORTING", &cluster.id(from));
            set(old, "MIGRATING", &cluster.id(to));
            add(&mut journal, fence).await;
            // One of its keys is here and one there: until they are together again, it has to be tried again.
            migrate("aob:{3}:log");
            scope.spawn(|| {
                old.until("INFO", "errorstats", |said| said.contains("errorstat_TRYAGAIN"));
                migrate("aob:{3}:state");
            });
            add(&mut journal, fence).await;
            old.until("INFO", "errorstats", |said| said.contains("errorstat_ASK"));
            for server in [new, old] {
                set(server, "NODE", &cluster.id(to));
            }
            add(&mut journal, fence).await;
            assert_eq!(journal.durable(), 4);
            check(&mut journal).await;
        });
    });
}

// RELIABILITY C1, C3, C7
#[test]
fn a_failover_of_a_cluster_loses_nothing_that_a_replica_had() {
    let Some(mut cluster) = Cluster::start() else { return };
    let owner = cluster.owner("{3}");
    let config = Config { urls: cluster.urls(), ..cluster.servers[owner].config(Level::Replicated(1)) };
    let acknowledged = Arc::new(AtomicU64::new(0));
    let seen = acknowledged.clone();
    let killer = std::thread::spawn(move || {
        while seen.load(Ordering::Relaxed) < 50 {
            std::thread::yield_now();
        }
        cluster.servers[owner].kill();
        cluster.servers[owner + 3].until("INFO", "replication", |said| said.contains("role:master"));
        // It comes back as a replica of the one that was its replica.
        cluster.servers[owner].restart();
        while seen.load(Ordering::Relaxed) < 150 {
            std::thread::yield_now();
        }
        cluster
    });
    on_tokio(async {
        let (mut journal, fence) = claimed(&config).await;
        for n in 1..=150 {
            add(&mut journal, fence).await;
            acknowledged.store(n, Ordering::Relaxed);
        }
        check(&mut journal).await;
        // By somebody else, too.
        check(&mut RedisJournal::open(&config, journal.known()).await.unwrap()).await;
    });
    drop(killer.join().unwrap());
}

// RELIABILITY C5, C7: READONLY
#[test]
fn of_a_primary_and_its_replica_the_one_is_used_that_takes_writes() {
    let (first, second) = (free_port().to_string(), free_port().to_string());
    let quick = ["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", "--port"];
    let Some(primary) = Server::start(&[&AOF[..], &quick, &[&first]].concat()) else { return };
    let follows = ["--replicaof", "127.0.0.1", &first];
    let replica = Server::start(&[&AOF[..], &quick, &[&second], &follows].concat()).unwrap();
    replica.until("INFO", "replication", |said| said.contains("master_link_status:up"));
    // The replica is named first.
    let urls = [&second, &first].map(|port| format!("redis://127.0.0.1:{port}")).to_vec();
    let config = Config { urls, ..primary.config(Level::Aof) };
    on_tokio(async {
        let (mut journal, fence) = claimed(&config).await;
        add(&mut journal, fence).await;
        primary.command(&["WAIT", "1", "0"]);
        let last = [primary.command(&["XLEN", "aob:{3}:log"]), redis::Value::Int(1)];
        assert_eq!(last[0], last[1]);
        while replica.command(&["XLEN", "aob:{3}:log"]) != last[1] {
            std::thread::yield_now();
        }
        replica.command(&["REPLICAOF", "NO", "ONE"]);
        primary.command(&["REPLICAOF", "127.0.0.1", &second]);
        add(&mut journal, fence).await;
        assert_eq!(replica.command(&["XLEN", "aob:{3}:log"]), redis::Value::Int(2));
        check(&mut journal).await;
    });
}

#[test]
fn a_server_with_tls_is_known_by_its_certificate_and_knows_us_by_ours() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let own = |name: &str| rcgen::generate_simple_self_signed(vec![String::from(name)]).unwrap();
    let (server, client) = (own("127.0.0.1"), own("node"));
    let port = free_port().to_string();
    let settings = [
        ("--tls-port", port.clone()),
        ("--tls-cert-file", write("server.crt", &server.cert.pem())),
        ("--tls-key-file", write("server.key", &server.signing_key.serialize_pem())),
        ("--tls-ca-cert-file", write("clients.crt", &client.cert.pem())),
        ("--bind", String::from("127.0.0.1")),
    ];
    let settings: Vec<&str> = settings.iter().flat_map(|(name, value)| [*name, value]).collect();
    let Some(running) = Server::start(&[&AOF[..], &settings].concat()) else { return };
    let roots = Some(server.cert.pem().into_bytes());
    let identity = (client.cert.pem().into_bytes(), client.signing_key.serialize_pem().into_bytes());
    let tls = Tls { roots, identity: Some(identity) };
    let urls = vec![format!("rediss://127.0.0.1:{port}")];
    let config = Config { urls, tls, ..running.config(Level::Aof) };
    assert!(!format!("{config:?}").contains("PRIVATE"), "{config:?}");
    on_tokio(async {
        let (mut journal, fence) = claimed(&config).await;
        add(&mut journal, fence).await;
        check(&mut journal).await;
        // Nobody that we trust has signed it; and it does not know us.
        for tls in [Tls { roots: None, ..config.tls.clone() }, Tls { identity: None, ..config.tls.clone() }] {
            let stranger = Config { tls, outage: Duration::from_millis(300), ..config.clone() };
            let Err(error) = RedisJournal::open(&stranger, Known::default()).await else { panic!("taken") };
            assert!(["store_unreachable", "store_refused"].contains(&error.code()), "{error}");
            let why = error.to_string().to_lowercase();
            assert!(
                why.contains("certificate") || why.contains("closed") || why.contains("reset"),
                "{error}"
            );
        }
    });
}
