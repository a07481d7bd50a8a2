//! `[mcp.servers.NAME]`: the tool servers of agents. A table for each; its keys are known, its name is the reader's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Effective, Error};
use crate::exec::tools::{At, Server};
use crate::limits;
use crate::model::tools::is_server_name;

const PREFIX: &str = "mcp.servers.";
/// Keys of one server, and tables in it whose keys are the reader's own.
const KEYS: [&str; 6] = ["command", "directory", "url", "timeout", "max_in_flight", "calls_per_minute"];
const TABLES: [&str; 2] = ["env", "headers"];
/// Calls under way at once at one server, when nothing is said.
const IN_FLIGHT_DEFAULT: u64 = 8;

/// The server's name and its own key.
fn apart(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix(PREFIX)?.split_once('.')
}

/// Is this a key of a server?
pub(super) fn knows(key: &str) -> bool {
    apart(key).is_some_and(|(_, own)| {
        let of_table =
            own.split_once('.').is_some_and(|(table, name)| TABLES.contains(&table) && !name.is_empty());
        of_table || KEYS.contains(&own)
    })
}

/// From `--set` or the environment: a list or a number as TOML writes it, or a text as it stands.
pub(super) fn from_text(key: &str, text: &str) -> toml::Value {
    if !apart(key).is_some_and(|(_, own)| KEYS.contains(&own)) {
        return toml::Value::String(text.to_owned());
    }
    let table: Option<toml::Table> = format!("value = {text}").parse().ok();
    let value = table.and_then(|mut table| table.remove("value"));
    let kept = value.filter(|value| matches!(value, toml::Value::Array(_) | toml::Value::Integer(_)));
    kept.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

struct Table<'e> {
    effective: &'e Effective,
    name: &'e str,
}

impl Table<'_> {
    fn key(&self, own: &str) -> String {
        format!("{PREFIX}{}.{own}", self.name)
    }

    fn raw(&self, own: &str) -> Option<&toml::Value> {
        self.effective.value(&self.key(own))
    }

    fn bad(&self, own: &str, problem: impl Into<String>) -> Error {
        let value = self.raw(own).map_or_else(String::new, ToString::to_string);
        Error::Value { key: self.key(own), value, problem: problem.into() }
    }

    fn text(&self, own: &str) -> Result<Option<&str>, Error> {
        self.raw(own).map(|value| value.as_str().ok_or_else(|| self.bad(own, "text is expected"))).transpose()
    }

    fn texts(&self, own: &str) -> Result<BTreeMap<String, String>, Error> {
        let prefix = format!("{}.", self.key(own));
        let text = |(name, value): (&str, &toml::Value)| {
            let text =
                value.as_str().ok_or_else(|| self.bad(&format!("{own}.{name}"), "text is expected"))?;
            Ok((name.to_owned(), text.to_owned()))
        };
        self.effective.under(&prefix).map(text).collect()
    }

    fn number(&self, own: &str, least: u64, most: u64, default: u64) -> Result<u64, Error> {
        let Some(value) = self.raw(own) else { return Ok(default) };
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.bad(own, format!("a whole number from {least} to {most} is expected")))
    }

    fn at(&self) -> Result<At, Error> {
        let (environment, headers) = (self.texts("env")?, self.texts("headers")?);
        let directory = self.text("directory")?.map(PathBuf::from);
        match (self.raw("command"), self.text("url")?) {
            (Some(command), None) if headers.is_empty() => {
                let words = command.as_array().and_then(|words| {
                    words.iter().map(|word| word.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
                });
                let words = words.filter(|words| words.first().is_some_and(|first| !first.is_empty()));
                let command = words.ok_or_else(|| {
                    self.bad("command", "a list of texts is expected, as in [\"program\", \"argument\"]")
                })?;
                Ok(At::Command { command, environment, directory })
            }
            (None, Some(url)) if environment.is_empty() && directory.is_none() => {
                if url.contains("${") || !(url.starts_with("https://") || url.starts_with("http://")) {
                    return Err(self.bad("url", "an http or https URL without ${ is expected"));
                }
                Ok(At::Url { url: url.to_owned(), headers })
            }
            _ => {
                let problem = "a tool server has a command (with env and directory) or a url (with headers)";
                Err(Error::Value { key: self.key("command"), value: String::new(), problem: problem.into() })
            }
        }
    }

    fn read(&self) -> Result<Server, Error> {
        if !is_server_name(self.name) {
            let problem = format!(
                "a name of at most {} letters, digits, - and _ is expected, without __, _ at its ends, and not workflow",
                limits::TOOL_SERVER_NAME_BYTES_MAX
            );
            return Err(Error::Value {
                key: format!("{PREFIX}{}", self.name),
                value: String::new(),
                problem,
            });
        }
        let most = limits::TOOL_SERVER_CALLS_MAX as u64;
        let max_in_flight = self.number("max_in_flight", 1, most, IN_FLIGHT_DEFAULT.min(most))?;
        Ok(Server {
            at: self.at()?,
            timeout: self.timeout()?,
            max_in_flight: usize::try_from(max_in_flight).unwrap_or(usize::MAX),
            calls_per_minute: self.number("calls_per_minute", 0, limits::TOOL_CALLS_PER_MINUTE_MAX, 0)?,
        })
    }

    fn timeout(&self) -> Result<Duration, Error> {
        let Some(text) = self.text("timeout")? else {
            return Ok(Duration::from_secs(limits::TOOL_SECONDS_DEFAULT));
        };
        let most = Duration::from_secs(limits::TOOL_SECONDS_MAX);
        let found = crate::compile::parse_duration(text).filter(|found| !found.is_zero() && *found <= most);
        found.ok_or_else(|| self.bad("timeout", "a duration of at most 1h is expected, as in 90s"))
    }
}

