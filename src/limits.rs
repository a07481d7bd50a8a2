//! Every bound of the node, in one place, with the reason for its size and the asserts that tie them together.
//!
//! Nothing that comes from outside is unbounded. Over a limit the caller gets an error that names the limit
//! (the constant's name in lower case) before any work is done. A limit that an operator may move has the same
//! name under `limits.` in the configuration; the value here is then its default.

mod streams;

pub use streams::*;

// ── requests ───────────────────────────────────────────────────────────────────────────────────────────────
/// Bytes of one request body. A bigger payload belongs in the content store, by reference.
pub const REQUEST_BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes from which an answer is packed for clients that take that; below it the head is most of it.
pub const PACKED_BYTES_MIN: usize = 1 << 10;
/// Bytes up to which it is: packing takes some 10 ms a MiB.
pub const PACKED_BYTES_MAX: usize = 16 << 20;
/// Bytes up to which it is packed on the core's own thread, in some 0.2 ms; more goes to a blocking thread.
pub const PACKED_AT_ONCE_BYTES_MAX: usize = 32 << 10;
/// Requests that one token (without tokens: one address) may send in a second; 0 is as many as it likes.
pub const REQUESTS_PER_SECOND: u64 = 0;
/// Callers whose requests are counted apart (`limits.requests_per_second`); further ones share with others.
pub const RATE_CELLS: usize = 64 << 10;
/// Bytes of a request's head (request line and headers).
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 << 10;
/// Seconds a client has to send a request's head; after that the connection is closed (slowloris).
pub const REQUEST_HEAD_SECONDS_MAX: u64 = 10;
/// Seconds a client has to send a request's body.
pub const REQUEST_BODY_SECONDS_MAX: u64 = 30;
/// Bytes of all files of the audit log together (`audit.bytes_max`); above it the oldest file goes.
pub const AUDIT_BYTES_MAX: u64 = 256 << 20;
/// Bytes of one file of it; above it the next one is begun.
pub const AUDIT_FILE_BYTES: u64 = 8 << 20;
/// Bytes of one record: paths and ids in it are cut long before.
pub const AUDIT_RECORD_BYTES_MAX: usize = 8 << 10;
/// Bytes of a path in a record.
pub const AUDIT_TARGET_BYTES_MAX: usize = 256;
/// Bytes of records that wait to be written; above it changes are refused and refusals go unrecorded, counted.
pub const AUDIT_PENDING_BYTES_MAX: usize = 8 << 20;
/// Microseconds from the begin of one sync of them by a control core to the next at the earliest: what comes in between goes together.
pub const AUDIT_GATHER_MICROS: u64 = 2_000;
/// Refusals recorded in a second; more are counted, so that nobody fills the log by being refused.
pub const AUDIT_REFUSALS_PER_SECOND_MAX: u64 = 200;
/// Records between two signed checkpoints.
pub const AUDIT_RECORDS_PER_CHECKPOINT: u64 = 1_024;
/// Records looked at for one page of the log.
pub const AUDIT_SCAN_RECORDS_MAX: usize = 50_000;
/// Runs of which one control core keeps in mind whose they are; above it it asks their shards again.
pub const RUN_WORKSPACES_KEPT_MAX: usize = 16 << 10;
/// Seconds between the making of a run's id and its start that a listing by time allows for: a command may wait in its
/// shard's queue for as long as its answer is waited for.
pub const LIST_CLOCK_SLACK_SECONDS: u64 = 2 * SHARD_ANSWER_SECONDS_MAX;
/// Rounds of looking through runs of all workspaces for one page of one of them; then the page is shorter.
pub const LIST_ROUNDS_MAX: usize = 16;
/// Tokens in one file: each takes some 200 bytes of memory.
pub const TOKENS_MAX: usize = 10_000;
/// Seconds a client has for its TLS handshake; after that the connection is cut.
pub const TLS_HANDSHAKE_SECONDS_MAX: u64 = 10;
/// Bytes of an `Idempotency-Key`, ASCII, at least 1.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Bytes of a `run_key`, at least 1.
pub const RUN_KEY_BYTES_MAX: usize = 255;
/// Seconds that `Prefer: wait=N` may ask for.
pub const WAIT_SECONDS_MAX: u64 = 300;
/// Rows of one page of a listing or a timeline.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Events that `aob run explain` reads of one run; what is beyond is not explained, and that is said.
pub const EXPLAIN_EVENTS_MAX: u64 = 20_000;
/// Nodes that `aob run watch` keeps for its picture; what is beyond is counted, not drawn.
pub const WATCH_NODES_MAX: usize = 2_000;
/// Rows of a page when the caller does not say.
pub const PAGE_ROWS_DEFAULT: usize = 100;
/// Requests that one control core has under way at a shard; above it: 503 `overloaded`, nothing applied.
pub const REQUESTS_IN_FLIGHT_PER_CORE_MAX: usize = 16 << 10;
/// Seconds a control core waits for a shard's answer; after that: 504, outcome unknown.
pub const SHARD_ANSWER_SECONDS_MAX: u64 = 30;
/// Seconds a shard's loop may stand still until the watchdog says so. It goes round every second with nothing to do.
pub const SHARD_STILL_SECONDS_MAX: u64 = 5;
/// Seconds a shard's loop, or a core that serves connections, may stand still while systemd's watchdog is fed. They move every second.
pub const FED_WHILE_STILL_SECONDS_MAX: u64 = 2;
/// Milliseconds that requests under way have to end at least once no connection is taken any more.
pub const DRAIN_GRACE_MILLIS: u64 = 1_500;
/// Milliseconds between looks whether calls are under way still, when the node stops.
pub const DRAIN_LOOK_MILLIS: u64 = 10;
/// Bytes of an `X-Request-Id`; a longer one is replaced by ours.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of the words given with a cancel.
pub const REASON_BYTES_MAX: usize = 1 << 10;
/// Compiled documents kept in memory; above it the cache is emptied and fills again from the registry.
pub const CATALOG_DOCUMENTS_MAX: usize = 1_024;
/// Tags of one workflow.
pub const TAGS_PER_WORKFLOW_MAX: usize = 64;
/// Connections one control core holds open; further ones wait in the kernel's backlog.
pub const CONNECTIONS_PER_CORE_MAX: usize = 8 << 10;

