//! The order of a scope's nodes, its cycles, and who comes before whom.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use super::document::Reading;
use crate::model::workflow::Graph;

/// Cycles reported for one scope.
const CYCLES_MAX: usize = 10;

/// A scope in an order in which every edge goes forward; among nodes that could come next the smallest id does.
pub(super) struct Order<'g> {
    /// Ids in order.
    pub(super) ids: Vec<&'g Arc<str>>,
    /// Place in that order, by id.
    pub(super) index: BTreeMap<&'g str, u32>,
    /// Row `n`: a bit for every ancestor of node `n`. Empty when there is a cycle; then nobody is asked.
    rows: Vec<u64>,
    words: usize,
    cyclic: bool,
}

impl<'g> Order<'g> {
    pub(super) fn new(graph: &'g Graph, reading: &mut Reading<'_>) -> Self {
        let names: Vec<&Arc<str>> = graph.nodes.keys().collect();
        let by_id: BTreeMap<&str, usize> =
            names.iter().enumerate().map(|(index, id)| (&***id, index)).collect();
        let mut next = vec![Vec::new(); names.len()];
        let mut before = vec![Vec::new(); names.len()];
        for edge in &graph.edges {
            if let (Some(&from), Some(&to)) = (by_id.get(&*edge.from), by_id.get(&*edge.to)) {
                push(&mut next, from, to);
                push(&mut before, to, from);
            }
        }
        let mut sorted = kahn(&next, &before);
        let cyclic = sorted.len() < names.len();
        if cyclic {
            cycles(&names, &before, &sorted, graph, reading);
            let mut placed = vec![false; names.len()];
            sorted.iter().for_each(|&node| mark(&mut placed, node));
            sorted.extend((0..names.len()).filter(|&node| !marked(&placed, node)));
        }
        let ids: Vec<&Arc<str>> = sorted.iter().filter_map(|&node| names.get(node).copied()).collect();
        let index = ids.iter().zip(0_u32..).map(|(id, index)| (&***id, index)).collect();
        let mut order = Self { ids, index, rows: Vec::new(), words: names.len().div_ceil(64), cyclic };
        if !cyclic {
            order.ancestors(&sorted, &before);
        }
        order
    }

    /// Does `ancestor` always come before `node` by edges? Both are places in this order.
    pub(super) fn is_ancestor(&self, ancestor: u32, node: u32) -> bool {
        let (ancestor, node) = (ancestor as usize, node as usize);
        let word = self.rows.get(node * self.words + ancestor / 64);
        self.cyclic || word.is_some_and(|word| word >> (ancestor % 64) & 1 == 1)
    }

    fn ancestors(&mut self, sorted: &[usize], before: &[Vec<usize>]) {
        let words = self.words;
        self.rows = vec![0; words * sorted.len()];
        let mut place = vec![0; sorted.len()];
        for (row, &node) in sorted.iter().enumerate() {
            if let Some(place) = place.get_mut(node) {
                *place = row;
            }
            let (above, this) = self.rows.split_at_mut(row * words);
            for &source in before.get(node).into_iter().flatten() {
                let source = place.get(source).copied().unwrap_or_default();
                let from = above.get(source * words..(source + 1) * words).unwrap_or_default();
                this.iter_mut().zip(from).for_each(|(into, from)| *into |= from);
                if let Some(word) = this.get_mut(source / 64) {
                    *word |= 1 << (source % 64);
                }
            }
        }
    }
}

fn push(lists: &mut [Vec<usize>], at: usize, node: usize) {
    if let Some(list) = lists.get_mut(at) {
        list.push(node);
    }
}

fn mark(flags: &mut [bool], at: usize) {
    if let Some(flag) = flags.get_mut(at) {
        *flag = true;
    }
}

fn marked(flags: &[bool], at: usize) -> bool {
    flags.get(at).copied().unwrap_or(false)
}

/// Nodes that are on no cycle and behind none, in order. Nodes are numbered by id.
pub(super) fn kahn(next: &[Vec<usize>], before: &[Vec<usize>]) -> Vec<usize> {
    let mut open: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..open.len()).filter(|&node| open.get(node) == Some(&0)).map(Reverse).collect();
    let mut sorted = Vec::with_capacity(open.len());
    while let Some(Reverse(node)) = ready.pop() {
        sorted.push(node);
        for &target in next.get(node).into_iter().flatten() {
            if let Some(left) = open.get_mut(target) {
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse(target));
                }
            }
        }
    }
    sorted
}

/// Reports cycles that share no node. Every node that was not sorted has a predecessor that was not, so walking
/// backwards ends in a cycle.
fn cycles(
    names: &[&Arc<str>],
    before: &[Vec<usize>],
    sorted: &[usize],
    graph: &Graph,
    reading: &mut Reading<'_>,
) {
    let mut done = vec![false; names.len()];
    sorted.iter().for_each(|&node| mark(&mut done, node));
    let mut found = 0;
    for start in 0..names.len() {
        if marked(&done, start) || found == CYCLES_MAX {
            continue;
        }
        let mut path: Vec<usize> = Vec::new();
        let mut on_path = vec![false; if found < CYCLES_MAX { names.len() } else { 0 }];
        let mut at = start;
        let meets = loop {
            if marked(&on_path, at) {
                break Some(at);
            }
            mark(&mut on_path, at);
            path.push(at);
            match before.get(at).into_iter().flatten().find(|&&source| !marked(&done, source)) {
                Some(&source) => at = source,
                None => break None,
            }
        };
        if let Some(meets) = meets {
            found += 1;
            let from = path.iter().position(|&node| node == meets).unwrap_or_default();
            report(names, path.get(from..).unwrap_or_default(), graph, reading);
        }
        path.iter().for_each(|&node| mark(&mut done, node));
    }
}

/// `path` goes backwards along the edges.
fn report(names: &[&Arc<str>], path: &[usize], graph: &Graph, reading: &mut Reading<'_>) {
    const SHOWN: usize = 12;
    let mut ids: Vec<&str> = path.iter().rev().filter_map(|&node| names.get(node).map(|id| &***id)).collect();
    let smallest = (0..ids.len()).min_by_key(|&index| ids.get(index).copied()).unwrap_or_default();
    ids.rotate_left(smallest);
    let (Some(&first), second) = (ids.first(), ids.get(1)) else { return };
    let second = second.copied().unwrap_or(first);
    let edge = graph.edges.iter().find(|edge| &*edge.from == first && &*edge.to == second);
    let shown: Vec<&str> = if ids.len() > SHOWN {
        ids.iter().copied().take(SHOWN).chain(["..."]).collect()
    } else {
        ids.clone()
    };
    let message = format!("cycle: {} -> {first}", shown.join(" -> "));
    let help = Some("repetition is structured: use a map or a loop with a body".into());
    reading.findings.error_with("cycle", edge.map_or("", |edge| &edge.at), message, help);
}
