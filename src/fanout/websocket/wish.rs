//! What a client may ask for on its WebSocket: another stream, or the same one from elsewhere.

use http::Uri;
use serde::Deserialize;
use url::form_urlencoded::byte_serialize;

use crate::wire::problem::Problem;

/// One message of a client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    subscribe: Option<String>,
    after: Option<After>,
}

/// Of one run a number, of all runs a cursor.
#[derive(Deserialize)]
#[serde(untagged)]
enum After {
    Number(u64),
    Cursor(String),
}

/// The path and query of the stream that is wanted by whoever reads `current`.
///
/// # Errors
/// 400: the message is not understood.
pub(super) fn read(text: &str, current: &Uri) -> Result<Uri, Box<Problem>> {
    let wish: Wish = serde_json::from_str(text).map_err(|error| {
        let detail = format!("{{\"subscribe\": PATH}} or {{\"after\": N}} is expected: {error}");
        Problem::new(400, "invalid_body", detail)
    })?;
    match wish {
        Wish { subscribe: Some(path), after: None } => {
            let uri =
                path.parse().ok().filter(|uri: &Uri| uri.authority().is_none() && path.starts_with('/'));
            uri.ok_or_else(|| {
                let path: String = path.chars().take(256).collect();
                Problem::new(400, "invalid_path", format!("{path:?} is no path of a stream"))
            })
        }
        Wish { subscribe: None, after: Some(after) } => Ok(from(current, after)),
        _ => Err(Problem::new(400, "invalid_body", "either `subscribe` or `after` is expected")),
    }
}

/// The same stream after this.
fn from(current: &Uri, after: After) -> Uri {
    let after = match after {
        After::Number(number) => number.to_string(),
        After::Cursor(cursor) => byte_serialize(cursor.as_bytes()).collect(),
    };
    let others = current.query().unwrap_or_default().split('&');
    let others = others.filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("after"));
    let query: String = others.map(|pair| format!("{pair}&")).collect();
    let path = format!("{}?{query}after={after}", current.path());
    // Only one that is too long is none.
    path.parse().unwrap_or_else(|_| current.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_stream_or_the_same_from_elsewhere() {
        let current: Uri = "/v1/runs/run_1/events?node=a&after=3&kind=b".parse().unwrap();
        let wanted =
            |text: &str| read(text, &current).map(|uri| uri.to_string()).map_err(|problem| problem.code);
        assert_eq!(wanted(r#"{"subscribe":"/v1/events?after=x"}"#).unwrap(), "/v1/events?after=x");
        assert_eq!(wanted(r#"{"after":9}"#).unwrap(), "/v1/runs/run_1/events?node=a&kind=b&after=9");
        assert_eq!(
            wanted(r#"{"after":"a/b&c"}"#).unwrap(),
            "/v1/runs/run_1/events?node=a&kind=b&after=a%2Fb%26c"
        );
        for (bad, code) in [
            ("", "invalid_body"),
            ("[]", "invalid_body"),
            ("{}", "invalid_body"),
            (r#"{"after":-1}"#, "invalid_body"),
            (r#"{"after":1,"after":2}"#, "invalid_body"),
            (r#"{"after":1,"subscribe":"/v1/events"}"#, "invalid_body"),
            (r#"{"subscribe":"/v1/events","x":1}"#, "invalid_body"),
            (r#"{"subscribe":"v1/events"}"#, "invalid_path"),
            (r#"{"subscribe":"http://evil.example/v1/events"}"#, "invalid_path"),
            (r#"{"subscribe":""}"#, "invalid_path"),
        ] {
            assert_eq!(wanted(bad).unwrap_err(), code, "{bad}");
        }
    }
}
