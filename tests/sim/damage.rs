//! A disk that is damaged while the machine is off (RELIABILITY B10, B12): the node must refuse to start and say so, or serve
//! everything; never a shorter history as if it were whole. Then the damage is mended, as from a copy of the disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::node::{self, ROOT};
use super::world::World;
use crate::io::disk::simulated::damage::{Blow, Damage};
use crate::model::FrameRef;
use crate::store::log::frame::{self, ALIGN_BYTES};
use crate::store::log::{Source, recover_frames, segment};
use crate::store::{Error, Position};

/// The batches of a journal as recovery finds them without any help of the index, and where it ends.
type Found = Result<(Vec<FrameRef>, Position), Error>;

/// What is damaged now, until it is mended.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    blow: Option<Blow>,
    /// Recovery of all the files refuses.
    seen: bool,
}

fn read(shard: u16) -> Found {
    let (dir, marks) = (node::shard_dir(shard), BTreeMap::new());
    let mut frames = Vec::new();
    let recovered = recover_frames(
        Source { dir: &dir, identity: node::identity(shard), marks: &marks },
        &mut |frame, _| {
            frames.push(frame);
            Ok(())
        },
    )?;
    Ok((frames, recovered.next))
}

/// The highest position that a sound frame of a journal says to be synced.
fn evidence(world: &World, shard: u16) -> Position {
    let dir = node::shard_dir(shard);
    let Ok(listing) = segment::list(&dir) else { return 0 };
    let mut highest = 0;
    for id in listing.segments.keys() {
        let bytes = world.disk.peek(&segment::path(&dir, *id)).unwrap_or_default();
        for at in (0..bytes.len()).step_by(ALIGN_BYTES) {
            let Some(found) = bytes.get(at..).and_then(frame::decode) else { continue };
            if found.header.segment == *id && found.header.offset as usize == at {
                highest = highest.max(found.header.durable);
            }
        }
    }
    highest
}

/// Strikes the disk of a node that is down, when it is to be; gives what was done. A blow that nobody can see, because it
/// took the last write and everything that spoke of it, is taken back: the format says so (docs/formats/journal.md).
pub(super) fn strike(world: &World) -> Damaged {
    if !world.chance(world.options.damage) {
        return Damaged::default();
    }
    let faults = world.options.disk;
    world.disk.set_faults(Default::default());
    let damaged = struck(world);
    world.disk.set_faults(faults);
    damaged
}

fn struck(world: &World) -> Damaged {
    let kind = Damage::ALL[world.draw(Damage::ALL.len() as u64) as usize];
    let shards = 0..world.options.shards;
    let before: Vec<Found> = shards.clone().map(read).collect();
    let segments = |path: &Path| path.starts_with(ROOT) && path.extension().is_some_and(|end| end == "seg");
    let Some(blow) = world.disk.strike(kind, segments) else { return Damaged::default() };
    let mut seen = false;
    for shard in shards {
        let Ok((frames, next)) = &before[usize::from(shard)] else { continue };
        match read(shard) {
            Err(error) => {
                assert!(matches!(error, Error::Corrupt { .. } | Error::Record { .. }), "{error}");
                seen = true;
            }
            Ok((now, now_next)) if now == *frames && now_next == *next => {}
            Ok((now, now_next)) => {
                let known = evidence(world, shard);
                assert!(
                    now_next > known && frames.starts_with(&now),
                    "{kind:?}: a shorter journal is taken for whole: it ended at {next}, now at {now_next}, \
                     and {known} is known to be synced; {blow:?}"
                );
                world.disk.mend(blow);
                return Damaged::default();
            }
        }
    }
    world.tell(format_args!("the disk is damaged: {kind:?}, seen: {seen}"));
    Damaged { blow: Some(blow), seen }
}

impl Damaged {
    /// The node does not start. True when that is because of the damage, which is mended now.
    pub(super) fn refused(&mut self, world: &World, error: &Error) -> bool {
        if !matches!(error, Error::Corrupt { .. } | Error::Record { .. }) {
            return false;
        }
        assert!(self.seen, "refused without reason: {error}");
        world.sometimes("damage was refused");
        let Some(blow) = self.blow.take() else { return false };
        self.mended(world, blow);
        true
    }

    /// The node has served on with it: what it wrote since stays, and a name that was gone stays gone, for by now the segment
    /// of that name may be another or none.
    pub(super) fn mend(&mut self, world: &World) {
        if let Some(blow) = self.blow.take() {
            world.file_lost.set(world.file_lost.get() || blow.has_name());
            self.mended(world, blow.without_name());
        }
    }

    fn mended(&self, world: &World, blow: Blow) {
        world.tell(format_args!("the damage is mended"));
        world.disk.mend(blow);
    }
}
