//! Bounds of streams of events, over every transport.
//!
//! A part of the list in `limits.rs`, with the same rules: over a limit the caller is told, by its name, and nobody else notices.

// ── streams ────────────────────────────────────────────────────────────────────────────────────────────────
/// Events buffered for one subscriber before it is closed with `slow_consumer`.
pub const SUBSCRIBER_EVENTS_MAX: usize = 256;
/// Bytes buffered for one subscriber before it is closed with `slow_consumer`.
pub const SUBSCRIBER_BYTES_MAX: usize = 1 << 20;
/// Subscribers of one fanout core.
pub const SUBSCRIBERS_PER_CORE_MAX: usize = 10_000;
/// Fanout cores. Further ones that are named, or that a larger machine has, are not used.
pub const FANOUT_CORES_MAX: usize = 64;
/// Subscriptions waiting for one fanout core. Full: the caller is refused with 503.
pub const HUB_QUEUE_MAX: usize = 4 << 10;
/// Streams that one control core opens at once for the fanout cores, and as many that wait. Full: the asker is refused with 503.
pub const STREAMS_ASKED_MAX: usize = 1 << 10;
/// Seconds that a fanout core waits for a control core to open a stream.
pub const STREAM_OPEN_SECONDS_MAX: u64 = 10;
/// Reads of history that one fanout core has under way on its blocking threads.
pub const HUB_READS_MAX: usize = 8;
/// Seconds a subscriber may leave a full buffer untouched before it is closed with `slow_consumer`.
pub const SUBSCRIBER_STALL_SECONDS_MAX: u64 = 10;
/// Seconds that the last words of a stream wait for a client that does not read; then its connection is cut.
pub const STREAM_LINGER_SECONDS_MAX: u64 = 60;
/// Bytes of one message that a client sends on a WebSocket; a longer one closes it (1009).
pub const WEBSOCKET_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Messages, pings and pongs that a client sends in a second on a WebSocket; more close it (1008).
pub const WEBSOCKET_MESSAGES_PER_SECOND_MAX: u32 = 50;
/// Seconds without a word from the server after which a WebSocket is pinged.
pub const WEBSOCKET_PING_SECONDS: u64 = 15;
/// Seconds that a client has to answer a ping with anything at all; then its WebSocket is cut.
pub const WEBSOCKET_PONG_SECONDS_MAX: u64 = 30;
/// Seconds that a client has to take part in the close of its WebSocket; then it is cut.
pub const WEBSOCKET_CLOSE_SECONDS_MAX: u64 = 10;
/// Requests and streams at once on one connection of HTTP/2; the client is told, and further ones are refused.
pub const H2_STREAMS_MAX: u32 = 128;
/// Streams that a client of HTTP/2 resets before they were looked at, or makes us reset; more close the connection.
pub const H2_RESETS_MAX: usize = 64;
/// Bytes of a body that a client of HTTP/2 may send unasked: of one request, and of a connection.
pub const H2_STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// See [`H2_STREAM_WINDOW_BYTES`].
pub const H2_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that are buffered for one stream of HTTP/2 whose client does not read.
pub const H2_SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Bytes of whole answers that wait on one connection of HTTP/2 for its client to take them; one that is larger by itself waits alone.
/// Over: 503 `answers_untaken`.
pub const H2_UNTAKEN_BYTES_MAX: usize = 16 << 20;
/// Bytes of them on all connections. Over: 503 `answers_untaken`, on connections that let lie more than is spared.
pub const H2_UNTAKEN_BYTES_TOTAL_MAX: usize = 256 << 20;
/// Bytes that may wait on one connection whatever waits on others.
pub const H2_UNTAKEN_BYTES_SPARED: usize = 64 << 10;
/// Bytes of a whole answer that are given to HTTP/2 at once; the next ones when these are on their way.
pub const H2_PIECE_BYTES: usize = 16 << 10;
/// Seconds that whole answers wait on a connection of HTTP/2 without anything being taken of any; then it is closed.
pub const H2_UNTAKEN_SECONDS_MAX: u64 = 60;
/// Seconds between pings on a connection of HTTP/2.
pub const H2_PING_SECONDS: u64 = 15;
/// Seconds that a client has to answer one; then the connection is closed.
pub const H2_PONG_SECONDS_MAX: u64 = 20;
/// Frames of HTTP/2 in a second that ask for nothing (pings, settings, resets, empty ones); more close the connection.
pub const H2_IDLE_FRAMES_PER_SECOND_MAX: u32 = 1_000;
/// Openings of windows in a second on one connection of HTTP/2; more close it.
pub const H2_WINDOW_UPDATES_PER_SECOND_MAX: u32 = 20_000;
/// Origins of pages that an operator lists (`http.origins`).
pub const ORIGINS_MAX: usize = 64;
/// Runs of one subscription. More: 400 `too_many_runs`. Over HTTP the head of a request has room for about four hundred.
pub const RUNS_PER_SUBSCRIPTION_MAX: usize = 1_000;
/// Nodes, and kinds, that one subscription names. More: 400 `invalid_parameter`.
pub const STREAM_FILTER_TERMS_MAX: usize = 64;
/// Bytes of one of them. More: 400 `invalid_parameter`.
pub const STREAM_FILTER_BYTES_MAX: usize = 1 << 10;
/// Events that a fanout core keeps of its feeds, for readers that fall behind or come back. Older ones: `slow_consumer`, or `resync`
/// for who comes back.
pub const FEED_EVENTS_MAX: usize = 16 << 10;
/// Bytes of them.
pub const FEED_BYTES_MAX: usize = 16 << 20;
/// Seconds that a feed goes on without a reader.
pub const FEED_LINGER_SECONDS: u64 = 60;
/// Readers of one fanout core that are walked through all runs at a time (`from=start`). Others wait in line.
pub const FEED_WALKS_MAX: usize = 16;
/// Runs of which a walk has more to tell than it told. More: `resync`.
pub const FEED_WALK_NOTES_MAX: usize = 64 << 10;
/// Runs that a walk takes up at once, at most.
pub const FEED_WALK_PAGE: usize = 64;
/// Runs that are walked through before shards are asked again which ones they have.
pub const FEED_WALK_WINDOW: usize = 8 << 10;
/// Seconds between heartbeats on an idle stream.
pub const HEARTBEAT_SECONDS: u64 = 15;

