//! The price list of an evaluation, and the limits on what it builds.
//!
//! A step is one operation, or one element or 16 bytes that an operation touches; a place in a list that is built
//! costs two more (it takes 24 bytes). So neither time nor memory can grow past the budget. One text and one list have
//! limits of their own on top.

use super::Budget;
use super::datum::{Items, Shape};
use super::error::{self, Error};
use crate::limits;

/// Steps for one place of a list that is built.
pub(super) const PLACE: u64 = 2;
/// Steps for an error that is absorbed: making its message is dear.
pub(super) const ABSORBED: u64 = 16;
/// Steps for a small piece of text that is made or read: it has a place of its own in memory.
pub(super) const PIECE: u64 = 2;
/// Steps for a double, a duration or a point in time that is written as text or read from it.
pub(super) const NOTATION: u64 = 10;
/// Steps for a map that is built, besides its entries.
const MAP: u64 = 4;
/// Steps for looking a key up in a small map that nobody has looked at for a while.
const LOOKUP: u64 = 3;

impl Budget {
    /// Spends `steps`.
    #[inline]
    pub(super) fn take(&mut self, steps: u64) -> Result<(), Error> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => Err(self.exhausted()),
        }
    }

    #[cold]
    fn exhausted(&mut self) -> Error {
        self.steps = 0;
        Error::new(
            error::STEPS_MAX,
            "the expression takes more steps than one evaluation may (limit expression_steps_max); make its lists \
             smaller or spread the work over a map node",
        )
    }

    /// Before a key is looked up in a map of `count`.
    #[inline]
    pub(super) fn lookup(&mut self, count: usize) -> Result<(), Error> {
        self.take(LOOKUP + u64::from((count as u64 | 1).ilog2()))
    }

    /// For `bytes` of text that are read.
    #[inline]
    pub(super) fn scan(&mut self, bytes: usize) -> Result<(), Error> {
        self.take(bytes as u64 / 16)
    }

    /// Before `bytes` of text are built.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > limits::VALUE_BYTES_MAX {
            return Err(too_large(format!(
                "a text of {bytes} bytes; at most {} are allowed (limit value_bytes_max)",
                limits::VALUE_BYTES_MAX
            )));
        }
        self.take(PIECE)?;
        self.scan(bytes)
    }

    /// Before a list of `count` elements is built.
    pub(super) fn list(&mut self, count: usize) -> Result<(), Error> {
        if count > limits::VALUE_COUNT_MAX {
            return Err(too_many());
        }
        self.take((count as u64).saturating_mul(PLACE + 1))
    }

    /// Before a map of `count` entries is built.
    pub(super) fn map(&mut self, count: usize) -> Result<(), Error> {
        self.take(MAP)?;
        self.list(count)
    }

    /// Before one more element joins a list of `count`.
    #[inline]
    pub(super) fn push(&mut self, count: usize) -> Result<(), Error> {
        if count >= limits::VALUE_COUNT_MAX { Err(too_many()) } else { self.take(PLACE) }
    }

    /// Walks a value as it will be written: what it holds several times counts several times, so that a small value
    /// that shares its parts cannot become a huge text. Answers its bytes, roughly.
    pub(super) fn measure(&mut self, shape: Shape<'_>) -> Result<usize, Error> {
        let mut seen = Measured { values: 0, bytes: 0 };
        self.measure_into(shape, 0, &mut seen)?;
        Ok(seen.bytes)
    }

    fn measure_into(&mut self, shape: Shape<'_>, depth: usize, seen: &mut Measured) -> Result<(), Error> {
        self.take(1)?;
        if depth > limits::VALUE_DEPTH_MAX {
            return Err(too_large(format!(
                "a value nested deeper than {} levels (limit value_depth_max)",
                limits::VALUE_DEPTH_MAX
            )));
        }
        seen.values += 1;
        if seen.values > limits::VALUE_COUNT_MAX {
            return Err(too_many());
        }
        match shape {
            Shape::Text(text) => self.measure_text(text, seen)?,
            Shape::List(items) => {
                seen.bytes += 2 + items.len();
                match items {
                    Items::Plain(values) => {
                        for value in values {
                            self.measure_into(Shape::of(value), depth + 1, seen)?;
                        }
                    }
                    Items::Mixed(values) => {
                        for value in values {
                            self.measure_into(value.shape(), depth + 1, seen)?;
                        }
                    }
                }
            }
            Shape::Map(map) => {
                for (key, value) in map.iter() {
                    if key.len() > limits::KEY_BYTES_MAX {
                        return Err(too_large(format!(
                            "a map key of {} bytes; at most {} are allowed (limit key_bytes_max)",
                            key.len(),
                            limits::KEY_BYTES_MAX
                        )));
                    }
                    self.measure_text(key, seen)?;
                    self.measure_into(Shape::of(value), depth + 1, seen)?;
                }
            }
            _ => {
                self.take(1)?;
                seen.bytes += 8;
            }
        }
        Ok(())
    }

    fn measure_text(&mut self, text: &str, seen: &mut Measured) -> Result<(), Error> {
        self.scan(text.len())?;
        seen.bytes += text.len() + 3;
        if seen.bytes > limits::VALUE_BYTES_MAX {
            return Err(too_large(format!(
                "a value of more than {} bytes (limit value_bytes_max)",
                limits::VALUE_BYTES_MAX
            )));
        }
        Ok(())
    }
}

struct Measured {
    values: usize,
    bytes: usize,
}

#[cold]
fn too_large(what: String) -> Error {
    Error::new(error::SIZE_MAX, format!("the expression makes {what}"))
}

#[cold]
fn too_many() -> Error {
    too_large(format!("more than {} values (limit value_count_max)", limits::VALUE_COUNT_MAX))
}
