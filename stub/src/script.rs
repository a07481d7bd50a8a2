//! Rules that were posted: the first one that fits a call says what to do with it.
//!
//! Each rule counts the calls that come to it and fit all its other conditions, so that `nth` can mean "the first two, then let
//! others answer". With `per` it counts apart for each value of a header.

use std::collections::BTreeMap;
use std::rc::Rc;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::ask::{Api, Ask};
use crate::behaviour::Behaviour;
use crate::hash::Hash;
use crate::limits;

/// The rules in force, with their counts.
#[derive(Debug, Default)]
pub(crate) struct Script {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    name: String,
    when: When,
    behaviour: Rc<Behaviour>,
    matched: u64,
    taken: u64,
    /// By the hash of the value.
    by_value: BTreeMap<u64, u64>,
}

/// Conditions that must all hold.
#[derive(Debug, Default)]
struct When {
    api: Option<Api>,
    model: Option<String>,
    text: Option<String>,
    last: Option<String>,
    system: Option<String>,
    stream: Option<bool>,
    turn: Option<usize>,
    headers: Vec<(HeaderName, String)>,
    nth: Nth,
    per: Option<HeaderName>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Nth {
    #[default]
    Any,
    Between(u64, u64),
    Every(u64),
}

impl Script {
    /// Reads `{"rules": [...]}`.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let members = value.as_object().ok_or("a script is an object")?;
        if let Some(name) = members.keys().find(|name| *name != "rules") {
            return Err(format!("a script has no `{name}`; it has `rules`"));
        }
        let rules = members.get("rules").and_then(Value::as_array).ok_or("`rules` is a list")?;
        if rules.len() > limits::RULES_MAX {
            return Err(format!("{} rules; {} are allowed", rules.len(), limits::RULES_MAX));
        }
        let read = |(at, rule)| Rule::read(at, rule).map_err(|what| format!("rules[{at}]: {what}"));
        Ok(Self { rules: rules.iter().enumerate().map(read).collect::<Result<_, _>>()? })
    }

    /// What the first rule that fits says.
    pub(crate) fn pick(&mut self, ask: &Ask, headers: &HeaderMap) -> Option<Rc<Behaviour>> {
        self.rules.iter_mut().find_map(|rule| {
            if !rule.when.fits(ask, headers) {
                return None;
            }
            let nth = rule.count(headers);
            rule.when.nth.holds(nth).then(|| {
                rule.taken += 1;
                rule.behaviour.clone()
            })
        })
    }

    /// How often each rule fitted, and was followed.
    pub(crate) fn counts(&self) -> Value {
        let counts = |rule: &Rule| json!({"name": rule.name, "matched": rule.matched, "taken": rule.taken});
        self.rules.iter().map(counts).collect()
    }

    /// Counts from the beginning; the rules stay.
    pub(crate) fn forget_counts(&mut self) {
        for rule in &mut self.rules {
            (rule.matched, rule.taken) = (0, 0);
            rule.by_value.clear();
        }
    }
}

impl Rule {
    fn read(at: usize, value: &Value) -> Result<Self, String> {
        let members = value.as_object().ok_or("a rule is an object")?;
        if let Some(name) = members.keys().find(|name| !["name", "when", "do"].contains(&name.as_str())) {
            return Err(format!("a rule has no `{name}`; it has `name`, `when` and `do`"));
        }
        let name = match members.get("name") {
            Some(name) => name.as_str().ok_or("`name` is a text")?.to_owned(),
            None => format!("rules[{at}]"),
        };
        let when = members.get("when").map(When::read).transpose()?.unwrap_or_default();
        let behaviour = Behaviour::read(members.get("do").ok_or("a rule needs a `do`")?)?;
        Ok(Self {
            name,
            when,
            behaviour: Rc::new(behaviour),
            matched: 0,
            taken: 0,
            by_value: BTreeMap::new(),
        })
    }

    /// Which call this is, from 1.
    fn count(&mut self, headers: &HeaderMap) -> u64 {
        self.matched += 1;
        let Some(per) = &self.when.per else { return self.matched };
        let value = Hash::new().with(headers.get(per).map_or(b"", HeaderValue::as_bytes)).value();
        let known = self.by_value.contains_key(&value) || self.by_value.len() < limits::COUNTERS_MAX;
        let count = self.by_value.entry(if known { value } else { 0 }).or_default();
        *count += 1;
        *count
    }
}

impl When {
    fn read(value: &Value) -> Result<Self, String> {
        let mut when = Self::default();
        for (name, value) in value.as_object().ok_or("`when` is an object")? {
            when.member(name, value).map_err(|what| format!("`{name}`: {what}"))?;
        }
        Ok(when)
    }

    fn member(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let text = || value.as_str().map(str::to_owned).ok_or("a text");
        match name {
            "api" => {
                let api = Api::named(value.as_str().unwrap_or_default());
                self.api = Some(api.ok_or("chat, messages or embeddings")?);
            }
            "model" => self.model = Some(text()?),
            "text" => self.text = Some(text()?),
            "last" => self.last = Some(text()?),
            "system" => self.system = Some(text()?),
            "stream" => self.stream = Some(value.as_bool().ok_or("true or false")?),
            "turn" => self.turn = Some(usize::try_from(count(value)?).map_err(|error| error.to_string())?),
            "headers" => {
                for (name, value) in value.as_object().ok_or("an object of texts")? {
                    let value = value.as_str().ok_or("an object of texts")?;
                    self.headers.push((header(name)?, value.to_owned()));
                }
            }
            "nth" => self.nth = Nth::read(value)?,
            "per" => self.per = Some(header(&text()?)?),
            _ => return Err("there is no such condition".into()),
        }
        Ok(())
    }

