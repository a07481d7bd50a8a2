//! The one door that leads out: a name is looked up, every address it has is checked, and the connection goes to an address
//! that was checked. Nothing is looked up twice between the check and the connection, so a name that changes its answer
//! (DNS rebinding) gains nothing. A connection that is used again goes where it went.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address;
use super::reach::Reach;
use crate::limits;
use crate::model::Failure;
use crate::time::{Clock as _, SystemClock};

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// As in the URL, IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

pub(super) type Sender = SendRequest<Full<Bytes>>;
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;
/// Looks a name up.
pub(super) type Lookup = Box<dyn Fn(String, u16) -> Found>;

/// Makes connections, and keeps some.
pub(super) struct Connector {
    reach: Reach,
    tls: Arc<ClientConfig>,
    lookup: Lookup,
    /// With the time of their last use.
    idle: RefCell<BTreeMap<Target, Vec<(Sender, u64)>>>,
}

/// The system's way of looking names up.
pub(super) fn system() -> Lookup {
    Box::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

impl Connector {
    pub(super) fn new(reach: Reach, tls: Arc<ClientConfig>, lookup: Lookup) -> Self {
        Self { reach, tls, lookup, idle: RefCell::default() }
    }

    /// A connection that is kept, if there is one.
    pub(in crate::exec) fn kept(&self, target: &Target) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(target)?;
        let found = std::iter::from_fn(|| kept.pop())
            .find(|(sender, since)| is_fresh(*since) && sender.is_ready() && !sender.is_closed());
        if kept.is_empty() {
            idle.remove(target);
        }
        found.map(|(sender, _)| sender)
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(&self, target: Target, sender: Sender) {
        let mut idle = self.idle.borrow_mut();
        let all: usize = idle.values().map(Vec::len).sum();
        if all >= limits::HTTP_IDLE_CONNECTIONS_MAX {
            idle.retain(|_, kept| {
                kept.retain(|(sender, since)| is_fresh(*since) && !sender.is_closed());
                !kept.is_empty()
            });
            if idle.values().map(Vec::len).sum::<usize>() >= limits::HTTP_IDLE_CONNECTIONS_MAX {
                return;
            }
        }
        idle.entry(target).or_default().push((sender, SystemClock.monotonic_us()));
    }

    /// A new connection, to an address that was checked.
    ///
    /// # Errors
    /// `address_refused`, `connection_refused`, `name_not_found`, `tls_failed`: nothing was sent.
    pub(in crate::exec) async fn connect(&self, target: &Target) -> Result<Sender, Failure> {
        let addresses = self.checked(target).await?;
        let mut last = String::from("it has no address");
        for address in addresses {
            match within(TcpStream::connect(address)).await {
                Ok(stream) => return self.speak(target, stream).await,
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        let message = format!("cannot connect to {}:{}: {last}", target.host, target.port);
        Err(Failure::transient("connection_refused", message))
    }

    /// Sends a request, on a connection that was kept if one takes it, and waits for the head of its answer.
    ///
    /// # Errors
    /// As for [`Self::connect`] when nothing was sent; `connection_lost` when it may have been.
    pub(super) async fn exchange(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Sender, Response<Incoming>), Failure> {
        let lost = |error: hyper::Error| {
            let message = format!("the connection to {}:{} broke: {error}", target.host, target.port);
            Failure::transient("connection_lost", message)
        };
        while let Some(mut sender) = self.kept(target) {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut error) => match error.take_message() {
                    // It was closed meanwhile; nothing was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(lost(error.into_error())),
                },
            }
        }
        let mut sender = self.connect(target).await?;
        let response = sender.send_request(request).await.map_err(lost)?;
        Ok((sender, response))
    }

    /// The addresses of a target, all of which may be reached.
    async fn checked(&self, target: &Target) -> Result<Vec<SocketAddr>, Failure> {
        let Target { host, port, .. } = target;
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, *port)],
            Err(_) => within((self.lookup)(host.clone(), *port)).await.map_err(|error| {
                Failure::transient("name_not_found", format!("the name {host} cannot be looked up: {error}"))
            })?,
        };
        if addresses.is_empty() {
            return Err(Failure::transient("name_not_found", format!("the name {host} has no address")));
        }
        if addresses.len() > limits::HTTP_ADDRESSES_MAX {
            let message = format!("{host} has {} addresses (limit http_addresses_max)", addresses.len());
            return Err(Failure::fatal("address_refused", message));
        }
        for address in &addresses {
            self.check(host, address.ip(), *port)?;
        }
        // What was checked is what is connected to: an IPv4 address in IPv6 clothes goes out as IPv4.
        Ok(addresses.iter().map(|found| SocketAddr::new(address::plain(found.ip()), *port)).collect())
    }

    fn check(&self, host: &str, ip: IpAddr, port: u16) -> Result<(), Failure> {
        let refused = |why: String| Err(Failure::fatal("address_refused", why));
        self.reach.refuses(host, ip, port).map_or(Ok(()), refused)
    }

    async fn speak(&self, target: &Target, stream: TcpStream) -> Result<Sender, Failure> {
        // Small requests must not wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let at = || format!("{}:{}", target.host, target.port);
        let failed = |error: hyper::Error| {
            Failure::transient("connection_refused", format!("{} does not speak HTTP: {error}", at()))
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits::HTTP_ANSWER_HEAD_BYTES_MAX);
        if !target.tls {
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
            tokio::task::spawn_local(connection);
            return Ok(sender);
        }
        let tls_failed = |why: String| Failure::fatal("tls_failed", format!("TLS with {}: {why}", at()));
        let name =
            ServerName::try_from(target.host.clone()).map_err(|error| tls_failed(error.to_string()))?;
        let stream = within(TlsConnector::from(self.tls.clone()).connect(name, stream));
        let stream = stream.await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => tls_failed(error.to_string()),
            _ => Failure::transient("connection_refused", format!("TLS with {}: {error}", at())),
        })?;
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::task::spawn_local(connection);
        Ok(sender)
    }
}

fn is_fresh(since_us: u64) -> bool {
    SystemClock.monotonic_us().saturating_sub(since_us) < limits::HTTP_IDLE_SECONDS_MAX * 1_000_000
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let limit = Duration::from_secs(limits::HTTP_CONNECT_SECONDS_MAX);
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Shared by all calls of a thread.
pub(super) type Shared = Rc<Connector>;
