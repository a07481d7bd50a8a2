//! Streams of events, and answers over HTTP/2 that their clients do not take: the cells of all cores together.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::telemetry::{StreamCells, UntakenCells};

/// Adds them.
pub(super) fn encode(
    cores: &[Arc<StreamCells>],
    untaken: &UntakenCells,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    let open = cores.iter().map(|cells| cells.open.value()).sum();
    let slow = cores.iter().map(|cells| cells.slow.value()).sum();
    for (name, help, value) in [
        ("aob_stream_subscribers", "Open event streams", open),
        ("aob_http2_untaken_bytes", "Answers over HTTP/2 that wait to be taken", untaken.bytes.value()),
    ] {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    for (name, help, value) in [
        ("aob_stream_slow_consumers", "Streams closed because their client did not read", slow),
        (
            "aob_http2_answers_refused",
            "Answers over HTTP/2 that were not kept because too much waited to be taken",
            untaken.refused.value(),
        ),
        (
            "aob_http2_stalled",
            "Connections of HTTP/2 closed because no answer was taken",
            untaken.stalled.value(),
        ),
    ] {
        let counter: ConstCounter<u64> = ConstCounter::new(value);
        counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    Ok(())
}
