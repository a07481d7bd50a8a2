//! A connection to a client, plain or inside TLS: from here on nobody asks which.
//!
//! It belongs to the core that accepted it until it [departs](Socket::depart); whoever gets it takes it up on its own core.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::wire::stream::{Connection, Departed};

/// A connection that may be read and written.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(Movable),
    Tls(Box<TlsStream<Movable>>),
}

/// A TCP connection that can change its core.
#[derive(Debug)]
pub(super) enum Movable {
    Here(TcpStream),
    /// Known to no core's events; `None` when it could not be taken up again.
    Between(Option<std::net::TcpStream>),
}

impl Movable {
    fn here(&mut self) -> std::io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Here(stream) => Ok(Pin::new(stream)),
            Self::Between(_) => Err(std::io::ErrorKind::NotConnected.into()),
        }
    }

    fn depart(&mut self) -> std::io::Result<()> {
        if let Self::Here(stream) = std::mem::replace(self, Self::Between(None)) {
            *self = Self::Between(Some(stream.into_std()?));
        }
        Ok(())
    }

    fn arrive(&mut self) -> std::io::Result<()> {
        if let Self::Between(stream) = self {
            let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected)?;
            *self = Self::Here(TcpStream::from_std(stream)?);
        }
        Ok(())
    }
}

impl Socket {
    /// Leaves this core. What it is answered with makes it a connection of the core that calls it.
    pub(super) fn depart(mut self) -> std::io::Result<Departed> {
        self.tcp().depart()?;
        Ok(Box::new(move || {
            self.tcp().arrive()?;
            Ok(Box::new(self) as Box<dyn Connection>)
        }))
    }

    fn tcp(&mut self) -> &mut Movable {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

impl AsyncRead for Movable {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        self.get_mut().here()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Movable {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.get_mut().here()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.get_mut().here()?.poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Here(stream) if stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.get_mut().here()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.get_mut().here()?.poll_shutdown(context)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
