//! Connections, and whether the server at the other end gives the level asked for (RELIABILITY 2.2).
//!
//! Must hold: no connection is handed out before its server was looked at; a server that says less than the level needs, or does not
//! let itself be asked, is refused by name of the setting that has to change.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ClientTlsConfig, RedisError, TlsCertificates};

use super::fault::{Remedy, remedy};
use super::{Config, Tls};
use crate::limits;
use crate::store::Error;

/// Oldest server that is taken: scripts with flags, streams as they are used here.
pub const VERSION_MIN: (u32, u32) = (7, 0);

/// When something that was written to Redis is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Once it is in the server's memory: a power cut or a kill of the server takes one or two seconds with it.
    Everysec,
    /// Once it is in the server's synced append-only file.
    Aof,
    /// Once it is there and as many replicas have it in memory.
    Replicated(u32),
    /// Once every replica has it: as many as the server was ever seen with, one at least.
    ReplicatedToAll,
}

/// The most replicas that servers of a store were seen with, by whoever talks to them.
#[derive(Debug, Default)]
pub struct Replicas(AtomicU32);

impl Replicas {
    pub(super) fn seen(&self, connected: u32) {
        self.0.fetch_max(connected, Ordering::Relaxed);
    }
}

impl Level {
    /// How many replicas have to have something before it is acknowledged.
    pub(super) fn copies(self, replicas: &Replicas) -> Option<u32> {
        match self {
            Self::Everysec | Self::Aof => None,
            Self::Replicated(copies) => Some(copies),
            Self::ReplicatedToAll => Some(replicas.0.load(Ordering::Relaxed).max(1)),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everysec => f.write_str("redis-everysec"),
            Self::Aof => f.write_str("redis-aof"),
            Self::Replicated(replicas) => write!(f, "redis-replicated({replicas})"),
            Self::ReplicatedToAll => f.write_str("redis-replicated(all)"),
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let replicas = text.strip_prefix("redis-replicated(").and_then(|rest| rest.strip_suffix(')'));
        match (text, replicas.map(u32::from_str)) {
            ("redis-everysec", _) => Ok(Self::Everysec),
            ("redis-aof", _) => Ok(Self::Aof),
            ("redis-replicated(all)", _) => Ok(Self::ReplicatedToAll),
            (_, Some(Ok(replicas @ 1..=limits::STORE_REPLICAS_MAX))) => Ok(Self::Replicated(replicas)),
            (_, Some(_)) => Err(format!(
                "{text}: all, or a number of replicas from 1 to {} (limit store_replicas_max)",
                limits::STORE_REPLICAS_MAX
            )),
            _ => Err(format!(
                "{text}: redis-everysec, redis-aof, redis-replicated(k) or redis-replicated(all)"
            )),
        }
    }
}

/// What a server says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    version: (u32, u32),
    primary: bool,
    replicas: u32,
    appendonly: Option<String>,
    appendfsync: Option<String>,
    no_appendfsync_on_rewrite: Option<String>,
    maxmemory_policy: Option<String>,
}

/// Connects, and looks at the server. Gives how many replicas are connected to it besides: whoever writes asks whether they are [`enough`].
///
/// # Errors
/// `StoreUnreachable`: nobody answers, or it is not ready yet, or is not a primary. `StoreRefused`: it does not let us in.
/// `StoreTooWeak`: it does not give the level.
pub async fn connect(url: &str, config: &Config) -> Result<(MultiplexedConnection, u32), Error> {
    let server = super::without_password(url);
    let client = if url.starts_with("rediss:") {
        Client::build_with_tls(url, certificates(&config.tls))
    } else {
        Client::open(url)
    };
    let client =
        client.map_err(|error| Error::StoreRefused { server: server.clone(), why: error.to_string() })?;
    let timings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_millis(limits::STORE_CONNECT_MILLIS_MAX)))
        .set_response_timeout(Some(Duration::from_millis(limits::STORE_ANSWER_MILLIS_MAX)));
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&timings)
        .await
        .map_err(|error| said(&server, &error))?;
    let answers = ask(&mut connection).await.map_err(|error| said(&server, &error))?;
    check(&server, config.level, &answers)?;
    config.replicas.seen(answers.replicas);
    Ok((connection, answers.replicas))
}

