//! Each pattern, with its defaults and otherwise: the document compiles without a word, and its graph is the one claimed.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn made(pattern: &str, settings: &[&str]) -> Result<String, Error> {
    let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    make(find(pattern).unwrap(), None, &settings)
}

/// The canonical document.
fn document(pattern: &str, settings: &[&str]) -> Value {
    let text = made(pattern, settings).unwrap();
    let compiled = compile::compile(text.as_bytes(), compile::Format::Yaml, &Options::default())
        .unwrap_or_else(|found| panic!("{text}\n{found}"));
    let said = [compiled.warnings, compiled.unavailable, compiled.unstartable].concat();
    assert!(said.is_empty(), "{text}\n{said:?}");
    serde_json::from_str(&compiled.canonical).unwrap()
}

/// The edges as `from -on-> to`, sorted.
fn edges(document: &Value) -> Vec<String> {
    let edges = document["edges"].as_object().unwrap().values();
    let mut edges: Vec<String> = edges
        .map(|edge| {
            let of = |key: &str| edge[key].as_str().unwrap_or("success").to_owned();
            format!("{} -{}-> {}", of("from"), of("on"), of("to"))
        })
        .collect();
    edges.sort();
    edges
}

fn ids(of: &Value) -> Vec<&str> {
    of.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_pattern_compiles_with_its_defaults_and_holds_what_it_says() {
    // F293
    for pattern in &table::PATTERNS {
        let document = document(pattern.name, &[]);
        assert_eq!(document["name"], pattern.name);
        let text = made(pattern.name, &[]).unwrap();
        assert!(text.starts_with("# ") && !text.contains("{{"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
        for parameter in pattern.parameters {
            assert!(
                pattern.template.contains(&format!("{{{{{}", parameter.name)) || {
                    pattern.template.contains(&format!(" {}}}}}", parameter.name))
                },
                "{} uses {}",
                pattern.name,
                parameter.name
            );
        }
    }
}

#[test]
fn sequential_has_each_step_after_the_one_before_it() {
    // F289
    let found =
        document("sequential", &["steps=fetch,parse,clean-up,store", "task=Work on ${ inputs.topic }"]);
    assert_eq!(ids(&found["nodes"]), ["clean-up", "fetch", "parse", "store"]);
    let wanted = ["clean-up -success-> store", "fetch -success-> parse", "parse -success-> clean-up"];
    assert_eq!(edges(&found), wanted);
    assert_eq!(found["nodes"]["clean-up"]["with"]["queue"], "clean-up");
    assert_eq!(found["nodes"]["store"]["with"]["payload"]["task"], "Work on ${ inputs.topic }");
}

#[test]
fn map_reduce_declares_that_reduce_waits_for_the_map() {
    // F290
    let found = document(
        "map-reduce",
        &["mapper=look", "reducer=sum", "concurrency=2", "items=10", "on_item_error=collect"],
    );
    let map = &found["nodes"]["map"]["with"];
    assert_eq!((&map["max_concurrency"], &map["on_item_error"]), (&json!(2), &json!("collect")));
    assert_eq!(map["body"]["with"]["queue"], "look");
    assert_eq!(found["nodes"]["reduce"]["with"]["queue"], "sum");
    assert_eq!(found["inputs"]["properties"]["items"]["maxItems"], 10);
    assert_eq!(edges(&found), ["map -success-> reduce"]);
}

#[test]
fn approval_has_a_way_for_yes_and_one_for_no() {
    // F291
    let found = document(
        "approval",
        &["work=write", "finalise=send", "reviewers=ops, a@example.com", "timeout=1h30m", "on_timeout=fail"],
    );
    let review = &found["nodes"]["review"]["with"];
    assert_eq!(review["reviewers"], json!(["ops", "a@example.com"]));
    assert_eq!((&review["timeout"], &review["on_timeout"]), (&json!("1h30m"), &json!("fail")));
    let wanted = ["review -approved-> finalise", "review -rejected-> rejected", "work -success-> review"];
    assert_eq!(edges(&found), wanted);
}

#[test]
fn fallback_is_led_to_by_an_error_only() {
    // F292
    let settings = ["primary=big", "fallback=small", "initial=50ms"];
    let found = document("fallback", &settings);
    assert_eq!(found["nodes"]["primary"]["retry"]["max_attempts"], 3, "two retries");
    let wanted = ["fallback -success-> came", "primary -error-> fallback", "primary -success-> came"];
    assert_eq!(edges(&found), wanted);
    let found = document("fallback", &["retries=0"]);
    assert_eq!(found["nodes"]["primary"]["retry"]["max_attempts"], 1);
}

#[test]
fn the_other_patterns_have_the_graphs_they_claim() {
    // F293
    let found = document("fan-out-in", &["branches=a,b", "on_error=continue", "combine=all"]);
    assert_eq!(edges(&found), ["a -success-> gather", "b -success-> gather", "gather -success-> combine"]);
    assert_eq!(found["nodes"]["a"]["on_error"], "continue");
    let found = document("loop-until", &["rounds=3", "on_exhausted=continue"]);
    assert_eq!(found["nodes"]["rounds"]["with"]["max_iterations"], 3);
    let found = document("poll", &["field=job-state", "value=it's \"there\"", "interval=1s", "rounds=2"]);
    let body = &found["nodes"]["poll"]["with"]["body"];
    assert_eq!(edges(body), ["answer -success-> pause", "ask -success-> answer"]);
    assert_eq!(body["nodes"]["answer"]["input"]["wanted"], "it's \"there\"");
    let found = document("saga", &["steps=a,b", "undo_retries=0"]);
    let wanted = [
        "a -error-> undo_a",
        "a -success-> b",
        "b -error-> undo_b",
        "b -success-> committed",
        "undo_b -success-> undo_a",
    ];
    assert_eq!(edges(&found), wanted);
}

#[test]
fn what_a_pattern_does_not_take_is_wrong_usage_and_says_what_it_takes() {
    for (pattern, settings, part) in [
        (
            "fallback",
            &["retrys=3"][..],
            "has no parameter \"retrys\"; it has primary, fallback, retries, initial, task",
        ),
        ("fallback", &["retries"], "is set as KEY=VALUE"),
        ("fallback", &["retries=-1"], "takes a number from 0 to 999, not \"-1\""),
        ("fallback", &["retries=1", "retries=1"], "set twice"),
        ("fallback", &["initial=soon"], "takes a duration"),
        ("fallback", &["primary=a b"], "takes an id"),
        ("fallback", &["primary=1"], "takes an id"),
        ("fallback", &["primary=No"], "takes an id"),
        ("fallback", &["primary="], "takes an id"),
        ("fallback", &["task="], "takes a text"),
        ("fallback", &["task=a\nb: c"], "takes a text on one line"),
        ("approval", &["reviewers=a,,b"], "none of them empty"),
        ("approval", &["on_timeout=never"], "takes reject or approve or fail, not \"never\""),
        ("sequential", &["steps=a"], "2 or more different ids"),
        ("sequential", &["steps=a,b,a"], "2 or more different ids"),
        ("sequential", &["steps=a,b}"], "2 or more different ids"),
        ("saga", &["steps=a,committed"], "has a node committed of its own"),
        ("map-reduce", &["items=0"], "from 1 to 10000"),
    ] {
        let error = made(pattern, settings).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_workflow_has_the_name_it_is_given() {
    let name = |name: &str| make(find("poll").unwrap(), Some(name), &[]);
    for good in ["orders", "1.0", "true", "a.b-c_d", ".5", "-"] {
        let text = name(good).unwrap();
        let compiled = checked(find("poll").unwrap(), &text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(&*compiled.ir.name, good);
    }
    for bad in ["", "a b", "a: b", "ü", &"a".repeat(129)] {
        assert_eq!(name(bad).unwrap_err().exit_code(), 2, "{bad}");
    }
}

#[test]
fn an_expression_that_does_not_hold_is_shown_with_its_place() {
    let text = made("sequential", &["task=Work on ${ inptus.topic }"]).unwrap();
    let error = checked(find("sequential").unwrap(), &text).unwrap_err();
    assert!(error.to_string().starts_with("pattern sequential:"), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_file_that_is_there_stays_unless_it_may_go() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.yaml");
    let path = path.to_str().unwrap();
    write(path, "longer", false).unwrap();
    assert_eq!(write(path, "b", false).unwrap_err(), "is there already (--force overwrites it)");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "longer");
    write(path, "b", true).unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "b");
}

proptest! {
    #[test]
    fn any_text_gets_into_a_document_as_it_is(text in "[^\\p{Cc}$]{1,60}|[ -#%-~]{1,60}|[{}\\[\\]#:,'\"&*!|>%@`a ]{1,30}") {
        let Ok(made) = made("saga", &[&format!("task={text}")]) else { return Ok(()) };
        let compiled = checked(find("saga").unwrap(), &made).unwrap_or_else(|error| panic!("{made}\n{error}"));
        let document: Value = serde_json::from_str(&compiled.canonical).unwrap();
        prop_assert_eq!(&document["nodes"]["pay"]["with"]["payload"]["task"], &Value::from(text));
        prop_assert_eq!(document["nodes"].as_object().unwrap().len(), 7);
    }
}
