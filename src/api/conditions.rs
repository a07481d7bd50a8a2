//! Conditional requests (RFC 9110, section 13): entity tags in `If-None-Match` and `If-Match`.
//!
//! A run's tag is the number of its last event. `If-None-Match` is judged here, by weak comparison: it only saves bytes.
//! `If-Match` is only read here; the owner of the run judges it, where no event can come between. A tag that was sent
//! with a content coding (`"12-gzip"`) is the tag of the same state.

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::coding;
use crate::model::Seq;
use crate::wire::problem::Problem;

/// One entity tag of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag<'a> {
    weak: bool,
    /// Between the quotes.
    opaque: &'a str,
    /// As sent.
    whole: &'a str,
}

/// What a conditional header holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Listed<'a> {
    Any,
    Tags(Vec<Tag<'a>>),
}

/// The tag of a run in this state.
pub(super) fn tag(seq: Seq) -> String {
    format!("\"{seq}\"")
}

/// What a 304 names, when the caller knows `tag` already: the tag as the caller wrote it. A header that cannot be read
/// is no condition.
pub(super) fn known(headers: &HeaderMap, tag: &str) -> Option<String> {
    let opaque = tag.trim_matches('"');
    match listed(headers, &header::IF_NONE_MATCH)?.ok()? {
        Listed::Any => Some(tag.to_owned()),
        Listed::Tags(tags) => {
            let same = |known: &&Tag<'_>| coding::uncoded(known.opaque) == opaque;
            tags.iter().find(same).map(|known| known.whole.to_owned())
        }
    }
}

/// The events, one of which a run's last one must be; `None` when the caller does not care. Weak tags never match.
///
/// # Errors
/// The header cannot be read. To act without the condition would be to do what the caller did not want.
pub(super) fn expected(headers: &HeaderMap) -> Result<Option<Vec<Seq>>, Box<Problem>> {
    match listed(headers, &header::IF_MATCH) {
        None | Some(Ok(Listed::Any)) => Ok(None),
        Some(Ok(Listed::Tags(tags))) => {
            let strong = tags.iter().filter(|tag| !tag.weak);
            Ok(Some(strong.filter_map(|tag| coding::uncoded(tag.opaque).parse().ok()).collect()))
        }
        Some(Err(())) => {
            let detail = "If-Match must be `*` or entity tags in double quotes, with commas between them";
            Err(Problem::new(400, "invalid_precondition", detail))
        }
    }
}

fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<Listed<'a>, ()>> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let mut tags = Vec::new();
    for value in values {
        let Ok(text) = value.to_str() else { return Some(Err(())) };
        if text.trim() == "*" {
            return Some(Ok(Listed::Any));
        }
        let mut rest = text.trim_start_matches([' ', '\t', ',']);
        while !rest.is_empty() {
            let Some((tag, after)) = one(rest) else { return Some(Err(())) };
            tags.push(tag);
            let after = after.trim_start_matches([' ', '\t']);
            if !after.is_empty() && !after.starts_with(',') {
                return Some(Err(()));
            }
            rest = after.trim_start_matches([' ', '\t', ',']);
        }
    }
    Some(if tags.is_empty() { Err(()) } else { Ok(Listed::Tags(tags)) })
}

/// The tag that a text begins with, and what comes after it.
fn one(text: &str) -> Option<(Tag<'_>, &str)> {
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
    let plain = opaque.bytes().all(|byte| byte == 0x21 || (0x23..=0x7e).contains(&byte));
    let whole = text.get(..text.len() - after.len())?;
    plain.then_some((Tag { weak, opaque, whole }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_known_is_found_in_lists_weak_or_coded() {
        let with = |values: &[&str]| known(&headers(header::IF_NONE_MATCH, values), "\"12\"");
        for (values, found) in [
            (&["\"12\""][..], Some("\"12\"")),
            (&["W/\"12\""], Some("W/\"12\"")),
            (&["\"1\", \"2,3\" ,\"12-gzip\""], Some("\"12-gzip\"")),
            (&["\"1\"", ", \"12-zstd\","], Some("\"12-zstd\"")),
            (&["*"], Some("\"12\"")),
            (&["\"1\", W/\"2\""], None),
            (&["12"], None),
            (&["\"12"], None),
            (&["w/\"12\""], None),
            (&["\"12\" \"13\""], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(with(values).as_deref(), found, "{values:?}");
        }
    }

    #[test]
    fn what_is_expected_is_strong_and_must_be_readable() {
        let with = |values: &[&str]| expected(&headers(header::IF_MATCH, values));
        assert_eq!(with(&[]).unwrap(), None);
        assert_eq!(with(&["*"]).unwrap(), None);
        assert_eq!(with(&["\"3\", \"5-gzip\""]).unwrap(), Some(vec![3, 5]));
        assert_eq!(with(&["W/\"3\", \"abc\", \"\""]).unwrap(), Some(vec![]));
        for broken in ["3", "", ",", "\"3", "\"3\";\"4\"", "*, \"3\""] {
            assert_eq!(with(&[broken]).unwrap_err().code, "invalid_precondition", "{broken}");
        }
    }
}
