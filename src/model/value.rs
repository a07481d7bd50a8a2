//! The one value type: what inputs, outputs, documents and expressions are made of.
//!
//! Values are immutable and shared: a clone is a reference count. Maps are kept sorted by key, so equal values have
//! equal bytes. Floats are always finite. Integers are [`Value::Int`] whenever they fit an `i64`; [`Value::UInt`]
//! holds only those that do not. There are two encodings, chosen by serde's `is_human_readable`: JSON at the edge,
//! and a compact tagged form (postcard) in the journal and in tokens (`docs/formats/journal.md`).

use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

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

    /// Reads one JSON text under the limits of [`limits`]: depth, number of values, key length, no duplicate keys.
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

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(&**key, value)?;
        }
        map.end()
    }
}

/// The variants of the compact form. The order is the format: append only.
#[derive(Serialize, Deserialize)]
enum Tag {
    Null,
    False,
    True,
    Int,
    UInt,
    Float,
    String,
    List,
    Map,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.serialize_compact(serializer);
        }
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::UInt(value) => serializer.serialize_u64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in &**items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(map) => map.serialize(serializer),
        }
    }
}

impl Value {
    fn serialize_compact<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => Tag::Null.serialize(serializer),
            Self::Bool(false) => Tag::False.serialize(serializer),
            Self::Bool(true) => Tag::True.serialize(serializer),
            Self::Int(value) => (Tag::Int, value).serialize(serializer),
            Self::UInt(value) => (Tag::UInt, value).serialize(serializer),
            Self::Float(value) => (Tag::Float, value).serialize(serializer),
            Self::String(text) => (Tag::String, &**text).serialize(serializer),
            Self::List(items) => (Tag::List, &**items).serialize(serializer),
            Self::Map(map) => (Tag::Map, &**map).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut budget = Budget { values_left: limits::VALUE_COUNT_MAX };
        ValueSeed { budget: &mut budget, depth: 0 }.deserialize(deserializer)
    }
}

/// What is left of the limits while one value is read.
struct Budget {
    values_left: usize,
}

struct ValueSeed<'a> {
    budget: &'a mut Budget,
    depth: usize,
}

impl ValueSeed<'_> {
    fn take<E: de::Error>(&mut self) -> Result<(), E> {
        self.budget.values_left = self.budget.values_left.checked_sub(1).ok_or_else(|| {
            E::custom(format_args!("more than {} values (limit value_count_max)", limits::VALUE_COUNT_MAX))
        })?;
        if self.depth > limits::VALUE_DEPTH_MAX {
            return Err(E::custom(format_args!(
                "nested deeper than {} levels (limit value_depth_max)",
                limits::VALUE_DEPTH_MAX
            )));
        }
        Ok(())
    }

    fn inner(&mut self) -> ValueSeed<'_> {
        ValueSeed { budget: self.budget, depth: self.depth + 1 }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        self.take()?;
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(self)
        } else {
            // A (tag, content) pair; a tag without content ends the pair early by taking no second element.
            deserializer.deserialize_tuple(2, CompactVisitor { seed: self })
        }
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Value::float(value).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.inner())? {
            items.push(item);
        }
        Ok(Value::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Arc<str>, Value)> = Vec::new();
        while let Some(key) = access.next_key::<Key>()? {
            entries.push((key.0, access.next_value_seed(self.inner())?));
        }
        let map = Map::new(entries)
            .map_err(|key| de::Error::custom(format_args!("the key {key:?} stands twice in one object")))?;
        Ok(Value::Map(Arc::new(map)))
    }
}

/// A map key within its limit.
struct Key(Arc<str>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string key")
            }

            fn visit_str<E: de::Error>(self, key: &str) -> Result<Key, E> {
                if key.len() > limits::KEY_BYTES_MAX {
                    return Err(E::custom(format_args!(
                        "a key of {} bytes; at most {} are allowed (limit key_bytes_max)",
                        key.len(),
                        limits::KEY_BYTES_MAX
                    )));
                }
                Ok(Key(key.into()))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct CompactVisitor<'a> {
    seed: ValueSeed<'a>,
}

impl<'de> Visitor<'de> for CompactVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tagged value")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<Value, A::Error> {
        let short = || de::Error::custom("a tagged value ends early");
        Ok(match access.next_element::<Tag>()?.ok_or_else(short)? {
            Tag::Null => Value::Null,
            Tag::False => Value::Bool(false),
            Tag::True => Value::Bool(true),
            Tag::Int => Value::Int(access.next_element()?.ok_or_else(short)?),
            Tag::UInt => Value::unsigned(access.next_element()?.ok_or_else(short)?),
            Tag::Float => Value::float(access.next_element()?.ok_or_else(short)?)
                .ok_or_else(|| de::Error::custom("a number must be finite"))?,
            Tag::String => {
                struct Text(Arc<str>);
                impl<'de> Deserialize<'de> for Text {
                    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                        Arc::<str>::deserialize(deserializer).map(Text)
                    }
                }
                Value::String(access.next_element::<Text>()?.ok_or_else(short)?.0)
            }
            Tag::List => {
                access.next_element_seed(CompactList { seed: self.seed.inner() })?.ok_or_else(short)?
            }
            Tag::Map => {
                access.next_element_seed(CompactMap { seed: self.seed.inner() })?.ok_or_else(short)?
            }
        })
    }
}

struct CompactList<'a> {
    seed: ValueSeed<'a>,
}

impl<'de> DeserializeSeed<'de> for CompactList<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let ValueSeed { budget, depth } = self.seed;
        deserializer.deserialize_seq(ValueSeed { budget, depth: depth.saturating_sub(1) })
    }
}

struct CompactMap<'a> {
    seed: ValueSeed<'a>,
}

impl<'de> DeserializeSeed<'de> for CompactMap<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let ValueSeed { budget, depth } = self.seed;
        deserializer.deserialize_map(ValueSeed { budget, depth: depth.saturating_sub(1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
