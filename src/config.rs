//! Configuration: defaults < file < environment < `--set`, then parsed once into [`runtime::Config`], never changed.
//!
//! `default.toml` is the only place of defaults and lists every key; a key that is not in it is refused, with the nearest
//! one that is. What an operator names (providers, models) stands in a table of its own, which is one value. Values are
//! checked here, each with a message that names key and value, so the rest of the node need not. Tables whose names are the
//! reader's own (`mcp.servers.NAME`) have no defaults; their keys are known all the same.

mod models;
mod reload;
mod resolve;
mod servers;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use reload::{RELOADABLE, Reload};

use crate::runtime;

/// Every key, its default and its comment.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// Tables whose keys are an operator's own names: each is one value, and `TABLE.NAME...` a part of it.
const NAMED: [&str; 2] = ["models.names", "models.providers"];

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// The environment; only `AOB_` variables are looked at.
    pub environment: BTreeMap<String, String>,
    /// `--set key=value`, in order; `--listen` and `--data-dir` come here too.
    pub set: Vec<(String, String)>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path}: {cause}", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        cause: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: {cause}")]
    Syntax {
        /// Which file.
        origin: String,
        /// The parser's words.
        cause: String,
    },
    /// No such key.
    #[error("{origin}: unknown key `{key}`{hint}")]
    UnknownKey {
        /// Where it was given.
        origin: String,
        /// As given.
        key: String,
        /// The nearest key there is, in words.
        hint: String,
    },
    /// The value does not do.
    #[error("{key} = {value}: {problem}")]
    Value {
        /// Which key.
        key: String,
        /// As given.
        value: String,
        /// What is wrong, and what would do.
        problem: String,
    },
}

/// The effective values, by dotted key, and where each came from.
#[derive(Clone, Debug)]
pub struct Effective {
    values: BTreeMap<String, (toml::Value, String)>,
}

/// Reads all sources.
///
/// # Errors
/// See [`Error`]; nothing is guessed.
pub fn load(sources: &Sources) -> Result<(runtime::Config, Effective), Error> {
    let effective = Effective::gather(sources)?;
    let config = resolve::resolve(&effective)?;
    Ok((config, effective))
}

impl Effective {
    fn gather(sources: &Sources) -> Result<Self, Error> {
        let mut effective = Self { values: BTreeMap::new() };
        for (key, value) in parse(DEFAULT, "default.toml")? {
            effective.values.insert(key, (value, String::from("default")));
        }
        if let Some(path) = &sources.file {
            let text = read(path)?;
            let origin = path.display().to_string();
            for (key, value) in parse(&text, &origin)? {
                effective.set(&key, value, &origin)?;
            }
        }
        for (name, text) in &sources.environment {
            let Some(key) = environment_key(name) else { continue };
            // A variable of one word may belong to someone else (AOB_URL is the client's): only known ones count.
            if effective.values.contains_key(&key) || key.contains('.') {
                effective.set_text(&key, text, name)?;
            }
        }
        for (key, text) in &sources.set {
            effective.set_text(key, text, "--set")?;
        }
        Ok(effective)
    }

    fn set(&mut self, key: &str, value: toml::Value, origin: &str) -> Result<(), Error> {
        if let Some((table, path)) = named(key) {
            return self.set_part((table, path), value, origin);
        }
        match self.values.get_mut(key) {
            Some(slot) => {
                *slot = (value, origin.to_owned());
                Ok(())
            }
            None if servers::knows(key) => {
                self.values.insert(key.to_owned(), (value, origin.to_owned()));
                Ok(())
            }
            None => Err(self.unknown(key, origin)),
        }
    }

    /// Sets a part of a table of names.
    fn set_part(
        &mut self,
        (table, path): (&str, &str),
        value: toml::Value,
        origin: &str,
    ) -> Result<(), Error> {
        let Some((slot, from)) = self.values.get_mut(table) else { return Err(self.unknown(table, origin)) };
        let key = format!("{table}.{path}");
        let no_table = || Error::Value {
            key: key.clone(),
            value: value.to_string(),
            problem: String::from("it is no part of a table"),
        };
        let mut inner = slot;
        for name in path.split('.') {
            let members = inner.as_table_mut().ok_or_else(no_table)?;
            inner = members.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        }
        *inner = value;
        origin.clone_into(from);
        Ok(())
    }

