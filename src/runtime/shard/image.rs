//! What is kept of an unfinished run so that its events so far need not be read at start, as bytes
//! (`docs/formats/checkpoint.md`): version, checksum, the engine's semantics, what the shard knows, the run.
//!
//! A shard hands out a copy of the run ([`Taken`]); the bytes are made on the index thread. Bytes that are damaged, or that
//! this binary cannot go on from, are refused: the caller drops all images of the shard and reads its events instead.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::recover::Sources;
use crate::engine::{IMAGE_VERSION, ImageError, Run};
use crate::ir::{Ir, SEMANTICS_VERSION};
use crate::model::{Content, FrameRef, Kept, RunId, Seq, Status, Value, kept};
use crate::store::images::Image;
use crate::time::Timestamp;

/// Version, checksum and semantics.
const HEAD_BYTES: usize = 9;

/// A run as it was once, on its way to the index.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(super) run: Run,
    pub(super) notes: Notes,
    /// Its values that are written as references.
    pub(super) contents: Option<Arc<Kept>>,
}

/// What the shard knows of a run besides its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Notes {
    /// Where the events are that made the run what it is.
    pub(super) frames: SmallVec<[FrameRef; 2]>,
    /// So many of the frames hold no later events of the run.
    pub(super) covers: u32,
    /// What the acknowledgement of the start said.
    pub(super) acknowledged: Option<(Status, Seq)>,
    /// No event of the run is later.
    pub(super) at: Timestamp,
}

/// Why bytes are no image to go on from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Cut, or changed.
    #[error("its checksum does not fit")]
    Checksum,
    /// Another layout.
    #[error("it has version {found}; this node knows {IMAGE_VERSION}")]
    Version {
        /// The image's.
        found: u8,
    },
    /// What the shard knows does not decode.
    #[error("it does not decode: {0}")]
    Undecodable(String),
    /// It stands under the id of another run.
    #[error("it is of run {of}")]
    OtherRun {
        /// Whose it is.
        of: RunId,
    },
    /// The engine cannot go on from it.
    #[error(transparent)]
    Run(#[from] ImageError),
}

/// Where a run's graph comes from, and its values that are written as references.
pub(super) enum Graphs<'g> {
    /// It is this one; there are no such values.
    Known(Arc<Ir>),
    /// By its documents.
    Find(&'g mut dyn Sources),
}

/// What is in the index now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Whose image.
    pub(crate) run_id: RunId,
    /// So many of the run's frames need not be read any more.
    pub(crate) covers: usize,
    /// What it weighed on the way.
    pub(crate) weight: usize,
    /// The image.
    pub(crate) image: Arc<[u8]>,
}

impl Taken {
    /// The image, and what to tell the shard when it is in the index.
    ///
    /// # Errors
    /// A value cannot be written down.
    pub(crate) fn encode(&self) -> Result<(Image, Saved), Unusable> {
        let (run_id, covers) = (self.run.id(), self.notes.covers as usize);
        let bytes: Arc<[u8]> =
            kept::naming(self.contents.as_ref(), || encode(&self.run, &self.notes))?.into();
        let saved = Saved { run_id, covers, weight: self.run.value_bytes(), image: bytes.clone() };
        Ok((Image { run_id, bytes }, saved))
    }
}

pub(super) fn encode(run: &Run, notes: &Notes) -> Result<Vec<u8>, Unusable> {
    let mut bytes = vec![0; HEAD_BYTES];
    bytes = postcard::to_extend(notes, bytes).map_err(|error| Unusable::Undecodable(error.to_string()))?;
    bytes.extend(run.to_image()?);
    let (head, rest) = bytes.split_at_mut(HEAD_BYTES);
    let (sum, semantics) = head.split_at_mut(HEAD_BYTES - 4);
    semantics.copy_from_slice(&SEMANTICS_VERSION.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(semantics), rest);
    if let Some((version, sum)) = sum.split_first_mut() {
        *version = IMAGE_VERSION;
        sum.copy_from_slice(&checksum.to_le_bytes());
    }
    Ok(bytes)
}

/// What an image says.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) run: Run,
    pub(super) notes: Notes,
    /// The values that were written as references; why one is not to be had, and then the run is of no use but to be shown.
    pub(super) contents: Result<Option<Arc<Kept>>, String>,
}

