//! Whose patches wait for a human, and who may decide about them: `policy.patches`.
//!
//! A pure function of who asks and what the patch does. Without tokens nobody can be told from anybody else, so a
//! configuration that holds patches wants a tokens file.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Caller, Role};

/// Whose patches are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// Nobody's.
    #[default]
    Nobody,
    /// Those of tokens that are agents'.
    Agents,
    /// Everybody's.
    Everybody,
}

/// What the names of agents begin with that propose patches of their own runs. They are agents whatever the policy lists.
pub const AGENT: &str = "agent:";

/// The policy of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Whose patches are held.
    pub whose: Whose,
    /// Names of the tokens that are agents'; a `*` at the end stands for anything.
    pub agents: Vec<Arc<str>>,
    /// A patch that does nothing but add nodes of these kinds, and edges to them, is never held.
    pub safe_kinds: BTreeSet<Arc<str>>,
    /// The role that it takes to decide.
    pub decider: Role,
}

impl Default for Holding {
    fn default() -> Self {
        Self { whose: Whose::Nobody, agents: Vec::new(), safe_kinds: BTreeSet::new(), decider: Role::Admin }
    }
}

impl Holding {
    /// Why a patch of this caller waits for a human; `None` when it does not. `added` gives the kinds of the nodes that the
    /// patch adds, if it does nothing else.
    pub fn why(&self, caller: &Caller, added: impl FnOnce() -> Option<BTreeSet<Arc<str>>>) -> Option<String> {
        let name = caller.token.as_deref().unwrap_or_default();
        let why = match self.whose {
            Whose::Nobody => return None,
            Whose::Agents if !self.is_agent(name) => return None,
            Whose::Agents => format!("{name} is an agent"),
            Whose::Everybody => String::from("every patch waits for a human here"),
        };
        let safe = !self.safe_kinds.is_empty()
            && added().is_some_and(|kinds| kinds.iter().all(|kind| self.safe_kinds.contains(kind)));
        (!safe).then_some(why)
    }

    fn is_agent(&self, name: &str) -> bool {
        name.starts_with(AGENT)
            || self.agents.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => **pattern == *name,
            })
    }

    /// May this caller decide about a patch of this author?
    ///
    /// # Errors
    /// In one sentence, why not.
    pub fn may_approve(&self, caller: &Caller, author: &str) -> Result<(), String> {
        let name = caller.token.as_deref().unwrap_or("anyone");
        if caller.role < self.decider {
            let (own, needed) = (caller.role.as_str(), self.decider.as_str());
            return Err(format!("to decide about a patch takes the role {needed}; {name} has {own}"));
        }
        // Without tokens nobody can be told from anybody else.
        if caller.token.is_some() && name == author {
            return Err(format!("{name} has made this patch; somebody else has to approve it"));
        }
        Ok(())
    }

    /// May this caller decline a patch of this author? Whoever made it may take it back.
    ///
    /// # Errors
    /// In one sentence, why not.
    pub fn may_decline(&self, caller: &Caller, author: &str) -> Result<(), String> {
        if caller.token.as_deref() == Some(author) { Ok(()) } else { self.may_approve(caller, author) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str, role: Role) -> Caller {
        Caller { token: Some(name.into()), role, ..Caller::ANYONE }
    }

    fn kinds(all: &[&str]) -> BTreeSet<Arc<str>> {
        all.iter().map(|kind| Arc::from(*kind)).collect()
    }

    // F327, N2: who made it and what it does decide, and nothing else.
    #[test]
    fn a_patch_waits_by_its_author_and_its_class() {
        let mut policy = Holding { agents: vec!["agent-*".into(), "bot".into()], ..Holding::default() };
        let human = caller("ann", Role::Admin);
        let agents = ["agent-7", "bot"].map(|name| caller(name, Role::Write));
        let why = |policy: &Holding, caller: &Caller, added: Option<&[&str]>| {
            policy.why(caller, || added.map(kinds)).is_some()
        };
        assert!(!why(&policy, &agents[0], None), "nothing is held unless it is asked for");
        policy.whose = Whose::Agents;
        assert!(!why(&policy, &human, None) && !why(&policy, &caller("bottle", Role::Write), None));
        assert!(agents.iter().all(|agent| why(&policy, agent, Some(&["function"]))));
        policy.safe_kinds = kinds(&["function", "delay"]);
        assert!(!why(&policy, &agents[0], Some(&["function"])), "a safe class is merged by itself");
        for not_safe in [Some(&["function", "http"][..]), None] {
            assert!(why(&policy, &agents[0], not_safe), "{not_safe:?}");
        }
        policy.whose = Whose::Everybody;
        assert!(why(&policy, &human, None) && !why(&policy, &human, Some(&["delay"])));
    }

    // F192: somebody else, with the right to.
    #[test]
    fn nobody_approves_his_own_patch() {
        let policy = Holding::default();
        let (ann, bob) = (caller("ann", Role::Admin), caller("bob", Role::Write));
        assert!(policy.may_approve(&ann, "bob").is_ok());
        assert!(policy.may_approve(&ann, "ann").is_err() && policy.may_approve(&bob, "ann").is_err());
        assert!(policy.may_decline(&bob, "bob").is_ok(), "whoever made it may take it back");
        assert!(policy.may_decline(&bob, "ann").is_err());
    }
}
