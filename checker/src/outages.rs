//! When the node was not there, by time of day: nothing that was due then is late.

use crate::history::History;
use crate::record::FaultKind;

/// Times without a node, none within another, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    /// Milliseconds since 1970.
    spans: Vec<(u64, u64)>,
    /// How late a timer may be while the node is there.
    late_ms_max: Option<u64>,
}

impl Outages {
    /// From what the recorder did. An outage begins with what was done and ends when the node has served again for as long as
    /// a timer may be late; clocks may differ by their slack.
    pub(crate) fn of(history: &History) -> Self {
        let late_ms_max = history.head.timer_late_ms_max;
        let slack_ms = history.head.clock_slack_ms;
        let after_ms = slack_ms + late_ms_max.unwrap_or(0);
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for fault in &history.faults {
            let Some(wall_ms) = fault.wall_ms else { continue };
            match (fault.what, spans.last_mut()) {
                (FaultKind::Heal | FaultKind::LossWindow, _) => {}
                (FaultKind::Restart, None) => spans.push((0, wall_ms + after_ms)),
                (FaultKind::Restart, Some((_, to))) => *to = wall_ms + after_ms,
                // Something else while it is away, or before timers have caught up.
                (_, Some((_, to))) if *to >= wall_ms.saturating_sub(slack_ms) => *to = u64::MAX,
                (_, _) => spans.push((wall_ms.saturating_sub(slack_ms), u64::MAX)),
            }
        }
        Self { spans, late_ms_max }
    }

    /// Was a timer that was due at `due_ms` and fired at `fired_ms` late, with the node there all the time?
    pub(crate) fn is_late(&self, due_ms: u64, fired_ms: u64) -> bool {
        let Some(late_ms_max) = self.late_ms_max else { return false };
        let after = self.spans.partition_point(|(_, to)| *to < due_ms);
        let away = self.spans.get(after).is_some_and(|(from, _)| *from <= fired_ms);
        !away && fired_ms.saturating_sub(due_ms) > late_ms_max
    }
}