// ── QUIC ───────────────────────────────────────────────────────────────────────────────────────────────────
/// Connections over QUIC of one fanout core. Full: refused in the handshake.
pub const QUIC_CONNECTIONS_PER_CORE_MAX: usize = 10_000;
/// Handshakes of addresses not known to be true that one fanout core has under way. Full: who comes next has to prove its address
/// first (Retry).
pub const QUIC_HANDSHAKES_UNPROVEN_MAX: usize = 64;
/// Handshakes that one fanout core has under way. Full: refused.
pub const QUIC_HANDSHAKES_MAX: usize = 1_024;
/// Seconds that a handshake may take, and then the first subscription; the connection is closed.
pub const QUIC_FIRST_ASK_SECONDS_MAX: u64 = 10;
/// Seconds without a packet of the client, or without a stream, after which a connection is closed.
pub const QUIC_IDLE_SECONDS_MAX: u64 = 30;
/// Streams that a client has open on one connection, and so its subscriptions there. Over: it waits.
pub const QUIC_STREAMS_PER_CONNECTION_MAX: u32 = 100;
/// Unidirectional streams that a client has open on one connection: HTTP/3 needs three. Over: it waits.
pub const QUIC_CLIENT_STREAMS_MAX: u32 = 8;
/// Streams of one connection that came to nothing: refused, given up before they were answered, not of the protocol. Over: the
/// connection is closed.
pub const QUIC_STREAMS_WASTED_MAX: u32 = 1_000;
/// Datagrams of one client, which has no use for them; dropped. Over: the connection is closed.
pub const QUIC_CLIENT_DATAGRAMS_MAX: u32 = 1_000;
/// Bytes of datagrams of one client that are kept until they are dropped.
pub const QUIC_CLIENT_DATAGRAM_BYTES: usize = 2 << 10;
/// Bytes of what a client says in one frame. Over: the stream is refused.
pub const QUIC_CONTROL_FRAME_BYTES_MAX: usize = 16 << 10;
/// Frames that a client may say before its `subscribe`. Over: the stream is refused.
pub const QUIC_UNKNOWN_FRAMES_MAX: usize = 16;
/// Bytes that a client may send on a stream, and on all streams of a connection, before they are read.
pub const QUIC_RECEIVE_BYTES_MAX: (u32, u32) = (QUIC_CONTROL_FRAME_BYTES_MAX as u32 + 64, 128 << 10);
/// Bytes sent on one connection that are not acknowledged yet. Full: its streams wait, and their buffers fill.
pub const QUIC_SEND_BYTES_MAX: u64 = 512 << 10;
/// Bytes of asides that wait to go as datagrams on one connection. Full: the oldest is dropped.
pub const QUIC_DATAGRAM_SEND_BYTES_MAX: usize = 64 << 10;
/// Datagrams of clients whose address changed that wait for their core. Full: dropped, as if the network had lost them.
pub const QUIC_FORWARDED_MAX: usize = 2 << 10;
/// Bytes of a datagram that is handed on to its core; larger ones nobody is told to send.
pub const QUIC_FORWARDED_BYTES_MAX: usize = 1_500;
/// Days for which a node's own certificate is good: browsers take at most 14.
pub const DEVELOPMENT_CERTIFICATE_DAYS: u64 = 10;

const _: () = assert!(HUB_READS_MAX < SUBSCRIBERS_PER_CORE_MAX, "reads are shared by subscribers");
