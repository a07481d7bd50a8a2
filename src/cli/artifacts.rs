//! What `aob patch list` says below its table: how much of a run's graph is stored as artifacts.

use serde_json::Value;

use super::Error;
use super::output::{Output, say};
use crate::client::{Call, Client, percent_encoded};

/// Says how many versions of the graph are stored; for people only.
pub(super) async fn footer(
    mut client: Client,
    run: &str,
    patches: &Value,
    output: &Output,
) -> Result<(), Error> {
    let version = patches.get("graph_version").and_then(Value::as_u64).unwrap_or(1);
    if !output.is_table() || version < 2 {
        return Ok(());
    }
    let answer: Value =
        client.json(Call::get(format!("/v1/runs/{}/artifacts", percent_encoded(run)))).await?;
    let stored = answer.get("artifacts").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    say(&line(stored, version - 1));
    let mut listed = patches.get("patches").and_then(Value::as_array).into_iter().flatten();
    if listed.any(|patch| patch.get("operations_kept") == Some(&Value::Bool(false))) {
        say("operations are not kept: the run is in fast mode");
    }
    Ok(())
}

fn line(stored: u64, versions: u64) -> String {
    match versions.saturating_sub(stored) {
        0 => format!("artifacts: all {versions} stored"),
        lag => format!("artifacts: {stored} of {versions} stored, {lag} to come"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F132
    #[test]
    fn people_are_told_how_far_behind_the_artifacts_are() {
        assert_eq!(line(3, 3), "artifacts: all 3 stored");
        assert_eq!(line(0, 2), "artifacts: 0 of 2 stored, 2 to come");
    }
}
