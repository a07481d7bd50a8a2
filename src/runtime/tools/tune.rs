//! What the host should be for a node: says what is not so (`check`), changes it (`apply`), and takes that back (`rollback`).
//!
//! What is wanted stands in `tuning/tune.toml`, each value with its reason. What the host does not have is left alone, and so is what is
//! better already. Before anything is changed, what stood there is written down and synced (`tune/record.rs`); a change that the kernel refuses
//! is told, and the others are made. What somebody else changed since is not taken back. The command line of the kernel is only told.

mod changes;
mod persist;
mod place;
mod record;
mod report;
mod rule;
#[cfg(test)]
mod shipped_tests;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use place::Found;
use rule::{Planes, Verdict, chosen, list};
use table::{Setting, Table};

pub use report::{Advice, Line, Report, State};

use super::super::plan::{self, Cores};
use super::super::topology::{Topology, parse_list};

/// Nothing could be looked at, or nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not the root of a host.
    #[error("{0}: there is no /proc/sys below it")]
    NoHost(PathBuf),
    /// The table that is part of this program is wrong.
    #[error("tuning/tune.toml: {0}")]
    Table(String),
    /// The cores that are configured are not there.
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    /// Somebody else changes this host at the moment.
    #[error("{0}: another `aobd tune` is at work")]
    Busy(PathBuf),
    /// What was written down before a change cannot be read.
    #[error("{0}: {1}")]
    Record(PathBuf, String),
    /// A file.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Error {
    fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// A host: its files below a root, and how its cores are shared out.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    planes: Planes,
    table: Table,
}

/// What was looked at, and what of it is to be changed.
struct Looked<'a> {
    lines: Vec<Line>,
    differing: Vec<Differing<'a>>,
}

/// A file that is to be changed.
struct Differing<'a> {
    /// Which line is about it.
    line: usize,
    path: PathBuf,
    setting: &'a Setting,
    write: String,
}

impl Host {
    /// The host below `root`, for a node with these cores.
    ///
    /// # Errors
    /// There is no host; it does not have these cores.
    pub fn new(root: &Path, cores: &Cores) -> Result<Self, Error> {
        if !root.join("proc/sys").is_dir() {
            return Err(Error::NoHost(root.to_owned()));
        }
        let table = Table::read(table::SHIPPED).map_err(|error| Error::Table(error.to_string()))?;
        let devices = root.join("sys/devices/system");
        let online = place::read(&devices.join("cpu/online")).unwrap_or_default();
        let plan = plan::plan(&Topology::read(&devices, &parse_list(online.trim())), cores)?;
        let planes = Planes { control: plan.control, runner: plan.runner };
        Ok(Self { root: root.to_owned(), planes, table })
    }

    /// What is not as wanted. Changes nothing.
    ///
    /// # Errors
    /// It could not be looked at.
    pub fn check(&self) -> Result<Report, Error> {
        let looked = self.look()?;
        Ok(Report { lines: looked.lines, advice: self.advice() })
    }

    fn look(&self) -> Result<Looked<'_>, Error> {
        let mut looked = Looked { lines: Vec::new(), differing: Vec::new() };
        for setting in &self.table.settings {
            let found = place::find(&self.root, setting)?;
            if found.is_empty() {
                looked.lines.push(Line::of(setting, Path::new(&setting.path), &self.planes));
            }
            for Found { path, now, offered } in found {
                let mut line = Line::of(setting, &path, &self.planes);
                let verdict = match &now {
                    Ok(now) => setting.want.judge(now, offered.as_deref(), &self.planes),
                    Err(why) => Verdict::NotHere(why.clone()),
                };
                line.now = now.ok().map(|now| chosen(&now));
                match verdict {
                    Verdict::Fits => line.state = State::AsWanted,
                    Verdict::NotHere(why) => line.said = Some(why),
                    Verdict::Differs(write) => {
                        line.state = State::Differs;
                        looked.differing.push(Differing {
                            line: looked.lines.len(),
                            path: path.clone(),
                            setting,
                            write,
                        });
                    }
                }
                looked.lines.push(line);
            }
        }
        Ok(looked)
    }

    /// The words that the command line of the kernel should have.
    fn advice(&self) -> Vec<Advice> {
        if !self.planes.are_apart() {
            return Vec::new();
        }
        let line = place::read(&self.root.join("proc/cmdline")).unwrap_or_default();
        let runner = list(&self.planes.runner);
        let advice = self.table.boot.iter().map(|boot| {
            let word = boot.word.replace("RUNNER", &runner);
            Advice {
                there: line.split_whitespace().any(|one| one == word),
                word,
                why: boot.why.clone(),
                source: boot.source.clone(),
            }
        });
        advice.collect()
    }
}
