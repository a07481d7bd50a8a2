//! The examples of docs/expressions.md, run.

use super::run;
use crate::model::Value;

/// Text between ``` fences of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let open = format!("```{language}\n");
    text.split(open.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

// F276
#[test]
fn every_documented_example_gives_what_the_page_says() {
    let page = include_str!("../../../docs/expressions.md");
    let data = Value::from_json(blocks(page, "json")[0].as_bytes()).unwrap();
    let mut count = 0;
    let mut wrong = Vec::new();
    for line in blocks(page, "cel").iter().flat_map(|block| block.lines()).filter(|line| !line.is_empty()) {
        let (source, wanted) = line.rsplit_once(" => ").unwrap_or_else(|| panic!("no `=>` in {line}"));
        let result = run(source.trim(), &data);
        let same = match Value::from_json(wanted.trim().as_bytes()) {
            Ok(wanted) => result.as_ref() == Ok(&wanted),
            Err(_) => result.as_ref().is_err_and(|error| error.code == wanted.trim()),
        };
        if !same {
            wrong.push(format!("{line}\n    gave {result:?}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "only {count} examples were found");
}

#[test]
fn every_function_is_documented() {
    let page = include_str!("../../../docs/expressions.md");
    for name in super::super::function::names() {
        let shown = match name.strip_prefix("math.") {
            Some("ceil" | "greatest") => page.contains(&format!("{name}(")),
            Some(_) => true,
            None => page.contains(&format!("{name}(")) || page.contains(&format!("`{name}`")),
        };
        assert!(shown || matches!(name, "bytes" | "dyn"), "{name} is not in docs/expressions.md");
    }
}