    /// Sets from text: what the default is decides whether it is a number or a string. A part of a table of names is what it
    /// looks like.
    fn set_text(&mut self, key: &str, text: &str, origin: &str) -> Result<(), Error> {
        if NAMED.contains(&key) || named(key).is_some() {
            let written: Result<toml::Table, _> = format!("value = {text}").parse();
            let read = written.ok().and_then(|mut table| table.remove("value"));
            return self.set(key, read.unwrap_or_else(|| toml::Value::String(text.to_owned())), origin);
        }
        let value = match self.values.get(key) {
            None if servers::knows(key) => servers::from_text(key, text),
            None => return Err(self.unknown(key, origin)),
            Some((toml::Value::Integer(_), _)) => {
                toml::Value::Integer(text.parse().map_err(|_| Error::Value {
                    key: key.to_owned(),
                    value: text.to_owned(),
                    problem: String::from("a whole number is expected"),
                })?)
            }
            Some((toml::Value::Boolean(_), _)) => {
                toml::Value::Boolean(text.parse().map_err(|_| Error::Value {
                    key: key.to_owned(),
                    value: text.to_owned(),
                    problem: String::from("true or false is expected"),
                })?)
            }
            Some(_) => toml::Value::String(text.to_owned()),
        };
        self.set(key, value, origin)
    }

    fn unknown(&self, key: &str, origin: &str) -> Error {
        let nearest = self.values.keys().min_by_key(|known| strsim::damerau_levenshtein(known, key));
        let hint = nearest
            .filter(|known| strsim::normalized_damerau_levenshtein(known, key) > 0.5)
            .map_or_else(String::new, |known| format!("; did you mean `{known}`?"));
        Error::UnknownKey { origin: origin.to_owned(), key: key.to_owned(), hint }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&toml::Value> {
        self.values.get(key).map(|(value, _)| value)
    }

    /// Keys that begin so, without the beginning.
    fn under<'e>(&'e self, prefix: &'e str) -> impl Iterator<Item = (&'e str, &'e toml::Value)> {
        self.values.iter().filter_map(move |(key, (value, _))| Some((key.strip_prefix(prefix)?, value)))
    }
}

/// `key = value    # origin`, one a line.
impl std::fmt::Display for Effective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (key, (value, origin)) in &self.values {
            let shown =
                if key == "store.url" { without_passwords(&value.to_string()) } else { value.to_string() };
            writeln!(f, "{:<44} # {origin}", format!("{key} = {shown}"))?;
        }
        Ok(())
    }
}

/// Addresses as they may be shown: `redis://user:***@host`.
fn without_passwords(urls: &str) -> String {
    let parts = urls.split(',').map(|url| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            let user = url.get(scheme + 3..at).and_then(|user| user.split(':').next()).unwrap_or_default();
            let (before, after) = (url.get(..scheme + 3), url.get(at..));
            format!("{}{user}:***{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        // What a socket's query may hold.
        _ => url
            .find("pass=")
            .and_then(|at| url.get(..at))
            .map_or_else(|| url.to_owned(), |url| format!("{url}pass=***")),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// The table of names that a key is a part of, and where in it.
fn named(key: &str) -> Option<(&'static str, &str)> {
    NAMED.into_iter().find_map(|table| Some((table, key.strip_prefix(table)?.strip_prefix('.')?)))
}

/// `AOB_CORES__RUNNER` is `cores.runner`.
fn environment_key(name: &str) -> Option<String> {
    Some(name.strip_prefix("AOB_")?.to_ascii_lowercase().replace("__", "."))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|cause| Error::Unreadable { path: path.to_owned(), cause })
}

/// Flattens a TOML text to dotted keys.
fn parse(text: &str, origin: &str) -> Result<Vec<(String, toml::Value)>, Error> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| Error::Syntax {
        origin: origin.to_owned(),
        cause: error.to_string(),
    })?;
    let mut flat = Vec::new();
    flatten(String::new(), table, &mut flat);
    Ok(flat)
}

