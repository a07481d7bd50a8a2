//! What became of calls of tools, for metrics: by tool and outcome, and how long they took (F343).
//!
//! Names of tools come from servers and documents: [`limits::METRIC_TOOLS_MAX`] of them are told apart, the rest is one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::limits;
use crate::model::{Failure, Value};
use crate::telemetry::Cell;

/// The outcomes that are told apart.
pub const OUTCOMES: [&str; 6] = ["succeeded", "failed", "refused", "timeout", "unavailable", "rate_limited"];
/// Upper bounds of the buckets of durations, in seconds; the last one has none.
pub const BUCKETS: [f64; 8] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, f64::MAX];

/// Of one tool.
#[derive(Debug, Default)]
pub struct ToolCells {
    /// As [`OUTCOMES`] has them.
    pub outcomes: [Cell; OUTCOMES.len()],
    /// As [`BUCKETS`] has them; each holds those above the one before.
    pub buckets: [Cell; BUCKETS.len()],
    /// Microseconds of all calls.
    pub micros: Cell,
}

/// Of all tools.
#[derive(Debug, Default)]
pub struct Counts(ArcSwap<BTreeMap<Arc<str>, Arc<ToolCells>>>);

impl Counts {
    /// One call ended.
    pub(super) fn ended(&self, tool: &Arc<str>, outcome: &Result<Value, Failure>, took_us: u64) {
        let at = match outcome {
            Ok(_) => 0,
            Err(failure) => match &*failure.code {
                "tool_not_allowed" | "tool_arguments_invalid" | "tools_invalid" => 2,
                "tool_timeout" => 3,
                "tool_unavailable" => 4,
                "tool_rate_limited" => 5,
                _ => 1,
            },
        };
        // What is not the agent's to call may be any text.
        let cells = self.cells(if at == 2 { None } else { Some(tool) });
        if let Some(cell) = cells.outcomes.get(at) {
            cell.increment();
        }
        #[expect(clippy::cast_precision_loss, reason = "for a bucket")]
        let seconds = took_us as f64 / 1e6;
        if let Some(cell) =
            BUCKETS.iter().position(|most| seconds <= *most).and_then(|at| cells.buckets.get(at))
        {
            cell.increment();
        }
        cells.micros.add(took_us);
    }

    fn cells(&self, tool: Option<&Arc<str>>) -> Arc<ToolCells> {
        const REST: &str = "*";
        let now = self.0.load();
        let name = tool.map_or(REST, |tool| &**tool);
        if let Some(cells) = now.get(name) {
            return cells.clone();
        }
        let name = if now.len() < limits::METRIC_TOOLS_MAX { name } else { REST };
        let mut map = now.as_ref().clone();
        let cells = map.entry(name.into()).or_default().clone();
        self.0.store(Arc::new(map));
        cells
    }

    /// By name, as of now.
    pub fn snapshot(&self) -> Arc<BTreeMap<Arc<str>, Arc<ToolCells>>> {
        self.0.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F343
    #[test]
    fn calls_are_told_apart_by_tool_and_outcome_and_further_tools_are_one() {
        let counts = Counts::default();
        let failed = |code: &str| Err(Failure::fatal(code, "x"));
        let name: Arc<str> = "weather".into();
        counts.ended(&name, &Ok(Value::Null), 20_000);
        counts.ended(&name, &failed("tool_timeout"), 60_000_001);
        counts.ended(&"anything".into(), &failed("tool_not_allowed"), 1);
        let now = counts.snapshot();
        let cells = now.get(&name).unwrap();
        assert_eq!(cells.outcomes.each_ref().map(Cell::value), [1, 0, 0, 1, 0, 0]);
        assert_eq!(cells.buckets.each_ref().map(Cell::value), [0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(cells.micros.value(), 60_020_001);
        assert_eq!(now.keys().map(|name| &**name).collect::<Vec<_>>(), ["*", "weather"]);
        for n in 0..2 * limits::METRIC_TOOLS_MAX {
            counts.ended(&format!("t{n}").into(), &Ok(Value::Null), 1);
        }
        assert_eq!(counts.snapshot().len(), limits::METRIC_TOOLS_MAX);
    }
}
