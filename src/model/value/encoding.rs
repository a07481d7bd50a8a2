//! The two encodings of a value, through serde: JSON where a format is human readable, a compact tagged form elsewhere.
//!
//! Reading stops at the limits of `limits::VALUE_*` while it reads, so a hostile text is never held whole as values.
//! What is read again is equal to what was written; compact bytes that were cut are refused. A value that is kept by
//! reference ([`kept`]) is written as its content's name where a table says so.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Map, Value};
use crate::limits;
use crate::model::kept;

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
    /// A content of the content store, which is the value.
    Kept,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(content) = kept::named(self) {
            if serializer.is_human_readable() {
                return kept::plainly(|| content.shown().serialize(serializer));
            }
            return (Tag::Kept, content).serialize(serializer);
        }
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
            Tag::Kept => kept::read(access.next_element()?.ok_or_else(short)?).map_err(de::Error::custom)?,
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
