//! `-o yaml`: every command that prints JSON prints the same as YAML.

use serde_json::Value as Json;

use super::super::double::with_node;
use super::{aob, code, directory, err, out};

fn yaml(value: &Json) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options).unwrap().trim_end().to_owned() + "\n"
}

// F183
#[test]
fn what_is_printed_as_json_is_printed_as_yaml() {
    let dir = directory();
    with_node(async |address| {
        let started =
            aob(address, dir.path(), "run start flow.json --inputs input.json --wait -o yaml").await;
        assert_eq!(code(&started), 0, "{}", err(&started));
        assert!(out(&started).contains("status: completed\n") && out(&started).contains("outputs: 42\n"));
        let line = out(&started).lines().find_map(|line| line.strip_prefix("run_id: ")).map(str::to_owned);
        let run = line.unwrap();
        for line in [
            "version",
            "run list",
            &format!("run get {run}"),
            &format!("run wait {run}"),
            "workflow list",
            "workflow get flow",
            "workflow tag flow prod 1",
            "workflow tags flow",
            "workflow register flow.json",
            "workflow validate broken.json",
            "workflow graph flow.json",
            "context list",
            "context show",
            "explain unknown_key",
            "explain --list",
        ] {
            let as_json = aob(address, dir.path(), &format!("{line} -o json")).await;
            let as_yaml = aob(address, dir.path(), &format!("{line} -o yaml")).await;
            let value: Json = serde_json::from_slice(&as_json.stdout)
                .unwrap_or_else(|error| panic!("{line}: {error}: {}", out(&as_json)));
            assert_eq!(out(&as_yaml), yaml(&value), "{line}");
            assert_eq!((code(&as_yaml), err(&as_yaml)), (code(&as_json), err(&as_json)), "{line}");
        }
        let stream = format!("logs stream {run}");
        let as_json = aob(address, dir.path(), &format!("{stream} -o jsonl")).await;
        let as_yaml = aob(address, dir.path(), &format!("{stream} -o yaml")).await;
        let rows = out(&as_json);
        let rows = rows.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
        let wanted: String = rows.map(|row| format!("---\n{}", yaml(&row))).collect();
        assert_eq!(out(&as_yaml), wanted);
        assert!(wanted.matches("---\n").count() >= 4, "{wanted}");
    });
}
