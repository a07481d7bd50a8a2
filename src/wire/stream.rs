//! The door between a control core, which takes the client's request, and the fanout plane, which feeds the stream and, where
//! nothing else is said on its connection, [serves](Handed) it.
//!
//! Each subscriber has a bounded buffer ([`limits::SUBSCRIBER_EVENTS_MAX`], [`limits::SUBSCRIBER_BYTES_MAX`]) between
//! one [`Sink`] and one [`Subscription`]. A full buffer never holds the hub up: the hub stops reading history for
//! that subscriber, or closes it. When the reader goes away the sink says so. A few places are kept back for the
//! last words of the hub, so that a closing frame always fits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::asked::Opener;
use super::filter::Filter;
use super::frame::Frame;
use crate::limits;
use crate::model::{RunId, Seq, Workspace};
use crate::queue::{FullPolicy, Receiver, Sender, bounded};

/// What a control core tells the hub.
#[derive(Debug)]
pub enum ToHub {
    /// A new subscriber.
    Subscribe(Subscribe),
    /// The subscriber with this number has room again.
    Drained(u64),
    /// The subscriber with this number went away.
    Gone(u64),
    /// A frame for whoever is up to date with a run, once and without a number; others miss it.
    Delta {
        /// Which run.
        run_id: RunId,
        /// As it is sent.
        frame: Frame,
    },
    /// A connection on which nothing else is said any more.
    Serve(Handed),
}

/// A connection, once it belongs to the core that took it up.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// A connection that left the core that accepted it; called on the core that it comes to.
pub type Departed = Box<dyn FnOnce() -> std::io::Result<Box<dyn Connection>> + Send>;

/// What is spoken on a connection that is handed over, after the head of its answer.
#[derive(Debug)]
pub enum Spoken {
    /// Server-sent events, in chunks. Nothing is heard.
    Events,
    /// WebSocket; who opened it may ask for another stream.
    Messages(Box<Opener>),
}

/// A stream whose connection is served by the core that feeds it.
pub struct Handed {
    /// Where it is written.
    pub connection: Departed,
    /// What is written first: the head of the answer.
    pub head: Bytes,
    /// How the rest is said.
    pub spoken: Spoken,
    /// What follows.
    pub subscription: Subscription,
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed").field("head", &self.head).finish_non_exhaustive()
    }
}

/// A subscriber's wish.
#[derive(Debug)]
pub struct Subscribe {
    /// Whose events.
    pub of: Of,
    /// Which of them.
    pub filter: Filter,
    /// Where they go.
    pub sink: Sink,
}

/// Whose events a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// Of these runs, each once and from where on. At least one, at most [`limits::RUNS_PER_SUBSCRIPTION_MAX`].
    Runs(Vec<(RunId, From)>),
    /// Of all runs of a workspace, or of one of its workflows, as they happen; or with all that happened before.
    Feed(OfFeed),
}

/// Where the events of a run begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// After the one with this number.
    After(Seq),
    /// After all there are when the subscription is taken up.
    Now,
}

/// All runs of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfFeed {
    /// Which.
    pub workspace: Workspace,
    /// Only those of this workflow, by its name inside the node.
    pub workflow: Option<Arc<str>>,
    /// Where it begins.
    pub since: Since,
}

/// Where a feed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With all events of all runs that are kept.
    Start,
    /// With those to come.
    Now,
    /// After this event, which the same feed has shown.
    After((RunId, Seq)),
}

impl Of {
    /// The fanout core that all who want the same are fed by. A workspace has one of its own, so that whoever comes back to a
    /// feed finds what was said meanwhile.
    pub fn hub(&self, hubs: usize) -> usize {
        let hubs = hubs.max(1);
        match self {
            Self::Runs(runs) => {
                runs.first().map_or(0, |(run_id, _)| usize::from(run_id.partition().index()) % hubs)
            }
            Self::Feed(feed) => {
                let hash = feed
                    .workspace
                    .name()
                    .bytes()
                    .fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
                hash % hubs
            }
        }
    }
}

/// Places of the buffer that events never take: heartbeat and closing frame.
const PLACES_KEPT: usize = 2;

#[derive(Debug)]
struct Shared {
    /// The hub's number for this subscriber; 0 before it has one.
    id: AtomicU64,
    bytes: AtomicUsize,
    /// An event did not fit; cleared once the buffer is half empty.
    over: AtomicBool,
    wants_room: AtomicBool,
    closed: AtomicBool,
    gone: AtomicBool,
}

