//! Values that are kept by reference: which parts of a value are, and how one is written and read where only its name stands.
//!
//! In memory a run has plain values, and the engine knows of nothing else. Beside the run stands a table ([`Kept`]) that
//! says of some of its values, by the memory they lie in, which content of the content store they are. Whoever writes values
//! down names the table for as long as that takes ([`naming`]): a value in it, however deep inside another, is then written
//! as a [`Content`] (journal, images of runs) or shown as `{"$cas": ..., "bytes": ...}` (JSON). A part of a value that an
//! expression builds anew lies elsewhere, is in no table, and is written in full.
//!
//! Reading compact bytes back, a reference is refused unless the reader says what it wants: [`showing`] gives what a client
//! sees in JSON; [`noting`] and then [`loading`] give the plain values again, for folding. What the scopes set holds for this
//! thread until the closure returns, and is taken back when it panics. They nest; futures must not be awaited within.
//!
//! The table keeps its values alive, so that no other can take their place in memory. [`Kept::prune`] lets go of those
//! that nobody else has any more; a run's values are bounded by `limits::RUN_VALUE_BYTES_MAX`, and so is its table.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Value;

/// Sha-256 of a content's bytes.
pub type ContentHash = [u8; 32];

/// What a hash is called outside: `sha256:` and 64 digits.
const SCHEME: &str = "sha256:";
/// Bytes that a reference is counted with.
const REFERENCE_BYTES: usize = 48;
/// The parts of one value that are kept have at most so many times its bytes: one that lies in another is stored twice.
const COPIES_MAX: usize = 4;

/// A content of the content store: the JSON text of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Content {
    /// Of its bytes.
    pub sha256: ContentHash,
    /// How many there are.
    pub bytes: u64,
    /// How many items the value has, when it is a list.
    pub items: Option<u64>,
}

impl Content {
    /// Of this value, whose JSON text this is the hash of.
    pub fn of(value: &Value, sha256: ContentHash, bytes: u64) -> Self {
        let items = if let Value::List(items) = value { Some(items.len() as u64) } else { None };
        Self { sha256, bytes, items }
    }

    /// What clients see in the value's place.
    pub fn shown(&self) -> Value {
        let number = |number: u64| Value::unsigned(number);
        let items = self.items.map(|items| ("items", number(items)));
        let members = [("$cas", Value::string(name(&self.sha256))), ("bytes", number(self.bytes))];
        Value::map(members.into_iter().chain(items))
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&name(&self.sha256))
    }
}