fn flatten(prefix: String, table: toml::Table, flat: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) if !NAMED.contains(&key.as_str()) => flatten(key, inner, flat),
            value => flat.push((key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Sources {
        Sources { set: vec![(key.into(), value.into())], ..Sources::default() }
    }

    #[test]
    fn later_sources_win_and_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("aob.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nretention = \"1h\"\n[cores]\nrunner = \"2\"\n")
            .unwrap();
        let environment = [("AOB_RETENTION", "2h"), ("AOB_CORES__FANOUT", "1"), ("AOB_URL", "http://x")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let sources = Sources { file: Some(file), environment, ..set("listen", "127.0.0.1:2") };
        let (config, effective) = load(&sources).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.retention, std::time::Duration::from_secs(7_200));
        let text = effective.to_string();
        assert!(
            text.contains("AOB_RETENTION") && text.contains("--set") && text.contains("AOB_CORES__FANOUT")
        );
    }

    #[test]
    fn what_does_not_do_is_refused_by_name() {
        for (key, value, expected) in [
            ("listne", "x", "did you mean `listen`"),
            ("listen", "nowhere", "listen"),
            ("durability", "maybe", "fsync"),
            ("retention", "soon", "retention"),
            ("journal.segment_bytes", "many", "whole number"),
            ("journal.segment_bytes", "1000", "journal.segment_bytes"),
            ("cores.runner", "a-b", "cores.runner"),
            ("store.url", "localhost:6379", "redis://"),
            ("store.url", "redis://a,http://b", "embedded"),
            ("store.outage_seconds", "0", "from 1 to 30"),
            ("mode", "fast", "full"),
            ("auth.insecure", "perhaps", "true or false"),
            ("tls.certificate", "a.pem", "tls.key"),
            ("tls.key", "a.pem", "tls.certificate"),
            ("history.when_full", "drop", "drop_oldest"),
            ("rate.tiers", "free = many", "rate.tiers"),
            ("rate.workflows", "acme/* = free", "no tier"),
            ("rate.documents", "perhaps", "true or false"),
            ("http.breaker.failures", "0", "from 1 to 1000"),
            ("http.breaker.open_for", "soon", "a duration"),
            ("storage.free_bytes_min", "-1", "storage.free_bytes_min"),
            ("policy.gates", "money", "a list is expected"),
            ("policy.gates", "[{tag = \"money\"}]", "rule 1: `reviewers` is missing"),
        ] {
            let error = load(&set(key, value)).unwrap_err().to_string();
            assert!(error.contains(expected), "{key}={value}: {error}");
        }
    }

    // F065
    #[cfg(feature = "redis")]
    #[test]
    fn state_in_redis_is_asked_for_by_address_and_level() {
        use crate::runtime::StoreChoice;
        use crate::store::redis::Level;
        let with = |url: &str, level: &str| {
            let set = [("store.url", url), ("durability", level)];
            let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            load(&Sources { set, ..Sources::default() })
        };
        let (config, effective) = with("redis://me:tulip@a:1, rediss://b:2", "fsync").unwrap();
        let StoreChoice::Redis(store, membership) = config.store else { panic!("{:?}", config.store) };
        assert_eq!((store.urls.len(), store.level), (2, Level::Aof));
        assert_eq!((membership.lease.as_secs(), membership.address), (5, None));
        let shown = effective.to_string();
        assert!(shown.contains("redis://me:***@a:1") && !shown.contains("tulip"), "{shown}");
        let (config, _) = with("redis+unix:///run/redis.sock", "redis-replicated(2)").unwrap();
        assert_eq!(config.store.durability(), "redis-replicated(2)");
        let set = [("store.url", "redis://a"), ("store.address", "here")];
        let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let error = load(&Sources { set, ..Sources::default() }).unwrap_err().to_string();
        assert!(error.contains("store.address") && error.contains("HOST:PORT"), "{error}");
        let error = with("redis://a", "os").unwrap_err().to_string();
        assert!(error.contains("redis-everysec"), "{error}");
        let (_, effective) = with("redis+unix:///run/redis.sock?user=me&pass=tulip", "redis-aof").unwrap();
        assert!(!effective.to_string().contains("tulip"));
    }

    // F006, F417
    #[test]
    fn other_addresses_than_loopback_want_tokens_and_tls_or_a_clear_word() {
        let with = |pairs: &[(&str, &str)]| {
            let set = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            load(&Sources { set, ..Sources::default() })
        };
        let (open, tokens) = (("listen", "0.0.0.0:1"), ("auth.tokens_file", "t"));
        let (certificate, key) = (("tls.certificate", "c"), ("tls.key", "k"));
        for refused in [&[open][..], &[open, tokens], &[open, certificate, key], &[("listen", "[::]:1")]] {
            let error = with(refused).unwrap_err().to_string();
            for name in ["listen", "auth.tokens_file", "tls.certificate", "auth.insecure"] {
                assert!(error.contains(name) && !error.contains('\n'), "{error}");
            }
        }
        assert!(with(&[open, tokens, certificate, key]).is_ok());
        assert!(with(&[open, ("auth.insecure", "true")]).is_ok());
        assert!(with(&[("listen", "[::1]:1")]).is_ok());
    }

    #[test]
    fn the_defaults_resolve() {
        let (config, _) = load(&Sources::default()).unwrap();
        assert_eq!(config.connections_per_core_max, crate::limits::CONNECTIONS_PER_CORE_MAX);
        for lack in crate::model::Lack::ALL {
            assert!(load(&set(lack.key(), "7")).is_ok(), "{}", lack.key());
        }
    }
}
