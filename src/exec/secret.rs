//! Secrets: named in documents, known here, put in as a call leaves, taken out of whatever comes back.
//!
//! Read anew for every call that needs one, so that a file that is replaced counts at once. Nothing is kept; a value is in
//! memory for the time of its call. Looked for in the configured directory, then among systemd's credentials, then in the
//! environment. A workspace sees its own secrets only.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::limits;
use crate::model::{Failure, Value, Workspace};

/// Where secrets are looked for.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Files `NAME`, and `WORKSPACE/NAME` for workspaces other than `default`.
    pub directory: Option<PathBuf>,
    /// systemd's: files `NAME` and `WORKSPACE.NAME`.
    pub credentials: Option<PathBuf>,
}

impl Secrets {
    /// The value of a secret of a workspace.
    ///
    /// # Errors
    /// `secret_not_found`: nobody has it, or it is empty, too long or no text. The value never stands in an error.
    pub fn get(&self, workspace: &str, name: &str) -> Result<String, Failure> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let plain = |name: &str| !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits);
        if !plain(name) || !plain(workspace) {
            return Err(missing(workspace, name));
        }
        let own = workspace == DEFAULT;
        let file = self.directory.as_ref().map(|directory| match own {
            true => directory.join(name),
            false => directory.join(workspace).join(name),
        });
        let credential = self.credentials.as_ref().map(|directory| match own {
            true => directory.join(name),
            false => directory.join(format!("{workspace}.{name}")),
        });
        let found = [file, credential].into_iter().flatten().find_map(|path| read(&path));
        let found = found.or_else(|| std::env::var(variable(workspace, name)).ok());
        let found = found.filter(|value| !value.is_empty() && value.len() <= limits::SECRET_BYTES_MAX);
        found.ok_or_else(|| missing(workspace, name))
    }
}

const DEFAULT: &str = Workspace::DEFAULT_NAME;

