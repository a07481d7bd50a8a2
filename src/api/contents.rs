//! Contents: `GET /v1/cas/{hash}`, what is kept before a command names it, and the turns of the collector.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode, header};

use super::ports::Content;
use super::respond::{self, Body, bytes, with};
use super::services::{Services, blocking};
use super::{admission, allow, conditions, request};
use crate::engine::command::{Command, Refusal, Reply};
use crate::model::{ContentHash, Kept, RunId, Value, Workspace, kept};
use crate::time::Clock as _;
use crate::wire::problem::Problem;

type Answer = Result<Response<Body>, Box<Problem>>;

/// Longest time between two turns of the collector, and the shortest.
const TURN_MAX: Duration = Duration::from_secs(10);
const TURN_MIN: Duration = Duration::from_millis(50);

const REFERENCES: HeaderName = HeaderName::from_static("aob-references");
const DIGEST: HeaderName = HeaderName::from_static("repr-digest");

impl Services {
    /// Stores what of a value is too large to stand in the events of a run, durably. A command that brings the value must
    /// come after this, with what is given back ([`Command::keeping`]).
    pub(super) async fn keep(
        &self,
        run_id: RunId,
        workspace: &Workspace,
        value: &Value,
    ) -> Result<Option<Arc<Kept>>, Box<Problem>> {
        let parts = kept::parts(value, self.contents.inline_max());
        if parts.is_empty() { Ok(None) } else { self.keep_parts(run_id, workspace, parts).await }
    }

    /// The same, by who knows the parts.
    pub(super) async fn keep_parts(
        &self,
        run_id: RunId,
        workspace: &Workspace,
        parts: Vec<Value>,
    ) -> Result<Option<Arc<Kept>>, Box<Problem>> {
        let (contents, workspace) = (self.contents.clone(), workspace.clone());
        Ok(Some(Arc::new(blocking(move || contents.keep(run_id, &workspace, parts)).await??)))
    }

    /// The same for a run that is there.
    pub(super) async fn keep_for(
        &self,
        run_id: RunId,
        value: &Value,
    ) -> Result<Option<Arc<Kept>>, Box<Problem>> {
        let parts = kept::parts(value, self.contents.inline_max());
        if parts.is_empty() {
            return Ok(None);
        }
        let workspace = self.workspace_of(run_id).await?;
        self.keep_parts(run_id, &workspace, parts).await
    }
}

/// The bytes asked for: from the first, before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part(usize, usize),
    Nothing,
}

/// `GET /v1/cas/{hash}`
pub(super) async fn get(services: &Services, head: &Parts, text: &str) -> Answer {
    allow(head, "GET, HEAD")?;
    request::require_accept(&head.headers, "application/json")?;
    let sha256 =
        request::percent_decoded(text, false).as_deref().and_then(kept::parse_name).ok_or_else(|| {
            let text: String = text.chars().take(80).collect();
            let detail = format!("{text:?} is no hash; sha256: and 64 digits 0-9 a-f are expected");
            Problem::new(400, "invalid_path", detail)
        })?;
    let workspace = admission::workspace(head).clone();
    let (contents, counted) = (services.contents.clone(), head.method == Method::HEAD);
    let (found, references) = services
        .read(move || {
            let found = contents.read(&sha256, &workspace)?;
            let count = if counted { Some(contents.references(&sha256, &workspace)?) } else { None };
            Ok::<_, super::ports::StorageError>((found, count))
        })
        .await?;
    let name = kept::name(&sha256);
    match found {
        Content::Whole(whole) => {
            let response = content(head, &sha256, whole)?;
            Ok(match references {
                Some(count) => with(response, REFERENCES, count.to_string()),
                None => response,
            })
        }
        Content::Damaged(why) => Err(Problem::new(500, "blob_corrupt", format!("{name}: {why}"))),
        Content::Missing(why) => Err(Problem::new(500, "blob_missing", format!("{name}: {why}"))),
        Content::Unknown => Err(Problem::new(404, "blob_not_found", format!("there is no content {name}"))),
    }
}

