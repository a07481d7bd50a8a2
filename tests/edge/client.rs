//! The real `aob` over TLS: runs and streams, whom it trusts, and where it does not send a token.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

use crate::harness::{AOBD, Node, Options};
use crate::tls::{certify, with_tls};

const WAITING: &str = r#"{"name":"waiting","nodes":{"a":{"type":"wait","with":{"signal":"go"}}}}"#;

/// `aob` with no settings but those given.
pub(crate) fn aob(home: &Path, url: &str, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aob"));
    command.args(line.split(' ')).current_dir(home).env_clear();
    command.env("XDG_CONFIG_HOME", home.join("config")).env("AOB_URL", url).env("NO_COLOR", "1");
    command.stdin(Stdio::null());
    command
}

pub(crate) fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A new token of the workspace `default`, in `tokens.toml`.
pub(crate) fn new_token(home: &Path, role: &str) -> String {
    let made = Command::new(AOBD)
        .args(["token", "new", "--name", "one", "--workspace", "default", "--role", role, "--set"])
        .arg(format!("auth.tokens_file={}", home.join("tokens.toml").display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", told(&made));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// A node with a certificate for `localhost`, and its address by that name.
fn node(home: &Path) -> (Node, String) {
    certify(home);
    std::fs::write(home.join("waiting.json"), WAITING).unwrap();
    let node = Node::start(&with_tls(&home.join("data"), home));
    let port = node.address.rsplit(':').next().unwrap().to_owned();
    (node, format!("https://localhost:{port}"))
}

// F006, F185
#[test]
fn runs_are_started_watched_and_steered_over_tls() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (_node, url) = node(home);
    let started = aob(home, &url, "run start waiting.json -o json --ca-file node.crt").output().unwrap();
    assert!(started.status.success(), "{}", told(&started));
    let run: Json = serde_json::from_slice(&started.stdout).unwrap();
    let run_id = run["run_id"].as_str().unwrap();

    let line = format!("logs stream {run_id} -o jsonl");
    let mut stream =
        aob(home, &url, &line).env("AOB_CA_FILE", "node.crt").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    let mut next = || {
        let row: Json = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        row["type"].as_str().unwrap().to_owned()
    };
    while next() != "node.waiting" {}
    // The stream is open and quiet; what comes now comes through it.
    std::fs::create_dir_all(home.join("config/aob")).unwrap();
    let context = format!("[contexts.tls]\nurl = \"{url}\"\nca_file = \"../../node.crt\"\n");
    std::fs::write(home.join("config/aob/config.toml"), context).unwrap();
    let line = format!("run signal {run_id} go --context tls");
    let signalled = aob(home, "http://127.0.0.1:1", &line).output().unwrap();
    assert!(signalled.status.success(), "{}", told(&signalled));
    while next() != "run.completed" {}
    assert!(stream.wait().unwrap().success());
}

// F006, F417
#[test]
fn a_node_that_cannot_show_who_it_is_is_sent_nothing() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (node, url) = node(home);
    let stranger = rcgen::generate_simple_self_signed(vec![String::from("localhost")]).unwrap();
    std::fs::write(home.join("other.crt"), stranger.cert.pem()).unwrap();
    std::fs::write(home.join("none.crt"), "nothing").unwrap();
    let by_address = format!("https://{}", node.address);
    let plain = format!("http://{}", node.address);
    for (url, line, exit, wanted) in [
        (&url, "run list --ca-file other.crt", 1, "--ca-file"),
        (&url, "run list", 1, "TLS with https://localhost"),
        (&by_address, "run list --ca-file node.crt", 1, "certificate not valid for name"),
        (&url, "run list --ca-file none.crt", 2, "none.crt: it holds no certificate"),
        (&url, "run list --ca-file nowhere.crt", 2, "nowhere.crt"),
        (&plain, "run list", 1, "https://"),
        (&url, "run list --ca-file node.crt", 0, ""),
    ] {
        let output = aob(home, url, line).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{url} {line}: {}", told(&output));
        assert!(told(&output).contains(wanted), "{url} {line}: {}", told(&output));
    }
}

// F006
#[test]
fn a_token_goes_to_another_machine_by_tls_or_by_a_clear_word() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    // Nothing listens there, and it is no address of this machine alone.
    let url = "http://0.0.0.0:1";
    for (line, exit, wanted) in
        [("run list", 2, "--allow-plain-token"), ("run list --allow-plain-token", 6, "no node answers")]
    {
        let output = aob(home, url, line).env("AOB_TOKEN", "s3cr3t").output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{line}: {}", told(&output));
        let told = told(&output);
        assert!(told.contains(wanted) && !told.contains("s3cr3t"), "{line}: {told}");
    }
    // A token that the node knows, over TLS.
    let token = new_token(home, "read");
    let tokens = home.join("tokens.toml");
    certify(home);
    let options: Options =
        with_tls(&home.join("data"), home).set("auth.tokens_file", tokens.to_str().unwrap());
    let node = Node::start(&options);
    let port = node.address.rsplit(':').next().unwrap();
    let url = format!("https://localhost:{port}");
    for (token, exit) in [(token.as_str(), 0), ("aob_wrong", 4)] {
        let mut command = aob(home, &url, "run list --ca-file node.crt");
        let output = command.env("AOB_TOKEN", token).output().unwrap();
        assert_eq!(output.status.code(), Some(exit), "{}", told(&output));
    }
}
