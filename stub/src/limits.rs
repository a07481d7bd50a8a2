//! Every bound of the stub, with its reason. What is over one is refused with a message that names it, or counted and left out.

/// Bytes of a request's body: a long conversation with its tools.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;
/// Bytes above which a body is large, or one that does not say how many it has.
pub(crate) const LARGE_BODY_BYTES: u64 = 256 << 10;
/// Large bodies that are read and understood at a time; others wait.
pub(crate) const LARGE_BODIES_MAX: usize = 16;
/// Seconds in which a request's body must arrive.
pub(crate) const BODY_SECONDS_MAX: u64 = 30;
/// Seconds in which a request's head must arrive, and for which a connection may be idle: longer than any pool keeps one.
pub(crate) const HEAD_SECONDS_MAX: u64 = 600;
/// Connections at a time; more wait in the listener's backlog.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;
/// Length of the listener's backlog: a load generator connects all at once.
pub(crate) const BACKLOG: u32 = 4_096;
/// Messages of a conversation.
pub(crate) const MESSAGES_MAX: usize = 10_000;
/// Tools of a request.
pub(crate) const TOOLS_MAX: usize = 1_000;
/// Bytes of a model's name: names are kept in the account.
pub(crate) const MODEL_BYTES_MAX: usize = 256;
/// Texts of one request for embeddings, as the real API has it.
pub(crate) const EMBEDDINGS_MAX: usize = 2_048;
/// Numbers of an embedding.
pub(crate) const DIMENSIONS_MAX: u64 = 4_096;
/// Numbers in all embeddings of one answer: about 50 MB of text.
pub(crate) const NUMBERS_MAX: u64 = 4 << 20;

/// Directives in one text.
pub(crate) const DIRECTIVES_MAX: usize = 1_000;
/// Rules of a script.
pub(crate) const RULES_MAX: usize = 1_000;
/// Values of a header by which one rule counts apart; calls with further values count together.
pub(crate) const COUNTERS_MAX: usize = 100_000;
/// Tool calls of one answer.
pub(crate) const CALLS_MAX: usize = 1_000;
/// Milliseconds that an answer or a chunk may be held back.
pub(crate) const DELAY_MS_MAX: u64 = 600_000;
/// Characters of one fragment of a stream.
pub(crate) const CHUNK_CHARS_MAX: u64 = 1 << 20;
/// Fragments of one answer; of a longer one each has more characters.
pub(crate) const FRAGMENTS_MAX: usize = 10_000;
/// Bytes after which an endless answer breaks off, for a caller that never gives up.
pub(crate) const ENDLESS_BYTES_MAX: u64 = 1 << 30;

/// Depth to which a schema is followed.
pub(crate) const SCHEMA_DEPTH_MAX: usize = 64;
/// Values of schemas that are looked at to make one instance.
pub(crate) const INSTANCE_STEPS_MAX: usize = 100_000;
/// Characters that a schema may ask of one string.
pub(crate) const STRING_CHARS_MAX: u64 = 1 << 20;

/// Models with lines of their own in the account; further ones share a line.
pub(crate) const MODELS_MAX: usize = 1_000;
/// Values of one header that are kept in the account; further ones are counted as left out.
pub(crate) const KEYS_MAX: usize = 200_000;
/// Bytes of a header's value that is kept; longer ones are left out.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// Values of a header that `GET /stats` lists unless `keys` says another number.
pub(crate) const KEYS_LISTED: usize = 100;
/// Requests that are kept for `GET /requests`.
pub(crate) const REQUESTS_KEPT_MAX: usize = 1_000;
/// Bytes of a kept request's body; the rest is cut off, and it says so.
pub(crate) const KEPT_BODY_BYTES_MAX: usize = 256 << 10;
/// Bytes of a kept request's headers; those that do not fit are left out.
pub(crate) const KEPT_HEADER_BYTES_MAX: usize = 16 << 10;
/// Bytes of all kept requests; the oldest go first.
pub(crate) const KEPT_BYTES_MAX: usize = 16 << 20;
