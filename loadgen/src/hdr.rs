//! A load as a log of histograms (HdrHistogram interval log v1.3): a line a second, which any viewer of such logs reads.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aob::time::Timestamp;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::series::Seconds;

/// Microseconds, as they were recorded.
const UNIT: f64 = 1.0;

/// Writes it. `began`: when the load did.
pub(crate) fn write(path: &Path, began: Timestamp, seconds: &Seconds) -> Result<(), String> {
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let began = SystemTime::UNIX_EPOCH + Duration::from_micros(began.as_micros());
    let text = log(began, seconds).map_err(|error| said(&error))?;
    std::fs::write(path, text).map_err(|error| said(&error))
}

fn log(began: SystemTime, seconds: &Seconds) -> Result<Vec<u8>, String> {
    let said = |error: &dyn std::fmt::Debug| format!("{error:?}");
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_start_time(began).with_base_time(began).with_max_value_divisor(UNIT);
    let mut writer = builder.begin_log_with(&mut text, &mut serializer).map_err(|error| said(&error))?;
    writer
        .write_comment("start: scheduled moment to acknowledged start, us")
        .map_err(|error| said(&error))?;
    for (second, seen) in seconds.iter() {
        let at = Duration::from_secs(u64::from(second));
        writer
            .write_histogram(seen, at, Duration::from_secs(1), Tag::new("start"))
            .map_err(|error| said(&error))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    // F239
    #[test]
    fn a_log_is_read_back_second_by_second() {
        let mut seconds = Seconds::default();
        for (at_us, latency_us) in [(0, 100), (500_000, 300), (2_000_000, 5_000)] {
            seconds.record(at_us, latency_us);
        }
        let text = log(SystemTime::UNIX_EPOCH, &seconds).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            let bytes =
                base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).unwrap();
            let seen: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            found.push((
                interval.start_timestamp().as_secs(),
                seen.len(),
                interval.tag().unwrap().as_str().to_owned(),
            ));
        }
        assert_eq!(found, [(0, 2, "start".to_owned()), (2, 1, "start".to_owned())]);
    }
}