/// Reads an image of `run_id`.
pub(super) fn decode(run_id: RunId, bytes: &[u8], mut graphs: Graphs<'_>) -> Result<Decoded, Unusable> {
    let (version, rest) = bytes.split_first().ok_or(Unusable::Checksum)?;
    if *version != IMAGE_VERSION {
        return Err(Unusable::Version { found: *version });
    }
    let (sum, checked) = rest.split_first_chunk::<4>().ok_or(Unusable::Checksum)?;
    if crc32c::crc32c(checked) != u32::from_le_bytes(*sum) {
        return Err(Unusable::Checksum);
    }
    let (semantics, rest) = checked.split_first_chunk::<4>().ok_or(Unusable::Checksum)?;
    let found = u32::from_le_bytes(*semantics);
    if found != SEMANTICS_VERSION {
        return Err(ImageError::Semantics { found }.into());
    }
    let (notes, rest) =
        postcard::take_from_bytes::<Notes>(rest).map_err(|error| Unusable::Undecodable(error.to_string()))?;
    let (run, contents) = graphs.run_in_full(rest)?;
    if run.id() != run_id {
        return Err(Unusable::OtherRun { of: run.id() });
    }
    Ok(Decoded { run, notes, contents })
}

/// What can be seen of an image without a shard.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Number of the last event in it.
    pub(crate) seq: Seq,
    /// Where its events are.
    pub(crate) frames: SmallVec<[FrameRef; 2]>,
    /// A content that the run needs and that is not there; in words.
    pub(crate) missing: Option<String>,
}

/// Reads an image of `run_id` to look it over.
///
/// # Errors
/// It is of no use.
pub(crate) fn look(run_id: RunId, bytes: &[u8], sources: &mut impl Sources) -> Result<Looked, Unusable> {
    let Decoded { run, notes, contents } = decode(run_id, bytes, Graphs::Find(sources))?;
    Ok(Looked { seq: run.seq(), frames: notes.frames, missing: contents.err() })
}

type InFull = (Run, Result<Option<Arc<Kept>>, String>);

