//! Where a setting is on this host, and what stands there. Reads only.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Error;
use super::table::Setting;

/// More files of one setting than any host has.
const FILES_MAX: usize = 16_384;
/// No value of the kernel is longer, nor is a file of ours.
const BYTES_MAX: u64 = 1 << 20;

/// A file of a setting.
#[derive(Debug)]
pub(super) struct Found {
    /// As the host names it.
    pub(super) path: PathBuf,
    /// What stands there, or why that cannot be read.
    pub(super) now: Result<String, String>,
    /// The words it takes, where a file beside it says so.
    pub(super) offered: Option<String>,
}

/// The files of a setting, by name. None: this host does not have it.
pub(super) fn find(root: &Path, setting: &Setting) -> Result<Vec<Found>, Error> {
    let mut paths = Vec::new();
    if setting.each.is_empty() {
        paths = matching(root, &setting.path)?;
    }
    for each in &setting.each {
        for found in matching(root, each)? {
            let last = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
            paths.extend(matching(root, &setting.path.replace("{}", &last))?);
        }
    }
    paths.sort_unstable();
    paths.dedup();
    if setting.alone {
        let mut of_parent: BTreeMap<_, usize> = BTreeMap::new();
        let queues = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
        for path in &paths {
            *of_parent.entry(queues(path)).or_default() += 1;
        }
        paths.retain(|path| of_parent.get(&queues(path)) == Some(&1));
    }
    let found = |path: PathBuf| {
        let now = read(&under(root, &path)).map_err(|error| error.to_string());
        let beside = setting.offered.as_ref().map(|name| under(root, &path).with_file_name(name));
        Found { now, offered: beside.and_then(|path| read(&path).ok()), path }
    };
    Ok(paths.into_iter().map(found).collect())
}

/// A path of the host, as this process reaches it.
pub(super) fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What stands in a file.
pub(super) fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn matching(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, Error> {
    let escaped = glob::Pattern::escape(&root.to_string_lossy());
    let pattern = format!("{}{pattern}", escaped.trim_end_matches('/'));
    let found = glob::glob(&pattern).map_err(|error| Error::Table(format!("{pattern}: {error}")))?;
    // What vanishes or may not be looked into meanwhile is not there.
    let found = found.flatten().take(FILES_MAX);
    Ok(found.filter_map(|path| path.strip_prefix(root).map(|path| Path::new("/").join(path)).ok()).collect())
}