// ── summaries by a model ─────────────────────────────────────────────────────────────────────────────────────
/// Events that wait for a summary; above it the rule's summary stays until somebody reads the event again.
pub const SUMMARIES_QUEUE_MAX: usize = 256;
/// Summaries kept; above it the oldest goes.
pub const SUMMARIES_MAX: usize = 10_000;
/// Letters of an event that a model is given for a summary; what is beyond is cut.
pub const SUMMARY_DATA_LETTERS_MAX: usize = 500;
/// Letters kept of what it said.
pub const SUMMARY_LETTERS_MAX: usize = 400;
/// Tokens it may say; it is cut there.
pub const SUMMARY_TOKENS_MAX: i64 = 64;

// ── answers kept for fallbacks ──────────────────────────────────────────────────────────────────────────────
/// Seconds that `fallback: {cache: {max_age}}` may ask for: a day. A longer one is refused with the document.
pub const CACHED_AGE_SECONDS_MAX: u64 = 24 * 3_600;
/// Seconds a fallback waits for the answer that was kept; it is in memory. After that its node fails with `timeout`.
pub const CACHED_SECONDS_MAX: u64 = 30;
/// Bytes of an answer that is kept; a larger one is not, and its node has nothing to fall back on.
pub const CACHED_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Answers kept for one workspace; above it the one kept longest ago goes.
pub const CACHED_PER_WORKSPACE_MAX: usize = 512;
/// Bytes of them; above it those kept longest ago go.
pub const CACHED_BYTES_PER_WORKSPACE_MAX: usize = 2 << 20;
/// Workspaces for which answers are kept; one more takes the place of the one that kept something longest ago.
pub const CACHED_WORKSPACES_MAX: usize = 64;

// ── triggers ───────────────────────────────────────────────────────────────────────────────────────────────
/// Schedules of one workspace: each is looked at when it is due, and all of them once at the start.
pub const SCHEDULES_PER_WORKSPACE_MAX: usize = 1_000;
/// Starts that the schedules of one workspace make in a minute; further ones wait for the next minute.
pub const SCHEDULE_FIRES_PER_MINUTE_MAX: u32 = 600;
/// Bytes of a schedule's inputs: they are written down with each of its starts.
pub const SCHEDULE_INPUTS_BYTES_MAX: usize = 64 << 10;
/// Entries that a schedule keeps of what became of its due times.
pub const SCHEDULE_HISTORY_ROWS_MAX: usize = 100;
/// Bytes of a cron pattern.
pub const SCHEDULE_CRON_BYTES_MAX: usize = 128;
/// Due times that are counted one by one when they were missed.
pub const SCHEDULE_MISSED_COUNTED_MAX: u32 = 1_000;
/// Due times that are decided without a start before the schedule is written down.
pub const SCHEDULE_STEPS_MAX: usize = 256;
/// Runs of one schedule that it keeps in mind to see whether they live; and starts of it that wait to be made.
pub const SCHEDULE_RUNS_KEPT_MAX: usize = 16;
/// Milliseconds between looks at what is due, and at a run whose end a start waits for.
pub const SCHEDULE_LOOK_MILLIS: u64 = 1_000;
/// Milliseconds until a start that found no room is made again.
pub const SCHEDULE_RETRY_MILLIS: u64 = 2_000;
/// Characters of the sentence that is kept of a start that was refused.
pub const SCHEDULE_DETAIL_CHARS_MAX: usize = 200;
/// Schedules that are worked on at once.
pub const SCHEDULES_AT_ONCE: usize = 32;
/// Due times that a schedule is shown with.
pub const SCHEDULE_UPCOMING: usize = 5;
/// Seconds that `catch_up` is at least: no start is made in the very moment.
pub const SCHEDULE_CATCH_UP_SECONDS_MIN: u64 = 10;
/// Seconds of `catch_up` when the author does not say.
pub const SCHEDULE_CATCH_UP_SECONDS: u64 = 60 * 60;
/// Starts by hand with an `Idempotency-Key` that a schedule remembers; more within 24 hours are refused.
pub const SCHEDULE_KEYS_MAX: usize = 1_000;
/// Seconds that `catch_up` is at most.
pub const SCHEDULE_CATCH_UP_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// Seconds that `jitter` is at most.
pub const SCHEDULE_JITTER_SECONDS_MAX: u64 = 60 * 60;
/// Hooks of one workspace.
pub const HOOKS_PER_WORKSPACE_MAX: usize = 1_000;
/// Messages that one hook takes in a second, whoever sends them.
pub const HOOK_REQUESTS_PER_SECOND: u64 = 50;
/// Messages that it takes at once after a quiet time.
pub const HOOK_REQUESTS_BURST: u64 = 200;
/// Bytes of a message to a hook.
pub const HOOK_BODY_BYTES_MAX: usize = 1 << 20;
/// Seconds that the secret before the last is good for when the author of a rotation does not say.
pub const HOOK_OVERLAP_SECONDS: u64 = 24 * 60 * 60;
/// Seconds that it is good for at most.
pub const HOOK_OVERLAP_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;

// ── batches ────────────────────────────────────────────────────────────────────────────────────────────────
/// Batches of one workspace that are kept; a new one takes the place of the oldest that is over.
pub const BATCHES_PER_WORKSPACE_MAX: usize = 200;
/// Batches of one workspace that are not over: one is under way, the others wait for their turn.
pub const BATCHES_UNFINISHED_MAX: usize = 20;
/// Batches under way at once, each of another workspace.
pub const BATCHES_AT_ONCE: usize = 4;
/// Unfinished batches that are looked at for those whose turn it is.
pub const BATCHES_LOOKED_AT: usize = 512;
/// Runs of one batch when its author does not say.
pub const BATCH_RUNS: u64 = 10_000;
/// Runs of one batch at most.
pub const BATCH_RUNS_MAX: u64 = 1_000_000;
/// Runs that a dry run counts.
pub const BATCH_COUNTED_RUNS_MAX: u64 = 10_000;
/// Runs that a dry run names.
pub const BATCH_SHOWN_RUNS: usize = 20;
/// Runs listed at once. Each listing looks at every unfinished run of every shard; the ids stand in the batch's row.
pub const BATCH_PAGE_RUNS: usize = 500;
/// Runs dealt with before that is written down: as many may be asked for again after a crash.
pub const BATCH_NOTED_RUNS: usize = 50;
/// Milliseconds after which it is written down however few they were, and whether the batch was stopped is looked at.
pub const BATCH_NOTE_MILLIS: u64 = 1_000;
/// Runs that a batch deals with in a second when its author does not say: a tenth of what a small node starts.
pub const BATCH_RUNS_PER_SECOND: u32 = 100;
/// Runs that it deals with in a second at most.
pub const BATCH_RUNS_PER_SECOND_MAX: u32 = 1_000;
/// Runs that refused which a batch names; further ones are counted.
pub const BATCH_FAILURES_KEPT: usize = 20;
/// Milliseconds between looks for batches, when nobody calls.
pub const BATCH_LOOK_MILLIS: u64 = 2_000;
/// Milliseconds between two tries of what met a passing trouble, at most.
pub const BATCH_RETRY_MILLIS_MAX: u64 = 5_000;
/// Tries with one run whose trouble may be its own: a content that is gone, an end that does not reach the index.
pub const BATCH_RUN_TRIES_MAX: u32 = 20;

