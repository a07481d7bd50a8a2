//! The chain over a run, and what seals say of it.

use std::path::Path;

use super::super::seal;
use super::super::tests::{CLUSTER, log_of_two_runs, move_all};
use super::*;
use crate::store::layout::history_dir;
use crate::store::signing::SigningKey;
use crate::store::testing::run_id;

fn audit(root: &Path, frames: &[FrameRef], key: Option<&PublicKey>) -> RunAudit {
    let query = Query { run_id: run_id(1), shard: 0, frames, class: None, after: 28, limit: 100 };
    History::new(root, CLUSTER).audit(&query, 30, key).unwrap()
}

// N19
#[test]
fn the_chain_is_the_same_in_the_journal_and_in_history_and_made_of_what_is_stored() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 10);
    let before = audit(root.path(), &frames, None);
    assert_eq!((before.events, before.finding.clone(), before.sealed.len()), (30, None, 0));
    // By hand, over what is read back.
    let history = History::new(root.path(), CLUSTER);
    let query = Query { run_id: run_id(1), shard: 0, frames: &frames, class: None, after: 0, limit: 100 };
    let mut head: Digest =
        Sha256::new().chain_update(DOMAIN).chain_update(run_id(1).as_bytes()).finalize().into();
    for event in history.events(&query).unwrap() {
        let bytes = postcard::to_stdvec(&event.body).unwrap();
        let link =
            [&head[..], &event.seq.to_le_bytes(), &event.at.as_micros().to_le_bytes(), &bytes].concat();
        head = Sha256::digest(link).into();
    }
    assert_eq!(before.head, head);
    assert_eq!(before.links.iter().map(|link| link.seq).collect::<Vec<_>>(), [29, 30]);
    assert_eq!(before.links[1].hash, head);

    let key = SigningKey::from_seed(&[5; 32]).unwrap();
    let moved = move_all(root.path(), &key);
    assert!(moved > 1, "{moved}");
    let after = audit(root.path(), &frames, Some(&key.public()));
    assert_eq!((after.head, after.finding), (head, None));
    assert_eq!(after.sealed.len(), moved);
    assert_eq!(after.sealed[0].first, 1);
    let other = SigningKey::from_seed(&[6; 32]).unwrap();
    assert_eq!(audit(root.path(), &frames, Some(&other.public())).finding.unwrap().code, "seal_forged");
}

// N19
#[test]
fn what_is_cut_left_out_or_doubled_is_named_with_its_first_event() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 10);
    let found = |frames: &[FrameRef]| {
        let finding = audit(root.path(), frames, None).finding.unwrap();
        (finding.code, finding.seq.unwrap(), finding.run_id)
    };
    let own = Some(run_id(1));
    assert_eq!(found(&frames[..8]), ("events_cut", 25, own), "the end is missing");
    assert_eq!(
        found(&[&frames[..3], &frames[4..]].concat()),
        ("journal_corrupt", 10, own),
        "one is left out"
    );
    assert_eq!(
        found(&[&frames[..3], &frames[2..]].concat()),
        ("journal_corrupt", 10, own),
        "one is there twice"
    );
    let mut turned = frames.clone();
    turned.swap(4, 5);
    assert_eq!(found(&turned), ("journal_corrupt", 13, own), "two have changed places");
}

// N19
#[test]
fn a_file_written_anew_with_another_event_does_not_fit_its_seal() {
    let root = tempfile::tempdir().unwrap();
    let frames = log_of_two_runs(root.path(), 10);
    let key = SigningKey::from_seed(&[5; 32]).unwrap();
    move_all(root.path(), &key);
    let dir = history_dir(root.path(), 0);
    // Another node's history of the same runs, whose events differ: sound in itself, checksums and all.
    let elsewhere = tempfile::tempdir().unwrap();
    super::super::tests::log_of_runs(elsewhere.path(), 10, "nur");
    move_all(elsewhere.path(), &key);
    let segment = frames[3].segment;
    let name = |root: &Path| {
        let dir = history_dir(root, 0);
        let names = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        let of_segment = format!("{segment:016x}-");
        names
            .into_iter()
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&of_segment))
            .unwrap()
    };
    std::fs::copy(name(elsewhere.path()), name(root.path())).unwrap();
    let finding = audit(root.path(), &frames, None).finding.unwrap();
    assert_eq!(finding.code, "event_changed", "{finding:?}");
    let first = frames.iter().position(|frame| frame.segment == segment).unwrap() as u64 * 3 + 1;
    assert_eq!(finding.seq, Some(first), "{finding:?}");
    // With its seal taken along it fits, but the next seal does not follow it.
    let seal = seal::name(segment);
    std::fs::copy(history_dir(elsewhere.path(), 0).join(&seal), dir.join(&seal)).unwrap();
    let mut report = super::super::verify::Report::default();
    History::new(root.path(), CLUSTER).verify(0, Some(&key.public()), &mut report).unwrap();
    assert!(report.findings.iter().any(|finding| finding.code == "seal_missing"), "{report:?}");
}
