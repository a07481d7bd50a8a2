//! How a node is reached: its address, whom to trust, and one connection, plain or TLS.
//!
//! A name is judged by nothing but its certificate; there is no way to leave the check out. Connection and handshake
//! together have [`CONNECT_SECONDS_MAX`], over QUIC too.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Error;
use crate::io::trust;

/// Seconds to reach a node.
pub(super) const CONNECT_SECONDS_MAX: u64 = 10;

pub(super) type Sender = SendRequest<Full<Bytes>>;

/// A connection, plain or TLS.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A node's address.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: String,
    /// For the `Host` header and the name look-up: with the port, an IPv6 address in brackets.
    pub(super) authority: String,
    /// For the certificate: without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: plain HTTP.
    tls: Option<Arc<ClientConfig>>,
    /// Whom to trust beside the system's authorities.
    ca_file: Option<PathBuf>,
}

impl Target {
    /// Reads an address; for `https` also whom to trust, which the system and `ca_file` say.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, Error> {
        let wrong = |why| Error::Url { url: url.to_owned(), why };
        let uri: http::Uri = url.parse().map_err(|_| wrong("it does not parse"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("only http and https are spoken")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("it names a user"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let trusted = tls.then(|| trust::client_config(ca_file)).transpose();
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            authority: format!("{host}:{port}"),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            ca_file: ca_file.map(Path::to_owned),
            tls: trusted.map_err(|why| Error::Trust { why })?,
        })
    }

    /// Trusts this and nothing else, when TLS is spoken.
    pub(super) fn trust(&mut self, config: Arc<ClientConfig>) {
        self.tls = self.tls.take().map(|_| config);
    }

    /// Can nobody on the way read what is sent?
    pub(super) fn is_private(&self) -> bool {
        self.tls.is_some() || self.is_loopback()
    }

    /// Does nothing that is sent leave this machine?
    pub(super) fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        address.map_or_else(
            |_| self.host.eq_ignore_ascii_case("localhost"),
            |address| address.to_canonical().is_loopback(),
        )
    }

    /// Whom to trust where TLS is spoken whatever the address says: over QUIC.
    pub(super) fn trusted(&self) -> Result<Arc<ClientConfig>, Error> {
        match &self.tls {
            Some(config) => Ok(config.clone()),
            None => trust::client_config(self.ca_file.as_deref()).map_err(|why| Error::Trust { why }),
        }
    }

    pub(super) fn unreachable(&self, why: impl ToString) -> Error {
        Error::Unreachable { url: self.url.clone(), why: why.to_string() }
    }

    /// What a broken connection means.
    pub(super) fn broken(&self, error: &hyper::Error) -> Error {
        let hint = if self.tls.is_none() && error.is_parse() { "; does it want https://?" } else { "" };
        Error::Broken { url: self.url.clone(), why: format!("{error}{hint}") }
    }

    /// A connection on which requests are sent.
    pub(super) async fn connect(&self) -> Result<Sender, Error> {
        let shaken = http1::handshake(TokioIo::new(self.dial().await?)).await;
        let (sender, connection) = shaken.map_err(|error| self.unreachable(error))?;
        // Ends by itself with the connection; what went wrong reaches whoever waits for an answer.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// A connection on which nothing was said yet.
    pub(super) async fn dial(&self) -> Result<Box<dyn Io>, Error> {
        self.in_time(self.open()).await
    }

    /// What is done to reach the node, as long as that may take.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let within = Duration::from_secs(CONNECT_SECONDS_MAX);
        let late = |_| self.unreachable(format!("no connection within {CONNECT_SECONDS_MAX} s"));
        tokio::time::timeout(within, work).await.map_err(late)?
    }

    async fn open(&self) -> Result<Box<dyn Io>, Error> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| self.unreachable(error))?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.host.clone()).map_err(|_| Error::Url {
            url: self.url.clone(),
            why: "its host cannot stand in a certificate",
        })?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| match error.kind() {
            // What the other side showed does not do; everything else is the network.
            ErrorKind::InvalidData => Error::Tls { url: self.url.clone(), why: error.to_string() },
            _ => self.unreachable(format!("TLS: {error}")),
        })?;
        Ok(Box::new(stream))
    }
}