/// Are so many replicas enough for the level?
///
/// # Errors
/// `StoreUnreachable`, until they are.
pub(super) fn enough(server: &str, config: &Config, connected: u32) -> Result<(), Error> {
    let Some(needed) = config.level.copies(&config.replicas).filter(|needed| connected < *needed) else {
        return Ok(());
    };
    let why = format!("degraded: {connected} replicas are connected to it, {needed} are needed");
    Err(Error::StoreUnreachable { server: server.to_owned(), why })
}

fn certificates(tls: &Tls) -> TlsCertificates {
    let identity = tls.identity.clone();
    TlsCertificates {
        client_tls: identity.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
        root_cert: tls.roots.clone(),
    }
}

/// The address of another server of the same cluster, reached as this one is; `None`: it cannot be.
pub(super) fn beside(url: &str, address: &str) -> Option<String> {
    let mut url = url::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "redis" | "rediss"))?;
    let (host, port) = address.rsplit_once(':')?;
    // Where it names none, it is the one that said so.
    if !host.is_empty() {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        url.set_host(Some(&host)).ok()?;
    }
    url.set_port(Some(port.parse().ok()?)).ok()?;
    Some(url.into())
}

/// An error of a server whose request has changed nothing.
pub(super) fn said(server: &str, error: &RedisError) -> Error {
    let (server, why) = (server.to_owned(), error.to_string());
    match remedy(error) {
        Remedy::Refuse | Remedy::Load => Error::StoreRefused { server, why },
        Remedy::Wait | Remedy::Elsewhere | Remedy::Reconnect => Error::StoreUnreachable { server, why },
    }
}

async fn ask(connection: &mut MultiplexedConnection) -> Result<Said, RedisError> {
    let info: redis::InfoDict =
        redis::cmd("INFO").arg("server").arg("replication").query_async(connection).await?;
    let version: String = info.get("redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut answers = Said {
        version: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
        primary: info.get::<String>("role").as_deref() == Some("master"),
        replicas: info.get("connected_slaves").unwrap_or(0),
        ..Said::default()
    };
    // Four calls: a pattern could match a lot, and several patterns in one call are new in 7.0.
    let fields: [(&str, &mut Option<String>); 4] = [
        ("appendonly", &mut answers.appendonly),
        ("appendfsync", &mut answers.appendfsync),
        ("no-appendfsync-on-rewrite", &mut answers.no_appendfsync_on_rewrite),
        ("maxmemory-policy", &mut answers.maxmemory_policy),
    ];
    for (name, field) in fields {
        let mut found: BTreeMap<String, String> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(connection).await?;
        *field = found.remove(name);
    }
    Ok(answers)
}

