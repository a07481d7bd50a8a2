//! `aob run watch RUN`: a live picture where a person looks at a terminal, lines of events everywhere else.
//!
//! The picture is [`Tree`]; here it is only fed and drawn again in place, at each event and once a second.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::tree::{Frame, Tree};
use super::{Over, Which, follow, path};
use crate::cli::Error;
use crate::cli::output::Output;
use crate::client::{Call, Client, Step, Streamed};
use crate::time::{Clock as _, SystemClock};

/// Without an event the picture is drawn again after this, for the clocks in it.
const REDRAW: Duration = Duration::from_secs(1);
/// Lines of the picture, so that it fits any usual terminal.
const ROWS: usize = 20;
/// Columns, when the shell does not say how many there are.
const COLUMNS: usize = 80;

/// Watches until the run ends.
pub(super) async fn execute(
    mut client: Client,
    run: &str,
    (after, over): (u64, Over),
    output: &mut Output,
) -> Result<(), Error> {
    if !output.is_table() || !is_for_a_person() {
        return follow(client, run, &Which { after, over, ..Which::default() }, output).await.map(drop);
    }
    let graph: Value = client.json(Call::get(path(run, "/graph"))).await?;
    let mut tree = Tree::new(&graph, after > 0);
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
    bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
    let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).unwrap_or(COLUMNS);
    let mut events = client.events_over(over.into(), run, after);
    loop {
        let now_ms = SystemClock.now().as_millis();
        bar.set_message(tree.drawn(&Frame { now_ms, columns, rows: ROWS }));
        match events.step_within(REDRAW).await? {
            Step::Streamed(Streamed::Event(event)) => {
                tree.take(&serde_json::from_str(&event.data).unwrap_or_default());
            }
            Step::Streamed(Streamed::Reconnecting { why }) => tree.note(&format!("coming back: {why}")),
            Step::Streamed(Streamed::Aside(_)) | Step::Quiet => {}
            Step::Ended => break,
        }
    }
    bar.abandon_with_message(tree.drawn(&Frame {
        now_ms: SystemClock.now().as_millis(),
        columns,
        rows: ROWS,
    }));
    output.line("")
}

/// A terminal that can move its cursor, and nobody who asked for plain text.
fn is_for_a_person() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var("TERM").map_or(true, |term| term == "dumb");
    std::io::stdout().is_terminal() && !dumb && !set("NO_COLOR") && !set("CI")
}
