//! What fuzzing begins with: golden files and examples of this repository.

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a folder of the repository whose names end so.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn contents(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    files(folder, ending).iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn unhex(line: &str) -> Option<Vec<u8>> {
    let digits = line.trim().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What stands after one of `keys` in the examples, line by line.
fn values(keys: &[&str]) -> Vec<Vec<u8>> {
    let texts =
        [contents("examples", ".yaml"), contents("examples", ".json"), contents("docs", ".md")].concat();
    let mut found = Vec::new();
    for text in texts.iter().filter_map(|bytes| std::str::from_utf8(bytes).ok()) {
        for line in text.lines() {
            let after = keys.iter().find_map(|key| Some(line.split_once(key)?.1));
            if let Some(value) = after.map(|value| value.trim_matches([' ', '"', '}', ','])) {
                found.push(value.as_bytes().to_vec());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Bodies with the byte that says which they are.
fn bodies() -> Vec<Vec<u8>> {
    let plain = [
        (
            0,
            r#"{"workflow":"w","inputs":{"n":1,"x":[1.5,-0.0,1e300,"\ud83d\ude00",null]},"run_key":"k","on_conflict":"return"}"#,
        ),
        (0, r#"{"tag":"live","version":"2","inputs":{}}"#),
        (1, r#"{"queues":["a","b"],"workspaces":"*","max":4.0,"wait_ms":1000,"worker":"w"}"#),
        (
            2,
            r#"{"failures":[{"lease":"l","error":{"code":"c","message":"m","class":"transient","retry_after_ms":5,"details":{"a":1}}}]}"#,
        ),
        (2, r#"{"lease":"l","error":"no"}"#),
        (3, r#"{"reason":"because"}"#),
        (3, r#"{"action":"cancel","filter":{"status":["failed"],"workflow":"w"},"limit":7}"#),
    ];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (kind, text) in plain {
        seeds.push([&[kind][..], text.as_bytes()].concat());
        if let Ok(packed) = zstd::encode_all(text.as_bytes(), 1) {
            seeds.push([&[kind | 0xc0][..], &packed].concat());
        }
        let mut gzip = flate2::write::GzEncoder::new(vec![kind | 0x80], flate2::Compression::fast());
        if std::io::Write::write_all(&mut gzip, text.as_bytes()).is_ok() {
            seeds.extend(gzip.finish());
        }
    }
    seeds
}

/// Seeds of a target, and what a fuzzer found for it before.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut seeds = match target {
        "recovery" => (0..10_u8)
            .flat_map(|op| [[op, op, 0x10, 0x20, 3, 1], [op, 3, 0, 0x30, 20, 2]])
            .map(|edit| edit.to_vec())
            .collect(),
        "frame" => vec![vec![0; 48], (0..200).collect(), b"aobJ\x01\x00".to_vec()],
        "bundle" => contents("tests/golden", "bundle-v1.bin"),
        "burst" => contents("tests/golden/journal-v1", "bursts.hex")
            .iter()
            .filter_map(|hex| {
                let text = std::str::from_utf8(hex).ok()?;
                Some(text.lines().filter_map(unhex).flatten().collect())
            })
            .collect(),
        "token" => tokens(),
        "document_json" => contents("tests/golden/journal-v1", "document.json"),
        "document_yaml" => contents("examples", ".yaml"),
        "expression" => values(&["expr:", "when:", "while:", "over:", "\"expr\":"]),
        "template" => values(&["url:", "inputs:", "outputs:", "body:", "input:"]),
        "bodies" => bodies(),
        "parameters" => texts(&[
            "status=running,completed&limit=10&cursor=run_019352d8a1b27c3d8e4f5a6b7c8d9e0f",
            "started_after=2026-11-21T08%3A00%3A00Z&limit=0",
            "respond-async, wait=7;x=y",
            "application/json;q=0.5, */*",
        ]),
        "names" => texts(&[
            "run_019352d8a1b27c3d8e4f5a6b7c8d9e0f",
            "run_019352d8a1b27c3d8e4f5a6b7c8d9e0f:12",
            "1h30m5s",
            "order-7",
            "http://[::ffff:127.0.0.1]:80/",
        ]),
        "stream" => texts(&[
            "\x07id: run_019352d8a1b27c3d8e4f5a6b7c8d9e0f:1\nevent: run.started\ndata: {\"a\":1}\n\n",
            "\x20\u{feff}: hello\r\nretry: 500\r\ndata: a\rdata: b\r\n\r\n",
        ]),
        _ => Vec::new(),
    };
    seeds.extend(contents(&format!("fuzz/regressions/{target}"), ""));
    seeds
}

fn tokens() -> Vec<Vec<u8>> {
    use crate::model::token::Token;
    use crate::model::{RunId, Value};
    let values = [Value::Null, Value::from("text"), Value::List(std::sync::Arc::from([Value::Int(-1)]))];
    let mut found = Vec::new();
    for value in values {
        let mut bytes = rkyv::util::AlignedVec::new();
        if let Ok(token) = Token::signal(RunId::from_bytes([3; 16]), "go", &value)
            && token.encode(&mut bytes).is_ok()
        {
            found.push(bytes.to_vec());
        }
    }
    found
}
