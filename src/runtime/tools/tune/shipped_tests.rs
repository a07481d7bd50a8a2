//! The files of `tuning/` for those who bring up hosts by other means are made of the table, and never anything else:
//! `AOB_TIDY_BLESS=1 cargo test --features failpoints --lib tune` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use super::table::{SHIPPED, Setting, Table};

const HEADER: &str = "# Made of tuning/tune.toml, which says more of each value. It sets them also where the host's are better; `aobd tune apply`\n# changes only what is worse.\n";

/// What is written where nothing is there to compare with.
fn plain(setting: &Setting) -> String {
    let want = setting.want.to_string();
    let word = |word: &str| {
        word.trim_start_matches(['>', '<', '=']).split('|').next().unwrap_or_default().to_owned()
    };
    want.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

fn sysctls(table: &Table) -> impl Iterator<Item = (String, &Setting)> {
    table.settings.iter().filter_map(|setting| {
        let key = setting.path.strip_prefix("/proc/sys/")?;
        Some((key.replace('/', "."), setting))
    })
}

fn sysctl(table: &Table) -> String {
    let mut text = String::from(HEADER);
    for (key, setting) in sysctls(table) {
        let _ = write!(text, "\n# {}\n# {}\n-{key} = {}\n", setting.why, setting.source, plain(setting));
    }
    text
}

fn of<'a>(table: &'a Table, end: &str) -> &'a Setting {
    table.settings.iter().find(|setting| setting.path.ends_with(end)).unwrap()
}

fn udev(table: &Table) -> String {
    let scheduler = of(table, "/queue/scheduler");
    let rule = r#"ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", KERNEL=="nvme*", ATTR{queue/scheduler}="#;
    format!("{HEADER}\n# {}\n# {}\n{rule}\"{}\"\n", scheduler.why, scheduler.source, plain(scheduler))
}

fn tuned(table: &Table) -> String {
    let mut text =
        format!("{HEADER}\n[main]\nsummary=Hosts of aob nodes\ninclude=throughput-performance\n\n[sysctl]\n");
    for (key, setting) in sysctls(table) {
        let _ = writeln!(text, "{key}={}", plain(setting));
    }
    let parts = [
        ("cpu", "governor", "/scaling_governor"),
        ("vm", "transparent_hugepages", "/transparent_hugepage/enabled"),
        ("disk", "devices_udev_regex=DEVNAME=/dev/nvme.*\nelevator", "/queue/scheduler"),
    ];
    for (part, key, end) in parts {
        let _ = write!(text, "\n[{part}]\n{key}={}\n", plain(of(table, end)));
    }
    text
}

// F238
#[test]
fn the_shipped_files_say_what_the_table_says() {
    let table = Table::read(SHIPPED).unwrap();
    let shipped = [
        ("sysctl.d/60-aob.conf", sysctl(&table)),
        ("udev/60-aob.rules", udev(&table)),
        ("tuned/aob/tuned.conf", tuned(&table)),
    ];
    for (name, text) in shipped {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name);
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            continue;
        }
        let blessing = std::env::var("AOB_TIDY_BLESS").is_ok_and(|value| value == "1");
        assert!(
            blessing,
            "tuning/{name} is stale; run: AOB_TIDY_BLESS=1 cargo test --features failpoints --lib tune"
        );
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

#[test]
fn every_setting_says_why_who_says_so_and_how_to_see_it() {
    let table = Table::read(SHIPPED).unwrap();
    for setting in &table.settings {
        assert!(setting.path.starts_with("/proc/") || setting.path.starts_with("/sys/"), "{}", setting.path);
        assert!(setting.why.len() > 20 && setting.verify.len() > 10, "{}", setting.path);
        assert!(setting.source.starts_with("https://"), "{}", setting.path);
        assert_eq!(setting.path.contains("{}"), !setting.each.is_empty(), "{}", setting.path);
    }
    let mut paths: Vec<&str> = table.settings.iter().map(|setting| setting.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), table.settings.len(), "each once");
}
