//! The file of tokens: read by the node, written by `aobd token` alone.
//!
//! TOML, one `[[token]]` each; comments of the operator survive. It is replaced as a whole (written beside, synced,
//! renamed), so a node that reads it at any moment sees the old one or the new one. Writers take turns by a lock on the
//! folder. It holds at most [`limits::TOKENS_MAX`] tokens.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Deserialize;

use super::Error;
use super::tokens::{Caller, Role, TokenHash, hash};
use crate::limits;
use crate::model::Workspace;

/// Its key in the configuration, which its errors name.
const KEY: &str = "auth.tokens_file";
const HEADER: &str =
    "# Tokens of the HTTP API, by their hashes. Made by `aobd token`; the node reads it again on SIGHUP.\n";
const TABLE: &str = "[[token]]";

/// What a new token is to be.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its name, unique in the file.
    pub name: String,
    /// Its workspace.
    pub workspace: Workspace,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Whom it answers reviews as.
    pub reviewer: Option<String>,
}

/// One token of the file.
#[derive(Clone, Debug)]
pub struct Row {
    /// SHA-256 of the token.
    pub hash: TokenHash,
    /// Whom it stands for.
    pub caller: Caller,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    #[serde(default)]
    token: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    hash: String,
    workspace: String,
    roles: Vec<Role>,
    reviewer: Option<String>,
}

fn bad(path: &Path, problem: impl ToString) -> Error {
    Error { key: KEY, path: path.to_owned(), problem: problem.to_string() }
}