/// The hub's end.
#[derive(Debug)]
pub struct Sink {
    frames: Sender<Frame>,
    shared: Arc<Shared>,
}

/// The client's end: yields frames until the hub closes it.
#[derive(Debug)]
pub struct Subscription {
    frames: Receiver<Frame>,
    shared: Arc<Shared>,
    hub: Sender<ToHub>,
    /// Counts the stream out of whatever it is counted in.
    place: Option<Box<dyn std::any::Any + Send>>,
}

/// The buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A buffer and its two ends; `hub` is told when there is room again and when the reader goes away.
pub fn subscription(hub: Sender<ToHub>) -> (Sink, Subscription) {
    let (sender, receiver) =
        bounded("subscriber", limits::SUBSCRIBER_EVENTS_MAX + PLACES_KEPT, FullPolicy::DropAndResync);
    let shared = Arc::new(Shared {
        id: AtomicU64::new(0),
        bytes: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        wants_room: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        gone: AtomicBool::new(false),
    });
    (
        Sink { frames: sender, shared: shared.clone() },
        Subscription { frames: receiver, shared, hub, place: None },
    )
}

impl Sink {
    /// Tells the reader under which number the hub knows it.
    pub fn set_id(&self, id: u64) {
        self.shared.id.store(id, Ordering::Release);
    }

    /// Events that fit now. Zero as soon as the bytes are used up; an empty buffer takes any one event.
    pub fn room(&self) -> usize {
        let depth = self.depth();
        let bytes = self.shared.bytes.load(Ordering::Acquire);
        let over = bytes >= limits::SUBSCRIBER_BYTES_MAX || self.shared.over.load(Ordering::SeqCst);
        if depth > 0 && over {
            return 0;
        }
        limits::SUBSCRIBER_EVENTS_MAX.saturating_sub(depth)
    }

    /// Frames not yet read.
    pub fn depth(&self) -> usize {
        self.frames.stats().depth()
    }

    /// Hands over one event.
    ///
    /// # Errors
    /// The buffer is full; nothing was taken.
    pub fn push(&self, frame: &Frame) -> Result<(), Full> {
        let held = self.shared.bytes.load(Ordering::Acquire);
        let depth = self.depth();
        let over_bytes = depth > 0 && held + frame.size_bytes() > limits::SUBSCRIBER_BYTES_MAX;
        if depth >= limits::SUBSCRIBER_EVENTS_MAX || over_bytes {
            self.shared.over.store(true, Ordering::SeqCst);
            return Err(Full);
        }
        self.force(frame.clone()).map_err(|_| Full)
    }

    /// Says something outside of the events (a heartbeat) when nothing else waits.
    pub fn mention(&self, frame: &Frame) {
        if self.depth() == 0 {
            // The place is kept; if it is taken all the same the stream is not idle and needs no heartbeat.
            let _ = self.force(frame.clone());
        }
    }

    /// Asks to be told when the buffer is half empty. False when there is room already.
    pub fn ask_for_room(&self) -> bool {
        self.shared.wants_room.store(true, Ordering::SeqCst);
        // The reader may have emptied the buffer before it could see the wish.
        self.room() == 0
    }

    /// The reader went away.
    pub fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Acquire)
    }

    /// Says the last words. The stream ends when the sink is dropped, after what is buffered.
    pub fn say_last(&self, last: Frame) {
        // The place is kept, so this cannot fail; without last words the reader resumes all the same.
        let _ = self.force(last);
    }

    fn force(&self, frame: Frame) -> Result<(), Frame> {
        let length = frame.size_bytes();
        self.shared.bytes.fetch_add(length, Ordering::AcqRel);
        self.frames.send(frame).inspect_err(|_| {
            self.shared.bytes.fetch_sub(length, Ordering::AcqRel);
        })
    }
}

/// A hub that dies ends its streams; readers come back by themselves.
impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.frames.wake();
    }
}

impl Subscription {
    /// Gives the connection to the core that feeds it. When that core's queue is full the connection ends, and its client
    /// comes back.
    pub fn hand_over(self, connection: Departed, head: Bytes, spoken: Spoken) {
        let hub = self.hub.clone();
        let _ = hub.send(ToHub::Serve(Handed { connection, head, spoken, subscription: self }));
    }

