//! Completions and manual pages of the real program.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::{alone, code, directory, err, out};

const NAMES: [&str; 6] = ["run", "workflow", "completions", "start", "validate", "explain"];

#[test]
fn every_shell_gets_a_script_that_names_the_commands() {
    let dir = directory();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = alone(dir.path(), &format!("completions {shell}"));
        assert_eq!(code(&script), 0, "{shell}: {}", err(&script));
        for name in NAMES {
            assert!(out(&script).contains(name), "{shell} names {name}");
        }
    }
    let none = alone(dir.path(), "completions csh");
    assert_eq!((code(&none), out(&none).as_str()), (2, ""));
}

#[test]
fn bash_accepts_its_script() {
    let dir = directory();
    let script = alone(dir.path(), "completions bash").stdout;
    for (text, good) in [(script.clone(), true), ([&script[..], b"\nif"].concat(), false)] {
        let mut bash = Command::new("bash")
            .arg("-n")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash is installed");
        bash.stdin.take().unwrap().write_all(&text).unwrap();
        assert_eq!(bash.wait().unwrap().success(), good);
    }
}

#[test]
fn manual_pages_go_to_standard_output_or_into_a_directory() {
    let dir = directory();
    let all = alone(dir.path(), "man");
    assert_eq!(code(&all), 0, "{}", err(&all));
    for name in NAMES {
        assert!(out(&all).contains(name), "{name}");
    }
    let written = alone(dir.path(), "man pages/man1");
    assert_eq!((code(&written), out(&written).as_str()), (0, ""), "{}", err(&written));
    let start = std::fs::read_to_string(dir.path().join("pages/man1/aob-run-start.1")).unwrap();
    assert!(start.contains(".TH") && start.contains("inputs"), "{start}");
    // A file where the directory should be.
    let refused = alone(dir.path(), "man flow.json");
    assert_eq!((code(&refused), out(&refused).as_str()), (1, ""));
    assert!(err(&refused).starts_with("flow.json: "), "{}", err(&refused));
}