impl Graphs<'_> {
    fn run(&mut self, bytes: &[u8]) -> Result<Run, ImageError> {
        match self {
            Self::Known(ir) => Run::from_image_with(bytes, ir.clone()),
            Self::Find(sources) => Run::from_image(bytes, *sources),
        }
    }

    fn content(&mut self, content: &Content) -> Result<Value, String> {
        match self {
            Self::Known(_) => Err(format!("{content} is not at hand")),
            Self::Find(sources) => sources.content(content),
        }
    }

    fn run_in_full(&mut self, bytes: &[u8]) -> Result<InFull, ImageError> {
        let (run, contents) = kept::noting(|| self.run(bytes));
        if contents.is_empty() {
            return Ok((run?, Ok(None)));
        }
        let mut table = Kept::default();
        for content in contents {
            if table.value(&content.sha256).is_none() {
                match self.content(&content) {
                    Ok(value) => table.add(content, value),
                    Err(why) => return Ok((kept::showing(|| self.run(bytes))?, Err(why))),
                }
            }
        }
        let table = Arc::new(table);
        let run = kept::loading(&table, || self.run(bytes))?;
        Ok((run, Ok(Some(table))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{self, Format};
    use crate::engine::command::Start;
    use crate::engine::{Input, Outcome, advance};
    use crate::model::event::{DocumentHash, Idempotency};
    use crate::model::{Event, Partition};

    const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/image-v3.bin");

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    struct Known(Option<Arc<Ir>>);

    impl crate::engine::Graphs for Known {
        fn of(&mut self, document: &DocumentHash) -> Option<Arc<Ir>> {
            self.0.clone().filter(|ir| ir.document == *document)
        }
    }

    impl Sources for Known {
        fn content(&mut self, content: &Content) -> Result<Value, String> {
            Err(content.to_string())
        }

        fn ended(&mut self, _: RunId) -> Result<Option<Timestamp>, String> {
            Ok(None)
        }
    }

    fn ir() -> Arc<Ir> {
        let source = br#"{"aob": "1", "name": "golden", "version": "7", "nodes": {
            "first": {"type": "function", "with": {"expr": "{'sum': inputs.n + 1, 'text': inputs.text}"}},
            "each": {"type": "map", "with": {"over": "[1, 2, 3]", "body": {"type": "wait", "with": {"signal": "item"}}}},
            "hear": {"type": "wait", "timeout": "9h", "with": {"signal": "go"}},
            "call": {"type": "http", "with": {"url": "http://localhost/"}},
            "ask": {"type": "human_review", "timeout": "2h", "with": {"reviewers": ["ops"]}}},
            "edges": [{"from": "first", "to": "hear"}, {"from": "first", "to": "each"}]}"#;
        compile::compile(source, Format::Json, &compile::Options::default()).unwrap().ir
    }

    /// A run in the middle of its life.
    fn run() -> (Run, Notes) {
        let inputs = [("n".into(), Value::Int(-4)), ("text".into(), Value::String("häh".into()))];
        let start = Start {
            run_id: RunId::new(at(5), Partition::new(3), [9; 10]),
            ir: ir(),
            inputs: Value::Map(Arc::new(crate::model::Map::new(inputs.to_vec()).unwrap())),
            seed: 77,
            idempotency: Some(Idempotency { key: [1; 16], fingerprint: [2; 16] }),
            run_key: None,
            mode: None,
            layered: None,
            deadline: Some(std::time::Duration::from_secs(90_000)),
            parent: None,
        };
        let event = Event { seq: 1, at: at(10), body: Run::begin(&start, at(10), 3) };
        let mut run = Run::from_started(start.run_id, start.ir.clone(), &event).unwrap();
        let early = Value::String("kept".into());
        let mut out = Outcome::default();
        advance(&mut run, Input::Continue, at(11), 1_000, &mut out).unwrap();
        for name in ["item", "item", "later"] {
            let input = Input::Signal { name, payload: &early, key: None };
            advance(&mut run, input, at(12), 1_000, &mut out).unwrap();
        }
        let notes = Notes {
            frames: [FrameRef { segment: 1, offset: 4096 }, FrameRef { segment: 3, offset: 0 }]
                .into_iter()
                .collect(),
            covers: 1,
            acknowledged: Some((Status::Running, 4)),
            at: at(13),
        };
        (run, notes)
    }

    fn read(run_id: RunId, bytes: &[u8]) -> Result<(Run, Notes), Unusable> {
        let decoded = decode(run_id, bytes, Graphs::Find(&mut Known(Some(ir()))))?;
        assert_eq!(decoded.contents.map(|contents| contents.is_none()), Ok(true));
        Ok((decoded.run, decoded.notes))
    }

    // RELIABILITY 2.7, F303: what an earlier build wrote is read, and written the same.
    #[test]
    fn a_golden_image_comes_back() {
        let (run, notes) = run();
        if std::env::var_os("AOB_GOLDEN_BLESS").is_some() {
            std::fs::write("tests/golden/image-v3.bin", encode(&run, &notes).unwrap()).unwrap();
            return;
        }
        let (again, and_notes) = read(run.id(), GOLDEN).unwrap();
        assert_eq!(format!("{:?}", again.view()), format!("{:?}", run.view()));
        assert_eq!(again.timers().collect::<Vec<_>>(), run.timers().collect::<Vec<_>>());
        assert_eq!(again.dispatches(), run.dispatches());
        assert_eq!(and_notes, notes);
        assert_eq!(encode(&again, &and_notes).unwrap(), GOLDEN);
    }

    // RELIABILITY B11
    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let (run, notes) = run();
        let bytes = encode(&run, &notes).unwrap();
        assert_eq!(read(run.id(), &bytes), Ok((run.clone(), notes)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            assert!(read(run.id(), &damaged).is_err(), "byte {at}");
            assert!(read(run.id(), &bytes[..at]).is_err(), "cut at {at}");
        }
        let other = RunId::from_bytes([7; 16]);
        assert_eq!(read(other, &bytes), Err(Unusable::OtherRun { of: run.id() }));
        let unknown = decode(run.id(), &bytes, Graphs::Find(&mut Known(None)));
        assert_eq!(unknown.unwrap_err(), ImageError::NoDocument.into());
    }

    #[test]
    fn an_image_of_another_version_or_meaning_is_refused_by_name() {
        let (run, notes) = run();
        let mut bytes = encode(&run, &notes).unwrap();
        bytes[0] += 1;
        assert_eq!(read(run.id(), &bytes), Err(Unusable::Version { found: IMAGE_VERSION + 1 }));
        bytes[0] -= 1;
        bytes[5] += 1;
        let checksum = crc32c::crc32c(&bytes[5..]);
        bytes[1..5].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(
            read(run.id(), &bytes),
            Err(ImageError::Semantics { found: SEMANTICS_VERSION + 1 }.into())
        );
    }
}