/// Contents never change, so whoever has one has it for good. They are sent as they are, not packed: what is asked for may
/// be a range, and the digest is of these very bytes.
fn content(head: &Parts, sha256: &ContentHash, whole: Vec<u8>) -> Answer {
    let tag = format!("\"{}\"", kept::name(sha256));
    if let Some(known) = conditions::known(&head.headers, &tag) {
        return Ok(lasting(respond::not_modified(&known)));
    }
    let length = whole.len();
    let response = match range(head, &tag, length) {
        Range::Whole => bytes(StatusCode::OK, "application/json", whole),
        Range::Part(from, before) => {
            let part = Bytes::from(whole).slice(from..before);
            let response = bytes(StatusCode::PARTIAL_CONTENT, "application/json", part);
            let last = before.saturating_sub(1);
            with(response, header::CONTENT_RANGE, format!("bytes {from}-{last}/{length}"))
        }
        Range::Nothing => {
            let detail = format!("no byte of the range asked for is among the {length} there are");
            let mut problem = Problem::new(416, "range_not_satisfiable", detail);
            problem.instance = Some(head.uri.path().chars().take(256).collect());
            let response = respond::problem(&problem);
            return Ok(with(response, header::CONTENT_RANGE, format!("bytes */{length}")));
        }
    };
    let digest = base64::engine::general_purpose::STANDARD.encode(sha256);
    let response = with(response, header::ETAG, &tag);
    let response = with(response, DIGEST, format!("sha-256=:{digest}:"));
    Ok(lasting(with(response, header::ACCEPT_RANGES, "bytes")))
}

fn lasting(response: Response<Body>) -> Response<Body> {
    with(response, header::CACHE_CONTROL, "private, max-age=31536000, immutable, no-transform")
}

/// What `Range` asks for (RFC 9110, section 14). A header that is not understood, or that names several ranges, is ignored,
/// and so is one whose `If-Range` names another content.
fn range(head: &Parts, tag: &str, length: usize) -> Range {
    if head.method != Method::GET {
        return Range::Whole;
    }
    let unchanged = head.headers.get(header::IF_RANGE).is_none_or(|given| given.as_bytes() == tag.as_bytes());
    let mut values = head.headers.get_all(header::RANGE).iter();
    let (Some(value), None, true) = (values.next(), values.next(), unchanged) else { return Range::Whole };
    let asked = value.to_str().ok().and_then(|text| text.trim().split_once('='));
    let Some(asked) = asked.filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes")) else {
        return Range::Whole;
    };
    one_range(asked.1.trim(), length).unwrap_or(Range::Whole)
}

/// `from-last`, `from-` or `-count`; `None` for anything else.
fn one_range(text: &str, length: usize) -> Option<Range> {
    let (from, last) = text.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(from) || !digits(last) || (from.is_empty() && last.is_empty()) {
        return None;
    }
    // A number that does not fit is behind the end in any case.
    let number = |text: &str| text.parse::<usize>().unwrap_or(usize::MAX);
    let (from, before) = if from.is_empty() {
        (length.saturating_sub(number(last)), length)
    } else if last.is_empty() {
        (number(from), length)
    } else {
        if number(last) < number(from) {
            return None;
        }
        (number(from), number(last).saturating_add(1).min(length))
    };
    Some(if from < before { Range::Part(from, before) } else { Range::Nothing })
}

/// Lets go of contents that nothing refers to any more. Runs on one core of the node, in small turns.
pub async fn collect_contents(services: std::rc::Rc<Services>) {
    let turn = (services.contents.grace() / 8).clamp(TURN_MIN, TURN_MAX);
    loop {
        tokio::time::sleep(turn).await;
        if let Err(problem) = collect(&services).await {
            super::records::background("the content store", &problem);
        }
    }
}

async fn collect(services: &Services) -> Result<(), Box<Problem>> {
    let contents = services.contents.clone();
    for run_id in blocking(move || contents.unarchived()).await?? {
        // Whatever else a shard says of it, the run is its own.
        let reply = services.ask(run_id, Command::Locate(run_id)).await?;
        if matches!(reply, Reply::Refused(Refusal::NotFound(_))) {
            let (contents, now_us) = (services.contents.clone(), services.clock.monotonic_us());
            blocking(move || contents.nowhere(run_id, now_us)).await??;
        }
    }
    let (contents, now_us) = (services.contents.clone(), services.clock.monotonic_us());
    Ok(blocking(move || contents.sweep(now_us)).await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_as_the_rfc_says() {
        for (text, wanted) in [
            ("0-4", Some(Range::Part(0, 5))),
            ("5-", Some(Range::Part(5, 10))),
            ("-3", Some(Range::Part(7, 10))),
            ("-30", Some(Range::Part(0, 10))),
            ("9-99999999999999999999999", Some(Range::Part(9, 10))),
            ("10-", Some(Range::Nothing)),
            ("10-12", Some(Range::Nothing)),
            ("-0", Some(Range::Nothing)),
            ("99999999999999999999999-", Some(Range::Nothing)),
            ("4-3", None),
            ("-", None),
            ("", None),
            ("0-1,3-4", None),
            ("a-b", None),
            ("+1-2", None),
            ("1--2", None),
        ] {
            assert_eq!(one_range(text, 10), wanted, "{text:?}");
        }
        assert_eq!(one_range("0-", 0), Some(Range::Nothing));
    }
}
