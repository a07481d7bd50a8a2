//! The certificate of a node that was given none, for QUIC, which cannot do without: made when the node starts, for names of this
//! machine, and good for as long as browsers allow that are told its hash (`serverCertificateHashes`).
//!
//! It proves nothing to who does not know the hash, which the log has and `/v1/node`. Two days before it ends it is replaced, by
//! whoever looks at it first.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use crate::limits;
use crate::telemetry::log::{self, Target};
use crate::time::Timestamp;

/// Names that it is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// So long before its end another one takes its place: a page that has just been told the hash can still use it.
const BEFORE_END: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// It could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no certificate for QUIC can be made: {0}")]
pub struct Error(String);

/// See the module.
#[derive(Debug)]
pub struct Development {
    current: ArcSwap<Made>,
}

/// One certificate.
#[derive(Debug)]
pub struct Made {
    /// With its key.
    pub key: Arc<CertifiedKey>,
    /// SHA-256 of the certificate, in hex.
    pub sha256: String,
    renewed_at: Timestamp,
}

impl Development {
    /// Makes the first.
    ///
    /// # Errors
    /// Keys cannot be made here.
    pub fn new(now: Timestamp) -> Result<Self, Error> {
        let first = make(now)?;
        say(&first);
        Ok(Self { current: ArcSwap::from_pointee(first) })
    }

    /// The one to show now.
    pub fn at(&self, now: Timestamp) -> Arc<Made> {
        let current = self.current.load_full();
        if now < current.renewed_at {
            return current;
        }
        // When two threads come here, one of the two is used. One that cannot be made leaves the old one, which ends.
        if let Ok(next) = make(now) {
            let next = Arc::new(next);
            if Arc::ptr_eq(&self.current.compare_and_swap(&current, next.clone()), &current) {
                say(&next);
            }
        }
        self.current.load_full()
    }
}

fn say(made: &Made) {
    let days = limits::DEVELOPMENT_CERTIFICATE_DAYS;
    log::info(
        Target::Node,
        format_args!("QUIC shows a certificate of its own (tls.certificate is empty), for {days} days, sha-256 {}", made.sha256),
    );
}

fn make(now: Timestamp) -> Result<Made, Error> {
    let failed = |error: &dyn std::fmt::Display| Error(error.to_string());
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| failed(&error))?;
    let names: Vec<String> = NAMES.map(String::from).into();
    let mut wanted = rcgen::CertificateParams::new(names).map_err(|error| failed(&error))?;
    let at = |time: Timestamp| std::time::UNIX_EPOCH + Duration::from_micros(time.as_micros());
    // A browser refuses more than 14 days; a clock that is a little behind ours must not refuse it yet.
    wanted.not_before = (at(now) - Duration::from_secs(60 * 60)).into();
    let ends = u32::try_from(limits::DEVELOPMENT_CERTIFICATE_DAYS).unwrap_or(u32::MAX) * DAY;
    wanted.not_after = (at(now) + ends).into();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, "aob development");
    let certificate = wanted.self_signed(&pair).map_err(|error| failed(&error))?;
    let der = CertificateDer::from(certificate.der().to_vec());
    let sha256 = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).map_err(|error| failed(&error))?;
    let renewed_at = now.saturating_add(ends.saturating_sub(BEFORE_END));
    Ok(Made { key: Arc::new(CertifiedKey::new(vec![der], key)), sha256, renewed_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_replaced_before_it_ends_and_not_sooner() {
        let began = Timestamp::from_micros(1_800_000_000_000_000);
        let development = Development::new(began).unwrap();
        let first = development.at(began);
        assert_eq!(first.sha256.len(), 64);
        let day = |days: u32| began.saturating_add(days * DAY);
        assert!(Arc::ptr_eq(&first, &development.at(day(7))));
        let second = development.at(day(9));
        assert_ne!(first.sha256, second.sha256);
        assert!(Arc::ptr_eq(&second, &development.at(day(10))));
    }
}
