//! What the machine is: cores this process may use, which of them are siblings of one core, which share memory. Data.

use std::path::Path;

/// One allowed core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Core {
    /// The operating system's number.
    pub id: usize,
    /// Cores with the same number here are hyper-threads of one.
    pub physical: usize,
    /// Its memory node.
    pub node: usize,
}

/// The allowed cores, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// At least one.
    pub cores: Vec<Core>,
}

impl Topology {
    /// Reads it from `/sys/devices/system` (`root`), for the `allowed` cores. What cannot be read counts as a core of
    /// its own on node 0.
    pub fn read(root: &Path, allowed: &[usize]) -> Self {
        let core = |id: &usize| {
            let at = root.join(format!("cpu/cpu{id}"));
            let siblings = std::fs::read_to_string(at.join("topology/thread_siblings_list"));
            let physical =
                siblings.ok().and_then(|list| parse_list(list.trim()).first().copied()).unwrap_or(*id);
            Core { id: *id, physical, node: node_of(root, *id) }
        };
        let mut cores: Vec<_> = allowed.iter().map(core).collect();
        if cores.is_empty() {
            cores.push(Core { id: 0, physical: 0, node: 0 });
        }
        cores.sort_unstable();
        Self { cores }
    }
}

fn node_of(root: &Path, id: usize) -> usize {
    let Ok(nodes) = std::fs::read_dir(root.join("node")) else { return 0 };
    let mut found = nodes.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        let list = std::fs::read_to_string(entry.path().join("cpulist")).ok()?;
        parse_list(list.trim()).contains(&id).then_some(number)
    });
    found.next().unwrap_or(0)
}

/// `0-3,8` as numbers; what is no number is left out, ranges are bounded.
pub(crate) fn parse_list(list: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
            numbers.extend((first..=last).take(4_096));
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_and_nodes_are_read_where_they_stand() {
        let root = tempfile::tempdir().unwrap();
        for (id, siblings) in [(0, "0,4"), (4, "0,4"), (1, "1-1")] {
            let at = root.path().join(format!("cpu/cpu{id}/topology"));
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("thread_siblings_list"), siblings).unwrap();
        }
        let node = root.path().join("node/node1");
        std::fs::create_dir_all(&node).unwrap();
        std::fs::write(node.join("cpulist"), "1-3\n").unwrap();
        let topology = Topology::read(root.path(), &[4, 1, 0, 9]);
        let core = |id, physical, node| Core { id, physical, node };
        assert_eq!(topology.cores, [core(0, 0, 0), core(1, 1, 1), core(4, 0, 0), core(9, 9, 0)]);
        assert_eq!(Topology::read(root.path(), &[]).cores.len(), 1);
    }
}