// ── documents and values ───────────────────────────────────────────────────────────────────────────────────
/// Bytes of a workflow document, either spelling.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Values (scalars, lists, maps; keys not counted) in one document or one input: stops alias bombs and wide lists.
pub const VALUE_COUNT_MAX: usize = 200_000;
/// Nesting of lists and maps in any value. serde_json stops at 128 by itself; ours is lower and named.
pub const VALUE_DEPTH_MAX: usize = 64;
/// Bytes of one map key.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Bytes of a value from outside, as written, up to which it stands in the events themselves; a larger one, or a larger
/// part of one, is kept in the content store and goes by reference.
pub const INLINE_VALUE_BYTES_MAX: usize = 64 << 10;
/// Contents whose references are looked over in one turn of the collector.
pub const CONTENTS_PER_TURN: usize = 256;
/// Contents without a reference that the collector keeps in mind; the rest have their turn once these are gone.
pub const CONTENTS_UNUSED_MAX: usize = 64 << 10;
/// References that are counted for whoever asks how many a content has; 1000 stands for more.
pub const CONTENT_REFERENCES_COUNTED_MAX: usize = 1_000;
/// Bytes of a node's output or a run's input, as JSON: a request brings no more.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Tags of one node.
pub const TAGS_PER_NODE_MAX: usize = 16;
/// Bytes of a tag.
pub const TAG_BYTES_MAX: usize = 64;
/// Rules of `policy.gates`; each is looked at for every node of every workflow that is started for the first time.
pub const POLICY_RULES_MAX: usize = 64;
/// Patterns of workflows' names in one rule.
pub const POLICY_PATTERNS_MAX: usize = 64;
/// Nodes in one workflow, all scopes together.
pub const NODES_MAX: usize = 10_000;
/// Patches of one run, those taken back and the taking back included.
pub const PATCHES_PER_RUN_MAX: usize = 1_000;
/// Bytes of the operations of one run's patches, which it keeps as long as it runs.
pub const PATCH_BYTES_PER_RUN_MAX: usize = 8 << 20;
/// Refused patches of one run that are written down; after these the run takes no patch any more.
pub const PATCH_REJECTIONS_PER_RUN_MAX: u32 = 1_000;
/// Nodes in the graph of one run with all its patches, those that were taken out again included.
pub const RUN_GRAPH_NODES_MAX: usize = 20_000;
/// Bytes of a patch's justification, or of the reason why one is taken back.
pub const JUSTIFICATION_BYTES_MAX: usize = 4 << 10;
/// Patches of one workflow's scope that are noted, those that were taken back or rejected included.
pub const PATCHES_PER_WORKFLOW_MAX: usize = 1_000;
/// Bytes of their operations, all together.
pub const PATCH_BYTES_PER_WORKFLOW_MAX: usize = 8 << 20;
/// Patch sets of one workflow.
pub const PATCH_SETS_PER_WORKFLOW_MAX: usize = 16;
/// Weight of a patch set: the share of starts that it gets among all of them.
pub const PATCH_SET_WEIGHT_MAX: u32 = 1_000_000;
/// Finished runs that a report of an experiment counts, the newest.
pub const EXPERIMENT_RUNS_MAX: usize = 1_000_000;
/// Moves of a tag that are remembered; the oldest is forgotten first.
pub const TAG_MOVES_MAX: usize = 1_000;
/// Characters of a value in the text form of a difference between two graphs; what is longer is shortened there.
pub const DIFF_VALUE_CHARS_MAX: usize = 120;
/// Documents made by patches that are kept in memory; others are derived again when they are asked for.
pub const PATCHED_DOCUMENTS_MAX: usize = 4_096;
/// Bytes of their text, all together.
pub const PATCHED_DOCUMENTS_BYTES_MAX: usize = 64 << 20;
/// Weight of the operations of a patch that a control core compiles itself; larger ones go to a thread that may block. At what
/// parsing expressions takes (see [`EXPRESSIONS_BYTES_MAX`]) the worst of them keeps a core for some 2 ms.
pub const PATCH_ON_CORE_BYTES_MAX: usize = 1 << 10;
/// Bytes of the document that such a patch is put on.
pub const PATCH_ON_CORE_DOCUMENT_BYTES_MAX: usize = 8 << 10;
/// Times that a patch is put on a graph that has changed meanwhile before its author is told to try again.
pub const PATCH_REBASES_MAX: u32 = 32;
/// Parts that workflows are dealt into; each is one thread's of the materialiser.
pub const MATERIALIZER_PARTITIONS: usize = 32;
/// Patches that one thread of the materialiser is told of ahead; above it the thread reads the index instead.
pub const MATERIALIZER_QUEUE_MAX: usize = 16 << 10;
/// Seconds that `?wait=materialized` waits for an artifact when the caller does not say.
pub const ARTIFACT_WAIT_SECONDS: u64 = 30;
/// Edges in one workflow, all scopes together.
pub const EDGES_MAX: usize = 50_000;
/// Scopes inside scopes (a map in a map in a map ...).
pub const SCOPE_DEPTH_MAX: usize = 8;
/// Bytes of a node id. Ids are `[A-Za-z0-9_-]` and dots are kept for paths.
pub const NODE_ID_BYTES_MAX: usize = 128;
/// Bytes of a workflow's name or version.
pub const NAME_BYTES_MAX: usize = 128;
/// Findings reported for one document; the rest is counted.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Bytes of all JSON Schemas in one document together, as JSON.
pub const SCHEMA_BYTES_MAX: usize = 128 << 10;
/// Regular expressions in all JSON Schemas of one document together: each takes up to 1 ms to compile.
pub const SCHEMA_PATTERNS_MAX: usize = 128;
/// Subschemas of one JSON Schema that may look at one and the same value: references that double at each step would
/// make 2^n of n lines.
pub const SCHEMA_VISITS_MAX: u64 = 1_000;
/// Branches of one conditional.
pub const BRANCHES_MAX: usize = 256;
/// Operations of one patch.
pub const PATCH_OPERATIONS_MAX: usize = 100;
/// Bytes of the operations of one patch, as JSON; they stand in the run's history.
pub const PATCH_BYTES_MAX: usize = 256 << 10;
/// Nodes that one patch may add, bodies included. What a workflow may have in all its own `limits.nodes` says.
pub const PATCH_NODES_ADDED_MAX: usize = 100;

