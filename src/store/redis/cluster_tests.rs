//! Servers that others have taken the place of: a cluster of six, a primary and its replica; and servers that speak TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::journal::Known;
use super::testing::{AOF, Cluster, Server, free_port};
use super::{Config, Level, RedisJournal, Tls};
use crate::io::file::testing::on_tokio;
use crate::store::journal::{Fence, Journal};

/// After which servers of a cluster take one of them for dead.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);

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

/// How many operations are acknowledged, and after how many of them the primary is killed each time.
fn failovers() -> (u64, u64) {
    if std::env::var_os("AOB_FULL").is_some() { (100_000, 10_000) } else { (150, 50) }
}

/// Appends under failovers of the primary; gives the longest time without an acknowledgement.
fn fail_over(level: Level) -> Option<Duration> {
    let mut cluster = Cluster::start()?;
    let (operations, between) = failovers();
    let mut owner = cluster.owner("{3}");
    let config = Config { urls: cluster.urls(), ..cluster.servers[owner].config(level) };
    let acknowledged = Arc::new(AtomicU64::new(0));
    let seen = acknowledged.clone();
    let killer = std::thread::spawn(move || {
        for kill in 1..operations / between {
            while seen.load(Ordering::Relaxed) < kill * between {
                std::thread::sleep(Duration::from_millis(1));
            }
            let replica = (owner + 3) % 6;
            cluster.servers[owner].kill();
            cluster.servers[replica].until("INFO", "replication", |said| said.contains("role:master"));
            // It comes back as a replica of the one that was its replica.
            cluster.servers[owner].restart();
            cluster.servers[replica].until("INFO", "replication", |said| said.contains("state=online"));
            owner = replica;
        }
        cluster
    });
    let mut longest = Duration::ZERO;
    on_tokio(async {
        let (mut journal, fence) = claimed(&config).await;
        for n in 1..=operations {
            let asked = tokio::time::Instant::now();
            add(&mut journal, fence).await;
            longest = longest.max(asked.elapsed());
            acknowledged.store(n, Ordering::Relaxed);
        }
        check(&mut journal).await;
        // By somebody else, too.
        check(&mut RedisJournal::open(&config, journal.known()).await.unwrap()).await;
    });
    drop(killer.join().unwrap());
    println!("{level}: {operations} operations acknowledged, the longest wait {longest:?}");
    Some(longest)
}

// RELIABILITY C1, C3, C7, C8, C10: where no replica is left, nothing is acknowledged until one is there again.
#[test]
fn a_failover_of_a_cluster_loses_nothing_that_a_replica_had() {
    let levels = if failovers().0 > 150 {
        &[Level::Replicated(1), Level::ReplicatedToAll][..]
    } else {
        &[Level::ReplicatedToAll]
    };
    for level in levels {
        let Some(longest) = fail_over(*level) else { return };
        // The timeout of the cluster's servers, and five seconds.
        assert!(longest <= NODE_TIMEOUT + Duration::from_secs(5), "{level}: {longest:?}");
    }
}

/// A primary and two replicas, of which the second has heard nothing since the first `known` batches; then only that one is left, and takes
/// writes. Gives what the node does at this level: how many batches were acknowledged, and how the next one goes.
fn laggard(level: Level) -> Option<(u64, Result<(), &'static str>)> {
    let ports = [(); 3].map(|()| free_port().to_string());
    let quick = ["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", "--port"];
    let mut primary = Server::start(&[&AOF[..], &quick, &[&ports[0]]].concat())?;
    let follows = ["--replicaof", "127.0.0.1", &ports[0]];
    let [mut near, mut far] = [1, 2]
        .map(|nth: usize| Server::start(&[&AOF[..], &quick, &[&ports[nth]], &follows].concat()).unwrap());
    for replica in [&near, &far] {
        replica.until("INFO", "replication", |said| said.contains("master_link_status:up"));
        // What it got whole it writes to a new AOF; killed before that is there, it would come back with nothing.
        replica.until("INFO", "persistence", |said| {
            ["rewrite_in_progress:0", "rewrite_scheduled:0"]
                .iter()
                .all(|part| said.contains(&format!("aof_{part}")))
        });
    }
    primary.until("INFO", "replication", |said| said.matches("state=online").count() == 2);
    let urls = ports.map(|port| format!("redis://127.0.0.1:{port}")).to_vec();
    let config = Config { urls, outage: Duration::from_secs(3), ..primary.config(level) };
    let mut acknowledged = 0;
    let mut end = Ok(());
    on_tokio(async {
        let (mut journal, fence) = claimed(&config).await;
        for _ in 0..3 {
            add(&mut journal, fence).await;
            acknowledged += 1;
        }
        // All have these; what follows the second replica does not hear.
        primary.command(&["WAIT", "2", "0"]);
        far.kill();
        for _ in 0..3 {
            let next = journal.next();
            match journal.append(fence, next, &next.to_be_bytes()).await {
                Ok(()) => acknowledged += 1,
                Err(_) => break,
            }
        }
        primary.kill();
        near.kill();
        far.restart();
        far.command(&["REPLICAOF", "NO", "ONE"]);
        // An operator goes on without replicas.
        let known = journal.known();
        let alone = Config { level: Level::Aof, ..config.clone() };
        let opened = match RedisJournal::open(&alone, known).await {
            Ok(mut journal) => journal.claim(8).await.map(|_| journal.durable()),
            Err(error) => Err(error),
        };
        end = match opened {
            Ok(durable) => {
                assert_eq!(durable, acknowledged, "{level}");
                Ok(())
            }
            Err(error) => Err(error.code()),
        };
    });
    Some((acknowledged, end))
}

// RELIABILITY 2.2, C10b
#[test]
fn a_replica_that_lagged_and_was_promoted_has_all_that_was_acknowledged_or_is_found_out() {
    let Some(all) = laggard(Level::ReplicatedToAll) else { return };
    assert_eq!(all, (3, Ok(())), "what one replica had not was refused");
    assert_eq!(laggard(Level::Replicated(1)).unwrap(), (6, Err("store_regressed")));
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
