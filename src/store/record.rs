//! How events of a run lie in a frame of the journal (`docs/formats/journal.md`, "Payload of a batch").
//!
//! A payload is a version byte and then *bursts*: what one decision made of one run. Writing appends to a
//! buffer that the caller reuses; a burst that can not be encoded leaves the buffer as it was. Reading never
//! trusts a length: a payload that was cut or changed gives an error, never a panic, and a burst is skipped
//! without decoding its events.

use std::sync::Arc;

use postcard::ser_flavors::Flavor;

use super::Error;
use crate::model::{Content, Event, EventBody, Kept, RunId, Seq, Value, kept};
use crate::time::Timestamp;

/// Version of the records, the first byte of every payload.
pub const VERSION: u8 = 1;

/// Bytes before a burst's events.
pub const BURST_HEAD_BYTES: usize = 40;

/// The fewest bytes an event takes: its variant.
const EVENT_BYTES_MIN: usize = 1;

/// What a burst's events have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurstHead {
    /// Whose events.
    pub run_id: RunId,
    /// Number of the first; the others follow without gaps.
    pub first_seq: Seq,
    /// When they were decided.
    pub at: Timestamp,
}

/// Appends one burst to `out`, starting the payload when `out` is empty. No events, nothing written. Within
/// [`kept::naming`] values of the table are written as references.
///
/// # Errors
/// An event can not be encoded or the burst is larger than 4 GiB; `out` is as it was.
pub fn append<'a>(
    out: &mut Vec<u8>,
    head: BurstHead,
    events: impl IntoIterator<Item = &'a EventBody>,
) -> Result<(), Error> {
    let start = out.len();
    let written = try_append(out, head, events);
    if !matches!(written, Ok(1..)) {
        out.truncate(start);
    }
    written.map(|_| ())
}

fn try_append<'a>(
    out: &mut Vec<u8>,
    head: BurstHead,
    events: impl IntoIterator<Item = &'a EventBody>,
) -> Result<u32, Error> {
    if out.is_empty() {
        out.push(VERSION);
    }
    out.extend_from_slice(head.run_id.as_bytes());
    out.extend_from_slice(&head.first_seq.to_le_bytes());
    out.extend_from_slice(&head.at.as_micros().to_le_bytes());
    // Count and length are known only after the events.
    let sizes = out.len();
    out.extend_from_slice(&[0; 8]);
    let body = out.len();
    let mut count: u32 = 0;
    for event in events {
        postcard::serialize_with_flavor(event, Append(out))
            .map_err(|error| Error::Record { why: format!("{}: {error}", event.type_name()) })?;
        count = count.saturating_add(1);
    }
    let bytes = u32::try_from(out.len() - body)
        .map_err(|_| Error::Record { why: "a burst of more than 4 GiB".into() })?;
    if let Some(place) = out.get_mut(sizes..body) {
        let (counts, lengths) = place.split_at_mut(4);
        counts.copy_from_slice(&count.to_le_bytes());
        lengths.copy_from_slice(&bytes.to_le_bytes());
    }
    Ok(count)
}

/// Serialises to the end of a vector in whole slices.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// One burst as it lies in a payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst<'a> {
    /// What its events have in common.
    pub head: BurstHead,
    /// How many there are.
    pub count: u32,
    /// As it lies in the payload, its head included.
    pub bytes: &'a [u8],
    body: &'a [u8],
}

