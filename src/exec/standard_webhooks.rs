//! Signatures of webhooks as Standard Webhooks 1.0.0 has them: who sent a body, when, and under which id.
//!
//! What is signed is `id.timestamp.body`, with HMAC-SHA256 and a secret that both sides have (`whsec_` and base64). The
//! numbers here are the specification's own and so stand here, not among our limits. Signatures are compared in constant
//! time. Why something was refused is for our own log: a stranger is told one and the same, whatever it was. Text that is
//! too long is refused before anything is hashed.

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::time::Timestamp;

/// Header with the id of a message; the same one each time that it is sent.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the second at which it was sent, since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with its signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// How far the sender's clock may be from ours, either way.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Bytes of a new secret.
pub const SECRET_BYTES: usize = 32;
/// Bytes of an id.
pub const ID_BYTES_MAX: usize = 255;

const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES_ALLOWED: std::ops::RangeInclusive<usize> = 24..=64;
const VERSION: &str = "v1";
/// Signatures of one message that are looked at: one for each secret in force, and other schemes between them.
const SIGNATURES_MAX: usize = 16;

/// A secret that both sides have. It is shown by [`reveal`](Self::reveal) alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The text is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is `whsec_` and the base64 of 24 to 64 bytes")]
pub struct NoSecret;

/// Why a message is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its id is empty, too long, or has a dot: a dot ends the id in what is signed.
    #[error("webhook-id is not 1 to 255 visible ASCII characters without a dot")]
    Id,
    /// Its time is no number of seconds.
    #[error("webhook-timestamp is not a number of seconds since 1970")]
    Timestamp,
    /// It was sent too long ago, or will be sent.
    #[error("webhook-timestamp is more than 5 minutes away")]
    Tolerance,
    /// No signature is made of this message with one of the secrets.
    #[error("no signature fits")]
    Signature,
}

/// A message's id, time and signatures, as its headers have them.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    /// [`ID_HEADER`].
    pub id: &'a str,
    /// [`TIMESTAMP_HEADER`].
    pub timestamp: &'a str,
    /// [`SIGNATURE_HEADER`].
    pub signature: &'a str,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = NoSecret;

    fn from_str(text: &str) -> Result<Self, NoSecret> {
        let letters = text.strip_prefix(SECRET_PREFIX).filter(|letters| letters.len() <= 96);
        Self::new(STANDARD.decode(letters.ok_or(NoSecret)?).map_err(|_| NoSecret)?)
    }
}

impl From<[u8; SECRET_BYTES]> for Secret {
    fn from(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes.into())
    }
}

impl Secret {
    /// Of these bytes.
    ///
    /// # Errors
    /// There are fewer than 24 or more than 64 of them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NoSecret> {
        let bytes = bytes.into();
        if SECRET_BYTES_ALLOWED.contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(NoSecret) }
    }

    /// As it is handed to the other side: `whsec_...`.
    pub fn reveal(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// Its bytes, to be sealed.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The signature of a message sent at this second: `v1,<base64>`.
    pub fn sign(&self, id: &str, at_seconds: u64, body: &[u8]) -> String {
        // A key of any length will do, so there always is one.
        let mac = self.mac(id, &at_seconds.to_string(), body).map(|mac| mac.finalize().into_bytes());
        format!("{VERSION},{}", STANDARD.encode(mac.unwrap_or_default()))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        Some(mac)
    }
}

