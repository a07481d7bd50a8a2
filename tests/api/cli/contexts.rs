//! Contexts of the real program: what is sent to whom, and that no token is ever shown.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value as Json, json};

use super::fake::with_fake;
use super::{alone, aob, code, command, directory, err, out};

const TOKEN: &str = "s3cr3t-0815";

fn configure(directory: &Path, text: &str, mode: u32) {
    let folder = directory.join("config/aob");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("config.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Without `AOB_URL`, so that the context decides.
async fn by_context(directory: &Path, line: &str) -> Output {
    let mut command = command("", directory, line);
    command.env_remove("AOB_URL");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn silent(outputs: &[&Output]) {
    for output in outputs {
        assert!(
            !out(output).contains(TOKEN) && !err(output).contains(TOKEN),
            "{}{}",
            out(output),
            err(output)
        );
    }
}

fn two(address: SocketAddr) -> String {
    format!(
        "current = \"a\"\n[contexts.a]\nurl = \"http://{address}\"\ntoken = \"{TOKEN}\"\nworkspace = \"red\"\n\
         [contexts.b]\nurl = \"http://127.0.0.1:1\"\ntoken_file = \"token\"\n"
    )
}

#[test]
fn token_and_workspace_of_the_context_are_sent_and_never_shown() {
    let dir = directory();
    with_fake(
        |_| (200, r#"{"runs": []}"#),
        async |address, heads| {
            configure(dir.path(), &two(address), 0o600);
            let plain = by_context(dir.path(), "run list").await;
            assert_eq!((code(&plain), err(&plain).as_str()), (0, ""));
            let other = by_context(dir.path(), "run list --workspace blue").await;
            // Elsewhere than the context says: not with its token.
            let away =
                by_context(dir.path(), &format!("run list --url http://localhost:{}", address.port())).await;
            assert_eq!((code(&other), code(&away)), (0, 0), "{}", err(&away));
            let heads = heads.borrow();
            let has = |at: usize, line: &str| heads[at].to_lowercase().contains(&format!("{line}\r\n"));
            assert!(
                has(0, &format!("authorization: bearer {TOKEN}")) && has(0, "aob-workspace: red"),
                "{heads:?}"
            );
            assert!(has(1, "aob-workspace: blue"), "{heads:?}");
            assert!(!heads[2].contains(TOKEN), "{heads:?}");
            silent(&[&plain, &other, &away]);
        },
    );
}

#[test]
fn a_token_from_the_environment_goes_before_the_one_of_the_file() {
    let dir = directory();
    with_fake(
        |_| (401, r#"{"code": "unauthorized"}"#),
        async |address, heads| {
            configure(dir.path(), &two(address), 0o600);
            let mut with_token = command(&format!("http://{address}"), dir.path(), "run list");
            with_token.env("AOB_TOKEN", "from-env");
            let refused = tokio::task::spawn_blocking(move || with_token.output().unwrap()).await.unwrap();
            assert_eq!(code(&refused), 4, "{}", err(&refused));
            assert!(!err(&refused).contains("from-env"), "{}", err(&refused));
            assert!(heads.borrow()[0].contains("from-env") && !heads.borrow()[0].contains(TOKEN));
            let mut broken = command(&format!("http://{address}"), dir.path(), "run list");
            broken.env("AOB_TOKEN", "two\nlines");
            let broken = tokio::task::spawn_blocking(move || broken.output().unwrap()).await.unwrap();
            assert_eq!(code(&broken), 2);
            assert!(!err(&broken).contains("lines") && heads.borrow().len() == 1, "{}", err(&broken));
        },
    );
}

#[test]
fn a_file_that_others_can_read_is_warned_about() {
    let dir = directory();
    configure(dir.path(), &two("127.0.0.1:1".parse().unwrap()), 0o644);
    let listed = alone(dir.path(), "context list");
    assert_eq!(code(&listed), 0);
    assert!(err(&listed).contains("chmod 600"), "{}", err(&listed));
    let hushed = alone(dir.path(), "context list --quiet");
    assert_eq!(err(&hushed), "");
    silent(&[&listed, &hushed]);
}

#[test]
fn contexts_are_listed_chosen_and_shown() {
    let dir = directory();
    configure(dir.path(), &two("127.0.0.1:1".parse().unwrap()), 0o600);
    std::fs::write(dir.path().join("config/aob/token"), TOKEN).unwrap();
    let show = |line: &str| {
        let mut command = command("", dir.path(), line);
        let output = command.env_remove("AOB_URL").output().unwrap();
        silent(&[&output]);
        output
    };
    let chosen = show("context use b");
    assert_eq!(code(&chosen), 0, "{}", err(&chosen));
    let listed: Json = serde_json::from_slice(&show("context list -o json").stdout).unwrap();
    let current: Vec<&Json> =
        listed["contexts"].as_array().unwrap().iter().map(|row| &row["current"]).collect();
    assert_eq!(current, [&json!(false), &json!(true)]);
    let shown: Json = serde_json::from_slice(&show("context show -o json").stdout).unwrap();
    assert_eq!(
        shown,
        json!({"context": "b", "url": "http://127.0.0.1:1", "workspace": null, "ca_file": null, "has_token": true})
    );
    assert!(out(&show("context show a")).contains("token        set\n"));
    let none = show("context use c");
    assert_eq!((code(&none), out(&none).as_str()), (3, ""));
    let kept = std::fs::read_to_string(dir.path().join("config/aob/config.toml")).unwrap();
    assert!(
        kept.starts_with("current = \"b\"\n[contexts.a]\n") && kept.contains(TOKEN),
        "only current changed"
    );
    let mode = std::fs::metadata(dir.path().join("config/aob/config.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_exit_code_says_how_a_node_refused() {
    let dir = directory();
    with_fake(
        |path| match path.rsplit('/').next().unwrap() {
            "401" => (401, "{}"),
            "403" => (403, "{}"),
            "404" => (404, "{}"),
            "409" => (409, "{}"),
            "422" => (422, "{}"),
            "429" => (429, "{}"),
            "503" => (503, "{}"),
            "graph" => {
                (200, r#"{"nodes": {"ok": {"state": "waiting", "waiting_for": "a human until later"}}}"#)
            }
            _ => (200, r#"{"run_id": "run_1", "status": "running"}"#),
        },
        async |address, _| {
            for (line, wanted) in [
                ("run get x", 0),
                ("run get 422", 1),
                ("run get", 2),
                ("run get 404", 3),
                ("run get 401", 4),
                ("run get 403", 4),
                ("run get 409", 5),
                ("run get 429", 6),
                ("run get 503", 6),
                ("run wait x --timeout 1", 9),
            ] {
                let output = aob(address, dir.path(), line).await;
                assert_eq!(code(&output), wanted, "{line}: {}{}", out(&output), err(&output));
            }
        },
    );
}

#[test]
fn an_interrupt_ends_it_with_130() {
    let dir = directory();
    with_fake(
        |_| (200, "{}"),
        async |address, heads| {
            // `{}` is no run that has ended, so this asks again and again.
            let mut child = command(&format!("http://{address}"), dir.path(), "run wait x")
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while heads.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            let id = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
            rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
            let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
            assert_eq!(ended.code(), Some(130));
        },
    );
}
