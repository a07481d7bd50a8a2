//! Keys of the index. Big-endian, so that they sort as their numbers do.

use std::collections::BTreeSet;

use crate::model::{ContentHash, FrameRef, RunId, Seq, Status, Workspace};
use crate::store::archive::ArchiveRow;
use crate::store::history::FileId;
use crate::time::Timestamp;

/// A slot of a list is 64 ms: at 50,000 runs a second it has 50 KiB.
const SLOT_BITS: u32 = 6;

/// The segments that frames lie in.
pub(super) fn segments(frames: &[FrameRef]) -> BTreeSet<u64> {
    frames.iter().map(|frame| frame.segment).collect()
}

/// A segment of a shard.
pub(super) fn segment(shard: u16, segment: u64) -> [u8; 10] {
    let mut key = [0; 10];
    let (head, tail) = key.split_at_mut(2);
    head.copy_from_slice(&shard.to_be_bytes());
    tail.copy_from_slice(&segment.to_be_bytes());
    key
}

/// The image of a run.
pub(super) fn image(shard: u16, run_id: RunId) -> [u8; 18] {
    let mut key = [0; 18];
    let (head, tail) = key.split_at_mut(2);
    head.copy_from_slice(&shard.to_be_bytes());
    tail.copy_from_slice(run_id.as_bytes());
    key
}

/// A version of a run's graph.
pub(super) fn artifact((run_id, version): (RunId, u32)) -> [u8; 20] {
    let mut key = [0; 20];
    let (head, tail) = key.split_at_mut(16);
    head.copy_from_slice(run_id.as_bytes());
    tail.copy_from_slice(&version.to_be_bytes());
    key
}

/// The run that such a key ends with.
pub(super) fn parse_run(key: &[u8]) -> Option<RunId> {
    Some(RunId::from_bytes(*key.last_chunk::<16>()?))
}

/// Under which business key a run is found.
pub(super) fn run_key_of(row: &ArchiveRow) -> Option<Vec<u8>> {
    let summary = &row.summary;
    Some(run_key(&Workspace::of(&summary.workflow), row.run_key.as_ref()?, summary.run_id))
}

/// A run with a business key. The key's length stands before it, so that no key is the beginning of another.
pub(super) fn run_key(workspace: &Workspace, run_key: &str, run_id: RunId) -> Vec<u8> {
    let length = u16::try_from(run_key.len()).unwrap_or(u16::MAX).to_be_bytes();
    [workspace.name().as_bytes(), &[0], &length, run_key.as_bytes(), run_id.as_bytes()].concat()
}

/// An event of a run.
pub(super) fn event(run_id: RunId, seq: Seq) -> [u8; 24] {
    let mut key = [0; 24];
    let (head, tail) = key.split_at_mut(16);
    head.copy_from_slice(run_id.as_bytes());
    tail.copy_from_slice(&seq.to_be_bytes());
    key
}

/// A content as a workspace has it, or as all do. Names of workspaces hold no zero byte.
pub(super) fn content(content: &ContentHash, workspace: Option<&Workspace>) -> Vec<u8> {
    let within = workspace.map(|workspace| [workspace.name().as_bytes(), &[0]].concat());
    [&content[..], &within.unwrap_or_default()].concat()
}

/// A name, as inside the node, that a document is registered under.
pub(super) fn document_name(hash: &ContentHash, name: &str) -> Vec<u8> {
    [&content(hash, Some(&Workspace::of(name)))[..], name.as_bytes()].concat()
}

/// When an idempotency key may be forgotten.
pub(super) fn expiry(at: Timestamp, key: &[u8; 16]) -> Vec<u8> {
    [&at.as_micros().to_be_bytes()[..], key].concat()
}

/// Time and key of an expiry entry.
pub(super) fn parse_expiry(entry: &[u8]) -> Option<(Timestamp, [u8; 16])> {
    let at = u64::from_be_bytes(*entry.first_chunk::<8>()?);
    Some((Timestamp::from_micros(at), *entry.last_chunk::<16>()?))
}

/// Something of a workflow. Names hold no zero byte.
pub(super) fn named(name: &str, rest: &[u8]) -> Vec<u8> {
    [name.as_bytes(), &[0], rest].concat()
}

/// The name in such a key.
pub(super) fn name(key: &[u8]) -> String {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    String::from_utf8_lossy(key.get(..end).unwrap_or_default()).into_owned()
}

/// The order number that ends such a key.
pub(super) fn order(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk::<8>()?))
}

/// Whose runs a list has. A workspace and a workflow may have the same name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose<'a> {
    Workspace(&'a str),
    Workflow(&'a str),
}

/// Finished runs with a status, whose ids were made within one [`slot`].
pub(super) fn list(whose: Whose<'_>, status: Status, slot: u64) -> Vec<u8> {
    let (kind, name) = match whose {
        Whose::Workspace(name) => (0, name),
        Whose::Workflow(name) => (1, name),
    };
    let status = match status {
        Status::Completed => 1,
        Status::Failed => 2,
        Status::Cancelled => 3,
        Status::Pending | Status::Running | Status::Paused => 0,
    };
    [&[kind], name.as_bytes(), &[0, status], &slot.to_be_bytes()].concat()
}

/// Which slot a run is listed in. Ids sort by it.
pub(super) fn slot(run_id: RunId) -> u64 {
    run_id.created_millis() >> SLOT_BITS
}

/// A history file.
pub(super) fn file(file: FileId) -> [u8; 11] {
    let mut key = [0; 11];
    let (head, class) = key.split_at_mut(10);
    head.copy_from_slice(&segment(file.shard, file.segment));
    class.copy_from_slice(&[file.class.into()]);
    key
}

/// The file that such a key ends with.
pub(super) fn parse_file(key: &[u8]) -> Option<FileId> {
    let [a, b, segment @ .., class] = key.last_chunk::<11>()?;
    Some(FileId {
        shard: u16::from_be_bytes([*a, *b]),
        segment: u64::from_be_bytes(*segment),
        class: (*class).try_into().ok()?,
    })
}

/// A number of runs in a history file.
pub(super) fn file_runs(of: FileId, number: u32) -> Vec<u8> {
    [&file(of)[..], &number.to_be_bytes()].concat()
}

/// A run in a history file.
pub(super) fn in_file(of: FileId, run_id: RunId) -> Vec<u8> {
    [&file(of)[..], run_id.as_bytes()].concat()
}

/// The file of such a key.
pub(super) fn parse_in_file(key: &[u8]) -> Option<FileId> {
    parse_file(key.get(..11)?)
}

/// When a history file may go.
pub(super) fn file_expiry(at: Timestamp, of: FileId) -> Vec<u8> {
    [&at.as_micros().to_be_bytes()[..], &file(of)].concat()
}

/// The last such key of all that are due.
pub(super) fn file_expiry_end(now: Timestamp) -> Vec<u8> {
    [&now.as_micros().to_be_bytes()[..], &[0xff; 12]].concat()
}