impl<'a> Burst<'a> {
    /// Its events, decoded as they are asked for. A value that is kept by reference is refused: [`shown`](Self::shown) and
    /// [`hydrated`](Self::hydrated) read those.
    pub fn events(&self) -> Events<'a> {
        Events { seq: self.head.first_seq, at: self.head.at, left: self.count, body: self.body }
    }

    /// Its events as clients see them: a value that is kept by reference is its reference. Nothing is folded from these.
    pub fn shown(&self) -> impl Iterator<Item = Result<Event, Error>> + use<'a> {
        let mut events = self.events();
        std::iter::from_fn(move || kept::showing(|| events.next()))
    }

    /// Its events with all values in full, for folding. Those that are kept by reference and not in `table` yet are got by
    /// `load`, and are in it afterwards.
    ///
    /// # Errors
    /// `load`'s, or an event does not decode.
    pub fn hydrated<E: From<Error>>(
        &self,
        table: &mut Option<Arc<Kept>>,
        load: &mut dyn FnMut(&Content) -> Result<Value, E>,
    ) -> Result<Vec<Event>, E> {
        let (events, contents) = kept::noting(|| self.events().collect::<Result<Vec<_>, Error>>());
        let events = events?;
        if contents.is_empty() {
            return Ok(events);
        }
        let known = Arc::make_mut(table.get_or_insert_default());
        known.prune();
        for content in contents {
            if known.value(&content.sha256).is_none() {
                known.add(content, load(&content)?);
            }
        }
        let Some(known) = table else { return Ok(events) };
        Ok(kept::loading(known, || self.events().collect::<Result<Vec<_>, Error>>())?)
    }

    /// Its events as they lie in it, each with its number: what chains of hashes are made of.
    ///
    /// # Errors
    /// An event does not decode: nobody knows where the next one begins.
    pub fn encoded(&self) -> Result<Vec<(Seq, &'a [u8])>, Error> {
        let (mut rest, mut found) = (self.body, Vec::with_capacity(self.count as usize));
        for seq in self.head.first_seq..self.head.first_seq.saturating_add(u64::from(self.count)) {
            let taken = kept::showing(|| postcard::take_from_bytes::<EventBody>(rest));
            let (_, behind) =
                taken.map_err(|error| Error::Record { why: format!("event {seq}: {error}") })?;
            found.push((seq, rest.get(..rest.len() - behind.len()).unwrap_or_default()));
            rest = behind;
        }
        Ok(found)
    }

    /// Number of its last event.
    pub fn last_seq(&self) -> Seq {
        self.head.first_seq.saturating_add(u64::from(self.count)).saturating_sub(1)
    }
}

/// The bursts of a payload, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Bursts<'a> {
    rest: &'a [u8],
}

impl<'a> Bursts<'a> {
    /// Of this payload; an empty one has none.
    ///
    /// # Errors
    /// The payload has a version that this binary does not know.
    pub fn new(payload: &'a [u8]) -> Result<Self, Error> {
        match payload.split_first() {
            None => Ok(Self { rest: &[] }),
            Some((&VERSION, rest)) => Ok(Self { rest }),
            Some((other, _)) => {
                Err(Error::Record { why: format!("records of version {other}; this binary knows {VERSION}") })
            }
        }
    }

    fn read(&mut self) -> Option<Burst<'a>> {
        let all = self.rest;
        let (head, rest) = self.rest.split_first_chunk::<BURST_HEAD_BYTES>()?;
        let (run_id, head) = head.split_first_chunk::<16>()?;
        let (first_seq, head) = head.split_first_chunk::<8>()?;
        let (at, head) = head.split_first_chunk::<8>()?;
        let (count, length) = head.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count);
        let length = usize::try_from(u32::from_le_bytes(*length.first_chunk()?)).ok()?;
        if count == 0 || usize::try_from(count).ok()? > length / EVENT_BYTES_MIN {
            return None;
        }
        let body = rest.get(..length)?;
        self.rest = rest.get(length..)?;
        Some(Burst {
            head: BurstHead {
                run_id: RunId::from_bytes(*run_id),
                first_seq: u64::from_le_bytes(*first_seq),
                at: Timestamp::from_micros(u64::from_le_bytes(*at)),
            },
            count,
            bytes: all.get(..BURST_HEAD_BYTES + length)?,
            body,
        })
    }
}

impl<'a> Iterator for Bursts<'a> {
    type Item = Result<Burst<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let left = self.rest.len();
        Some(self.read().ok_or_else(|| {
            self.rest = &[];
            Error::Record { why: format!("a burst that does not fit, {left} bytes before the payload's end") }
        }))
    }
}

/// The events of a burst. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Events<'a> {
    seq: Seq,
    at: Timestamp,
    left: u32,
    body: &'a [u8],
}

impl Iterator for Events<'_> {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.body.is_empty() {
                return None;
            }
            self.body = &[];
            return Some(Err(Error::Record { why: format!("bytes after event {}", self.seq) }));
        }
        let seq = self.seq;
        match postcard::take_from_bytes::<EventBody>(self.body) {
            Ok((body, rest)) => {
                (self.body, self.left, self.seq) = (rest, self.left - 1, seq.saturating_add(1));
                Some(Ok(Event { seq, at: self.at, body }))
            }
            Err(error) => {
                (self.body, self.left) = (&[], 0);
                Some(Err(Error::Record { why: format!("event {seq}: {error}") }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