/// All servers.
///
/// # Errors
/// The first key that does not do.
pub(super) fn read(effective: &Effective) -> Result<BTreeMap<Arc<str>, Server>, Error> {
    let names: BTreeSet<&str> =
        effective.under(PREFIX).filter_map(|(rest, _)| rest.split_once('.').map(|(name, _)| name)).collect();
    if names.len() > limits::TOOL_SERVERS_MAX {
        let problem = format!(
            "there are {} tool servers; at most {} are allowed (limit tool_servers_max)",
            names.len(),
            limits::TOOL_SERVERS_MAX
        );
        return Err(Error::Value { key: "mcp.servers".into(), value: String::new(), problem });
    }
    let server = |name: &str| Ok((name.into(), Table { effective, name }.read()?));
    names.into_iter().map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn from(text: &str) -> Result<(BTreeMap<Arc<str>, Server>, String), String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("aob.toml");
        std::fs::write(&file, text).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        let (config, effective) = load(&sources).map_err(|error| error.to_string())?;
        Ok((config.tools.servers, effective.to_string()))
    }

    // F414, F429
    #[test]
    fn servers_are_read_from_tables_of_their_own() {
        let (servers, shown) = from(
            "[tools]\nhttp_calls_per_minute = 60\n\
             [mcp.servers.files]\ncommand = [\"mcp-files\", \"--root\"]\ndirectory = \"/tmp\"\ntimeout = \"5s\"\n\
             env = {TOKEN = \"${secret:FILES}\"}\n\
             [mcp.servers.search]\nurl = \"https://mcp.example/mcp\"\ncalls_per_minute = 30\nmax_in_flight = 2\n\
             [mcp.servers.search.headers]\nauthorization = \"Bearer ${secret:SEARCH}\"\n",
        )
        .unwrap();
        let files = &servers["files"];
        let At::Command { command, environment, directory } = &files.at else { panic!("{files:?}") };
        assert_eq!((command.len(), &*environment["TOKEN"]), (2, "${secret:FILES}"));
        assert_eq!((directory.as_deref(), files.timeout), (Some("/tmp".as_ref()), Duration::from_secs(5)));
        let search = &servers["search"];
        assert_eq!((search.calls_per_minute, search.max_in_flight), (30, 2));
        assert!(matches!(&search.at, At::Url { headers, .. } if headers.len() == 1), "{search:?}");
        assert!(shown.contains("mcp.servers.search.url = \"https://mcp.example/mcp\""), "{shown}");
    }

    #[test]
    fn what_does_not_do_is_refused_by_name() {
        for (text, says) in [
            ("[mcp.servers.a]\ncomand = [\"x\"]\n", "unknown key `mcp.servers.a.comand`"),
            ("[mcp.servers.a]\ncommand = \"x\"\n", "mcp.servers.a.command"),
            ("[mcp.servers.a]\ncommand = []\n", "a list of texts"),
            ("[mcp.servers.a]\ntimeout = \"1s\"\n", "a command (with env"),
            ("[mcp.servers.a]\ncommand = [\"x\"]\nurl = \"http://x/\"\n", "a command (with env"),
            ("[mcp.servers.a]\nurl = \"http://x/\"\nenv = {A = \"b\"}\n", "a command (with env"),
            ("[mcp.servers.a]\nurl = \"file:///x\"\n", "mcp.servers.a.url"),
            ("[mcp.servers.a]\nurl = \"http://x/${secret:A}\"\n", "without ${"),
            ("[mcp.servers.a]\nurl = \"http://x/\"\ntimeout = \"2h\"\n", "at most 1h"),
            ("[mcp.servers.a]\nurl = \"http://x/\"\nmax_in_flight = 0\n", "from 1 to"),
            ("[mcp.servers.a__b]\nurl = \"http://x/\"\n", "without __"),
            ("[mcp.servers.workflow]\nurl = \"http://x/\"\n", "not workflow"),
            ("[mcp.server.a]\nurl = \"http://x/\"\n", "unknown key"),
        ] {
            let error = from(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let many: String = (0..=limits::TOOL_SERVERS_MAX)
            .map(|n| format!("[mcp.servers.s{n}]\nurl = \"http://x/\"\n"))
            .collect();
        assert!(from(&many).unwrap_err().contains("tool_servers_max"));
    }

    #[test]
    fn servers_can_be_set_one_key_at_a_time() {
        let set = [("command", "[\"x\", \"y\"]"), ("max_in_flight", "3"), ("env.A", "7")];
        let set = set.map(|(key, value)| (format!("mcp.servers.a.{key}"), value.to_owned()));
        let (config, _) = load(&Sources { set: set.to_vec(), ..Sources::default() }).unwrap();
        let server = &config.tools.servers["a"];
        assert_eq!(server.max_in_flight, 3);
        assert!(matches!(&server.at, At::Command { command, .. } if command.len() == 2));
    }
}
