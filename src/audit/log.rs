//! The end of the log that is written: numbering, chaining, group commit, files in turn.
//!
//! Two locks, never the wrong way round: the writer's, held while a batch is written and synced, and that of what waits, held for
//! a moment. Whoever finds the writer's lock free writes for all.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use super::Error;
use super::line::{self, Digest, Record, Signed};
use super::read;
use crate::io::disk::sync_directory;
use crate::limits;
use crate::store::signing::{SigningKey, hex, whole};
use crate::time::Timestamp;

/// Its directory in a data directory.
pub(super) const DIRECTORY: &str = "audit";
/// Its file that says where the rest begins.
pub(super) const ANCHOR: &str = "ANCHOR";

/// What is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `audit.bytes_max`: of all files together.
    pub bytes_max: u64,
    /// `audit.starts`: record every accepted start of a run.
    pub starts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { bytes_max: limits::AUDIT_BYTES_MAX, starts: false }
    }
}

/// What is to be recorded; what it is of, [`Record`] says.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// What was asked for.
    pub action: String,
    /// It was refused.
    pub refused: bool,
    /// Where.
    pub workspace: Option<String>,
    /// Who.
    pub who: Option<String>,
    /// From where.
    pub from: Option<String>,
    /// The path.
    pub target: String,
    /// Of the answer.
    pub status: u16,
    /// Of the refusal.
    pub code: Option<String>,
    /// Of the answer.
    pub request_id: Option<String>,
}

/// The log of a node.
#[derive(Debug)]
pub struct Log {
    root: PathBuf,
    cluster: [u8; 16],
    key: Arc<SigningKey>,
    settings: Settings,
    #[expect(
        clippy::disallowed_types,
        reason = "held for a few hundred bytes; blocking threads wait at the other one"
    )]
    waiting: std::sync::Mutex<Waiting>,
    #[expect(clippy::disallowed_types, reason = "blocking threads only")]
    writer: std::sync::Mutex<Writer>,
    unrecorded: AtomicU64,
    /// Every record below it is durable.
    durable: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    buffer: Vec<u8>,
    head: Digest,
    next: u64,
    since_checkpoint: u64,
    /// Second of the clock, and refusals recorded in it.
    second: (u64, u64),
    failed: Option<String>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    bytes: u64,
}

fn failed(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Failed(format!("cannot {doing} {}: {error}", path.display()))
}

/// Where the file is that begins with this record.
pub(super) fn path(root: &Path, first: u64) -> PathBuf {
    root.join(DIRECTORY).join(format!("{first:016x}.log"))
}

impl Log {
    /// Opens the log of a data directory; made when there is none. What a crash left of a last record is dropped: nobody was told
    /// that it had been written. Whole records that do not fit are set aside under another name, and that is recorded.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(
        (root, cluster): (&Path, [u8; 16]),
        key: Arc<SigningKey>,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Arc<Self>, Error> {
        let dir = root.join(DIRECTORY);
        fs::create_dir_all(&dir)
            .and_then(|()| sync_directory(root))
            .map_err(|error| failed("make", &dir, &error))?;
        let found = read::files(root).map_err(|error| failed("read", &dir, &error))?;
        let anchor = read::anchor(root);
        let (mut first, mut before) = (1, line::genesis(cluster));
        if let Some(anchor) = &anchor {
            (first, before) = (anchor.first, anchor.before);
        }
        // The chain before the last file is the last line's of the one before it.
        if let [.., previous, last] = found.as_slice() {
            first = *last;
            let bytes = fs::read(path(root, *previous)).map_err(|error| failed("read", &dir, &error))?;
            before = read::last_hash(&bytes).unwrap_or(before);
        }
        if let [only] = found.as_slice() {
            first = *only;
        }
        let place = path(root, first);
        let (file, ended) = resume(&place, (first, before))?;
        sync_directory(&dir).map_err(|error| failed("sync", &dir, &error))?;
        let waiting = Waiting {
            buffer: Vec::new(),
            head: ended.head,
            next: ended.next,
            since_checkpoint: 0,
            second: (0, 0),
            failed: None,
        };
        let log = Arc::new(Self {
            root: root.to_owned(),
            cluster,
            key,
            settings,
            waiting: waiting.into(),
            writer: Writer { file, bytes: ended.bytes }.into(),
            unrecorded: AtomicU64::new(0),
            durable: ended.next.into(),
        });
        log.begin(ended.aside, now)?;
        Ok(log)
    }