    fn fits(&self, ask: &Ask, headers: &HeaderMap) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let has = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| found.contains(wanted.as_str()))
        };
        self.api.is_none_or(|api| api == ask.api)
            && is(&self.model, &ask.model)
            && self.stream.is_none_or(|stream| stream == ask.stream)
            && self.turn.is_none_or(|turn| turn == ask.turn)
            && has(&self.text, &ask.user_texts)
            && has(&self.last, &ask.last)
            && has(&self.system, &ask.system)
            && self.headers.iter().all(|(name, wanted)| {
                headers.get(name).is_some_and(|value| value.as_bytes() == wanted.as_bytes())
            })
    }
}

impl Nth {
    fn read(value: &Value) -> Result<Self, String> {
        let Some(members) = value.as_object() else { return count(value).map(|nth| Self::Between(nth, nth)) };
        let (mut from, mut to, mut every) = (None, None, None);
        for (name, value) in members {
            match name.as_str() {
                "from" => from = Some(count(value)?),
                "to" => to = Some(count(value)?),
                "every" => every = Some(count(value)?),
                _ => return Err(format!("there is no {name}; a number, from and to, or every")),
            }
        }
        match (from, to, every) {
            (None, None, Some(every)) => Ok(Self::Every(every)),
            (_, _, None) => Ok(Self::Between(from.unwrap_or(1), to.unwrap_or(u64::MAX))),
            _ => Err("`every` stands alone".into()),
        }
    }

    fn holds(self, nth: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Between(from, to) => (from..=to).contains(&nth),
            Self::Every(every) => nth.is_multiple_of(every),
        }
    }
}

fn count(value: &Value) -> Result<u64, String> {
    value.as_u64().filter(|number| *number > 0).ok_or_else(|| "a number from 1".into())
}

fn header(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no name of a header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(rules: Value, asks: &[(&Ask, &HeaderMap)]) -> Vec<Option<String>> {
        let mut script = Script::read(&json!({"rules": rules})).unwrap();
        asks.iter()
            .map(|(ask, headers)| script.pick(ask, headers).and_then(|found| found.text.clone()))
            .collect()
    }

    fn said(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_answers() {
        let (ask, none) =
            (Ask { model: "m".into(), user_texts: "please help".into(), ..Ask::default() }, HeaderMap::new());
        let rules = json!([
            {"when": {"model": "other"}, "do": {"text": "never"}},
            {"when": {"text": "help", "nth": {"to": 2}}, "do": {"text": "busy"}},
            {"when": {"nth": {"every": 2}}, "do": {"text": "even"}},
            {"do": {"text": "else"}},
        ]);
        let found = picks(rules, &[(&ask, &none); 5]);
        assert_eq!(found, [said("busy"), said("busy"), said("else"), said("even"), said("else")]);
    }

    #[test]
    fn a_rule_counts_apart_for_each_value_of_a_header() {
        let ask = Ask::default();
        let with = |run: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("aob-run-id", run.parse().unwrap());
            headers
        };
        let (a, b) = (with("a"), with("b"));
        let rules = json!([{"when": {"nth": 1, "per": "aob-run-id"}, "do": {"text": "first"}}]);
        let found = picks(rules, &[(&ask, &a), (&ask, &b), (&ask, &a), (&ask, &b)]);
        assert_eq!(found, [said("first"), said("first"), None, None]);
        let rules = json!([{"when": {"headers": {"Aob-Run-Id": "b"}}, "do": {"text": "b"}}]);
        assert_eq!(picks(rules, &[(&ask, &a), (&ask, &b)]), [None, said("b")]);
    }

    #[test]
    fn what_is_no_script_is_refused_with_its_place() {
        for (script, part) in [
            (json!([]), "an object"),
            (json!({"rule": []}), "no `rule`"),
            (json!({"rules": [{"when": {}}]}), "rules[0]: a rule needs a `do`"),
            (json!({"rules": [{"if": {}, "do": {}}]}), "no `if`"),
            (json!({"rules": [{"do": {}}, {"when": {"modle": "m"}, "do": {}}]}), "rules[1]: `modle`"),
            (json!({"rules": [{"when": {"api": "x"}, "do": {}}]}), "chat, messages"),
            (json!({"rules": [{"when": {"nth": 0}, "do": {}}]}), "from 1"),
            (json!({"rules": [{"when": {"nth": {"every": 2, "to": 3}}, "do": {}}]}), "alone"),
            (json!({"rules": [{"when": {"per": "a b"}, "do": {}}]}), "header"),
            (json!({"rules": [{"do": {"x": 1}}]}), "`x`"),
            (json!({"rules": vec![json!({"do": {}}); 1_001]}), "1000 are allowed"),
        ] {
            let error = Script::read(&script).unwrap_err();
            assert!(error.contains(part), "{script}: {error}");
        }
    }
}
