//! TLS of QUIC connections: 1.3, with the certificate of the HTTP API as it is at the moment of the handshake, or, where there is
//! none, one of the node's own.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Door;
use super::development::{Development, Error};
use crate::time::{Clock as _, SystemClock};

/// Where the certificate comes from.
#[derive(Debug)]
pub struct Shown {
    door: Arc<Door>,
    /// Present when the door has none.
    own: Option<Development>,
}

impl Shown {
    /// For the node with this door.
    ///
    /// # Errors
    /// It has no certificate, and none can be made.
    pub fn new(door: Arc<Door>) -> Result<Self, Error> {
        let own = match &door.tls {
            Some(_) => None,
            None => Some(Development::new(SystemClock.now())?),
        };
        Ok(Self { door, own })
    }

    /// SHA-256 of the node's own certificate, in hex; `None` when it shows one from a file.
    pub fn own_sha256(&self) -> Option<String> {
        Some(self.own.as_ref()?.at(SystemClock.now()).sha256.clone())
    }

    /// What handshakes are made with, of clients that speak one of these protocols (ALPN).
    ///
    /// # Errors
    /// This build cannot speak TLS 1.3.
    pub fn config(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<rustls::ServerConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // What is sent before the handshake is over can be sent again by anybody.
        config.max_early_data_size = 0;
        Ok(config)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match (&self.door.tls, &self.own) {
            (Some(tls), _) => tls.current().cert_resolver.resolve(hello),
            (None, Some(own)) => Some(own.at(SystemClock.now()).key.clone()),
            (None, None) => None,
        }
    }
}
