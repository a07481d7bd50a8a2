//! How long finished runs are kept: a short ladder of classes (`docs/operating/history.md`).
//!
//! Runs of one class lie in files of their own, so that a file goes as a whole. A duration is rounded up to the next class:
//! nothing is forgotten early. The numbers stand in the index and in names of files: append only.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Name and seconds of each class, shortest first.
const LADDER: [(&str, u64); 19] = [
    ("0s", 0),
    ("1s", 1),
    ("1m", MINUTE),
    ("10m", 10 * MINUTE),
    ("1h", HOUR),
    ("6h", 6 * HOUR),
    ("1d", DAY),
    ("2d", 2 * DAY),
    ("4d", 4 * DAY),
    ("7d", 7 * DAY),
    ("14d", 14 * DAY),
    ("30d", 30 * DAY),
    ("60d", 60 * DAY),
    ("90d", 90 * DAY),
    ("180d", 180 * DAY),
    ("1y", 365 * DAY),
    ("2y", 2 * 365 * DAY),
    ("5y", 5 * 365 * DAY),
    ("10y", 10 * 365 * DAY),
];

/// A step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Class(u8);

/// `1d`
const A_DAY: Class = Class(6);

impl Class {
    /// The shortest class that is not shorter than `retention`; the longest one for what is longer than all.
    pub fn of(retention: Duration) -> Self {
        let at = LADDER.iter().position(|(_, seconds)| Duration::from_secs(*seconds) >= retention);
        Self(u8::try_from(at.unwrap_or(LADDER.len() - 1)).unwrap_or_default())
    }

    /// For a run that is another's child: a day at least. Its parent asks for its end again after a crash, and when the
    /// parent's shard was away; a child that nobody knows would begin anew, with all its effects.
    #[must_use]
    pub fn of_child(self) -> Self {
        Ord::max(self, A_DAY)
    }

    /// All, shortest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..LADDER.len()).filter_map(|at| u8::try_from(at).ok().map(Self))
    }

    /// As in names of files and metrics.
    pub fn name(self) -> &'static str {
        LADDER.get(usize::from(self.0)).map_or("", |(name, _)| name)
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|class| class.name() == name)
    }

    /// How long its runs are kept after their end.
    pub fn duration(self) -> Duration {
        Duration::from_secs(LADDER.get(usize::from(self.0)).map_or(0, |(_, seconds)| *seconds))
    }
}

impl From<Class> for u8 {
    fn from(class: Class) -> Self {
        class.0
    }
}

impl TryFrom<u8> for Class {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        if usize::from(number) < LADDER.len() {
            Ok(Self(number))
        } else {
            Err(format!("retention class {number}; this binary knows {}", LADDER.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_rounded_up_and_names_lead_back() {
        for (asked, class) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(1), "1s"),
            (Duration::from_secs(1), "1s"),
            (Duration::from_secs(HOUR + 1), "6h"),
            (Duration::from_secs(7 * DAY), "7d"),
            (Duration::from_secs(7 * DAY + 1), "14d"),
            (Duration::MAX, "10y"),
        ] {
            assert_eq!(Class::of(asked).name(), class, "{asked:?}");
        }
        for class in Class::all() {
            assert_eq!(Class::named(class.name()), Some(class));
            assert_eq!(Class::of(class.duration()), class);
            assert_eq!(Class::try_from(u8::from(class)), Ok(class));
        }
        assert_eq!(Class::named("3d"), None);
        assert_eq!(Class::of(Duration::ZERO).of_child().name(), "1d");
        assert_eq!(Class::of(Duration::from_secs(30 * DAY)).of_child().name(), "30d");
        assert!(Class::try_from(200).is_err());
    }
}