fn check(server: &str, level: Level, said: &Said) -> Result<(), Error> {
    let weak = |setting: &str, found: &str, needed: &str| Error::StoreTooWeak {
        server: server.to_owned(),
        level: level.to_string(),
        why: format!("{setting} is {found}, and has to be {needed}"),
    };
    if said.version < VERSION_MIN {
        let (found, needed) = (said.version, VERSION_MIN);
        return Err(weak(
            "its version",
            &format!("{}.{}", found.0, found.1),
            &format!("{}.{} at least", needed.0, needed.1),
        ));
    }
    if !said.primary {
        let why = String::from("it is a replica; only a primary takes writes");
        return Err(Error::StoreUnreachable { server: server.to_owned(), why });
    }
    let always = ["always"].as_slice();
    let (fsync, on_rewrite) = match level {
        Level::Everysec => (["everysec", "always"].as_slice(), ["no", "yes"].as_slice()),
        Level::Aof | Level::Replicated(_) | Level::ReplicatedToAll => (always, ["no"].as_slice()),
    };
    let settings = [
        ("appendonly", &said.appendonly, ["yes"].as_slice()),
        ("appendfsync", &said.appendfsync, fsync),
        // With it, nothing is synced while the file is rewritten.
        ("no-appendfsync-on-rewrite", &said.no_appendfsync_on_rewrite, on_rewrite),
        // Any other drops what was acknowledged when memory is short.
        ("maxmemory-policy", &said.maxmemory_policy, ["noeviction"].as_slice()),
    ];
    for (name, found, taken) in settings {
        let found = found.as_deref().unwrap_or("not shown to us");
        if !taken.contains(&found) {
            return Err(weak(name, found, &taken.join(" or ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strong() -> Said {
        let yes = |text: &str| Some(text.to_owned());
        Said {
            version: (7, 0),
            primary: true,
            replicas: 1,
            appendonly: yes("yes"),
            appendfsync: yes("always"),
            no_appendfsync_on_rewrite: yes("no"),
            maxmemory_policy: yes("noeviction"),
        }
    }

    // RELIABILITY C7
    #[test]
    fn a_server_of_a_cluster_is_reached_as_the_one_that_named_it() {
        let beside = |url, address| beside(url, address).unwrap_or_default();
        let first = "rediss://node:hush@10.0.0.1:6379/?protocol=resp3";
        assert_eq!(beside(first, "10.0.0.2:7000"), "rediss://node:hush@10.0.0.2:7000/?protocol=resp3");
        assert_eq!(beside(first, ":7001"), "rediss://node:hush@10.0.0.1:7001/?protocol=resp3");
        assert_eq!(beside(first, "two.example:7000"), "rediss://node:hush@two.example:7000/?protocol=resp3");
        assert_eq!(beside(first, "::2:7000"), "rediss://node:hush@[::2]:7000/?protocol=resp3");
        assert_eq!(beside("redis+unix:///run/redis.sock", "10.0.0.2:7000"), "");
        assert_eq!(beside(first, "nowhere"), "");
    }

    #[test]
    fn levels_read_back_as_they_are_written() {
        let known = [
            "redis-everysec",
            "redis-aof",
            "redis-replicated(1)",
            "redis-replicated(5)",
            "redis-replicated(all)",
        ];
        for text in known {
            assert_eq!(text.parse::<Level>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "fsync",
            "redis",
            "redis-replicated",
            "redis-replicated()",
            "redis-replicated(0)",
            "redis-replicated(-1)",
        ] {
            assert!(text.parse::<Level>().is_err(), "{text}");
        }
        let many = format!("redis-replicated({})", limits::STORE_REPLICAS_MAX + 1);
        assert!(many.parse::<Level>().unwrap_err().contains("store_replicas_max"));
    }

    #[test]
    fn each_setting_that_is_too_weak_is_named_with_what_it_has_to_be() {
        let level = Level::Replicated(1);
        check("s", level, &strong()).unwrap();
        let set = |change: fn(&mut Said)| {
            let mut said = strong();
            change(&mut said);
            check("s", level, &said).unwrap_err().to_string()
        };
        let named = [
            (set(|said| said.version = (6, 2)), "its version is 6.2, and has to be 7.0 at least"),
            (set(|said| said.primary = false), "it is a replica"),
            (set(|said| said.appendonly = Some("no".into())), "appendonly is no, and has to be yes"),
            (
                set(|said| said.appendfsync = Some("everysec".into())),
                "appendfsync is everysec, and has to be always",
            ),
            (set(|said| said.appendfsync = None), "appendfsync is not shown to us, and has to be always"),
            (
                set(|said| said.no_appendfsync_on_rewrite = Some("yes".into())),
                "no-appendfsync-on-rewrite is yes, and has to be no",
            ),
            (
                set(|said| said.maxmemory_policy = Some("allkeys-lru".into())),
                "maxmemory-policy is allkeys-lru, and has to be noeviction",
            ),
        ];
        for (message, expected) in named {
            assert!(message.contains(expected), "{message}");
        }
        let everysec = Said { appendfsync: Some("everysec".into()), replicas: 0, ..strong() };
        check("s", Level::Everysec, &everysec).unwrap();
        assert_eq!(check("s", Level::Aof, &everysec).unwrap_err().code(), "store_too_weak");
    }

    // RELIABILITY 2.2
    #[test]
    fn all_replicas_are_as_many_as_were_ever_seen_and_one_at_least() {
        let replicas = Replicas::default();
        let copies = |level: Level| level.copies(&replicas);
        assert_eq!([Level::Everysec, Level::Aof, Level::Replicated(2)].map(copies), [None, None, Some(2)]);
        assert_eq!(copies(Level::ReplicatedToAll), Some(1));
        for (connected, all) in [(0, 1), (2, 2), (1, 2), (3, 3)] {
            replicas.seen(connected);
            assert_eq!(copies(Level::ReplicatedToAll), Some(all), "{connected}");
        }
    }
}
