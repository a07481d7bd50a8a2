//! The one value type: what inputs, outputs, documents and expressions are made of.
//!
//! Values are immutable and shared: a clone is a reference count. Maps are kept sorted by key, so equal values have
//! equal bytes. Floats are always finite. Integers are [`Value::Int`] whenever they fit an `i64`; [`Value::UInt`]
//! holds only those that do not. There are two encodings, chosen by serde's `is_human_readable`: JSON at the edge,
//! and a compact tagged form (postcard) in the journal and in tokens (`docs/formats/journal.md`).

mod encoding;

use std::fmt;
use std::sync::Arc;

use serde::Deserialize as _;

/// A JSON value, with integers kept apart from floats.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true`, `false`
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// An integer above `i64::MAX`, and no other.
    UInt(u64),
    /// A finite number that was written with a fraction or an exponent.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// A list.
    List(Arc<[Value]>),
    /// A map with unique keys.
    Map(Arc<Map>),
}

/// String keys to values, sorted by the keys' bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    entries: Vec<(Arc<str>, Value)>,
}

impl Map {
    /// Sorts the entries; `Err` holds the first key that stands twice.
    pub fn new(mut entries: Vec<(Arc<str>, Value)>) -> Result<Self, Arc<str>> {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let twice =
            entries.iter().zip(entries.iter().skip(1)).find(|(a, b)| a.0 == b.0).map(|(a, _)| a.0.clone());
        match twice {
            Some(key) => Err(key),
            None => Ok(Self { entries }),
        }
    }

    /// The value at `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let at = self.entries.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    /// Sets `key`, keeping the order.
    pub fn insert(&mut self, key: Arc<str>, value: Value) {
        match self.entries.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.1 = value;
                }
            }
            Err(at) => self.entries.insert(at, (key, value)),
        }
    }

    /// The value at `key`, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        let at = self.entries.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// Takes the value at `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(self.entries.remove(at).1)
    }

    /// Entries in key order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Value)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Later entries win over earlier ones with the same key.
impl FromIterator<(Arc<str>, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Value)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.reverse();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, earlier| later.0 == earlier.0);
        Self { entries }
    }
}

impl Value {
    /// Text.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// A list.
    pub fn list(items: Vec<Value>) -> Self {
        Self::List(items.into())
    }

    /// A map; later entries win.
    pub fn map<K: Into<Arc<str>>>(entries: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Map(Arc::new(entries.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }

    /// An unsigned integer in its normal form.
    pub fn unsigned(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }

    /// A float, unless it is NaN or infinite.
    pub fn float(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self::Float(number))
    }

    /// The member `key`, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Map(map) => map.get(key),
            _ => None,
        }
    }

    /// The text, when this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// `null`, `bool`, `int`, `uint`, `double`, `string`, `list` or `map`, as CEL names them.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::Float(_) => "double",
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }

    /// A cheap upper estimate of the bytes this value keeps in memory, for limits.
    pub fn weight(&self) -> usize {
        const SELF: usize = size_of::<Value>();
        match self {
            Self::String(text) => SELF + text.len(),
            Self::List(items) => items.iter().map(Value::weight).sum::<usize>() + SELF,
            Self::Map(map) => {
                map.iter().map(|(key, value)| key.len() + 16 + value.weight()).sum::<usize>() + SELF
            }
            _ => SELF,
        }
    }

    /// Reads one JSON text under the limits of [`crate::limits`]: depth, number of values, key length, no duplicate keys.
    ///
    /// # Errors
    /// serde_json's error, with line and column; a limit's name is in its text.
    pub fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = Self::deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// This value as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| String::from("null"))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn sample() -> Value {
        Value::from_json(
            br#"{"b":[1,-2,2.5,18446744073709551615,true,false,null,"text",[],{}],"a":{"y":{"z":[[1]]},"x":""}}"#,
        )
        .unwrap()
    }

    #[test]
    fn json_and_the_compact_form_give_the_value_back() {
        let value = sample();
        assert_eq!(Value::from_json(value.to_json().as_bytes()).unwrap(), value);
        let bytes = postcard::to_stdvec(&value).unwrap();
        assert_eq!(postcard::from_bytes::<Value>(&bytes).unwrap(), value);
        assert!(bytes.len() < value.to_json().len());
    }

    #[test]
    fn compact_bytes_that_are_cut_anywhere_are_refused() {
        let bytes = postcard::to_stdvec(&sample()).unwrap();
        for end in 0..bytes.len() {
            assert!(postcard::from_bytes::<Value>(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn limits_are_named() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let wide = format!("[{}0]", "0,".repeat(limits::VALUE_COUNT_MAX));
        let long = format!("{{\"{}\":0}}", "k".repeat(limits::KEY_BYTES_MAX + 1));
        for (text, name) in [(deep, "value_depth_max"), (wide, "value_count_max"), (long, "key_bytes_max")] {
            let error = Value::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let edge =
            format!("{}{}", "[".repeat(limits::VALUE_DEPTH_MAX + 1), "]".repeat(limits::VALUE_DEPTH_MAX + 1));
        assert!(Value::from_json(edge.as_bytes()).is_ok());
    }

    #[test]
    fn what_json_forbids_is_refused() {
        for text in
            ["NaN", "1e400", r#"{"a":1,"a":2}"#, "[1,]", "1 2", "\u{feff}1", r#""\ud800""#, "", "-", "[01]"]
        {
            assert!(Value::from_json(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Value::from_json(b"\"\xff\"").is_err());
    }

    #[test]
    fn maps_are_sorted_and_unique() {
        let map = Map::new(vec![("b".into(), Value::Int(1)), ("a".into(), Value::Int(2))]).unwrap();
        assert_eq!(map.iter().map(|(key, _)| &**key).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(Map::new(vec![("a".into(), Value::Null), ("a".into(), Value::Null)]), Err("a".into()));
        let later: Map = [("a".into(), Value::Int(1)), ("a".into(), Value::Int(2))].into_iter().collect();
        assert_eq!(later.get("a"), Some(&Value::Int(2)));
    }
}
