//! The fanout plane: streams of events, fed by the shards, replayed from history, joined without gap or overlap.
//!
//! One [`Hub`] a core, on its own thread. It asks the shards for a run's events only while somebody reads them, and a
//! slow reader costs nobody else anything: shards push into a bounded queue and never wait, and each subscriber has a
//! bounded buffer of its own. What was missed, for whatever reason, is read again from history; a subscriber only ever
//! gets the event after the one it got last.

mod asking;
mod feed;
mod group;
pub mod hub;
mod outgoing;
pub mod push;
pub mod quic;
mod reader;
mod serve;
pub mod source;
mod walk;
pub mod websocket;

pub use asking::Asking;
pub use hub::Hub;
pub use push::{Cores, Push, Whose};
pub use source::Source;
