//! The demo's report, for people.

use serde_json::Value;

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints the report: totals, what was set aside and why, classes, regions, the strongest.
pub(super) fn print(report: &Value) {
    let totals = &report["totals"];
    anstream::println!("Report");
    anstream::println!(
        "  {} records: {} kept ({} earthquakes, {} blasts), {} set aside",
        totals["records"],
        totals["kept"],
        totals["earthquakes"],
        totals["blasts"],
        totals["set_aside"]
    );
    for row in report["set_aside"]["by_reason"].as_array().into_iter().flatten() {
        anstream::println!("    {:>5}  {}", row["count"].to_string(), text(&row["reason"]).replace('_', " "));
    }
    table("class", report["by_class"].as_array());
    table("region", report["by_region"].as_array());
    let strongest = &report["strongest"];
    anstream::println!(
        "\n  strongest: magnitude {} at {} km, {} ({})\n",
        strongest["magnitude"],
        strongest["depth_km"],
        text(&strongest["place"]),
        text(&strongest["id"])
    );
}

fn table(name: &str, rows: Option<&Vec<Value>>) {
    anstream::println!("\n  {name:<24} {:>6} {:>6} {:>6} {:>9}", "count", "max", "mean", "deepest");
    for row in rows.into_iter().flatten() {
        anstream::println!(
            "  {:<24} {:>6} {:>6} {:>6} {:>6} km",
            text(&row[name]),
            text(&row["count"]),
            text(&row["max_magnitude"]),
            text(&row["mean_magnitude"]),
            text(&row["deepest_km"])
        );
    }
}
