//! Who may use whom. The graph has no cycle; leaves are free to all.

use crate::paths::{Named, module_of, paths};
use crate::tree::{File, Finding, code_files, no_findings};

const LEAVES: [&str; 6] = ["limits", "time", "queue", "telemetry", "catalogue", "failpoint"];

/// The table. An entry `a::b` allows only that part of `a`; `bin` and `loadgen` name the library as `aob::`.
const TABLE: [(&str, &[&str]); 32] = [
    ("limits", &[]),
    ("time", &[]),
    ("queue", &["limits"]),
    ("telemetry", &["limits", "time", "queue"]),
    ("catalogue", &[]),
    ("failpoint", &[]),
    ("model", &[]),
    ("expr", &["model"]),
    ("ir", &["model", "expr"]),
    ("compile", &["model", "expr", "ir"]),
    ("resilience", &[]),
    ("engine", &["model", "expr", "ir", "resilience::retry"]),
    ("draw", &["model"]),
    ("schedule", &["model"]),
    ("io", &[]),
    ("store", &["model", "io"]),
    ("cas", &["model", "io", "store"]),
    ("audit", &["model", "io", "store"]),
    ("wire", &["model"]),
    ("replay", &["model", "ir", "compile", "engine", "store", "wire"]),
    ("auth", &["model", "wire", "audit"]),
    ("exec", &["model", "io", "resilience", "ir::Schema", "compile::bounded_schema"]),
    ("fanout", &["model", "wire", "io", "store", "ir", "engine::command"]),
    (
        "api",
        &[
            "model",
            "expr",
            "schedule",
            "wire",
            "audit",
            "auth",
            "compile",
            "draw",
            "engine::command",
            "io",
            "store",
            "exec",
            "replay",
            "resilience",
            "fanout::websocket",
        ],
    ),
    ("client", &["model", "wire", "io"]),
    (
        "runtime",
        &[
            "model", "expr", "ir", "compile", "engine", "schedule", "io", "store", "cas", "audit", "wire",
            "auth", "exec", "api", "fanout", "replay",
        ],
    ),
    (
        "config",
        &[
            "runtime",
            "audit",
            "auth",
            "model",
            "io",
            "store",
            "api",
            "fanout",
            "exec",
            "compile::parse_duration",
            "compile::policy",
            "resilience",
        ],
    ),
    ("cli", &["model", "compile", "draw", "client", "config", "wire", "audit", "store", "replay"]),
    ("demo", &["model", "wire", "io", "client", "runtime", "config"]),
    ("bin", &["model", "auth", "runtime", "config", "cli", "demo", "exec::tools"]),
    ("loadgen", &["model", "wire", "client"]),
    ("lib", &[]),
];

/// Back ends that only the assembly may name (and `config`, for their settings); everyone else knows the traits.
const BACK_ENDS: [&str; 4] = ["store::log", "store::memory", "store::redis", "store::archive"];

fn table() -> String {
    let rows = TABLE.iter().map(|(module, may)| {
        let may = if may.is_empty() { "-".to_owned() } else { may.join(", ") };
        format!("  {module:<10} {may}")
    });
    format!(
        "who may use whom (leaves {} are free to all):\n{}",
        LEAVES.join(" "),
        rows.collect::<Vec<_>>().join("\n")
    )
}

/// The row of the table that a file belongs to.
pub(crate) fn owner(path: &str) -> String {
    if path.starts_with("loadgen/") {
        return "loadgen".into();
    }
    if path.starts_with("src/bin/") {
        return "bin".into();
    }
    module_of(path).first().cloned().unwrap_or_else(|| "lib".into())
}

/// Uses of a module by one that may not.
fn check(file: &File) -> Vec<Finding> {
    let own = owner(&file.path);
    if own == "lib" {
        return Vec::new();
    }
    let Some((_, may)) = TABLE.iter().find(|(module, _)| *module == own) else {
        return vec![Finding::new(&file.path, 1, format!("module `{own}` is not in the table"))];
    };
    let outside = own == "bin" || own == "loadgen";
    paths(&file.text, &module_of(&file.path))
        .into_iter()
        .filter_map(|named| {
            forbidden(&own, may, outside, &named).map(|what| Finding::new(&file.path, named.line, what))
        })
        .collect()
}

fn forbidden(own: &str, may: &[&str], outside: bool, named: &Named) -> Option<String> {
    let library = if outside { "aob" } else { "crate" };
    if named.segments.first()? != library {
        return None;
    }
    let inner = Named { segments: named.segments[1..].to_vec(), line: named.line };
    let used = inner.segments.first()?;
    let known = TABLE.iter().any(|(module, _)| module == used);
    if !known || used == own {
        return None;
    }
    let leaf = LEAVES.contains(&used.as_str()) && !LEAVES.contains(&own);
    if !leaf && !may.iter().any(|prefix| inner.starts_with(prefix)) {
        return Some(format!("`{own}` may not use `{}`", inner.text()));
    }
    let back_end = BACK_ENDS.iter().find(|name| inner.starts_with(name));
    back_end
        .filter(|_| own != "runtime" && own != "config")
        .map(|name| format!("`{own}` names the back end `{name}`; only `runtime` may"))
}

#[test]
fn every_module_uses_only_what_the_table_allows() {
    let files = code_files();
    let findings: Vec<Finding> = files.iter().flat_map(check).collect();
    no_findings(&findings, &table());
}

#[test]
fn a_use_against_the_table_is_found() {
    let case = |path: &str, text: &str| check(&File { path: path.into(), text: text.into() });
    let found =
        case("src/engine/route.rs", "use crate::model::Value;\nuse crate::{limits, store::Journal};\n");
    assert_eq!(found, [Finding::new("src/engine/route.rs", 2, "`engine` may not use `store::Journal`")]);
    assert_eq!(case("src/api/runs.rs", "fn f() { crate::engine::apply(); }").len(), 1, "inline path");
    assert_eq!(case("src/api/runs.rs", "use crate::engine::command::Start;").len(), 0, "the allowed part");
    assert_eq!(case("src/wire.rs", "use super::api::Routes;").len(), 1, "through super");
    assert_eq!(case("src/bin/aobd.rs", "use aob::engine::apply;").len(), 1, "from a binary");
    assert_eq!(case("src/api.rs", "use crate::store::log::Journal;").len(), 1, "a back end");
    assert_eq!(case("src/time.rs", "use crate::queue::bounded;").len(), 1, "leaves are not free to leaves");
    assert_eq!(case("src/surprise.rs", "").len(), 1, "a module nobody listed");
    assert_eq!(
        case("src/model.rs", "#[cfg(test)] mod tests { use crate::compile::compile; }").len(),
        0,
        "tests"
    );
}

#[test]
fn the_table_has_no_cycle() {
    // A module may only use modules that stand above it, except that api and fanout know a part of the engine.
    for (at, (module, may)) in TABLE.iter().enumerate() {
        for used in *may {
            let top = used.split("::").next().unwrap();
            let place =
                TABLE.iter().position(|(name, _)| *name == top).expect("a used module stands in the table");
            assert!(place < at, "{module} uses {used}, which stands below it");
        }
    }
}
