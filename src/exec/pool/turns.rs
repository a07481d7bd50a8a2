//! Whose turn it is: workspaces that share the workers of a queue take turns by weight.
//!
//! Start-time fair queueing. Each workspace has a tag, the virtual time at which its next job begins; the least tag goes
//! first and moves on by one job's cost, which is less the greater the weight. Whoever comes anew begins at the present, so
//! that waiting without jobs earns nothing, and whoever had more than its share and leaves for a moment comes back where it
//! was. So a single job waits for one job of each other workspace at most, however many they have. Every step takes time
//! that grows with the logarithm of the number of workspaces. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::limits;

/// What a job of weight 1 costs; a whole multiple of small weights, and far from the end of the numbers.
const COST: u64 = 1 << 20;

/// The turns of one queue.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The least tag when a turn was last taken.
    now: u64,
    /// Those who have a job to give.
    ready: BTreeSet<(u64, Arc<str>)>,
    /// Those who have none and are ahead of the present.
    ahead: BTreeSet<(u64, Arc<str>)>,
    /// Of both.
    tags: BTreeMap<Arc<str>, u64>,
}

impl Turns {
    /// Notes whether a workspace has a job to give. When nobody has, all begin anew.
    pub(super) fn note(&mut self, workspace: &Arc<str>, has_job: bool) {
        let tag = self.tags.get(workspace).copied();
        let own = (tag.unwrap_or_default(), workspace.clone());
        match (self.ready.contains(&own), has_job) {
            (false, true) => {
                self.ahead.remove(&own);
                let tag = own.0.max(self.now);
                self.tags.insert(own.1.clone(), tag);
                self.ready.insert((tag, own.1));
            }
            (true, false) => {
                self.ready.remove(&own);
                self.ahead.insert(own);
                if self.ready.is_empty() {
                    *self = Self::default();
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<&Arc<str>> {
        self.ready.first().map(|(_, workspace)| workspace)
    }

    /// Whose turn it is among these.
    pub(super) fn first_of<'a>(&self, some: &'a [Arc<str>]) -> Option<&'a Arc<str>> {
        let tagged = some.iter().filter_map(|workspace| Some((*self.tags.get(workspace)?, workspace)));
        let ready = tagged.filter(|(tag, workspace)| self.ready.contains(&(*tag, Arc::clone(workspace))));
        ready.min().map(|(_, workspace)| workspace)
    }

    /// A workspace that has a job takes its turn.
    pub(super) fn take(&mut self, workspace: &Arc<str>, weight: u64) {
        let Some((least, _)) = self.ready.first() else { return };
        self.now = self.now.max(*least);
        let Some(tag) = self.tags.get_mut(workspace) else { return };
        if !self.ready.remove(&(*tag, workspace.clone())) {
            return;
        }
        *tag = tag.saturating_add(COST / weight.clamp(1, limits::WORKSPACE_WEIGHT_MAX));
        self.ready.insert((*tag, workspace.clone()));
        // Who is no longer ahead is like one who never came.
        while self.ahead.first().is_some_and(|(tag, _)| *tag <= self.now) {
            if let Some((_, workspace)) = self.ahead.pop_first() {
                self.tags.remove(&workspace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|at| format!("w{at}").into()).collect()
    }

    fn take(turns: &mut Turns, names: &[Arc<str>], weights: &[u64]) -> usize {
        let first = turns.first().unwrap().clone();
        let at = names.iter().position(|name| *name == first).unwrap();
        turns.take(&first, weights[at]);
        at
    }

    proptest! {
        // F381, F261
        /// Work done divided by weight differs by no more than one job of each, at every moment.
        #[test]
        fn who_always_has_jobs_gets_the_share_of_its_weight(
            weights in proptest::collection::vec(1..=50_u64, 2..8),
        ) {
            let names = names(weights.len());
            let mut turns = Turns::default();
            names.iter().for_each(|name| turns.note(name, true));
            let mut done = vec![0_u64; weights.len()];
            for _ in 0..2_000 {
                done[take(&mut turns, &names, &weights)] += 1;
                for (a, b) in (0..weights.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    let [one, other] = [a, b].map(|at| done[at] as f64 / weights[at] as f64);
                    let most = 1.0 / weights[a] as f64 + 1.0 / weights[b] as f64;
                    // Costs are whole numbers, a little less than they should be.
                    prop_assert!((one - other).abs() <= most * 1.01, "{done:?} {weights:?}");
                }
            }
        }

        /// Whatever came before, one who comes anew waits for one job of each other at most; nobody is forgotten, and
        /// what is remembered is bounded by who there is.
        #[test]
        fn one_who_comes_anew_waits_for_one_job_of_each_other_at_most(
            weights in proptest::collection::vec(1..=1_000_u64, 2..8),
            script in proptest::collection::vec((0..8_usize, any::<bool>(), 0..20_usize), 1..40),
        ) {
            let names = names(weights.len());
            let newcomer: Arc<str> = "zz-newcomer".into();
            let mut turns = Turns::default();
            let mut has = vec![false; weights.len()];
            for (at, has_job, takes) in script {
                let at = at % weights.len();
                turns.note(&names[at], has_job);
                has[at] = has_job;
                for _ in 0..takes {
                    prop_assert_eq!(turns.first().is_some(), has.contains(&true));
                    if turns.first().is_some() {
                        prop_assert!(has[take(&mut turns, &names, &weights)], "only who has a job has a turn");
                    }
                }
                prop_assert_eq!(turns.ready.len() + turns.ahead.len(), turns.tags.len());
            }
            turns.note(&newcomer, true);
            let mut before = vec![0; weights.len()];
            while *turns.first().unwrap() != newcomer {
                before[take(&mut turns, &names, &weights)] += 1;
            }
            prop_assert!(before.iter().all(|count| *count <= 1), "{before:?}");
        }
    }

    #[test]
    fn leaving_for_a_moment_wipes_nothing_out() {
        let [heavy, light]: [Arc<str>; 2] = ["heavy".into(), "light".into()];
        let mut turns = Turns::default();
        turns.note(&heavy, true);
        let (mut heavies, mut lights) = (0, 0);
        // The light one has one job at a time and brings the next as soon as the last is taken.
        for _ in 0..1_100 {
            turns.note(&light, true);
            let first = turns.first().unwrap().clone();
            if first == light {
                lights += 1;
                turns.take(&light, 1);
                turns.note(&light, false);
            } else {
                heavies += 1;
                turns.take(&heavy, 10);
            }
        }
        assert!((95..=105).contains(&lights), "{lights} light, {heavies} heavy");
    }

    #[test]
    fn among_some_the_one_goes_first_that_is_least_ahead() {
        let names = names(3);
        let mut turns = Turns::default();
        names.iter().for_each(|name| turns.note(name, true));
        turns.take(&names[0], 1);
        assert_eq!(turns.first(), Some(&names[1]));
        assert_eq!(turns.first_of(&names[..1]), Some(&names[0]));
        assert_eq!(turns.first_of(&[names[0].clone(), names[2].clone()]), Some(&names[2]));
        turns.note(&names[2], false);
        assert_eq!(turns.first_of(&names[2..]), None);
        assert_eq!(turns.first_of(&["nobody".into()]), None);
    }
}
