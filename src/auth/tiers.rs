//! How many runs of a workflow may be started in a workspace: by its tier, each workflow of each workspace by itself.
//!
//! Which tier a workflow has is configured, by name, by workspace, or for all; where the operator lets it, a document may name one.
//! Counted as requests are ([`super::rate`]): one cell for each workflow that was started lately, in a table of fixed size. A
//! start by an Idempotency-Key that has started a run before, and a child run, are not counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rate::{Allowances, Policy, Standing, Who};

/// What is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `rate.tiers`.
    pub tiers: BTreeMap<Arc<str>, Policy>,
    /// `rate.workflows`: `WORKSPACE/WORKFLOW`, `WORKSPACE/*` or `*`, and the tier.
    pub assigned: BTreeMap<Arc<str>, Arc<str>>,
    /// `rate.documents`: a document may name its tier.
    pub documents: bool,
}

/// The tiers, and what was taken of them; shared by all control cores.
#[derive(Debug)]
pub struct Tiers {
    plan: Plan,
    taken: Allowances,
}

/// A workflow has been started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its tier.
    pub tier: Arc<str>,
    /// Where it stands now.
    pub standing: Standing,
}

impl Tiers {
    /// Nothing is taken.
    pub fn new(plan: Plan) -> Self {
        Self { plan, taken: Allowances::new(Policy { per_second: 1, burst: 1 }) }
    }

    /// Does a document's word count?
    pub fn reads_documents(&self) -> bool {
        self.plan.documents
    }

    /// The tier of a workflow: the operator's word for it, then its document's where that counts and such a tier is there, then the
    /// operator's for its workspace, then for all.
    fn tier(&self, (workspace, workflow): (&str, &str), named: Option<&str>) -> Option<(&Arc<str>, Policy)> {
        let assigned = |key: &str| self.plan.assigned.get(key).map(|tier| &**tier);
        let named = named.filter(|named| self.plan.documents && self.plan.tiers.contains_key(*named));
        let tier = assigned(&format!("{workspace}/{workflow}"))
            .or(named)
            .or_else(|| assigned(&format!("{workspace}/*")))
            .or_else(|| assigned("*"))?;
        self.plan.tiers.get_key_value(tier).map(|(name, policy)| (name, *policy))
    }

    /// Takes one start; `None` when it is not counted.
    pub fn take(&self, of: (&str, &str), named: Option<&str>, now_us: u64) -> Option<Taken> {
        let (tier, policy) = self.tier(of, named)?;
        let standing = self.taken.take_within(Who::Workflow(of.0, of.1), policy, now_us);
        Some(Taken { tier: tier.clone(), standing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 5_000_000;

    fn tiers(assigned: &[(&str, &str)], documents: bool) -> Tiers {
        let policy = |per_second, burst| Policy { per_second, burst };
        let tiers = [("free", policy(1, 2)), ("gold", policy(10, 20))];
        Tiers::new(Plan {
            tiers: tiers.map(|(name, policy)| (name.into(), policy)).into(),
            assigned: assigned.iter().map(|(key, tier)| ((*key).into(), (*tier).into())).collect(),
            documents,
        })
    }

    // F007
    #[test]
    fn each_workflow_of_each_workspace_has_its_own_count() {
        let tiers = tiers(&[("*", "free"), ("acme/pay", "gold")], false);
        let refused = |workspace, workflow| {
            let taken = tiers.take((workspace, workflow), None, NOW_US).unwrap();
            taken.standing.refused_for_ns
        };
        assert_eq!((refused("acme", "w"), refused("acme", "w")), (None, None));
        assert_eq!(refused("acme", "w"), Some(1_000_000_000));
        assert_eq!((refused("other", "w"), refused("acme", "v")), (None, None), "others are not touched");
        let through = (0..30).filter(|_| refused("acme", "pay").is_none()).count();
        assert_eq!(through, 20, "its own tier");
    }

    #[test]
    fn the_nearest_word_counts_and_a_documents_only_where_it_may() {
        let of = |tiers: &Tiers, named| {
            tiers.take(("acme", "w"), named, NOW_US).map(|taken| taken.tier.to_string())
        };
        assert_eq!(of(&tiers(&[], false), Some("gold")), None, "nobody has a tier");
        assert_eq!(of(&tiers(&[("acme/*", "free")], false), Some("gold")).unwrap(), "free");
        assert_eq!(of(&tiers(&[("acme/*", "free")], true), Some("gold")).unwrap(), "gold");
        assert_eq!(of(&tiers(&[("acme/*", "free")], true), Some("none")).unwrap(), "free");
        assert_eq!(of(&tiers(&[("acme/w", "free")], true), Some("gold")).unwrap(), "free");
        assert_eq!(of(&tiers(&[("*", "gold"), ("other/*", "free")], true), None).unwrap(), "gold");
    }
}
