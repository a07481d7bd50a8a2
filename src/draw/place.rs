//! Where boxes stand: layers from top to bottom, long edges through a bend in every layer they cross, each layer
//! ordered by the mean of its neighbours (barycentres, a few sweeps both ways), and boxes moved as near to their
//! neighbours as their widths allow. Deterministic: ties keep the order of the document.

use super::layers::{self, Layers};

const GAP: f64 = 28.0;
/// Room between layers, for edges and what is written on them.
pub(super) const BETWEEN: f64 = 64.0;
const BEND: f64 = 10.0;
const SWEEPS: usize = 8;
/// Bends of one scope; further long edges are drawn straight, across what stands in between.
const BENDS_MAX: usize = 100_000;

/// A placed scope.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) width: f64,
    pub(super) height: f64,
    /// Left and top, by node.
    pub(super) corners: Vec<(f64, f64)>,
    /// Bottom of its row, by node.
    pub(super) floors: Vec<f64>,
    /// By edge: (x, top, bottom) of every bend on its way.
    pub(super) bends: Vec<Vec<(f64, f64, f64)>>,
}

struct Grid {
    rows: Vec<Vec<usize>>,
    widths: Vec<f64>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    /// Middles.
    x: Vec<f64>,
}

/// Places boxes of these sizes.
pub(super) fn place(sizes: &[(f64, f64)], edges: &[(usize, usize)]) -> Placed {
    let layers = layers::layers(sizes.len(), edges);
    let (mut grid, ways) = grid(sizes, edges, &layers);
    for sweep in 0..SWEEPS {
        grid.order(sweep % 2 == 0);
    }
    grid.pack();
    for sweep in 0..SWEEPS {
        grid.pull(sweep % 2 == 0);
    }
    let mut tops = Vec::with_capacity(layers.rows.len());
    let mut height = 0.0;
    for row in &layers.rows {
        let tallest = row.iter().filter_map(|node| sizes.get(*node)).map(|size| size.1).fold(0.0, f64::max);
        tops.push((height, height + tallest));
        height += tallest + BETWEEN;
    }
    let left = |(at, x): (usize, &f64)| x - grid.widths.get(at).copied().unwrap_or_default() / 2.0;
    let least = grid.x.iter().enumerate().map(left).fold(f64::INFINITY, f64::min);
    let right = |(at, x): (usize, &f64)| x + grid.widths.get(at).copied().unwrap_or_default() / 2.0;
    let most = grid.x.iter().enumerate().map(right).fold(0.0, f64::max);
    let least = if least.is_finite() { least } else { 0.0 };
    let top = |layer: usize| tops.get(layer).copied().unwrap_or_default();
    let corners = layers
        .of
        .iter()
        .zip(&grid.x)
        .zip(sizes)
        .map(|((layer, x), size)| (x - size.0 / 2.0 - least, top(*layer).0));
    let bends = ways.iter().map(|way| {
        let points = way.iter().map(|(bend, layer)| {
            let x = grid.x.get(*bend).copied().unwrap_or_default() - least;
            (x, top(*layer).0, top(*layer).1)
        });
        points.collect()
    });
    Placed {
        width: most - least,
        height: (height - BETWEEN).max(0.0),
        corners: corners.collect(),
        floors: layers.of.iter().map(|layer| top(*layer).1).collect(),
        bends: bends.collect(),
    }
}

/// Bends of one edge: (vertex, layer).
type Way = Vec<(usize, usize)>;

/// Rows with bends in them.
fn grid(sizes: &[(f64, f64)], edges: &[(usize, usize)], layers: &Layers) -> (Grid, Vec<Way>) {
    let mut rows = layers.rows.clone();
    let mut widths: Vec<f64> = sizes.iter().map(|size| size.0).collect();
    let mut links: Vec<(usize, usize)> = Vec::with_capacity(edges.len());
    let layer = |node: usize| layers.of.get(node).copied().unwrap_or_default();
    let mut ways = Vec::with_capacity(edges.len());
    for (from, to) in edges {
        let (first, last) = (layer(*from) + 1, layer(*to));
        let room = widths.len() - sizes.len() + last.saturating_sub(first) <= BENDS_MAX;
        let mut way = Way::new();
        let mut before = *from;
        for between in (first..last).filter(|_| room) {
            let bend = widths.len();
            widths.push(BEND);
            if let Some(row) = rows.get_mut(between) {
                row.push(bend);
            }
            links.push((before, bend));
            way.push((bend, between));
            before = bend;
        }
        // Neighbours are of adjacent layers only.
        if last == first || !way.is_empty() {
            links.push((before, *to));
        }
        ways.push(way);
    }
    let below = layers::neighbours(widths.len(), links.iter().copied());
    let above = layers::neighbours(widths.len(), links.iter().map(|(from, to)| (*to, *from)));
    let mut x = vec![0.0; widths.len()];
    for row in &rows {
        for (at, vertex) in row.iter().enumerate() {
            if let Some(x) = x.get_mut(*vertex) {
                *x = at as f64;
            }
        }
    }
    (Grid { rows, widths, above, below, x }, ways)
}

