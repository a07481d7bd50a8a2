//! Connections over QUIC, and what was refused, lost or closed of them: the cells of all fanout cores together.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::telemetry::{Cell, QuicCells};

/// Where a counter is.
type Read = fn(&QuicCells) -> &Cell;

const HANDSHAKES: [(&str, Read); 4] = [
    ("accepted", |cells| &cells.accepted),
    ("refused", |cells| &cells.refused),
    ("retried", |cells| &cells.retried),
    ("unfinished", |cells| &cells.unfinished),
];

const OTHERS: [(&str, &str, Read); 5] = [
    ("aob_quic_closed", "Connections closed because they asked for nothing or too much", |c| &c.closed),
    ("aob_quic_streams_wasted", "Streams of clients that came to nothing", |c| &c.wasted),
    ("aob_quic_client_datagrams", "Datagrams of clients, all dropped", |c| &c.client_datagrams),
    ("aob_quic_forwarded", "Datagrams handed to the core of their connection", |c| &c.forwarded),
    ("aob_quic_forwards_dropped", "Such datagrams that were dropped", |c| &c.forwards_dropped),
];

/// Adds them.
pub(super) fn encode(cores: &[Arc<QuicCells>], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let sum = |read: fn(&QuicCells) -> &Cell| cores.iter().map(|cells| read(cells).value()).sum::<u64>();
    let open = ConstGauge::new(i64::try_from(sum(|cells| &cells.open)).unwrap_or(i64::MAX));
    let help = "Open connections over QUIC";
    open.encode(encoder.encode_descriptor("aob_quic_connections", help, None, MetricType::Gauge)?)?;
    let help = "Handshakes of QUIC, by how they ended or were answered";
    let mut metric = encoder.encode_descriptor("aob_quic_handshakes", help, None, MetricType::Counter)?;
    for (outcome, read) in HANDSHAKES {
        ConstCounter::new(sum(read)).encode(metric.encode_family(&[("outcome", outcome)])?)?;
    }
    for (name, help, read) in OTHERS {
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(sum(read)).encode(metric)?;
    }
    Ok(())
}
