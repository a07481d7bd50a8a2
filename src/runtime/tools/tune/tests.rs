//! Hosts made of plain files. What a kernel does besides, `tests/edge/tune.rs` has.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A host of eight cores on which every value is wrong, or right.
fn host(values: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let more = [
        ("/proc/sys/kernel/random/boot_id", "first\n"),
        ("/proc/cmdline", "quiet nohz_full=3-6\n"),
        ("/sys/devices/system/cpu/online", "0-7\n"),
    ];
    for (path, text) in values.iter().chain(&more) {
        put(root.path(), path, text);
    }
    root
}

fn put(root: &Path, path: &str, text: &str) {
    let at = place::under(root, Path::new(path));
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

fn get(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(place::under(root, Path::new(path))).ok()
}

fn of(root: &Path) -> Host {
    Host::new(root, &Cores::default()).unwrap()
}

fn states(report: &Report, state: State) -> Vec<&str> {
    let lines = report.lines.iter().filter(|line| line.state == state);
    lines.map(|line| line.path.to_str().unwrap()).collect()
}

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const HUGE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const GOVERNOR: &str = "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor";
const INTERRUPT: &str = "/proc/irq/24/smp_affinity_list";
const QUEUE: &str = "/sys/class/net/eth0/device/net/eth0/queues/rx-0/rps_cpus";

const WRONG: [(&str, &str); 8] = [
    (SOMAXCONN, "128\n"),
    (PORTS, "32768\t60999\n"),
    (HUGE, "[always] madvise never\n"),
    (GOVERNOR, "powersave\n"),
    ("/sys/devices/system/cpu/cpu1/cpufreq/scaling_available_governors", "performance powersave\n"),
    (INTERRUPT, "0-7\n"),
    ("/sys/class/net/eth0/device/msi_irqs/24", "msix\n"),
    (QUEUE, "00\n"),
];

/// Every file of a host, but what `tune` keeps for itself.
fn everything(root: &Path) -> Vec<(String, Vec<u8>)> {
    let files = glob::glob(&format!("{}/**/*", root.display())).unwrap().flatten();
    let files = files.filter(|path| path.is_file() && !path.starts_with(root.join("var/lib/aob-tune")));
    files.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

// F238, N16
#[test]
fn a_check_names_what_differs_with_its_reason_and_changes_nothing() {
    let root = host(&WRONG);
    put(root.path(), "/proc/sys/net/core/rmem_max", "4194304\n");
    let before = everything(root.path());
    let report = of(root.path()).check().unwrap();
    assert_eq!(states(&report, State::Differs), [SOMAXCONN, PORTS, HUGE, GOVERNOR, INTERRUPT, QUEUE]);
    assert_eq!(states(&report, State::AsWanted), ["/proc/sys/net/core/rmem_max"]);
    assert!(states(&report, State::NotHere).contains(&"/sys/block/nvme*/queue/scheduler"));
    assert_eq!(report.exit_code(), 1);
    let text = report.to_string();
    assert!(text.contains("differs     /proc/sys/net/core/somaxconn  is 128, wanted >=4096\n"), "{text}");
    assert!(text.contains("smp_affinity_list  is 0-7, wanted 0-2 (control)"), "{text}");
    for setting in of(root.path()).table.settings.iter().filter(|setting| setting.path == SOMAXCONN) {
        assert!(
            [&setting.why, &setting.source, &setting.verify].iter().all(|said| text.contains(*said)),
            "{text}"
        );
    }
    let advice: Vec<(&str, bool)> = report.advice.iter().map(|one| (one.word.as_str(), one.there)).collect();
    assert_eq!(
        advice,
        [("nohz_full=3-6", true), ("rcu_nocbs=3-6", false), ("isolcpus=managed_irq,3-6", false)]
    );
    assert!(text.contains("rcu_nocbs=3-6") && !text.contains("nohz_full"), "{text}");
    assert!(text.ends_with("6 differs\n"), "{text}");
    assert_eq!(everything(root.path()), before);
}

#[test]
fn what_was_applied_is_as_wanted_and_is_taken_back_byte_for_byte() {
    let root = host(&WRONG);
    put(root.path(), persist::TMPFILES, "# mine\n");
    let before = everything(root.path());
    let host = of(root.path());
    let applied = host.apply().unwrap();
    assert_eq!(applied.exit_code(), 0, "{applied}");
    assert_eq!(applied.count(State::Written), 8, "{applied}");
    assert_eq!(host.check().unwrap().exit_code(), 0);
    assert_eq!(get(root.path(), PORTS).unwrap(), "16384 60999");
    assert_eq!(get(root.path(), QUEUE).unwrap(), "7");
    let sysctl = get(root.path(), persist::SYSCTL).unwrap();
    assert!(
        sysctl.ends_with("\n-net/core/somaxconn = 4096\n-net/ipv4/ip_local_port_range = 16384 60999\n"),
        "{sysctl}"
    );
    let tmpfiles = get(root.path(), persist::TMPFILES).unwrap();
    assert!(tmpfiles.contains(&format!("w {HUGE} - - - - madvise\n")), "{tmpfiles}");
    assert!(!tmpfiles.contains("mine") && !tmpfiles.contains("/irq/"), "{tmpfiles}");

    // Once more: nothing to do, and nothing is forgotten.
    assert_eq!(host.apply().unwrap().count(State::Written), 0);
    let undone = host.rollback().unwrap();
    assert_eq!((undone.exit_code(), undone.count(State::Restored)), (0, 8), "{undone}");
    assert_eq!(everything(root.path()), before);
    assert_eq!(host.rollback().unwrap().lines.len(), 0);
}

#[test]
fn what_stood_there_first_comes_back_after_another_apply() {
    let root = host(&WRONG);
    let before = everything(root.path());
    let host = of(root.path());
    host.apply().unwrap();
    // Somebody makes it worse again, in between.
    put(root.path(), SOMAXCONN, "256\n");
    put(root.path(), "/proc/sys/vm/swappiness", "60\n");
    host.apply().unwrap();
    let sysctl = get(root.path(), persist::SYSCTL).unwrap();
    assert!(["somaxconn", "swappiness", "ip_local"].iter().all(|key| sysctl.contains(key)), "{sysctl}");
    assert_eq!(host.rollback().unwrap().exit_code(), 0);
    assert_eq!(get(root.path(), "/proc/sys/vm/swappiness").unwrap(), "60\n");
    fs::remove_dir_all(root.path().join("proc/sys/vm")).unwrap();
    assert_eq!(everything(root.path()), before);
}

#[test]
fn what_somebody_else_changed_since_stays_and_is_named() {
    let root = host(&WRONG);
    let host = of(root.path());
    host.apply().unwrap();
    put(root.path(), SOMAXCONN, "8192\n");
    put(root.path(), persist::SYSCTL, "net.core.somaxconn = 8192\n");
    fs::remove_file(place::under(root.path(), Path::new(GOVERNOR))).unwrap();
    let undone = host.rollback().unwrap();
    assert_eq!(states(&undone, State::LeftAlone), [persist::SYSCTL, GOVERNOR, SOMAXCONN]);
    assert_eq!(undone.exit_code(), 1);
    assert!(undone.to_string().contains("somebody else changed it: 8192"), "{undone}");
    assert_eq!(get(root.path(), SOMAXCONN).unwrap(), "8192\n");
    assert_eq!(get(root.path(), HUGE).unwrap(), "[always] madvise never\n");
}

#[test]
fn an_apply_that_was_cut_off_is_taken_back_wherever_it_was() {
    for written in 0..=2 {
        let root = host(&WRONG[..2]);
        let before = everything(root.path());
        let host = of(root.path());
        // Written down, and no further than this.
        let held = record::Held::take(root.path()).unwrap();
        let mut record = held.read().unwrap();
        let looked = host.look().unwrap();
        host.write_down(&looked, &mut record).unwrap();
        held.write(&record).unwrap();
        for change in record.changes.iter().take(written + usize::from(written == 2)) {
            put(root.path(), change.path.to_str().unwrap(), &change.wrote);
        }
        drop(held);
        let undone = host.rollback().unwrap();
        assert_eq!((undone.exit_code(), undone.count(State::Restored)), (0, 3), "{undone}");
        assert_eq!(everything(root.path()), before, "{written} written");
    }
}

#[test]
fn interrupts_of_another_boot_are_not_those_of_this_one() {
    let root = host(&WRONG);
    let host = of(root.path());
    host.apply().unwrap();
    put(root.path(), "/proc/sys/kernel/random/boot_id", "second\n");
    let undone = host.rollback().unwrap();
    assert_eq!(undone.exit_code(), 0, "{undone}");
    assert_eq!(get(root.path(), INTERRUPT).unwrap(), "0-2");
    assert_eq!(get(root.path(), SOMAXCONN).unwrap(), "128\n");
}

#[test]
fn nothing_is_changed_where_it_cannot_be_written_down() {
    let root = host(&WRONG);
    let before = everything(root.path());
    let host = of(root.path());
    let held = record::Held::take(root.path()).unwrap();
    assert!(matches!(host.apply(), Err(Error::Busy(_))));
    drop(held);
    put(root.path(), "/var/lib/aob-tune/before.json", "{\"format\": 2, \"changes\": []}");
    assert!(matches!(host.apply(), Err(Error::Record(_, why)) if why.contains("format 2")));
    put(root.path(), "/var/lib/aob-tune/before.json", "{");
    assert!(matches!(host.rollback(), Err(Error::Record(..))));
    fs::remove_file(root.path().join("var/lib/aob-tune/before.json")).unwrap();
    let link = place::under(root.path(), Path::new(persist::SYSCTL));
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    assert!(matches!(host.apply(), Err(Error::Record(path, _)) if path == Path::new(persist::SYSCTL)));
    fs::remove_file(link).unwrap();
    assert_eq!(everything(root.path()), before);
}

#[test]
fn a_card_with_more_queues_and_cores_that_are_shared_are_left_alone() {
    let root = host(&WRONG);
    put(root.path(), &QUEUE.replace("rx-0", "rx-1"), "00\n");
    let report = of(root.path()).check().unwrap();
    assert!(!states(&report, State::Differs).contains(&QUEUE));
    put(root.path(), "/sys/devices/system/cpu/online", "0\n");
    let report = of(root.path()).check().unwrap();
    assert!(states(&report, State::NotHere).contains(&INTERRUPT) && report.advice.is_empty());
    assert!(matches!(Host::new(&root.path().join("none"), &Cores::default()), Err(Error::NoHost(_))));
}
