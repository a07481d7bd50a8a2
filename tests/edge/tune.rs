//! `aobd tune` against a real kernel: the network settings of a namespace of the test's own, below a root that has nothing else.
//!
//! That takes namespaces (`unshare -rmn`); where they are refused the test says so and proves nothing.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::AOBD;

/// Runs a script in namespaces of its own, where `$ROOT/proc/sys/net` is the kernel's.
fn inside(root: &Path, script: &str) -> Option<Output> {
    let possible =
        Command::new("unshare").args(["-rmn", "true"]).output().is_ok_and(|done| done.status.success());
    if !possible {
        println!("SKIPPED a host is tuned: namespaces are refused here");
        return None;
    }
    let mount = "set -eu; mount --bind /proc/sys/net \"$ROOT/proc/sys/net\"; ";
    let mut command = Command::new("unshare");
    command.args(["-rmn", "bash", "-c"]).arg(format!("{mount}{script}")).env("ROOT", root).env("AOBD", AOBD);
    Some(command.output().unwrap())
}

fn report(text: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let text = |line: &Value, member: &str| line[member].as_str().unwrap().to_owned();
    let lines = report["lines"].as_array().unwrap().iter();
    lines
        .map(|line| (text(line, "path"), text(line, "state")))
        .filter(|(_, state)| state != "not_here")
        .collect()
}

fn count(report: &[(String, String)], state: &str) -> usize {
    report.iter().filter(|(_, of)| of == state).count()
}

// F238, N16
#[test]
fn wrong_values_of_a_kernel_are_named_changed_and_taken_back_byte_for_byte() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    std::fs::create_dir_all(root.join("proc/sys/net")).unwrap();
    std::fs::create_dir_all(root.join("sys/devices/system/cpu")).unwrap();
    std::fs::write(root.join("sys/devices/system/cpu/online"), "0-1\n").unwrap();
    let script = r#"
        net=$ROOT/proc/sys/net
        tune() { code=0; "$AOBD" tune "$@" --root "$ROOT" --json > "$ROOT/report" || code=$?; echo "$code"; tr -d '\n' < "$ROOT/report"; echo; }
        all() { cat "$net"/core/somaxconn "$net"/ipv4/{ip_local_port_range,tcp_max_syn_backlog,tcp_migrate_req,tcp_slow_start_after_idle} | base64 -w 0; echo; }
        echo 128 > "$net/core/somaxconn"
        echo "40000 50000" > "$net/ipv4/ip_local_port_range"
        echo 64 > "$net/ipv4/tcp_max_syn_backlog"
        all; tune check; all; tune apply; all; tune apply --yes; all; tune check; tune rollback; all; tune check
    "#;
    let Some(ran) = inside(root, script) else { return };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    let said: Vec<&str> = said.lines().collect();
    let [
        before,
        c1,
        check,
        after_check,
        c2,
        dry,
        after_dry,
        c3,
        applied,
        changed,
        c4,
        well,
        c5,
        undone,
        after,
        c6,
        again,
    ] = said[..]
    else {
        panic!("{said:#?}");
    };
    assert_eq!([c1, c2, c3, c4, c5, c6], ["1", "1", "0", "0", "0", "1"], "{said:#?}");
    let (check, applied, undone) = (report(check), report(applied), report(undone));
    for path in ["core/somaxconn", "ipv4/ip_local_port_range", "ipv4/tcp_max_syn_backlog"] {
        let named =
            |(of, state): &(String, String)| *of == format!("/proc/sys/net/{path}") && state == "differs";
        assert!(check.iter().any(named), "{path}: {check:?}");
    }
    // Neither looking nor a dry run changes anything.
    assert_eq!((report(dry), after_check, after_dry), (check.clone(), before, before));
    // And the file for the next boot.
    assert_eq!(count(&applied, "written"), count(&check, "differs") + 1, "{applied:?}");
    assert_ne!(changed, before);
    assert_eq!(count(&report(well), "differs"), 0);
    assert_eq!(count(&undone, "restored"), undone.len(), "{undone:?}");
    assert_eq!(after, before, "byte for byte");
    assert_eq!(report(again), check);
    assert!(!root.join("etc/sysctl.d/60-aob.conf").exists());
}

// F238: what cannot be looked at is no host that is as wanted.
#[test]
fn a_directory_that_is_no_host_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let ran = Command::new(AOBD).args(["tune", "check", "--root"]).arg(root.path()).output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("/proc/sys"));
}
