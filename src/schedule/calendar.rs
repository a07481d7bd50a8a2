//! When a cron pattern is due, in a time zone.
//!
//! A pattern has five fields, or six with seconds first. Zones are those of the IANA database that is compiled in
//! (docs/adr/0027), so every build gives the same answers on every machine. What one second, one minute and one hour
//! name is a time of day: on a day that has it twice it is due at the first, on a day that has it not at the end of the gap.
//! All other patterns are intervals: due whenever the wall clock shows a time that fits, so twice in an hour that comes twice,
//! never in one that is left out. Each answer is after what was asked for, or there is none: nobody loops here.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Zoned;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::limits;
use crate::time::Timestamp;

/// A pattern and a zone, checked.
#[derive(Clone, Debug)]
pub struct Calendar {
    cron: Cron,
    zone: TimeZone,
}

/// The texts are no calendar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The pattern is none.
    #[error("cron {0:?}: {1}; it has five fields (minute hour day month weekday), or six with seconds first")]
    Cron(String, String),
    /// It is too long.
    #[error("a cron of {0} bytes; at most {max}", max = limits::SCHEDULE_CRON_BYTES_MAX)]
    Long(usize),
    /// There is no such zone.
    #[error("there is no time zone {0:?}; it is a name such as Europe/Berlin or UTC")]
    Zone(String),
    /// It fits no time that will come.
    #[error("cron {0:?} fits no time that will come")]
    Never(String),
}

impl Invalid {
    /// The member of a schedule that is wrong.
    pub fn member(&self) -> &'static str {
        if matches!(self, Self::Zone(_)) { "timezone" } else { "cron" }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Calendar {
    /// Reads a pattern and the name of a zone.
    ///
    /// # Errors
    /// See [`Invalid`]; never that it is not due, which [`next_after`](Self::next_after) shows.
    pub fn parse(cron: &str, zone: &str) -> Result<Self, Invalid> {
        if cron.len() > limits::SCHEDULE_CRON_BYTES_MAX {
            return Err(Invalid::Long(cron.len()));
        }
        let fields = cron.split_ascii_whitespace().count();
        let wrong = |why: String| Invalid::Cron(cut(cron), why);
        if !cron.is_ascii() || !matches!(fields, 5 | 6) {
            return Err(wrong(format!("{fields} fields")));
        }
        // As cron has it from the beginning: a day field that begins with a star, with steps or not, narrows the other one.
        let mut days = cron.split_ascii_whitespace().skip(fields - 3).step_by(2);
        let narrowed = days.any(|field| field.starts_with('*'));
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed);
        let parser = parser.dom_and_dow(narrowed).build();
        let cron = parser.parse(cron).map_err(|error| wrong(error.to_string()))?;
        let known = zone.len() <= limits::NAME_BYTES_MAX;
        let found = known.then(|| TimeZoneDatabase::bundled().get(zone).ok()).flatten();
        let zone = found.ok_or_else(|| Invalid::Zone(cut(zone)))?;
        Ok(Self { cron, zone })
    }

    /// The first time after this one at which it is due.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let seconds = i64::try_from(after.as_micros() / 1_000_000).ok()?;
        let from = jiff::Timestamp::from_second(seconds).ok()?;
        let from = Zoned::new(from, self.zone.clone());
        let found = self.cron.find_next_occurrence(&from, false).ok()?.timestamp();
        let found = Timestamp::from_micros(u64::try_from(found.as_microsecond()).ok()?);
        (found > after).then_some(found)
    }
}