    fn begin(&self, aside: Option<String>, now: Timestamp) -> Result<(), Error> {
        let mut waiting = self.waiting();
        if let Some(detail) = aside {
            self.put(&mut waiting, noted("set_aside", Some(detail)), now);
        }
        self.put(&mut waiting, noted("opened", Some(format!("aobd {}", env!("CARGO_PKG_VERSION")))), now);
        self.checkpoint(&mut waiting, now);
        let last = waiting.next - 1;
        drop(waiting);
        self.flush(last, now)
    }

    /// What is configured.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Why nothing can be recorded; `None` when all is well.
    pub fn failure(&self) -> Option<Error> {
        self.waiting().failed.clone().map(Error::Failed)
    }

    /// Puts a record behind all others; its number, for [`flush`](Self::flush). Refusals above
    /// [`limits::AUDIT_REFUSALS_PER_SECOND_MAX`] are counted only (`None`), and the next record says how many.
    ///
    /// # Errors
    /// The log cannot be written, or too much waits: nothing is recorded.
    pub fn note(&self, entry: Entry, now: Timestamp) -> Result<Option<u64>, Error> {
        let mut waiting = self.waiting();
        if let Some(why) = &waiting.failed {
            return Err(Error::Failed(why.clone()));
        }
        if entry.refused {
            let second = now.as_micros() / 1_000_000;
            let count = if waiting.second.0 == second { waiting.second.1 + 1 } else { 1 };
            waiting.second = (second, count);
            if count > limits::AUDIT_REFUSALS_PER_SECOND_MAX {
                self.unrecorded.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
        }
        if waiting.buffer.len() > limits::AUDIT_PENDING_BYTES_MAX {
            return Err(Error::Full(waiting.buffer.len()));
        }
        let unrecorded = Some(self.unrecorded.swap(0, Ordering::Relaxed)).filter(|count| *count > 0);
        let outcome = if entry.refused { "refused" } else { "accepted" };
        let record = Record {
            action: entry.action,
            outcome: outcome.into(),
            workspace: entry.workspace,
            who: entry.who,
            from: entry.from,
            target: Some(entry.target),
            status: Some(entry.status),
            code: entry.code,
            request_id: entry.request_id,
            unrecorded,
            ..Record::default()
        };
        let seq = self.put(&mut waiting, record, now);
        if waiting.since_checkpoint >= limits::AUDIT_RECORDS_PER_CHECKPOINT {
            self.checkpoint(&mut waiting, now);
        }
        Ok(Some(seq))
    }

    fn put(&self, waiting: &mut Waiting, record: Record, now: Timestamp) -> u64 {
        let seq = waiting.next;
        let record = Record { seq, at: now.to_string(), ..record };
        let Waiting { buffer, head, .. } = waiting;
        *head = line::append(buffer, head, &record);
        waiting.next += 1;
        waiting.since_checkpoint += 1;
        seq
    }

    fn checkpoint(&self, waiting: &mut Waiting, now: Timestamp) {
        let signature = self.key.sign(&line::checkpoint_message(waiting.next, &waiting.head));
        let signed = Some(Signed::new(self.key.public(), &signature));
        self.put(waiting, Record { signed, ..noted("checkpoint", None) }, now);
        waiting.since_checkpoint = 0;
    }

    /// Is record `seq` durable, with all before it?
    pub fn is_durable(&self, seq: u64) -> bool {
        self.durable.load(Ordering::Acquire) > seq
    }

    /// Returns when record `seq` and all before it are durable. Blocking.
    ///
    /// # Errors
    /// The log cannot be written: nothing more will be until a restart.
    pub fn flush(&self, seq: u64, now: Timestamp) -> Result<(), Error> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_durable(seq) {
            return Ok(());
        }
        let turn = writer.bytes >= limits::AUDIT_FILE_BYTES;
        let (buffer, next, head) = {
            let mut waiting = self.waiting();
            if let Some(why) = &waiting.failed {
                return Err(Error::Failed(why.clone()));
            }
            if turn {
                self.checkpoint(&mut waiting, now);
            }
            (std::mem::take(&mut waiting.buffer), waiting.next, waiting.head)
        };
        let written = writer.file.write_all(&buffer).and_then(|()| writer.file.sync_data());
        let written = written.and_then(|()| {
            writer.bytes += buffer.len() as u64;
            self.durable.store(next, Ordering::Release);
            if turn { self.turn(&mut writer, (next, head)) } else { Ok(()) }
        });
        written.map_err(|error| {
            let why = error.to_string();
            self.waiting().failed = Some(why.clone());
            Error::Failed(why)
        })
    }

