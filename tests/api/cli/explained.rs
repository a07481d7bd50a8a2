//! `aob run explain` of real runs.

use serde_json::{Value as Json, json};

use super::super::double::with_node;
use super::{aob, code, directory, err, out};

// F341
#[test]
fn a_run_is_explained_from_its_events() {
    let dir = directory();
    with_node(async |address| {
        let first = aob(address, dir.path(), "run start slow.json -o json").await;
        let run: Json = serde_json::from_slice(&first.stdout).unwrap();
        let id = run["run_id"].as_str().unwrap();
        for line in [format!("run pause {id} --reason lunch"), format!("run cancel {id} --reason enough")] {
            assert_eq!(code(&aob(address, dir.path(), &line).await), 0, "{line}");
        }
        let told = aob(address, dir.path(), &format!("run explain {id}")).await;
        assert_eq!(code(&told), 0, "{}", err(&told));
        let text = out(&told);
        for line in [
            "slow@1  cancelled, ",
            "What it did\n  a  stopped\n",
            "run.paused  lunch\n",
            "no cost recorded\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        let told = aob(address, dir.path(), &format!("run explain {id} -o json")).await;
        let told: Json = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(told["outside"][0]["detail"], "lunch");
        assert_eq!(
            (&told["cost"], &told["failure"], &told["cut"], &told["events_read"]),
            (&json!([]), &json!(null), &json!(false), &json!(5))
        );
        let none = aob(address, dir.path(), "run explain run_018bcfe568007fffbfffffffffffffff").await;
        assert_eq!((code(&none), out(&none).as_str()), (3, ""));
    });
}
