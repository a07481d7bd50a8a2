//! `aobd dev` and `aobd demo` on a node that wants tokens, plain and with TLS: they are let in, and others are not.

use std::path::Path;

use crate::client::{aob, new_token, told};
use crate::harness::{Node, Options};
use crate::tls::{certify, with_tls};

/// A node with tokens that runs this command; a token that may read what it made; and its address.
fn node(home: &Path, command: &'static str, tls: bool) -> (Node, String, String) {
    let token = new_token(home, "read");
    let mut options = Options::serve(&home.join("data")).set("runner.driver", "tokio");
    if tls {
        certify(home);
        options = with_tls(&home.join("data"), home);
    }
    let tokens = home.join("tokens.toml");
    options = options.set("auth.tokens_file", tokens.to_str().unwrap());
    options.command = command;
    if command == "demo" {
        options.arguments.push(String::from("--keep"));
    }
    let node = Node::start(&options);
    let (_, port) = node.address.rsplit_once(':').unwrap();
    let url = format!("{}://localhost:{port}", if tls { "https" } else { "http" });
    (node, token, url)
}

fn asked(home: &Path, url: &str, token: &str, line: &str) -> String {
    let mut command = aob(home, url, line);
    let output = command.env("AOB_TOKEN", token).env("AOB_CA_FILE", "node.crt").output().unwrap();
    assert!(output.status.success(), "{line}: {}", told(&output));
    told(&output)
}

// F254
#[test]
fn dev_registers_its_examples_where_tokens_are_needed() {
    for tls in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let (node, token, url) = node(home.path(), "dev", tls);
        let said = node.says("a token of its own");
        assert!(said.contains("dev") && !said.contains("aob_"), "{said}");
        let listed = asked(home.path(), &url, &token, "workflow list");
        assert!(listed.contains("hello") && listed.contains("seismic-triage"), "{listed}");
        // The door is as closed as before.
        let mut nobody = aob(home.path(), &url, "workflow list");
        let nobody = nobody.env("AOB_CA_FILE", "node.crt").output().unwrap();
        assert_eq!(nobody.status.code(), Some(4), "{}", told(&nobody));
        let (status, said) = node.terminate();
        assert!(status.success(), "{said}");
    }
}

// F254
#[test]
fn the_demo_tells_its_report_where_tokens_and_tls_are_needed() {
    let home = tempfile::tempdir().unwrap();
    let (node, token, url) = node(home.path(), "demo", true);
    let mut lines = std::iter::from_fn(|| node.line());
    assert!(lines.by_ref().any(|line| line.contains("stored:")), "it never came to its report");
    assert!(lines.any(|line| line.contains("authorization: Bearer TOKEN")));
    let listed = asked(home.path(), &url, &token, "run list --status completed");
    assert!(listed.contains("seismic-triage"), "{listed}");
    // What is in the directory is no token.
    let kept = std::fs::read_to_string(home.path().join("tokens.toml")).unwrap();
    assert_eq!(kept.matches("[[token]]").count(), 1, "{kept}");
}
