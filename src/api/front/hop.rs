//! One hop from node to node: what a node that passes a request on says of it, and why the other believes it.
//!
//! `aob-hop: for=ADDRESS;at=SECONDS;mac=HEX`. The code is HMAC-SHA256 (RFC 2104) over method, target, address and time, under a key that the
//! nodes of a store share. It says whose request it is, nothing of what he may do: his own token comes along. Whoever cannot make the
//! code is a client like any other, and what he says here is not heard.

use std::fmt::Write as _;
use std::net::IpAddr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use sha2::Sha256;

use crate::limits;
use crate::time::{Clock as _, SystemClock};

/// The header.
pub(super) const HOP: HeaderName = HeaderName::from_static("aob-hop");

/// Makes and checks codes.
#[derive(Clone)]
pub struct HopKey([u8; 32]);

impl std::fmt::Debug for HopKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HopKey")
    }
}

impl HopKey {
    /// From what the nodes of a store share.
    pub fn new(shared: [u8; 32]) -> Self {
        Self(shared)
    }

    fn code(&self, request: (&Method, &Uri), client: IpAddr, at: u64) -> Option<Hmac<Sha256>> {
        let (method, uri) = request;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        mac.update(format!("aob hop\0{method}\0{target}\0{client}\0{at}").as_bytes());
        Some(mac)
    }

    /// What goes with a request of `client` that is passed on `at` this second (Unix).
    pub(super) fn sign(&self, request: (&Method, &Uri), client: IpAddr, at: u64) -> Option<HeaderValue> {
        let mut text = format!("for={client};at={at};mac=");
        for byte in self.code(request, client, at)?.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        HeaderValue::from_str(&text).ok()
    }

    fn check(&self, request: (&Method, &Uri), said: &HeaderValue, now: u64) -> Option<IpAddr> {
        let (client, rest) = said.to_str().ok()?.strip_prefix("for=")?.split_once(";at=")?;
        let (at, mac) = rest.split_once(";mac=")?;
        let (client, at): (IpAddr, u64) = (client.parse().ok()?, at.parse().ok()?);
        let digits = mac.as_bytes().as_chunks::<2>().0.iter();
        let digits = digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        let bytes: Vec<u8> = digits.collect::<Option<_>>()?;
        self.code(request, client, at)?.verify_slice(&bytes).ok()?;
        (now.abs_diff(at) <= limits::HOP_SECONDS_MAX).then_some(client)
    }
}

/// Takes what is said of a hop out of a request; whose it is when another node passed it on.
pub(in super::super) fn came(head: &mut Parts, key: Option<&HopKey>) -> Option<IpAddr> {
    if !head.headers.contains_key(&HOP) {
        return None;
    }
    taken(head, key, now())
}

/// Unix seconds.
pub(super) fn now() -> u64 {
    SystemClock.now().as_micros() / 1_000_000
}

fn taken(head: &mut Parts, key: Option<&HopKey>, now: u64) -> Option<IpAddr> {
    let said = only(&mut head.headers)?;
    key?.check((&head.method, &head.uri), &said, now)
}

/// The one value there is, taken out; of several none is believed.
fn only(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let count = headers.get_all(&HOP).iter().count();
    headers.remove(&HOP).filter(|_| count == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn request(target: &str, said: &[HeaderValue]) -> Parts {
        let mut head = Request::builder().method("POST").uri(target).body(()).unwrap().into_parts().0;
        for said in said {
            head.headers.append(HOP, said.clone());
        }
        head
    }

    // F212
    #[test]
    fn a_hop_is_believed_of_a_node_that_has_the_key_for_this_request_and_this_minute() {
        let (key, client) = (HopKey::new([7; 32]), IpAddr::from([192, 0, 2, 1]));
        let own = request("/v1/runs?a=b", &[]);
        let said = key.sign((&own.method, &own.uri), client, 1_000).unwrap();
        let heard = |target, said: &[HeaderValue], key: Option<&HopKey>, now| {
            let mut head = request(target, said);
            let heard = taken(&mut head, key, now);
            assert!(!head.headers.contains_key(&HOP), "it goes no further");
            heard
        };
        let target = "/v1/runs?a=b";
        assert_eq!(heard(target, std::slice::from_ref(&said), Some(&key), 1_060), Some(client));
        // HTTP/2 has the same target in full.
        let full = "http://node/v1/runs?a=b";
        assert_eq!(heard(full, std::slice::from_ref(&said), Some(&key), 940), Some(client));

        assert_eq!(heard(target, std::slice::from_ref(&said), Some(&key), 1_061), None, "too old");
        assert_eq!(heard(target, std::slice::from_ref(&said), Some(&HopKey::new([8; 32])), 1_000), None);
        assert_eq!(heard(target, std::slice::from_ref(&said), None, 1_000), None, "a node of its own");
        assert_eq!(heard("/v1/runs?a=c", std::slice::from_ref(&said), Some(&key), 1_000), None);
        assert_eq!(heard(target, &[said.clone(), said.clone()], Some(&key), 1_000), None);
        let text = said.to_str().unwrap();
        for wrong in ["", "for=1.2.3.4", &text.replace("192.0.2.1", "192.0.2.2"), &text[..text.len() - 2]] {
            let wrong = HeaderValue::from_str(wrong).unwrap();
            assert_eq!(heard(target, &[wrong], Some(&key), 1_000), None);
        }
    }
}
