//! Where a command goes and as whom: flags, then `AOB_` variables, then the named context of
//! `$XDG_CONFIG_HOME/aob/config.toml`, then the default.
//!
//! A context named by a flag counts as the flag's: its values go before the environment. The token of a context is sent
//! to that context's address only. A token is never printed, not in errors and not by `Debug`; a file that holds one and
//! that others can read is warned about.

mod file;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::Error;
use super::output::Output;
use crate::client::{Client, DEFAULT_URL};
use file::{Context, File};

/// What the flags say.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Flags {
    /// Where the node listens (or AOB_URL)
    #[arg(long, global = true)]
    url: Option<String>,
    /// Which context of the configuration file to use (or AOB_CONTEXT)
    #[arg(long, global = true)]
    context: Option<String>,
    /// In which workspace (or AOB_WORKSPACE)
    #[arg(long, global = true)]
    workspace: Option<String>,
    /// Certificates (PEM) to trust beside the system's, for https (or AOB_CA_FILE)
    #[arg(long, global = true, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send the token by plain http to another machine, where others may read it (or AOB_ALLOW_PLAIN_TOKEN=true)
    #[arg(long, global = true)]
    allow_plain_token: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the contexts of the configuration file
    List,
    /// Make a context the current one
    Use {
        /// Its name
        name: String,
    },
    /// Show what a command would use, or what a context holds; a token is not shown
    Show {
        /// Its name
        name: Option<String>,
    },
}

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a secret)")
    }
}

/// Where to go and as whom.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    context: Option<String>,
    url: String,
    workspace: Option<String>,
    token: Option<Secret>,
    ca_file: Option<PathBuf>,
    allow_plain_token: bool,
}

/// The client that flags, environment and file ask for.
pub(super) fn client(flags: &Flags) -> Result<Client, Error> {
    let settings = settings(flags)?;
    let mut client = Client::trusting(&settings.url, settings.ca_file.as_deref())?
        .allow_plain_token(settings.allow_plain_token);
    if let Some(Secret(token)) = &settings.token {
        client = client.with_token(token)?;
    }
    match &settings.workspace {
        Some(workspace) => Ok(client.with_workspace(workspace)?),
        None => Ok(client),
    }
}

impl Verb {
    /// Does it; no node is asked.
    pub(super) fn execute(&self, flags: &Flags, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::List => list(output),
            Self::Use { name } => {
                File::choose(&place()?, name)?;
                super::output::say(&format!("{name} is the current context"));
                Ok(())
            }
            Self::Show { name } => {
                let mut flags = flags.clone();
                flags.context = name.clone().or(flags.context);
                show(&settings(&flags)?, output)
            }
        }
    }
}

fn list(output: &mut Output) -> Result<(), Error> {
    let file = File::read(&place()?)?;
    let rows: Vec<_> = file
        .contexts
        .iter()
        .map(|(name, context)| {
            json!({
                "name": name,
                "current": file.current.as_ref() == Some(name),
                "url": context.url,
                "workspace": context.workspace,
                "ca_file": context.ca_file,
                "has_token": context.token.is_some() || context.token_file.is_some(),
            })
        })
        .collect();
    output.rows(
        &json!({ "contexts": rows }),
        "contexts",
        &["current", "name", "url", "workspace", "has_token"],
    )
}

fn show(settings: &Settings, output: &mut Output) -> Result<(), Error> {
    let (context, workspace) = (&settings.context, &settings.workspace);
    let has_token = settings.token.is_some();
    if !output.is_table() {
        let url = &settings.url;
        return output.document(&json!({
            "context": context,
            "url": url,
            "workspace": workspace,
            "ca_file": settings.ca_file,
            "has_token": has_token,
        }));
    }
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| String::from("-"));
    output.line(&format!("context      {}", or_none(context)))?;
    output.line(&format!("url          {}", settings.url))?;
    output.line(&format!("workspace    {}", or_none(workspace)))?;
    let ca_file = settings.ca_file.as_ref().map(|path| path.display().to_string());
    output.line(&format!("ca_file      {}", or_none(&ca_file)))?;
    output.line(&format!("token        {}", if has_token { "set" } else { "-" }))
}

fn settings(flags: &Flags) -> Result<Settings, Error> {
    let file = match place() {
        Ok(path) => File::read(&path)?,
        // Without a home there is no file, which is no error as long as none is asked for.
        Err(_) => File::default(),
    };
    resolve(flags, &variable, &file)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn place() -> Result<PathBuf, Error> {
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
    let none =
        || Error::NotFound(String::from("neither XDG_CONFIG_HOME nor HOME says where contexts are kept"));
    Ok(base.ok_or_else(none)?.join("aob").join("config.toml"))
}

/// Flag > environment > file > default.
fn resolve(
    flags: &Flags,
    environment: &dyn Fn(&str) -> Option<String>,
    file: &File,
) -> Result<Settings, Error> {
    let by_flag = flags.context.is_some();
    let name = flags.context.clone().or_else(|| environment("AOB_CONTEXT")).or_else(|| file.current.clone());
    let none = Context::default();
    let context = match &name {
        Some(name) => file.contexts.get(name).ok_or_else(|| file.missing(name))?,
        None => &none,
    };
    let pick = |flag: Option<&String>, variable: &str, kept: Option<&String>| {
        let environment = environment(variable).filter(|_| !(by_flag && kept.is_some()));
        flag.cloned().or(environment).or_else(|| kept.cloned())
    };
    let url = pick(flags.url.as_ref(), "AOB_URL", context.url.as_ref());
    let url = url.unwrap_or_else(|| String::from(DEFAULT_URL));
    let at_home = same(&url, context.url.as_deref().unwrap_or(DEFAULT_URL));
    let kept = if at_home { context.token()? } else { None };
    let given = match environment("AOB_TOKEN") {
        Some(token) => Some(Secret(token)),
        None => environment("AOB_TOKEN_FILE").map(|path| file::token_in(path.as_ref())).transpose()?,
    };
    let token = if by_flag { kept.or(given) } else { given.or(kept) };
    let workspace = pick(flags.workspace.as_ref(), "AOB_WORKSPACE", context.workspace.as_ref());
    let ca_file = environment("AOB_CA_FILE").map(PathBuf::from);
    let ca_file = flags.ca_file.clone().or_else(|| match by_flag {
        true => context.ca_file.clone().or(ca_file),
        false => ca_file.or_else(|| context.ca_file.clone()),
    });
    let said = environment("AOB_ALLOW_PLAIN_TOKEN").is_some_and(|said| said == "true" || said == "1");
    // What a context allows, it allows for its own address, as with its token.
    let allow_plain_token = flags.allow_plain_token || said || (at_home && context.allow_plain_token);
    Ok(Settings { context: name, url, workspace, token, ca_file, allow_plain_token })
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

#[cfg(test)]
mod tests;
