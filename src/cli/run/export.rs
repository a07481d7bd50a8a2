//! `aob run export`: everything there is about one run, as JSON Lines, page by page in bounded memory.
//!
//! First `{"run": ...}`, then `{"document": ...}`, then `{"event": ...}` for each event in order, then `{"end": ...}` with their
//! number: a file without that line is not whole. A gap in the numbers ends it with an error.

use serde_json::{Value, json};

use super::super::Error;
use super::super::output::Output;
use super::{get, path};
use crate::client::{Call, Client};

/// Events asked for at a time.
const PAGE_ROWS: u64 = 500;

pub(super) async fn execute(mut client: Client, run: &str, output: &mut Output) -> Result<(), Error> {
    let about = get(client.another(), run).await?;
    let graph: Value = client.json(Call::get(path(run, "/graph"))).await?;
    let wanted = about.get("seq").and_then(Value::as_u64).unwrap_or_default();
    output.line(&json!({"run": about}).to_string())?;
    output.line(&json!({"document": graph.get("document")}).to_string())?;
    let mut last = 0;
    while last < wanted {
        let limit = PAGE_ROWS.min(wanted - last);
        let page = path(run, &format!("/timeline?cursor={last}&limit={limit}"));
        let page: Value = client.json(Call::get(page)).await?;
        let rows = page.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            return Err(Error::Invalid(format!("the events of {run} end with {last}, not with {wanted}")));
        }
        for row in rows {
            let seq = row.get("seq").and_then(Value::as_u64);
            if seq != Some(last + 1) {
                let found = seq.unwrap_or_default();
                return Err(Error::Invalid(format!("event {found} of {run} follows event {last}")));
            }
            output.line(&json!({"event": row}).to_string())?;
            last += 1;
        }
    }
    output.line(&json!({"end": {"events": last}}).to_string())
}
