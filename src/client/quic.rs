//! Events over QUIC, `aob/1`, and over WebTransport, which carries the same frames (docs/formats/stream.md).
//!
//! One connection for all streams of an [`Events`](super::Events), opened again when it broke; with WebTransport one for each.
//! Datagrams are not taken, so what the node would put in one comes on the stream. A node on this machine may show the certificate
//! that it made for itself: its hash is asked for over HTTP, where nobody else can answer; every other node is trusted as over HTTPS.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use serde_json::Value;
use web_transport_proto::{ConnectError, ConnectRequest, ConnectResponse, Settings};

use super::frames::{Decoder, Said};
use super::{Call, Client, Error, refused};
use crate::io::trust;
use crate::wire::quic::{self, Subscribe, VERSION, take_varint};
use crate::wire::sse::Event;

/// A connection is asked for a sign of life after this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Without any the connection is over.
const IDLE_SECONDS_MAX: u32 = 30;
/// Bytes that may be on their way in one stream.
const WINDOW_BYTES: u32 = 4 << 20;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// Of a stream that a WebTransport server opens in one direction.
const WEB_TRANSPORT_STREAM: u64 = 0x54;

/// A connection.
#[derive(Debug)]
pub(super) struct Line {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    /// WebTransport, and not `aob/1`.
    web: bool,
    /// Its settings are sent on this, which stays open as long as the connection.
    control: Option<(quinn::SendStream, quinn::RecvStream)>,
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Source {
    receive: quinn::RecvStream,
    decoder: Decoder,
    ready: std::collections::VecDeque<Said>,
    /// To close it is to give the stream up.
    _open: (quinn::SendStream, Option<quinn::RecvStream>),
}

impl Line {
    /// Connects; over WebTransport when `web` says so. From where `before` came from: a port of its own costs megabytes.
    pub(super) async fn open(client: &mut Client, web: bool, before: Option<Self>) -> Result<Self, Error> {
        let (port, hash) = described(client).await;
        let target = client.target.clone();
        let config = match hash {
            Some(hash) => trust::hashed_config(&hash).map_err(|why| Error::Trust { why })?,
            None => target.trusted()?,
        };
        let config = configured(config, if web { b"h3" } else { quic::ALPN })
            .map_err(|why| Error::Tls { url: target.url.clone(), why })?;
        let (target, port) = (&target, port.unwrap_or(target.port));
        let connected = target.in_time(async move {
            let at = (&*target.host, port);
            let mut addresses =
                tokio::net::lookup_host(at).await.map_err(|error| target.unreachable(error))?;
            let address = addresses.next().ok_or_else(|| target.unreachable("its name has no address"))?;
            let same = |endpoint: &quinn::Endpoint| {
                endpoint.local_addr().is_ok_and(|from| from.is_ipv4() == address.is_ipv4())
            };
            let endpoint = match before.map(|before| before.endpoint).filter(same) {
                Some(endpoint) => endpoint,
                None => {
                    quinn::Endpoint::client(local(&address)).map_err(|error| target.unreachable(error))?
                }
            };
            let connecting = endpoint.connect_with(config, address, &target.host);
            let connecting = connecting.map_err(|error| target.unreachable(error))?;
            let connection = connecting.await.map_err(|error| failed(&target.url, &error))?;
            Ok(Self { endpoint, connection, web, control: None })
        });
        let mut line = Box::pin(connected).await?;
        if web {
            line.control = Some(target.in_time(line.introduce(&target.url)).await?);
        }
        Ok(line)
    }

    /// Can another stream be asked for on it? A connection of WebTransport is there for one session.
    pub(super) fn takes_another(&self) -> bool {
        !self.web && self.connection.close_reason().is_none()
    }

    /// Where it comes from, on this machine.
    #[cfg(test)]
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Goes on from another port of this machine, as a client whose address changes does.
    pub(super) fn rebind(&self) -> std::io::Result<()> {
        let local = self.endpoint.local_addr()?;
        self.endpoint.rebind(UdpSocket::bind((local.ip(), 0))?)
    }

    /// Asks for the events of a run after a number.
    pub(super) async fn subscribe(&self, client: &Client, run: &str, query: &str) -> Result<Source, Error> {
        let asked = async {
            match self.web {
                true => self.session(client, &format!("/v1/runs/{run}/stream?{query}")).await,
                false => self.stream(client, &format!("/v1/runs/{run}/events?{query}")).await,
            }
        };
        client.target.in_time(asked).await
    }

    async fn stream(&self, client: &Client, path: &str) -> Result<Source, Error> {
        let broken = |error: &dyn std::fmt::Display| broken(client, error);
        let (mut send, receive) = self.connection.open_bi().await.map_err(|error| broken(&error))?;
        let headers = client.headers.iter();
        let headers = headers.filter_map(|(name, value)| Some(((*name).into(), value.to_str().ok()?.into())));
        let wish = Subscribe { version: VERSION, path: path.to_owned(), headers: headers.collect() };
        send.write_all(&wish.frame()).await.map_err(|error| broken(&error))?;
        Ok(Source::new(receive, (send, None)))
    }

