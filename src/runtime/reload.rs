//! SIGHUP: files are read again and swapped in; what cannot change while the node runs is named.

use super::Config;
use crate::api::Catalog;
use crate::auth::Door;
use crate::exec::Ledger;
use crate::telemetry::log;

/// The configuration, read again.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// As it is now.
    pub config: Config,
    /// Keys that changed and need a restart.
    pub stale: Vec<String>,
}

/// Reads the configuration again; the error is one line.
pub type Reread = Box<dyn Fn() -> Result<Fresh, String>>;

/// Takes over what may change, and says in lines what came of it: what went wrong, what needs a restart, or that all is well.
pub(super) fn reload(reread: &Reread, (door, catalog, ledger): (&Door, &Catalog, &Ledger)) -> Vec<String> {
    let fresh = match reread() {
        Ok(fresh) => fresh,
        Err(problem) => return vec![format!("nothing is reloaded: {problem}")],
    };
    log::set_level(fresh.config.log.level);
    catalog.govern(fresh.config.policy.clone());
    let fresh_budgets = ledger.govern(fresh.config.budgets.clone());
    let kept = |error| format!("not reloaded, the old one stays: {error}");
    let mut lines: Vec<String> = door.reload(&fresh.config.auth).into_iter().map(kept).collect();
    lines.extend(fresh_budgets.iter().map(|limit| {
        let (scope, per) = (&limit.scope, limit.per.as_str());
        format!("the budget of {scope} per {per} is new: it counts from now on; a restart counts what was spent before")
    }));
    if !fresh.stale.is_empty() {
        lines.push(format!("changed, but only a restart will show it: {}", fresh.stale.join(", ")));
    }
    lines
}
