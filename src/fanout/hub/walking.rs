//! What the feed and its walks need done: questions to shards, and reads of history on blocking threads, in line with all others.
//!
//! A question for which there is no room is asked again, in the next turn or when the hub stirs.

use super::{About, Hub, Job};
use crate::engine::command::{Command, Located, Refusal, Reply, Stretch};
use crate::fanout::group;
use crate::fanout::source::{Location, Source, SourceError};
use crate::fanout::walk::{Need, Parcel, Piece};
use crate::limits;
use crate::model::{RunFilter, RunId};
use crate::time::Clock as _;

/// Events of a run that are read at once.
const EVENTS_AT_ONCE: usize = 64;

/// What was read for a walk.
pub(super) enum Walked {
    Finished(Result<(Vec<Location>, Option<RunId>), SourceError>),
    Found(Result<Vec<Location>, SourceError>),
    Read(Vec<Piece>),
}

impl Hub {
    /// Tells shards whether feeds are wanted of them.
    pub(super) fn ask_for_feeds(&mut self) {
        let (now_us, pushes) = (self.clock.monotonic_us(), self.parts.pushes.stats().depth());
        for (shard, wanted) in self.feed.wish(now_us, pushes) {
            let command = Command::Feed { hub: self.parts.index, wanted };
            if !self.question(shard, command, About::Feed(shard, wanted)) {
                self.feed.on_told(shard, (wanted, false));
            }
        }
    }

    /// Does what walks need.
    pub(super) fn serve_walks(&mut self) {
        for (id, need) in self.feed.needs() {
            let Some(filter) = self.feed.filter_of(id) else { continue };
            let asked = match need {
                Need::List { shard, from, before, limit } => {
                    let stretch = Stretch { from, before, filter, limit };
                    self.question(shard, Command::Ids(Box::new(stretch)), About::Ids(id, limit))
                }
                Need::Locate(run_id) => {
                    let shard = self.shard_of(run_id);
                    self.question(shard, Command::Locate(run_id), About::Place(id, run_id))
                }
                Need::Finished { .. } | Need::Find(_) | Need::Read(..) => {
                    self.jobs.push_back(Job::Walk(id, filter, need));
                    continue;
                }
            };
            if !asked {
                self.feed.still_needs(id, need);
            }
        }
        self.start_jobs();
    }

    /// A shard has said which runs it has.
    pub(super) fn on_ids(&mut self, id: u64, limit: usize, reply: Reply) {
        // All that the shard pushed before it took the question is in the queue by now.
        let upto = self.feed.taken() + self.parts.pushes.stats().depth() as u64;
        self.feed.with_walk(id, |walk, _, _| match reply {
            Reply::Ids(run_ids) => walk.on_listed(run_ids, limit, upto),
            _ => walk.give_up(),
        });
    }

    /// A shard has said where a run stands.
    pub(super) fn on_place(&mut self, (id, run_id): (u64, RunId), reply: Reply) {
        let shard = self.shard_of(run_id);
        self.feed.with_walk(id, |walk, _, needs| match reply {
            Reply::Located(located) => walk.on_located(Location { shard, located }, needs),
            Reply::Refused(Refusal::NotFound(_)) => walk.on_unlocated(run_id, needs),
            _ => walk.give_up(),
        });
    }

    pub(super) fn on_walked(&mut self, id: u64, walked: Walked) {
        self.feed.with_walk(id, |walk, reader, needs| match walked {
            Walked::Finished(Ok((found, last))) => walk.on_finished(found, last, needs),
            Walked::Found(Ok(found)) => walk.on_found(found),
            Walked::Finished(Err(_)) | Walked::Found(Err(_)) => walk.give_up(),
            Walked::Read(pieces) => walk.on_read(pieces, reader),
        });
    }
}

/// Reads what a walk needs; on a blocking thread.
pub(super) fn work(source: &dyn Source, filter: RunFilter, need: Need) -> Option<Walked> {
    Some(match need {
        Need::Finished { from, before, limit } => {
            let stretch = Stretch { from, before, filter, limit };
            Walked::Finished(source.stretch(&stretch))
        }
        Need::Find(run_ids) => {
            let found = run_ids.iter().map(|run_id| source.finished(*run_id));
            let found = found.filter_map(Result::transpose).collect();
            Walked::Found(found)
        }
        Need::Read(parcels, limit) => Walked::Read(read(source, &parcels, limit)),
        Need::List { .. } | Need::Locate(_) => return None,
    })
}

/// Events of these runs, one run after the other, as many as a reader's buffer takes.
fn read(source: &dyn Source, parcels: &[Parcel], limit: usize) -> Vec<Piece> {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    for parcel in parcels {
        let Location { located, .. } = &*parcel.location;
        let (run_id, end) = (located.summary.run_id, located.summary.seq);
        let mut after = parcel.after;
        while after < end {
            let room = limit.saturating_sub(pieces.len());
            if room == 0 || bytes >= limits::SUBSCRIBER_BYTES_MAX {
                return pieces;
            }
            let few = usize::try_from(end - after).unwrap_or(usize::MAX).min(room).min(EVENTS_AT_ONCE);
            let names = match parcel.graph.get() {
                Some(names) => Ok(names.clone()),
                None => source.graph(&parcel.location),
            };
            let read = names.and_then(|names| Ok((names, source.events(&parcel.location, after, few)?)));
            let before = after;
            if let Ok((names, events)) = &read {
                let names = parcel.graph.get_or_init(|| names.clone());
                for event in events.iter().take_while(|event| event.seq <= end) {
                    if event.seq != after + 1 {
                        break;
                    }
                    after = event.seq;
                    let frame = group::frame(run_id, names.as_deref(), (after, event.at), &event.body);
                    bytes += frame.size_bytes();
                    pieces.push(Piece::Event(after, frame));
                }
            }
            if after == before {
                pieces.push(why_not(source, located, read.is_err()));
                if let Some(Piece::Gone) = pieces.last() {
                    break;
                }
                return pieces;
            }
        }
    }
    pieces
}

/// Events that must be there could not be read: because the run was forgotten since it was looked up?
fn why_not(source: &dyn Source, located: &Located, failed: bool) -> Piece {
    // What comes from a shard has a graph, and is not forgotten before it was in the archive.
    let was_archived = located.graph.is_none();
    match source.finished(located.summary.run_id) {
        Ok(None) if was_archived => Piece::Gone,
        Ok(_) if !failed => Piece::Missing,
        _ => Piece::Failed,
    }
}