    /// Says that WebTransport is spoken here, and hears that it is spoken there.
    async fn introduce(&self, url: &str) -> Result<(quinn::SendStream, quinn::RecvStream), Error> {
        let broken =
            |error: &dyn std::fmt::Display| Error::Broken { url: url.to_owned(), why: error.to_string() };
        let mut send = self.connection.open_uni().await.map_err(|error| broken(&error))?;
        let mut settings = Settings::default();
        settings.enable_webtransport(1);
        settings.write(&mut send).await.map_err(|error| broken(&error))?;
        let mut receive = self.connection.accept_uni().await.map_err(|error| broken(&error))?;
        let theirs = Settings::read(&mut receive).await.map_err(|error| broken(&error))?;
        match theirs.supports_webtransport() {
            0 => Err(broken(&"WebTransport is not spoken there")),
            _ => Ok((send, receive)),
        }
    }

    async fn session(&self, client: &Client, path: &str) -> Result<Source, Error> {
        let broken = |error: &dyn std::fmt::Display| broken(client, error);
        let target = &client.target;
        let url = format!("https://{}{path}", target.authority);
        let url = url::Url::parse(&url).map_err(|error| Error::Answer(error.to_string()))?;
        let mut request = ConnectRequest::new(url);
        for (name, value) in &client.headers {
            request = request.with_header(http::HeaderName::from_static(name), value.clone());
        }
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(|error| broken(&error))?;
        request.write(&mut send).await.map_err(|error| broken(&error))?;
        ConnectResponse::read(&mut receive).await.map_err(|error| match error {
            ConnectError::WrongStatus(Some(status)) => refused(status, b""),
            error => broken(&error),
        })?;
        let mut events = self.connection.accept_uni().await.map_err(|error| broken(&error))?;
        let kind = number(&mut events).await.map_err(|error| broken(&error))?;
        let session = number(&mut events).await.map_err(|error| broken(&error))?;
        if kind != WEB_TRANSPORT_STREAM || session != u64::from(quinn::VarInt::from(send.id())) {
            return Err(Error::Answer(format!("a stream of kind {kind:#x} in place of the run's events")));
        }
        Ok(Source::new(events, (send, Some(receive))))
    }
}

impl Source {
    fn new(receive: quinn::RecvStream, open: (quinn::SendStream, Option<quinn::RecvStream>)) -> Self {
        Self { receive, decoder: Decoder::default(), ready: Default::default(), _open: open }
    }

    /// The next message; `None` when more has to come first.
    pub(super) async fn read(&mut self, broken: impl Fn(&str) -> Error) -> Result<Option<Event>, Error> {
        if self.ready.is_empty() {
            let chunk = self.receive.read_chunk(READ_BYTES, true).await;
            let chunk = chunk.map_err(|error| broken(&error.to_string()))?;
            let chunk = chunk.ok_or_else(|| broken("it ended before the run did"))?;
            let mut said = Vec::new();
            self.decoder.feed(&chunk.bytes, &mut said).map_err(Error::Answer)?;
            self.ready.extend(said);
        }
        match self.ready.pop_front() {
            Some(Said::Event(event)) => Ok(Some(event)),
            Some(Said::Refused(problem)) => Err(Error::Refused(problem)),
            None => Ok(None),
        }
    }
}

/// A number of QUIC from a stream.
async fn number(stream: &mut quinn::RecvStream) -> Result<u64, quinn::ReadExactError> {
    let mut bytes = [0; 8];
    let (first, rest) = bytes.split_at_mut(1);
    stream.read_exact(first).await?;
    let length = 1_usize << (first.first().copied().unwrap_or_default() >> 6);
    if let Some(rest) = rest.get_mut(..length - 1) {
        stream.read_exact(rest).await?;
    }
    Ok(take_varint(&bytes).map(|(number, _)| number).unwrap_or_default())
}

fn broken(client: &Client, error: &dyn std::fmt::Display) -> Error {
    Error::Broken { url: client.url().to_owned(), why: error.to_string() }
}

/// Why there is no connection.
fn failed(url: &str, error: &quinn::ConnectionError) -> Error {
    let (url, why) = (url.to_owned(), format!("QUIC: {error}"));
    match error {
        // Alerts of TLS are codes from 0x100 on: what was shown does not do.
        quinn::ConnectionError::TransportError(wrong) if (0x100..0x200).contains(&u64::from(wrong.code)) => {
            Error::Tls { url, why }
        }
        _ => Error::Unreachable { url, why },
    }
}

fn local(address: &SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn configured(config: Arc<rustls::ClientConfig>, protocol: &[u8]) -> Result<quinn::ClientConfig, String> {
    let mut config = (*config).clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let crypto = QuicClientConfig::try_from(config).map_err(|error| error.to_string())?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(quinn::VarInt::from_u32(IDLE_SECONDS_MAX * 1_000).into()))
        .stream_receive_window(WINDOW_BYTES.into())
        .datagram_receive_buffer_size(None);
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Port and certificate of a node on this machine, as it tells them itself; nothing of one elsewhere, or that does not tell.
async fn described(client: &mut Client) -> (Option<u16>, Option<[u8; 32]>) {
    if !client.target.is_loopback() {
        return (None, None);
    }
    let Ok(node) = client.json::<Value>(Call::get("/v1/node")).await else { return (None, None) };
    let address = node.pointer("/quic/address").and_then(Value::as_str);
    let port = address.and_then(|address| address.rsplit_once(':')?.1.parse().ok());
    let hash = node.pointer("/quic/certificate_sha256").and_then(Value::as_str);
    (port, hash.and_then(hex))
}

/// 64 hex digits, with or without `sha256:` before them and colons between.
fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.trim_start_matches("sha256:").chars().filter(|digit| *digit != ':').collect();
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
