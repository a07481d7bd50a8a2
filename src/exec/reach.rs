//! What calls may reach, asked before any call: of an address that is known, and of a URL as it is written. Pure.
//!
//! A name is looked up at the call and nowhere else; here it is refused only when no answer could open it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{self, Rule};
use super::connect::Target;
use super::{Settings, request};

/// The rules.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    allow: Vec<Rule>,
    only: Vec<Rule>,
}

/// What stands behind the written part of a URL may be anything; with these its host would be another one, if it could be.
const ENDINGS: [&str; 5] = ["", "x", "1", ".h/", "@h/"];

impl Reach {
    /// As configured.
    pub fn new(settings: &Settings) -> Self {
        Self { allow: settings.allow.clone(), only: settings.only.clone() }
    }

    /// Why no call reaches this address; nothing when one may.
    pub(super) fn refuses(&self, host: &str, ip: IpAddr, port: u16) -> Option<String> {
        let covered = |rules: &[Rule]| rules.iter().any(|rule| rule.covers(host, ip, port));
        if !self.only.is_empty() && !covered(&self.only) && !covered(&self.allow) {
            return Some(format!("{host}:{port} ({ip}) is not in http.only"));
        }
        let why = address::closed(ip).filter(|_| !covered(&self.allow))?;
        Some(format!("{host}:{port} is {ip}: {why}; http.allow can open it"))
    }

    /// Why no call can ever be made to this URL of a document; nothing when one may, or when it depends on values of the run.
    pub fn refuses_url(&self, written: &str) -> Option<String> {
        let target = match written.split_once("${") {
            None => match request::parse(written).and_then(|url| request::target(&url)) {
                Ok(target) => target,
                Err(failure) => return Some(failure.message.to_string()),
            },
            Some((literal, _)) => fixed(literal)?,
        };
        let Target { host, port, .. } = &target;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.refuses(host, ip, *port);
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            // It is this machine by definition (RFC 6761).
            let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            let refusals = own.map(|ip| self.refuses(host, ip, *port));
            return refusals.into_iter().reduce(|first, second| first.and_then(|why| second.map(|_| why)))?;
        }
        let may_be = |rule: &Rule| rule.may_name(host, *port);
        if !self.only.is_empty() && !self.only.iter().chain(&self.allow).any(may_be) {
            return Some(format!("{host}:{port} is not in http.only"));
        }
        None
    }
}

/// Where a URL leads that begins so, whatever follows.
fn fixed(literal: &str) -> Option<Target> {
    let mut targets = ENDINGS.iter().map(|ending| {
        let url = request::parse(&format!("{literal}{ending}")).ok()?;
        request::target(&url).ok()
    });
    let first = targets.next()??;
    targets.all(|target| target.as_ref() == Some(&first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::hostile::HOSTILE;
    use super::*;
    use crate::compile::{self, Format, patch};
    use crate::model::Value;

    fn reach(allow: &[&str], only: &[&str]) -> Reach {
        let rules = |rules: &[&str]| rules.iter().map(|rule| Rule::parse(rule).unwrap()).collect();
        Reach { allow: rules(allow), only: rules(only) }
    }

    // F108: every spelling is refused when the patch is judged, with the operation and the place that it is about.
    #[test]
    fn no_patch_brings_a_url_that_no_call_may_reach() {
        let base = "name: w\nnodes:\n  a: {type: http, with: {url: 'https://example.com/'}}\n";
        let base = compile::compile(base.as_bytes(), Format::Yaml, &compile::Options::default()).unwrap();
        let closed = reach(&[], &[]);
        let judged = |url: &str, node: &str, reach: &Reach| {
            let node = node.replace("URL", &serde_json::to_string(url).unwrap());
            let operations = format!(
                r#"[{{"op": "test", "path": "/nodes/a/type", "value": "http"}}, {{"op": "add", "path": "/nodes/b", "value": {node}}}]"#
            );
            let patch = patch::read(&Value::from_json(operations.as_bytes()).unwrap()).unwrap();
            let after = patch::candidate(&base.document, &patch).unwrap().compiled.document;
            patch::reach(&base.document, &after, &patch, &|url| reach.refuses_url(url))
        };
        let plain = r#"{"type": "http", "with": {"url": URL}}"#;
        let inner =
            r#"{"type": "map", "with": {"over": "[1]", "body": {"type": "http", "with": {"url": URL}}}}"#;
        for url in HOSTILE {
            for (node, pointer) in [(plain, "/nodes/b/with/url"), (inner, "/nodes/b/with/body/with/url")] {
                let refusal = judged(url, node, &closed).expect_err(url);
                assert_eq!(refusal.layer, patch::Layer::Security, "{url}");
                let finding = &refusal.findings[0];
                assert_eq!((finding.code, finding.operation), ("url_refused", Some(1)), "{url}");
                assert_eq!(finding.pointer, pointer, "{url}");
            }
        }
        for url in [
            "https://example.com/",
            "http://1.1.1.1/",
            "http://${ inputs.host }/",
            "http://10.0.0.${ inputs.n }/",
        ] {
            assert!(judged(url, plain, &closed).is_ok(), "{url}");
        }
        assert!(judged("http://10.0.0.1/${ inputs.n }", plain, &closed).is_err());
        assert!(judged("http://10.0.0.1/", plain, &reach(&["10.0.0.0/8"], &[])).is_ok());
    }

    // F108
    #[test]
    fn what_is_written_is_refused_only_when_no_answer_could_open_it() {
        let (closed, open) = (reach(&[], &[]), reach(&["127.0.0.1:8080", "*.internal"], &[]));
        let only = reach(&[], &["*.example.com:443"]);
        let nets = reach(&[], &["192.0.2.0/24"]);
        for (rules, url, refused) in [
            (&closed, "http://localhost:8080/", true),
            (&closed, "http://a.localhost./", true),
            (&closed, "http://localhost.example/", false),
            (&open, "http://localhost:8080/", false),
            (&open, "http://localhost:8081/", true),
            (&open, "http://db.internal/", false),
            (&only, "https://a.example.com/${ inputs.n }", false),
            (&only, "http://a.example.com/", true),
            (&only, "https://elsewhere.org/${ inputs.n }", true),
            (&only, "https://elsewhere.org${ inputs.n }", false),
            (&only, "https://elsewhere.org:44${ inputs.n }", false),
            (&nets, "https://elsewhere.org/", false),
            (&closed, "file:///etc/passwd", true),
            (&closed, "http://10.0.0.1?${ inputs.n }", true),
            (&closed, "http://10.0.0.1@${ inputs.n }", false),
        ] {
            assert_eq!(rules.refuses_url(url).is_some(), refused, "{url}: {:?}", rules.refuses_url(url));
        }
    }
}
