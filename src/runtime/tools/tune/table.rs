//! What the host should be: `tuning/tune.toml`, which is part of the binary.

use serde::{Deserialize, Serialize};

use super::rule::Want;

/// The table as it is shipped.
pub(super) const SHIPPED: &str = include_str!("../../../../tuning/tune.toml");

/// Everything that is looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    #[serde(rename = "setting")]
    pub(super) settings: Vec<Setting>,
    pub(super) boot: Vec<Boot>,
}

/// A value that can be read and written while the host runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setting {
    /// Its files; `*` as in a shell, `{}` the last part of what `each` finds.
    pub(super) path: String,
    /// Files whose last part stands for `{}`.
    #[serde(default)]
    pub(super) each: Vec<String>,
    /// The file beside it that says which words it takes.
    pub(super) offered: Option<String>,
    /// Only where there is no other of its kind: `rx-*` of a card with one queue.
    #[serde(default)]
    pub(super) alone: bool,
    /// It is the same file after the next boot.
    #[serde(default = "yes")]
    pub(super) persists: bool,
    pub(super) want: Want,
    pub(super) why: String,
    pub(super) source: String,
    pub(super) verify: String,
}

/// A word of the kernel's command line: told, never written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Boot {
    /// `RUNNER` stands for the runner cores.
    pub(super) word: String,
    pub(super) why: String,
    pub(super) source: String,
}

fn yes() -> bool {
    true
}

impl Table {
    /// Reads the table.
    ///
    /// # Errors
    /// It is not one.
    pub(super) fn read(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}
