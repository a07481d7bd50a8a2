//! What calls brought, for nodes that fall back on it when the same call fails (`fallback: {cache: {max_age}}`).
//!
//! An answer is kept once the end of its node is durable, under its workflow (which names the workspace), the node's id and what
//! was asked for; the last one counts. It leaves as the answer of the fallback's own call, and so stands in the events of the
//! run that uses it, with its age: nothing here has to outlast the process, and after a restart it is empty. Each workspace
//! has room of its own ([`limits::CACHED_PER_WORKSPACE_MAX`], [`limits::CACHED_BYTES_PER_WORKSPACE_MAX`]); when it is full what was kept
//! longest ago goes first. At most [`limits::CACHED_WORKSPACES_MAX`] have room: one more takes the place of the one that kept
//! something longest ago.

#![expect(
    clippy::disallowed_types,
    reason = "short, between control cores only, and only for nodes that ask for it"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::limits;
use crate::model::{Failure, RunId, Value, Workspace};

type Key = [u8; 32];

/// An answer that is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The workflow's name inside the node.
    pub workflow: &'a str,
    /// The node's id.
    pub node: &'a str,
    /// What was asked for.
    pub request: &'a Value,
    /// The node's output.
    pub output: &'a Value,
}

/// Answers by what was asked for.
#[derive(Debug, Default)]
pub struct Cached {
    rooms: Mutex<BTreeMap<Arc<str>, Room>>,
}

#[derive(Debug, Default)]
struct Room {
    entries: BTreeMap<Key, Entry>,
    /// By when they were kept.
    order: BTreeMap<u64, Key>,
    bytes: usize,
    /// Of the youngest.
    last: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    run_id: RunId,
    output: Value,
    bytes: usize,
    at_us: u64,
}

impl Room {
    fn drop_entry(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.number);
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.drop_entry(&key);
        }
    }
}

