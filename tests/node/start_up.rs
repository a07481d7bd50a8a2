//! What keeps a node from starting is said in one clear line, with an exit code, never as a panic.

use std::process::{Command, ExitStatus};

use aob::store::layout::FORMAT;

use crate::harness::{AOBD, Node, Options};

/// A node under `ulimit` settings.
pub(crate) fn under(limits: &str, options: &Options) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{limits} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, AOBD, options.command, "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(&options.data_dir).args(&options.arguments);
    command
}

/// Starts a node under `ulimit` settings and gives back how it failed.
fn fails_under(limits: &str, options: &Options) -> (ExitStatus, String) {
    match Node::from_command(under(limits, options)) {
        Err(failed) => failed,
        Ok(_) => panic!("the node started under {limits}"),
    }
}

/// It ended with one line that names these things.
pub(crate) fn assert_clear(what: &str, failed: &(ExitStatus, String), names: &[&str]) {
    let (status, stderr) = failed;
    assert!(status.code().is_some_and(|code| code != 0 && code != 101), "{what}: {status}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{what}: {stderr}");
    let said =
        stderr.lines().filter(|line| line.starts_with("aobd: ") && !line.starts_with("aobd: warning: "));
    let lines: Vec<_> = said.collect();
    assert_eq!(lines.len(), 1, "{what}: one line that says why:\n{stderr}");
    for name in names {
        assert!(lines[0].contains(name), "{what}: `{name}` is not in: {}", lines[0]);
    }
}

// RELIABILITY A9
#[test]
fn a_small_memlock_is_refused_with_the_limit_to_raise() {
    for driver in ["auto", "ring"] {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::serve(directory.path()).set("runner.driver", driver);
        assert_clear(
            driver,
            &fails_under("ulimit -l 64", &options),
            &["memlock", "65536", "512 KiB", "ulimit -l"],
        );
    }
}

// RELIABILITY A9
#[test]
fn a_small_memlock_is_no_matter_without_rings() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path()).set("runner.driver", "tokio");
    Node::from_command(under("ulimit -l 64", &options)).expect("it starts");
}

#[test]
fn few_descriptors_are_refused_with_the_limit_to_raise() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::serve(directory.path());
    assert_clear("nofile", &fails_under("ulimit -n 64", &options), &["descriptors"]);
}

#[test]
fn a_taken_port_is_named() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = Node::start(&Options::serve(one.path()));
    let mut command = Command::new(AOBD);
    command.args(["serve", "--listen", &node.address, "--data-dir"]).arg(two.path());
    let failed = Node::from_command(command).err().expect("the port is taken");
    assert_clear("port", &failed, &[&node.address]);
}

#[test]
fn a_locked_data_directory_is_named_and_free_again_after_kill_9() {
    // RELIABILITY B16
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let failed = Node::try_start(&Options::serve(directory.path())).err().expect("the directory is locked");
    assert_clear("lock", &failed, &[&directory.path().display().to_string(), &node.pid().to_string()]);
    node.kill();
    Node::start(&Options::serve(directory.path()));
}

#[test]
fn a_wrong_configuration_names_key_and_value() {
    let directory = tempfile::tempdir().unwrap();
    for (key, value, name) in [
        ("durabilty", "fsync", "durability"),
        ("cores.runner", "4096", "cores.runner"),
        ("retention", "soon", "retention"),
    ] {
        let failed =
            Node::try_start(&Options::serve(directory.path()).set(key, value)).err().expect("refused");
        assert_clear(key, &failed, &[name]);
    }
}

#[test]
fn a_data_directory_of_a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(Node::start(&Options::serve(directory.path())));
    let format = directory.path().join("FORMAT");
    let text = std::fs::read_to_string(&format).unwrap();
    let newer = text.replacen(&FORMAT.to_string(), "999", 1);
    assert!(newer.contains("999"), "{text}");
    std::fs::write(&format, newer).unwrap();
    let failed = Node::try_start(&Options::serve(directory.path())).err().expect("a newer format");
    assert_clear("format", &failed, &["999"]);
}

// F430, F435, D15
#[test]
fn a_node_with_models_starts_and_one_with_half_a_model_says_what_is_missing() {
    const NAMES: &str =
        "{small = {provider = \"local\", model = \"qwen\", context_tokens = 9000, max_output_tokens = 900}}";
    let provider = "{kind = \"openai\", base_url = \"http://127.0.0.1:1/v1\"}";
    let directory = tempfile::tempdir().unwrap();
    let half = Options::serve(directory.path()).set("models.names", NAMES);
    let failed = Node::try_start(&half).err().expect("it does not start");
    assert_clear("no provider", &failed, &["models.names.small", "there is no provider local"]);
    let whole = half.set("models.providers.local", provider).set("models.default", "small");
    let node = Node::start(&whole);
    let text = String::from_utf8(node.client().get("/metrics").expect(200).body).unwrap();
    for line in [
        r#"aob_breaker_state{service="local/small"} 0"#,
        r#"aob_llm_tokens_total{provider="local",model="small",type="input"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let (status, _) = node.terminate();
    assert!(status.success(), "{status}: its threads end with it");
    let mut command = Command::new(AOBD);
    command.args(["check-config", "--set", &format!("models.providers.local={provider}"), "--set"]);
    let shown = command.arg(format!("models.names={NAMES}")).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("models.names = ") && shown.contains("qwen"), "{shown}");
}
