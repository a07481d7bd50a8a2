//! The file of contexts: read whole, checked, never shown.
//!
//! Mistakes are told with their place and without the text that stands there, which may be a token. Only `current` is
//! ever written, in one step; everything else of the file stays as its owner wrote it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::Secret;
use crate::cli::Error;
use crate::cli::output::say;

/// Bytes of such a file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) current: Option<String>,
    #[serde(default)]
    pub(super) contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Context {
    #[serde(default)]
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) workspace: Option<String>,
    #[serde(default)]
    pub(super) token: Option<Secret>,
    /// From the folder of the file.
    #[serde(default)]
    pub(super) token_file: Option<PathBuf>,
    /// From the folder of the file.
    #[serde(default)]
    pub(super) ca_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) allow_plain_token: bool,
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Read as anything first: the usual error shows what it found.
        match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::String(text)) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("a token is text in quotes")),
        }
    }
}

impl File {
    /// The file, or nothing when there is none.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let Some(text) = text(path)? else { return Ok(Self::default()) };
        let mut file = parsed(path, &text)?;
        if file.contexts.values().any(|context| context.token.is_some()) {
            warn_if_open(path);
        }
        let folder = path.parent().unwrap_or(path);
        for context in file.contexts.values_mut() {
            context.token_file = context.token_file.take().map(|file| folder.join(file));
            context.ca_file = context.ca_file.take().map(|file| folder.join(file));
        }
        Ok(file)
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        let near = self.contexts.keys().find(|known| strsim::damerau_levenshtein(known, name) <= 2);
        let hint = near.map_or_else(
            || String::from("aob context list lists them"),
            |near| format!("did you mean {near}?"),
        );
        Error::NotFound(format!("there is no context {name:?}; {hint}"))
    }

    /// Makes `name` the current context.
    pub(super) fn choose(path: &Path, name: &str) -> Result<(), Error> {
        let old = text(path)?.unwrap_or_default();
        let file = parsed(path, &old)?;
        if !file.contexts.contains_key(name) {
            return Err(file.missing(name));
        }
        let new = with_current(&old, name);
        if parsed(path, &new)?.current.as_deref() != Some(name) {
            return Err(Error::Invalid(format!("{}: cannot set current; set it by hand", path.display())));
        }
        let failed = |error: std::io::Error| unreadable(path, &error);
        // Beside it, with the same rights, then moved over it: a reader sees the old file or the new one.
        let beside = path.with_extension("toml.new");
        std::fs::copy(path, &beside).map_err(failed)?;
        std::fs::write(&beside, new).map_err(failed)?;
        std::fs::rename(&beside, path).map_err(failed)
    }
}

impl Context {
    /// Its token, from wherever it is kept.
    pub(super) fn token(&self) -> Result<Option<Secret>, Error> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => token_in(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// The token in a file of its own.
pub(super) fn token_in(path: &Path) -> Result<Secret, Error> {
    let Some(text) = text(path)? else {
        return Err(Error::File {
            path: path.display().to_string(),
            why: String::from("there is no such file"),
        });
    };
    warn_if_open(path);
    Ok(Secret(text.trim().to_owned()))
}

fn parsed(path: &Path, text: &str) -> Result<File, Error> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let said = error.message().lines().next().unwrap_or_default();
        Error::Invalid(format!("{}:{line}:{column}: {said}", path.display()))
    })
}

/// The file with `current` set, all else as it was.
fn with_current(text: &str, name: &str) -> String {
    let set = format!("current = {}", toml::Value::from(name));
    let top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let old = top.clone().position(|line| {
        line.trim_start().strip_prefix("current").is_some_and(|rest| rest.trim_start().starts_with('='))
    });
    let mut lines: Vec<&str> = text.lines().collect();
    match old.and_then(|at| lines.get_mut(at)) {
        Some(line) => *line = &set,
        None => lines.insert(0, &set),
    }
    lines.join("\n") + "\n"
}

fn text(path: &Path) -> Result<Option<String>, Error> {
    let length = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    if length > FILE_BYTES_MAX {
        let why = format!("{length} bytes, more than {FILE_BYTES_MAX}");
        return Err(Error::File { path: path.display().to_string(), why });
    }
    std::fs::read_to_string(path).map(Some).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::File { path: path.display().to_string(), why: error.to_string() }
}

fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let open = std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
    if open {
        let path = path.display();
        say(&format!("warning: {path} holds a token and others may read it: chmod 600 {path}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_with_its_place_and_without_the_token() {
        let path = Path::new("config.toml");
        for (text, place) in [
            ("[contexts.a]\ntoken = 4711471147114711", "2:"),
            ("[contexts.a]\ntoken = s3cr3ts3cr3t", "2:"),
            ("[contexts.a]\ntoken = \"s3cr3ts3cr3t", "2:"),
            ("[contexts.a]\ntoken = [\"s3cr3ts3cr3t\"]", "2:"),
            ("[contexts.a]\ntokn = \"s3cr3ts3cr3t\"", "2:"),
        ] {
            let error = parsed(path, text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("config.toml:{place}")), "{error}");
            assert!(!error.contains("4711") && !error.contains("s3cr3t"), "{error}");
        }
        let good = parsed(path, "[contexts.a]\ntoken = \"s3cr3t\"").unwrap();
        assert!(!format!("{good:?}").contains("s3cr3t"));
    }

    #[test]
    fn current_is_set_and_the_rest_stays() {
        for (old, new) in [
            ("# mine\n[contexts.b]\n", "current = \"b\"\n# mine\n[contexts.b]\n"),
            ("# mine\ncurrent='a' # x\n[contexts.b]\n", "# mine\ncurrent = \"b\"\n[contexts.b]\n"),
            ("[contexts.current]\ncurrent = 1\n", "current = \"b\"\n[contexts.current]\ncurrent = 1\n"),
        ] {
            assert_eq!(with_current(old, "b"), new);
        }
    }
}
