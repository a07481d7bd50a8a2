//! What is shipped for systemd: units that it takes without a word, closed as far as the node allows, and scripts that leave nothing
//! behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::{AOBD, root};

/// Of ten, the more the worse.
const EXPOSURE_MAX: f64 = 1.5;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED {program} is not installed");
    }
    found
}

/// The units as they are shipped, but for the place of the program, which is not installed here.
fn units(directory: &Path) -> Vec<PathBuf> {
    let names = ["aobd.service", "aobd.socket", "aob-tune.service", "aob.slice"];
    let copy = |name: &str| {
        let unit = std::fs::read_to_string(root().join("systemd").join(name)).unwrap();
        let place = directory.join(name);
        std::fs::write(&place, unit.replace("/usr/bin/aobd", AOBD)).unwrap();
        place
    };
    names.into_iter().map(copy).collect()
}

// F226
#[test]
fn units_are_taken_without_a_word() {
    if !is_there("systemd-analyze") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let verified =
        Command::new("systemd-analyze").arg("verify").args(units(directory.path())).output().unwrap();
    // It ends well for keys that it does not know, too, and says so.
    assert!(verified.status.success() && text(&verified).is_empty(), "{}", text(&verified));
}

// F226
#[test]
fn the_service_is_exposed_as_little_as_was_promised() {
    if !is_there("systemd-analyze") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let service = units(directory.path()).remove(0);
    let looked = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(service)
        .output()
        .unwrap();
    let said = text(&looked);
    let exposure = said.lines().find_map(|line| line.split("exposure level for aobd.service: ").nth(1));
    let exposure = exposure.and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("{said}"));
    println!("exposure {exposure}");
    assert!(exposure.parse::<f64>().unwrap() <= EXPOSURE_MAX, "{said}");
}

// F226
#[test]
fn scripts_are_sound() {
    let scripts = ["install", "uninstall", "boot-test"].map(|name| root().join("systemd").join(name));
    for script in &scripts {
        let read = Command::new("bash").arg("-n").arg(script).output().unwrap();
        assert!(read.status.success() && text(&read).is_empty(), "{}", text(&read));
    }
    if is_there("shellcheck") {
        let checked = Command::new("shellcheck").args(&scripts).output().unwrap();
        assert!(checked.status.success(), "{}", text(&checked));
    }
}

/// Every file and link below a directory, and what it holds.
fn tree(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            found.push((
                path.clone(),
                std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes(),
            ));
        } else if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), std::fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

// F226
#[test]
fn what_is_installed_is_there_once_and_goes_again() {
    let directory = tempfile::tempdir().unwrap();
    let (target, programs) = (directory.path().join("root"), directory.path().join("programs"));
    std::fs::create_dir_all(&target).unwrap();
    std::fs::create_dir_all(&programs).unwrap();
    for name in ["aob", "aobd"] {
        std::fs::write(programs.join(name), "a program").unwrap();
    }
    let run = |script: &str, arguments: &[&str]| {
        let mut command = Command::new(root().join("systemd").join(script));
        command.arg("--root").arg(&target).args(arguments);
        if script == "install" {
            command.arg("--from").arg(&programs);
        }
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{script}: {}", text(&ran));
        text(&ran)
    };
    assert!(run("install", &["--dry-run"]).contains("aobd.service"));
    assert!(tree(&target).is_empty(), "it was only said");
    run("install", &["--newer"]);
    let there = tree(&target);
    for path in [
        "usr/bin/aob",
        "usr/bin/aobd",
        "usr/lib/systemd/system/aobd.service",
        "usr/lib/systemd/system/aobd.service.d/254.conf",
        "usr/lib/systemd/system/aobd.socket",
        "usr/lib/systemd/system/aob-tune.service",
        "usr/lib/systemd/system/aob.slice",
        "usr/lib/sysusers.d/aob.conf",
        "etc/aob/aob.toml",
    ] {
        assert!(there.iter().any(|(place, _)| *place == target.join(path)), "{path}: {there:?}");
    }
    run("install", &["--newer"]);
    assert_eq!(tree(&target), there, "twice is as once");
    // What somebody has changed stays, also when the rest goes.
    let file = target.join("etc/aob/aob.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\n").unwrap();
    run("install", &[]);
    assert!(std::fs::read_to_string(&file).unwrap().contains("127.0.0.1:1"));
    run("uninstall", &[]);
    assert_eq!(tree(&target).into_iter().map(|(path, _)| path).collect::<Vec<_>>(), [file]);
    run("uninstall", &["--purge"]);
    assert!(tree(&target).is_empty());
    run("uninstall", &[]);
}
