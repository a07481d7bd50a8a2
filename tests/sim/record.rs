//! What was simulated, written down: which seeds, how long, what came up, and the traces of every hundredth, so that a
//! later build can be held to them.

use std::path::Path;

use serde_json::json;

use super::Sum;

/// Writes the record of seeds `first` to `first + count` to a file.
pub(super) fn write(path: &Path, (first, count): (u64, u64), sum: &Sum) {
    let record = json!({
        "first_seed": first,
        "seeds": count,
        "runs_of_each": 2,
        "simulated_hours": (sum.simulated_us as f64 / 3.6e9 * 10.0).round() / 10.0,
        "broken": sum.broken,
        "sometimes": sum.seen,
        "traces": sum.traces,
    });
    std::fs::write(path, format!("{record:#}\n")).unwrap();
}