/// All tokens of the file.
///
/// # Errors
/// It cannot be read, or something in it is wrong.
pub fn list(path: &Path) -> Result<Vec<Row>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| bad(path, error))?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Row>, Error> {
    let whole: Whole = toml::from_str(text).map_err(|error| {
        // Its first line says where, and what; the rest draws it.
        let said = error.to_string();
        bad(path, said.lines().next().unwrap_or_default().to_owned() + ": " + error.message())
    })?;
    if whole.token.len() > limits::TOKENS_MAX {
        let problem = format!("{} tokens; at most {}", whole.token.len(), limits::TOKENS_MAX);
        return Err(bad(path, format!("{problem} (limit tokens_max)")));
    }
    let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
    let mut rows = Vec::with_capacity(whole.token.len());
    for entry in whole.token {
        let name = entry.name.clone();
        let row = row(entry).map_err(|problem| bad(path, format!("token {name:?}: {problem}")))?;
        if !names.insert(name.clone()) || !hashes.insert(row.hash) {
            return Err(bad(path, format!("token {name:?} stands twice, by name or by hash")));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn row(entry: Entry) -> Result<Row, String> {
    check_name(&entry.name)?;
    let digits = entry.hash.strip_prefix("sha256:").ok_or("its hash does not begin with `sha256:`")?;
    let hash = from_hex(digits).ok_or("its hash has not 64 hexadecimal digits")?;
    let workspace = entry.workspace.parse::<Workspace>().map_err(|error| error.to_string())?;
    let role = entry.roles.iter().copied().max().ok_or("it has no role")?;
    let reviewer = entry.reviewer.map(Into::into);
    Ok(Row { hash, caller: Caller { token: Some(entry.name.into()), workspace, role, reviewer } })
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    if (1..=limits::NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("a name has 1 to {} visible ASCII characters, no quotes", limits::NAME_BYTES_MAX))
}

/// Makes a token, keeps its hash, and gives it back: this is the only moment when it can be read.
///
/// # Errors
/// The name is taken or does not do, or the file cannot be written.
pub fn create(path: &Path, order: &Order) -> Result<String, Error> {
    let wrong = |problem: &dyn std::fmt::Display| bad(path, problem);
    check_name(&order.name).map_err(|problem| wrong(&problem))?;
    let token = random().map_err(|error| wrong(&error))?;
    rewrite(path, |text| {
        let mut text = if text.is_empty() { HEADER.to_owned() } else { text.to_owned() };
        let roles: Vec<_> = order.roles.iter().map(|role| format!("\"{}\"", role.as_str())).collect();
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let _ = write!(
            text,
            "\n{TABLE}\nname = {}\nhash = \"sha256:{}\"\nworkspace = {}\nroles = [{}]\n",
            quoted(&order.name),
            hex(&hash(token.as_bytes())),
            quoted(order.workspace.name()),
            roles.join(", ")
        );
        if let Some(reviewer) = &order.reviewer {
            let _ = writeln!(text, "reviewer = {}", quoted(reviewer));
        }
        Ok(text)
    })?;
    Ok(token)
}

/// A token that nobody can guess.
pub(super) fn random() -> std::io::Result<String> {
    let mut random = [0_u8; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(format!("aob_{}", hex(&random)))
}

/// Takes a token out of the file.
///
/// # Errors
/// There is none of this name, or the file cannot be written.
pub fn revoke(path: &Path, name: &str) -> Result<(), Error> {
    rewrite(path, |text| {
        let mut kept = String::new();
        let mut found = false;
        for part in parts(text) {
            let own = toml::from_str::<Whole>(part).is_ok_and(|w| w.token.iter().any(|t| t.name == name));
            if own {
                found = true;
            } else {
                kept.push_str(part);
            }
        }
        if found { Ok(kept) } else { Err(bad(path, format!("there is no token {name:?}"))) }
    })
}

/// The text cut before each token.
fn parts(text: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = text
        .match_indices(TABLE)
        .map(|(at, _)| at)
        .filter(|at| *at == 0 || text.as_bytes().get(at - 1) == Some(&b'\n'))
        .collect();
    starts.insert(0, 0);
    starts.push(text.len());
    starts.windows(2).filter_map(|pair| text.get(*pair.first()?..*pair.last()?)).collect()
}

/// Replaces the file by what `change` makes of it, when that can be read back.
fn rewrite(path: &Path, change: impl FnOnce(&str) -> Result<String, Error>) -> Result<(), Error> {
    let wrong = |error: std::io::Error| bad(path, error);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).map_err(wrong)?;
    // Held until this function ends.
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| wrong(error.into()))?;
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(wrong)?,
    };
    let text = change(&text)?;
    parse(path, &text)?;
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    std::fs::rename(&beside, path).and_then(|()| folder.sync_all()).map_err(wrong)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(digits: &str) -> Option<TokenHash> {
    let mut bytes = TokenHash::default();
    if digits.len() != 2 * bytes.len() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::tokens::Tokens;
    use super::*;

    fn order(name: &str, role: Role) -> Order {
        Order { name: name.into(), workspace: "acme".parse().unwrap(), roles: vec![role], reviewer: None }
    }

    #[test]
    fn a_token_is_kept_by_its_hash_alone_and_found_until_it_is_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let one = create(&path, &order("one", Role::Write)).unwrap();
        let reviewer = Order { reviewer: Some("alice \"a\"".into()), ..order("two", Role::Read) };
        let two = create(&path, &reviewer).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&one) && !text.contains(one.trim_start_matches("aob_")));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(one.len() == 68 && one != two);

        let tokens = Tokens::open(&path).unwrap();
        let found = tokens.find(one.as_bytes()).unwrap();
        assert_eq!((found.token.as_deref(), found.role), (Some("one"), Role::Write));
        assert_eq!(found.workspace.name(), "acme");
        assert_eq!(tokens.find(two.as_bytes()).unwrap().reviewer.as_deref(), Some("alice \"a\""));
        assert!(tokens.find(b"aob_").is_none() && tokens.find(text.as_bytes()).is_none());

        std::fs::write(&path, format!("{text}# kept\n")).unwrap();
        revoke(&path, "one").unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("# kept"));
        tokens.reload(&path).unwrap();
        assert!(tokens.find(one.as_bytes()).is_none() && tokens.find(two.as_bytes()).is_some());
        assert!(revoke(&path, "one").is_err());
    }

    #[test]
    fn the_process_has_a_token_of_its_own_that_no_file_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        create(&path, &order("one", Role::Read)).unwrap();
        let before = std::fs::read_to_string(&path).unwrap();
        let tokens = Tokens::open(&path).unwrap();
        let (first, second) = (tokens.issue("demo").unwrap(), tokens.issue("demo").unwrap());
        tokens.reload(&path).unwrap();
        assert!(tokens.find(first.as_bytes()).is_none(), "there is one at a time");
        let found = tokens.find(second.as_bytes()).unwrap();
        assert_eq!((found.token.as_deref(), found.role), (Some("demo"), Role::Write));
        assert_eq!(found.workspace, Workspace::DEFAULT);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
        assert!(Tokens::open(&path).unwrap().find(second.as_bytes()).is_none());
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named_and_the_tokens_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.toml");
        let token = create(&path, &order("one", Role::Admin)).unwrap();
        let tokens = Tokens::open(&path).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        for (from, to, named) in [
            ("sha256:", "md5:", "sha256"),
            ("\"admin\"", "\"root\"", "root"),
            ("[\"admin\"]", "[]", "no role"),
            ("\"acme\"", "\"a/b\"", "a/b"),
            ("roles =", "rights =", "rights"),
            ("[[token]]", "[[token", "line"),
        ] {
            std::fs::write(&path, good.replace(from, to)).unwrap();
            let error = tokens.reload(&path).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains('\n'), "{to}: {error}");
            assert!(tokens.find(token.as_bytes()).is_some());
        }
        assert!(create(&path, &order("two", Role::Read)).is_err(), "a broken file is not written to");
        std::fs::write(&path, &good).unwrap();
        assert!(create(&path, &order("one", Role::Read)).is_err(), "the name is taken");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), good);
    }
}