/// A file's text without the line end that editors leave. One that is too long, or no text, is as good as none.
fn read(path: &Path) -> Option<String> {
    let length = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    if length > limits::SECRET_BYTES_MAX as u64 + 2 {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// `AOB_SECRET_NAME`, `AOB_SECRET_WORKSPACE__NAME`.
fn variable(workspace: &str, name: &str) -> String {
    let upper = |text: &str| -> String {
        let one = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        text.chars().map(one).collect()
    };
    match workspace {
        DEFAULT => format!("AOB_SECRET_{}", upper(name)),
        _ => format!("AOB_SECRET_{}__{}", upper(workspace), upper(name)),
    }
}

fn missing(workspace: &str, name: &str) -> Failure {
    let message = format!(
        "the secret {name} of workspace {workspace} is not there: put it into the secrets directory, a credential or {}",
        variable(workspace, name)
    );
    Failure::fatal("secret_not_found", message)
}

/// Takes the secrets of a call out of what comes back: as they are, and in the spellings in which services like to quote.
#[derive(Default)]
pub struct Redactor {
    patterns: Vec<String>,
}

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

impl Redactor {
    /// From now on `secret` does not pass.
    pub fn add(&mut self, secret: &str) {
        let bytes = secret.as_bytes();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let json = Value::string(secret).to_json();
        let mut patterns =
            vec![secret.to_owned(), json.trim_matches('"').to_owned(), hex.to_ascii_uppercase(), hex];
        patterns.push(percent(bytes, false));
        patterns.push(percent(bytes, true));
        for shift in 0..3 {
            // Base64 of a text that holds it: the letters that only it decides.
            let mut shifted = vec![0; shift];
            shifted.extend_from_slice(bytes);
            let from = (shift * 8).div_ceil(6);
            let to = shifted.len() * 8 / 6;
            for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
                patterns.extend(text.get(from..to).map(str::to_owned));
            }
        }
        patterns.push(STANDARD.encode(bytes));
        patterns.retain(|pattern| pattern.len() >= limits::SECRET_REDACTED_BYTES_MIN.min(secret.len()));
        self.patterns.extend(patterns);
        // The longest first, or a part of one would leave the rest of another.
        self.patterns.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.patterns.dedup();
    }

    /// Has it nothing to do?
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// `text` without secrets.
    pub fn text(&self, text: &str) -> String {
        self.patterns.iter().fold(text.to_owned(), |text, pattern| match text.contains(pattern.as_str()) {
            true => text.replace(pattern.as_str(), REDACTED),
            false => text,
        })
    }

    /// How much of a text that goes on may be shown now: what follows could be the beginning of a secret, or be in one.
    pub(super) fn settled(&self, text: &str) -> usize {
        let begins = |tail: &str| self.patterns.iter().any(|p| p.len() > tail.len() && p.starts_with(tail));
        let longest = self.patterns.iter().map(String::len).max().unwrap_or_default();
        let from = text.len().saturating_sub(longest);
        let mut tails = (from..text.len()).filter(|at| text.is_char_boundary(*at));
        let mut end = tails.find(|at| text.get(*at..).is_some_and(begins)).unwrap_or(text.len());
        // A secret that is there already is shown, redacted, as a whole.
        while let Some(start) = self.straddling(text, end) {
            end = start;
        }
        end
    }

    /// Where a secret begins that is not over at `end`.
    fn straddling(&self, text: &str, end: usize) -> Option<usize> {
        let found = self.patterns.iter().flat_map(|pattern| {
            text.match_indices(pattern.as_str()).map(|(start, found)| (start, start + found.len()))
        });
        found.filter(|(start, over)| *start < end && *over > end).map(|(start, _)| start).min()
    }

    /// `value` without secrets, in texts and in keys.
    pub fn value(&self, value: Value) -> Value {
        match value {
            _ if self.is_empty() => value,
            Value::String(text) => Value::string(self.text(&text)),
            Value::List(items) => Value::list(items.iter().map(|item| self.value(item.clone())).collect()),
            Value::Map(map) => {
                Value::map(map.iter().map(|(key, value)| (self.text(key), self.value(value.clone()))))
            }
            other => other,
        }
    }

    /// `failure` without secrets.
    pub fn failure(&self, failure: Failure) -> Failure {
        let message = self.text(&failure.message).into();
        Failure { message, details: self.value(failure.details), ..failure }
    }
}

fn percent(bytes: &[u8], plus: bool) -> String {
    let one = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) => char::from(*byte).to_string(),
        b' ' if plus => "+".into(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_win_over_credentials_and_a_workspace_sees_its_own() {
        let (directory, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secrets = Secrets {
            directory: Some(directory.path().to_owned()),
            credentials: Some(credentials.path().to_owned()),
        };
        std::fs::write(credentials.path().join("KEY"), "credential\n").unwrap();
        assert_eq!(secrets.get("default", "KEY").unwrap(), "credential");
        std::fs::write(directory.path().join("KEY"), "file\n").unwrap();
        assert_eq!(secrets.get("default", "KEY").unwrap(), "file");
        assert_eq!(&*secrets.get("acme", "KEY").unwrap_err().code, "secret_not_found");
        std::fs::write(credentials.path().join("acme.KEY"), "theirs").unwrap();
        assert_eq!(secrets.get("acme", "KEY").unwrap(), "theirs");
        std::fs::write(directory.path().join("KEY"), "turned").unwrap();
        assert_eq!(secrets.get("default", "KEY").unwrap(), "turned", "read anew");
        for wrong in ["../KEY", ".KEY", "", "a/b"] {
            assert!(secrets.get("default", wrong).is_err(), "{wrong}");
            assert!(secrets.get(wrong, "KEY").is_err(), "{wrong}");
        }
        let error = secrets.get("acme", "db-password").unwrap_err();
        assert!(error.message.contains("AOB_SECRET_ACME__DB_PASSWORD"), "{}", error.message);
    }

    // F411
    #[test]
    fn a_secret_passes_in_no_spelling() {
        let secret = "cAnary+9/x \"q\" 77";
        let mut redactor = Redactor::default();
        redactor.add(secret);
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut spellings =
            vec![secret.to_owned(), hex.to_uppercase(), hex, percent(secret.as_bytes(), false)];
        spellings.push(percent(secret.as_bytes(), true));
        spellings.push(Value::string(secret).to_json());
        for around in ["", "u", "us", "use"] {
            let text = format!("{around}{secret}{around}");
            spellings.push(STANDARD.encode(&text));
            spellings.push(URL_SAFE_NO_PAD.encode(&text));
        }
        for spelling in spellings {
            let shown = redactor.text(&format!("before {spelling} after"));
            assert!(shown.contains(REDACTED) && !shown.contains(&spelling), "{spelling}: {shown}");
            assert!(shown.starts_with("before ") && shown.ends_with(" after"), "{shown}");
        }
        let value = Value::map([("a", Value::list(vec![Value::string(format!("Bearer {secret}"))]))]);
        assert!(!redactor.value(value).to_json().contains("cAnary"));
        assert_eq!(redactor.text("nothing of it"), "nothing of it");
    }

    // F411
    #[test]
    fn a_secret_passes_in_no_pieces() {
        let mut redactor = Redactor::default();
        for secret in ["cAnary-77-cAnary", "nary-77"] {
            redactor.add(secret);
        }
        let text = "a cAnary-77-cAnary, a cAn, twice cAnary-77-cAnary-77-cAnary, cAnary";
        for size in 1..text.len() {
            let (mut shown, mut pending) = (String::new(), String::new());
            for piece in text.as_bytes().chunks(size) {
                pending.push_str(std::str::from_utf8(piece).unwrap());
                let rest = pending.split_off(redactor.settled(&pending));
                shown.push_str(&redactor.text(&std::mem::replace(&mut pending, rest)));
            }
            shown.push_str(&redactor.text(&pending));
            assert!(!shown.contains("nary-77"), "{size}: {shown}");
            assert!(shown.starts_with("a [redacted], a cAn, twice [redacted]"), "{size}: {shown}");
            assert!(shown.ends_with(", cAnary"), "{size}: {shown}");
        }
    }
}
