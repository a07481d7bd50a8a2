//! `aob-check FILE...`: checks recorded histories, each on its own. Exit code 0: nothing is broken; 1: something is; 2: a
//! file cannot be read, or is no history.

use std::process::ExitCode;

/// Violations shown of one file.
const SHOWN_MAX: usize = 20;

fn main() -> ExitCode {
    let files: Vec<String> = std::env::args().skip(1).collect();
    if files.is_empty() || files.iter().any(|file| file == "--help" || file == "-h") {
        eprintln!("usage: aob-check FILE...\nformat: docs/formats/client-history.md");
        return ExitCode::from(2);
    }
    let mut code = 0;
    for file in files {
        let checked = std::fs::read_to_string(&file)
            .map_err(|error| error.to_string())
            .and_then(|text| Ok((aob_checker::check(&text).map_err(|error| error.to_string())?, text)));
        match checked {
            Ok((report, text)) => {
                println!("{file}: {}", report.shown(&text, SHOWN_MAX));
                code = code.max(u8::from(!report.is_good()));
            }
            Err(error) => {
                eprintln!("{file}: {error}");
                code = 2;
            }
        }
    }
    ExitCode::from(code)
}
