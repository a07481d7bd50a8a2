//! Clients that change what runs do: authors of patches, and those who are asked.

use aob_checker::record::{Invoke, What};
use serde_json::{Value, json};

use super::client::{Ended, Operator};
use super::load;

/// Ids that patches give to nodes: few, so that authors meet.
const IDS: u64 = 6;

impl Operator {
    /// Adds, alters or removes a node of a run that waits.
    pub fn patch(&mut self) -> bool {
        let Some(known) =
            self.world.some_run_for(&self.guest, &mut self.dice, |known| load::waits(known.workflow))
        else {
            return self.start();
        };
        let token = self.world.token("patch");
        let id = format!("x{}", self.dice.below(IDS));
        let node = json!({"type": "function", "with": {"expr": self.dice.below(1_000).to_string()}});
        let path = format!("/nodes/{id}");
        let from = if known.workflow == load::GROWN { "a" } else { "done" };
        let version = 1 + self.dice.below(6);
        let mut body = match self.dice.below(6) {
            0 => json!({"operations": [{"op": "add", "path": path, "value": node}]}),
            1 => json!({"base_version": version, "operations": [
                {"op": "replace", "path": format!("{path}/with/expr"), "value": "1 + 1"}]}),
            2 => json!({"base_version": version, "operations": [
                {"op": "remove", "path": path}, {"op": "remove", "path": format!("/edges/{from}~1{id}")}]}),
            // In all six ways, and between two that others may have made.
            3 => json!({"base_version": version, "operations": [
                {"op": "test", "path": format!("/nodes/{from}/type"), "value": "function"},
                {"op": "copy", "from": format!("/nodes/{from}"), "path": path},
                {"op": "add", "path": "/edges/-", "value": {"from": from, "to": id}}]}),
            _ => json!({"operations": [{"op": "add", "path": path, "value": node},
                {"op": "add", "path": "/edges/-", "value": {"from": from, "to": id}}]}),
        };
        body["justification"] = json!(token);
        let path = format!("/v1/runs/{}/patches", known.run);
        let invoke = Invoke { run: Some(known.run), token: Some(token), ..self.operation(What::Patch) };
        matches!(self.send(invoke, (&path, None, &body)), Ended::Unknown)
    }

    /// The id of one of the patches of a run that fit, if there is one; or whether the connection is gone.
    fn one_of(&mut self, patches: &str, fits: impl Fn(&Value) -> bool) -> Result<Option<String>, bool> {
        let client = self.connection.as_mut().ok_or(true)?;
        let list = client.request("GET", patches, &[], b"").map_err(|_| true)?;
        if list.status != 200 {
            return Err(false);
        }
        let list = list.json();
        let rows = list["patches"].as_array().into_iter().flatten().filter(|patch| fits(patch));
        let ids: Vec<&str> = rows.filter_map(|patch| patch["patch_id"].as_str()).collect();
        let at = usize::try_from(self.dice.below(ids.len() as u64)).unwrap_or(0);
        Ok(ids.get(at).map(|id| (*id).to_owned()))
    }

    /// Takes a patch back, and those that build on it, or not.
    pub fn revoke(&mut self) -> bool {
        let Some(known) =
            self.world.some_run_for(&self.guest, &mut self.dice, |known| load::waits(known.workflow))
        else {
            return self.start();
        };
        let patches = format!("/v1/runs/{}/patches", known.run);
        let patch = match self.one_of(&patches, |patch| patch["state"] == "applied") {
            Ok(Some(patch)) => patch,
            Ok(None) => return self.patch(),
            Err(gone) => return gone,
        };
        let token = self.world.token("revoke");
        let path = format!("{patches}/{patch}/revoke");
        let body = json!({"cascade": self.dice.one_in(2), "reason": token});
        let invoke = Invoke { run: Some(known.run), token: Some(token), ..self.operation(What::Revoke) };
        matches!(self.send(invoke, (&path, None, &body)), Ended::Unknown)
    }

    /// Approves or rejects a patch that waits; one that does not, now and then.
    pub fn judge_patch(&mut self) -> bool {
        let Some(known) =
            self.world.some_run_for(&self.guest, &mut self.dice, |known| load::waits(known.workflow))
        else {
            return self.start();
        };
        let patches = format!("/v1/runs/{}/patches", known.run);
        let any = self.dice.one_in(6);
        let patch = match self.one_of(&patches, |patch| any || patch["state"] == "held") {
            Ok(Some(patch)) => patch,
            Ok(None) => return self.patch(),
            Err(gone) => return gone,
        };
        let (what, verb) =
            if self.dice.one_in(3) { (What::Decline, "reject") } else { (What::Approve, "approve") };
        let token = self.world.token(verb);
        let (path, body) = (format!("{patches}/{patch}/{verb}"), json!({"reason": token}));
        let invoke = Invoke { run: Some(known.run), token: Some(token), ..self.operation(what) };
        matches!(self.send(invoke, (&path, None, &body)), Ended::Unknown)
    }

    /// Approves or rejects what a run asks, if it asks.
    pub fn decide(&mut self) -> bool {
        let Some(known) =
            self.world.some_run_for(&self.guest, &mut self.dice, |known| known.workflow == load::REVIEWED)
        else {
            return self.start_one(load::Workflow { name: load::REVIEWED });
        };
        let token = self.world.token("decide");
        let (path, body) = decision(&known.run, "ask", (!self.dice.one_in(3), &token));
        let invoke = Invoke { run: Some(known.run), token: Some(token), ..self.operation(What::Decide) };
        matches!(self.send(invoke, (&path, None, &body)), Ended::Unknown)
    }
}

/// Where to decide a run's review, and in which words.
pub fn decision(run: &str, node: &str, (approve, reason): (bool, &str)) -> (String, Value) {
    let decision = if approve { "approve" } else { "reject" };
    let body = json!({"decision": decision, "reviewer": load::REVIEWER, "reason": reason});
    (format!("/v1/approvals/review_{run}_{node}/decision"), body)
}
