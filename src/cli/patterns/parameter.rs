//! Parameters of a pattern: what each may hold, checked before it gets into a document. What is not accepted here is said
//! with the parameter's name and what it may be.

use super::fill::Filling;
use crate::compile::parse_duration;
use crate::limits;

/// One parameter.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
}

/// What a parameter holds.
#[derive(Debug)]
pub(super) enum Kind {
    /// A node's or a queue's id.
    Id,
    /// At least so many ids, each another, with commas between. They become nodes.
    Nodes(usize),
    /// Texts with commas between.
    Texts,
    /// A text on one line.
    Text,
    /// A duration.
    Duration,
    /// A number from, to.
    Number(u32, u32),
    /// One of these.
    Word(&'static [&'static str]),
}

/// What YAML, or its older readers, would take for something other than text.
const NO_TEXTS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// May it stand in a document without quotes, as an id? A letter comes first, so that it is no number.
pub(super) fn is_plain(text: &str, also: &[u8]) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || also.contains(&byte))
        && text.len() <= limits::NODE_ID_BYTES_MAX
        && !NO_TEXTS.contains(&&*text.to_ascii_lowercase())
}

/// As a quoted string of YAML: JSON's.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Kind {
    /// Reads a value as it goes into the template; `Err` is what it may be.
    pub(super) fn read(&self, text: &str) -> Result<Filling, String> {
        let items = || text.split(',').map(str::trim);
        let filling = match self {
            Self::Id => is_plain(text, b"").then(|| Filling::One(text.to_owned())),
            Self::Nodes(least) => {
                let ids: Vec<String> = items().map(str::to_owned).collect();
                let fit = ids.iter().all(|id| is_plain(id, b"")) && ids.len() >= *least && all_differ(&ids);
                fit.then_some(Filling::List(ids))
            }
            Self::Texts => items().all(is_line).then(|| Filling::List(items().map(quoted).collect())),
            Self::Text => is_line(text).then(|| Filling::One(quoted(text))),
            Self::Duration => parse_duration(text).map(|_| Filling::One(text.to_owned())),
            Self::Number(least, most) => {
                let number = text.parse::<u32>().ok().filter(|number| (least..=most).contains(&number));
                number.map(|number| Filling::One(number.to_string()))
            }
            Self::Word(words) => words.contains(&text).then(|| Filling::One(text.to_owned())),
        };
        filling.ok_or_else(|| self.wanted())
    }

    /// What it may be, in words.
    pub(super) fn wanted(&self) -> String {
        match self {
            Self::Id => String::from("an id: a letter, then letters, digits, _ and -"),
            Self::Nodes(least) => {
                format!(
                    "{least} or more different ids, as a,b,c: each a letter, then letters, digits, _ and -"
                )
            }
            Self::Texts => String::from("texts with commas between, none of them empty"),
            Self::Text => String::from("a text on one line, not empty"),
            Self::Duration => String::from("a duration such as 90s, 5m or 1h30m"),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
            Self::Word(words) => words.join(" or "),
        }
    }
}

fn is_line(text: &str) -> bool {
    let breaks = |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}');
    !text.trim().is_empty() && !text.contains(breaks)
}

fn all_differ(ids: &[String]) -> bool {
    let mut sorted: Vec<&String> = ids.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair.first() != pair.last())
}