// ── expressions ────────────────────────────────────────────────────────────────────────────────────────────
/// Bytes of one expression's source.
pub const EXPRESSION_BYTES_MAX: usize = 16 << 10;
/// Different expressions in one document. Parsing one costs some 0.1 ms at least.
pub const EXPRESSIONS_MAX: usize = 6_000;
/// Bytes of all different expressions in one document: parsing takes up to 3 ms a KiB, away from the cores but for small
/// patches ([`PATCH_ON_CORE_BYTES_MAX`]).
pub const EXPRESSIONS_BYTES_MAX: usize = 256 << 10;
/// Nesting of one expression, as parsed.
pub const EXPRESSION_DEPTH_MAX: usize = 48;
/// Operators in a row (`a + b + c`, `a.b.c`) and brackets around them, together: a syntax tree is as deep as they are
/// many, and it is walked by recursion. At under 2 KiB of stack a level this fits any thread of ours.
pub const EXPRESSION_CHAIN_MAX: usize = 256;
/// Bytes of one regular expression given to `matches`.
pub const EXPRESSION_PATTERN_BYTES_MAX: usize = 1 << 10;
/// Bytes of one compiled regular expression: matching takes time in proportion.
pub const EXPRESSION_PATTERN_PROGRAM_BYTES_MAX: usize = 32 << 10;
/// Steps of one evaluation: a step is one operation, or one element or 16 bytes that an operation touches.
/// Dearer operations cost more, so that a step takes some 3 to 11 ns: no evaluation holds a core for 10 ms
/// (`benches/expression_bombs.rs`), and one over 10,000 records is possible.
pub const EXPRESSION_STEPS_MAX: u64 = 600_000;