/// What an answer is known by.
fn key(workflow: &str, node: &str, request: &Value) -> Key {
    let parts = [workflow, "\0", node, "\0", &request.to_json()];
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

impl Cached {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a run's call brought. One that is too large ([`limits::CACHED_ANSWER_BYTES_MAX`]) is not kept, and what was
    /// there before goes: it is no longer the last.
    pub fn keep(&self, run_id: RunId, answer: Answer<'_>, now_us: u64) {
        let Answer { workflow, node, request, output } = answer;
        let key = key(workflow, node, request);
        let bytes = output.weight();
        let workspace = Workspace::of(workflow);
        let mut rooms = self.lock();
        let number = rooms.values().map(|room| room.last).max().unwrap_or(0) + 1;
        if rooms.len() >= limits::CACHED_WORKSPACES_MAX && !rooms.contains_key(workspace.name()) {
            let oldest = rooms.iter().min_by_key(|(_, room)| room.last).map(|(name, _)| name.clone());
            oldest.and_then(|name| rooms.remove(&name));
        }
        let room = rooms.entry(workspace.name().into()).or_default();
        room.drop_entry(&key);
        if bytes > limits::CACHED_ANSWER_BYTES_MAX {
            return;
        }
        while room.entries.len() >= limits::CACHED_PER_WORKSPACE_MAX
            || room.bytes + bytes > limits::CACHED_BYTES_PER_WORKSPACE_MAX
        {
            room.drop_oldest();
        }
        room.last = number;
        room.bytes += bytes;
        room.order.insert(number, key);
        room.entries.insert(key, Entry { number, run_id, output: output.clone(), bytes, at_us: now_us });
    }

    /// Answers the call of a fallback, whose request is `{node, request, max_age_ms}`: with the value, how old it is, and the
    /// run that it comes from.
    ///
    /// # Errors
    /// `no_cached_answer`: nothing is kept of this call, or it is too old.
    pub fn find(&self, workflow: &str, asked: &Value, now_us: u64) -> Result<Value, Failure> {
        let node = asked.get("node").and_then(Value::as_str).unwrap_or_default();
        let request = asked.get("request").unwrap_or(&Value::Null);
        let max_age_ms = match asked.get("max_age_ms") {
            Some(Value::Int(age_ms)) => u64::try_from(*age_ms).unwrap_or(0),
            _ => 0,
        };
        let key = key(workflow, node, request);
        let workspace = Workspace::of(workflow);
        let rooms = self.lock();
        let entry = rooms.get(workspace.name()).and_then(|room| room.entries.get(&key));
        let Some(entry) = entry else {
            let message = "no answer of this call is kept: none came since the node started, or it had to go";
            return Err(Failure::fatal("no_cached_answer", message));
        };
        let age_ms = now_us.saturating_sub(entry.at_us) / 1_000;
        if age_ms > max_age_ms {
            let message = format!("the last answer is {age_ms} ms old, max_age is {max_age_ms} ms");
            return Err(Failure::fatal("no_cached_answer", message));
        }
        Ok(Value::map([
            ("value", entry.output.clone()),
            ("age_ms", Value::unsigned(age_ms)),
            ("run_id", Value::string(entry.run_id.to_string())),
        ]))
    }

    /// Answers that are kept, and their bytes, of all workspaces.
    pub fn held(&self) -> (usize, usize) {
        let rooms = self.lock();
        rooms.values().fold((0, 0), |(count, bytes), room| (count + room.entries.len(), bytes + room.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::time::Timestamp;

    fn run() -> RunId {
        RunId::new(Timestamp::from_micros(0), Partition::new(1), [7; 10])
    }

    fn keep(cached: &Cached, workflow: &str, request: i64, output: Value, now_us: u64) {
        let (node, request) = ("fetch", &Value::Int(request));
        cached.keep(run(), Answer { workflow, node, request, output: &output }, now_us);
    }

    fn asked(request: i64, max_age_ms: i64) -> Value {
        let asked = [("node", "fetch".into()), ("request", Value::Int(request))];
        Value::map(asked.into_iter().chain([("max_age_ms", Value::Int(max_age_ms))]))
    }

    // F369
    #[test]
    fn the_last_answer_to_the_same_question_is_found_while_it_is_young_enough() {
        let cached = Cached::default();
        keep(&cached, "acme/flow", 1, Value::Int(10), 0);
        keep(&cached, "acme/flow", 1, Value::Int(11), 5_000);
        let found = cached.find("acme/flow", &asked(1, 2), 7_000).unwrap();
        assert_eq!(found.get("value"), Some(&Value::Int(11)));
        assert_eq!(found.get("age_ms"), Some(&Value::Int(2)));
        assert_eq!(found.get("run_id"), Some(&Value::string(run().to_string())));
        for (workflow, request, now_us) in
            [("acme/flow", 1, 8_000), ("acme/flow", 2, 7_000), ("other/flow", 1, 7_000), ("flow", 1, 7_000)]
        {
            let code = cached.find(workflow, &asked(request, 2), now_us).unwrap_err().code;
            assert_eq!(&*code, "no_cached_answer", "{workflow} {request} {now_us}");
        }
    }

    // F369
    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let cached = Cached::default();
        let most = limits::CACHED_PER_WORKSPACE_MAX as i64;
        (0..=most).for_each(|n| keep(&cached, "flow", n, Value::Int(n), 0));
        assert_eq!(cached.held().0, limits::CACHED_PER_WORKSPACE_MAX);
        assert!(cached.find("flow", &asked(0, 9), 0).is_err(), "the oldest went");
        assert!(cached.find("flow", &asked(1, 9), 0).is_ok());
        let large = |bytes: usize| Value::string("x".repeat(bytes));
        (0..most).for_each(|n| keep(&cached, "b/flow", n, large(limits::CACHED_ANSWER_BYTES_MAX - 100), 0));
        assert!(cached.lock()["b"].bytes <= limits::CACHED_BYTES_PER_WORKSPACE_MAX);
        assert!(cached.find("b/flow", &asked(most - 1, 9), 0).is_ok());
        assert!(cached.find("flow", &asked(1, 9), 0).is_ok(), "one workspace takes nothing from another");
        keep(&cached, "b/flow", most - 1, large(limits::CACHED_ANSWER_BYTES_MAX + 1), 0);
        assert!(
            cached.find("b/flow", &asked(most - 1, 9), 0).is_err(),
            "an answer before the last is not it"
        );
        (0..limits::CACHED_WORKSPACES_MAX + 1)
            .for_each(|n| keep(&cached, &format!("w{n}/flow"), 1, Value::Null, 0));
        assert_eq!(cached.lock().len(), limits::CACHED_WORKSPACES_MAX);
        assert!(cached.find("w0/flow", &asked(1, 9), 0).is_err());
    }
}