/// `sha256:...`
pub fn name(sha256: &ContentHash) -> String {
    sha256.iter().fold(String::from(SCHEME), |mut text, byte| {
        use fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The hash that is called so; lower-case digits only, so that there is one name for it.
pub fn parse_name(text: &str) -> Option<ContentHash> {
    let digits = text.strip_prefix(SCHEME)?.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut hash = [0; 32];
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(hash)
}

/// How many items a list has that may be shown by its reference.
pub fn items_of(value: &Value) -> Option<u64> {
    match value {
        Value::List(items) => Some(items.len() as u64),
        Value::Map(_) => match (value.get("$cas"), value.get("items")) {
            (Some(_), Some(Value::Int(items))) => u64::try_from(*items).ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Where a value lies; what is small enough to lie nowhere is never kept.
fn address(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.as_ptr().addr()),
        Value::List(items) => Some(items.as_ptr().addr()),
        Value::Map(map) => Some(Arc::as_ptr(map).addr()),
        _ => None,
    }
}

/// Does anybody but the table have it?
fn is_shared(value: &Value) -> bool {
    match value {
        Value::String(text) => Arc::strong_count(text) > 1,
        Value::List(items) => Arc::strong_count(items) > 1,
        Value::Map(map) => Arc::strong_count(map) > 1,
        _ => false,
    }
}

/// Which of a run's values are which contents.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// By where the value lies.
    entries: BTreeMap<usize, (Content, Value)>,
}

impl Kept {
    /// From now on this value is this content.
    pub fn add(&mut self, content: Content, value: Value) {
        if let Some(address) = address(&value) {
            self.entries.insert(address, (content, value));
        }
    }

    /// Lets go of values that nobody else has any more.
    pub fn prune(&mut self) {
        self.entries.retain(|_, (_, value)| is_shared(value));
    }

    /// Takes over what another table says, and lets go of what is of no use any more.
    pub fn absorb(&mut self, other: &Self) {
        self.prune();
        for (content, value) in other.entries.values() {
            self.add(*content, value.clone());
        }
    }

    /// The content that this very value is, not only one like it.
    pub fn find(&self, value: &Value) -> Option<&Content> {
        let (content, _) = self.entries.get(&address(value)?)?;
        Some(content)
    }

    /// A value that is this content.
    pub fn value(&self, sha256: &ContentHash) -> Option<&Value> {
        self.entries.values().find(|(content, _)| content.sha256 == *sha256).map(|(_, value)| value)
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.entries.values().map(|(_, value)| value)
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No values.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Bytes of a value as written, at most.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 1,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => 11,
        Value::String(text) => text.len() + 4,
        Value::List(items) => items.iter().map(size).sum::<usize>() + 4,
        Value::Map(map) => map.iter().map(|(key, value)| key.len() + 2 + size(value)).sum::<usize>() + 4,
    }
}

/// The parts of a value that are to be kept by reference so that what is left is written in `inline_max` bytes or little
/// more: the innermost ones that are larger, and what is still larger with references in their place. A part comes before
/// the one that it lies in.
pub fn parts(value: &Value, inline_max: usize) -> Vec<Value> {
    let whole = size(value);
    let mut found = Vec::new();
    if whole > inline_max {
        let mut room = whole.saturating_mul(COPIES_MAX);
        take_apart(value, inline_max, &mut room, &mut found);
    }
    found
}

/// Bytes of a value as written, and with references in place of its parts.
fn take_apart(value: &Value, inline_max: usize, room: &mut usize, found: &mut Vec<Value>) -> (usize, usize) {
    let mut inner = |value: &Value| take_apart(value, inline_max, room, found);
    let both = |sum: (usize, usize), own: usize, (whole, left): (usize, usize)| {
        (sum.0 + own + whole, sum.1 + own + left)
    };
    let (whole, left) = match value {
        Value::List(items) => items.iter().fold((4, 4), |sum, item| both(sum, 0, inner(item))),
        Value::Map(map) => {
            map.iter().fold((4, 4), |sum, (key, value)| both(sum, key.len() + 2, inner(value)))
        }
        other => (size(other), size(other)),
    };
    if left <= inline_max || whole > *room || address(value).is_none() {
        return (whole, left);
    }
    *room -= whole;
    found.push(value.clone());
    (whole, REFERENCE_BYTES)
}

/// What a reference is read as.
#[derive(Clone, Debug, Default)]
enum Reading {
    /// Nothing: there should be none.
    #[default]
    Refuse,
    /// What clients see.
    Show,
    /// Null; they are noted.
    Note(Vec<Content>),
    /// The value in this table.
    Load(Arc<Kept>),
}

thread_local! {
    /// Is there a table? Asked for every value written, so apart from the table.
    static NAMES: Cell<bool> = const { Cell::new(false) };
    static NAMING: RefCell<Option<Arc<Kept>>> = const { RefCell::new(None) };
    static READING: RefCell<Reading> = const { RefCell::new(Reading::Refuse) };
}

/// Sets the table back when it is dropped.
struct Naming(Option<Arc<Kept>>);

impl Naming {
    fn begin(kept: Option<Arc<Kept>>) -> Self {
        NAMES.set(kept.is_some());
        Self(NAMING.replace(kept))
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        let before = self.0.take();
        NAMES.set(before.is_some());
        NAMING.set(before);
    }
}

/// Does something; values that it writes are named as the table says. Without a table this costs nothing.
pub fn naming<R>(kept: Option<&Arc<Kept>>, work: impl FnOnce() -> R) -> R {
    let Some(kept) = kept.filter(|kept| !kept.is_empty()) else { return work() };
    let _set = Naming::begin(Some(kept.clone()));
    work()
}

/// Does something; values that it writes are written in full.
pub fn plainly<R>(work: impl FnOnce() -> R) -> R {
    let _set = NAMES.get().then(|| Naming::begin(None));
    work()
}

/// The content to be written in this value's place.
pub(super) fn named(value: &Value) -> Option<Content> {
    if !NAMES.get() {
        return None;
    }
    NAMING.with_borrow(|kept| kept.as_ref()?.find(value).copied())
}

/// Sets what references are read as back when it is dropped.
struct Scope(Option<Reading>);

impl Scope {
    fn begin(reading: Reading) -> Self {
        Self(Some(READING.replace(reading)))
    }

    fn end(mut self) -> Reading {
        READING.replace(self.0.take().unwrap_or_default())
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            READING.set(before);
        }
    }
}

/// Does something; references that it reads become what clients see. Nothing that is folded may be read so.
pub fn showing<R>(work: impl FnOnce() -> R) -> R {
    let _scope = Scope::begin(Reading::Show);
    work()
}

/// Does something, and says which references it read. What it gives is of use only when there were none.
pub fn noting<R>(work: impl FnOnce() -> R) -> (R, Vec<Content>) {
    let scope = Scope::begin(Reading::Note(Vec::new()));
    let result = work();
    let Reading::Note(noted) = scope.end() else { return (result, Vec::new()) };
    (result, noted)
}

/// Does something; references that it reads become the values of this table, and those that are not in it are refused.
pub fn loading<R>(kept: &Arc<Kept>, work: impl FnOnce() -> R) -> R {
    let _scope = Scope::begin(Reading::Load(kept.clone()));
    work()
}

/// What a reference is read as; the error says why it may not stand here.
pub(super) fn read(content: Content) -> Result<Value, String> {
    READING.with_borrow_mut(|reading| match reading {
        Reading::Refuse => Err(format!("a reference to {content} where values are written in full")),
        Reading::Show => Ok(content.shown()),
        Reading::Note(noted) => {
            noted.push(content);
            Ok(Value::Null)
        }
        Reading::Load(kept) => {
            kept.value(&content.sha256).cloned().ok_or_else(|| format!("{content} was not loaded"))
        }
    })
}

#[cfg(test)]
mod tests;