// ── runs ───────────────────────────────────────────────────────────────────────────────────────────────────
/// Items of one map. Wider data is mapped in chunks by the workflow.
pub const MAP_ITEMS_MAX: usize = 10_000;
/// Nodes of items of one map that are under way at once; items beyond that wait for their turn, whatever
/// `max_concurrency` says. Opening items is no event, so without this a wide map of large bodies could take a node's
/// memory at one stroke. Part of what documents mean: another value is another `SEMANTICS_VERSION`.
pub const MAP_NODES_OPEN_MAX: usize = 64 << 10;
/// Events in one run's history; the run fails with `history_limit` when it would grow further.
pub const RUN_EVENTS_MAX: u64 = 250_000;
/// Unfinished runs one shard holds; above it a start is refused with 503 `too_many_runs`.
pub const RUNS_LIVE_PER_SHARD_MAX: usize = 1_000_000;
/// Bytes of values one run keeps hot (inputs, outputs that may still be read).
pub const RUN_VALUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a run's record as one file (`aob replay --bundle`), and of what a fork begins with; larger ones are refused.
pub const BUNDLE_BYTES_MAX: usize = 64 << 20;
/// Bytes of events that a fork begins with; a run with more up to there cannot be forked.
pub const FORK_BYTES_MAX: usize = 8 << 20;
/// Records of runs that one control core reads at a time for bundles, states and forks; more are refused, to be sent again.
pub const RECORDS_PER_CORE_MAX: u32 = 2;
/// Signals kept for a run before anyone waits for them.
pub const SIGNALS_KEPT_MAX: usize = 64;
/// Requests with an `Idempotency-Key` that a run remembers; more within 24 hours are refused.
pub const KEYS_PER_RUN_MAX: usize = 1_000;
/// Longest delay or deadline: 366 days.
pub const DURATION_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// Engine steps one run takes before the shard turns to the next run.
pub const STEPS_PER_SLICE: u32 = 512;
/// Seconds that a cancelled run waits for its attempts under way to end; after that it is cancelled without them.
pub const CANCEL_GRACE_SECONDS_MAX: u64 = 30;
/// Calls of one node in all, unless `unlimited: true` is asked for.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Seconds that whoever failed may ask to be left alone (`Retry-After`); a longer wish is cut to this.
pub const RETRY_AFTER_SECONDS_MAX: u64 = 60 * 60;
/// Seconds an attempt of an `http` may take when nothing is said.
pub const HTTP_SECONDS_DEFAULT: u64 = 60;
/// Bytes of one secret.
pub const SECRET_BYTES_MAX: usize = 16 << 10;
/// Bytes from which a spelling of a secret is taken out of answers; shorter ones stand in too many other texts.
pub const SECRET_REDACTED_BYTES_MIN: usize = 4;
/// Bytes of an answer to an `http`, decompressed; what is longer is not read on.
pub const HTTP_ANSWER_BYTES_MAX: usize = 2 << 20;
/// Bytes of the head of an answer to an `http`.
pub const HTTP_ANSWER_HEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of the URL of an `http`, its query included.
pub const HTTP_URL_BYTES_MAX: usize = 16 << 10;
/// Redirects that one attempt follows.
pub const HTTP_REDIRECTS_MAX: u32 = 5;
/// Addresses of one name that are looked at; a name with more is refused.
pub const HTTP_ADDRESSES_MAX: usize = 64;
/// Seconds to look up a name, to connect to one of its addresses, and for a TLS handshake.
pub const HTTP_CONNECT_SECONDS_MAX: u64 = 10;
/// Connections kept open for further calls, in all, and seconds after which one is closed.
pub const HTTP_IDLE_CONNECTIONS_MAX: usize = 256;
/// See [`HTTP_IDLE_CONNECTIONS_MAX`].
pub const HTTP_IDLE_SECONDS_MAX: u64 = 30;
/// Services whose circuit breakers are kept; with more, the one whose calls are longest ago is forgotten.
pub const BREAKERS_MAX: usize = 1_024;
/// Seconds that a call waits for the answer to another one that tries out whether a service works again.
pub const BREAKER_PROBE_WAIT_SECONDS: u64 = 5;
/// Circuit breakers that metrics tell apart; further ones are one.
pub const METRIC_BREAKERS_MAX: usize = 256;
/// How long a read of the store may take before it is answered that there is none.
pub const STORE_READ_SECONDS_MAX: u64 = 10;
/// How long the store is left alone after it has failed again and again: it is this machine's own, and soon tried again.
pub const STORE_OPEN_SECONDS: u64 = 2;
/// Letters of the name that a circuit breaker goes by; of a longer one the end is left out.
pub const BREAKER_NAME_LETTERS_MAX: usize = 256;
/// Dead letters kept of one run; further failures of it stand in its history alone.
pub const LETTERS_PER_RUN_MAX: u32 = 1_000;
/// Letters of a failure's message that its dead letter is listed with.
pub const LETTER_MESSAGE_LETTERS_MAX: usize = 512;
/// Dead letters looked at for one page of a listing.
pub const LETTERS_SCANNED_MAX: usize = 10_000;
/// Dead letters that one request purges.
pub const LETTERS_PURGED_MAX: usize = 1_000;
/// Providers of models in the configuration: each is a label of metrics.
pub const MODEL_PROVIDERS_MAX: usize = 64;
/// Models in the configuration: each is a label of metrics, with a breaker and a room of its own.
pub const MODELS_MAX: usize = 256;
/// Bytes of a name of a provider or a model.
pub const MODEL_NAME_BYTES_MAX: usize = 64;
/// Bytes of a request to a model: more than the largest context there is.
pub const MODEL_REQUEST_BYTES_MAX: usize = 16 << 20;
/// Bytes of what one tool brought that a model is shown; the rest is cut, and it is told so.
pub const MODEL_TOOL_RESULT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a model's answer: its text and the arguments of its calls together.
pub const MODEL_ANSWER_BYTES_MAX: usize = 768 << 10;
/// Bytes of a streamed answer on the wire: each token comes in some 200 bytes.
pub const MODEL_STREAM_BYTES_MAX: usize = 64 << 20;
/// Bytes of one line, and of one event, of it.
pub const MODEL_LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes of the answer to a call that was refused: the provider's words are in its beginning.
pub const MODEL_REFUSAL_BYTES_MAX: usize = 64 << 10;
/// Letters of a provider's own words in a failure.
pub const MODEL_WORDS_MAX: usize = 400;
/// Tools that one answer may ask for.
pub const MODEL_TOOL_CALLS_MAX: usize = 64;
/// Calls of one model that wait for a place; further ones are refused.
pub const MODEL_CALLS_WAITING_MAX: usize = 1_024;
/// Seconds that one call may take when the configuration says nothing.
pub const MODEL_SECONDS_DEFAULT: u64 = 5 * 60;
/// Seconds between two pieces of a streamed answer when the configuration says nothing.
pub const MODEL_IDLE_SECONDS_DEFAULT: u64 = 60;
/// Calls of one model under way at once when the configuration says nothing.
pub const MODEL_CALLS_DEFAULT: u64 = 32;
/// Milliseconds that a whole streamed answer is given to end, so that its connection can be used again.
pub const MODEL_STREAM_END_MILLIS: u64 = 100;
/// Bytes of an answer as it comes that are held back until a word is whole.
pub const DELTA_BYTES_MAX: usize = 4 << 10;
/// Pieces of text that wait for whoever listens to a call; further ones are left out.
pub const MODEL_DELTAS_MAX: usize = 256;
/// Tokens that a provider adds to a request by itself: its words about tools, and what separates turns.
pub const MODEL_OVERHEAD_TOKENS: u64 = 1_024;
/// Seconds after which an overloaded provider that does not say when is called again (F373).
pub const MODEL_OVERLOADED_SECONDS: u64 = 60;
/// Seconds an attempt of an `agent` may take when nothing is said.
pub const AGENT_SECONDS_DEFAULT: u64 = 10 * 60;
/// Answers of models that an agent may have when nothing is said (`max_turns`).
pub const AGENT_TURNS_DEFAULT: u32 = 20;
/// Answers of models that an agent may have at most.
pub const AGENT_TURNS_MAX: u32 = 1_000;
/// Roles that a document may define under `agents`.
pub const AGENT_ROLES_MAX: usize = 256;
/// Models on the ladder of a role, its `model` included.
pub const AGENT_MODELS_MAX: usize = 16;
/// Tokens that an answer of a model may be allowed to have (`max_output_tokens`).
pub const OUTPUT_TOKENS_MAX: u32 = 1_000_000;
/// How often an agent is told that its answer is not what was asked for; then it fails.
pub const AGENT_CORRECTIONS_MAX: usize = 3;
/// Words of the summary of an event or a run (F340).
pub const SUMMARY_WORDS_MAX: usize = 15;
/// Agents (workflow and role) whose calls since the node began are remembered.
pub const AGENTS_SEEN_MAX: usize = 4_096;
/// Workflows that are looked through for one page of agents.
pub const AGENTS_WORKFLOWS_SCANNED_MAX: usize = 200;
/// Texts that one call turns into vectors (`with.embed`).
pub const EMBED_TEXTS_MAX: usize = 256;
/// Numbers of one vector that may be asked for (`with.dimensions`).
pub const EMBED_DIMENSIONS_MAX: u32 = 16_384;
/// Numbers of all vectors that one call brings: 32 vectors of 1,536.
pub const EMBED_NUMBERS_MAX: usize = 49_152;
/// Bytes of one answer of a model, its calls of tools included.
pub const AGENT_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Agents of a role that may be said to have a turn at once (`max_concurrency`).
pub const AGENTS_CONCURRENCY_MAX: u32 = 1_000_000;
/// Turns of one role that wait for a place; further ones are refused, to be tried again.
pub const AGENTS_WAITING_MAX: usize = 10_000;
/// Tokens that an agent's conversation may be said to have (`memory.max_tokens`).
pub const MEMORY_TOKENS_MAX: u32 = 100_000_000;
/// Answers of an agent that stay when its conversation is trimmed and nothing is said (`memory.keep_turns`).
pub const MEMORY_TURNS_DEFAULT: usize = 2;
/// Bytes of a token where no better is known, for telling whether a conversation fits. What is reserved is counted otherwise.
pub const MODEL_TOKEN_BYTES_LIKELY: u64 = 4;
/// Bytes of an agent's whole conversation; over it the agent fails.
pub const AGENT_CONVERSATION_BYTES_MAX: usize = 4 << 20;
/// Days for which sums of what runs used are kept.
pub const USAGE_DAYS_MAX: u32 = 400;
/// Minutes for which sums of what runs used are kept: a day, and what a window of a day looks back further.
pub const USAGE_MINUTES_MAX: u32 = 25 * 60;
/// Sums of days that one answer of `/v1/usage` is made of.
pub const USAGE_ROWS_MAX: usize = 100_000;
/// Budgets wider than a run that a configuration may have.
pub const BUDGETS_MAX: usize = 256;
/// Calls of models under way that count towards a budget wider than a run's. Full: further ones are refused, to be tried again.
pub const LEDGER_OPEN_MAX: usize = 65_536;
/// Tools that one answer of a model may ask for.
pub const AGENT_CALLS_MAX: usize = 64;
/// Seconds an attempt of a `task` may take when nothing is said.
pub const TASK_SECONDS_DEFAULT: u64 = 60 * 60;
/// Seconds that a level of priority is worth to a job that waits for a worker: one of low priority goes before those of
/// high priority that came this often twice later.
pub const TASK_AGEING_SECONDS: u64 = 10;
/// Seconds a worker has a job without a heartbeat when the configuration says nothing; then the attempt has failed.
pub const LEASE_SECONDS_DEFAULT: u64 = 30;
/// Milliseconds between two looks at which leases have run out.
pub const LEASE_LOOK_MILLIS: u64 = 250;
/// Letters of a code or a message that a worker gives.
pub const FAILURE_LETTERS_MAX: usize = 4_096;
/// Queues of workers that metrics tell apart; further ones are one.
pub const METRIC_QUEUES_MAX: usize = 256;
/// Jobs one poll is given.
pub const POLL_JOBS_MAX: usize = 256;
/// Queues one poll may name.
pub const POLL_QUEUES_MAX: usize = 32;
/// Workspaces that a poll may name.
pub const POLL_WORKSPACES_MAX: usize = 32;
/// The weight of a workspace in the turns of workers.
pub const WORKSPACE_WEIGHT_MAX: u64 = 1_000;
/// Milliseconds one poll waits.
pub const POLL_WAIT_MILLIS_MAX: u64 = 60_000;
/// Polls that wait at once on one control core; further ones are answered at once.
pub const POLLS_WAITING_MAX: usize = 4_096;
/// Results, failures or heartbeats in one request.
pub const WORKER_ITEMS_MAX: usize = 256;
/// Passes of one loop.
pub const LOOP_ITERATIONS_MAX: u32 = 10_000;
/// Branches of one `parallel`.
pub const PARALLEL_BRANCHES_MAX: usize = 256;
/// Steps of one escalation.
pub const ESCALATIONS_MAX: usize = 16;
/// Names that one review, or one step of its escalation, may ask.
pub const REVIEWERS_MAX: usize = 64;
/// Reviews that are over looked at for one page of a listing that filters; then the page is shorter.
pub const APPROVALS_SCANNED_MAX: usize = 10_000;
/// Webhooks of one workspace: each is looked at for every review that is asked for.
pub const WEBHOOKS_PER_WORKSPACE_MAX: usize = 32;
/// Bytes of a webhook's URL.
pub const WEBHOOK_URL_BYTES_MAX: usize = 2_048;
/// Deliveries of all webhooks that wait for their time; further ones wait as notices until there is room.
pub const WEBHOOK_DELIVERIES_MAX: usize = 10_000;
/// Deliveries of one webhook that were given up and are kept; the oldest go first.
pub const WEBHOOK_DEAD_LETTERS_MAX: usize = 1_000;
/// Deliveries under way at once.
pub const WEBHOOK_CALLS_MAX: usize = 32;
/// Seconds an attempt of a delivery may take.
pub const WEBHOOK_ATTEMPT_SECONDS_MAX: u64 = 15;
/// Milliseconds between two attempts at most.
pub const WEBHOOK_PAUSE_MILLIS_MAX: u64 = 3_600_000;
/// Seconds a signed link to a review is good for when the review has no end of its own.
pub const REVIEW_LINK_SECONDS_MAX: u64 = 7 * 86_400;
/// Bytes of a review's data that its page shows.
pub const REVIEW_PAGE_DATA_BYTES_MAX: usize = 256 << 10;
/// Fields of a form that its page has.
pub const REVIEW_PAGE_FIELDS_MAX: usize = 256;
/// Runs inside runs inside runs: children of children.
pub const CHILD_DEPTH_MAX: u32 = 16;
/// Bytes of a key of `limits.concurrency` or `limits.rate`, as evaluated.
pub const ADMISSION_KEY_BYTES_MAX: usize = 256;
/// Largest `max` of `limits.concurrency` and `limits.rate`.
pub const ADMISSION_MAX: u32 = 1_000_000;
/// Seconds of the longest `per` of `limits.rate`: keys are kept in memory until their time is over.
pub const RATE_SECONDS_MAX: u64 = 24 * 60 * 60;
/// Keys of `limits.rate` that a node keeps beyond those of waiting runs; when it is full, runs of further keys wait until
/// the time of others is over.
pub const RATE_KEYS_MAX: usize = 1 << 20;
/// Seconds that a level of priority is worth to a run that waits to be admitted.
pub const ADMISSION_AGEING_SECONDS: u64 = 10;
/// Runs ahead of a waiting one that are counted; more are told as this many.
pub const AHEAD_COUNTED_MAX: usize = 10_000;
/// Runs that have a slot and are named to one that waits for it.
pub const HOLDERS_SHOWN_MAX: usize = 8;
/// Workflows whose waiting runs metrics tell apart; further ones are one.
pub const METRIC_WORKFLOWS_MAX: usize = 256;
/// Clients that wait for one run's end, or for the answers to their updates of it, at the same time.
pub const WAITERS_PER_RUN_MAX: usize = 1_024;
/// Names of awaited signals that whoever brings another is told.
pub const SIGNAL_NAMES_TOLD_MAX: usize = 8;

