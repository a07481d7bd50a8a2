//! What was served, counted here and by nobody else: calls, whole answers, tokens, and how often each key was seen and paid for.
//!
//! An answer is *finished* when its last byte was given to the socket, and *paid* when it was finished with status 200 and is one.
//! What broke off has its tokens in lines of its own, because a provider bills it and a caller cannot know. Every list is bounded;
//! what does not fit is counted as left out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use hyper::HeaderMap;
use serde_json::{Value, json};

use crate::behaviour::Usage;
use crate::limits;

/// Headers by which callers name their calls.
const KEYS: [&str; 5] = ["idempotency-key", "x-request-id", "x-client-request-id", "aob-run-id", "aob-node"];

/// Models that do not fit have this line.
const OTHERS: &str = "(others)";

#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Answers that began before it was last cleared count nowhere.
    generation: u64,
    calls: u64,
    finished: u64,
    unfinished: u64,
    in_flight: u64,
    in_flight_max: u64,
    by_model: BTreeMap<String, Line>,
    by_status: BTreeMap<u16, u64>,
    keys: [Seen; KEYS.len()],
}

#[derive(Debug, Default)]
struct Line {
    calls: u64,
    paid: u64,
    tokens: Usage,
    unfinished: u64,
    unfinished_tokens: Usage,
}

#[derive(Debug, Default)]
struct Seen {
    values: BTreeMap<String, Times>,
    left_out: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    calls: u64,
    paid: u64,
}

impl Account {
    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self { generation: self.generation + 1, ..Self::default() };
    }

    /// What `GET /stats` says. `listed` values of each header, those first that were paid for most often.
    pub(crate) fn shown(&self, listed: usize) -> Value {
        let tokens = |usage: &Usage| json!({"in": usage.input, "out": usage.output, "cache_read": usage.cache_read, "cache_write": usage.cache_write});
        let mut total = Usage::default();
        let mut models = serde_json::Map::new();
        for (model, line) in &self.by_model {
            add(&mut total, &line.tokens);
            let unfinished = json!({"calls": line.unfinished, "tokens": tokens(&line.unfinished_tokens)});
            let line = json!({"calls": line.calls, "paid": line.paid, "tokens": tokens(&line.tokens), "unfinished": unfinished});
            models.insert(model.clone(), line);
        }
        let keys = KEYS.iter().zip(&self.keys).filter(|(_, seen)| !seen.values.is_empty());
        let keys: serde_json::Map<_, _> =
            keys.map(|(name, seen)| ((*name).to_owned(), seen.shown(listed))).collect();
        let statuses: serde_json::Map<_, _> =
            self.by_status.iter().map(|(status, count)| (status.to_string(), json!(count))).collect();
        json!({
            "calls": self.calls,
            "finished": self.finished,
            "unfinished": self.unfinished,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "tokens": tokens(&total),
            "by_model": models,
            "by_status": statuses,
            "keys": keys,
        })
    }

    fn line(&mut self, model: &str) -> &mut Line {
        let fits = self.by_model.contains_key(model) || self.by_model.len() < limits::MODELS_MAX;
        self.by_model.entry(if fits { model } else { OTHERS }.to_owned()).or_default()
    }
}

impl Seen {
    /// Counts a call; its key, unless it is not kept.
    fn call(&mut self, value: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= limits::KEY_BYTES_MAX);
        let full = self.values.len() >= limits::KEYS_MAX;
        let Some(text) = text.filter(|text| !full || self.values.contains_key(*text)) else {
            self.left_out += 1;
            return None;
        };
        self.values.entry(text.to_owned()).or_default().calls += 1;
        Some(text.to_owned())
    }

    fn shown(&self, listed: usize) -> Value {
        let count = |test: fn(&Times) -> bool| self.values.values().filter(|times| test(times)).count();
        let mut values: Vec<(&String, &Times)> = self.values.iter().collect();
        values.sort_by_key(|(value, times)| (std::cmp::Reverse((times.paid, times.calls)), *value));
        let row = |(value, times): &(&String, &Times)| json!({"value": value, "calls": times.calls, "paid": times.paid});
        json!({
            "distinct": self.values.len(),
            "repeated": count(|times| times.calls > 1),
            "paid_twice": count(|times| times.paid > 1),
            "left_out": self.left_out,
            "list": values.iter().take(listed).map(row).collect::<Value>(),
        })
    }
}

fn add(sum: &mut Usage, more: &Usage) {
    sum.input = sum.input.saturating_add(more.input);
    sum.output = sum.output.saturating_add(more.output);
    sum.cache_read = sum.cache_read.saturating_add(more.cache_read);
    sum.cache_write = sum.cache_write.saturating_add(more.cache_write);
}

