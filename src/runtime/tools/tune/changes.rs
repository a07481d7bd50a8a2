//! Changing a host, and taking that back.
//!
//! Order: what stood there is written down and synced; values; the files that bring them back after a boot; what stands there now is written
//! down. A crash in between leaves a record that says all that may have been changed, and a value that is what it was is left as it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::record::{Change, Held, Record, replace, take_away};
use super::rule::{Verdict, chosen};
use super::{Differing, Error, Host, Line, Looked, Report, State, persist, place};

impl Host {
    /// Changes what is not as wanted.
    ///
    /// # Errors
    /// Nothing was changed: what stands there could not be written down.
    pub fn apply(&self) -> Result<Report, Error> {
        let held = Held::take(&self.root)?;
        let mut record = held.read()?;
        let mut looked = self.look()?;
        if !looked.differing.is_empty() {
            self.write_down(&looked, &mut record)?;
            held.write(&record)?;
            let refused = self.write_values(&mut looked, &mut record);
            let lines = self.write_files(&refused, &mut record);
            looked.lines.extend(lines);
            held.write(&record)?;
        }
        Ok(Report { lines: looked.lines, advice: self.advice() })
    }

    /// What stands there, of everything that may be changed.
    pub(super) fn write_down(&self, looked: &Looked<'_>, record: &mut Record) -> Result<(), Error> {
        let boot = self.boot();
        // What another boot had went with it.
        record.changes.retain(|change| change.boot.as_ref().is_none_or(|of| *of == boot));
        for Differing { path, setting, write, .. } in &looked.differing {
            let before = place::read(&self.at(path)).map_err(|error| Error::io(path, error))?;
            let boot = (!setting.persists).then(|| boot.clone());
            note(
                record,
                Change { path: path.clone(), before: Some(before), wrote: write.clone(), after: None, boot },
            );
        }
        for (path, text) in persist::files(&record.changes) {
            if self.at(&path).symlink_metadata().is_ok_and(|there| there.is_symlink()) {
                let why = "it is a link to somewhere else; take it away, or make it a file";
                return Err(Error::Record(path, why.to_owned()));
            }
            let before = self.read_file(&path)?;
            note(record, Change { path, before, wrote: text, after: None, boot: None });
        }
        Ok(())
    }

    /// Those that are not as wanted afterwards.
    fn write_values(&self, looked: &mut Looked<'_>, record: &mut Record) -> BTreeSet<PathBuf> {
        let mut refused = BTreeSet::new();
        for Differing { line, setting, write, .. } in &looked.differing {
            let Some(line) = looked.lines.get_mut(*line) else { continue };
            let at = self.at(&line.path);
            let wrote = std::fs::write(&at, write);
            let after = wrote.and_then(|()| place::read(&at)).map_err(|error| error.to_string());
            let fits = |after: &String| setting.want.judge(after, None, &self.planes) == Verdict::Fits;
            line.state = if after.as_ref().is_ok_and(fits) { State::Written } else { State::Refused };
            if line.state == State::Refused {
                refused.insert(line.path.clone());
            }
            line.said = Some(match &after {
                Ok(after) => format!("now {}", chosen(after)),
                Err(why) => why.clone(),
            });
            set_after(record, &line.path, after.ok());
        }
        refused
    }

    /// What was written is there after the next boot too.
    fn write_files(&self, refused: &BTreeSet<PathBuf>, record: &mut Record) -> Vec<Line> {
        let files = persist::files(record.changes.iter().filter(|change| !refused.contains(&change.path)));
        let mut lines = Vec::new();
        for (path, text) in files {
            match replace(&self.at(&path), &text) {
                Ok(()) => {
                    lines.push(Line::plain(&path, State::Written).saying("for the next boot"));
                    set_after(record, &path, Some(text));
                }
                Err(error) => lines.push(Line::plain(&path, State::Refused).saying(error.to_string())),
            }
        }
        lines
    }

    /// Takes back what `apply` changed, the last first.
    ///
    /// # Errors
    /// What stood there cannot be read, or nobody may change this host.
    pub fn rollback(&self) -> Result<Report, Error> {
        let held = Held::take(&self.root)?;
        let mut record = held.read()?;
        let boot = self.boot();
        let mut lines = Vec::new();
        let mut refused = Vec::new();
        while let Some(change) = record.changes.pop() {
            if change.boot.as_ref().is_some_and(|of| *of != boot) {
                continue;
            }
            let line = self.take_back(&change);
            if line.state == State::Refused {
                refused.push(change);
            }
            lines.push(line);
        }
        refused.reverse();
        record.changes = refused;
        held.write(&record)?;
        Ok(Report { lines, advice: Vec::new() })
    }

    fn take_back(&self, change: &Change) -> Line {
        let path = &change.path;
        let line = |state| Line::plain(path, state);
        let is_file = persist::is_one(path);
        let now = match self.read_file(path) {
            Ok(now) => now,
            Err(error) => return line(State::Refused).saying(error.to_string()),
        };
        if now == change.before {
            return line(State::Restored);
        }
        let Some(now) = now else { return line(State::LeftAlone).saying("it is not there any more") };
        let own = match &change.after {
            Some(after) => now == *after,
            None if is_file => persist::is_ours(&now),
            None => chosen(&now) == chosen(&change.wrote),
        };
        if !own {
            return line(State::LeftAlone).saying(format!("somebody else changed it: {}", first_line(&now)));
        }
        let at = self.at(path);
        let done = match (&change.before, is_file) {
            (None, _) => take_away(&at),
            (Some(before), true) => replace(&at, before),
            (Some(before), false) => put_back(&at, before),
        };
        match done {
            Ok(()) => line(State::Restored),
            Err(error) => line(State::Refused).saying(error.to_string()),
        }
    }

    fn read_file(&self, path: &Path) -> Result<Option<String>, Error> {
        match place::read(&self.at(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, error)),
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        place::under(&self.root, path)
    }

    /// Which boot of the host this is.
    fn boot(&self) -> String {
        let id = place::read(&self.root.join("proc/sys/kernel/random/boot_id"));
        id.unwrap_or_default().trim().to_owned()
    }
}

/// What stood there first stays what stood there.
fn note(record: &mut Record, change: Change) {
    match record.changes.iter_mut().find(|there| there.path == change.path) {
        Some(there) => *there = Change { before: there.before.take(), ..change },
        None => record.changes.push(change),
    }
}

fn set_after(record: &mut Record, path: &Path, after: Option<String>) {
    if let Some(change) = record.changes.iter_mut().find(|change| change.path == path) {
        change.after = after;
    }
}

/// A value of the kernel is what it was, byte for byte. What offers a choice takes the word, other files take what stood there.
fn put_back(at: &Path, before: &str) -> Result<(), Error> {
    let failed = |error| Error::io(at, error);
    for text in [chosen(before).as_str(), before] {
        std::fs::write(at, text).map_err(failed)?;
        if place::read(at).map_err(failed)? == before {
            return Ok(());
        }
    }
    Err(failed(std::io::Error::other("the kernel made something else of it")))
}

fn first_line(text: &str) -> String {
    chosen(text).chars().take(60).collect()
}
