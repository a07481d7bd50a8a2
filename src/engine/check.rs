//! Is a value fit to stand in an event? What is written must be read back, so it obeys the limits that reading has.
//!
//! The bytes are about those of the value as JSON: numbers are counted by their digits (floats as nine), escapes are not
//! counted. One walk, as deep as [`limits::VALUE_DEPTH_MAX`], and no longer than the limits allow.

use crate::limits;
use crate::model::{Failure, Value};

/// What is left of the limits.
struct Room {
    values: usize,
    bytes: usize,
}

enum Over {
    Values,
    Bytes,
    Depth,
}

/// Refuses a value that could not be read back, or is larger than an output may be.
pub(super) fn check(what: &str, value: &Value) -> Result<(), Failure> {
    let mut room = Room { values: limits::VALUE_COUNT_MAX, bytes: limits::VALUE_BYTES_MAX };
    room.take(value, 0).map_err(|over| {
        let (code, message) = match over {
            Over::Values => (
                "value_count_max",
                format!("{what} has more than {} values (limit value_count_max)", limits::VALUE_COUNT_MAX),
            ),
            Over::Bytes => (
                "value_bytes_max",
                format!("{what} has more than {} bytes (limit value_bytes_max)", limits::VALUE_BYTES_MAX),
            ),
            Over::Depth => (
                "value_depth_max",
                format!(
                    "{what} nests deeper than {} levels (limit value_depth_max)",
                    limits::VALUE_DEPTH_MAX
                ),
            ),
        };
        Failure::fatal(code, message)
    })
}

impl Room {
    fn bytes(&mut self, bytes: usize) -> Result<(), Over> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Over::Bytes)?;
        Ok(())
    }

    fn take(&mut self, value: &Value, depth: usize) -> Result<(), Over> {
        self.values = self.values.checked_sub(1).ok_or(Over::Values)?;
        if depth > limits::VALUE_DEPTH_MAX {
            return Err(Over::Depth);
        }
        match value {
            Value::Null => self.bytes(4),
            Value::Bool(_) => self.bytes(5),
            Value::Int(number) => self.bytes(digits(number.unsigned_abs()) + usize::from(*number < 0)),
            Value::UInt(number) => self.bytes(digits(*number)),
            Value::Float(_) => self.bytes(9),
            Value::String(text) => self.bytes(text.len() + 2),
            Value::List(items) => {
                self.bytes(2 + items.len())?;
                items.iter().try_for_each(|item| self.take(item, depth + 1))
            }
            Value::Map(map) => {
                self.bytes(2)?;
                map.iter().try_for_each(|(key, value)| {
                    self.bytes(key.len() + 4)?;
                    self.take(value, depth + 1)
                })
            }
        }
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::Null, |inner, _| Value::list(vec![inner]))
    }

    #[test]
    fn what_is_let_through_can_be_read_back() {
        let wide = Value::list(vec![Value::Int(1); limits::VALUE_COUNT_MAX - 1]);
        for value in [nested(limits::VALUE_DEPTH_MAX), wide, Value::Int(i64::MIN), Value::unsigned(u64::MAX)]
        {
            assert_eq!(check("it", &value), Ok(()));
            let bytes = postcard::to_stdvec(&value).unwrap();
            assert_eq!(postcard::from_bytes::<Value>(&bytes).unwrap(), value);
        }
    }

    #[test]
    fn limits_are_named_at_their_edge() {
        let wide = Value::list(vec![Value::Int(1); limits::VALUE_COUNT_MAX]);
        let long = Value::string("x".repeat(limits::VALUE_BYTES_MAX - 1));
        let deep = nested(limits::VALUE_DEPTH_MAX + 1);
        for (value, code) in [(wide, "value_count_max"), (long, "value_bytes_max"), (deep, "value_depth_max")]
        {
            assert_eq!(&*check("it", &value).unwrap_err().code, code);
        }
        assert_eq!(check("it", &Value::string("x".repeat(limits::VALUE_BYTES_MAX - 2))), Ok(()));
    }
}
