//! `kill -9` at random moments under everything that clients, workers and services do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aob_checker::record::FaultKind;
use aob_checker::report::Counts;

use crate::harness::{AOBD, Node, Options};
use crate::ledger;
use crate::recorder::load::{self, Crowd, Everybody};
use crate::recorder::{Dice, Guest, World, dump};

/// Kills with one data directory.
const KILLS_PER_DIRECTORY: u64 = 60;

/// The long modes?
pub fn full() -> bool {
    std::env::var("AOB_FULL").is_ok_and(|full| full == "1")
}

/// How many, in CI and in full; `AOB_KILL_ROUNDS` for a number of one's own.
pub fn rounds(few: u64, many: u64) -> u64 {
    let own = std::env::var("AOB_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    own.unwrap_or(if full() { many } else { few })
}

/// For a node that dies while the machine goes on: what it wrote is kept, wherever it lies. In memory where `tests/run` says so
/// (`AOB_TEST_MEMORY`), or most of the time is spent waiting for a disk that nothing here is about; `disk` is about that.
pub fn memory_directory() -> tempfile::TempDir {
    let parent = std::env::var_os("AOB_TEST_MEMORY").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(parent).unwrap()
}

/// A node as these tests want it: quick leases, calls to this machine, several shards.
pub fn options(directory: &Path) -> Options {
    Options::serve(directory)
        .set("http.allow", "127.0.0.1")
        .set("workers.lease_seconds", "1")
        .set("cores.runner", "2")
}

/// Starts the node, and tells the world.
pub fn serve(world: &World, options: &Options, again: bool) -> Node {
    let node = Node::start(options);
    if again {
        world.fault(FaultKind::Restart);
    } else {
        load::register(world, &node.address);
    }
    world.serves(&node.address);
    node
}

/// Kills the node, and tells the world before.
pub fn kill(world: &World, node: Node) {
    world.fault(FaultKind::Kill);
    world.gone();
    node.kill();
}

/// Brings everything to its end, dumps it, kills the node once more, dumps again, and has it judged.
pub fn judge(world: &World, everybody: Everybody, node: Node, options: &Options) -> aob_checker::Report {
    // Clients stop, workers help to the end.
    world.quieten();
    dump::settle(world, &node.address);
    everybody.end(world);
    dump::all(world, &node.address, (1, false));
    world.fault(FaultKind::Kill);
    node.kill();
    let node = Node::start(options);
    world.fault(FaultKind::Restart);
    dump::all(world, &node.address, (2, false));
    let report = world.judge();
    noted(&report);
    report
}

/// Into the ledger, when it is kept.
pub fn noted(report: &aob_checker::Report) {
    let Counts { faults, acknowledged, unknown, .. } = report.counts;
    let counts =
        [("kills", faults), ("operations_acknowledged", acknowledged), ("operations_unknown", unknown)];
    ledger::add("process faults", &counts);
    ledger::add("process faults", &[("histories_checked", 1)]);
}

/// Kills the node again and again under everybody, by what was answered, and now and then by time alone; then has all judged.
/// So many answers at most are waited for, and so many milliseconds.
fn under_kills(
    world: &World,
    (everybody, options): (Everybody, &Options),
    (seed, kills): (u64, u64),
    (answers, millis): (u64, u64),
) -> aob_checker::Report {
    let mut dice = Dice::new(seed, 999);
    for round in 0..kills {
        let node = serve(world, options, round > 0);
        let (answers, millis) = (1 + dice.below(answers), 5 + dice.below(millis));
        world.wait_for_progress(answers, Duration::from_millis(millis));
        kill(world, node);
    }
    let node = serve(world, options, true);
    judge(world, everybody, node, options)
}

// RELIABILITY A1, I-1..I-7, I-12..I-14, I-16, I-17, I-20, I-21
#[test]
fn nothing_is_lost_or_doubled_by_kill_9_at_random_moments() {
    let rounds = rounds(40, 1_000);
    let mut left = rounds;
    let mut seed = 1;
    while left > 0 {
        let kills = left.min(KILLS_PER_DIRECTORY);
        left -= kills;
        let directory = memory_directory();
        let options = options(directory.path());
        let world = World::new(seed, "fsync");
        let everybody = Everybody::begin(&world, Crowd::default());
        let report = under_kills(&world, (everybody, &options), (seed, kills), (150, 500));
        println!("seed {seed}: {report}");
        assert!(report.counts.acknowledged > kills, "hardly anything was acknowledged: {report}");
        seed += 1;
    }
}

// RELIABILITY A1, 2.6, I-9, I-10, I-19; F091, F095
#[test]
fn graphs_that_eight_authors_patch_at_once_fold_alike_whatever_is_killed() {
    let directory = memory_directory();
    let options = options(directory.path());
    let world = World::new(61, "fsync");
    let crowd = Crowd { clients: 2, workers: 1, watchers: 1, authors: 8 };
    let everybody = Everybody::begin(&world, crowd);
    let kills = rounds(12, 200);
    let report = under_kills(&world, (everybody, &options), (61, kills), (400, 700));
    let history = world.history();
    let seen = |what: &str| history.matches(what).count();
    println!(
        "{report}: {} changes of graphs, {} conflicts, {} over the limit",
        seen("\"patch.applied\"") / 2,
        seen("\"patch_conflict\""),
        seen("\"spawn_limit\"")
    );
    assert!(seen("\"patch.applied\"") as u64 > kills, "hardly anything was patched");
    for code in ["patch.revoked", "patch_conflict", "spawn_limit"] {
        assert!(seen(&format!("\"{code}\"")) > 0, "{code} was never seen");
    }
}

/// A token of this name in this workspace.
fn token((name, workspace): (&str, &str), tokens: &str) -> String {
    let new = ["token", "new", "--name", name, "--workspace", workspace, "--role", "write"];
    let mut command = std::process::Command::new(AOBD);
    command.args(new).args(["--reviewer", load::REVIEWER, "--set", tokens]);
    let made = command.output().expect("aobd runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

// RELIABILITY A1, I-23; F416
#[test]
fn nobody_crosses_into_another_workspace_whatever_is_killed() {
    let directory = memory_directory();
    let tokens = format!("auth.tokens_file={}", directory.path().join("tokens.toml").display());
    let guest = |workspace: &str| {
        let token = token((workspace, workspace), &tokens);
        Guest { workspace: workspace.to_owned(), token, agent: None }
    };
    let world = World::new(71, "fsync");
    world.invite(vec![guest("acme"), guest("beta")]);
    let (key, value) = tokens.split_once('=').unwrap();
    let options = options(&directory.path().join("data")).set(key, value);
    let everybody = Everybody::begin(&world, Crowd { authors: 2, ..Crowd::default() });
    let report = under_kills(&world, (everybody, &options), (71, rounds(8, 100)), (400, 700));
    let trespasses = world.history().matches("\"code\":\"run_not_found\"").count();
    println!("{report}: {trespasses} trespasses");
    assert!(trespasses > 0, "nobody tried");
}

// RELIABILITY A1, 2.6, I-9, I-10, I-11; F192, F327
#[test]
fn patches_that_wait_are_decided_once_and_change_nothing_before_whatever_is_killed() {
    let directory = memory_directory();
    let tokens = format!("auth.tokens_file={}", directory.path().join("tokens.toml").display());
    let world = World::new(81, "fsync");
    world.invite(vec![Guest {
        workspace: String::from("default"),
        token: token(("human", "default"), &tokens),
        agent: Some(token(("agent-1", "default"), &tokens)),
    }]);
    let (key, value) = tokens.split_once('=').unwrap();
    let options = options(&directory.path().join("data"))
        .set(key, value)
        .set("policy.patches.hold", "agents")
        .set("policy.patches.decider", "write");
    let crowd = Crowd { clients: 1, workers: 1, watchers: 1, authors: 8 };
    let everybody = Everybody::begin(&world, crowd);
    let kills = rounds(12, 200);
    let report = under_kills(&world, (everybody, &options), (81, kills), (400, 700));
    let history = world.history();
    // Each stands in two dumps.
    let seen = |what: &str| history.matches(what).count() / 2;
    let counts = ["patch.held", "patch.decided", "patch.applied"].map(|kind| seen(&format!("\"{kind}\"")));
    println!("{report}: {counts:?} patches held, decided, changes made");
    assert!(counts.iter().all(|count| *count as u64 > kills), "hardly anything was held: {counts:?}");
    for code in ["patch_decided", "forbidden"] {
        assert!(history.contains(&format!("\"code\":\"{code}\"")), "{code} was never seen");
    }
}

// RELIABILITY A10
#[test]
fn an_older_build_and_this_one_take_turns_each_killed_mid_write() {
    // No older build is kept in the tree; who has one at hand names it.
    let Some(older) = std::env::var_os("AOB_TEST_OLDER").map(PathBuf::from) else {
        return println!("SKIPPED: AOB_TEST_OLDER names no binary of an older build");
    };
    let directory = memory_directory();
    let new = options(directory.path());
    let old = new.clone().binary(&older);
    let world = World::new(91, "fsync");
    let everybody = Everybody::begin(&world, Crowd::default());
    let mut dice = Dice::new(91, 999);
    for round in 0..rounds(10, 100) {
        let build = if round % 2 == 0 { &old } else { &new };
        let node = serve(&world, build, round > 0);
        world.wait_for_progress(50 + dice.below(200), Duration::from_secs(2));
        kill(&world, node);
    }
    let node = serve(&world, &new, true);
    println!("{}: {}", older.display(), judge(&world, everybody, node, &new));
}
