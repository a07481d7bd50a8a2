//! Which web pages may open a stream that a browser gives them without asking first: WebSocket and WebTransport know no
//! preflight, so the one thing that tells a page of another site is its `Origin` (RFC 6454).
//!
//! Whoever sends none is no browser, and may come. A page may that came from the address that it asks, or whose origin the
//! operator has listed (`http.origins`, at most [`limits::ORIGINS_MAX`]). Everybody else is refused before anything is opened.

use std::sync::Arc;

use http::HeaderMap;
use http::header::ORIGIN;

use super::problem::Problem;
use crate::limits;

/// The origins that an operator has listed. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Arc<[Box<str>]>);

impl Origins {
    /// From entries as `https://app.example.com` or `http://localhost:5173`.
    ///
    /// # Errors
    /// In one sentence, what is wrong with one of them, or that there are too many.
    pub fn parse<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut origins = Vec::new();
        for entry in entries {
            if origins.len() == limits::ORIGINS_MAX {
                return Err(format!(
                    "at most {} origins are listed (limit origins_max)",
                    limits::ORIGINS_MAX
                ));
            }
            authority(entry).ok_or_else(|| {
                format!("{entry:?} is no origin; https://HOST or http://HOST:PORT is expected")
            })?;
            origins.push(entry.to_ascii_lowercase().into());
        }
        Ok(Self(origins.into()))
    }

    /// May whoever sent these headers to `authority` (`Host`, `:authority`) open a stream?
    ///
    /// # Errors
    /// 403 `origin_refused`.
    pub fn check(&self, headers: &HeaderMap, asked: Option<&str>) -> Result<(), Box<Problem>> {
        let mut values = headers.get_all(ORIGIN).iter();
        let Some(value) = values.next() else { return Ok(()) };
        let origin = value.to_str().ok().filter(|_| values.next().is_none());
        let same = origin
            .and_then(authority)
            .zip(asked)
            .is_some_and(|(origin, asked)| origin.eq_ignore_ascii_case(asked));
        let listed = |origin: &str| self.0.iter().any(|one| one.eq_ignore_ascii_case(origin));
        if same || origin.is_some_and(listed) {
            return Ok(());
        }
        let shown: String = String::from_utf8_lossy(value.as_bytes()).chars().take(128).collect();
        let detail = format!("pages of {shown:?} may open no stream here (http.origins)");
        Err(Problem::new(403, "origin_refused", detail))
    }
}

/// `HOST:PORT` of an origin.
fn authority(origin: &str) -> Option<&str> {
    let (scheme, authority) = origin.split_once("://")?;
    let web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    (web && !authority.is_empty() && authority.bytes().all(plain)).then_some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &str, origins: &[&str], asked: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, origin.parse().unwrap());
        }
        let checked = Origins::parse(listed.split_whitespace()).unwrap().check(&headers, asked);
        checked
            .map_err(|refused| assert_eq!((refused.status, &*refused.code), (403, "origin_refused")))
            .is_ok()
    }

    #[test]
    fn no_browser_the_same_host_and_whoever_is_listed_may_come() {
        let host = Some("node.example:7400");
        assert!(check("", &[], host));
        assert!(check("", &["https://NODE.example:7400"], host));
        assert!(check("https://app.example http://localhost:5173", &["https://App.Example"], host));
        for refused in [
            "https://evil.example",
            "https://node.example",
            "https://node.example:7400.evil.example",
            "https://node.example:7400/",
            "https://user@node.example:7400",
            "ftp://node.example:7400",
            "http://app.example",
            "null",
            "",
            "\u{e9}",
        ] {
            assert!(!check("https://app.example", &[refused], host), "{refused}");
        }
        let two = ["https://node.example:7400", "https://node.example:7400"];
        assert!(!check("", &two, host), "one page has one origin");
        assert!(!check("", &["https://node.example:7400"], None));
    }

    #[test]
    fn what_is_listed_is_an_origin_and_there_are_not_too_many() {
        for bad in ["*", "app.example", "https://", "https://a/b", "https://a?b", "javascript://x"] {
            assert!(Origins::parse([bad].into_iter()).is_err(), "{bad}");
        }
        let many = vec!["https://a"; limits::ORIGINS_MAX + 1];
        assert!(Origins::parse(many.into_iter()).unwrap_err().contains("origins_max"));
    }
}
