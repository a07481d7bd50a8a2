//! Which plane runs on which cores: a pure function of the machine and the configuration.
//!
//! By default 40 % of the physical cores are for control, 40 % for the runner and 20 % for the fanout, in that order, so
//! that a machine of twenty gives 0-7, 8-15, 16-19. Siblings of one physical core go to the same plane, and the order
//! goes memory node by memory node, so that a plane straddles nodes only where its share does. Each thread gets a core
//! of its own. With too few physical cores planes share: two cores are control + fanout and runner; one core is all.

use std::str::FromStr;

use crate::limits;

use super::topology::{Core, Topology, parse_list};

/// Threads of a plane at most; more would be a mistake.
const THREADS_MAX: usize = 256;

/// What the configuration says of one plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Spec {
    /// By the ratio.
    #[default]
    Auto,
    /// That many cores, in its turn.
    Count(usize),
    /// These cores; one named twice gets two threads.
    List(Vec<usize>),
}

/// The text is no specification of cores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`auto`, a number of cores from 1 to {THREADS_MAX}, or a list such as \"0-3,8\" is expected")]
pub struct SpecError;

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Ok(count) = text.parse::<usize>() {
            return if (1..=THREADS_MAX).contains(&count) { Ok(Self::Count(count)) } else { Err(SpecError) };
        }
        let plain = text.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '-' | ' '));
        let list = if plain { parse_list(text) } else { Vec::new() };
        let parts = text.split(',').all(|part| !parse_list(part).is_empty());
        if list.is_empty() || list.len() > THREADS_MAX || !parts {
            Err(SpecError)
        } else {
            Ok(Self::List(list))
        }
    }
}

/// What the configuration says of all planes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cores {
    /// `cores.control`
    pub control: Spec,
    /// `cores.runner`
    pub runner: Spec,
    /// `cores.fanout`
    pub fanout: Spec,
}

/// A core for each thread of each plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sockets, parsing, validation.
    pub control: Vec<usize>,
    /// Shards.
    pub runner: Vec<usize>,
    /// Streams.
    pub fanout: Vec<usize>,
}

/// The configuration asks for what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A core this process may not use.
    #[error("cores.{plane}: core {core} is not allowed to this process (allowed: {allowed})")]
    NotAllowed {
        /// Of which plane.
        plane: &'static str,
        /// Which core.
        core: usize,
        /// As a list.
        allowed: String,
    },
    /// More cores than there are.
    #[error("cores.{plane}: {count} cores are asked for, {there} are allowed to this process")]
    TooMany {
        /// Of which plane.
        plane: &'static str,
        /// How many.
        count: usize,
        /// How many there are.
        there: usize,
    },
}

/// Makes the plan.
///
/// # Errors
/// A core that is named is not there.
pub fn plan(topology: &Topology, cores: &Cores) -> Result<Plan, PlanError> {
    let [control, runner, fanout] = shares(topology);
    Ok(Plan {
        control: choose("control", &cores.control, control, topology)?,
        runner: choose("runner", &cores.runner, runner, topology)?,
        fanout: choose("fanout", &cores.fanout, fanout, topology)?
            .into_iter()
            .take(limits::FANOUT_CORES_MAX)
            .collect(),
    })
}

fn choose(
    plane: &'static str,
    spec: &Spec,
    share: Vec<usize>,
    topology: &Topology,
) -> Result<Vec<usize>, PlanError> {
    let there: Vec<_> = topology.cores.iter().map(|core| core.id).collect();
    match spec {
        Spec::Auto => Ok(share),
        Spec::Count(count) if *count > there.len() => {
            Err(PlanError::TooMany { plane, count: *count, there: there.len() })
        }
        // Its own share first, then whatever else there is.
        Spec::Count(count) => {
            let others = there.iter().copied().filter(|core| !share.contains(core));
            Ok(share.iter().copied().chain(others).take(*count).collect())
        }
        Spec::List(list) => match list.iter().find(|core| !there.contains(core)) {
            Some(core) => {
                let allowed: Vec<_> = there.iter().map(ToString::to_string).collect();
                Err(PlanError::NotAllowed { plane, core: *core, allowed: allowed.join(",") })
            }
            None => Ok(list.clone()),
        },
    }
}

/// The cores of control, runner and fanout by ratio.
fn shares(topology: &Topology) -> [Vec<usize>; 3] {
    // Physical cores in the order of their memory nodes, each with its siblings.
    let mut physical: Vec<(usize, usize, Vec<usize>)> = Vec::new();
    for Core { id, physical: core, node } in &topology.cores {
        match physical.iter_mut().find(|(at, of, _)| (at, of) == (node, core)) {
            Some((_, _, siblings)) => siblings.push(*id),
            None => physical.push((*node, *core, vec![*id])),
        }
    }
    physical.sort();
    let count = physical.len();
    let ids = |range: std::ops::Range<usize>| -> Vec<usize> {
        physical.get(range).unwrap_or_default().iter().flat_map(|(_, _, ids)| ids.iter().copied()).collect()
    };
    match count {
        0 | 1 => [ids(0..1), ids(0..1), ids(0..1)],
        2 => [ids(0..1), ids(1..2), ids(0..1)],
        3 => [ids(0..1), ids(1..2), ids(2..3)],
        _ => {
            let fanout = (count / 5).max(1);
            let control = (count * 2 / 5).max(1);
            [ids(0..control), ids(control..count - fanout), ids(count - fanout..count)]
        }
    }
}

