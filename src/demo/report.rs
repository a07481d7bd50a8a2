//! The demo's report, for people.

use serde_json::Value;

/// What stands at `pointer`, without quotes.
fn shown(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::from("-"),
    }
}

fn rows<'a>(report: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    report.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Prints the report: totals, what was set aside and why, classes, regions, the strongest.
pub(super) fn print(report: &Value) {
    let total = |name: &str| shown(report, &format!("/totals/{name}"));
    anstream::println!("Report");
    anstream::println!(
        "  {} records: {} kept ({} earthquakes, {} blasts), {} set aside",
        total("records"),
        total("kept"),
        total("earthquakes"),
        total("blasts"),
        total("set_aside")
    );
    for row in rows(report, "/set_aside/by_reason") {
        anstream::println!("    {:>5}  {}", shown(row, "/count"), shown(row, "/reason").replace('_', " "));
    }
    table("class", rows(report, "/by_class"));
    table("region", rows(report, "/by_region"));
    let strongest = |name: &str| shown(report, &format!("/strongest/{name}"));
    anstream::println!(
        "\n  strongest: magnitude {} at {} km, {} ({})\n",
        strongest("magnitude"),
        strongest("depth_km"),
        strongest("place"),
        strongest("id")
    );
}

fn table<'a>(name: &str, rows: impl Iterator<Item = &'a Value>) {
    anstream::println!("\n  {name:<24} {:>6} {:>6} {:>6} {:>9}", "count", "max", "mean", "deepest");
    for row in rows {
        anstream::println!(
            "  {:<24} {:>6} {:>6} {:>6} {:>6} km",
            shown(row, &format!("/{name}")),
            shown(row, "/count"),
            shown(row, "/max_magnitude"),
            shown(row, "/mean_magnitude"),
            shown(row, "/deepest_km")
        );
    }
}