    /// The next frame; `None` once the stream has ended.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        loop {
            // Read before the buffer: what was sent before the end is then in it.
            let closed = self.shared.closed.load(Ordering::Acquire);
            if let Some(frame) = self.frames.try_recv() {
                self.took(frame.size_bytes());
                return Poll::Ready(Some(frame));
            }
            if closed {
                return Poll::Ready(None);
            }
            if self.frames.poll_ready(context).is_pending() && !self.shared.closed.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
    }

    /// Keeps this as long as the stream is there.
    #[must_use]
    pub fn keeping(mut self, place: Option<impl Send + 'static>) -> Self {
        self.place = place.map(|place| Box::new(place) as Box<dyn std::any::Any + Send>);
        self
    }

    /// Has the hub said its last? What is buffered is still to be read.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    fn took(&self, length: usize) {
        let bytes = self.shared.bytes.fetch_sub(length, Ordering::AcqRel) - length;
        let half_empty = self.frames.stats().depth() <= limits::SUBSCRIBER_EVENTS_MAX / 2
            && bytes <= limits::SUBSCRIBER_BYTES_MAX / 2;
        if half_empty {
            self.shared.over.store(false, Ordering::SeqCst);
        }
        if half_empty && self.shared.wants_room.swap(false, Ordering::SeqCst) {
            // When the hub's queue is full its own tick looks after this subscriber.
            let _ = self.hub.send(ToHub::Drained(self.shared.id.load(Ordering::Acquire)));
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Release);
        // When the hub's queue is full its own tick finds out.
        let _ = self.hub.send(ToHub::Gone(self.shared.id.load(Ordering::Acquire)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame {
        Frame::delta("n", 1, text)
    }

    fn poll(subscription: &mut Subscription) -> Poll<Option<usize>> {
        let next = subscription.poll_next(&mut Context::from_waker(std::task::Waker::noop()));
        next.map(|frame| frame.map(|frame| frame.size_bytes()))
    }

    #[test]
    fn a_full_buffer_still_takes_the_last_words() {
        let (hub, _hub_end) = bounded("hub", 4, FullPolicy::RefuseCaller);
        let (sink, mut reader) = subscription(hub);
        let frame = frame("x");
        for _ in 0..limits::SUBSCRIBER_EVENTS_MAX {
            sink.push(&frame).unwrap();
        }
        assert_eq!((sink.push(&frame), sink.room()), (Err(Full), 0));
        let last = Frame::delta("n", 1, "goodbye");
        sink.say_last(last.clone());
        drop(sink);
        for _ in 0..limits::SUBSCRIBER_EVENTS_MAX {
            assert_eq!(poll(&mut reader), Poll::Ready(Some(frame.size_bytes())));
        }
        assert_eq!(poll(&mut reader), Poll::Ready(Some(last.size_bytes())));
        assert_eq!(poll(&mut reader), Poll::Ready(None));
    }

    #[test]
    fn bytes_are_bounded_but_one_large_event_always_fits() {
        let (hub, _hub_end) = bounded("hub", 4, FullPolicy::RefuseCaller);
        let (sink, mut reader) = subscription(hub);
        let large = frame(&"x".repeat(limits::SUBSCRIBER_BYTES_MAX));
        assert_eq!(sink.push(&large), Ok(()));
        assert_eq!(sink.push(&frame("x")), Err(Full));
        assert!(matches!(poll(&mut reader), Poll::Ready(Some(_))));
        assert_eq!(sink.push(&frame("x")), Ok(()));
    }

    #[test]
    fn the_hub_is_told_of_room_and_of_a_reader_that_left() {
        let (hub, mut hub_end) = bounded("hub", 4, FullPolicy::RefuseCaller);
        let (sink, mut reader) = subscription(hub);
        sink.set_id(7);
        while sink.push(&frame("x")).is_ok() {}
        assert!(sink.ask_for_room());
        while sink.depth() > 0 {
            assert!(poll(&mut reader).is_ready());
        }
        assert!(matches!(hub_end.try_recv(), Some(ToHub::Drained(7))));
        assert!(!sink.ask_for_room(), "there is room already");
        drop(reader);
        assert!(sink.is_gone());
        assert!(matches!(hub_end.try_recv(), Some(ToHub::Gone(7))));
    }
}