// ── tools of agents ────────────────────────────────────────────────────────────────────────────────────────
/// Tools that one agent may be allowed, by name, and that a model is told of.
pub const TOOLS_PER_AGENT_MAX: usize = 128;
/// Bytes of a tool's name, as providers of models take it.
pub const TOOL_NAME_BYTES_MAX: usize = 64;
/// Bytes of a tool's description; one that a tool server gives is cut.
pub const TOOL_DESCRIPTION_BYTES_MAX: usize = 4 << 10;
/// Bytes of the JSON Schema of a tool's arguments.
pub const TOOL_SCHEMA_BYTES_MAX: usize = 32 << 10;
/// Bytes of the arguments of one call of a tool, as JSON.
pub const TOOL_ARGUMENTS_BYTES_MAX: usize = 256 << 10;
/// Places in a tool's arguments that do not fit and are told.
pub const TOOL_ARGUMENTS_PLACES_MAX: usize = 8;
/// Bytes of what a tool brings, as JSON. A text that is longer is cut, and says so.
pub const TOOL_RESULT_BYTES_MAX: usize = 256 << 10;
/// Seconds a call of a tool may take when nothing is said.
pub const TOOL_SECONDS_DEFAULT: u64 = 60;
/// Seconds a call of a tool may take at most.
pub const TOOL_SECONDS_MAX: u64 = 60 * 60;
/// Tool servers of one node.
pub const TOOL_SERVERS_MAX: usize = 64;
/// Bytes of the name of a tool server.
pub const TOOL_SERVER_NAME_BYTES_MAX: usize = 24;
/// Tools that one tool server may list; one that lists more is not used.
pub const TOOL_SERVER_TOOLS_MAX: usize = 1_024;
/// Bytes of one message of a tool server.
pub const TOOL_SERVER_MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes that a tool server may send without ending a call; then its connection is closed.
pub const TOOL_SERVER_UNASKED_BYTES_MAX: usize = 64 << 20;
/// Seconds to start a tool server or to connect to it, until it has said what it speaks.
pub const TOOL_SERVER_CONNECT_SECONDS_MAX: u64 = 30;
/// Milliseconds before a tool server that died is started again; doubled each time it dies before it has answered a call.
pub const TOOL_SERVER_PAUSE_MILLIS_MIN: u64 = 500;
/// See [`TOOL_SERVER_PAUSE_MILLIS_MIN`].
pub const TOOL_SERVER_PAUSE_MILLIS_MAX: u64 = 60_000;
/// Bytes of a line that a tool server writes to its standard error; the rest of it is left out of the log.
pub const TOOL_SERVER_LINE_BYTES_MAX: usize = 512;
/// Lines of one tool server that are logged in a second; further ones are left out and counted.
pub const TOOL_SERVER_LINES_PER_SECOND_MAX: u64 = 10;
/// Seconds that a list of tools is kept when its server does not say, and at most.
pub const TOOL_LIST_SECONDS_DEFAULT: u64 = 60;
/// See [`TOOL_LIST_SECONDS_DEFAULT`].
pub const TOOL_LIST_SECONDS_MAX: u64 = 60 * 60;
/// Largest `max_in_flight` of a tool server.
pub const TOOL_SERVER_CALLS_MAX: usize = 1_024;
/// Calls that wait for a place at one tool server; further ones are refused.
pub const TOOL_CALLS_WAITING_MAX: usize = 256;
/// Largest `calls_per_minute`.
pub const TOOL_CALLS_PER_MINUTE_MAX: u64 = 1_000_000;
/// Hosts of HTTP tools whose pace and failures are kept; beyond that the first that nobody calls is forgotten.
pub const TOOL_HOSTS_MAX: usize = 1_024;
/// Tools that metrics tell apart; further ones are one.
pub const METRIC_TOOLS_MAX: usize = 256;

