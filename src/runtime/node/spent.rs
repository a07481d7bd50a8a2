//! What was spent before a start, told to the ledger before the first call of a model.
//!
//! What must hold: each run counts once. Finished ones are in the index (recovery has put the rows that a crash had lost), unfinished
//! ones in the shards, as they were folded; nothing happens between the two looks, for no shard serves yet. No history is read:
//! sums of minutes for windows (those of a day and a half at most), sums of days for budgets without one (as many as are kept),
//! and what each unfinished run says of itself. What an unfinished run has spent counts as if it had been spent now.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Error;
use crate::exec::Ledger;
use crate::exec::ledger::{Per, Whose};
use crate::model::money::Usd;
use crate::runtime::shard::Shard;
use crate::store::Archive;
use crate::telemetry::log::{self, Target};
use crate::time::Timestamp;

/// Minutes that a window looks back, one of its sixtieths included.
const HOUR: u32 = 61;
const DAY: u32 = 24 * 61;

/// Tells the ledger.
pub(super) fn restore<'s>(
    (ledger, archive): (&Ledger, &dyn Archive),
    shards: impl Iterator<Item = &'s Shard>,
    now: Timestamp,
) -> Result<(), Error> {
    let has = |per| ledger.has(per);
    let back = match (has(Per::Day), has(Per::Hour)) {
        (true, _) => Some(DAY),
        (_, true) => Some(HOUR),
        _ => None,
    };
    if let Some(back) = back {
        let minute = u32::try_from(now.as_micros() / 60_000_000).unwrap_or(u32::MAX);
        archive.usage_since(minute.saturating_sub(back), &mut |row| {
            let at = Timestamp::from_micros(u64::from(row.minute) * 60_000_000).min(now);
            ledger.restore(&whose(row.workflow, row.role), &[Per::Hour, Per::Day], (row.usd, row.tokens), at);
        })?;
    }
    if has(Per::Total) {
        archive.usage_of_all(&mut |row| {
            let spent = (row.part.usd, row.part.tokens_taken());
            ledger.restore(&whose(row.workflow, row.role), &[Per::Total], spent, now);
        })?;
    }
    if back.is_some() || has(Per::Total) {
        let mut open: BTreeMap<(Arc<str>, Arc<str>), (Usd, u64)> = BTreeMap::new();
        for (workflow, role, usd, tokens) in shards.flat_map(Shard::charges) {
            let sum = open.entry((workflow, role)).or_default();
            *sum = (sum.0.plus(usd), sum.1.saturating_add(tokens));
        }
        for ((workflow, role), spent) in open {
            ledger.restore(&whose(workflow, role), &[Per::Hour, Per::Day, Per::Total], spent, now);
        }
    }
    for standing in ledger.restored(now) {
        let (scope, per) = (&standing.limit.scope, standing.limit.per.as_str());
        let spent = standing.usd.plus(standing.reserved);
        let tokens = standing.tokens.saturating_add(standing.tokens_reserved);
        log::warn(
            Target::Node,
            format_args!(
                "the budget of {scope} per {per} is nearly used up: ${spent}, {tokens} tokens were spent before"
            ),
        );
    }
    Ok(())
}

fn whose(workflow: Arc<str>, role: Arc<str>) -> Whose {
    Whose { workflow, role: Some(role).filter(|role| !role.is_empty()) }
}