impl Grid {
    /// The mean of a vertex's neighbours, when it has any.
    fn mean(&self, vertex: usize, down: bool) -> Option<f64> {
        let neighbours = if down { &self.above } else { &self.below };
        let of = neighbours.get(vertex).filter(|of| !of.is_empty())?;
        let sum: f64 = of.iter().filter_map(|other| self.x.get(*other)).sum();
        Some(sum / of.len() as f64)
    }

    fn each_row(&mut self, down: bool, mut work: impl FnMut(&mut Self, &mut Vec<usize>)) {
        for at in 0..self.rows.len() {
            let at = if down { at } else { self.rows.len() - 1 - at };
            let Some(mut row) = self.rows.get_mut(at).map(std::mem::take) else { continue };
            work(self, &mut row);
            if let Some(place) = self.rows.get_mut(at) {
                *place = row;
            }
        }
    }

    fn set(&mut self, vertex: usize, x: f64) {
        if let Some(place) = self.x.get_mut(vertex) {
            *place = x;
        }
    }

    /// Orders every row by the means of its neighbours; `x` is the place in the row.
    fn order(&mut self, down: bool) {
        self.each_row(down, |grid, row| {
            let own = |vertex: usize| grid.x.get(vertex).copied().unwrap_or_default();
            let mut keyed: Vec<(f64, usize)> = row
                .iter()
                .map(|vertex| (grid.mean(*vertex, down).unwrap_or_else(|| own(*vertex)), *vertex))
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            *row = keyed.into_iter().map(|(_, vertex)| vertex).collect();
            for (at, vertex) in row.iter().enumerate() {
                grid.set(*vertex, at as f64);
            }
        });
    }

    /// Half of both widths and a gap: how far two middles must be apart.
    fn apart(&self, a: usize, b: usize) -> f64 {
        let half = |vertex: usize| self.widths.get(vertex).copied().unwrap_or_default() / 2.0;
        half(a) + half(b) + GAP
    }

    /// Boxes of a row one beside the other.
    fn pack(&mut self) {
        self.each_row(true, |grid, row| {
            let mut x = 0.0;
            let mut before = None;
            for vertex in row.iter() {
                x += before.map_or(0.0, |before| grid.apart(before, *vertex));
                grid.set(*vertex, x);
                before = Some(*vertex);
            }
        });
    }

    /// Moves every box to the mean of its neighbours, or as near as the order and the widths allow: the least squares
    /// answer, found by pooling neighbours that would overlap.
    fn pull(&mut self, down: bool) {
        self.each_row(down, |grid, row| {
            let mut offsets = Vec::with_capacity(row.len());
            let mut offset = 0.0;
            let mut before = None;
            // (sum of what is wished, how many)
            let mut pools: Vec<(f64, usize)> = Vec::new();
            for vertex in row.iter() {
                offset += before.map_or(0.0, |before| grid.apart(before, *vertex));
                before = Some(*vertex);
                offsets.push(offset);
                let own = grid.x.get(*vertex).copied().unwrap_or_default();
                let mut pool = (grid.mean(*vertex, down).unwrap_or(own) - offset, 1);
                while let Some(last) =
                    pools.last().filter(|last| last.0 / last.1 as f64 >= pool.0 / pool.1 as f64)
                {
                    pool = (pool.0 + last.0, pool.1 + last.1);
                    pools.pop();
                }
                pools.push(pool);
            }
            let wished =
                pools.iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / *count as f64, *count));
            let placed: Vec<f64> = wished.zip(offsets).map(|(wish, offset)| wish + offset).collect();
            for (vertex, x) in row.iter().zip(placed) {
                grid.set(*vertex, x);
            }
        });
    }
}