// ── queues and the log ─────────────────────────────────────────────────────────────────────────────────────
/// Commands waiting for one shard. Full: the sender is refused with 503 `shard_queue_full`, nothing applied.
pub const SHARD_QUEUE_COMMANDS_MAX: usize = 16 << 10;
/// Replies waiting for one control core. Never full: every reply has a slot reserved by its request.
pub const REPLY_QUEUE_MAX: usize = 2 * REQUESTS_IN_FLIGHT_PER_CORE_MAX;
/// Event batches waiting for the fanout plane. Full: the run's watch is marked lagged and re-read from history.
pub const FANOUT_QUEUE_MAX: usize = 8 << 10;
/// Bytes of one journal batch. A shard takes nothing new above [`JOURNAL_BATCH_BYTES_FULL`]; what was begun then still fits.
pub const JOURNAL_BATCH_BYTES_MAX: usize = 24 << 20;
/// Bytes of an open batch at which a shard takes nothing new until the batch before it is durable.
pub const JOURNAL_BATCH_BYTES_FULL: usize = 4 << 20;
/// Bytes of values that one slice of one run may put into a batch before the shard turns to the next run.
pub const SLICE_BYTES_MAX: usize = 1 << 20;
/// Seals of one shard's history (216 bytes each once what they spoke for is forgotten); above it the oldest of those go.
pub const SEALS_PER_SHARD_MAX: usize = 16 << 10;
/// Smallest `journal.segment_bytes`: a frame of the largest batch must fit.
pub const JOURNAL_SEGMENT_BYTES_MIN: u64 = 32 << 20;
/// Bytes of one journal segment file, prezeroed.
pub const JOURNAL_SEGMENT_BYTES: u64 = 64 << 20;
/// Errands waiting for one control core. Full: the shard keeps them and tries again.
pub const ERRANDS_QUEUE_MAX: usize = 16 << 10;
/// Errands one control core has under way; further ones wait in their queue.
pub const ERRANDS_PER_CORE_MAX: usize = 256;
/// Milliseconds between two tries of an errand that a shard had no room for, at most.
pub const ERRAND_RETRY_MILLIS_MAX: u64 = 1_000;
/// Messages to the index thread, and back to one shard. Full: the shard keeps its rows and tries again.
pub const INDEX_QUEUE_MAX: usize = 4 << 10;
/// Segments waiting to be moved to history. Full: they are offered again after a while.
pub const SEGMENTS_TO_MOVE_MAX: usize = 1 << 10;
/// Finished runs of one shard that wait for the index; above it the shard takes no further commands.
pub const UNINDEXED_RUNS_MAX: usize = 200_000;
/// Milliseconds that an acknowledged batch may wait for its sync at level `os`.
pub const JOURNAL_UNSYNCED_MILLIS_MAX: u64 = 50;
/// Milliseconds that connecting to a store (Redis) may take.
pub const STORE_CONNECT_MILLIS_MAX: u64 = 2_000;
/// Milliseconds that it may take to answer one request; then the connection is given up.
pub const STORE_ANSWER_MILLIS_MAX: u64 = 5_000;
/// Seconds for which a request is sent to it again and again; then the journal ends, as after a failed sync. A cluster of Redis has
/// elected another primary long before.
pub const STORE_OUTAGE_SECONDS_MAX: u64 = 30;
/// Seconds for which a node may own a store without saying so again.
pub const STORE_LEASE_SECONDS_MAX: u64 = 60;
/// Requests that a node which does not own its store passes on at the same time.
pub const FORWARDS_MAX: usize = 8_192;
/// Bytes of a body that is kept so that it can be sent to another owner.
pub const FORWARD_BODY_BYTES_MAX: usize = 64 << 10;
/// Milliseconds for which such a request waits for an owner.
pub const FORWARD_HOLD_MILLIS: u64 = 10_000;
/// Milliseconds that connecting to the owner may take.
pub const FORWARD_CONNECT_MILLIS_MAX: u64 = 1_000;
/// Seconds between two pings to an owner, and until one has to be answered: one that stands still is then given up.
pub const FORWARD_PING_SECONDS: u64 = 2;
/// Milliseconds for which a node that hands its store over answers as before, but says that it is not ready: health checks hear it.
pub const HANDOVER_NOTICE_MILLIS: u64 = 1_500;
/// Seconds that `aobd drain` waits for another node to recover, beside the time that both have by their settings.
pub const DRAIN_PATIENCE_SECONDS: u64 = 60;
/// Seconds that the clocks of two nodes may differ when one passes a request on to the other.
pub const HOP_SECONDS_MAX: u64 = 60;
/// Partitions of one store.
pub const STORE_PARTITIONS_MAX: usize = 1_024;
/// Requests to it that wait in line.
pub const STORE_REQUESTS_MAX: usize = 1_024;
/// Rows of an index that are changed in one step there.
pub const STORE_CHANGES_MAX: usize = 256 << 10;
/// Replicas that an acknowledgement may be asked to wait for.
pub const STORE_REPLICAS_MAX: u32 = 16;
/// Seconds an idempotency key is kept after its run ended, at least.
pub const IDEMPOTENCY_KEY_SECONDS: u64 = 24 * 60 * 60;
/// Partitions, fixed at birth: the low bits of a run id's `rand_a` say which.
pub const PARTITIONS: u16 = 64;