/// One call until its answer ends, however it ends.
#[derive(Debug)]
pub(crate) struct Tally {
    account: Rc<RefCell<Account>>,
    generation: u64,
    model: String,
    keys: [Option<String>; KEYS.len()],
    status: u16,
    /// Tokens, when the answer is one that is paid for.
    cost: Option<Usage>,
    ended: bool,
}

impl Tally {
    /// Counts a call in.
    pub(crate) fn begin(account: &Rc<RefCell<Account>>, model: &str, headers: &HeaderMap) -> Self {
        let mut counted = account.borrow_mut();
        counted.calls += 1;
        counted.in_flight += 1;
        counted.in_flight_max = counted.in_flight_max.max(counted.in_flight);
        counted.line(model).calls += 1;
        let mut keys: [Option<String>; KEYS.len()] = Default::default();
        for ((name, seen), key) in KEYS.iter().zip(&mut counted.keys).zip(&mut keys) {
            *key = headers.get(*name).and_then(|value| seen.call(value.as_bytes()));
        }
        let generation = counted.generation;
        drop(counted);
        let (account, model) = (account.clone(), model.to_owned());
        Self { account, generation, model, keys, status: 0, cost: None, ended: false }
    }

    /// What is about to be answered, and at what price.
    pub(crate) fn answers(&mut self, status: u16, cost: Option<Usage>) {
        (self.status, self.cost) = (status, cost);
    }

    /// Counts the answer as whole.
    pub(crate) fn finish(&mut self) {
        self.end(true);
    }

    fn end(&mut self, whole: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut counted = self.account.borrow_mut();
        if counted.generation != self.generation {
            return;
        }
        counted.in_flight = counted.in_flight.saturating_sub(1);
        *counted.by_status.entry(self.status).or_default() += 1;
        *(if whole { &mut counted.finished } else { &mut counted.unfinished }) += 1;
        let line = counted.line(&self.model);
        if !whole {
            line.unfinished += 1;
        }
        let Some(cost) = &self.cost else { return };
        if !whole {
            add(&mut line.unfinished_tokens, cost);
            return;
        }
        line.paid += 1;
        add(&mut line.tokens, cost);
        for (key, seen) in self.keys.iter().zip(&mut counted.keys) {
            if let Some(times) = key.as_ref().and_then(|key| seen.values.get_mut(key)) {
                times.paid += 1;
            }
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.end(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(account: &Rc<RefCell<Account>>, model: &str, key: &str) -> Tally {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", key.parse().unwrap());
        Tally::begin(account, model, &headers)
    }

    #[test]
    fn a_key_that_is_paid_twice_is_told_from_one_that_is_only_repeated() {
        let account = Rc::new(RefCell::new(Account::default()));
        let cost = Usage { input: 3, output: 4, ..Usage::default() };
        for key in ["a", "b", "b"] {
            let mut tally = call(&account, "m", key);
            tally.answers(200, Some(cost));
            tally.finish();
        }
        let mut refused = call(&account, "m", "a");
        refused.answers(429, None);
        refused.finish();
        let mut broken = call(&account, "m", "c");
        broken.answers(200, Some(cost));
        drop(broken);
        let open = call(&account, "m", "d");
        let shown = account.borrow().shown(1);
        assert_eq!(shown["by_model"]["m"]["tokens"]["in"], 9);
        assert_eq!(shown["by_model"]["m"]["unfinished"]["tokens"]["out"], 4);
        assert_eq!(shown["by_status"], json!({"200": 4, "429": 1}));
        let counts = ["calls", "finished", "unfinished", "in_flight", "in_flight_max"]
            .map(|name| shown[name].as_u64().unwrap());
        assert_eq!(counts, [6, 4, 1, 1, 1]);
        let keys = &shown["keys"]["idempotency-key"];
        assert_eq!(
            (&keys["distinct"], &keys["repeated"], &keys["paid_twice"]),
            (&json!(4), &json!(2), &json!(1))
        );
        assert_eq!(keys["list"], json!([{"value": "b", "calls": 2, "paid": 2}]));
        account.borrow_mut().clear();
        drop(open);
        assert_eq!(account.borrow().shown(1)["calls"], 0, "what began before counts nowhere");
    }

    #[test]
    fn models_and_keys_are_bounded() {
        let account = Rc::new(RefCell::new(Account::default()));
        for n in 0..limits::MODELS_MAX + 5 {
            call(&account, &n.to_string(), &"k".repeat(if n == 0 { limits::KEY_BYTES_MAX + 1 } else { 1 }))
                .finish();
        }
        let shown = account.borrow().shown(10);
        assert_eq!(shown["by_model"][OTHERS]["calls"], 5);
        assert_eq!(shown["keys"]["idempotency-key"]["left_out"], 1);
    }
}
