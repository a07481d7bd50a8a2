//! Workspaces, which are kept apart by name: inside the node the workflow `flow` of workspace `acme` is called `acme/flow`,
//! and those of `default` have no prefix (docs/adr/0010).
//!
//! It holds because no name from outside may contain `/`: whatever comes in goes through [`Workspace::qualified`], whatever
//! goes out through [`shown`].

use std::borrow::Cow;
use std::sync::Arc;

/// Bytes of a workspace's name.
const BYTES_MAX: usize = 32;
const DEFAULT: &str = "default";

/// One workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workspace(Option<Arc<str>>);

/// The text is no name of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} does not fit [a-z0-9][a-z0-9_-]{{0,31}}")]
pub struct Invalid {
    shown: String,
}

impl std::str::FromStr for Workspace {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first = text.bytes().next().is_some_and(plain);
        if !first || text.len() > BYTES_MAX || !text.bytes().all(|b| plain(b) || b == b'_' || b == b'-') {
            return Err(Invalid { shown: text.chars().take(60).collect() });
        }
        Ok(Self((text != DEFAULT).then(|| text.into())))
    }
}

impl Workspace {
    /// That of whoever names none.
    pub const DEFAULT: Self = Self(None);
    /// Its name.
    pub const DEFAULT_NAME: &str = DEFAULT;

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.as_deref().unwrap_or(DEFAULT)
    }

    /// The name inside the node of what is called `name` in this workspace; `None` when nothing can be called so.
    pub fn qualified<'a>(&self, name: &'a str) -> Option<Cow<'a, str>> {
        if name.contains('/') {
            return None;
        }
        Some(match &self.0 {
            None => Cow::Borrowed(name),
            Some(own) => Cow::Owned(format!("{own}/{name}")),
        })
    }

    /// The name inside the node of a checked name, which has no `/`.
    pub fn inside(&self, checked: &Arc<str>) -> Arc<str> {
        match &self.0 {
            None => checked.clone(),
            Some(own) => format!("{own}/{checked}").into(),
        }
    }

    /// The workspace of what has this name inside the node.
    pub fn of(qualified: &str) -> Self {
        Self(qualified.split_once('/').map(|(workspace, _)| workspace.into()))
    }

    /// Is what has this name inside the node in this workspace?
    pub fn owns(&self, qualified: &str) -> bool {
        qualified.split_once('/').map(|(workspace, _)| workspace) == self.0.as_deref()
    }
}

/// A workflow's name as its own workspace knows it.
pub fn shown(qualified: &str) -> &str {
    qualified.split_once('/').map_or(qualified, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    // F416
    #[test]
    fn a_name_goes_in_and_out_and_no_other_workspace_can_be_named() {
        let (default, acme): (Workspace, Workspace) = ("default".parse().unwrap(), "acme".parse().unwrap());
        assert_eq!(default, Workspace::DEFAULT);
        for workspace in [&default, &acme] {
            let inside = workspace.qualified("flow").unwrap();
            assert_eq!((shown(&inside), Workspace::of(&inside)), ("flow", workspace.clone()));
            assert_eq!(
                (default.owns(&inside), acme.owns(&inside)),
                (*workspace == default, *workspace == acme)
            );
            assert_eq!(workspace.qualified("acme/flow"), None);
        }
        for bad in ["", "Acme", "a/b", "a.b", "-a", "é", &"a".repeat(33)] {
            assert!(bad.parse::<Workspace>().is_err(), "{bad:?}");
        }
    }
}