// ── logs ───────────────────────────────────────────────────────────────────────────────────────────────────
/// Lines that one target logs in a second; further ones are left out and counted.
pub const LOG_LINES_PER_SECOND_MAX: u64 = 1_000;
/// Lines waiting to be written. Full: left out and counted.
pub const LOG_QUEUE_LINES_MAX: usize = 8 << 10;
/// Bytes of one line's message; the rest is cut.
pub const LOG_MESSAGE_BYTES_MAX: usize = 2 << 10;

const _: () = assert!(DOCUMENT_BYTES_MAX <= REQUEST_BODY_BYTES_MAX, "a document must fit in a request");
const _: () = assert!(PATCH_BYTES_MAX <= DOCUMENT_BYTES_MAX, "what a patch adds must fit in a document");
const _: () = assert!(
    JOURNAL_BATCH_BYTES_FULL + SLICE_BYTES_MAX + 4 * VALUE_BYTES_MAX <= JOURNAL_BATCH_BYTES_MAX,
    "what one command begins must fit in a batch that was just not full"
);
const _: () = assert!(
    JOURNAL_BATCH_BYTES_MAX as u64 + 65_536 <= JOURNAL_SEGMENT_BYTES_MIN,
    "a batch must fit in a segment"
);
const _: () = assert!(JOURNAL_SEGMENT_BYTES_MIN <= JOURNAL_SEGMENT_BYTES, "the default must be allowed");
const _: () = assert!(
    MODEL_ANSWER_BYTES_MAX + MODEL_TOOL_CALLS_MAX * 1_024 <= AGENT_ANSWER_BYTES_MAX
        && MODEL_TOOL_CALLS_MAX <= AGENT_CALLS_MAX,
    "what the gateway takes, a run takes"
);
const _: () = assert!(
    EMBED_NUMBERS_MAX * 17 + EMBED_TEXTS_MAX * 4 <= AGENT_ANSWER_BYTES_MAX
        && EMBED_NUMBERS_MAX + EMBED_TEXTS_MAX < VALUE_COUNT_MAX
        && EMBED_DIMENSIONS_MAX as usize <= EMBED_NUMBERS_MAX,
    "vectors must fit in an answer (a number takes 16 bytes and a comma), and in a value"
);
const _: () = assert!(MAP_NODES_OPEN_MAX >= NODES_MAX, "one item of any map must fit in its window");
const _: () = assert!(BATCH_PAGE_RUNS <= PAGE_ROWS_MAX, "a batch lists as anybody does");
const _: () =
    assert!(BATCHES_UNFINISHED_MAX < BATCHES_PER_WORKSPACE_MAX, "one that is over must be there to go");
const _: () = assert!(VALUE_DEPTH_MAX < 128, "our depth limit must be hit before serde_json's");
const _: () = assert!(PARTITIONS.is_power_of_two() && PARTITIONS <= 4096, "a partition must fit in rand_a");
const _: () =
    assert!(REPLY_QUEUE_MAX >= REQUESTS_IN_FLIGHT_PER_CORE_MAX, "every request must have room for its reply");
