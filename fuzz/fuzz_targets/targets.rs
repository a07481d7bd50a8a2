//! The program that libFuzzer drives: `AOB_FUZZ_TARGET` names the target, `AOB_FUZZ_SEEDS` a folder to put its seeds into.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn begin() {
    let name = std::env::var("AOB_FUZZ_TARGET").expect("AOB_FUZZ_TARGET names a target");
    TARGET.get_or_init(|| aob::fuzzed::target(&name));
    if let Some(folder) = std::env::var_os("AOB_FUZZ_SEEDS") {
        let folder = std::path::PathBuf::from(folder);
        std::fs::create_dir_all(&folder).expect("a folder for seeds");
        for (number, seed) in aob::fuzzed::seeds(&name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:04}")), seed).expect("a seed");
        }
    }
}

fuzz_target!(
    init: begin(),
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            target(bytes);
        }
    }
);
