//! What happens to a disk while nobody looks: bits that turn, writes that went to another place or nowhere, files gone.
//!
//! All of it strikes what was synced, so nothing in the node can prevent it; it must be seen. Each blow can be undone, as
//! from a copy, unless the place was written since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{BLOCK_BYTES, Block, SimulatedDisk};

/// Kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// One bit of a block.
    Flip,
    /// A block holds zeros: its write went nowhere.
    Lost,
    /// A write went to the place of another block: that one is overwritten, its own place holds zeros.
    Misdirected,
    /// Two blocks have changed places.
    Swapped,
    /// A file has gone.
    Missing,
}

impl Damage {
    pub(crate) const ALL: [Self; 5] =
        [Self::Flip, Self::Lost, Self::Misdirected, Self::Swapped, Self::Missing];
}

/// A place: a file and the number of a block.
type Place = (u64, u64);

/// A blow, and how it is undone.
#[derive(Debug, Default)]
pub(crate) struct Blow {
    /// (place, what was there, what is there now).
    blocks: Vec<(Place, Block, Block)>,
    name: Option<(PathBuf, u64)>,
}

impl Blow {
    /// Has a file lost its name?
    pub(crate) fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// The same, but for a file that has lost its name.
    pub(crate) fn without_name(self) -> Self {
        Self { name: None, ..self }
    }
}

impl SimulatedDisk {
    /// Strikes files whose names `fits`; `None` when there is nothing to strike. To be used after a power cut: nothing is
    /// in the cache.
    pub(crate) fn strike(&self, damage: Damage, fits: impl Fn(&Path) -> bool) -> Option<Blow> {
        let mut image = self.0.borrow_mut();
        let named: BTreeMap<u64, PathBuf> = image
            .names
            .iter()
            .filter(|(path, _)| fits(path))
            .map(|(path, file)| (*file, path.clone()))
            .collect();
        let mut places: Vec<Place> = Vec::new();
        for file in named.keys() {
            let blocks = image.files.get(file).map(|content| content.durable.keys());
            places.extend(blocks.into_iter().flatten().map(|at| (*file, *at)));
        }
        let mut draws = [places.len() as u64, places.len() as u64, 8 * BLOCK_BYTES as u64];
        draws.iter_mut().for_each(|draw| *draw = image.random.draw(*draw));
        let [one, other] = [*places.get(draws[0] as usize)?, *places.get(draws[1] as usize)?];
        let bit = draws[2] as usize;
        let now = |place: Place| image.files.get(&place.0)?.durable.get(&place.1).cloned();
        let (first, second) = (now(one)?, now(other)?);
        let zeros: Block = Rc::new([0; BLOCK_BYTES]);
        let mut blow = Blow::default();
        match damage {
            Damage::Flip => {
                let mut bytes = *first;
                bytes[bit / 8] ^= 1 << (bit % 8);
                blow.blocks.push((one, first, Rc::new(bytes)));
            }
            Damage::Lost => blow.blocks.push((one, first, zeros)),
            Damage::Missing => {
                let path = named.get(&one.0)?;
                image.names.remove(path);
                image.durable_names.remove(path);
                blow.name = Some((path.clone(), one.0));
            }
            _ if one == other => return None,
            Damage::Misdirected => {
                blow.blocks.push((other, second, first.clone()));
                blow.blocks.push((one, first, zeros));
            }
            Damage::Swapped => {
                blow.blocks.push((other, second.clone(), first.clone()));
                blow.blocks.push((one, first, second));
            }
        }
        for ((file, at), _, after) in &blow.blocks {
            image.content(*file).durable.insert(*at, after.clone());
        }
        Some(blow)
    }

    /// Puts back what was there, where nothing was written since.
    pub(crate) fn mend(&self, blow: Blow) {
        let mut image = self.0.borrow_mut();
        for ((file, at), before, after) in blow.blocks {
            let Some(content) = image.files.get_mut(&file) else { continue };
            if content.durable.get(&at).is_some_and(|now| Rc::ptr_eq(now, &after)) {
                content.durable.insert(at, before);
            }
        }
        if let Some((path, file)) = blow.name {
            image.names.entry(path.clone()).or_insert(file);
            image.durable_names.entry(path).or_insert(file);
        }
    }
}
