//! `aob completions SHELL` and `aob man [DIR]`: made from the same description the arguments are parsed with.
//!
//! So they cannot lag behind it. Both need no node; what cannot be written is an error that names the file.

use std::path::Path;

use clap::CommandFactory as _;

use super::output::{Output, say};
use super::{Cli, Error};

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// A directory to write one page for each command into; without it all pages go to standard output
    directory: Option<String>,
}

impl Completions {
    /// Prints the script.
    pub(super) fn execute(&self, output: &mut Output) -> Result<(), Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "aob", &mut script);
        output.bytes(&script)
    }
}

impl Man {
    /// Prints or writes the pages.
    pub(super) fn execute(&self, output: &mut Output) -> Result<(), Error> {
        let pages = pages()?;
        let Some(directory) = &self.directory else {
            return pages.iter().try_for_each(|(_, page)| output.bytes(page));
        };
        let failed = |path: &Path, error: std::io::Error| Error::File {
            path: path.display().to_string(),
            why: error.to_string(),
        };
        let directory = Path::new(directory);
        std::fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
        for (name, page) in &pages {
            let path = directory.join(name);
            std::fs::write(&path, page).map_err(|error| failed(&path, error))?;
        }
        say(&format!("{}: {} pages written", directory.display(), pages.len()));
        Ok(())
    }
}

/// File name and text of the page of every command, parents first.
fn pages() -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut left = vec![root];
    let mut pages = Vec::new();
    while let Some(command) = left.pop() {
        let children = command.get_subcommands().filter(|child| !child.is_hide_set());
        left.extend(children.cloned().collect::<Vec<_>>().into_iter().rev());
        let page = clap_mangen::Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((page.get_filename(), text));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["aob.1", "aob-run.1", "aob-run-start.1", "aob-workflow-validate.1", "aob-completions.1"]
        {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help")), "{names:?}");
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
    }
}