    /// Goes on in a new file; the oldest go when all together are too large.
    fn turn(&self, writer: &mut Writer, (first, head): (u64, Digest)) -> std::io::Result<()> {
        let dir = self.root.join(DIRECTORY);
        writer.file = File::options().append(true).create_new(true).open(path(&self.root, first))?;
        writer.bytes = 0;
        sync_directory(&dir)?;
        let files = read::files(&self.root)?;
        let mut sizes = Vec::with_capacity(files.len());
        for first in &files {
            sizes.push(fs::metadata(path(&self.root, *first))?.len());
        }
        let mut bytes: u64 = sizes.iter().sum();
        for (at, size) in sizes.iter().enumerate() {
            let (Some(oldest), Some(next)) = (files.get(at), files.get(at + 1)) else { break };
            if bytes <= self.settings.bytes_max {
                break;
            }
            let last = read::last_hash(&fs::read(path(&self.root, *oldest))?).unwrap_or(head);
            self.anchor(*next, &last)?;
            fs::remove_file(path(&self.root, *oldest))?;
            sync_directory(&dir)?;
            bytes -= size;
        }
        Ok(())
    }

    fn anchor(&self, first: u64, before: &Digest) -> std::io::Result<()> {
        let signature = self.key.sign(&line::anchor_message(first, before));
        let signed = Signed::new(self.key.public(), &signature);
        let text = serde_json::json!({"first": first, "before": hex(before), "signed": signed}).to_string();
        whole(&self.root.join(DIRECTORY), ANCHOR, (text.as_bytes(), 0o600))
    }

    /// Records of this log after number `after` that `fits` takes, at most `limit`. Blocking.
    ///
    /// # Errors
    /// The operating system's.
    pub fn page(
        &self,
        (after, limit): (u64, usize),
        fits: &mut dyn FnMut(&Record) -> bool,
    ) -> std::io::Result<read::Page> {
        read::page(&self.root, (after, limit), fits)
    }

    /// Looks the whole log over. Blocking.
    ///
    /// # Errors
    /// The operating system's.
    pub fn verify(&self) -> std::io::Result<read::LogReport> {
        read::verify(&self.root, self.cluster, Some(&self.key.public()), &mut |_| {})
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn noted(action: &str, detail: Option<String>) -> Record {
    Record { action: action.into(), outcome: "noted".into(), detail, ..Record::default() }
}

/// Where the last file ends.
struct Ended {
    head: Digest,
    next: u64,
    bytes: u64,
    aside: Option<String>,
}

/// Opens the last file where its sound records end.
fn resume(place: &Path, (first, before): (u64, Digest)) -> Result<(File, Ended), Error> {
    let wrong = |doing: &str, error: &std::io::Error| failed(doing, place, error);
    let opened = File::options().read(true).append(true).create(true).open(place);
    let mut file = opened.map_err(|error| wrong("open", &error))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| wrong("read", &error))?;
    let mut ended = Ended { head: before, next: first, bytes: 0, aside: None };
    let mut rest = bytes.as_slice();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let Some((line, behind)) = rest.split_at_checked(end + 1) else { break };
        let line = line.get(..end).unwrap_or_default();
        match line::check(line, &ended.head, ended.next) {
            Ok((head, _)) => {
                (ended.head, ended.next) = (head, ended.next + 1);
                ended.bytes += line.len() as u64 + 1;
                rest = behind;
            }
            Err(why) => {
                let aside = place.with_extension(format!("{:016x}.aside", ended.next));
                fs::write(&aside, rest).map_err(|error| wrong("set aside the rest of", &error))?;
                let name = aside.file_name().unwrap_or_default().to_string_lossy().into_owned();
                ended.aside = Some(format!("{} bytes went to {name}: {why}", rest.len()));
                break;
            }
        }
    }
    if ended.bytes < bytes.len() as u64 {
        file.set_len(ended.bytes)
            .and_then(|()| file.seek(SeekFrom::End(0)).map(drop))
            .and_then(|()| file.sync_all())
            .map_err(|error| wrong("cut", &error))?;
    }
    Ok((file, ended))
}

#[cfg(test)]
mod tests;
