//! The two files that bring back after a boot what was changed: `sysctl.d` and `tmpfiles.d`. Only what differed stands in them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::record::Change;

/// Values below `/proc/sys`.
pub(super) const SYSCTL: &str = "/etc/sysctl.d/60-aob.conf";
/// Values below `/sys`.
pub(super) const TMPFILES: &str = "/etc/tmpfiles.d/60-aob.conf";

/// How files that are written here begin.
const HEADER: &str = "# Written by `aobd tune apply`; `aobd tune rollback` takes it back.\n";

/// It is one of the two.
pub(super) fn is_one(path: &Path) -> bool {
    [SYSCTL, TMPFILES].map(Path::new).contains(&path)
}

/// It was written here.
pub(super) fn is_ours(text: &str) -> bool {
    text.starts_with(HEADER)
}

/// What they are to be for these changes; one that would be empty is not there.
pub(super) fn files<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Vec<(PathBuf, String)> {
    let mut sysctl = String::new();
    let mut tmpfiles = String::new();
    for change in changes.into_iter().filter(|change| change.boot.is_none()) {
        let path = change.path.to_string_lossy();
        if let Some(key) = path.strip_prefix("/proc/sys/") {
            // With slashes a part of the key may have dots. With the minus a kernel that does not have it is no failed boot.
            let _ = writeln!(sysctl, "-{key} = {}", change.wrote);
        } else if path.starts_with("/sys/") {
            let _ = writeln!(tmpfiles, "w {} - - - - {}", path.replace('%', "%%"), change.wrote);
        }
    }
    let whole = [(SYSCTL, sysctl), (TMPFILES, tmpfiles)].into_iter().filter(|(_, lines)| !lines.is_empty());
    whole.map(|(path, lines)| (PathBuf::from(path), format!("{HEADER}{lines}"))).collect()
}