/// Was this body sent by someone who has one of `secrets`, and about `now`?
///
/// # Errors
/// See [`Refused`]; whoever asked must not be told which.
pub fn verify(secrets: &[Secret], headers: Headers<'_>, body: &[u8], now: Timestamp) -> Result<(), Refused> {
    let Headers { id, timestamp, signature } = headers;
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
    if !(1..=ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(fits) {
        return Err(Refused::Id);
    }
    let plain = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = timestamp.parse::<u64>().ok().filter(|_| plain).ok_or(Refused::Timestamp)?;
    if seconds.abs_diff(now.as_micros() / 1_000_000) > TOLERANCE.as_secs() {
        return Err(Refused::Tolerance);
    }
    let of_ours = signature.split(' ').take(SIGNATURES_MAX);
    let given: Vec<Vec<u8>> = of_ours
        .filter_map(|one| one.strip_prefix(VERSION)?.strip_prefix(','))
        .filter_map(|letters| STANDARD.decode(letters).ok())
        .collect();
    let made = |secret: &Secret, given: &[u8]| {
        secret.mac(id, timestamp, body).is_some_and(|mac| mac.verify_slice(given).is_ok())
    };
    let fits = secrets.iter().any(|secret| given.iter().any(|given| made(secret, given)));
    if fits { Ok(()) } else { Err(Refused::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vector that the specification's libraries are tested with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn secret(byte: u8) -> Secret {
        Secret::new([byte; SECRET_BYTES]).unwrap()
    }

    fn headers<'a>(id: &'a str, timestamp: &'a str, signature: &'a str) -> Headers<'a> {
        Headers { id, timestamp, signature }
    }

    #[test]
    fn the_published_vector_is_signed_and_verified() {
        let secret: Secret = SECRET.parse().unwrap();
        assert_eq!(secret.sign(ID, AT, BODY), SIGNATURE);
        assert_eq!(secret.reveal(), SECRET);
        let headers = headers(ID, "1614265330", SIGNATURE);
        assert_eq!(verify(&[secret], headers, BODY, at(AT)), Ok(()));
    }

    #[test]
    fn whatever_is_changed_the_signature_fits_no_more() {
        let secrets = [SECRET.parse::<Secret>().unwrap()];
        let check = |id: &str, timestamp: &str, signature: &str, body: &[u8]| {
            verify(&secrets, headers(id, timestamp, signature), body, at(AT))
        };
        let no = Err(Refused::Signature);
        assert_eq!(check("msg_p5jXN8AQM9LWM0D4loKWxJel", "1614265330", SIGNATURE, BODY), no);
        assert_eq!(check(ID, "1614265331", SIGNATURE, BODY), no);
        assert_eq!(check(ID, "01614265330", SIGNATURE, BODY), no, "the same second, written otherwise");
        for body in [&b""[..], br#"{"test": 2432232315}"#, br#"{"test":2432232314}"#] {
            assert_eq!(check(ID, "1614265330", SIGNATURE, body), no);
        }
        for at in 3..SIGNATURE.len() {
            let mut other = SIGNATURE.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = std::str::from_utf8(&other).unwrap();
            assert_eq!(check(ID, "1614265330", other, BODY), no, "{at}");
        }
        let short = format!("v1,{}", STANDARD.encode([1; 31]));
        let bare = SIGNATURE.trim_start_matches("v1,");
        let v1a = SIGNATURE.replace("v1,", "v1a,");
        for signature in ["", "v1", "v1,", "v1,?", " ", &short, bare, &v1a] {
            assert_eq!(check(ID, "1614265330", signature, BODY), no, "{signature}");
        }
    }

    #[test]
    fn one_of_several_signatures_or_secrets_is_enough() {
        let sign = |byte| secret(byte).sign(ID, AT, BODY);
        let check = |secrets: &[Secret], signatures: &[String]| {
            let signatures = signatures.join(" ");
            verify(secrets, headers(ID, "1614265330", &signatures), BODY, at(AT))
        };
        let foreign =
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        assert_eq!(check(&[secret(1)], &[foreign.into(), sign(2), sign(1)]), Ok(()));
        assert_eq!(check(&[secret(1), secret(2)], &[sign(2)]), Ok(()), "while a secret is rotated");
        assert_eq!(check(&[secret(1), secret(2)], &[sign(3), sign(4)]), Err(Refused::Signature));
        assert_eq!(check(&[], &[sign(1)]), Err(Refused::Signature));
        let mut many = vec![sign(2); SIGNATURES_MAX];
        many.push(sign(1));
        assert_eq!(check(&[secret(1)], &many), Err(Refused::Signature), "no more are looked at");
    }

    #[test]
    fn a_message_is_believed_for_five_minutes_either_way() {
        let headers = headers(ID, "1614265330", SIGNATURE);
        let secrets = [SECRET.parse::<Secret>().unwrap()];
        for (now, expected) in [
            (AT - 300, Ok(())),
            (AT + 300, Ok(())),
            (AT - 301, Err(Refused::Tolerance)),
            (AT + 301, Err(Refused::Tolerance)),
            (0, Err(Refused::Tolerance)),
        ] {
            assert_eq!(verify(&secrets, headers, BODY, at(now)), expected, "{now}");
        }
        for timestamp in ["", "-1", "+1614265330", "1614265330.0", "now", "99999999999999999999"] {
            let headers = Headers { timestamp, ..headers };
            assert_eq!(verify(&secrets, headers, BODY, at(AT)), Err(Refused::Timestamp), "{timestamp}");
        }
    }

    #[test]
    fn an_id_cannot_end_elsewhere_than_it_was_signed() {
        let secret = secret(1);
        // Both have the same bytes signed.
        let signature = secret.sign("a", 7, b"1614265330.body");
        assert_eq!(signature, secret.sign("a.7", AT, b"body"));
        let refused = |id| {
            verify(std::slice::from_ref(&secret), headers(id, "1614265330", &signature), b"body", at(AT))
        };
        for id in ["a.7", "", "a b", "ä", &"x".repeat(ID_BYTES_MAX + 1)] {
            assert_eq!(refused(id), Err(Refused::Id), "{id}");
        }
    }

    #[test]
    fn a_secret_is_read_as_it_is_written_and_shown_nowhere_else() {
        assert_eq!(secret(9).reveal().parse(), Ok(secret(9)));
        assert_eq!(format!("{:?}", secret(9)), "Secret");
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![1; bytes]));
        assert!(of(24).parse::<Secret>().is_ok() && of(64).parse::<Secret>().is_ok());
        for wrong in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_?", &of(23), &of(65), &of(5_000)]
        {
            assert_eq!(wrong.parse::<Secret>(), Err(NoSecret), "{wrong}");
        }
    }
}
