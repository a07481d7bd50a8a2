//! What `tune` says: a line for each file that it looked at, for people and as JSON.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::rule::Planes;
use super::table::Setting;

/// How a value is, or what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As wanted, or better.
    AsWanted,
    /// This host does not have it, or it cannot be compared.
    NotHere,
    /// It is not as wanted.
    Differs,
    /// It was changed, and is as wanted now.
    Written,
    /// It was to be changed and is not.
    Refused,
    /// It is what it was before it was changed.
    Restored,
    /// Somebody else changed it since: it stays.
    LeftAlone,
}

impl State {
    fn is_well(self) -> bool {
        !matches!(self, Self::Differs | Self::Refused | Self::LeftAlone)
    }

    fn word(self) -> &'static str {
        match self {
            Self::AsWanted => "as wanted",
            Self::NotHere => "not here",
            Self::Differs => "differs",
            Self::Written => "written",
            Self::Refused => "refused",
            Self::Restored => "restored",
            Self::LeftAlone => "left alone",
        }
    }
}

/// A file.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// As the host names it.
    pub path: PathBuf,
    /// How it is.
    pub state: State,
    /// What stood there when it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
    /// What is wanted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wanted: String,
    /// Why it is not so, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// What it costs when it is not so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Who says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// How to see that it does something.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verify: String,
}

impl Line {
    pub(super) fn of(setting: &Setting, path: &Path, planes: &Planes) -> Self {
        let wanted = setting.want.on(planes);
        let (why, source) = (setting.why.clone(), setting.source.clone());
        Self { wanted, why, source, verify: setting.verify.clone(), ..Self::plain(path, State::NotHere) }
    }

    pub(super) fn plain(path: &Path, state: State) -> Self {
        let none = String::new;
        Self {
            path: path.to_owned(),
            state,
            now: None,
            wanted: none(),
            said: None,
            why: none(),
            source: none(),
            verify: none(),
        }
    }

    pub(super) fn saying(self, said: impl Into<String>) -> Self {
        Self { said: Some(said.into()), ..self }
    }
}

/// A word of the kernel's command line.
#[derive(Clone, Debug, Serialize)]
pub struct Advice {
    /// As it would stand there.
    pub word: String,
    /// It does.
    pub there: bool,
    /// What it brings.
    pub why: String,
    /// Who says so.
    pub source: String,
}

/// Everything that was looked at, or done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// In the order of the table.
    pub lines: Vec<Line>,
    /// For the next boot; never counted.
    pub advice: Vec<Advice>,
}

impl Report {
    /// 0: everything is as wanted; 1: something is not.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.lines.iter().all(|line| line.state.is_well()))
    }

    /// How many lines are in a state.
    pub fn count(&self, state: State) -> usize {
        self.lines.iter().filter(|line| line.state == state).count()
    }
}

/// As people read it: what is well in one line, the rest with its reasons.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |line: &&Line| !matches!(line.state, State::AsWanted | State::NotHere);
        let mut lines = self.lines.iter().filter(told).peekable();
        while let Some(line) = lines.next() {
            write!(f, "{:<10}  {}", line.state.word(), line.path.display())?;
            match (&line.now, line.wanted.as_str()) {
                (Some(now), "") => write!(f, "  {now}")?,
                (Some(now), wanted) => write!(f, "  is {now}, wanted {wanted}")?,
                _ => {}
            }
            writeln!(f, "{}", line.said.as_ref().map(|said| format!("  ({said})")).unwrap_or_default())?;
            // Once for all files of one setting.
            if !line.why.is_empty() && lines.peek().is_none_or(|next| next.why != line.why) {
                writeln!(
                    f,
                    "            why     {}\n            verify  {}\n            source  {}",
                    line.why, line.verify, line.source
                )?;
            }
        }
        for Advice { word, why, .. } in self.advice.iter().filter(|advice| !advice.there) {
            writeln!(f, "advice      {word}  (command line of the kernel)\n            why     {why}")?;
        }
        let mut states: Vec<State> = self.lines.iter().map(|line| line.state).collect();
        states.sort_unstable();
        states.dedup();
        let counts = states.into_iter().map(|state| format!("{} {}", self.count(state), state.word()));
        let counts = counts.collect::<Vec<_>>().join(", ");
        writeln!(f, "{}", if counts.is_empty() { "nothing was changed here" } else { &counts })
    }
}
