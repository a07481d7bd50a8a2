//! Fills in a template: `{{name}}` stands for a value, `{{name.first}}` and `{{name.last}}` for an end of a list, and a list
//! by itself for its items with commas between. Lines between `{{each LIST}}` and `{{end}}` stand once for every item, with
//! `{{item}}`; between `{{pairs LIST}}` and `{{end}}` once for every two neighbours, with `{{item}}` and `{{next}}`.
//!
//! What is filled in is never read again, so a value may hold anything. Blocks do not lie in each other. What a template
//! names and nobody gives is a mistake in the template, and is said with its line.

use std::collections::BTreeMap;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filling {
    One(String),
    List(Vec<String>),
}

/// What each name stands for.
pub(super) type Fillings = BTreeMap<String, Filling>;

/// Fills in all of a template; `Err` is what is wrong with it.
pub(super) fn fill(template: &str, fillings: &Fillings) -> Result<String, String> {
    let mut made = String::with_capacity(template.len());
    let mut lines = (1_usize..).zip(template.lines());
    while let Some((number, line)) = lines.next() {
        let Some((word, name)) = block(line) else {
            fill_line(line, number, fillings, &mut made)?;
            continue;
        };
        let Some(Filling::List(items)) = fillings.get(name) else {
            return Err(format!("line {number}: {name} is no list"));
        };
        let body: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, line)| *line != "{{end}}").collect();
        let own = |item: &String, next: Option<&String>| {
            let mut own = fillings.clone();
            own.insert(String::from("item"), Filling::One(item.clone()));
            own.extend(next.map(|next| (String::from("next"), Filling::One(next.clone()))));
            own
        };
        let passes: Vec<Fillings> = match word {
            "each" => items.iter().map(|item| own(item, None)).collect(),
            _ => items.iter().zip(items.iter().skip(1)).map(|(item, next)| own(item, Some(next))).collect(),
        };
        for own in &passes {
            for (number, line) in &body {
                fill_line(line, *number, own, &mut made)?;
            }
        }
    }
    Ok(made)
}

/// The word and the list of a line that begins a block.
fn block(line: &str) -> Option<(&str, &str)> {
    let inner = line.strip_prefix("{{")?.strip_suffix("}}")?;
    inner.split_once(' ').filter(|(word, _)| matches!(*word, "each" | "pairs"))
}

fn fill_line(line: &str, number: usize, fillings: &Fillings, made: &mut String) -> Result<(), String> {
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) =
            after.split_once("}}").ok_or_else(|| format!("line {number}: a {{{{ without its end"))?;
        made.push_str(before);
        made.push_str(
            &value(name, fillings).ok_or_else(|| format!("line {number}: nothing is called {name}"))?,
        );
        rest = after;
    }
    made.push_str(rest);
    made.push('\n');
    Ok(())
}

fn value(name: &str, fillings: &Fillings) -> Option<String> {
    let (list, end) = name.split_once('.').map_or((name, None), |(list, end)| (list, Some(end)));
    match (fillings.get(list)?, end) {
        (Filling::One(value), None) => Some(value.clone()),
        (Filling::List(items), None) => Some(items.join(", ")),
        (Filling::List(items), Some("first")) => items.first().cloned(),
        (Filling::List(items), Some("last")) => items.last().cloned(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fillings() -> Fillings {
        let list = ["a", "b", "c"].map(String::from).to_vec();
        let one = |text: &str| Filling::One(String::from(text));
        [("x", one("1")), ("hostile", one("{{x}} {{end}}")), ("list", Filling::List(list))]
            .map(|(name, filling)| (String::from(name), filling))
            .into()
    }

    #[test]
    fn names_lists_and_blocks_are_filled_in() {
        for (template, wanted) in [
            ("a: {b: {{x}}, c: {d: {{x}}}}", "a: {b: 1, c: {d: 1}}\n"),
            ("[{{list}}] {{list.first}}..{{list.last}}", "[a, b, c] a..c\n"),
            ("{{each list}}\n- {{item}} {{x}}\n{{end}}\nend", "- a 1\n- b 1\n- c 1\nend\n"),
            ("{{pairs list}}\n- {{item}}{{next}}\n{{end}}", "- ab\n- bc\n"),
            ("{{hostile}}", "{{x}} {{end}}\n"),
        ] {
            assert_eq!(fill(template, &fillings()).unwrap(), wanted);
        }
    }

    #[test]
    fn a_mistake_in_a_template_is_said_with_its_line() {
        for (template, wanted) in [
            ("\n{{y}}", "line 2: nothing is called y"),
            ("{{x.first}}", "line 1: nothing is called x.first"),
            ("{{each list}}\n{{next}}\n{{end}}", "line 2: nothing is called next"),
            ("{{each x}}\n{{end}}", "line 1: x is no list"),
            ("{{x", "line 1: a {{ without its end"),
        ] {
            assert_eq!(fill(template, &fillings()).unwrap_err(), wanted);
        }
    }
}
