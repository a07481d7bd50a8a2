//! One connection: what its streams share, and when it is closed.
//!
//! A client has at most [`limits::QUIC_STREAMS_PER_CONNECTION_MAX`] streams at a time. Whoever asks for nothing, opens streams that
//! come to nothing, or sends datagrams is closed after a while, with a code that says so.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderMap;
use quinn::{Connection, VarInt};
use tokio::sync::Notify;
use tokio::time::Instant;
use web_transport_proto::error_to_http3;

use super::Core;
use crate::limits;
use crate::wire::frame::Frame;
use crate::wire::quic::{Code, put_varint};

/// See the module.
pub(super) struct Line {
    pub(super) core: Rc<Core>,
    pub(super) connection: Connection,
    /// Headers that hold for all subscriptions of a WebTransport session.
    pub(super) headers: RefCell<HeaderMap>,
    /// The WebTransport session (the id of its stream), once there is one.
    pub(super) session: Cell<Option<u64>>,
    /// Somebody waits for the session, or for a stream's end.
    pub(super) changed: Notify,
    streams: Cell<u32>,
    wasted: Cell<u32>,
    datagrams: Cell<u32>,
    asked: Cell<bool>,
    numbers: Cell<u64>,
}

/// A stream that is open.
pub(super) struct Busy {
    line: Rc<Line>,
    /// It has come to something.
    useful: bool,
}

impl Line {
    pub(super) fn new(core: Rc<Core>, connection: Connection) -> Self {
        Self {
            core,
            connection,
            headers: RefCell::default(),
            session: Cell::new(None),
            changed: Notify::new(),
            streams: Cell::new(0),
            wasted: Cell::new(0),
            datagrams: Cell::new(0),
            asked: Cell::new(false),
            numbers: Cell::new(0),
        }
    }

    /// Counts a stream in.
    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.streams.set(self.streams.get() + 1);
        self.changed.notify_waiters();
        Busy { line: self.clone(), useful: false }
    }

    /// A stream of the client's has come to nothing.
    pub(super) fn waste(&self) {
        self.wasted.set(self.wasted.get().saturating_add(1));
        self.core.cells.wasted.increment();
        self.changed.notify_waiters();
    }

    /// Something was asked for that makes sense.
    pub(super) fn asked(&self) {
        self.asked.set(true);
        self.changed.notify_waiters();
    }

    /// With what a stream is reset.
    pub(super) fn stream_code(&self, code: Code) -> VarInt {
        let code = code as u32;
        match self.session.get() {
            Some(_) => VarInt::from_u64(error_to_http3(code)).unwrap_or(VarInt::from_u32(code)),
            None => VarInt::from_u32(code),
        }
    }

    /// The number of another subscription.
    pub(super) fn number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.core.stop.borrow()
    }

    /// Sends an aside as a datagram; false when it has to go with the stream.
    pub(super) fn tell(&self, frame: &Frame, number: u64) -> bool {
        if self.connection.max_datagram_size().is_none() {
            return false;
        }
        let Some(mut datagram) = frame.datagram(number) else { return false };
        if let Some(session) = self.session.get() {
            let mut whole = Vec::with_capacity(8 + datagram.len());
            // RFC 9297, 2.1: a quarter of the stream's id.
            put_varint(&mut whole, session / 4);
            whole.extend_from_slice(&datagram);
            datagram = whole.into();
        }
        self.connection.send_datagram(datagram).is_ok()
    }

    /// Until the connection is to be closed, and why.
    pub(super) async fn tend(&self) -> Code {
        let mut stop = self.core.stop.clone();
        let seconds = |seconds| Instant::now() + Duration::from_secs(seconds);
        let mut until = seconds(limits::QUIC_FIRST_ASK_SECONDS_MAX);
        let mut quiet = false;
        loop {
            let idle = self.streams.get() == 0 && self.asked.get();
            if idle && !quiet {
                until = seconds(limits::QUIC_IDLE_SECONDS_MAX);
            }
            quiet = idle;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                () = self.changed.notified() => {
                    if self.wasted.get() > limits::QUIC_STREAMS_WASTED_MAX {
                        return self.over(Code::TooMuch);
                    }
                }
                datagram = self.connection.read_datagram() => {
                    if datagram.is_err() {
                        return Code::Done;
                    }
                    self.core.cells.client_datagrams.increment();
                    self.datagrams.set(self.datagrams.get() + 1);
                    if self.datagrams.get() > limits::QUIC_CLIENT_DATAGRAMS_MAX {
                        return self.over(Code::TooMuch);
                    }
                }
                () = tokio::time::sleep_until(until), if idle || !self.asked.get() => return self.over(Code::Idle),
            }
        }
        // The hubs end all streams now, and what they said is written.
        let ended = async {
            while self.streams.get() > 0 {
                self.changed.notified().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(limits::DRAIN_GRACE_MILLIS), ended).await;
        Code::Stopping
    }

    fn over(&self, code: Code) -> Code {
        self.core.cells.closed.increment();
        code
    }

    /// Waits until all streams have noticed that the connection is closed.
    pub(super) async fn closed(&self) {
        while self.streams.get() > 0 {
            self.changed.notified().await;
        }
    }

    /// `work`, unless the connection ends before.
    pub(super) async fn unless_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            _ = self.connection.closed() => None,
            done = work => Some(done),
        }
    }

    pub(super) fn close(&self, code: Code) {
        self.connection.close(VarInt::from_u32(code as u32), b"");
    }
}

impl Busy {
    pub(super) fn line(&self) -> &Rc<Line> {
        &self.line
    }

    /// Something was asked for that makes sense.
    pub(super) fn asked(&self) {
        self.line.asked();
    }

    /// A subscription was opened.
    pub(super) fn is_useful(&mut self) {
        self.asked();
        self.useful = true;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.line.streams.set(self.line.streams.get().saturating_sub(1));
        if self.useful {
            self.line.changed.notify_waiters();
        } else {
            self.line.waste();
        }
    }
}