/// `control 0-7 · runner 8-15 · fanout 16-19`
impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |cores: &[usize]| cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let (control, runner, fanout) = (list(&self.control), list(&self.runner), list(&self.fanout));
        write!(f, "control {control} · runner {runner} · fanout {fanout}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn machine(cores: usize, threads: usize, nodes: usize) -> Topology {
        let core = |id: usize| {
            let physical = id % (cores / threads);
            Core { id, physical, node: physical * nodes / (cores / threads) }
        };
        Topology { cores: (0..cores).map(core).collect() }
    }

    fn auto(topology: &Topology) -> String {
        plan(topology, &Cores::default()).unwrap().to_string()
    }

    // F220, F221, F222, F241
    #[test]
    fn each_machine_gets_its_plan() {
        let eight_to_20 = "control 0,1,2,3,4,5,6,7 · runner 8,9,10,11,12,13,14,15 · fanout 16,17,18,19";
        assert_eq!(auto(&machine(1, 1, 1)), "control 0 · runner 0 · fanout 0");
        assert_eq!(auto(&machine(2, 1, 1)), "control 0 · runner 1 · fanout 0");
        assert_eq!(auto(&machine(4, 1, 1)), "control 0 · runner 1,2 · fanout 3");
        assert_eq!(auto(&machine(8, 1, 1)), "control 0,1,2 · runner 3,4,5,6 · fanout 7");
        assert_eq!(auto(&machine(20, 1, 1)), eight_to_20);
        let big = plan(&machine(64, 1, 2), &Cores::default()).unwrap();
        assert_eq!((big.control.len(), big.runner.len(), big.fanout.len()), (25, 27, 12));
        // Hyper-threads: siblings 0,4 and 1,5 and so on stay together.
        assert_eq!(auto(&machine(8, 2, 1)), "control 0,4 · runner 1,5,2,6 · fanout 3,7");
        // Two threads on one physical core are one core.
        assert_eq!(auto(&machine(2, 2, 1)), "control 0,1 · runner 0,1 · fanout 0,1");
        let restricted = Topology { cores: [3, 5, 7].map(|id| Core { id, physical: id, node: 0 }).to_vec() };
        assert_eq!(auto(&restricted), "control 3 · runner 5 · fanout 7");
    }

    #[test]
    fn memory_nodes_are_filled_one_after_the_other() {
        // Cores of two nodes, numbered in turns as some machines do.
        let cores = (0..20).map(|id| Core { id, physical: id, node: id % 2 }).collect();
        let plan = plan(&Topology { cores }, &Cores::default()).unwrap();
        assert!(plan.control.iter().all(|core| core % 2 == 0), "{plan}");
        assert!(plan.fanout.iter().all(|core| core % 2 == 1), "{plan}");
    }

    #[test]
    fn a_configuration_is_followed_or_refused_by_name() {
        let two = machine(2, 1, 1);
        let cores = |text: &str| Cores { runner: text.parse().unwrap(), ..Cores::default() };
        assert_eq!(plan(&two, &cores("0,0,1")).unwrap().runner, [0, 0, 1]);
        assert_eq!(plan(&two, &cores("2")).unwrap().runner, [1, 0]);
        for text in ["7-9", "1,2"] {
            let error = plan(&two, &cores(text)).unwrap_err().to_string();
            assert!(error.contains("cores.runner") && error.contains("allowed: 0,1"), "{error}");
        }
        assert!(plan(&two, &cores("3")).unwrap_err().to_string().contains("2 are allowed"));
        for text in ["", "0", "-", "a", "1-", "1,,2", "999999"] {
            assert_eq!(text.parse::<Spec>(), Err(SpecError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_plan_is_whole_allowed_and_keeps_siblings_together(
            physical in 1_usize..40, threads in 1_usize..3, nodes in 1_usize..5, keep in prop::collection::vec(any::<bool>(), 80),
        ) {
            let mut topology = machine(physical * threads, threads, nodes);
            topology.cores.retain(|core| keep[core.id] || core.id == 0);
            let plan = plan(&topology, &Cores::default()).unwrap();
            let of = |id: usize| *topology.cores.iter().find(|core| core.id == id).unwrap();
            let planes = [&plan.control, &plan.runner, &plan.fanout];
            let distinct: std::collections::BTreeSet<_> = topology.cores.iter().map(|core| core.physical).collect();
            for (at, plane) in planes.iter().enumerate() {
                prop_assert!(!plane.is_empty());
                for id in plane.iter() {
                    let core = of(*id);
                    for other in planes.iter().skip(at + 1).flat_map(|other| other.iter()) {
                        prop_assert!(distinct.len() < 3 || of(*other).physical != core.physical, "{plan}");
                    }
                }
            }
            if distinct.len() >= 3 {
                let used: usize = planes.iter().map(|plane| plane.len()).sum();
                prop_assert_eq!(used, topology.cores.len(), "every allowed core has a thread");
            }
        }
    }
}
