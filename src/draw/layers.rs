//! Which layer a node stands in: one below the lowest of its predecessors (longest paths). Nodes of one layer may run
//! at the same time.

/// Layers of a scope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layers {
    /// By node.
    pub(crate) of: Vec<usize>,
    /// Nodes by layer, in document order.
    pub(crate) rows: Vec<Vec<usize>>,
}

/// Layers of `count` nodes. What hangs in a ring, which the compiler lets stand in no scope that runs, comes last.
pub(crate) fn layers(count: usize, edges: &[(usize, usize)]) -> Layers {
    let next = neighbours(count, edges.iter().copied());
    let mut open: Vec<usize> = vec![0; count];
    for (_, to) in edges {
        if let Some(open) = open.get_mut(*to) {
            *open += 1;
        }
    }
    let mut of: Vec<Option<usize>> = open.iter().map(|open| (*open == 0).then_some(0)).collect();
    let mut ready: Vec<usize> = (0..count).filter(|node| of.get(*node) == Some(&Some(0))).collect();
    let mut below: Vec<usize> = vec![0; count];
    let mut at = 0;
    while let Some(node) = ready.get(at).copied() {
        at += 1;
        let layer = below.get(node).copied().unwrap_or_default();
        if let Some(of) = of.get_mut(node) {
            *of = Some(layer);
        }
        for to in next.get(node).into_iter().flatten() {
            if let (Some(below), Some(open)) = (below.get_mut(*to), open.get_mut(*to)) {
                *below = (*below).max(layer + 1);
                *open -= 1;
                if *open == 0 {
                    ready.push(*to);
                }
            }
        }
    }
    let last = of.iter().flatten().max().map_or(0, |last| last + 1);
    let of: Vec<usize> = of
        .into_iter()
        .zip(&open)
        .map(|(of, open)| if *open == 0 { of.unwrap_or(last) } else { last })
        .collect();
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); of.iter().max().map_or(0, |max| max + 1)];
    for (node, layer) in of.iter().enumerate() {
        if let Some(row) = rows.get_mut(*layer) {
            row.push(node);
        }
    }
    Layers { of, rows }
}

/// For each node those that a pair leads to.
pub(crate) fn neighbours(count: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (from, to) in pairs {
        if let Some(next) = next.get_mut(from) {
            next.push(to);
        }
    }
    next
}
