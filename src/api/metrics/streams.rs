//! Streams of events: the cells of all fanout cores together.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::telemetry::StreamCells;

/// Adds them.
pub(super) fn encode(cores: &[Arc<StreamCells>], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let open = cores.iter().map(|cells| cells.open.value()).sum::<u64>();
    let open = ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX));
    let help = "Open event streams";
    open.encode(encoder.encode_descriptor("aob_stream_subscribers", help, None, MetricType::Gauge)?)?;
    let slow = ConstCounter::new(cores.iter().map(|cells| cells.slow.value()).sum::<u64>());
    let help = "Streams closed because their client did not read";
    slow.encode(encoder.encode_descriptor("aob_stream_slow_consumers", help, None, MetricType::Counter)?)
}
